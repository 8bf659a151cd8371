"""Optuna behind a small port: one study an arm, rebuilt from the records at every start."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from study.space import Hyperparameters, Interval, Space


@dataclass(frozen=True, slots=True)
class Seen:
    """A trial that is over: its set, and its value (None where it gave none: failed, diverged, did not fit)."""

    hyperparameters: Hyperparameters
    value: float | None


class ArmTuner:
    """Proposes hyperparameter sets for one arm: first the shared block, then the sampler's own.

    The Optuna study lives in memory. The record store is the truth: what it has seen is told again at every start, so
    that a torn journal can cost nothing.
    """

    def __init__(
        self, space: Space, block: Sequence[Hyperparameters], seen: Sequence[Seen], *, maximise: bool, seed: int
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space = _distributions(space)
        self._study = optuna.create_study(
            direction="maximize" if maximise else "minimize",
            sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=0),
        )
        for trial in seen:
            self._study.add_trial(self._finished(trial))
        for hyperparameters in block[len(seen) :]:
            self._study.enqueue_trial(_parameters(hyperparameters))

    def propose(self) -> tuple[int, Hyperparameters]:
        """The next trial: its number and its set."""
        trial = self._study.ask(self._space)
        parameters = trial.params
        return trial.number, Hyperparameters(
            rank=int(parameters["rank"]),
            alpha=int(parameters["alpha"]),
            learning_rate=float(f"{parameters['learning_rate']:.6g}"),
        )

    def tell(self, number: int, value: float | None) -> None:
        """The value of a trial, or None where it gave none."""
        if value is None:
            self._study.tell(number, state=optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(number, value)

    def _finished(self, trial: Seen) -> optuna.trial.FrozenTrial:
        failed = trial.value is None
        with warnings.catch_warnings():
            # A set rounded to six digits may miss its range by a rounding error; Optuna warns and keeps it.
            warnings.simplefilter("ignore", UserWarning)
            return optuna.trial.create_trial(
                state=optuna.trial.TrialState.FAIL if failed else optuna.trial.TrialState.COMPLETE,
                params=_parameters(trial.hyperparameters),
                distributions=self._space,
                value=trial.value,
            )


def _parameters(hyperparameters: Hyperparameters) -> dict[str, int | float]:
    return {
        "rank": hyperparameters.rank,
        "alpha": hyperparameters.alpha,
        "learning_rate": hyperparameters.learning_rate,
    }


def _distributions(space: Space) -> dict[str, BaseDistribution]:
    rates = space.learning_rate
    rate: BaseDistribution
    if isinstance(rates, Interval):
        rate = FloatDistribution(rates.low, rates.high, log=rates.scale == "log")
    else:
        rate = CategoricalDistribution(rates)
    return {
        "rank": CategoricalDistribution(space.rank),
        "alpha": CategoricalDistribution(space.alpha),
        "learning_rate": rate,
    }
