"""What was seen of a run while it ran, and the record that comes of it."""

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from harness.gpu import GpuPeak
from harness.messages import PHASES, Answer, Facts, Phase, PhaseEnded, Resumed
from harness.outcomes import Completed, Outcome, Stopped
from harness.resuming import SOURCE, whole
from harness.scores import Scorer, Scores, quality
from results.schema import (
    AdapterPart,
    Breakdown,
    DataPart,
    EnergyPart,
    ErrorPart,
    ForecastPart,
    GpuPart,
    MemoryPart,
    ModelPart,
    Parameters,
    Phases,
    PrecisionPart,
    Prediction,
    Record,
    Seconds,
    Tokens,
)
from study.examples import Example
from study.grid import Protocol
from study.runs import RunSpec, Stage, plain


@dataclass(slots=True)
class RunLog:
    """Collects one run's events. `warm` says that its process had run something before; `side_by_side` is the most
    runs, itself among them, that were under way at once on this machine."""

    spec: RunSpec
    protocol: Protocol
    examples: Mapping[str, Example]
    scorer: Scorer
    warm: bool
    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    ended: dict[Phase, PhaseEnded] = field(default_factory=dict)
    peaks: dict[Phase, GpuPeak] = field(default_factory=dict)
    energy: dict[Phase, EnergyPart] = field(default_factory=dict)
    answers: list[tuple[Answer, Future[Scores] | None]] = field(default_factory=list)
    energy_of_run: EnergyPart | None = None
    gpu: GpuPart | None = None
    forecast: ForecastPart = field(default_factory=ForecastPart)
    side_by_side: int = 1
    # How the try before this one ended, where this one is its repetition.
    retried: Stopped | None = None
    # Where its training went on, if an earlier start had begun it.
    resumed: Resumed | None = None
    # Its worker was there before it: what a start takes is not in its seconds.
    started_ahead: bool = False

    def add_facts(self, facts: Facts) -> None:
        """Keeps facts by section."""
        self.facts.setdefault(facts.section, {}).update(facts.values)

    def add_phase(self, phase: PhaseEnded, peak: GpuPeak | None, energy: EnergyPart | None) -> None:
        """Keeps a phase's figures, and what NVML read meanwhile: not of a training of which it saw a part alone."""
        if self.resumed is not None and phase.phase == "train":
            phase, peak, energy = whole(phase, self.resumed), None, None
        self.ended[phase.phase] = phase
        if peak is not None:
            self.peaks[phase.phase] = peak
        if energy is not None:
            self.energy[phase.phase] = energy

    def add_answers(self, answers: tuple[Answer, ...]) -> None:
        """Has answers scored as they come, while the worker writes the next; random weights are never scored.

        In a thread: the end of a phase must be heard when it comes, or the GPU's readings of it would hold what
        follows.
        """
        scored = self.spec.model.weights == "pretrained"
        for answer in answers:
            references = self.examples[answer.example_id].references
            self.answers.append((answer, self.scorer.score(answer.text, references) if scored else None))

    def predictions(self) -> tuple[Prediction, ...]:
        """One a dialogue, in the order of the split."""
        by_id = {answer.example_id: (answer, scores) for answer, scores in self.answers}
        return tuple(
            Prediction(
                example_id=answer.example_id,
                prediction=answer.text,
                tokens=answer.tokens,
                hit_limit=answer.hit_limit,
                truncated=answer.truncated,
                scores=None if scores is None else scores.result(),
            )
            for answer, scores in (by_id[example_id] for example_id in self.examples)
        )

    @property
    def _not_its_own(self) -> str | None:
        """Why what was measured is not what this run's arm and rank take; None where it is."""
        engine = self.facts.get("checks", {}).get("engine", {})
        if (rank := engine.get("padded_rank")) is not None:
            return f"not told: its adapter was padded to rank {rank}, to share captured steps"
        return "not told: its base was kept unpacked" if engine.get("unpacked_base") else None

    def record(self, outcome: Outcome, environment: dict[str, Any], seconds: float) -> Record:
        """The record of the run; `seconds` from its start to its end as the conductor saw them."""
        spec = self.spec
        completed = isinstance(outcome, Completed)
        resumed = self.resumed
        its_own = self._not_its_own is None
        # Nobody read the energy counter over all parts of a resumed run.
        energy = self.energy_of_run if resumed is None and its_own else None
        error = (
            None
            if isinstance(outcome, Completed)
            else ErrorPart(type=outcome.type, message=outcome.message, phase=outcome.phase)
        )
        return Record(
            run_id=spec.run_id,
            study=spec.study,
            stage=spec.stage.value,
            purpose=None if spec.purpose is None else spec.purpose.value,
            split="test" if spec.evaluated.split == "test" else "validation",
            repeat=spec.repeat,
            arm=spec.arm.name,
            protocol=self.protocol,
            model=ModelPart(id=spec.model.id, revision=spec.model.revision, weights=spec.model.weights),
            precision=PrecisionPart(
                base=spec.arm.precision,
                compute_dtype=spec.arm.compute_dtype,
                double_quant=spec.arm.double_quant,
            ),
            adapter=self._adapter(),
            learning_rate=None if spec.hyperparameters is None else spec.hyperparameters.learning_rate,
            training=None
            if spec.training is None
            else plain(spec.training) | {"checkpointing": spec.arm.checkpointing},
            generation=plain(spec.generation),
            prompt_hash=f"{spec.prompts.training.hash}-{spec.prompts.evaluation.hash}",
            seed=spec.seed,
            trial=spec.trial,
            status="completed" if isinstance(outcome, Completed) else outcome.status,
            error=error,
            quality=self._quality(outcome),
            memory=Phases.model_validate({phase: self._memory(phase) for phase in PHASES}),
            forecast=self.forecast,
            seconds=Seconds(
                **{phase: end.seconds for phase, end in self.ended.items() if its_own and not end.failed},
                total=seconds if resumed is None else seconds + resumed.seconds,
            ),
            tokens=Tokens.model_validate(self.facts.get("tokens", {})),
            energy_j=None if energy is None else energy.joules,
            energy_window_s=None if energy is None else energy.seconds,
            energy=dict(self.energy) if its_own else {},
            gpu=self.gpu,
            memory_limit_bytes=spec.memory_limit_bytes,
            breakdown=Breakdown.model_validate(self.facts["breakdown"]) if "breakdown" in self.facts else None,
            parameters=Parameters.model_validate(self.facts["parameters"]) if "parameters" in self.facts else None,
            checks=self._checks(completed=completed),
            data=self._data(),
            environment=environment,
            started_at=self.started_at,
        )

    def _quality(self, outcome: Outcome) -> dict[str, float] | None:
        if not isinstance(outcome, Completed) or self.spec.model.weights == "random":
            return None
        scored = [scores.result() for _, scores in self.answers if scores is not None]
        return {key: round(value, 6) for key, value in quality(scored, outcome.validation_loss).items()}

    def _checks(self, *, completed: bool) -> dict[str, Any]:
        checks = dict(self.facts.get("checks", {}))
        checks["warm_worker"] = self.warm
        checks["side_by_side"] = self.side_by_side
        if self.started_ahead:
            checks["started_ahead"] = True
        if self.resumed is not None:
            checks["resumed_from_step"] = self.resumed.step
        if self.retried is not None:
            checks["retried_after"] = asdict(self.retried)
        if completed:
            answers = [answer for answer, _ in self.answers]
            words = [len(answer.text.split()) for answer in answers]
            references = [self.examples[answer.example_id].references for answer in answers]
            expected = [sum(len(text.split()) for text in texts) / len(texts) for texts in references]
            checks["empty_outputs"] = sum(not answer.text for answer in answers)
            checks["hit_max_new_tokens"] = sum(answer.hit_limit for answer in answers)
            checks["length_ratio"] = round(sum(words) / max(sum(expected), 1e-9), 4)
        return checks

    def _memory(self, phase: Phase) -> MemoryPart | None:
        ended = self.ended.get(phase)
        if ended is None:
            return None
        if self._not_its_own is not None:
            return MemoryPart(source=self._not_its_own, until_failure=ended.failed)
        peak = self.peaks.get(phase)
        source = "host RSS (VmHWM)" if peak is None else f"NVML {peak.source}, {peak.samples} samples"
        if self.resumed is not None and phase == "train":
            source = SOURCE
        # The earlier part of a trial may have been in a warm worker.
        parted = self.resumed is not None and phase == "train" and self.spec.stage is Stage.TUNE
        if phase == "evaluate" and self.facts.get("checks", {}).get("kept_beside_evaluation"):
            return MemoryPart(
                host_rss_bytes=ended.host_rss_bytes,
                source="warm worker: what its next trial is trained with was there too",
                until_failure=ended.failed,
            )
        if self.warm or parted:
            # Reserved bytes and the driver's view keep what earlier runs of the process took; allocated bytes do not.
            return MemoryPart(
                allocated_bytes=ended.allocated_bytes,
                host_rss_bytes=ended.host_rss_bytes,
                source=source if parted else "warm worker: allocated peak only",
                until_failure=ended.failed,
            )
        return MemoryPart(
            allocated_bytes=ended.allocated_bytes,
            reserved_bytes=ended.reserved_bytes,
            process_bytes=None if peak is None else peak.process_bytes,
            device_bytes=None if peak is None else peak.device_bytes,
            host_rss_bytes=ended.host_rss_bytes,
            source=source,
            until_failure=ended.failed,
        )

    def _adapter(self) -> AdapterPart:
        arm, hyperparameters = self.spec.arm, self.spec.hyperparameters
        modules = self.facts.get("adapter", {}).get("target_modules")
        return AdapterPart(
            method=arm.method,
            rank=None if hyperparameters is None else hyperparameters.rank,
            alpha=None if hyperparameters is None else hyperparameters.alpha,
            dropout=arm.dropout,
            targets=arm.targets,
            target_modules=None if modules is None else tuple(modules),
        )

    def _data(self) -> DataPart:
        spec, facts = self.spec, self.facts.get("data", {})
        return DataPart(
            train_hash=None if spec.train is None else spec.train.hash,
            train_size=None if spec.train is None else spec.train.size,
            evaluated_hash=spec.evaluated.hash,
            evaluated_size=spec.evaluated.size,
            truncated_train=facts.get("truncated_train"),
            truncated_evaluated=facts.get("truncated_evaluated"),
        )
