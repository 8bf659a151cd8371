"""Optuna behind its port: the shared block first, then proposals that follow from what was seen."""

from harness.adapters.tuning import ArmTuner, Seen
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
