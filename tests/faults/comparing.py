"""In what two studies differ that should be the same but for times."""

import json
import shutil
from pathlib import Path
from typing import Any

from reports.report import write_report
from results.layout import StudyFolder
from results.schema import Record
from results.store import read_records
from tests.faults.starts import STUDY, Place

# What another start measures anew. All else in a record, and every prediction, is the same byte for byte.
MEASURED = ("memory", "seconds", "forecast", "energy_j", "energy_window_s", "energy", "gpu", "started_at")
# A time, whether a trial's process had run something before, and among how many runs it was: that depends on where the
# study was broken off.
MEASURED_CHECKS = ("first_step_s", "warm_worker", "side_by_side")


def differing(reference: Place, place: Place) -> list[str]:
    """In what two studies differ, but for times: records, predictions, plan, choices, and every file of the report.

    The report is made of the records with the measured fields of the reference in their place: then each of its files
    must be the same byte for byte, and none has to be left out for the times that it shows.
    """
    told = []
    first, second = read_records(reference.folder), read_records(place.folder)
    if second.damaged:
        told.append(f"damaged lines: {second.damaged}")
    if set(first.last) != set(second.last):
        told.append(f"other runs: {set(first.last) ^ set(second.last)}")
    for run_id in set(first.last) & set(second.last):
        one, other = (_unmeasured(records.last[run_id]) for records in (first, second))
        told += [f"run {run_id}: {key}: {one[key]} / {other.get(key)}" for key in one if one[key] != other.get(key)]
    told += _unequal_files(reference.folder.root / "predictions", place.folder.root / "predictions")
    if reference.folder.plan.read_bytes() != place.folder.plan.read_bytes():
        told.append("plan.json differs")
    chosen, also = (json.loads(each.folder.frozen.read_text()) for each in (reference, place))
    if {**chosen, "frozen_at": None} != {**also, "frozen_at": None}:
        told.append("frozen.json differs")
    return told or _unequal_reports(reference, place)


def _unmeasured(record: Record) -> dict[str, Any]:
    content = record.model_dump(mode="json")
    checks = {f"checks.{key}": value for key, value in content.pop("checks").items() if key not in MEASURED_CHECKS}
    return {key: value for key, value in content.items() if key not in MEASURED} | checks


def _unequal_reports(reference: Place, place: Place) -> list[str]:
    beside = place.root / "beside"
    shutil.copytree(place.folder.root, beside / STUDY)
    copy = StudyFolder.of(beside, STUDY)
    shutil.copy(reference.folder.frozen, copy.frozen)
    measured = read_records(reference.folder).last
    lines = []
    for record in read_records(place.folder).all:
        content = record.model_dump(mode="json")
        if record.is_final:
            of_reference = measured[record.run_id].model_dump(mode="json")
            content |= {key: of_reference[key] for key in MEASURED}
            content["checks"] |= {
                key: of_reference["checks"][key] for key in MEASURED_CHECKS if key in content["checks"]
            }
        lines.append(json.dumps(content) + "\n")
    copy.records.write_text("".join(lines))
    out = place.root / "beside-out"
    write_report(beside, STUDY, out)
    return _unequal_files(reference.report, out / STUDY)


def _unequal_files(first: Path, second: Path) -> list[str]:
    def contents(folder: Path) -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    one, other = contents(first), contents(second)
    names = sorted(set(one) | set(other))
    return [f"{first.name}/{name} differs" for name in names if one.get(name) != other.get(name)]
