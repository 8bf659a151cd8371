"""Where the files of a study lie, and nothing else."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

DEFAULT_RESULTS = Path("results/data")
# As a grid may name a study: it becomes a folder's name, and is never a path.
_STUDY = re.compile(r"[A-Za-z0-9][\w-]{0,63}", re.ASCII)
_RUN_ID = re.compile(r"[0-9a-f]{16}", re.ASCII)
# How the name of a checkpoint ends that cannot be used, and is kept for a look until its run is over.
SET_ASIDE = ".unusable"


@dataclass(frozen=True, slots=True)
class StudyFolder:
    """The folder `<results>/<study>/` of one study."""

    root: Path

    @classmethod
    def of(cls, results: Path, study: str) -> "StudyFolder":
        """The folder of `study` under `results`."""
        return cls(results / study)

    @classmethod
    def planned(cls, results: Path, study: str) -> "StudyFolder | None":
        """The folder of a study that has a plan; None where `study` is no name of one, whatever lies there."""
        folder = cls.of(results, study)
        return folder if _STUDY.fullmatch(study) and folder.has_plan else None

    @property
    def has_plan(self) -> bool:
        """Whether a grid was started here; a path that no file can have is not there."""
        return os.path.isfile(self.plan)

    @property
    def records(self) -> Path:
        """One record a line, only ever appended to."""
        return self.root / "records.jsonl"

    @property
    def torn(self) -> Path:
        """Ends of records that a crash left behind, set apart; their runs are made again."""
        return self.root / "records.torn"

    @property
    def frozen(self) -> Path:
        """The choices made before the test split was scored."""
        return self.root / "frozen.json"

    @property
    def plan(self) -> Path:
        """The planned matrix of the last start: what reports hold the records against."""
        return self.root / "plan.json"

    @property
    def lock(self) -> Path:
        """Held by the conductor that works on the study."""
        return self.root / ".lock"

    @property
    def logs(self) -> Path:
        """What the workers wrote to their standard error, a file each."""
        return self.root / "logs"

    def predictions(self, run_id: str) -> Path:
        """One prediction a line, in the order of the split's examples."""
        return self.root / "predictions" / f"{run_id}.jsonl"

    def adapter(self, run_id: str) -> Path:
        """A run's adapter as PEFT keeps it: adapter_config.json and adapter_model.safetensors."""
        return self.root / "adapters" / run_id

    @property
    def checkpoints(self) -> Path:
        """What trainings that were broken off go on from, a folder each; a run that is over has none."""
        return self.root / "checkpoints"

    def checkpoint(self, run_id: str) -> Path:
        """A run's checkpoint.

        Raises:
            ValueError: that is no run id, and might be a path.
        """
        if not _RUN_ID.fullmatch(run_id):
            raise ValueError(f"{run_id!r} is no run id")
        return self.checkpoints / run_id

    def external(self, name: str, seed: int) -> Path:
        """The predictions of a system from elsewhere, as its training seed wrote them."""
        return self.root / "external" / f"{name}.{seed}.json"

    def examples(self, split: str, digest: str) -> Path:
        """The dialogues and references of a split as they were used. Text of the data set: never published."""
        return self.root / "examples" / f"{split}-{digest[:16]}.jsonl"
