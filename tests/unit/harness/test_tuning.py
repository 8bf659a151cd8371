"""Optuna behind its port: the shared block first, then proposals that follow from what was seen."""

import math

import pytest

from harness.adapters.tuning import ArmTuner, Seen, importances
from study.space import Hyperparameters, Interval, Space, sobol_block

SPACE = Space(rank=(4, 8, 16, 32, 64), alpha=(16, 32, 64), learning_rate=Interval(2e-5, 2e-3, "log"))
BLOCK = tuple(SPACE.at(point) for point in sobol_block(8, 0))


def test_the_block_is_proposed_first_and_in_its_order() -> None:
    tuner = ArmTuner(SPACE, BLOCK, (), maximise=True, seed=0)
    proposed = []
    for value in range(8):
        number, chosen = tuner.propose()
        proposed.append(chosen)
        tuner.tell(number, float(value))
    assert tuple(proposed) == BLOCK


def test_a_resumed_study_goes_on_where_it_stopped() -> None:
    seen = [Seen(chosen, float(index)) for index, chosen in enumerate(BLOCK[:3])]
    assert ArmTuner(SPACE, BLOCK, seen, maximise=True, seed=0).propose()[1] == BLOCK[3]


def test_trials_that_gave_nothing_are_told_as_failed_and_do_not_stop_the_sampler() -> None:
    seen = [Seen(chosen, None if index % 2 else float(index)) for index, chosen in enumerate(BLOCK)]
    _, chosen = ArmTuner(SPACE, (), seen, maximise=True, seed=0).propose()
    assert chosen.rank in SPACE.rank
    assert 2e-5 <= chosen.learning_rate <= 2e-3


def test_proposals_after_the_block_follow_the_values_that_were_seen() -> None:
    def favourite(best: int) -> list[int]:
        seen = [Seen(item, 10.0 if item.rank == best else 1.0) for item in BLOCK for _ in range(3)]
        return [ArmTuner(SPACE, (), seen, maximise=True, seed=seed).propose()[1].rank for seed in range(12)]

    ranks = sorted({item.rank for item in BLOCK})
    assert favourite(ranks[0]).count(ranks[0]) > favourite(ranks[-1]).count(ranks[0])


def test_a_fixed_learning_rate_is_kept() -> None:
    space = Space(rank=(8,), alpha=(16,), learning_rate=(3e-4,))
    assert ArmTuner(space, (), (), maximise=False, seed=1).propose()[1] == Hyperparameters(8, 16, 3e-4)


# --- importances ---

SIXTEEN = tuple(SPACE.at(point) for point in sobol_block(16, 0))


def seen_by_rate(sign: float = 1.0) -> list[Seen]:
    """Trials whose value is best at a learning rate of 4e-4, whatever the rank and alpha."""
    return [Seen(item, -sign * (math.log10(item.learning_rate) + 3.4) ** 2) for item in SIXTEEN]


def shares_of(seen: list[Seen], space: Space = SPACE, *, maximise: bool = True) -> dict[str, float]:
    found = importances(space, seen, maximise=maximise)
    assert isinstance(found, dict)
    return found


def test_what_decides_the_value_is_the_most_important() -> None:
    shares = shares_of(seen_by_rate())
    assert list(shares) == ["alpha", "learning_rate", "rank"]
    assert shares["learning_rate"] > 0.6
    by_rank = shares_of([Seen(item, float(item.rank)) for item in SIXTEEN])
    assert by_rank["rank"] > 0.6


def test_importances_are_shares_and_the_same_trials_give_the_same() -> None:
    shares = shares_of(seen_by_rate())
    assert sum(shares.values()) == pytest.approx(1.0, abs=2e-4)
    assert shares_of(seen_by_rate()) == shares
    assert all(round(share, 4) == share for share in shares.values())


def test_importances_of_a_loss_are_those_of_its_opposite() -> None:
    assert shares_of(seen_by_rate(-1.0), maximise=False) == shares_of(seen_by_rate())


def test_trials_that_gave_nothing_do_not_count() -> None:
    lost = [Seen(item, None) for item in BLOCK]
    assert shares_of([*seen_by_rate(), *lost]) == shares_of(seen_by_rate())


def test_a_hyperparameter_that_did_not_vary_has_no_share() -> None:
    space = SPACE.narrowed(8, None, None)
    seen = [Seen(space.at(point), float(number)) for number, point in enumerate(sobol_block(8, 0))]
    assert set(shares_of(seen, space)) == {"alpha", "learning_rate"}


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        ([], "0 trials gave a score, and it takes 6"),
        ([Seen(item, None) for item in SIXTEEN], "0 trials gave a score, and it takes 6"),
        (seen_by_rate()[:5], "5 trials gave a score, and it takes 6"),
        ([Seen(item, 1.0) for item in SIXTEEN], "too many trials have the same score"),
        ([Seen(SIXTEEN[0], float(value)) for value in range(8)], "no hyperparameter varied"),
    ],
)
def test_trials_that_cannot_tell_say_why(seen: list[Seen], why: str) -> None:
    assert importances(SPACE, seen, maximise=True) == why


def test_a_better_half_like_all_trials_tells_nothing() -> None:
    space = Space(rank=(8,), alpha=(16, 32), learning_rate=(1e-4,))
    pairs = [Seen(Hyperparameters(8, alpha, 1e-4), float(value)) for value in range(4) for alpha in (16, 32)]
    assert importances(space, pairs, maximise=True) == "the better half has the same hyperparameters as all trials"
