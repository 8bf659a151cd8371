"""From the claims of a grid file to claims about its arms."""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from study.arms import Arm
from study.claims import EXTERNAL_PREFIX, Claim, FixedMargin, RetainMargin
from study.problems import Problem, choices, shown
from study.schema import ClaimSection, RetainSection

# As `python -m results add-predictions --arm` takes it.
_EXTERNAL = re.compile(EXTERNAL_PREFIX + r"[A-Za-z0-9][\w-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True)
class External:
    """A system from elsewhere, by its whole name `external/NAME`; it has no axes, so every arm agrees with it.

    Whether its predictions are there only the report can tell: they may be added after the runs.
    """

    name: str
    axes: tuple[tuple[str, object], ...] = ()


@dataclass(frozen=True, slots=True)
class Contestants:
    """The arms that claims can name. `unread` are names of arms that have faults of their own, None among them where
    not even the name could be read: what a claim on such an arm lacks is no fault of the claim."""

    arms: Sequence[Arm]
    unread: Collection[str | None]

    def named(self, name: str) -> "list[Arm] | list[External]":
        """The arm of that name, or every member of that family; the system from elsewhere."""
        if _EXTERNAL.fullmatch(name):
            return [External(name)]
        exact = [arm for arm in self.arms if arm.name == name]
        return exact or [arm for arm in self.arms if arm.family == name]

    def may_be_unread(self, name: str) -> bool:
        """Whether the name may belong to an arm that could not be read."""
        return None in self.unread or name.partition("@")[0] in self.unread

    def zero_shot_of(self, arm: Arm | External) -> Arm | None:
        """The zero-shot arm on the same base as `arm`, or None where there is none."""
        if isinstance(arm, External):
            return None
        return next((other for other in self.arms if not other.trains and other.base == arm.base), None)


def resolve_claims(
    sections: Sequence[ClaimSection | None], contestants: Contestants
) -> tuple[tuple[Claim, ...], list[Problem]]:
    """The claims on expanded arms: a family's name as candidate means each of its members.

    Each is held against the member of the reference's family whose axis values agree with its own; a reference that
    names one arm exactly is that arm. `external/NAME`, on either side, is a system that the grid does not train.
    """
    claims: list[Claim] = []
    problems: list[Problem] = []
    for index, section in enumerate(sections):
        if section is None:
            continue
        path = f"claims[{index}]" + (f" ({section.name})" if section.name is not None else "")
        if len(set(section.metrics)) < len(section.metrics):
            problems.append(Problem.of(f"{path}.metrics", section.metrics, "holds a metric twice"))
        pairs = _pairs(section, contestants, path, problems.append)
        for candidate, reference in pairs:
            problems += _pair_problems(section, candidate, reference, contestants, path)
            claim = _claim(section, candidate, reference, several=len(pairs) > 1)
            if any(claim.name == earlier.name for earlier in claims):
                problems.append(Problem.of(f"{path}.name", claim.name, "is the name of another claim"))
            claims.append(claim)
    return tuple(claims), list(dict.fromkeys(problems))


def _pairs(
    section: ClaimSection, contestants: Contestants, path: str, tell: Callable[[Problem], None]
) -> list[tuple[Arm | External, Arm | External]]:
    found: dict[str, list[Arm] | list[External]] = {}
    for key, name in (("candidate", section.candidate), ("reference", section.reference)):
        found[key] = contestants.named(name)
        if not found[key] and not contestants.may_be_unread(name):
            tell(Problem.of(f"{path}.{key}", name, _unknown(name, contestants)))
    pairs: list[tuple[Arm | External, Arm | External]] = []
    for candidate in found["candidate"]:
        references = [arm for arm in found["reference"] if arm.name == section.reference or _agrees(candidate, arm)]
        if len(references) == 1 and references[0].name != candidate.name:
            pairs.append((candidate, references[0]))
        elif len(references) == 1:
            tell(Problem.of(f"{path}.reference", section.reference, f"is the candidate {shown(candidate.name)} itself"))
        elif found["reference"] and not contestants.may_be_unread(section.reference):
            message = (
                f"gives {len(references)} arms to hold {shown(candidate.name)} against, exactly one is needed: "
                + choices(arm.name for arm in found["reference"])
            )
            tell(Problem.of(f"{path}.reference", section.reference, message))
    return pairs


def _unknown(name: str, contestants: Contestants) -> str:
    if name.startswith(EXTERNAL_PREFIX):
        return f"is no name for a system from elsewhere: {EXTERNAL_PREFIX}NAME, of letters, digits, - and _"
    known = choices(dict.fromkeys(name for arm in contestants.arms for name in (arm.family, arm.name)))
    elsewhere = f"; a system from elsewhere is {EXTERNAL_PREFIX}NAME" if "/" in name else ""
    return f"is no arm of this grid: {known}{elsewhere}"


def _agrees(candidate: Arm | External, reference: Arm | External) -> bool:
    mine = dict(candidate.axes)
    return all(mine.get(key, value) == value for key, value in reference.axes)


def _pair_problems(
    section: ClaimSection,
    candidate: Arm | External,
    reference: Arm | External,
    contestants: Contestants,
    path: str,
) -> list[Problem]:
    problems: list[Problem] = []
    retains = isinstance(section.margin, RetainSection)
    if retains and isinstance(reference, External):
        message = f"retain needs a reference that this study tunes, and {shown(reference.name)} is from elsewhere"
        problems.append(Problem(f"{path}.margin", message))
    elif retains and contestants.zero_shot_of(reference) is None and not contestants.unread:
        message = f"retain needs a zero-shot arm (method none) on the base of {shown(reference.name)}"
        problems.append(Problem(f"{path}.margin", message))
    if section.drop_in:
        problems += [
            Problem(f"{path}.drop_in", f"{key} {shown(arm.name)} is {what} and has no hyperparameters")
            for key, arm in (("candidate", candidate), ("reference", reference))
            if (what := _untrained(arm)) is not None
        ]
    return problems


def _untrained(arm: Arm | External) -> str | None:
    """Why an arm has no hyperparameters; None where it has."""
    if isinstance(arm, External):
        return "from elsewhere"
    return None if arm.trains else "zero-shot"


def _claim(section: ClaimSection, candidate: Arm | External, reference: Arm | External, *, several: bool) -> Claim:
    margin = section.margin
    name = section.name or f"{section.candidate}-matches-{section.reference}"
    suffix = ",".join(f"{key}={value}" for key, value in candidate.axes)
    return Claim(
        name=f"{name}@{suffix}" if several else name,
        candidate=candidate.name,
        reference=reference.name,
        metrics=tuple(section.metrics),
        margin=RetainMargin(margin.retain) if isinstance(margin, RetainSection) else FixedMargin(float(margin)),
        confidence=section.confidence,
        drop_in=section.drop_in,
    )
