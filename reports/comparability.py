"""Which records may stand beside each other: same machine, same software, same data and prompt."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from results.schema import Record

# A version of one of these can move a score or a peak.
_PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "rouge_score")


_TRAINING = "training data"
# A run that trains nothing agrees with every set of training data.
_UNTRAINED = "none"

Key = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Records that no figure uses: why, and which runs."""

    reason: str
    run_ids: tuple[str, ...]


def comparability(record: Record) -> Key:
    """What must agree between two records before they are compared, name by name."""
    environment = record.environment
    packages = _packages(record)
    return (
        ("device", str(environment.get("gpu") or environment.get("cpu"))),
        # A driver's minor releases are bug fixes.
        ("driver", str(environment.get("driver") or "none").split(".")[0]),
        *((name, str(packages.get(name))) for name in _PACKAGES),
        (f"{record.split} data", record.data.evaluated_hash[:12]),
        (_TRAINING, (record.data.train_hash or _UNTRAINED)[:12]),
        ("prompt", record.prompt_hash),
    )


def largest_group(records: Sequence[Record]) -> tuple[list[Record], list[LeftOut]]:
    """The largest group of records that may stand beside each other, and the rest with what differs in them.

    Of groups of one size it is the one with the latest record.
    """
    keys = {record.run_id: comparability(record) for record in records}
    if not keys:
        return [], []
    groups = _with_untrained(keys)
    counts = Counter(groups.values())
    latest = {key: index for index, key in enumerate(groups.values())}
    chosen = max(counts, key=lambda key: (counts[key], latest[key]))
    others: dict[str, list[str]] = {}
    for run_id, key in groups.items():
        differing = [
            f"{name} {value} (not {ours})"
            for (name, value), (_, ours) in zip(key, chosen, strict=True)
            if value != ours
        ]
        if differing:
            others.setdefault("not comparable with the rest: " + ", ".join(differing), []).append(run_id)
    left_out = [LeftOut(reason, tuple(run_ids)) for reason, run_ids in others.items()]
    return [record for record in records if groups[record.run_id] == chosen], left_out


def _with_untrained(keys: dict[str, Key]) -> dict[str, Key]:
    """The keys with untrained runs counted to the training data that most of the others used."""
    used = Counter(dict(key)[_TRAINING] for key in keys.values())
    del used[_UNTRAINED]
    most = used.most_common(1)[0][0] if used else _UNTRAINED

    def placed(key: Key) -> Key:
        return tuple((name, most if (name, value) == (_TRAINING, _UNTRAINED) else value) for name, value in key)

    return {run_id: placed(key) for run_id, key in keys.items()}


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
