"""What the next step of a training depends on beside its plan: weights, moments, loss scale, random state."""

from collections.abc import Mapping
from typing import Any

import torch

from harness.engine.checkpoints import Page, Unusable
from harness.engine.stepping import Stepper


class Live:
    """The state of a training under way: copied out for a checkpoint, and put back where it is.

    Put back into the tensors that are there, never in their place: graphs that are captured read them by address.
    """

    def __init__(self, model: Any, optimizer: Any, scaler: Any, stepper: Stepper, device: str) -> None:
        self._named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._optimizer = optimizer
        self._scaler = scaler
        self._stepper = stepper
        self._on_gpu = device == "cuda"

    @property
    def scaler(self) -> dict[str, int | float]:
        """The loss scale and how long it has held; empty without scaling."""
        return dict(self._scaler.state_dict())

    @property
    def skipped(self) -> int:
        """Updates in a row that fp16's scaling has left out."""
        return self._stepper.skipped

    def tensors(self) -> dict[str, torch.Tensor]:
        """Copies in host memory, by name: weights and the optimizer's state of every trained matrix, random states."""
        copies = {name: tensor.to("cpu", copy=True).contiguous() for name, tensor in self._places().items()}
        return copies | {name: torch.tensor(count) for name, count in self._counts().items()} | self._random()

    def put_back(self, page: Page, tensors: Mapping[str, torch.Tensor]) -> None:
        """Goes back to a checkpoint.

        Raises:
            Unusable: the tensors are not those of this training; nothing was changed.
        """
        if hasattr(self._optimizer, "init_state") and not self._optimizer.state:
            # bitsandbytes makes an optimizer's state with the first update only.
            for at, group in enumerate(self._optimizer.param_groups):
                for index, parameter in enumerate(group["params"]):
                    self._optimizer.init_state(group, parameter, at, index)
        places, counts = self._places(), self._counts()
        expected: dict[str, Any] = places | {name: torch.tensor(count) for name, count in counts.items()}
        self._check(expected | self._random(), tensors, page)
        with torch.no_grad():
            for name, place in places.items():
                place.copy_(tensors[name])
        for name in counts:
            parameter, _, key = name.removeprefix("optimizer.").rpartition(".")
            self._optimizer.state[self._named[parameter]][key] = int(tensors[name])
        self._scaler.load_state_dict(page.scaler)
        self._stepper.skipped = page.skipped
        torch.set_rng_state(tensors["random.cpu"])
        if self._on_gpu:
            torch.cuda.set_rng_state(tensors["random.cuda"])

    def _check(self, expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor], page: Page) -> None:
        other = sorted(expected.keys() ^ found.keys())
        if other:
            raise Unusable(f"its tensors are of another training: {other[0]}")
        for name, tensor in expected.items():
            if (tensor.shape, tensor.dtype) != (found[name].shape, found[name].dtype):
                raise Unusable(f"its tensors are of another training: {name}")
        if page.scaler.keys() != self._scaler.state_dict().keys():
            raise Unusable("its loss scale is of another training")

    def _places(self) -> dict[str, torch.Tensor]:
        places = {f"weight.{name}": parameter.detach() for name, parameter in self._named.items()}
        return places | {name: value for name, value in self._states() if isinstance(value, torch.Tensor)}

    def _counts(self) -> dict[str, int]:
        return {name: value for name, value in self._states() if isinstance(value, int)}

    def _states(self) -> list[tuple[str, Any]]:
        return [
            (f"optimizer.{name}.{key}", value)
            for name, parameter in self._named.items()
            for key, value in self._optimizer.state.get(parameter, {}).items()
        ]

    def _random(self) -> dict[str, torch.Tensor]:
        states = {"random.cpu": torch.get_rng_state()}
        return states | ({"random.cuda": torch.cuda.get_rng_state()} if self._on_gpu else {})
