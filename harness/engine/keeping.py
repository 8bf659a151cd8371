"""Keeps checkpoints of a training as it goes, and goes on from the one that an interrupted start has left."""

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from harness.engine.census import Census
from harness.engine.checkpoints import CheckpointFiles, Measured, Page, Tally, Unusable
from harness.engine.restoring import Live


class Witness(Protocol):
    """What is measured of a training, and who hears of its checkpoints."""

    def measured(self) -> Measured:
        """Seconds and peaks of this part so far."""

    def aside(self) -> AbstractContextManager[None]:
        """What is done inside is no part of what is measured."""

    def breakdown(self) -> dict[str, int] | None:
        """What the peak of the first step consists of, in bytes; None where nobody looked."""

    def resumed(self, page: Page) -> None:
        """The training goes on from a checkpoint."""

    def failed(self, what: str, why: str) -> None:
        """A checkpoint could not be used or saved: the training goes on without."""


class Keeper:
    """The checkpoints of one training; `seconds` is what they took, beside the training itself."""

    def __init__(self, files: CheckpointFiles, every: int, witness: Witness) -> None:
        self._files = files
        self._every = every
        self._witness = witness
        self._earlier: Page | None = None
        self.seconds = 0.0

    def put_back(self, live: Live, steps: int) -> Page | None:
        """Goes back to the last checkpoint, and returns its page; None where there is none that can be used."""
        begun = time.monotonic()
        page = None
        try:
            with self._witness.aside():
                page = self._gone_back(live, steps)
        except Unusable as error:
            self._files.set_aside()
            self._witness.failed("checkpoint_not_used", str(error))
        self.seconds += time.monotonic() - begun
        self._earlier = page
        if page is not None:
            self._witness.resumed(page)
        return page

    def _gone_back(self, live: Live, steps: int) -> Page | None:
        found = self._files.read()
        if found is None:
            return None
        page, tensors = found
        if page.steps != steps:
            raise Unusable(f"it is of a training of {page.steps} steps")
        live.put_back(page, tensors)
        return page

    def step_made(self, live: Live, tally: Tally, steps: int) -> None:
        """A step was made, and waited for: every so many of them a checkpoint is due."""
        step = len(tally.losses)
        if step % self._every:
            return
        measured = self._witness.measured()
        begun = time.monotonic()
        earlier = self._earlier
        page = Page(
            run_id=self._files.run_id,
            made_on=self._files.made_on,
            step=step,
            steps=steps,
            tally=tally,
            scaler=live.scaler,
            skipped=live.skipped,
            measured=measured.and_before(None if earlier is None else earlier.measured),
            breakdown=self._witness.breakdown() if earlier is None else earlier.breakdown,
        )
        try:
            with self._witness.aside():
                self._files.write(page, live.tensors())
        except OSError as error:
            # The run needs none to be whole: a full disk must not cost it.
            self._witness.failed("checkpoint_not_saved", error.strerror or type(error).__name__)
        self.seconds += time.monotonic() - begun


@dataclass(frozen=True, slots=True)
class Beside:
    """What goes on beside a training, if anything: a look at its first step (GPU only), and checkpoints."""

    census: Census | None = None
    keeper: Keeper | None = None

    @property
    def seconds(self) -> float:
        """What it took, beside the training itself."""
        return sum(each.seconds for each in (self.census, self.keeper) if each is not None)

    def step_made(self, live: Live, tally: Tally, steps: int) -> None:
        """A step was made, and waited for."""
        if self.keeper is not None:
            self.keeper.step_made(live, tally, steps)
