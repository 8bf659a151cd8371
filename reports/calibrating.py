"""`python -m reports calibrate`: how often the claim check is wrong, on simulated studies whose truth is known."""

import argparse
import itertools
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from reports.simulating import Design, Intervals, Shape, crossed, naive
from reports.stats import TOST_CONFIDENCE
from reports.verdict import DETECTION_CONFIDENCE
from study.power import Components

SIMULATIONS = 2000
# Fixed before any table was made.
SEED = 20240611
COVERAGE = (0.92, 0.98)
FALSELY_SUPPORTED = 0.07
SHAPES: tuple[Shape, ...] = ("normal", "skewed", "heavy-tailed")
# The pilot's residual and dialogues (study.power.PILOT), with the seed deviation at which science.md computed how the
# naive test fails.
USUAL = Components(sigma_seed=0.5, sigma_residual=5.3, sigma_item=5.0)
LARGE_ITEM = 15.0
# The margin in true standard errors: so wide that the other end of the margin plays no part at this one.
MARGIN_IN_ERRORS = 4.0
QUICK_SIMULATIONS = 300
# Studies simulated at once: bounds the working memory at some 20 MB; part of the result, as it orders the draws.
_CHUNK = 100


@dataclass(frozen=True, slots=True)
class Rate:
    """How often something happened in `of` simulations."""

    count: int
    of: int

    @property
    def share(self) -> float:
        """The rate, 0 to 1."""
        return self.count / self.of

    @property
    def error(self) -> float:
        """Its Monte Carlo standard error."""
        return math.sqrt(self.share * (1.0 - self.share) / self.of)

    def __str__(self) -> str:
        return f"{self.share:.4f} ± {self.error:.4f}"


@dataclass(frozen=True, slots=True)
class Rates:
    """How one kind of interval fares in one design, over simulated studies.

    `coverage` of the true difference by the 95% interval; `falsely_supported` where the truth lies on the margin (the
    worse of its two ends); `refuted_tie` where the truth is no difference.
    """

    coverage: Rate
    falsely_supported: Rate
    refuted_tie: Rate


@dataclass(frozen=True, slots=True)
class Limits:
    """What every judged cell must keep. Fewer simulations than 2,000 get two Monte Carlo standard errors more."""

    low: float
    high: float
    falsely_supported: float

    @classmethod
    def of(cls, simulations: int) -> "Limits":
        """The limits for so many simulations a cell."""
        slack = 0.0 if simulations >= SIMULATIONS else 2.0 * math.sqrt(0.05 * 0.95 / simulations)
        return cls(COVERAGE[0] - slack, COVERAGE[1] + slack, FALSELY_SUPPORTED + slack)


@dataclass(frozen=True, slots=True)
class Cell:
    """One row of the table: a design, its margin in points, and how the crossed and the naive interval fare.

    `judged` is False for a stress beyond what the limits are promised for.
    """

    design: Design
    margin: float
    simulations: int
    crossed: Rates
    naive: Rates
    judged: bool

    @property
    def faults(self) -> tuple[str, ...]:
        """The limits that it breaks, in words; none where it is not judged."""
        limits = Limits.of(self.simulations)
        coverage, support = self.crossed.coverage.share, self.crossed.falsely_supported.share
        faults = []
        if not limits.low <= coverage <= limits.high:
            faults.append(f"coverage {coverage:.4f} is outside [{limits.low:.3f}, {limits.high:.3f}]")
        if support > limits.falsely_supported:
            faults.append(f"falsely supported {support:.4f} is above {limits.falsely_supported:.3f}")
        return tuple(faults) if self.judged else ()


def designs(seeds: Sequence[int], dialogues: Sequence[int]) -> Iterator[Design]:
    """The judged designs: every number of seeds, dialogues and shape; unequal seeds; large item variance."""
    fewest = min(seeds)
    counts = [*((count, count) for count in seeds), (fewest, 2 * fewest)]
    for shape, both, n in itertools.product(SHAPES, counts, dialogues):
        yield Design(both, n, USUAL, shape)
    for count, n in itertools.product(seeds, dialogues):
        yield Design((count, count), n, replace(USUAL, sigma_item=LARGE_ITEM))


def stresses(seeds: Sequence[int], dialogues: Sequence[int]) -> Iterator[Design]:
    """Designs beyond the promise: unequal seeds whose effects are as skewed as the scores."""
    fewest = min(seeds)
    for n in dialogues:
        yield Design((fewest, 2 * fewest), n, USUAL, "skewed", "skewed")


def calibrate(design: Design, simulations: int, seed: int, *, judged: bool = True) -> Cell:
    """One cell. Its draws depend on `seed` and its own design alone, not on which other cells there are."""
    generator = np.random.default_rng([seed, zlib.crc32(repr(design).encode())])
    margin = MARGIN_IN_ERRORS * design.standard_error
    counts = np.zeros((2, 4), dtype=np.int64)
    for start in range(0, simulations, _CHUNK):
        arms = design.draw(generator, min(_CHUNK, simulations - start))
        counts += [_counts(crossed(*arms), margin), _counts(naive(*arms), margin)]
    of_crossed, of_naive = (_rates(row, simulations) for row in counts.tolist())
    return Cell(design, margin, simulations, of_crossed, of_naive, judged)


