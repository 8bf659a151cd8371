"""Whether a study's data are still those that its recorded runs used."""

from collections.abc import Iterable

from harness.adapters.sources import DataError
from harness.specs import Specs
from results.schema import Record


def same_data(study: str, specs: Specs, records: Iterable[Record]) -> None:
    """Refuses data that changed behind the name of a study: all its runs would be made again, and compared with none
    of those before.

    Raises:
        DataError: a split is none that a recorded run used.
    """
    known: dict[str, set[str]] = {}
    for record in records:
        known.setdefault(record.split, set()).add(record.data.evaluated_hash)
        if record.data.train_hash is not None:
            known.setdefault("train", set()).add(record.data.train_hash)
    for split, part in specs.splits.items():
        if split in known and part.hash not in known[split]:
            raise DataError(
                f"data: the {split} split is not the one that the recorded runs of {study!r} used (digest "
                f"{part.hash[:16]}…, theirs {min(known[split])[:16]}…): bring the old data back, choose another name "
                "for the study, or add --new-data, which makes its runs again and keeps the old ones"
            )
