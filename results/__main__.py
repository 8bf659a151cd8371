"""`python -m results verify STUDY`, `export STUDY FILE` and `import FILE`."""

import argparse
import sys
from pathlib import Path

from results.archive import ArchiveError, export_study, import_study
from results.layout import DEFAULT_RESULTS, StudyFolder
from results.store import ResultsError
from results.verify import verify
from study.problems import one_line


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 done, or everything is whole; 1 something is not (listed), is busy, or cannot be read or written;
    2 bad arguments, or an archive that is refused."""
    parsed = _parser().parse_args(arguments)
    if parsed.command == "import":
        return _import(parsed.file, parsed.results)
    known = sorted(path.name for path in parsed.results.iterdir() if path.is_dir()) if parsed.results.is_dir() else []
    if parsed.study not in known:
        text = f"STUDY {parsed.study!r}: no such study in {parsed.results}; there are: {', '.join(known) or 'none'}"
        print(one_line(text), file=sys.stderr)
        return 2
    folder = StudyFolder.of(parsed.results, parsed.study)
    return _verify(folder) if parsed.command == "verify" else _export(folder, parsed.file)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m results", description="Looks after what studies recorded.")
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("verify", help="whether everything recorded is whole")
    check.add_argument("study", metavar="STUDY")
    export = commands.add_parser("export", help="write a study to one file, without any dataset text")
    export.add_argument("study", metavar="STUDY")
    export.add_argument("file", type=Path, metavar="FILE", help="the archive to write, a .tar.gz")
    take = commands.add_parser("import", help="check such a file and merge it into the study of its name")
    take.add_argument("file", type=Path, metavar="FILE", help="an archive that export wrote")
    for command in (check, export, take):
        command.add_argument("--results", type=Path, default=DEFAULT_RESULTS, metavar="DIR")
    return parser


def _verify(folder: StudyFolder) -> int:
    try:
        found = verify(folder)
    except ResultsError as error:
        return _failed("verify", error)
    for fault in found.faults:
        print(one_line(fault))
    counts = f"{found.records} records of {found.runs} runs, {found.predictions} prediction files"
    print(f"{counts}: {len(found.faults)} faults")
    return 1 if found.faults else 0


def _export(folder: StudyFolder, file: Path) -> int:
    try:
        done = export_study(folder, file)
    except ResultsError as error:
        return _failed("export", error)
    if done.left_behind is not None:
        print(one_line(f"export: {done.left_behind}"), file=sys.stderr)
    print(one_line(f"{done} to {file}"))
    return 0


def _import(file: Path, results: Path) -> int:
    try:
        done = import_study(file, results)
    except ResultsError as error:
        return _failed("import", error)
    print(one_line(str(done)))
    return 0


def _failed(command: str, error: ResultsError) -> int:
    """Says why, and returns the exit code."""
    print(one_line(f"{command}: {error}"), file=sys.stderr)
    return 2 if isinstance(error, ArchiveError) else 1


if __name__ == "__main__":
    sys.exit(main())
