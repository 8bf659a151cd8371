"""The whole report: the same records give the same bytes, and nothing from outside acts on a reader."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from reports.__main__ import main
from reports.evidence import NoStudy
from reports.public_text import public_text
from reports.report import Report, write_report
from results.store import ResultsError
from tests.unit.reports.records import LORA, QLORA, SEEDS, ZERO_SHOT, Arm, Card, claim, tuned_id, write_study

ROOT = Path(__file__).parents[3]
SCRIPT = "<script>alert(1)</script>"
ESCAPE = f"{SCRIPT}\x1b[31m\n"
HOSTILE = f"{SCRIPT} #Person1# \\input{{x}} =cmd() \x1b[31m"


def tables(*names: str) -> set[str]:
    return {f"tables/{name}.{kind}" for name in names for kind in ("csv", "md", "tex")}


def figures(*names: str) -> set[str]:
    return {f"figures/{name}.{kind}" for name in names for kind in ("pdf", "png", "svg", "txt")}


EVER = {"index.html", "numbers.tex", "verdict.json"} | tables(
    "main", "trials", "verdicts", "memory", "cost", "hyperparameters"
)
# What a study with scores and a claim has beside.
SCORED = tables("seeds", "estimands", "power", "sensitivity", "expected")
OF_TRIALS = figures("learning_rate", "expected_performance")
FILES = EVER | SCORED | OF_TRIALS | figures("differences", "memory_vs_rouge", "cost_vs_rouge")
MEASURED = (ZERO_SHOT, replace(LORA, card=Card(forecast=9.0, shared=(11, 12))), replace(QLORA, card=Card(parts=None)))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five studies: one that matches, one full of hostile text, one fully measured, two whose weights are random."""
    folder = tmp_path_factory.mktemp("results")
    write_study(folder)
    too_large = Arm(ESCAPE, card=Card(forecast=9.0), statuses=dict.fromkeys(SEEDS, "out_of_memory"))
    write_study(
        folder,
        name="hostile",
        arms=(ZERO_SHOT, LORA, Arm("=cmd()|'/C calc'!A0"), too_large),
        claims=(claim(name=SCRIPT, candidate="=cmd()|'/C calc'!A0"), claim(name="b", candidate=ESCAPE)),
        model="/home/alice/models/phi-2",
        description=f"{HOSTILE} from /home/alice/data/dev.jsonl",
        error=f"{HOSTILE} FileNotFoundError: '/home/alice/.cache/hub/x.bin' and C:\\Users\\alice\\x.bin",
        prediction=HOSTILE,
        floors={f"floor {SCRIPT}": 14.0},
    )
    write_study(folder, name="measured", arms=MEASURED, repeats=2)
    write_study(folder, name="random", weights="random")
    unfit = Arm("lora-fp32", card=Card(limit=16.0), statuses=dict.fromkeys(SEEDS, "out_of_memory"))
    write_study(folder, name="random-measured", arms=(*MEASURED, unfit), weights="random", claims=())
    return folder


