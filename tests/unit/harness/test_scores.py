"""ROUGE per dialogue and reference, the three rules, and the command that scores files."""

import json
from pathlib import Path

import pytest
from rouge_score.rouge_scorer import RougeScorer

from harness.__main__ import main
from harness.adapters.rouge_metric import ExactRouge
from harness.floors import CONSTANT, floors
from harness.scores import Rouge, by_sentence, means, quality, reduced
from study.examples import Example
from study.metrics import METRICS

PREDICTIONS = ["Maya buys two red lamps for $30.", "They agree to meet on Friday. It rains.", ""]
REFERENCES = [
    ["Maya bought two lamps, red ones, at a price of $30.", "Maya buys lamps."],
    ["They will meet on Friday. The weather is bad.", "A meeting is set for Friday.", "They meet."],
    ["Nothing was said."],
]


def scored() -> list[dict[str, tuple[tuple[float, float, float], ...]]]:
    rouge = Rouge()
    return [rouge.score(text, expected) for text, expected in zip(PREDICTIONS, REFERENCES, strict=True)]


def test_scores_are_those_of_rouge_score_stemmed_in_points() -> None:
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    expected = scorer.score(REFERENCES[0][0], PREDICTIONS[0])
    ours = Rouge().score(PREDICTIONS[0], REFERENCES[0])
    for kind in ("rouge1", "rouge2", "rougeL"):
        theirs = expected[kind]
        triple = (100 * theirs.precision, 100 * theirs.recall, 100 * theirs.fmeasure)
        assert ours[kind][0] == pytest.approx(triple, abs=1e-6)


def test_stemming_counts_bought_lamps_and_lamp_s_as_one_word() -> None:
    assert Rouge().score("three lamps", ["three lamp"])["rouge1"][0][2] == 100.0


def test_rouge_lsum_is_computed_over_sentences() -> None:
    prediction, reference = "It rains today. Maya stays in.", "Maya stays in. It rains today."
    score = Rouge().score(prediction, [reference])
    assert score["rougeLsum"][0][2] == 100.0
    assert score["rougeL"][0][2] < 60.0
    assert by_sentence("One here.  Two there! Three?") == "One here.\nTwo there!\nThree?"


def test_the_three_rules_reduce_references_as_they_say() -> None:
    triples = [(0.0, 0.0, 40.0), (0.0, 0.0, 10.0), (0.0, 0.0, 70.0)]
    assert reduced(triples, "mean") == 40.0
    assert reduced(triples, "max") == 70.0
    assert reduced(triples, "first") == 40.0


def test_the_mean_over_dialogues_is_exact_and_not_over_rows() -> None:
    scores = scored()
    expected = sum(sum(t[2] for t in item["rouge1"]) / len(item["rouge1"]) for item in scores) / 3
    assert means(scores, "mean")["rouge1"] == pytest.approx(expected, abs=1e-12)
    rows = [t[2] for item in scores for t in item["rouge1"]]
    assert means(scores, "mean")["rouge1"] != pytest.approx(sum(rows) / len(rows), abs=0.1)


def test_an_empty_prediction_scores_zero() -> None:
    assert set(Rouge().score("", ["Something."])["rouge1"]) == {(0.0, 0.0, 0.0)}


def test_quality_holds_every_metric_of_the_table() -> None:
    values = quality(scored(), 1.25)
    assert set(values) == set(METRICS)
    assert values["validation_loss"] == 1.25
    assert values["rouge1_max"] > values["rouge1"]


def test_the_metric_for_evaluate_gives_the_same_exact_means() -> None:
    result = ExactRouge().compute(predictions=PREDICTIONS, references=REFERENCES)
    assert result["rouge1_mean"] == pytest.approx(means(scored(), "mean")["rouge1"], abs=1e-9)
    assert result["rougeLsum_max"] == pytest.approx(means(scored(), "max")["rougeLsum"], abs=1e-9)


def test_floors_are_scored_on_every_dialogue() -> None:
    examples = [
        Example("a", "Ann: Hello there.\nBen: A lamp, please.\nAnn: It is $30.\nBen: Thanks.", ("Ben buys a lamp.",)),
        Example("b", "Ann: It rains.\nBen: Oh.", ("It rains.", "Ann says it rains.")),
    ]
    found = floors(examples, Rouge())
    assert set(found) == {"constant summary", "first 3 turns", "reference against reference"}
    constant = [Rouge().score(CONSTANT, example.references) for example in examples]
    assert found["constant summary"]["rouge1"] == pytest.approx(means(constant, "mean")["rouge1"], abs=1e-5)
    assert found["reference against reference"]["rouge1"] > found["constant summary"]["rouge1"]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    rows = [
        {"dialogue": f"A: {number}", **{f"summary{n + 1}": text for n, text in enumerate(texts)}}
        for number, texts in enumerate(REFERENCES)
    ]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    predictions = tmp_path / "predictions.txt"
    predictions.write_text("\n".join(PREDICTIONS) + "\n")
    return predictions, data


def test_the_command_scores_files_under_three_rules(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", "--predictions", str(files[0]), "--data", str(files[1])]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["rouge1"]["mean_reference"] == pytest.approx(means(scored(), "mean")["rouge1"], abs=1e-9)
    assert printed["rouge2"]["max_reference"] == pytest.approx(means(scored(), "max")["rouge2"], abs=1e-9)
    assert set(printed["rougeLsum"]) == {"mean_reference", "max_reference", "first_reference"}


def test_a_count_mismatch_names_both_counts(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    files[0].write_text("one\ntwo\n")
    assert main(["score", "--predictions", str(files[0]), "--data", str(files[1])]) == 2
    message = capsys.readouterr().err
    assert "2 predictions" in message
    assert "3 dialogues" in message
    assert message.count("\n") == 1


def test_a_line_separator_inside_a_prediction_is_no_new_line(files: tuple[Path, Path]) -> None:
    files[0].write_text("one\u2028still one\ntwo\x0cstill two\nthree\n")
    assert main(["score", "--predictions", str(files[0]), "--data", str(files[1])]) == 0


@pytest.mark.parametrize("which", [0, 1])
def test_a_missing_file_is_one_line(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str], which: int) -> None:
    files[which].unlink()
    assert main(["score", "--predictions", str(files[0]), "--data", str(files[1])]) == 2
    assert capsys.readouterr().err.count("\n") == 1
