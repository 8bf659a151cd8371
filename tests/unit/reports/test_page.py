"""The page: its parts without JavaScript, its policy, and that nothing from outside is markup."""

import base64
import hashlib
import json
import re
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from reports.claiming import judge_claims
from reports.evidence import gather
from reports.page import PageFigure, page
from reports.page_assets import asset, inlined_svg, policy
from reports.page_predictions import read_reading
from reports.page_text import escaped, island, visible_lines
from reports.page_verdict import Strip, strip_svg
from reports.tables import Cell, Column, Table
from results.layout import StudyFolder
from tests.unit.reports.records import LORA, QLORA, SEEDS, ZERO_SHOT, Arm, Card, claim, tuned_id, write_study
from tests.unit.reports.test_elsewhere import add

NAME = "<script>alert(1)</script></script><!-- \" ' & #Person1# \\input{x} \x1b[31m \u202eevil \u2028 end"
VOID = {"meta", "input", "br", "wbr"}
SVG = '<svg id="a"><defs><style type="text/css">*{x: y}</style></defs><use href="#b"/><g clip-path="url(#c)"/></svg>'


class Parsed(HTMLParser):
    """A page taken apart: the text of each script, style and heading, ids, and every element with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.body = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.texts.setdefault(tag, []).append("")
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in self._open:
            self.texts[tag][-1] += data
        if not {"script", "style"} & set(self._open):
            self.body += data

    def with_attribute(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for _, attributes in self.elements if name in attributes]

    def data(self, name: str) -> Any:
        """The JSON that an element holds."""
        scripts = [attributes for tag, attributes in self.elements if tag == "script"]
        place = next(index for index, attributes in enumerate(scripts) if attributes.get("id") == f"data-{name}")
        return json.loads(self.texts["script"][place])


def shown(folder: StudyFolder, tables: Sequence[Table] = (), figures: Sequence[PageFigure] = ()) -> str:
    evidence = gather(folder)
    results = judge_claims(evidence)
    return page(evidence, results, tables, figures, read_reading(folder, evidence, results))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page whose every text from outside is hostile."""
    folder = write_study(
        tmp_path_factory.mktemp("results"),
        arms=(ZERO_SHOT, LORA, Arm(NAME, statuses={13: "failed"}, gpu=NAME, examples=NAME)),
        claims=(claim(name=NAME, candidate=NAME),),
        model=NAME,
        description=NAME,
        error=NAME,
        prediction=NAME,
        floors={NAME: 14.0},
        edges=(NAME,),
    )
    table = Table(NAME, NAME, (Column(NAME), Column(NAME, NAME, numeric=True)), ((Cell(NAME, (NAME,)), Cell(NAME)),))
    return shown(folder, (table,), (PageFigure(NAME, SVG, NAME),))


def test_nothing_from_outside_is_markup(hostile: str) -> None:
    parsed = Parsed(hostile)
    tags = [tag for tag, _ in parsed.elements]
    # Two of data, one that runs.
    assert tags.count("script") == 3
    assert tags.count("style") == 1
    assert "<script>alert(1)</script>" in parsed.body
    assert not any(name.startswith("on") for _, attributes in parsed.elements for name in attributes)
    assert "<!--" not in hostile
    assert hostile.count("</script>") == 3


def test_signs_that_print_nothing_are_written_out_everywhere(hostile: str) -> None:
    assert all(sign == "\n" or sign.isprintable() for sign in hostile)
    body = Parsed(hostile).body
    assert "\\x1b[31m" in body
    assert "\\u202eevil" in body


def test_hostile_predictions_arrive_whole_in_the_readers_data(hostile: str) -> None:
    reading = Parsed(hostile).data("predictions")
    texts = {summary[0] for item in reading["dialogues"] for summary in item["summaries"] if summary is not None}
    assert texts == {visible_lines(NAME)}
    assert all("<script>alert(1)</script></script><!--" in text for text in texts)


