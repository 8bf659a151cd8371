"""Two studies beside each other: what got worse is named, what did not is not, and the exit code says which."""

from dataclasses import replace
from pathlib import Path

import pytest

from reports.__main__ import main
from reports.changes import Change, StudyChanges, compare_studies
from reports.comparing import _tolerances
from reports.evidence import gather
from tests.unit.reports.records import LORA, PACKAGES, QLORA, ZERO_SHOT, Arm, Card, write_study

OTHER = PACKAGES | {"torch": "2.12.0"}
ON_CARD = (ZERO_SHOT, replace(LORA, card=Card()), replace(QLORA, card=Card()))


def compared(tmp_path: Path, before: tuple[Arm, ...], after: tuple[Arm, ...], *tolerance: str) -> StudyChanges:
    first = write_study(tmp_path, name="a", arms=before)
    second = write_study(tmp_path, name="b", arms=after)
    return compare_studies(gather(first), gather(second), _tolerances(tolerance))


def change(found: StudyChanges, arm: str, quantity: str) -> Change:
    return next(item for item in found.changes if (item.arm, item.quantity) == (arm, quantity))


def run(tmp_path: Path, *arguments: str) -> int:
    return main(["compare", *arguments, "--results", str(tmp_path)])


def test_a_study_against_itself_has_no_regression(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_study(tmp_path, name="a", arms=ON_CARD)
    assert run(tmp_path, "a", "a") == 0
    said = capsys.readouterr().out
    assert said.endswith("\nno regression\n")
    assert "same model, machine, software, data and prompt" in said
    assert "REGRESSION" not in said


def test_the_published_reference_study_against_itself_has_no_regression(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "reference-phi2-shape", "reference-phi2-shape"]) == 0
    said = capsys.readouterr().out
    assert "random weights: memory and time only, no scores" in said
    assert "ROUGE" not in said
    assert said.endswith("\nno regression\n")


def test_two_points_less_in_one_arm_are_a_regression_of_that_arm_alone(tmp_path: Path) -> None:
    found = compared(tmp_path, (ZERO_SHOT, LORA, QLORA), (ZERO_SHOT, LORA, replace(QLORA, mean=38.0)))
    assert {said.partition(":")[0] for said in found.regressions} == {"qlora"}
    assert len(found.regressions) == 4
    worse = change(found, "qlora", "ROUGE-1")
    assert worse.difference == pytest.approx(-2.0)
    assert worse.low is not None
    assert worse.high is not None
    assert worse.low < -2.0 < worse.high < -0.5
    assert found.regressions[0].startswith("qlora: ROUGE-1 is lower by 2.00 points, 90% interval [-2.")
    assert not change(found, "lora", "ROUGE-1").is_regression


def test_an_interval_that_reaches_the_tolerance_is_no_regression(tmp_path: Path) -> None:
    first = write_study(tmp_path, name="a", arms=(LORA,))
    second = write_study(tmp_path, name="b", arms=(replace(LORA, mean=39.4),), seeds=(31, 32, 33, 34, 35))
    found = compare_studies(gather(first), gather(second), _tolerances(()))
    less = change(found, "lora", "ROUGE-1")
    assert less.difference == pytest.approx(-0.6)
    assert less.high is not None
    assert less.high > -0.5
    assert not less.is_regression


def test_a_better_score_and_less_memory_are_no_regression(tmp_path: Path) -> None:
    found = compared(tmp_path, (LORA,), (replace(LORA, mean=43.0, memory=5.0),))
    assert found.regressions == ()
    assert change(found, "lora", "memory, train (allocated)").difference == pytest.approx(-47.8, abs=0.1)


@pytest.mark.parametrize(("factor", "expected"), [(1.01, False), (1.03, True)])
def test_memory_may_grow_by_two_percent(tmp_path: Path, factor: float, expected: bool) -> None:
    found = compared(tmp_path, (LORA,), (replace(LORA, memory=LORA.memory * factor),))
    assert change(found, "lora", "memory, train (allocated)").is_regression is expected
    assert any(said.startswith("lora: memory, train (allocated) +3.0%") for said in found.regressions) is expected


def test_a_stated_tolerance_takes_the_place_of_the_default(tmp_path: Path) -> None:
    arms = (replace(LORA, memory=LORA.memory * 1.03, mean=38.0),)
    assert compared(tmp_path, (LORA,), arms, "memory=5", "scores=3").regressions == ()
    found = compared(tmp_path, (LORA,), arms, "memory=5", "rouge1=3")
    assert sorted(said.split()[1] for said in found.regressions) == ["ROUGE-2", "ROUGE-L", "ROUGE-Lsum"]


def test_slower_training_shows_in_seconds_speed_and_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study(tmp_path, name="a", arms=ON_CARD, seeds=(1, 2, 3))
    write_study(tmp_path, name="b", arms=ON_CARD, seeds=(31, 32, 33))
    assert run(tmp_path, "a", "b") == 1
    said = capsys.readouterr().out
    assert "lora: seconds, train +29.4% (tolerance 10%)" in said
    assert "lora: training speed -22.7% (tolerance 10%)" in said
    assert run(tmp_path, "a", "b", "--tolerance", "time=50", "energy=50") == 0
    assert run(tmp_path, "b", "a") == 0


def test_an_arm_that_no_longer_fits_is_a_regression(tmp_path: Path) -> None:
    statuses = dict.fromkeys((11, 12, 13, 14, 15), "out_of_memory")
    found = compared(tmp_path, (ZERO_SHOT, LORA), (ZERO_SHOT, replace(LORA, statuses=statuses)))  # type: ignore[arg-type]
    assert found.regressions == ("lora: fitted in memory in A and does not in B",)


