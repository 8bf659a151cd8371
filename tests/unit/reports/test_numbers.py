"""The macros of `numbers.tex`: each defined once, named after what it tells, and equal to what its table prints."""

import re
from pathlib import Path

import pytest

from reports.claiming import judge_claims
from reports.evidence import Evidence, gather
from reports.latex import Macros, latex_number
from reports.measured_tables import breakdown_table, cost_table, memory_table
from reports.numbers import MacroCollision, numbers_file, numbers_tex, trouble
from reports.report import write_report
from reports.run_tables import forecast_table
from reports.study_tables import study_tables
from reports.tables import Table, main_table, verdict_table
from tests.unit.reports.records import CHOSEN, LORA, QLORA, ZERO_SHOT, Arm, Card, Study, claim, write_study
from tests.unit.reports.test_elsewhere import add

WHOLE = Study(
    arms=(
        ZERO_SHOT,
        Arm("lora", memory=9.6, card=Card(forecast=9.5, forecast_seconds=110.0)),
        Arm("qlora", precision="nf4", memory=6.1, mean=38.0, card=Card(forecast=6.0)),
        Arm("lora-int8", precision="int8", memory=7.0),
    ),
    claims=(claim(metrics=("rouge1", "rougeL"), drop_in=True), claim(name="int8", candidate="lora-int8")),
    drop_in={CHOSEN: 39.5},
)
_LINE = re.compile(r"\\newcommand\{\\([A-Za-z]+)\}\{(.*)\} % (.*)")


def tables(evidence: Evidence) -> tuple[Table, ...]:
    claims = judge_claims(evidence)
    measured = (memory_table(evidence), breakdown_table(evidence), cost_table(evidence), forecast_table(evidence))
    return (main_table(evidence), verdict_table(claims), *study_tables(evidence, claims), *measured)


def written(tmp_path: Path, study: Study = WHOLE) -> tuple[dict[str, str], dict[str, str], tuple[Table, ...]]:
    """Value and remark of each macro, and the tables they come from."""
    evidence = gather(write_study(tmp_path, study))
    found = tables(evidence)
    main, verdicts, *others = found
    lines = numbers_tex(main, verdicts, others, judge_claims(evidence), evidence).splitlines()[1:]
    matches = [_LINE.fullmatch(line) for line in lines]
    assert None not in matches
    parts = [match.groups() for match in matches if match is not None]
    assert len({name for name, _, _ in parts}) == len(parts)
    return {name: value for name, value, _ in parts}, {name: remark for name, _, remark in parts}, found


def test_every_macro_is_defined_once_and_equals_the_text_of_its_table(tmp_path: Path) -> None:
    values, remarks, found = written(tmp_path)
    by_name = {table.name: table for table in found}
    checked = 0
    for name, remark in remarks.items():
        table = by_name.get(remark.split(" / ")[0])
        if table is None or table.name == "forecast":
            continue
        texts = [
            cell.text
            for row in table.rows
            for column, cell in zip(table.columns, row, strict=True)
            if remark.startswith(f"{table.name} / {row[0].text} / ") and f" / {column.title}" in remark
        ]
        pieces = {latex_number(piece) for text in texts for piece in re.split(r" ± |, ", text.strip("[]"))}
        assert values[name] in pieces | set(map(latex_number, texts)), (name, values[name], texts)
        checked += 1
    assert checked > 100


def test_names_are_what_a_paper_would_write(tmp_path: Path) -> None:
    values, _, _ = written(tmp_path)
    expected = {
        "QloraVsLoraRougeOne": "$-$2.00",
        "QloraVsLoraRougeOneMargin": "1",
        "QloraVsLoraRougeOneVerdict": "refuted",
        "QloraVsLoraVerdict": "refuted",
        "LoraIntEightVsLoraVerdict": "supported",
        "QloraVsLoraDropInRougeL": "$-$0.50",
        "QloraVsLoraMemorySaved": "36.4",
        "QloraVsLoraTimeRatio": "1.00",
        "LoraRougeL": "32.00",
        "LoraPeakMemory": "9.620",
        "LoraTrainingSeconds": "113.0",
        "LoraTrainableShare": "0.842",
        "LoraTrainableParameters": "23,592,960",
        "LoraSeeds": "5",
        "LoraTrials": "2",
        "CostLoraTrainingEnergy": "169.50",
        "MemoryLoraTrainCompletedAllocated": "9.620",
        "BreakdownLoraActivations": "3.000",
        "StudyDialogues": "40",
        "StudySeeds": "5",
        "ForecastMemoryMedianError": values["ForecastMemoryMedianError"],
        "PrimaryClaimMacro": "QloraVsLora",
        "PrimaryClaimReferenceMacro": "Lora",
    }
    assert {name: values.get(name) for name in expected} == expected
    for ending in ("NinetyLow", "NinetyHigh", "NinetyFiveLow", "NinetyFiveHigh", "TostP", "HolmP", "SmallestMargin"):
        assert f"QloraVsLoraRougeL{ending}" in values
    for ending in ("GainKept", "GainKeptNinetyFiveLow", "SigmaSeed", "Power", "Dialogues", "SeedsOfTheReference"):
        assert f"QloraVsLoraRougeL{ending}" in values