@pytest.fixture(scope="module")
def report(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    return write_report(results, "study", tmp_path_factory.mktemp("out"))


@pytest.fixture(scope="module")
def hostile(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    return write_report(results, "hostile", tmp_path_factory.mktemp("out"))


class Page(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def test_every_file_is_written_and_named(report: Report) -> None:
    assert set(contents(report.folder)) == FILES
    assert set(report.files) == {report.folder / name for name in FILES}
    assert report.index == report.files[-1]


@pytest.mark.parametrize("name", ["study", "measured"])
def test_the_same_records_give_the_same_bytes_in_another_process(results: Path, tmp_path: Path, name: str) -> None:
    report = write_report(results, name, tmp_path / "here")
    done = subprocess.run(
        [sys.executable, "-m", "reports", name, "--results", str(results), "--out", str(tmp_path / "elsewhere")],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "elsewhere" / name) == contents(report.folder)
    assert "qlora matches lora within ±1 points: supported." in done.stdout


def test_the_report_needs_neither_torch_nor_the_harness() -> None:
    check = (
        "import sys, reports.__main__, reports.report; "
        "sys.exit(any(name.partition('.')[0] in ('torch', 'transformers', 'harness') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT, timeout=60, check=False).returncode == 0


def test_no_file_holds_a_path_of_the_machine(hostile: Report, results: Path) -> None:
    for name, data in contents(hostile.folder).items():
        for path in (b"/home/", b"alice", str(results).encode(), str(hostile.folder).encode()):
            assert path not in data, name
    assert "…/phi-2" in hostile.index.read_text()


def test_the_verdict_file_says_what_was_judged(report: Report) -> None:
    verdict = json.loads((report.folder / "verdict.json").read_text())
    assert (verdict["study"], verdict["verdict"]) == ("study", "supported")
    (only,) = verdict["claims"]
    assert only["name"] == "qlora-matches-lora"
    assert only["metrics"]["rouge1"]["difference"] == pytest.approx(0.0, abs=1e-6)
    assert (verdict["not_completed"], verdict["not_run"], verdict["left_out"]) == ([], [], [])


def test_claims_that_differ_have_no_verdict_in_common(hostile: Report) -> None:
    verdict = json.loads((hostile.folder / "verdict.json").read_text())
    # The margin's Holm adjustment does not take the first one's support away; the second arm did not fit.
    assert [item["verdict"] for item in verdict["claims"]] == ["supported", "no_verdict"]
    assert verdict["verdict"] is None
    assert {item["status"] for item in verdict["not_completed"]} == {"out_of_memory"}


def test_nothing_runs_on_the_page_whatever_the_records_say(hostile: Report) -> None:
    page = Page(hostile.index.read_text())
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert not any(name in ("src", "action") for name, _ in page.attributes)
    policy = dict(page.attributes)["content"] if ("http-equiv", "Content-Security-Policy") in page.attributes else None
    assert policy is not None
    content = next(value for name, value in page.attributes if name == "content" and "default-src" in (value or ""))
    assert content is not None
    assert "default-src 'none'" in content
    # One script, the page's own, by its hash (test_page.py holds that nothing else matches it).
    assert content.count("script-src 'sha256-") == 1
    assert "'unsafe-inline'" not in content.replace("style-src-attr 'unsafe-inline'", "")
    assert SCRIPT in page.text
    assert "\x1b" not in page.text


def test_the_page_needs_no_other_file(report: Report) -> None:
    text = report.index.read_text()
    assert "<svg" in text
    assert "@import" not in text
    assert "url(" not in text.replace("url(#", "")
    assert not re.search(r'(?:src|href)="(?!#)', text.replace("xlink:href", "href"))


def test_the_page_begins_with_the_verdict_in_plain_words(report: Report) -> None:
    page = Page(report.index.read_text())
    verdict = page.text.index("qlora matches lora within ±1 points: supported.")
    assert verdict < page.text.index("Memory against ROUGE")
    assert "floor" in page.text


def test_runs_that_did_not_complete_are_listed_with_why(hostile: Report) -> None:
    text = Page(hostile.index.read_text()).text
    assert "out_of_memory" in text
    assert "FileNotFoundError: '…/x.bin'" in text


def test_hostile_names_are_escaped_in_the_tables_of_measurements(hostile: Report) -> None:
    for name in ("memory", "forecast", "cost"):
        assert "<script" not in (hostile.folder / "tables" / f"{name}.md").read_text().replace("\\<script", ""), name
        assert "\x1b" not in (hostile.folder / "tables" / f"{name}.tex").read_text(), name
    assert "'=cmd()" in (hostile.folder / "tables" / "cost.csv").read_text()


def test_planned_runs_that_were_not_run_are_listed(tmp_path: Path) -> None:
    write_study(tmp_path, arms=(ZERO_SHOT, LORA, Arm("qlora", not_run=(15,))))
    text = Page(write_report(tmp_path, "study", tmp_path / "out").index.read_text()).text
    assert "confirm qlora: 1 planned and not run" in text


def test_random_weights_give_a_report_without_scores(results: Path, tmp_path: Path) -> None:
    report = write_report(results, "random", tmp_path)
    assert set(contents(report.folder)) == EVER | figures("memory_by_arm")
    assert report.summary[0] == "qlora matches lora within ±1 points: no verdict."
    assert "random weights, which have no scores" in report.summary[1]
    assert "9.620" in (report.folder / "tables" / "main.csv").read_text()
    assert report.summary[2:] == (
        "random weights: memory and time only, no scores",
        "  zero-shot: peak memory 5.400 GiB (1 completed)",
        "  lora: peak memory 9.620 GiB, training 113.0 s (5 completed)",
        "  qlora: peak memory 6.120 GiB, training 113.0 s (5 completed)",
    )


def test_the_page_of_random_weights_says_so_and_shows_no_empty_score(results: Path, tmp_path: Path) -> None:
    report = write_report(results, "random-measured", tmp_path)
    text = Page(report.index.read_text()).text
    assert "Random weights: memory and time only, no scores." in text
    assert "ROUGE" not in text
    assert "no arm has a score" not in text
    assert "Memory by arm" in text
    assert "Did not fit in memory: lora-fp32" in text
    assert "  lora-fp32: did not fit (5 out_of_memory)" in report.summary
    for name in ("main", "memory"):
        assert "did not fit" in (report.folder / "tables" / f"{name}.csv").read_text(), name


def test_a_measured_study_has_every_table_and_both_figures(results: Path, tmp_path: Path) -> None:
    report = write_report(results, "measured", tmp_path)
    more = tables("breakdown", "forecast", "repeats") | figures("memory_by_arm", "forecast_vs_measured")
    assert set(contents(report.folder)) == FILES | more
    text = Page(report.index.read_text()).text
    titles = ["Memory against ROUGE", "Memory by arm", "Main", "Verdicts", "Memory", "Breakdown", "Forecast", "Cost"]
    places = [report.index.read_text().index(f"<h2>{title}</h2>") for title in [*titles, "Repeats", "Trials"]]
    assert places == sorted(places)
    assert "9.620" in text


def test_runs_on_a_shared_gpu_are_a_finding_with_their_ids(results: Path, tmp_path: Path) -> None:
    page = Page(write_report(results, "measured", tmp_path).index.read_text())
    assert "Runs on a shared GPU" in page.text
    sentence = "4 runs shared their GPU with other processes: memory of the device, time and energy of these are not "
    assert sentence in page.text.partition("Runs on a shared GPU")[2]
    ids = " ".join(tuned_id("lora", seed, repeat) for seed in (11, 12) for repeat in (0, 1))
    assert ("title", f"runs {ids}") in page.attributes


def test_one_run_on_a_shared_gpu_is_told_in_the_singular(tmp_path: Path) -> None:
    write_study(tmp_path, arms=(replace(LORA, card=Card(shared=(11,))),), claims=())
    text = Page(write_report(tmp_path, "study", tmp_path / "out").index.read_text()).text
    assert "1 run shared its GPU with other processes" in text


def test_without_a_shared_gpu_there_is_no_such_finding(report: Report) -> None:
    assert "shared" not in Page(report.index.read_text()).text


def test_what_an_earlier_report_had_and_this_one_has_not_is_removed(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    (out / "tables").mkdir(parents=True)
    for name in ("tables/repeats.csv", "tables/mine.csv", "notes.txt"):
        (out / name).write_text("earlier")
    write_report(results, "study", tmp_path)
    assert set(contents(out)) == FILES | {"tables/mine.csv", "notes.txt"}


def test_the_terminal_gets_no_escape_sequence(hostile: Report) -> None:
    assert all(line.isprintable() for line in hostile.summary)


def test_an_inconclusive_claim_tells_the_terminal_what_it_would_need(tmp_path: Path) -> None:
    write_study(tmp_path, residual=9.0)
    summary = write_report(tmp_path, "study", tmp_path / "out").summary
    assert summary[0] == "qlora matches lora within ±1 points: inconclusive."
    assert "the 90% interval [" in summary[1]
    assert any(line.startswith("  what it would need: ROUGE-1: ") for line in summary)


def test_a_study_that_is_not_there_is_one_line_with_those_that_are(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["nope", "--results", str(results), "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "'nope'" in error
    assert "choose from hostile, measured, random, random-measured, study" in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["./study", "study/", "study/../study", "../{}/study", "", ".", "study\n"])
def test_a_path_is_no_study_name_and_nothing_is_written(results: Path, tmp_path: Path, name: str) -> None:
    # Most of these do lead to a study.
    with pytest.raises(NoStudy, match="no study of that name"):
        write_report(results, name.format(results.name), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_folder_is_named_after_the_study_and_not_after_what_a_file_says(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "results")
    folder.plan.write_text(folder.plan.read_text().replace('"study": "study"', '"study": "../../escaped"'))
    report = write_report(tmp_path / "results", "study", tmp_path / "out")
    assert report.folder == tmp_path / "out" / "study"
    assert not (tmp_path.parent / "escaped").exists()
    assert json.loads((report.folder / "verdict.json").read_text())["study"] == "study"


def test_a_file_that_cannot_be_used_is_an_error_and_no_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_study(tmp_path / "results")
    folder.frozen.write_text("{}")
    with pytest.raises(ResultsError):
        write_report(tmp_path / "results", "study", tmp_path / "out")
    assert main(["study", "--results", str(tmp_path / "results"), "--out", str(tmp_path / "out")]) == 1
    assert "no report" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no /home/alice/models/phi-2 there", "no …/phi-2 there"),
        ("~/models/phi-2", "…/phi-2"),
        ("../data/x.jsonl", "…/x.jsonl"),
        ("microsoft/phi-2 and/or https://huggingface.co/a/b", "microsoft/phi-2 and/or https://huggingface.co/a/b"),
        ("C:\\Users\\alice\\x.bin", "…/x.bin"),
        ("a\nb\x1b", "a\\nb\\x1b"),
    ],
)
def test_public_text_has_no_paths_and_no_control_characters(text: str, shown: str) -> None:
    assert public_text(text) == shown


def test_public_text_is_cut() -> None:
    assert len(public_text("x" * 5000)) == 300
