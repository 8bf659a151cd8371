"""Runs a study from its grid: plan, tune, freeze, confirm, report."""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from harness.start import RunOptions, plan_only, run_grid
from reports.report import write_report
from results.layout import DEFAULT_RESULTS
from results.store import ResultsError
from study.problems import one_line


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 all planned runs done, 1 some not (listed), 2 bad arguments, grid, data or model, 130 or 143."""
    parsed = _parser().parse_args(arguments)
    console = Console()
    options = RunOptions(
        grid=parsed.grid,
        overrides=(*parsed.set, *([f"training.memory_limit={parsed.memory_limit}"] if parsed.memory_limit else [])),
        only=tuple(parsed.only),
        results=parsed.results,
        retry_failed=parsed.retry_failed,
        allow_cpu=parsed.allow_cpu,
        card=parsed.gpu,
        calibrate=parsed.calibrate,
        gpus=parsed.gpus,
        cpu_workers=parsed.cpu_workers,
        checkpoint_every=parsed.checkpoint_every,
        new_data=parsed.new_data,
    )
    if parsed.plan:
        return plan_only(options, console)
    done = run_grid(options, console)
    if done.study is None:
        return done.exit_code
    try:
        report = write_report(parsed.results, done.study, parsed.out)
    except ResultsError as error:
        _say(console, f"no report: {error}")
        return max(done.exit_code, 1)
    for line in report.summary:
        _say(console, line)
    _say(console, f"report: {report.index}")
    return done.exit_code


def _say(console: Console, text: str) -> None:
    console.print(one_line(text), markup=False, highlight=False, emoji=False, soft_wrap=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run_study.py",
        description="Compares full-precision LoRA, 8-bit LoRA and QLoRA on dialogue summarisation.",
        epilog="A second start of the same command runs what is missing and nothing else.",
    )
    parser.add_argument("--grid", required=True, metavar="G", help="a grid file, or a name in study/grids/")
    parser.add_argument("--plan", action="store_true", help="print the matrix and what it takes; run nothing")
    parser.add_argument(
        "--calibrate", action="store_true", help="a short run of every arm, from which --plan then tells times"
    )
    parser.add_argument("--gpu", metavar="SIZE", help="with --plan: does it fit a card of this size (24GiB)?")
    parser.add_argument(
        "--memory-limit",
        metavar="SIZE",
        help="confirm on a smaller card (8GiB); what does not fit ends as out_of_memory",
    )
    parser.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="change the grid: training.steps=50, arms.qlora.precision=fp4 (any number of them)",
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="ARM", help="run these arms only")
    parser.add_argument(
        "--results", type=Path, default=DEFAULT_RESULTS, metavar="DIR", help="where studies are kept (results/data)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("reports/out"), metavar="DIR", help="where reports go (reports/out)"
    )
    parser.add_argument(
        "--gpus",
        type=_gpus,
        default=1,
        metavar="N",
        help="runs at a time, each on a GPU of its own: a number, or all (1: then nothing disturbs what is timed)",
    )
    parser.add_argument(
        "--cpu-workers",
        type=_workers,
        default=1,
        metavar="N",
        help="runs at a time where the study runs on the CPU: a number, or auto (a core each, at most four)",
    )
    parser.add_argument(
        "--checkpoint-every",
        type=_steps,
        metavar="N",
        help="keep a checkpoint of a training after every N optimizer steps: interrupted, it goes on from the last one",
    )
    parser.add_argument("--retry-failed", action="store_true", help="run failed and timed-out runs again")
    parser.add_argument(
        "--new-data", action="store_true", help="go on where the data are not those of the recorded runs"
    )
    parser.add_argument("--allow-cpu", action="store_true", help="run a grid that asks for a GPU on the CPU")
    return parser


def _gpus(text: str) -> int | None:
    """How many GPUs `--gpus` asks for; None is all that are in sight."""
    return _number_or(text, "all")


def _workers(text: str) -> int | None:
    """How many workers `--cpu-workers` asks for; None is as many as suit the machine."""
    return _number_or(text, "auto")


def _number_or(text: str, word: str) -> int | None:
    return None if text == word else _number(text, f"a number from 1, or {word}")


def _steps(text: str) -> int:
    """After how many optimizer steps each `--checkpoint-every` asks for a checkpoint."""
    return _number(text, "a number of optimizer steps from 1")


def _number(text: str, choices: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r}: choose {choices}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
