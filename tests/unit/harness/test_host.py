"""What a record says of a machine: an allow-list, and nothing else."""

import json

import pytest

from harness.adapters.host import environment


def test_no_secret_of_the_environment_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "MY_PASSWORD", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.setenv(name, "canary-4711")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    recorded = json.dumps(environment())
    assert "canary-4711" not in recorded
    assert '"CUDA_VISIBLE_DEVICES": "0"' in recorded


def test_versions_of_what_numbers_depend_on_are_recorded() -> None:
    packages = environment()["packages"]
    assert None not in [packages[name] for name in ("torch", "transformers", "peft", "bitsandbytes", "rouge_score")]
