"""`python -m results verify STUDY`, `export STUDY FILE`, `import FILE` and `add-predictions`."""

import argparse
import os
import sys
from pathlib import Path

from results.archive_format import ArchiveError
from results.exporting import export_study
from results.layout import DEFAULT_RESULTS, StudyFolder
from results.merging import import_study
from results.store import ResultsError
from results.verify import verify
from study.problems import one_line


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 done, or everything is whole; 1 something is not (listed), is busy, or cannot be read or written;
    2 bad arguments, or an archive or predictions that are refused."""
    parsed = _parser().parse_args(arguments)
    if parsed.command == "import":
        return _import(parsed.file, parsed.results)
    folders = parsed.results.iterdir() if os.path.isdir(parsed.results) else ()
    known = sorted(path.name for path in folders if path.is_dir())
    if parsed.study not in known:
        text = f"STUDY {parsed.study!r}: no such study in {parsed.results}; there are: {', '.join(known) or 'none'}"
        print(one_line(text), file=sys.stderr)
        return 2
    folder = StudyFolder.of(parsed.results, parsed.study)
    if parsed.command == "add-predictions":
        return _add(folder, parsed)
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
    add = commands.add_parser("add-predictions", help="score what a system from elsewhere wrote for the test split")
    _describe_adding(add)
    for command in (check, export, take, add):
        command.add_argument("--results", type=Path, default=DEFAULT_RESULTS, metavar="DIR")
    return parser


def _describe_adding(add: argparse.ArgumentParser) -> None:
    add.add_argument("--study", required=True, metavar="S")
    add.add_argument("--arm", required=True, metavar="NAME", help="the system; claims and tables call it external/NAME")
    add.add_argument(
        "--predictions",
        type=Path,
        required=True,
        metavar="F",
        help="one prediction a line, or JSONL with prediction and id",
    )
    add.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="J",
        help="the test split as the study used it: JSONL with dialogue and summary, or summary1, summary2, …",
    )
    add.add_argument("--label", type=_label, metavar="TEXT", help="what tables say of the system")
    add.add_argument("--seed", type=_seed, default=0, metavar="K", help="which of its training seeds (0)")
    add.add_argument("--replace", action="store_true", help="put these predictions in the place of other ones")


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 2**31):
        raise argparse.ArgumentTypeError(f"{text!r}: use a whole number from 0")
    return int(text)


def _label(text: str) -> str:
    if not (text.strip() and len(text) <= 200 and text.isprintable()):
        raise argparse.ArgumentTypeError(f"{text!r}: use 1 to 200 characters that can be printed")
    return text.strip()


def _add(folder: StudyFolder, parsed: argparse.Namespace) -> int:
    from results.adding import AddingError, Given, add_predictions, system_name

    try:
        name = system_name(parsed.arm)
    except ValueError as error:
        print(one_line(f"add-predictions: --arm {error}"), file=sys.stderr)
        return 2
    given = Given(name, parsed.seed, parsed.label, parsed.predictions, parsed.data, parsed.replace)
    try:
        added = add_predictions(folder, given)
    except AddingError as error:
        print(one_line(f"add-predictions: {error}"), file=sys.stderr)
        return 2
    except ResultsError as error:
        return _failed("add-predictions", error)
    print(one_line(str(added)))
    return 0


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
