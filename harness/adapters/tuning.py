"""Optuna behind a small port: one study an arm, rebuilt from the records at every start."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from study.space import Hyperparameters, Interval, Space

# The better half, for a study has few trials: a tenth of 16 would be two. PED-ANOVA (Watanabe et al. 2023) draws
# nothing at random, and needs no scikit-learn, as Optuna's other evaluators do.
_BETTER = 0.5
_FEWEST_TRIALS = 6
EVALUATOR = f"Optuna PED-ANOVA, best {_BETTER:.0%} of the trials"


@dataclass(frozen=True, slots=True)
class Seen:
    """A trial that is over: its set, and its value (None where it gave none: failed, diverged, pruned, did not fit)."""

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
            self._study.add_trial(_finished(trial, self._space))
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


def importances(space: Space, seen: Sequence[Seen], *, maximise: bool) -> dict[str, float] | str:
    """How far each hyperparameter that varied decided whether a trial came out in the better half: shares that add up
    to 1, to four decimals, sorted by name; or why the trials cannot tell. Same trials, same shares."""
    scored = [trial for trial in seen if trial.value is not None]
    if len(scored) < _FEWEST_TRIALS:
        return f"{len(scored)} trials gave a score, and it takes {_FEWEST_TRIALS}"
    values = sorted((trial.value or 0.0 for trial in scored), reverse=maximise)
    # As many as tie with the last of the better half belong to it: there must be a worse one.
    if values[-1] == values[-(-len(values) // 2) - 1]:
        return "too many trials have the same score"
    tried = [_parameters(trial.hyperparameters) for trial in scored]
    varied = sorted(name for name in tried[0] if len({parameters[name] for parameters in tried}) > 1)
    if not varied:
        return "no hyperparameter varied"
    divergences = _divergences(space, scored, varied, maximise=maximise)
    total = sum(divergences.values())
    if total <= 0.0:
        return "the better half has the same hyperparameters as all trials"
    return {name: round(divergences[name] / total, 4) for name in varied}


def _divergences(space: Space, scored: Sequence[Seen], names: list[str], *, maximise: bool) -> Mapping[str, float]:
    """By name, how far the better half's values lie from all values (Pearson's divergence)."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize" if maximise else "minimize")
    distributions = _distributions(space)
    study.add_trials([_finished(trial, distributions) for trial in scored])
    with warnings.catch_warnings():
        # Shares that are not made to add up are called experimental; only they tell nothing at all from all alike.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=_BETTER)
        found: Mapping[str, float] = optuna.importance.get_param_importances(
            study, evaluator=evaluator, params=names, normalize=False
        )
    return found


def _finished(trial: Seen, space: Mapping[str, BaseDistribution]) -> optuna.trial.FrozenTrial:
    failed = trial.value is None
    with warnings.catch_warnings():
        # A set rounded to six digits may miss its range by a rounding error; Optuna warns and keeps it.
        warnings.simplefilter("ignore", UserWarning)
        return optuna.trial.create_trial(
            state=optuna.trial.TrialState.FAIL if failed else optuna.trial.TrialState.COMPLETE,
            params=_parameters(trial.hyperparameters),
            distributions=dict(space),
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
