"""What a reader must know beside a measured figure: a GPU that was shared, memory that the allocator does not see."""

from collections.abc import Iterable

from results.schema import Record


def shared_gpu(records: Iterable[Record]) -> tuple[Record, ...]:
    """The runs that were not alone on their GPU."""
    return tuple(record for record in records if record.gpu is not None and not record.gpu.alone)


def shared_sentence(count: int) -> str:
    """What it means that `count` runs were not alone."""
    what = "memory of the device, time and energy"
    if count == 1:
        return f"1 run shared its GPU with other processes: {what} of it are not its alone"
    return f"{count} runs shared their GPU with other processes: {what} of these are not theirs alone"


def shared_remark(records: Iterable[Record]) -> str:
    """The end of a caption: whether any of the records behind it shared its GPU; empty where none did."""
    shared = {record.run_id for record in shared_gpu(records)}
    return f" Among these runs, {shared_sentence(len(shared))}." if shared else ""


def side_by_side_remark(records: Iterable[Record]) -> str:
    """The end of a caption: whether any of the runs behind it was made beside others; empty where none was."""
    # Checks are free-form, also in records that came from elsewhere.
    counts = [record.checks.get("side_by_side") for record in records]
    most = max((count for count in counts if type(count) is int), default=1)
    return f" Up to {most} runs were made at a time on one host, which their times show." if most > 1 else ""


def resumed(record: Record) -> bool:
    """Whether a run's training was made in parts, from a checkpoint on."""
    # Checks are free-form, also in records that came from elsewhere.
    return type(record.checks.get("resumed_from_step")) is int


def resumed_remark(records: Iterable[Record]) -> str:
    """The end of a caption: whether any training behind it was made in parts; empty where none was."""
    count = len({record.run_id for record in records if resumed(record)})
    if not count:
        return ""
    return (
        f" {count} of these runs {'was' if count == 1 else 'were'} interrupted and went on from a checkpoint: training "
        "time is the sum of the parts, with a warm-up in each, memory the highest that the worker read in any part; "
        "energy and process memory were not taken, and what ran beside the earlier parts is not known."
    )


def engine_remark(records: Iterable[Record]) -> str:
    """The end of a caption: which arms were computed without a lever that others had, and why; empty where none was."""
    missing: dict[tuple[str, str], set[str]] = {}
    levers: dict[str, set[bool]] = {}
    for record in records:
        told = record.checks.get("engine")
        engine = told if isinstance(told, dict) else {}
        for lever, name in (("fused", "fused layers"), ("cuda_graphs", "CUDA graphs"), ("kernels", "Triton kernels")):
            if lever in engine:
                levers.setdefault(name, set()).add(bool(engine[lever]))
                if not engine[lever]:
                    missing.setdefault((name, str(engine.get(f"{lever}_not"))), set()).add(record.arm)
    differences = [
        f"{', '.join(sorted(arms))} without {name} ({reason})"
        for (name, reason), arms in sorted(missing.items())
        if len(levers[name]) == 2
    ]
    return f" Not all arms had the same engine: {'; '.join(differences)}." if differences else ""


def paged_remark(records: Iterable[Record]) -> str:
    """The end of a caption: whether any optimizer state lay in paged memory; empty where none did."""
    if not any((record.training or {}).get("optimizer") == "paged_adamw_8bit" for record in records):
        return ""
    return (
        " The optimizer is paged: the state of its large matrices (of 100,000 elements or more) lies in paged memory, "
        "which the allocator does not see, so that allocated and reserved memory are without it."
    )
