"""`numbers.tex`: a macro for every number that a paper would quote, so that its text cannot drift from its records.

Names are made of what they tell: an arm and a column (`\\LoraRougeL`, `\\LoraRougeLHalfWidth`, `\\LoraPeakMemory`), or
the two sides of a claim, a metric and a column. The difference itself has no column: `\\QloraVsLoraRougeL`, with
`…NinetyLow`, `…NinetyHigh`, `…NinetyFiveLow`, `…NinetyFiveHigh`, `…TostP`, `…HolmP`, `…Margin`, `…Verdict` beside it.
Digits are spelt out, and nothing else than a name's letters and digits counts. Macros of the tables of measurements
begin with the table's name (`\\MemoryLoraTrainCompletedAllocated`), those of the study with `Study`, `Forecast` and
`PrimaryClaim`.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from reports.claiming import ClaimResult
from reports.evidence import Evidence
from reports.latex import Macros, macro_name
from reports.run_tables import forecast_errors
from reports.tables import MISSING, Cell, Column, Table
from study.metrics import METRICS
from study.problems import one_line

HEAD = "% written by python -m reports: every number as the tables print it\n"


class MacroCollision(ValueError):
    """Two numbers would have one macro; names both."""


@dataclass(frozen=True, slots=True)
class _Naming:
    """How the rows of a table become macros: how many first cells name a row, and whether its name stands before.

    `only` are the headers of the columns that are taken, where the others stand in another table already.
    """

    cells: int
    prefixed: bool = False
    only: tuple[str, ...] = ()


_MEASURED = _Naming(1, prefixed=True)
# Tables that have one row a run, or a row for each of many settings, have no macros: nobody quotes them one by one.
_TABLES: Mapping[str, _Naming] = {
    "main": _Naming(1),
    "verdicts": _Naming(2),
    "memory": _Naming(3, prefixed=True),
    "breakdown": _MEASURED,
    "cost": _MEASURED,
    "hyperparameters": _Naming(1, only=("validation", "trials", "completed trials")),
    "estimands": _Naming(3),
    "power": _Naming(
        2,
        only=(
            "σ seed",
            "σ residual",
            "σ dialogue",
            "degrees of freedom",
            "seeds of the candidate",
            "seeds of the reference",
            "dialogues",
            "power",
            "seeds needed",
            "dialogues needed",
        ),
    ),
}
_BY_CLAIM = frozenset({"verdicts", "estimands", "power"})
# What stands in the table of verdicts already.
_TUNED = "tuned against tuned"
_OF_TUNED = ("90% interval (bootstrap)", "gain kept", "gain kept, 95% interval")
_WORDS = {
    "difference": "",
    "90% interval": "Ninety",
    "95% interval": "NinetyFive",
    "90% interval (bootstrap)": "NinetyBootstrap",
    "gain kept, 95% interval": "GainKeptNinetyFive",
    "trainable": "TrainableShare",
    "training": "TrainingSeconds",
    "drop-in (secondary)": "DropIn",
    _TUNED: "",
}


def numbers_tex(
    main: Table,
    verdicts: Table,
    others: Sequence[Table] = (),
    claims: Sequence[ClaimResult] = (),
    evidence: Evidence | None = None,
) -> str:
    """One macro a number, each exactly as its table prints it; what a table has not has no macro.

    `claims` give the claims of the tables their sides (`QloraVsLora`); without them, or where two claims have the same
    sides, it is the claim's own name. `evidence` adds what is of the whole study.

    Raises:
        MacroCollision: two names come to the same letters.
    """
    macros = Macros()
    sides = _sides(claims)
    for table in (main, verdicts, *others):
        if table.name in _TABLES:
            for value, name, remark in _of_table(table, _TABLES[table.name], sides):
                _define(macros, value, name, remark)
    whole = () if evidence is None else (*_savings(claims, sides, evidence), *_of_study(evidence))
    for value, name, remark in (*_of_claims(claims, sides), *whole):
        _define(macros, value, name, remark)
    return HEAD + macros.text()


def numbers_file(tables: Sequence[Table], claims: Sequence[ClaimResult], evidence: Evidence) -> bytes:
    """The file's content.

    Where two names come to the same letters, the file stops a paper that reads it, with the reason: a report is not
    withheld for the names of its macros, but no paper may quote the number of the other arm.
    """
    main, verdicts, *others = tables
    try:
        return numbers_tex(main, verdicts, others, claims, evidence).encode()
    except MacroCollision as error:
        # TeX expands what it is to say: nothing but letters, digits and signs that mean nothing to it.
        said = re.sub(r"[^A-Za-z0-9 .,:;/()=_-]", "", str(error))
        return f"{HEAD}% {error}\n\\errmessage{{{said}}}\n".encode()


def trouble(numbers: bytes) -> str | None:
    """Why `numbers.tex` has no macros, as its second line tells; None where it has."""
    lines = numbers.decode().splitlines()
    stopped = any(line.startswith("\\errmessage") for line in lines)
    return f"numbers.tex: {lines[1].removeprefix('% ')}" if stopped else None


def _define(macros: Macros, value: str, name: str, remark: str) -> None:
    other = macros.remark(name)
    if other is not None:
        raise MacroCollision(
            f"\\{name} would stand for {one_line(other)} and for {one_line(remark)}: their names have the same letters"
        )
    macros.define(value, name, remark)


def _sides(claims: Sequence[ClaimResult]) -> dict[str, str]:
    """The name of each claim in macros: its sides, or its own where those are of several claims, or unknown yet."""
    pairs = {
        claim.name: macro_name(claim.claim.candidate, "Vs", claim.claim.reference)
        for claim in claims
        if claim.claim is not None
    }
    often = Counter(pairs.values())
    return {claim.name: _side(claim.name, pairs.get(claim.name), often) for claim in claims}


def _side(claim: str, pair: str | None, often: Mapping[str, int]) -> str:
    return pair if pair is not None and often[pair] == 1 else macro_name(claim)


def _of_table(table: Table, naming: _Naming, sides: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Text, name and remark of each number of a table."""
    for row in table.rows:
        first, *rest = (cell.text for cell in row[: naming.cells])
        subject = sides.get(first, macro_name(first)) if table.name in _BY_CLAIM else macro_name(first)
        words = [subject, *_row_words(table.name, rest)]
        start = (macro_name(table.name) if naming.prefixed else "") + "".join(words)
        for column, cell in zip(table.columns[naming.cells :], row[naming.cells :], strict=True):
            if not _is_taken(table.name, naming, column, rest):
                continue
            for value, ending in _numbers(column, cell):
                yield value, start + _word(column.header) + ending, _remark(table, [first, *rest], column, ending)