def test_arms_of_one_study_alone_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = compared(tmp_path, (ZERO_SHOT, LORA), (ZERO_SHOT, QLORA))
    assert (found.only_before, found.only_after) == (("lora",), ("qlora",))
    assert {item.arm for item in found.changes} == {"zero-shot"}
    assert run(tmp_path, "a", "b") == 0
    said = capsys.readouterr().out
    assert "only in A: lora\nonly in B: qlora\n" in said


def test_what_the_runs_were_made_with_is_told_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = (replace(LORA, packages=OTHER, gpu="NVIDIA Other 40GB"),)
    found = compared(tmp_path, (LORA,), new)
    assert [(item.what, item.before, item.after) for item in found.environment] == [
        ("GPU", "NVIDIA Test 80GB", "NVIDIA Other 40GB"),
        ("torch", "2.11.0", "2.12.0"),
    ]
    run(tmp_path, "a", "b")
    said = capsys.readouterr().out
    assert said.index("NVIDIA Other 40GB") < said.index("ROUGE-1")


def test_other_dialogues_have_no_interval_and_are_never_a_regression(tmp_path: Path) -> None:
    found = compared(tmp_path, (LORA,), (replace(LORA, mean=30.0, examples="other"),))
    scores = change(found, "lora", "ROUGE-1")
    assert (scores.low, scores.tolerance, scores.note) == (None, None, "other test dialogues: no interval")
    assert found.regressions == ()


def test_one_seed_of_a_trained_arm_is_not_judged_and_a_zero_shot_arm_is(tmp_path: Path) -> None:
    first = write_study(tmp_path, name="a", arms=(ZERO_SHOT, LORA), seeds=(11,))
    worse = (replace(ZERO_SHOT, mean=20.0), replace(LORA, mean=38.0))
    second = write_study(tmp_path, name="b", arms=worse, seeds=(11,))
    found = compare_studies(gather(first), gather(second), _tolerances(()))
    assert change(found, "lora", "ROUGE-1").note == "one seed: not judged"
    zero_shot = change(found, "zero-shot", "ROUGE-1")
    assert (zero_shot.note, zero_shot.is_regression) == ("over dialogues alone", True)
    assert {said.partition(":")[0] for said in found.regressions} == {"zero-shot"}


def test_random_weights_are_compared_in_memory_and_time_alone(tmp_path: Path) -> None:
    first = write_study(tmp_path, name="a", arms=(LORA,), weights="random", claims=())
    second = write_study(tmp_path, name="b", arms=(replace(LORA, memory=12.0),), weights="random", claims=())
    found = compare_studies(gather(first), gather(second), _tolerances(()))
    assert not [item for item in found.changes if item.unit == "points"]
    assert [said.partition(" +")[0] for said in found.regressions] == [
        "lora: memory, train (allocated)",
        "lora: memory, evaluate (allocated)",
    ]


def test_without_a_gpu_it_is_resident_memory(tmp_path: Path) -> None:
    found = compared(tmp_path, (replace(LORA, gpu=None),), (replace(LORA, gpu=None),))
    assert change(found, "lora", "memory, train (host RSS)").before == 3.0


def test_a_card_against_none_compares_what_both_have(tmp_path: Path) -> None:
    found = compared(tmp_path, (LORA,), (replace(LORA, gpu=None),))
    assert change(found, "lora", "memory, train (host RSS)").difference == 0.0
    assert any("one study ran on a GPU and the other did not" in note for note in found.notes)


def test_it_is_written_as_markdown_the_same_each_time(tmp_path: Path) -> None:
    write_study(tmp_path, name="a", arms=(LORA,))
    write_study(tmp_path, name="b", arms=(replace(LORA, mean=37.0, packages={"torch": "<b>|x"}),))
    out = tmp_path / "changes.md"
    assert run(tmp_path, "a", "b", "--out", str(out)) == 1
    first = out.read_bytes()
    assert run(tmp_path, "a", "b", "--out", str(out)) == 1
    assert out.read_bytes() == first
    text = first.decode()
    assert r"\<b\>\|x" in text
    assert "| lora | ROUGE-1 | 40.00 | 37.00 | points | -3.00 |" in text
    assert str(tmp_path) not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a", "zzz"), "compare: STUDY 'zzz': no study of that name in "),
        (("a", "a", "--tolerance", "rogue1=2"), "compare: --tolerance 'rogue1=2': choose from rouge1, "),
        (("a", "a", "--tolerance", "rouge1=-1"), "compare: --tolerance 'rouge1=-1': use a number from 0 to 1000"),
        (("a", "a", "--tolerance", "memory=nan"), "compare: --tolerance 'memory=nan': use a number from 0 to 1000"),
    ],
)
def test_bad_arguments_are_one_line_and_exit_code_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    write_study(tmp_path, name="a", arms=(LORA,))
    assert run(tmp_path, *arguments) == 2
    said = capsys.readouterr()
    assert said.err.startswith(message)
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_a_study_may_be_named_by_its_path(tmp_path: Path) -> None:
    write_study(tmp_path / "old", name="same", arms=(LORA,))
    write_study(tmp_path / "new", name="same", arms=(replace(LORA, mean=36.0),))
    assert main(["compare", str(tmp_path / "old/same"), str(tmp_path / "new/same")]) == 1
