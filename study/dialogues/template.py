"""The shape of a scene as data: plots, their lines, asides, slots and summary templates.

Templates are format strings. `{a}` and `{b}` are the two speakers, `{c}` is a third person; `{a.he}`, `{a.him}` and
`{a.his}` are their pronouns. Every other field names a slot of the plot; `{slot:a}` puts "a" or "an" before it.
The engine capitalises the first letter of every sentence.
"""

from collections.abc import Mapping
from dataclasses import dataclass

CORE_LINES = 4


@dataclass(frozen=True, slots=True)
class Told:
    """A fact as a speaker says it ("my car broke down") and as the summary tells it ("{a.his} car broke down")."""

    said: str
    told: str


Fact = str | Told
Row = Fact | tuple[Fact, ...]
Slots = Mapping[str, tuple[Row, ...]]


@dataclass(frozen=True, slots=True)
class Aside:
    """Two turns that carry nothing of the summary: small talk, a side question, an idea that comes to nothing.

    after: the place of the core line that they follow; -1 is before the first. The speakers alternate throughout, so
    after lines 0 and 2 it is b who asks, and after -1, 1 and 3 it is a.
    """

    after: int
    ask: str
    answer: str


@dataclass(frozen=True, slots=True)
class Plot:
    """One course of events, from which a dialogue and all its references are filled with the same facts.

    slots: a name to its pool; a name of several words ("item fault") draws a row of as many linked facts. Slots that
    name the same pool get different rows, so an idea that is refused never equals the one agreed on.
    lines: the four turns that no dialogue lacks (a, b, a, b), each with alternative wordings of the same facts.
    summaries: alternative wordings; a dialogue's references are drawn from them.
    roles: what b may be called instead of a name ("receptionist"); where there are any, no template uses b's pronouns
    and no line addresses b.
    """

    name: str
    slots: Slots
    lines: tuple[tuple[str, ...], ...]
    asides: tuple[Aside, ...]
    summaries: tuple[str, ...]
    roles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scene:
    """A family of plots, under the name by which `generate` is asked for it."""

    name: str
    plots: tuple[Plot, ...]