def _row_words(table: str, rest: Sequence[str]) -> list[str]:
    """The names of a row beside its subject: metric and estimand, or phase and outcome."""
    words = [_word(text) for text in rest]
    # The estimand stands before the metric: \QloraVsLoraDropInRougeL.
    return words[::-1] if table == "estimands" else words


def _is_taken(table: str, naming: _Naming, column: Column, rest: Sequence[str]) -> bool:
    if table == "estimands":
        return rest[-1] != _TUNED or column.header in _OF_TUNED
    return not naming.only or column.header.startswith(naming.only)


def _word(text: str) -> str:
    """A header or a cell as part of a name: ROUGE-L is RougeL, whatever stands in brackets is left out."""
    if text in _WORDS:
        return _WORDS[text]
    plain = re.sub(r"\(.*?\)", "", text.replace("σ", "sigma "))
    return macro_name(
        *(part.capitalize() if part.isupper() and len(part) > 1 else part for part in re.split(r"\W", plain))
    )


def _remark(table: Table, row: Sequence[str], column: Column, ending: str) -> str:
    return " / ".join([table.name, *row, column.title, *([ending] if ending else [])])


def _numbers(column: Column, cell: Cell) -> Iterator[tuple[str, str]]:
    """The numbers in a cell, each with what is added to its name; a verdict is quoted too."""
    text = cell.text
    if text == MISSING or not (column.numeric or column.header == "verdict"):
        return
    if " ± " in text:
        mean, _, half_width = text.partition(" ± ")
        yield mean, ""
        yield half_width, "HalfWidth"
    elif text.startswith("["):
        low, _, high = text.strip("[]").partition(", ")
        yield low, "Low"
        yield high, "High"
    else:
        yield text, ""


