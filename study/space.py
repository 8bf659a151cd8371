"""The search space and the block of hyperparameter sets that every arm is given alike."""

import math
from dataclasses import dataclass
from typing import Literal, TypeVar

from scipy.stats import qmc

N = TypeVar("N", int, float)


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """What is tuned: LoRA rank and alpha (absolute, not a multiple of the rank), and the peak learning rate."""

    rank: int
    alpha: int
    learning_rate: float


@dataclass(frozen=True, slots=True)
class Interval:
    """A continuous range, sampled uniformly in the value (`linear`) or in its logarithm (`log`)."""

    low: float
    high: float
    scale: Literal["log", "linear"]

    def at(self, unit: float) -> float:
        """The value at `unit` in [0, 1), to six significant digits: the value printed is the value used."""
        if self.scale == "log":
            value = math.exp(math.log(self.low) + unit * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + unit * (self.high - self.low)
        return min(max(float(f"{value:.6g}"), self.low), self.high)

    def edge(self, value: float, share: float = 0.05) -> Literal["low", "high"] | None:
        """Which edge `value` is at: within `share` of the range's length (on its own scale) of an end."""
        if self.scale == "log":
            position = (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        else:
            position = (value - self.low) / (self.high - self.low)
        return "low" if position <= share else "high" if position >= 1.0 - share else None


@dataclass(frozen=True, slots=True)
class Space:
    """Where hyperparameters are looked for; a choice of one value is a fixed value."""

    rank: tuple[int, ...]
    alpha: tuple[int, ...]
    learning_rate: Interval | tuple[float, ...]

    def at(self, unit: tuple[float, float, float]) -> Hyperparameters:
        """The set at a point of the unit cube, in the order rank, alpha, learning rate."""
        rank, alpha, rate = unit
        return Hyperparameters(
            rank=_pick(self.rank, rank),
            alpha=_pick(self.alpha, alpha),
            learning_rate=_rate(self.learning_rate, rate),
        )

    def narrowed(self, rank: int | None, alpha: int | None, learning_rate: float | None) -> "Space":
        """The space of an arm that fixes some of the hyperparameters."""
        return Space(
            rank=self.rank if rank is None else (rank,),
            alpha=self.alpha if alpha is None else (alpha,),
            learning_rate=self.learning_rate if learning_rate is None else (learning_rate,),
        )

    @property
    def is_point(self) -> bool:
        """Whether there is nothing to choose."""
        rates = self.learning_rate
        return len(self.rank) == 1 and len(self.alpha) == 1 and not isinstance(rates, Interval) and len(rates) == 1

    def edges(self, chosen: Hyperparameters) -> tuple[str, ...]:
        """The hyperparameters of a winner that lie at the edge of their range, such as `learning_rate high`."""
        found = []
        for name, values, value in (("rank", self.rank, chosen.rank), ("alpha", self.alpha, chosen.alpha)):
            # Of two values each is an end: a flag that is always up says nothing.
            if len(values) > 2 and value in (min(values), max(values)):
                found.append(f"{name} {'low' if value == min(values) else 'high'}")
        rates = self.learning_rate
        if isinstance(rates, Interval):
            edge = rates.edge(chosen.learning_rate)
            if edge is not None:
                found.append(f"learning_rate {edge}")
        elif len(rates) > 2 and chosen.learning_rate in (min(rates), max(rates)):
            found.append(f"learning_rate {'low' if chosen.learning_rate == min(rates) else 'high'}")
        return tuple(found)


def _pick(values: tuple[N, ...], unit: float) -> N:
    return values[min(int(unit * len(values)), len(values) - 1)]


def _rate(values: Interval | tuple[float, ...], unit: float) -> float:
    return values.at(unit) if isinstance(values, Interval) else _pick(values, unit)


@dataclass(frozen=True, slots=True)
class Pruning:
    """When a hopeless trial ends early, the same for every arm: at a share of its steps in `at`, where its loss is not
    among the best `keep` of the arm's earlier trials, of which at least `startup` got there."""

    at: tuple[float, ...]
    startup: int
    keep: float


@dataclass(frozen=True, slots=True)
class Tune:
    """How hyperparameters are looked for: the same sets for every arm, on the validation split.

    A shared block of `trials` sets, then `tpe_trials` of a sampler; the best `reselect` run again with more seeds. A
    completed trial has the same numbers with `pruning` and without, and within rounding with `share_graphs`: trials of
    an arm then share captured steps, in adapters that are padded to the largest rank. With `unpacked_base` trials of
    4-bit arms may be made on weights that are kept unpacked, where that gives the same bits.
    """

    trials: int
    tpe_trials: int
    seed: int
    sobol_seed: int
    select_by: str
    reselect: int
    reselect_seeds: tuple[int, ...]
    pruning: Pruning | None = None
    share_graphs: bool = False
    unpacked_base: bool = False


def sobol_block(count: int, seed: int) -> tuple[tuple[float, float, float], ...]:
    """`count` points of one scrambled Sobol sequence in the unit cube: the same block for every arm.

    A block whose length is a power of two keeps the sequence's balance (Owen 2020, scipy.stats.qmc.Sobol).

    Raises:
        ValueError: `count` is not a power of two.
    """
    if count == 0:
        return ()
    if count & (count - 1):
        raise ValueError(f"a Sobol block has a power of two of points, not {count}")
    points = qmc.Sobol(d=3, scramble=True, rng=seed).random_base2(count.bit_length() - 1)
    return tuple((float(a), float(b), float(c)) for a, b, c in points)
