"""Fill one plot with facts: people, slots, turns, references. Everything comes from the random streams passed in."""

import random
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from study.dialogues import small_talk
from study.dialogues.names import PEOPLE, role
from study.dialogues.template import CORE_LINES, Aside, Plot, Row, Slots, Told

MAX_TURNS = 14
_AFTERTHOUGHTS = 2
_ROLE_SHARE = 0.4

_SENTENCE_START = re.compile(r"(?:^|(?<=[.!?] ))[a-z]")


@dataclass(frozen=True, slots=True)
class Filling:
    """The facts of one dialogue, by field name: as the speakers say them, and as the summary tells them.

    speakers: the labels of a and b, as they stand before the colon.
    """

    plot: Plot
    speakers: tuple[str, str]
    said: Mapping[str, object]
    told: Mapping[str, object]


class _Formatter(string.Formatter):
    """A format string with one format specification of its own: `a` puts the indefinite article before the value."""

    def format_field(self, value: Any, format_spec: str) -> str:
        text = str(value)
        if format_spec == "a":
            return f"{'an' if text[0].lower() in 'aeiou' else 'a'} {text}"
        return text


def render(template: str, facts: Mapping[str, object]) -> str:
    """Fill a template and capitalise its sentences.

    Raises:
        KeyError: the template names a field that the facts do not hold.
    """
    text = _Formatter().vformat(template, (), facts).strip()
    return _SENTENCE_START.sub(lambda match: match[0].upper(), text)


def fill(plot: Plot, stream: random.Random) -> Filling:
    """Draw the people and all facts of a plot."""
    a, b, c = stream.sample(PEOPLE, 3)
    # Drawn always, so that a plot's facts do not hang on whether it has roles.
    as_role = stream.random() < _ROLE_SHARE
    if plot.roles and as_role:
        b = role(stream.choice(plot.roles))
    people = {"a": a, "b": b, "c": c}
    said: dict[str, object] = dict(people)
    told: dict[str, object] = dict(people)
    for name, fact in _draw({**plot.slots, **small_talk.SLOTS}, stream).items():
        said[name] = _Formatter().vformat(fact.said, (), people)
        told[name] = _Formatter().vformat(fact.told, (), people)
    return Filling(plot, (a.label, b.label), said, told)


def dialogue(filling: Filling, turns: int, stream: random.Random) -> str:
    """Give the text of a dialogue with exactly `turns` turns: the core lines, then asides in pairs, then a closing."""
    talk = small_talk.AT_THE_COUNTER if filling.plot.roles else small_talk.AMONG_FRIENDS
    pairs, odd = divmod(turns - CORE_LINES, 2)
    core = [stream.choice(wordings) for wordings in filling.plot.lines]
    greeting = stream.choice(talk.greetings)
    closing = stream.choice(talk.closings)
    templates = _with_asides(core, _choose_asides(filling.plot, talk, pairs, stream))
    templates[0] = f"{greeting} {templates[0]}"
    if odd:
        templates.append(closing)
    return "\n".join(
        f"{filling.speakers[place % 2]}: {render(text, filling.said)}" for place, text in enumerate(templates)
    )


def references(filling: Filling, count: int, stream: random.Random) -> tuple[str, ...]:
    """Give `count` different wordings of the summary."""
    return tuple(render(template, filling.told) for template in stream.sample(filling.plot.summaries, count))


def _draw(slots: Slots, stream: random.Random) -> dict[str, Told]:
    """Draw a row for every slot; slots that name the same pool get different rows of it."""
    drawn: dict[str, Told] = {}
    taken: dict[tuple[Row, ...], list[Row]] = {}
    for names, pool in slots.items():
        used = taken.setdefault(pool, [])
        row = stream.choice([candidate for candidate in pool if candidate not in used])
        used.append(row)
        facts = row if isinstance(row, tuple) else (row,)
        for name, fact in zip(names.split(), facts, strict=True):
            drawn[name] = fact if isinstance(fact, Told) else Told(fact, fact)
    return drawn


def _choose_asides(plot: Plot, talk: small_talk.SmallTalk, pairs: int, stream: random.Random) -> list[Aside]:
    """Draw `pairs` asides: at most one opening, at most two afterthoughts, the others from the plot."""
    candidates = [
        stream.choice(talk.openings),
        *plot.asides,
        *stream.sample(talk.afterthoughts, _AFTERTHOUGHTS),
    ]
    chosen = sorted(stream.sample(range(len(candidates)), pairs))
    return [candidates[place] for place in chosen]


def _with_asides(core: Sequence[str], asides: Sequence[Aside]) -> list[str]:
    templates: list[str] = []
    for place in range(-1, len(core)):
        if place >= 0:
            templates.append(core[place])
        for aside in asides:
            if aside.after == place:
                templates += (aside.ask, aside.answer)
    return templates
