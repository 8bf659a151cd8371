"""`--set key=value`."""

from typing import Any

import pytest

from study.overrides import apply_overrides
from study.problems import GridError


def data() -> dict[str, Any]:
    return {
        "arms": [{"name": "lora", "rank": 4}, {"name": "qlora"}, {"name": "1"}],
        "training": {"steps": 4},
        "seeds": [11, 12],
        "space": None,
        "study": "s",
    }


@pytest.mark.parametrize(
    ("setting", "path", "value"),
    [
        ("training.steps=8", ("training", "steps"), 8),
        ("training.learning=1e-4", ("training", "learning"), 1e-4),
        ("arms.qlora.precision=fp4", ("arms", 1, "precision"), "fp4"),
        ("arms.0.rank=8", ("arms", 0, "rank"), 8),
        ("arms.1.rank=8", ("arms", 2, "rank"), 8),
        ("seeds=[1, 2]", ("seeds",), [1, 2]),
        ("seeds.1=5", ("seeds", 1), 5),
        ("space.learning_rate={low: 1e-5, high: 1e-3}", ("space", "learning_rate"), {"low": 1e-5, "high": 1e-3}),
        ("tune.engine.deep=true", ("tune", "engine", "deep"), True),
        (" study =a=b", ("study",), "a=b"),
        ("study=", ("study",), None),
        ("study=on", ("study",), "on"),
        ("arms.lora=null", ("arms", 0), None),
    ],
)
def test_a_setting_reaches_its_place(setting: str, path: tuple[str | int, ...], value: object) -> None:
    result = apply_overrides(data(), [setting])
    for part in path:
        result = result[part]
    assert result == value
    assert type(result) is type(value)


def test_settings_are_applied_in_their_order_and_the_data_given_stay_as_they_were() -> None:
    before = data()
    assert apply_overrides(before, ["training.steps=8", "training={steps: 9}", "training.epochs=1"])["training"] == {
        "steps": 9,
        "epochs": 1,
    }
    assert before == data()


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("training.steps", "--set 'training.steps': write key=value, such as training.steps=100"),
        ("=5", "--set '=5': write key=value, such as training.steps=100"),
        ("training..steps=5", "--set 'training..steps=5': write key=value, such as training.steps=100"),
        (".".join("a" * 100) + "=1", "--set 'a.a.a."),
        ("study.name=a", "--set study.name: study holds 's', which has no keys"),
        ("arms.nobody.rank=4", "--set arms.nobody.rank: arms has no member 'nobody': choose from lora, qlora, 1"),
        ("arms.-1.rank=4", "--set arms.-1.rank: arms has no member '-1': choose from lora, qlora, 1"),
        ("seeds.2=4", "--set seeds.2: seeds has no member '2': choose from 0, 1"),
        ("seeds.\u0661=4", "--set seeds.\u0661: seeds has no member '\u0661': choose from 0, 1"),
        ("seeds=[1", "--set seeds: not YAML: line 1, column 3: expected"),
        ("seeds=[1, {a: 1, a: 2}]", "--set seeds [1].a: duplicate key (again on line 1)"),
    ],
)
def test_a_setting_that_cannot_be_applied_is_told(setting: str, told: str) -> None:
    with pytest.raises(GridError) as caught:
        apply_overrides(data(), [setting])
    assert str(caught.value).startswith(told)


def test_every_setting_that_cannot_be_applied_is_told_at_once() -> None:
    with pytest.raises(GridError) as caught:
        apply_overrides(data(), ["a", "training.steps=5", "seeds.7=1", "study.x=1"])
    assert [problem.path for problem in caught.value.problems] == ["--set", "--set seeds.7", "--set study.x"]


def test_a_grid_that_is_empty_has_no_keys_to_set() -> None:
    with pytest.raises(GridError, match="the grid holds null, which has no keys"):
        apply_overrides(None, ["study=a"])
