"""The adapter's card: filled from the records, in the Hub's format, with nothing that a stranger could slip in."""

from pathlib import Path

import pytest
import yaml

from reports.__main__ import main
from reports.card import NoAdapter, winner, write_adapter
from reports.evidence import gather
from results.layout import StudyFolder
from tests.unit.reports.records import LORA, QLORA, SEEDS, ZERO_SHOT, Arm, Card, tuned_id, write_study


def keep(folder: StudyFolder, *arms: str) -> None:
    """An adapter of the first seed of each arm, as a run leaves it."""
    for arm in arms:
        path = folder.adapter(tuned_id(arm, SEEDS[0]))
        path.mkdir(parents=True)
        (path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
        (path / "adapter_model.safetensors").write_bytes(arm.encode())


def parsed(text: str) -> tuple[dict[str, object], str]:
    """Metadata and body of a card."""
    _, metadata, body = text.split("---\n", 2)
    return yaml.safe_load(metadata), body


def test_a_card_holds_what_the_records_say(tmp_path: Path) -> None:
    arms = (ZERO_SHOT, Arm("lora", memory=9.6, card=Card()), Arm("qlora", "nf4", memory=6.1, card=Card()))
    folder = write_study(tmp_path, arms=arms)
    keep(folder, "lora", "qlora")
    chosen = write_adapter(tmp_path, "study", tmp_path / "out", "qlora")
    assert chosen.record.run_id == tuned_id("qlora", SEEDS[0])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert (tmp_path / "out" / "adapter_model.safetensors").read_bytes() == b"qlora"
    metadata, body = parsed((tmp_path / "out" / "README.md").read_text())
    assert metadata["base_model"] == "microsoft/phi-2"
    assert metadata["library_name"] == "peft"
    assert metadata["tags"] == ["lora", "qlora", "dialogue-summarization"]
    index = metadata["model-index"]
    assert isinstance(index, list)
    metrics = {item["type"]: item["value"] for item in index[0]["results"][0]["metrics"]}
    evidence = gather(folder)
    arm = evidence.arm("qlora")
    assert arm is not None
    assert arm.scored is not None
    assert metrics["rouge1"] == pytest.approx(arm.scored.scores["rouge1"].mean(), abs=0.005)
    assert f"run `{chosen.record.run_id}`" in body
    assert "4-bit (NF4)" in body
    assert 'bnb_4bit_quant_type="nf4"' in body
    assert "GiB" in body
    assert "qlora matches lora within" in body


def test_the_winner_is_chosen_on_validation_and_only_among_adapters_that_were_kept(tmp_path: Path) -> None:
    folder = write_study(tmp_path)
    evidence = gather(folder)
    with pytest.raises(NoAdapter, match="no adapter was kept"):
        winner(evidence, folder)
    keep(folder, "qlora")
    assert winner(evidence, folder).arm.part.name == "qlora"
    keep(folder, "lora")
    scores = {arm.part.name: arm.choice.score for arm in evidence.arms if arm.choice is not None}
    best = max(scores, key=lambda name: scores[name] or 0.0)
    assert winner(evidence, folder).arm.part.name == best
    with pytest.raises(NoAdapter, match="--arm 'loar': choose from lora, qlora"):
        winner(evidence, folder, "loar")


def test_a_half_written_adapter_is_none(tmp_path: Path) -> None:
    folder = write_study(tmp_path)
    keep(folder, "lora")
    (folder.adapter(tuned_id("lora", SEEDS[0])) / "adapter_model.safetensors").unlink()
    with pytest.raises(NoAdapter):
        winner(gather(folder), folder)


HOSTILE = "<script>alert(1)</script> | **x** `y` [z](http://e) ---\nmodel: evil"


def test_nothing_from_outside_becomes_markup_or_metadata(tmp_path: Path) -> None:
    folder = write_study(tmp_path, description=HOSTILE, model="a/b: {evil}")
    keep(folder, "lora", "qlora")
    write_adapter(tmp_path, "study", tmp_path / "out")
    metadata, body = parsed((tmp_path / "out" / "README.md").read_text())
    assert metadata["base_model"] == "a/b: {evil}"
    assert "model" not in metadata
    assert "<script>" not in body
    assert r"\[z\](http" in body
    assert "`a/b: {evil}`" in body


def test_the_same_records_give_the_same_card(tmp_path: Path) -> None:
    folder = write_study(tmp_path)
    keep(folder, "lora", "qlora")
    texts = []
    for number in range(2):
        write_adapter(tmp_path, "study", tmp_path / f"out{number}")
        texts.append((tmp_path / f"out{number}" / "README.md").read_bytes())
    assert texts[0] == texts[1]
    assert str(tmp_path).encode() not in texts[0]


def test_the_command_writes_says_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_study(tmp_path / "data", arms=(ZERO_SHOT, LORA, QLORA))
    options = ["--results", str(tmp_path / "data"), "--out", str(tmp_path / "adapter")]
    assert main(["card", "study", *options]) == 2
    assert "no adapter was kept" in capsys.readouterr().err
    keep(folder, "lora")
    assert main(["card", "study", *options]) == 0
    assert main(["card", "study", *options]) == 0
    assert "adapter of lora" in capsys.readouterr().out
    assert main(["card", "../data/study", *options]) == 2
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("years of work")
    assert main(["card", "study", "--results", str(tmp_path / "data"), "--out", str(precious)]) == 2
    assert (precious / "thesis.tex").read_text() == "years of work"