def test_the_forecasts_error_is_the_one_that_the_forecast_table_tells(tmp_path: Path) -> None:
    values, _, found = written(tmp_path)
    caption = next(table.caption for table in found if table.name == "forecast")
    assert f"the median absolute difference is {values['ForecastMemoryMedianError']}%" in caption


def test_two_arms_of_the_same_letters_are_an_error_that_names_both(tmp_path: Path) -> None:
    evidence = gather(write_study(tmp_path, arms=(ZERO_SHOT, LORA, Arm("q-lora"), Arm("q_lora")), claims=()))
    main, verdicts, *_ = tables(evidence)
    with pytest.raises(MacroCollision, match=r"\\QLoraTrainableParameters would stand for main / q-lora / .*q_lora"):
        numbers_tex(main, verdicts)
    text = numbers_file((main, verdicts), (), evidence)
    assert b"\\newcommand" not in text
    assert text.splitlines()[-1].startswith(b"\\errmessage{QLoraTrainableParameters would stand")
    said = trouble(text)
    assert said is not None
    assert "q-lora" in said
    assert "q_lora" in said


def test_a_collision_costs_the_macros_and_not_the_report(tmp_path: Path) -> None:
    write_study(tmp_path / "data", arms=(ZERO_SHOT, LORA, Arm("q-lora"), Arm("q_lora")), claims=())
    report = write_report(tmp_path / "data", "study", tmp_path / "out")
    assert report.index.is_file()
    assert any("numbers.tex: \\QLora" in line for line in report.summary)


def test_two_claims_on_the_same_sides_are_told_apart_by_their_names(tmp_path: Path) -> None:
    claims = (claim(), claim(name="strict", margin=0.5), claim(name="int8", candidate="zero-shot"))
    values, _, _ = written(tmp_path, Study(claims=claims))
    assert values["QloraMatchesLoraRougeOneMargin"] == "1"
    assert values["StrictRougeOneMargin"] == "0.5"
    assert values["PrimaryClaimMacro"] == "QloraMatchesLora"
    assert "ZeroShotVsLoraVerdict" in values
    assert not any(name.startswith("QloraVsLora") for name in values)


def test_a_system_from_elsewhere_has_macros_of_its_scores(tmp_path: Path) -> None:
    folder = write_study(tmp_path)
    add(folder)
    evidence = gather(folder)
    text = numbers_tex(main_table(evidence), verdict_table(()))
    assert "\\newcommand{\\ExternalPegasusRougeOne}{40.00}" in text
    assert "ExternalPegasusPeakMemory" not in text


def test_random_weights_have_macros_of_memory_and_time_alone(tmp_path: Path) -> None:
    values, _, _ = written(tmp_path, Study(weights="random", claims=(), arms=(ZERO_SHOT, LORA, QLORA)))
    assert "LoraPeakMemory" in values
    # What chose the hyperparameters is none of its scores.
    assert not any(("Rouge" in name and "Validation" not in name) or "PrimaryClaim" in name for name in values)


def test_a_study_before_its_freeze_has_the_name_of_its_claim(tmp_path: Path) -> None:
    values, _, _ = written(tmp_path, Study(frozen=False))
    assert values["PrimaryClaimVerdict"] == "no verdict"
    assert values["QloraMatchesLoraVerdict"] == "no verdict"
    assert "PrimaryClaimMetric" not in values


@pytest.mark.parametrize("name", ["", "A1", "Ärger", "A-b"])
def test_no_macro_has_a_name_that_tex_cannot_have(name: str) -> None:
    with pytest.raises(ValueError, match="letters only"):
        Macros().define("1", name, "a remark")


def test_no_macro_is_defined_twice() -> None:
    macros = Macros()
    macros.define("1", "One", "first")
    with pytest.raises(ValueError, match="stands for first already"):
        macros.define("1", "One", "second")
