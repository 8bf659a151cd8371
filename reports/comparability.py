"""Which records may stand beside each other: same machine, same software, same data and prompt."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from results.schema import Record

# A version of one of these can move a score or a peak.
_PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "rouge_score")


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Records that no figure uses: why, and which runs."""

    reason: str
    run_ids: tuple[str, ...]


def comparability(record: Record) -> tuple[tuple[str, str], ...]:
    """What must agree between two records before they are compared, name by name."""
    environment = record.environment
    packages = _packages(record)
    return (
        ("device", str(environment.get("gpu") or environment.get("cpu"))),
        # A driver's minor releases are bug fixes.
        ("driver", str(environment.get("driver") or "none").split(".")[0]),
        *((name, str(packages.get(name))) for name in _PACKAGES),
        ("test data", record.data.evaluated_hash[:12]),
        ("prompt", record.prompt_hash),
    )


def largest_group(records: Sequence[Record]) -> tuple[list[Record], list[LeftOut]]:
    """The largest group of records that may stand beside each other, and the rest with what differs in them.

    Of groups of one size it is the one with the latest record.
    """
    keys = {record.run_id: comparability(record) for record in records}
    if not keys:
        return [], []
    counts = Counter(keys.values())
    latest = {key: index for index, key in enumerate(keys.values())}
    chosen = max(counts, key=lambda key: (counts[key], latest[key]))
    others: dict[str, list[str]] = {}
    for run_id, key in keys.items():
        differing = [
            f"{name} {value}" for (name, value), ours in zip(key, chosen, strict=True) if (name, value) != ours
        ]
        if differing:
            others.setdefault("not comparable with the rest: " + ", ".join(differing), []).append(run_id)
    left_out = [LeftOut(reason, tuple(run_ids)) for reason, run_ids in others.items()]
    return [record for record in records if keys[record.run_id] == chosen], left_out


def machine(record: Record) -> str:
    """Where a run ran, in words."""
    environment, packages = record.environment, _packages(record)
    versions = ", ".join(f"{name} {packages[name]}" for name in _PACKAGES if packages.get(name))
    if environment.get("gpu"):
        return f"{environment['gpu']}, driver {environment.get('driver') or 'unknown'}; {versions}"
    return f"{environment.get('cpu') or 'CPU'}, {environment.get('cpus') or '?'} cores, no GPU; {versions}"


def _packages(record: Record) -> dict[str, object]:
    packages = record.environment.get("packages")
    return packages if isinstance(packages, dict) else {}
