"""Pruning: a trial that lags behind the earlier trials of its arm ends before its time (off unless the grid asks).

The rule is that of median stopping (Golovin et al. 2017, "Google Vizier"; Optuna's MedianPruner): at a point where at
least `startup` earlier trials of the arm have a value, a trial that is worse than the best `keep` of them ends there.

What is compared is the mean training loss over the last tenth of the steps. All trials of an arm share the tuning seed,
and so the batches: at one step two trials have learned from the same dialogues and are asked about the same ones. In
the first epoch these are dialogues that none of them has seen; later a trial that overfits looks good and stays, which
costs time and no finding. The loss is on the host anyway: no number, no random state and no peak of memory moves, as
they might with a pass over the validation split in the middle of a training whose steps are captured.

Trials of lower number that completed or were pruned are what a trial is held against, by what their records keep, and
its bars stand before it starts; trials of one arm are therefore made one after another, also side by side with those of
others. Decisions thus do not depend on timing, nor on how often a study was interrupted; with `tune.share_graphs` the
latter but for rounding, since the first trial of an arm in each process is not padded. Optuna's own pruner would look
at completed trials alone, whose later points are those of survivors, and decide where the trial runs.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from harness.messages import Waypoint
from results.schema import Record
from study.runs import RunSpec, Stage
from study.space import Tune

# Losses, and so the bars, are kept to this many digits: a decision follows from what records show.
_DIGITS = 5
# The key of a record's checks that holds them.
WAYPOINTS = "waypoints"


class Pruned(RuntimeError):
    """The trial lags behind; says where and by what."""


class Pruner:
    """Sets the bars of every trial, from the records of those before it."""

    def __init__(self, tune: Tune) -> None:
        self._tune = tune
        # By arm and number of trial: the loss at each share of the steps.
        self._values: dict[str, dict[int, Mapping[str, float]]] = {}

    def add(self, spec: RunSpec, record: Record) -> None:
        """Takes note of how a run of the plan ended."""
        if self.turn(spec) is not None and spec.trial is not None and record.status in ("completed", "pruned"):
            self._values.setdefault(spec.arm.name, {})[spec.trial] = _read(record.checks.get(WAYPOINTS))

    def turn(self, spec: RunSpec) -> str | None:
        """What a run waits for its turn in: its arm, or None where it may be made at any time and is never pruned.

        A set that is run again on further seeds is no trial: it was good enough, and its losses are of other batches.
        """
        prunable = self._tune.pruning is not None and spec.stage is Stage.TUNE and spec.seed == self._tune.seed
        return spec.arm.name if prunable else None

    def waypoints(self, spec: RunSpec) -> tuple[Waypoint, ...]:
        """Where a trial is looked at, and the bar it must not be above; none for a run that is never pruned."""
        rule = self._tune.pruning
        if rule is None or self.turn(spec) is None or spec.trial is None:
            return ()
        earlier = [found for number, found in self._values.get(spec.arm.name, {}).items() if number < spec.trial]
        points = []
        for share in rule.at:
            losses = [found[str(share)] for found in earlier if str(share) in found]
            bar = round(float(np.quantile(losses, rule.keep)), _DIGITS) if len(losses) >= rule.startup else None
            points.append(Waypoint(share, bar, len(losses)))
        return tuple(points)


class Watch:
    """Follows the losses of one training past its waypoints; `values` are those that were reached, by share."""

    def __init__(self, waypoints: Sequence[Waypoint]) -> None:
        self._waypoints = waypoints
        self._losses: list[float] = []
        self.values: dict[str, float] = {}

    def step(self, step: int, steps: int, loss: float) -> None:
        """One more step (from 1) is made.

        Raises:
            Pruned: a waypoint is reached, and the loss is above its bar.
        """
        self._losses.append(loss)
        for point in self._waypoints:
            # With few steps a share may round to the last one, where nothing is left to save.
            if step != max(1, round(point.share * steps)) or step == steps:
                continue
            last = self._losses[-max(1, steps // 10) :]
            value = self.values[str(point.share)] = round(math.fsum(last) / len(last), _DIGITS)
            if point.bar is not None and value > point.bar:
                raise Pruned(
                    f"at step {step} of {steps} ({point.share:g}) its loss of {value:g} is above {point.bar:g}, "
                    f"the bar set by {point.among} earlier trials"
                )


def _read(kept: object) -> Mapping[str, float]:
    """The losses of a record's checks, as far as they are numbers: checks have no schema."""
    items = kept.items() if isinstance(kept, dict) else ()
    return {str(share): loss for share, loss in items if isinstance(loss, float | int) and math.isfinite(loss)}
