"""The prospects of a study as a person reads them."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.forecast import CARDS, GIB, Overhead
from harness.prospects import Prospect, Prospects, totals
from study.problems import one_line

MISSING = "—"


def print_prospects(prospects: Prospects, console: Console, card: tuple[str, int] | None) -> None:
    """Memory, the cards that hold it, time and energy of every arm.

    Args:
        card: the name and bytes of the card that is asked about, if any.
    """
    if not console.is_terminal:
        # As in the plan above it: captured output has no width of its own.
        console = Console(file=console.file, width=160)
    table = Table(box=None, pad_edge=False, header_style="bold", title="forecast", title_justify="left")
    headers = ["arm", "train GiB", "evaluate GiB", "card GiB", "fits on GiB", "time", "energy"]
    if card is not None:
        headers.insert(5, escape(one_line(f"fits {card[0]}")))
    for header in headers:
        right = header.endswith("GiB") and header != "fits on GiB"
        table.add_column(header, justify="right" if right else "left", overflow="fold")
    for prospect in prospects.arms:
        table.add_row(*_row(prospect, prospects.overhead, card))
    console.print()
    console.print(table)
    for line in _notes(prospects):
        console.print(one_line(line), highlight=False, markup=False, emoji=False, soft_wrap=True)


def _row(prospect: Prospect, overhead: Overhead, card: tuple[str, int] | None) -> list[str]:
    peak = prospect.peak_bytes
    needed = None if peak is None else overhead.card_bytes(peak)
    fitting = MISSING if needed is None else " ".join(str(size) for size in CARDS if needed <= size * GIB) or "none"
    cells = [prospect.arm.name, _gib(prospect.train_bytes), _gib(prospect.evaluate_bytes), _gib(needed), fitting]
    if card is not None:
        cells.append(MISSING if needed is None else "yes" if needed <= card[1] else "no")
    return [*cells, duration(prospect.seconds), energy(prospect.joules)]


def _gib(size: int | None) -> str:
    return MISSING if size is None else f"{size / GIB:.2f}"


def duration(seconds: float | None) -> str:
    """Seconds as hours or minutes."""
    if seconds is None:
        return MISSING
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def energy(joules: float | None) -> str:
    """Joules as kilowatt-hours or watt-hours."""
    if joules is None:
        return MISSING
    return f"{joules / 3.6e6:.2f} kWh" if joules >= 3.6e6 else f"{joules / 3600:.1f} Wh"


def _notes(prospects: Prospects) -> list[str]:
    overhead = prospects.overhead
    lines = [
        f"peaks of allocated memory at the largest rank of the space; card: {100 * overhead.reserved_share:.0f}% more "
        f"for what the allocator keeps, {overhead.context_bytes / GIB:.2f} GiB context, "
        f"{overhead.driver_bytes / GIB:.2f} GiB driver"
    ]
    batch = next((prospect.batch for prospect in prospects.arms if prospect.batch is not None), None)
    if batch is not None:
        of_data = "taken to be, as the grid allows" if prospects.assumed else "measured on the data"
        lines.append(f"longest batch ({of_data}): {batch[0]} dialogues of {batch[1]} tokens, {batch[2]} with logits")
    lines += sorted({f"no forecast: {prospect.error}" for prospect in prospects.arms if prospect.error})
    seconds, joules = totals(prospects.arms)
    paces = [prospect.pace for prospect in prospects.arms if prospect.pace is not None]
    if paces:
        machines = ", ".join(dict.fromkeys(pace.machine for pace in paces))
        exact = sum(pace.exact for pace in paces)
        lines.append(
            f"time of all trainings: {duration(seconds)}, {energy(joules)} on {machines}, from earlier runs like them "
            f"({exact} of {len(paces)} arms had runs of just their kind)"
        )
    if len(paces) < sum(prospect.arm.trains for prospect in prospects.arms):
        lines.append("time: some arms have no earlier run like them; --calibrate makes a short one of each")
    return lines