def _of_claims(claims: Sequence[ClaimResult], sides: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """What is of a whole claim, and the parts of names by which a text can quote the first claim of any study."""
    for claim in claims:
        yield _verdict(claim), f"{sides[claim.name]}Verdict", f"claim {claim.name} / verdict over all metrics"
    primary = next(iter(claims), None)
    if primary is None:
        return
    remark = f"claim {primary.name}"
    yield sides[primary.name], "PrimaryClaimMacro", f"{remark} / how its macros begin"
    yield primary.name, "PrimaryClaimName", f"{remark} / name"
    yield _verdict(primary), "PrimaryClaimVerdict", f"{remark} / verdict"
    if primary.claim is None:
        return
    for side, arm in (("Candidate", primary.claim.candidate), ("Reference", primary.claim.reference)):
        yield arm, f"PrimaryClaim{side}", f"{remark} / {side.lower()}"
        yield macro_name(arm), f"PrimaryClaim{side}Macro", f"{remark} / how the macros of the {side.lower()} begin"
    metric = primary.claim.metrics[0] if primary.claim.metrics else None
    if metric in METRICS:
        yield METRICS[metric].label, "PrimaryClaimMetric", f"{remark} / first metric"
        yield _word(METRICS[metric].label), "PrimaryClaimMetricMacro", f"{remark} / the metric in macros"
    yield f"{primary.claim.margin:g}", "PrimaryClaimMargin", f"{remark} / margin, points"


def _savings(
    claims: Sequence[ClaimResult], sides: Mapping[str, str], evidence: Evidence
) -> Iterator[tuple[str, str, str]]:
    """What the candidate of each claim saves of the reference's peak memory, in percent, and its time of training as a
    multiple of the reference's, of the medians that the main table prints."""
    for claim in claims:
        candidate = None if claim.claim is None else evidence.arm(claim.claim.candidate)
        reference = None if claim.claim is None else evidence.arm(claim.claim.reference)
        if candidate is None or reference is None:
            continue
        name, remark = sides[claim.name], f"claim {claim.name}"
        if candidate.memory is not None and reference.memory is not None:
            saved = 100 * (1 - candidate.memory.median_bytes / reference.memory.median_bytes)
            yield f"{saved:.1f}", f"{name}MemorySaved", f"{remark} / peak memory saved, % of the reference's"
        if candidate.train_seconds is not None and reference.train_seconds:
            ratio = candidate.train_seconds / reference.train_seconds
            yield f"{ratio:.2f}", f"{name}TimeRatio", f"{remark} / training time, multiple of the reference's"


def _verdict(claim: ClaimResult) -> str:
    return str(claim.judgement.verdict).replace("_", " ")


def _of_study(evidence: Evidence) -> Iterator[tuple[str, str, str]]:
    """What is of the whole study: sizes, and how well its forecasts did."""
    yield evidence.study, "StudyName", "study"
    if evidence.model is not None:
        yield evidence.model, "StudyModel", "study / model"
    yield evidence.description, "StudyData", "study / data"
    yield str(len(evidence.arms)), "StudyArms", "study / arms"
    if evidence.frozen is not None:
        yield str(len(evidence.frozen.seeds)), "StudySeeds", "study / training seeds an arm"
    yield str(len(evidence.plan.runs)), "StudyRunsPlanned", "study / runs planned"
    completed = sum(record.status == "completed" for record in evidence.last.values())
    yield str(completed), "StudyRunsCompleted", "study / runs completed"
    if evidence.comparable:
        yield str(evidence.comparable[0].data.evaluated_size), "StudyDialogues", "study / test dialogues"
    for what, (error, runs) in forecast_errors(evidence).items():
        yield f"{error:.2f}", f"Forecast{what}MedianError", f"forecast / {what}, median absolute error, %"
        yield str(len(runs)), f"Forecast{what}Runs", f"forecast / {what}, runs with forecast and measurement"
