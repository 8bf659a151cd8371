"""A checkpoint of a training on disk: its tensors (safetensors), and a page of JSON that names and vouches for them.

The page is replaced last, in one step: until then the older checkpoint counts, and its tensors are still there. What is
torn, of another run, of another machine or of a newer program is never used. Nothing is ever unpickled.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, Self

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError

from harness.resuming import most
from results.layout import SET_ASIDE
from results.store import ResultsError, write_atomically

# Format history: 1, the first.
VERSION: Literal[1] = 1
PAGE = "checkpoint.json"
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]


class Unusable(Exception):
    """A checkpoint that is not gone on from; says why."""


@dataclass(slots=True)
class Tally:
    """What a training has counted so far: a loss a step (nats per learned token), tokens, seconds and tokens of
    warm-up, steps made again, shapes captured, and why graphs were given up on the way, if they were."""

    losses: list[float] = field(default_factory=list)
    tokens: int = 0
    completion: int = 0
    padding: int = 0
    warm_seconds: float = 0.0
    warm_tokens: int = 0
    redone: int = 0
    captured: int = 0
    given_up: str | None = None


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Measured(_Part):
    """Seconds of the steps that a checkpoint holds, over all parts of the training, and the highest peaks in bytes."""

    seconds: NonNegative
    allocated_bytes: Count | None
    reserved_bytes: Count | None
    host_rss_bytes: Count | None

    def and_before(self, earlier: "Measured | None") -> "Measured":
        """This part and those before it as one."""
        if earlier is None:
            return self
        return Measured(
            seconds=self.seconds + earlier.seconds,
            allocated_bytes=most(self.allocated_bytes, earlier.allocated_bytes),
            reserved_bytes=most(self.reserved_bytes, earlier.reserved_bytes),
            host_rss_bytes=most(self.host_rss_bytes, earlier.host_rss_bytes),
        )


class Page(_Part):
    """All of a checkpoint that is no tensor.

    `sha256` is that of the tensors' file; `made_on` is what the numbers depend on beside the run itself (device,
    versions); `step` of `steps` are made; `skipped` is how many updates in a row fp16's scaling has left out;
    `breakdown` is that of the first step's peak, in bytes.
    """

    schema_version: Literal[1] = VERSION
    run_id: str
    sha256: str = ""
    made_on: dict[str, str]
    step: Annotated[int, Field(gt=0)]
    steps: int
    tally: Tally
    scaler: dict[str, int | float]
    skipped: Count
    measured: Measured
    breakdown: dict[str, Count] | None

    @model_validator(mode="after")
    def _no_contradiction(self) -> Self:
        if not len(self.tally.losses) == self.step <= self.steps:
            raise ValueError(f"{len(self.tally.losses)} losses at step {self.step} of {self.steps}")
        return self


class CheckpointFiles:
    """The checkpoint of one run in a folder of its own."""

    def __init__(self, folder: Path, run_id: str, made_on: Mapping[str, str]) -> None:
        self._folder = folder
        self.run_id = run_id
        self.made_on = dict(made_on)

    def write(self, page: Page, tensors: Mapping[str, torch.Tensor]) -> None:
        """Replaces the checkpoint by a newer one; the older is removed once the newer is whole on disk.

        Raises:
            OSError: it cannot be written; the older one, if there is one, is untouched.
        """
        if not self._folder.is_dir():
            # Its study was removed or moved meanwhile, and is not made anew.
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        data = safetensors.torch.save(dict(tensors))
        file = self._tensors(page.step)
        vouched = page.model_copy(update={"sha256": hashlib.sha256(data).hexdigest()})
        try:
            write_atomically(file, data)
            write_atomically(self._folder / PAGE, vouched.model_dump_json().encode())
        except ResultsError as error:
            with contextlib.suppress(OSError):
                file.unlink()
            raise error.__cause__ if isinstance(error.__cause__, OSError) else OSError(str(error)) from error
        for path in self._folder.iterdir():
            if path.name not in (PAGE, file.name):
                path.unlink(missing_ok=True)

    def read(self) -> tuple[Page, dict[str, torch.Tensor]] | None:
        """The last whole checkpoint; None where there is none.

        Raises:
            Unusable: there is one, and it is damaged or not of this run on a machine like this.
        """
        try:
            text = (self._folder / PAGE).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unusable(f"{PAGE} cannot be read: {error.strerror}") from error
        page = _page(text)
        if page.run_id != self.run_id:
            raise Unusable(f"it is of run {page.run_id[:16]!r}")
        for key in sorted(page.made_on.keys() | self.made_on.keys()):
            there, here = page.made_on.get(key), self.made_on.get(key)
            if there != here:
                raise Unusable(f"{key} was {there!r} and is {here!r}")
        try:
            data = self._tensors(page.step).read_bytes()
        except OSError as error:
            raise Unusable(f"its tensors cannot be read: {error.strerror}") from error
        if hashlib.sha256(data).hexdigest() != page.sha256:
            raise Unusable("its tensors are not those that were written: torn or damaged")
        try:
            return page, safetensors.torch.load(data)
        except SafetensorError as error:
            raise Unusable(f"its tensors cannot be read: {error}") from error

    def set_aside(self) -> None:
        """Moves what is there to where nobody takes it for a checkpoint, until the run is over."""
        aside = self._folder.with_name(self._folder.name + SET_ASIDE)
        with contextlib.suppress(OSError):
            shutil.rmtree(aside, ignore_errors=True)
            self._folder.rename(aside)
            self._folder.mkdir()

    def _tensors(self, step: int) -> Path:
        return self._folder / f"step-{step}.safetensors"


def _page(text: bytes) -> Page:
    try:
        content = json.loads(text)
        version = content["schema_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Unusable(f"{PAGE} is torn or damaged") from error
    if type(version) is int and version > VERSION:
        raise Unusable(f"{PAGE}: schema_version {version} is newer than this program's {VERSION}")
    try:
        return Page.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise Unusable(f"{PAGE}: {'.'.join(map(str, first['loc'])) or 'content'}: {first['msg']}"[:200]) from error
