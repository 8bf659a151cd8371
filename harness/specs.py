"""From a grid to run specifications: which runs each stage consists of."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from results.schema import Frozen
from study.arms import Arm
from study.datasets import SPLITS, Split
from study.examples import Example, digest
from study.grid import Grid
from study.runs import Purpose, RunSpec, SplitData, Stage
from study.space import Hyperparameters


@dataclass(frozen=True, slots=True)
class Specs:
    """Makes the run specifications of one study on one set of examples."""

    grid: Grid
    splits: Mapping[str, SplitData]

    @classmethod
    def of(cls, grid: Grid, examples: Mapping[str, tuple[Example, ...]]) -> "Specs":
        """For the examples that were loaded."""
        return cls(grid, {split: SplitData(split, len(examples[split]), digest(examples[split])) for split in SPLITS})

    def baselines(self, split: Split) -> tuple[RunSpec, ...]:
        """The zero-shot model of every zero-shot arm on a split."""
        arms = [arm for arm in self.grid.arms if not arm.trains]
        return tuple(self._spec(Stage.BASELINE, arm, split) for arm in arms)

    def trial(self, arm: Arm, number: int, hyperparameters: Hyperparameters, seed: int | None = None) -> RunSpec:
        """One trial of an arm on the validation split."""
        chosen = self.grid.tune.seed if seed is None else seed
        spec = self._spec(Stage.TUNE, arm, "validation")
        return replace(spec, hyperparameters=hyperparameters, seed=chosen, trial=number)

    def block(self, arm: Arm) -> tuple[RunSpec, ...]:
        """The trials of the block that every arm shares; none where there is nothing to choose."""
        if self.grid.tune.trials == 0:
            return ()
        return tuple(self.trial(arm, number, chosen) for number, chosen in enumerate(self.grid.block(arm)))

    def confirms(self, frozen: Frozen) -> Iterator[RunSpec]:
        """Every confirm run that the frozen choices allow: each arm on each seed, then the drop-in runs."""
        chosen = {
            choice.arm: Hyperparameters(choice.rank, choice.alpha, choice.learning_rate) for choice in frozen.choices
        }
        for arm in self.grid.trained_arms:
            if arm.name in chosen:
                yield from self._seeds(arm, chosen[arm.name], Purpose.TUNED)
        done: set[tuple[str, Hyperparameters]] = set()
        # Both sides of a claim with drop-in runs are arms of the grid: a system from elsewhere has none.
        for claim in (claim for claim in self.grid.claims if claim.drop_in):
            candidate = self.grid.arm(claim.candidate)
            if claim.reference in chosen and candidate.trains:
                hyperparameters = chosen[claim.reference]
                if (candidate.name, hyperparameters) not in done:
                    done.add((candidate.name, hyperparameters))
                    yield from self._seeds(candidate, hyperparameters, Purpose.DROP_IN)

    def possible_confirms(self) -> Iterator[RunSpec]:
        """Confirm runs at each rank that an arm may be frozen at; their alpha and learning rate stand for any."""
        for arm in self.grid.trained_arms:
            space = self.grid.space_of(arm)
            any_set = space.at((0.0, 0.0, 0.0))
            for rank in space.rank:
                yield from self._seeds(arm, replace(any_set, rank=rank), Purpose.TUNED)

    def hashes(self) -> dict[str, str]:
        """The digest of each split."""
        return {split: part.hash for split, part in self.splits.items()}

    def confirm_count(self) -> int:
        """How many runs follow the freeze: confirm runs, drop-in runs and zero-shot runs on the test split."""
        grid = self.grid
        drop_ins = {(claim.candidate, claim.reference) for claim in grid.claims if claim.drop_in}
        trained = [*grid.trained_arms, *(grid.arm(candidate) for candidate, _ in drop_ins)]
        zero_shots = sum(not arm.trains for arm in grid.arms)
        return len(grid.seeds) * sum(grid.repeats_for(arm) for arm in trained) + zero_shots

    def _seeds(self, arm: Arm, hyperparameters: Hyperparameters, purpose: Purpose) -> Iterator[RunSpec]:
        spec = replace(self._spec(Stage.CONFIRM, arm, "test"), hyperparameters=hyperparameters, purpose=purpose)
        for seed in self.grid.seeds:
            for repeat in range(self.grid.repeats_for(arm)):
                yield replace(spec, seed=seed, repeat=repeat)

    def _spec(self, stage: Stage, arm: Arm, split: Split) -> RunSpec:
        """What every run of a stage has in common; a zero-shot run is whole with it."""
        grid = self.grid
        return RunSpec(
            study=grid.study,
            stage=stage,
            purpose=None,
            arm=arm,
            hyperparameters=None,
            seed=grid.tune.seed,
            trial=None,
            repeat=0,
            model=grid.model,
            train=self.splits["train"] if arm.trains else None,
            evaluated=self.splits[split],
            prompts=grid.prompts,
            training=grid.training if arm.trains else None,
            generation=grid.generation,
            # Trials choose as they would without it: the same choices are then held against the smaller card.
            memory_limit_bytes=grid.memory_limit_bytes if split == "test" else None,
        )