def _counts(found: Intervals, margin: float) -> list[int]:
    """Studies covered, supported at +margin, supported at -margin, and refuted without a difference."""
    wide, half_width = found.half_width(DETECTION_CONFIDENCE), found.half_width(TOST_CONFIDENCE)
    covered = np.abs(found.difference) < wide
    refuted = np.abs(found.difference) > margin + half_width
    # A true difference shifts every interval by itself and changes nothing else.
    supported = [np.abs(found.difference + truth) < margin - half_width for truth in (margin, -margin)]
    return [int(np.count_nonzero(happened)) for happened in (covered, *supported, refuted)]


def _rates(counts: Sequence[int], simulations: int) -> Rates:
    covered, above, below, refuted = counts
    return Rates(Rate(covered, simulations), Rate(max(above, below), simulations), Rate(refuted, simulations))


# --- the command ---

_HEADERS = (
    "seeds",
    "dialogues",
    "scores",
    "σ_S",
    "σ_e",
    "σ_g",
    "margin",
    "95% coverage",
    "falsely supported",
    "refuted tie",
    "naive 95% coverage",
    "naive falsely supported",
)


def table(cells: Sequence[Cell]) -> str:
    """The cells as a Markdown table whose columns line up in a terminal."""
    rows = [_HEADERS, *map(_row, cells)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _row(cell: Cell) -> tuple[str, ...]:
    design, sigmas = cell.design, cell.design.sigmas
    return (
        " and ".join(map(str, dict.fromkeys(design.seeds))),
        str(design.dialogues),
        design.shape + ("" if design.seed_shape == "normal" else f", seeds {design.seed_shape}"),
        *(f"{sigma:g}" for sigma in (sigmas.sigma_seed, sigmas.sigma_residual, sigmas.sigma_item)),
        f"{cell.margin:.2f}",
        *map(str, (cell.crossed.coverage, cell.crossed.falsely_supported, cell.crossed.refuted_tie)),
        *map(str, (cell.naive.coverage, cell.naive.falsely_supported)),
    )


def _name(cell: Cell) -> str:
    design = cell.design
    seeds = " and ".join(map(str, design.seeds))
    return f"seeds {seeds}, {design.dialogues} dialogues, {design.shape}, σ_g {design.sigmas.sigma_item:g}"


@dataclass(frozen=True, slots=True)
class _Whole:
    """Reads one whole number of at least `least`."""

    least: int

    def __call__(self, text: str) -> int:
        if not (text.strip().isascii() and text.strip().isdigit()) or int(text) < self.least:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least {self.least}")
        return int(text)


def _list(text: str) -> tuple[int, ...]:
    """Reads `3,5,10`: below two there is no variance to estimate."""
    return tuple(dict.fromkeys(map(_Whole(2), text.split(","))))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m reports calibrate",
        description="Simulates studies whose truth is known and prints how often the claim check is wrong.",
        epilog="Exit codes: 0 every judged cell keeps the limits, 1 one does not (named), 2 bad arguments.",
    )
    parser.add_argument("--simulations", type=_Whole(2), metavar="N", help=f"studies a cell (default {SIMULATIONS})")
    parser.add_argument("--seed", type=_Whole(0), default=SEED, metavar="K", help=f"of the draws (default {SEED})")
    parser.add_argument("--seeds", type=_list, default=(3, 5, 10), metavar="S,…", help="training seeds an arm")
    parser.add_argument("--dialogues", type=_list, default=(250, 500), metavar="N,…", help="dialogues a study")
    parser.add_argument("--quick", action="store_true", help=f"two cells, {QUICK_SIMULATIONS} simulations each")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; 0 where every judged cell keeps the limits, 1 where one does not."""
    given = _parser().parse_args(arguments)
    simulations = given.simulations or (QUICK_SIMULATIONS if given.quick else SIMULATIONS)
    judged, beyond = list(designs(given.seeds, given.dialogues)), list(stresses(given.seeds, given.dialogues))
    if given.quick:
        # The least seeds and dialogues, with normal and with skewed scores.
        first = judged[0]
        judged, beyond = [first, replace(first, shape="skewed")], []
    limits = Limits.of(simulations)
    print(f"{simulations} simulated studies a cell, seed {given.seed}; rates ± their Monte Carlo standard error.")
    print(
        f"Limits: 95% coverage in [{limits.low:.3f}, {limits.high:.3f}], falsely supported at the margin at most "
        f"{limits.falsely_supported:.3f}. Margin and deviations (σ) in points.\n"
    )
    cells = [calibrate(design, simulations, given.seed) for design in judged]
    print(table(cells))
    if beyond:
        print("\nBeyond the promise, and not judged: the effects of the training seeds are skewed too.\n")
        print(table([calibrate(design, simulations, given.seed, judged=False) for design in beyond]))
    faults = [f"{_name(cell)}: {fault}" for cell in cells for fault in cell.faults]
    print("\n" + ("\n".join(f"not kept: {fault}" for fault in faults) or "Every cell keeps the limits."))
    return 1 if faults else 0