def test_only_the_pages_own_style_and_script_have_the_policys_hashes(hostile: str) -> None:
    parsed = Parsed(hostile)
    meta = next(item for item in parsed.with_attribute("http-equiv"))
    content = meta["content"]
    assert content == policy()
    assert content is not None
    rules = {rule.split()[0]: rule.split()[1:] for rule in content.split("; ")}
    runs = [
        text
        for text, attributes in zip(
            parsed.texts["script"], [found for tag, found in parsed.elements if tag == "script"], strict=True
        )
        if attributes.get("type") != "application/json"
    ]

    def digest(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    assert rules["default-src"] == ["'none'"]
    assert rules["script-src"] == [digest(text) for text in runs]
    assert rules["style-src"] == rules["style-src-elem"] == [digest(text) for text in parsed.texts["style"]]
    assert rules["style-src-attr"] == ["'unsafe-inline'"]
    assert (rules["base-uri"], rules["form-action"]) == (["'none'"], ["'none'"])
    assert set(rules) == {
        "default-src", "script-src", "style-src", "style-src-elem", "style-src-attr", "base-uri", "form-action",
    }  # fmt: skip


def test_the_policy_stands_before_anything_that_it_must_hold_for(hostile: str) -> None:
    assert hostile.index("Content-Security-Policy") < hostile.index("<title>")


def test_the_script_makes_no_markup_of_data_and_asks_no_network() -> None:
    script = asset("page.js")
    for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function(", "DOMParser"):
        assert word not in script, word
    for word in ("fetch(", "XMLHttpRequest", "WebSocket", "sendBeacon", "import(", "localStorage", "cookie"):
        assert word not in script, word
    assert "</" not in script
    assert "<!--" not in script
    assert "url(" not in asset("page.css")
    assert "@import" not in asset("page.css")


def test_a_drawing_brings_no_style_for_the_whole_page_and_shares_no_id() -> None:
    first, second = inlined_svg(SVG, 1), inlined_svg(SVG, 2)
    assert "<style" not in first
    assert re.findall(r'id="([^"]*)"|#([\w-]+)', first) == [("f1-a", ""), ("", "f1-b"), ("", "f1-c")]
    assert set(re.findall(r"f\d-\w", first)).isdisjoint(re.findall(r"f\d-\w", second))


def test_no_id_stands_twice_and_every_fragment_leads_somewhere(tmp_path: Path) -> None:
    table = Table("main", "", (Column("n", numeric=True),), ((Cell("1", (tuned_id("lora", 11),)),),))
    parsed = Parsed(shown(write_study(tmp_path), (table,), (PageFigure("a", SVG, "b"),)))
    ids = [attributes["id"] for attributes in parsed.with_attribute("id")]
    assert len(ids) == len(set(ids))
    fragments = [str(each["href"]) for each in parsed.with_attribute("href")]
    links = [link for link in fragments if not link.startswith("#f1-")]
    assert links
    assert {link.removeprefix("#") for link in links} <= set(ids)


def test_the_verdict_comes_first_in_words_with_both_intervals(tmp_path: Path) -> None:
    folder = write_study(tmp_path, claims=(claim(metrics=("rouge1", "rougeL")),))
    (result,) = judge_claims(gather(folder))
    parsed = Parsed(shown(folder))
    assert parsed.texts["h2"][0] == "Verdict"
    assert [tag for tag, _ in parsed.elements if tag in ("article", "nav")] == ["article", "nav"]
    (verdict,) = parsed.texts["article"]
    assert "qlora matches lora within ±1 points: supported." in verdict
    for item in result.metrics:
        assert item.comparison is not None
        for confidence in (0.90, 0.95):
            low, high = item.comparison.interval(confidence)
            assert f"[{low:+z.2f}, {high:+z.2f}]" in verdict
    assert "Gain kept" in verdict
    assert "Seeds scored: qlora 5 of 5, lora 5 of 5, on 40 dialogues." in verdict


@pytest.mark.parametrize(
    ("changes", "sign", "word"),
    [
        ({}, "✓", "supported"),
        ({"arms": (ZERO_SHOT, LORA, replace(QLORA, mean=36.0))}, "✕", "refuted"),
        ({"residual": 9.0}, "?", "inconclusive"),
        ({"seeds": (11, 12)}, "–", "no verdict"),
    ],
)
def test_a_verdict_is_told_by_a_sign_and_a_word_and_not_by_colour_alone(
    tmp_path: Path, changes: dict[str, Any], sign: str, word: str
) -> None:
    text = shown(write_study(tmp_path, **changes))
    assert f'<p class="badge"><span aria-hidden="true">{sign}</span> {word}</p>' in text
    assert ("What it would need" in text) == (word == "inconclusive")


def test_a_study_without_claims_says_so_and_random_weights_too(tmp_path: Path) -> None:
    body = Parsed(shown(write_study(tmp_path, weights="random", claims=()))).body
    assert "This study makes no claim." in body
    assert "Random weights: memory and time only, no scores." in body
    assert "ROUGE" not in body


def test_a_strip_holds_its_difference_between_its_limits() -> None:
    drawn = strip_svg(Strip(difference=-0.5, low95=-1.5, low90=-1.2, high90=0.2, high95=0.5, margin=1.0))
    numbers = {name: float(value) for name, value in re.findall(r' (x1|x2|cx)="([\d.]+)"', drawn.partition("thin")[2])}
    assert 0 < numbers["x1"] < numbers["cx"] < numbers["x2"] < 360
    assert "difference -0.50, 90% interval [-1.20, +0.20], 95% interval [-1.50, +0.50], margin ±1 points" in drawn


def test_a_wide_interval_does_not_leave_its_strip() -> None:
    drawn = strip_svg(Strip(difference=5.0, low95=-90.0, low90=-60.0, high90=70.0, high95=100.0, margin=0.5))
    places = [float(value) for value in re.findall(r' (?:x|x1|x2|cx)="(-?[\d.]+)"', drawn)]
    assert all(0 <= place <= 360 for place in places)


def test_every_number_links_to_its_runs(tmp_path: Path) -> None:
    ids = (tuned_id("lora", 11), tuned_id("lora", 12))
    table = Table("main", "", (Column("n", numeric=True), Column("m")), ((Cell("1.5", ids), Cell("—", ids)),))
    parsed = Parsed(shown(write_study(tmp_path), (table,)))
    (link,) = [each for each in parsed.with_attribute("data-runs") if each.get("title") == "2 runs"]
    assert link == {"href": "#runs", "data-runs": " ".join(ids), "title": "2 runs"}


def test_every_planned_run_is_a_row_whatever_came_of_it(tmp_path: Path) -> None:
    unfit = Arm("big", statuses=dict.fromkeys(SEEDS, "out_of_memory"), not_run=(15,), card=Card())
    folder = write_study(tmp_path, arms=(ZERO_SHOT, LORA, QLORA, unfit), error="no memory")
    evidence = gather(folder)
    parsed = Parsed(shown(folder))
    rows = [attributes["id"] for tag, attributes in parsed.elements if tag == "tr" and "id" in attributes]
    assert rows == [f"run-{run.run_id}" for run in evidence.plan.runs]
    assert parsed.body.count("out of memory") >= 4
    assert "not run" in parsed.body
    assert "in train: no memory" in parsed.body


def test_a_runs_record_is_read_part_by_part(tmp_path: Path) -> None:
    folder = write_study(tmp_path, arms=(ZERO_SHOT, replace(LORA, card=Card())), claims=())
    data = Parsed(shown(folder)).data("runs")
    run = next(item for item in data["runs"] if item["id"] == tuned_id("lora", 11))
    parts = {data["parts"][index]["title"]: data["parts"][index] for index in run["record"]}
    assert {"Run", "Outcome", "Scores", "Memory by phase", "Environment", "Checks"} <= set(parts)
    assert ["seed", "11"] in parts["Run"]["rows"]
    assert ["learning rate", "0.0002"] in parts["Run"]["rows"]
    assert ["packages · torch", "2.11.0"] in parts["Environment"]["rows"]
    assert parts["Memory by phase"]["head"][:2] == ["phase", "allocated, GiB"]
    assert ["train", "9.610"] in [row[:2] for row in parts["Memory by phase"]["rows"]]
    assert run["values"]["memory"] == pytest.approx(9.61, abs=1e-6)
    # What all runs share is held once.
    assert sum(part["title"] == "Environment" for part in data["parts"]) == 1


def test_a_long_list_in_a_record_is_told_by_its_ends(tmp_path: Path) -> None:
    folder = write_study(tmp_path, arms=(LORA,), claims=())
    folder.records.write_text(
        folder.records.read_text().replace('"checks":{}', f'"checks":{{"losses":{list(range(1000))}}}')
    )
    parts = Parsed(shown(folder)).data("runs")["parts"]
    (row,) = next(part["rows"] for part in parts if part["title"] == "Checks")
    assert row == ["losses", "1000 values: 0, 1, 2, 3, …, 996, 997, 998, 999"]


def test_a_failed_run_has_no_point_and_no_peak(tmp_path: Path) -> None:
    unfit = Arm("big", statuses=dict.fromkeys(SEEDS, "out_of_memory"), card=Card())
    data = Parsed(shown(write_study(tmp_path, arms=(LORA, unfit), claims=()))).data("runs")
    failed = next(item for item in data["runs"] if item["id"] == tuned_id("big", 11))
    assert "memory" not in failed["values"]
    assert "rouge1" not in failed["values"]
    assert failed["status"] == "out of memory"


def test_random_weights_offer_no_score_to_plot(tmp_path: Path) -> None:
    data = Parsed(shown(write_study(tmp_path, weights="random", claims=()))).data("runs")
    assert [axis["key"] for axis in data["axes"]] == ["rank", "learning_rate", "memory", "train_seconds", "seconds"]


def test_a_study_before_its_first_run_has_a_page(tmp_path: Path) -> None:
    folder = write_study(tmp_path, frozen=False)
    folder.records.unlink()
    parsed = Parsed(shown(folder))
    assert "no verdict: the study is not frozen yet" in parsed.body.lower()
    assert {run["status"] for run in parsed.data("runs")["runs"]} == {"not run"}
    assert parsed.data("predictions")["dialogues"] == []
    assert 'id="predictions"' not in shown(folder)


def test_the_same_evidence_gives_the_same_page(tmp_path: Path) -> None:
    folder = write_study(tmp_path)
    assert shown(folder) == shown(folder)


def test_what_needs_the_script_is_hidden_without_it(tmp_path: Path) -> None:
    parsed = Parsed(shown(write_study(tmp_path)))
    hidden = [
        attributes.get("id") for tag, attributes in parsed.elements if tag == "section" and "hidden" in attributes
    ]
    assert hidden == ["explore", "predictions"]
    assert "Without JavaScript" in parsed.body


@pytest.mark.parametrize("sign", ["<", ">", "&", "\u2028", "\u2029"])
def test_data_in_the_page_holds_no_sign_that_markup_is_made_of(sign: str) -> None:
    text = island("x", {"key" + sign: f"a{sign}b"})
    inner = text.removeprefix('<script type="application/json" id="data-x">').removesuffix("</script>")
    assert sign not in inner
    assert json.loads(inner) == {"key" + sign: f"a{sign}b"}


def test_data_that_json_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        island("x", float("nan"))


def test_text_for_markup_is_escaped_and_visible() -> None:
    assert escaped("<a b=\"c\" d='e'>&\n\x1b\u202e\ud800") == (
        "&lt;a b=&quot;c&quot; d=&#x27;e&#x27;&gt;&amp;\\n\\x1b\\u202e\\ud800"
    )
    assert visible_lines("a\r\nb\n\tc\x00") == "a\nb\n\\tc\\x00"


def test_a_system_from_elsewhere_is_a_row_that_opens(tmp_path: Path) -> None:
    folder = write_study(tmp_path)
    run = add(folder, seed=3, label=NAME)
    parsed = Parsed(shown(folder))
    data = parsed.data("runs")
    row = data["runs"][-1]
    assert (row["id"], data["arms"][row["arm"]], row["status"]) == (run.run_id, "external/pegasus", "from elsewhere")
    assert set(row["values"]) == {"rouge1", "rouge2", "rougeL"}
    assert {data["parts"][index]["title"] for index in row["record"]} == {"System from elsewhere", "Scores"}
    assert f"run-{run.run_id}" in [attributes["id"] for attributes in parsed.with_attribute("id")]


def test_a_large_study_is_still_a_page_that_opens(tmp_path: Path) -> None:
    arms = [
        replace(LORA, name=f"lora-{number}", trial_statuses=("completed",) * 12, card=Card()) for number in range(12)
    ]
    prediction = "#Person1# tells #Person2# about <b>the plan</b> & they agree to meet again soon. " * 4
    folder = write_study(
        tmp_path, arms=(*arms, QLORA), claims=(claim(reference="lora-0"),), dialogues=500, prediction=prediction
    )
    text = shown(folder)
    parsed = Parsed(text)
    assert len(parsed.data("runs")["runs"]) > 200
    assert len(parsed.data("predictions")["dialogues"]) == 200
    assert "300 more, which differ less, are left out" in parsed.body
    assert len(text.encode()) < 10_000_000


def test_an_installed_package_has_the_pages_style_and_script() -> None:
    root = Path(__file__).parents[3]
    patterns = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["reports"]
    packed = {path.name for pattern in patterns for path in (root / "reports").glob(pattern)}
    assert {"page.css", "page.js"} <= packed
