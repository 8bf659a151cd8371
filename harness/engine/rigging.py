"""What a training is made with, apart from its loop: it can serve others of its kind, with the steps that it captured.

A capture costs 0.3 s a shape, and the trials of an arm have the same shapes. Where the next one differs from the last
in nothing that graphs hold, weights, moments and gradients are set back to what they were before the first step, in
the tensors that are there, and the graphs are replayed.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from harness.engine.adapting import Adapter
from harness.engine.attention import unmasked
from harness.engine.batches import TrainingPlan
from harness.engine.census import quantisation_tensors
from harness.engine.fusing import Fused, unfusable
from harness.engine.graphs import Captured, obstacle, side_stream
from harness.engine.kernels import Kernels, Plain, missing
from harness.engine.loading import Base, asks_the_host
from harness.engine.padding import Start, put
from harness.engine.sharing import SharedInput
from harness.engine.stepping import Stepper, make_state, optimizer_for
from study.runs import RunSpec
from study.settings import Training


@dataclass(frozen=True, slots=True)
class Course:
    """The steps of a training, whatever it learns by: its plan, tokens of the longest example, positions with logits of
    a pass by its dialogues and width (None where nothing is captured), and whether checkpointing computes dropout
    twice."""

    plan: TrainingPlan
    longest: int
    places: Mapping[tuple[int, int], int] | None
    repeats_dropout: bool


def rig_key(
    spec: RunSpec, train_file: str, padded_rank: int | None = None, *, unpacked: bool = False
) -> tuple[object, ...]:
    """What the captured steps of a run's training depend on, and where it starts: all but the peak learning rate.

    Alpha is in it because graphs hold the adapter's scaling, which with rank and method follows from alpha. Graphs of
    an adapter with a `padded_rank` read the scaling, and it is set to each trial's start: that rank is all. They read
    the base's weights as they are, or `unpacked`.
    """
    if spec.hyperparameters is None:
        raise ValueError("a run that trains has hyperparameters")
    chosen = spec.hyperparameters
    adapter = (chosen.rank, chosen.alpha) if padded_rank is None else ("padded", padded_rank)
    return spec.arm, spec.training, spec.seed, spec.prompts.training, train_file, unpacked, *adapter


class Rig:
    """An adapter on its base with all that trains it: optimizer, gradients, captured steps and what these read.

    With `again` it can serve several trainings one after another, each of which starts where the first did, or, where
    the adapter is padded, at a start of its own.
    """

    def __init__(
        self, base: Base, adapter: Adapter, training: Training, course: Course, rate: float, *, again: bool = False
    ) -> None:
        """`rate`: the peak learning rate of the first training.

        Raises:
            ValueError: the adapter is padded and its layers cannot be fused: nothing else reads its scaling.
        """
        model = adapter.model
        self.base = base
        self.adapter = adapter
        self.course = course
        # Why layers are not fused, steps not captured and kernels not used; None where they are.
        self.no_fused = unfusable(model, on=bool(training.engine.fused))
        fuses = self.no_fused is None
        if adapter.padded_rank is not None and not fuses:
            raise ValueError(f"a padded adapter is trained in fused form only: {self.no_fused}")
        self.no_graphs = obstacle(base, training, repeats_dropout=course.repeats_dropout, fused=fuses)
        on = bool(training.engine.kernels)
        self.no_kernels = missing(base.device, on=on) if fuses else "layers are not fused"
        captures = self.no_graphs is None
        self.optimizer = optimizer_for(model, training, rate, base.device, captured=captures)
        if training.optimizer == "adamw":
            make_state(self.optimizer)
        self.scaler = torch.amp.GradScaler(base.device, enabled=base.dtype == torch.float16)
        places = course.places if base.device == "cuda" else None
        self.stepper = Stepper(base, model, self.optimizer, self.scaler, training, places)
        # Set where graphs have other room for outliers than those of a new rig.
        self.worn = False
        self._training = training
        self._inputs = SharedInput()
        if captures and asks_the_host(base.model):
            self._inputs.prepare(base.device)
        # Where captured steps find alpha / rank of the training that is under way.
        # One number of one dimension: one of none would be rounded to the dtype of what it is multiplied with.
        self._scaling = None if adapter.padded_rank is None else torch.ones(1, device=base.device)
        operations = Kernels() if self.no_kernels is None else Plain()
        # One for all trainings, as graphs read the casts that it keeps.
        self._fused = None
        if fuses:
            self._fused = Fused(
                model, inputs=self._inputs, operations=operations, scaling=self._scaling, unpacked=base.unpacked
            )
        # One for all trainings: memory of a pool that was used on one stream does not serve another.
        self._stream = torch.cuda.Stream() if captures else None
        self._captured: Captured | None = None
        self._trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._again = again and training.optimizer == "adamw"
        self._start: list[tuple[torch.Tensor, torch.Tensor]] = []
        if self._again and adapter.padded_rank is None:
            # In host memory: on the GPU they would add to the peak of a trial, which is that of a run without them.
            self._start = [(parameter, parameter.detach().to("cpu", copy=True)) for parameter in self._trained]
        self._scale = dict(self.scaler.state_dict())
        self._begun = False
        self._places: tuple[int, ...] = ()

    @property
    def reusable(self) -> bool:
        """Whether another training gains by it: something was captured, and a new rig would capture the same."""
        return self._again and self._captured is not None and not self.worn

    def begin(self, rate: float, start: Start | None = None) -> None:
        """Makes ready for a training with this peak learning rate: the first, or another.

        Args:
            start: where it starts, in a padded adapter; in any other it starts where the first did.

        Raises:
            RuntimeError: it was made for one training only.
            ValueError: a start without a padded adapter, or the other way round.
        """
        if (start is None) != (self._scaling is None):
            raise ValueError("a training has a start of its own in a padded adapter, and in no other")
        if self._begun:
            self._begin_again(rate)
        self._begun = True
        if start is not None and self._scaling is not None:
            put(self.adapter, start)
            self._scaling.fill_(start.scaling)

    def _begin_again(self, rate: float) -> None:
        if not self._again:
            raise RuntimeError("this rig was made for one training")
        if self._stream is not None:
            # The last training may have been broken off on it.
            torch.cuda.current_stream().wait_stream(self._stream)
            # What an evaluation has reserved is not this training's, and cannot be freed while a shape is captured.
            torch.cuda.empty_cache()
        with torch.no_grad():
            for parameter, start in self._start:
                parameter.copy_(start)
            for state in self.optimizer.state.values():
                for value in state.values():
                    # AdamW's moments and its count of steps are tensors, and all of them begin with zeros.
                    value.zero_()
        self.scaler.load_state_dict(self._scale)
        self.stepper.begin_again(rate)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """The model computes as in training for the block."""
        with (
            nullcontext() if self._fused is None else self._fused.applied(),
            unmasked(self.base, self.course.longest + self._training.engine.pad_to_multiple),
            side_stream(on=self._stream is not None, stream=self._stream),
        ):
            yield

    def captured(self) -> Captured | None:
        """The steps that were captured, those of earlier trainings among them; None where nothing is to be captured.
        Gradients have their places from here on."""
        largest = largest_shape(self.course.places)
        if self._captured is None and self.no_graphs is None and largest is not None:
            self.stepper.hold_gradients()
            if self._fused is not None:
                self._fused.lay_out_gradients()
            self._captured = Captured(self.stepper.compute, self.stepper.update, largest, self._inputs)
        return self._captured

    def give_up(self) -> None:
        """Drops what was captured: the steps that follow are computed one by one, and gradients come and go."""
        self._captured = None
        self.stepper.release_gradients()

    def lay_by(self) -> None:
        """Notes where all lies that its graphs read of the base."""
        self._places = _addresses(self.base.model)

    def in_place(self) -> bool:
        """Whether all of that still lies there: an evaluation in another dtype moves weights, and some rotary
        embeddings are made anew for longer prompts."""
        return self._places == _addresses(self.base.model)


def _addresses(model: Any) -> tuple[int, ...]:
    beside = (tensor for module in model.modules() for tensor in quantisation_tensors(module))
    return tuple(tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers(), *beside))


def largest_shape(places: Mapping[tuple[int, int], int] | None) -> tuple[int, int, int] | None:
    """The shape with most padded tokens, and of those with most logits."""
    shapes = [(*shape, logits) for shape, logits in (places or {}).items()]
    return max(shapes, key=lambda shape: (shape[0] * shape[1], shape[2]), default=None)
