"""The page as a reader has it: in headless Chromium, from a file, under its policy."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from reports.report import write_report
from study.examples import Example, digest
from tests.integration.chromium import CHROMIUM, Browser, browser
from tests.unit.reports.records import CHOSEN, LORA, QLORA, SEEDS, TEST_HASH, ZERO_SHOT, Arm, Card, claim, tuned_id
from tests.unit.reports.records import write_study as write

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")

HOSTILE = (
    "<script>window.ran = 1</script></script><img src=x onerror='window.ran = 1'> #Person1# \\input{x} "
    "\x1b[31mred \u202eevil \u2028 end"
)
SEEN = HOSTILE.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e").replace("\u2028", "\\u2028")
ROWS = "[...document.querySelectorAll('#run-table tbody tr')].filter((row) => !row.hidden)"
OPEN = "document.querySelector('dialog[open] h2')?.textContent ?? null"


def examples() -> list[Example]:
    return [Example(f"dialogue-{number}", f"#Person1#: {HOSTILE}", ("one", HOSTILE, "three")) for number in range(30)]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The addresses of two pages: scores, failures and hostile text everywhere; and random weights without a claim."""
    folder, out = tmp_path_factory.mktemp("results"), tmp_path_factory.mktemp("out")
    study = write(
        folder,
        name="scored",
        arms=(
            ZERO_SHOT,
            # Before the others, so that its rows without scores have to be moved to the end of a sorted column.
            Arm(HOSTILE, statuses=dict.fromkeys(SEEDS, "out_of_memory")),
            replace(LORA, card=Card(forecast=9.0)),
            replace(QLORA, mean=39.0),
        ),
        claims=(claim(drop_in=True, metrics=("rouge1", "rougeL")), claim(name=HOSTILE, candidate=HOSTILE)),
        drop_in={CHOSEN: 38.0},
        error=HOSTILE,
        prediction=HOSTILE,
        description=HOSTILE,
        dialogues=30,
    )
    for path in (study.records, study.plan, study.frozen):
        path.write_text(path.read_text().replace(TEST_HASH, digest(examples())))
    path = study.examples("test", digest(examples()))
    path.parent.mkdir()
    rows = [{"id": each.id, "dialogue": each.dialogue, "references": each.references} for each in examples()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    write(folder, name="random", weights="random", claims=())
    return {name: write_report(folder, name, out).index.as_uri() for name in ("scored", "random")}


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture
def scored(chromium: Browser, pages: dict[str, str]) -> Browser:
    chromium.open(pages["scored"])
    return chromium


def column(scored: Browser, title: str) -> list[str]:
    """The texts of a column of the run table, as they stand."""
    found: list[str] = scored.evaluate(
        f"(() => {{ const head = [...document.querySelectorAll('#run-table thead th')];"
        f"const at = head.findIndex((cell) => cell.textContent === {json.dumps(title)});"
        f"return {ROWS}.map((row) => row.cells[at].textContent); }})()"
    )
    return found


@pytest.mark.parametrize("name", ["scored", "random"])
@pytest.mark.parametrize(("width", "dark"), [(1200, False), (420, True)])
def test_the_page_runs_without_a_complaint_and_asks_for_nothing(
    chromium: Browser, pages: dict[str, str], name: str, width: int, dark: bool
) -> None:
    chromium.open(pages[name], width, dark=dark)
    assert chromium.complaints() == []
    assert chromium.requests() == [pages[name]]
    # Wide tables scroll in their own frames; the page itself does not.
    assert chromium.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert chromium.evaluate("document.querySelectorAll('section[hidden]').length") == 0


def test_the_policy_refuses_what_is_not_the_pages_own(scored: Browser) -> None:
    scored.evaluate(
        "(() => { const script = document.createElement('script'); script.textContent = 'window.ran = 2'; "
        "const image = new Image(); image.src = 'x.png'; document.body.append(script, image); })()"
    )
    complaints = " ".join(scored.complaints())
    assert "script-src" in complaints
    assert "img-src" in complaints
    assert scored.evaluate("window.ran ?? null") is None


def test_hostile_text_is_seen_as_text_and_none_of_it_runs(scored: Browser) -> None:
    summaries = scored.evaluate("[...document.querySelectorAll('.summary .text')].map((item) => item.textContent)")
    assert summaries == [SEEN] * 3
    assert scored.evaluate("document.querySelector('.dialogue').textContent") == f"#Person1#: {SEEN}"
    assert SEEN in scored.evaluate("document.querySelector('.references').textContent")
    assert SEEN in column(scored, "arm")
    failed = tuned_id(HOSTILE, 11)
    scored.evaluate(f"location.hash = '#run-{failed}'")
    assert SEEN in scored.evaluate(f"new Promise((done) => setTimeout(() => done({OPEN}), 50))")
    assert scored.evaluate("document.querySelectorAll('img, iframe, object').length") == 0
    assert scored.evaluate("document.scripts.length") == 3
    assert scored.evaluate("window.ran ?? null") is None
    assert scored.complaints() == []


def test_drawings_keep_their_styles_under_the_policy(scored: Browser) -> None:
    fills = scored.evaluate(
        "[...document.querySelectorAll('.drawing path[style*=\"fill: \"]')].map((path) => "
        "[path.style.fill, getComputedStyle(path).fill])"
    )
    assert len({computed for stated, computed in fills if stated != "none"}) > 2
    assert all(computed == "none" for stated, computed in fills if stated == "none")


def test_a_header_sorts_by_click_and_by_keyboard(scored: Browser) -> None:
    button = (
        "[...document.querySelectorAll('#run-table th button')].find((item) => item.textContent === 'ROUGE-1, points')"
    )
    scored.evaluate(f"{button}.click()")
    values = [float(text) for text in column(scored, "ROUGE-1, points") if text != "—"]
    assert len(values) > 10
    assert values == sorted(values)
    assert column(scored, "ROUGE-1, points")[-1] == "—"
    assert scored.evaluate(f"{button}.parentElement.getAttribute('aria-sort')") == "ascending"
    scored.evaluate(f"{button}.focus()")
    scored.press("Enter", 13, "\r")
    values = [float(text) for text in column(scored, "ROUGE-1, points") if text != "—"]
    assert values == sorted(values, reverse=True)
    # What has no number stands last either way.
    assert column(scored, "ROUGE-1, points")[-1] == "—"
    assert scored.evaluate(f"{button}.parentElement.getAttribute('aria-sort')") == "descending"
    assert scored.evaluate("document.querySelectorAll('#run-table th[aria-sort=none]').length") > 5


def test_the_run_table_is_filtered_by_status_and_by_text(scored: Browser) -> None:
    everything = len(column(scored, "status"))
    scored.evaluate(
        "(() => { const select = [...document.querySelectorAll('#run-filter select')][0]; "
        "select.value = 'out of memory'; select.dispatchEvent(new Event('change')); })()"
    )
    assert column(scored, "status") == ["out of memory"] * 5
    assert scored.evaluate("document.querySelector('#run-filter [role=status]').textContent") == (
        f"5 of {everything} runs shown"
    )
    scored.evaluate(
        "(() => { const input = document.querySelector('#run-filter input'); "
        "input.value = 'QLORA'; input.dispatchEvent(new Event('input')); })()"
    )
    assert column(scored, "status") == []


def test_a_number_leads_to_its_runs_and_back(scored: Browser) -> None:
    ids = scored.evaluate(
        "(() => { const link = document.querySelector('#table-main tbody tr:nth-child(3) a[data-runs]'); "
        "link.focus(); return link.dataset.runs.split(' '); })()"
    )
    assert ids == [tuned_id("lora", seed) for seed in SEEDS]
    scored.press("Enter", 13, "\r")
    scored.evaluate("new Promise((done) => setTimeout(done, 50))")
    assert scored.evaluate(f"{ROWS}.map((row) => row.id)") == [f"run-{run_id}" for run_id in ids]
    assert scored.evaluate("document.activeElement.textContent") == "Runs"
    scored.evaluate("document.querySelector('.chip button').click()")
    assert len(column(scored, "status")) > len(ids)


def test_a_link_opens_a_run_and_escape_closes_it(scored: Browser, pages: dict[str, str]) -> None:
    run_id = tuned_id("lora", 12)
    scored.open(f"{pages['scored']}#run-{run_id}")
    title = scored.evaluate(OPEN)
    assert title == "lora: confirm, tuned, seed 12, rank 16, alpha 32, learning rate 0.0002: completed"
    cells = scored.evaluate("[...document.querySelectorAll('dialog td, dialog th')].map((cell) => cell.textContent)")
    for text in (run_id, "allocated, GiB", "9.620", "2.11.0", "NVIDIA Test 80GB"):
        assert text in cells, text
    scored.press("Escape", 27)
    scored.evaluate("new Promise((done) => setTimeout(done, 50))")
    assert scored.evaluate(OPEN) is None
    assert scored.evaluate("location.hash") == "#runs"
    assert scored.complaints() == []


@pytest.mark.parametrize(
    "hash_", ["#run-0123456789abcdef", "#run-", "#runs=", "#runs=nothing", "#run-<script>", "#%00"]
)
def test_a_link_to_nothing_opens_nothing(scored: Browser, pages: dict[str, str], hash_: str) -> None:
    scored.open(pages["scored"] + hash_)
    assert scored.evaluate(OPEN) is None
    assert scored.complaints() == []


def test_the_plot_is_read_by_keyboard_and_by_pointer(scored: Browser) -> None:
    scored.evaluate("document.querySelector('#plot .point[tabindex=\"0\"]').focus()")
    first = scored.evaluate("document.querySelector('#plot [aria-live]').textContent")
    scored.press("ArrowRight", 39)
    second = scored.evaluate("document.querySelector('#plot [aria-live]').textContent")
    assert first != second
    for text in (first, second):
        assert "seed" in text
        assert "peak memory (GPU allocated), GiB: " in text
        assert "ROUGE-1, points: " in text
    assert "rank 16, alpha 32, learning rate 0.0002" in second
    scored.press("Enter", 13, "\r")
    scored.evaluate("new Promise((done) => setTimeout(done, 50))")
    assert second.startswith(scored.evaluate(OPEN).rpartition(":")[0])


def test_the_plot_tells_which_runs_it_cannot_draw(scored: Browser) -> None:
    text = scored.evaluate("document.querySelector('#plot [aria-live]').textContent")
    assert "5 runs cannot be drawn here: 5 out of memory." in text
    drawn = scored.evaluate("document.querySelectorAll('#plot .point').length")
    assert text.startswith(f"{drawn} runs drawn.")


def test_every_pair_of_axes_can_be_drawn(scored: Browser) -> None:
    broken = scored.evaluate(
        """(() => {
          const [across, up, which] = document.querySelectorAll('#plot select');
          const broken = [];
          for (const kind of which.options) for (const x of across.options) for (const y of up.options) {
            for (const [select, option] of [[which, kind], [across, x], [up, y]]) {
              select.value = option.value;
              select.dispatchEvent(new Event('change'));
            }
            const drawn = document.querySelector('#plot').innerHTML;
            if (/NaN|Infinity|undefined/.test(drawn)) broken.push(x.value + y.value);
          }
          return broken;
        })()"""
    )
    assert broken == []
    assert scored.complaints() == []


def differences(scored: Browser) -> list[float]:
    texts = scored.evaluate("[...document.querySelectorAll('#reader .list b')].map((item) => item.textContent)")
    return [float(text.replace("−", "-").replace("±", "")) for text in texts]


def choose(scored: Browser, place: int, value: str) -> None:
    scored.evaluate(
        f"(() => {{ const select = document.querySelectorAll('#reader select')[{place}]; "
        f"select.value = {json.dumps(value)}; select.dispatchEvent(new Event('change')); }})()"
    )


def test_the_reader_begins_with_the_worst_and_turns_to_the_best(scored: Browser) -> None:
    worst = differences(scored)
    assert len(worst) == 30
    assert worst == sorted(worst)
    choose(scored, 0, "0 -1")
    assert differences(scored) == sorted(worst, reverse=True)
    choose(scored, 0, "0 0")
    assert [abs(each) for each in differences(scored)] == sorted(map(abs, worst), reverse=True)


def test_the_reader_shows_every_arm_of_a_dialogue_with_its_scores(scored: Browser) -> None:
    heads: list[str] = scored.evaluate("[...document.querySelectorAll('.summary h4')].map((item) => item.textContent)")
    assert heads == ["qlora, candidate, seed 11", "lora, reference, seed 11", "zero-shot, seed 0"]
    scores: list[list[Any]] = scored.evaluate(
        "[...document.querySelectorAll('.summary')].slice(0, 2).map((item) => "
        "[...item.querySelectorAll('tbody tr')].map((row) => row.cells[1].textContent))"
    )
    apart = float(scores[0][0]) - float(scores[1][0])
    assert apart == pytest.approx(differences(scored)[0], abs=0.06)
    before = scored.evaluate("document.querySelector('#reader h3').textContent")
    scored.evaluate(
        "[...document.querySelectorAll('#reader button')].find((item) => item.textContent === 'Next').click()"
    )
    assert scored.evaluate("document.querySelector('#reader h3').textContent") != before


def test_the_reader_is_filtered_by_text(scored: Browser) -> None:
    scored.evaluate(
        "(() => { const input = document.querySelector('#reader input'); "
        "input.value = 'DIALOGUE-7'; input.dispatchEvent(new Event('input')); })()"
    )
    assert scored.evaluate("document.querySelector('#reader h3').textContent") == "dialogue-7"
    assert len(differences(scored)) == 1


def test_a_run_leads_to_its_predictions(scored: Browser, pages: dict[str, str]) -> None:
    scored.open(f"{pages['scored']}#run-{tuned_id('lora', 11)}")
    scored.evaluate(
        "[...document.querySelectorAll('dialog button')].find((item) => /predictions/.test(item.textContent)).click()"
    )
    assert scored.evaluate(OPEN) is None
    assert scored.evaluate("document.querySelector('.summary.focus h4').textContent").startswith("lora")


def test_without_scripts_the_verdict_tables_and_figures_are_there(chromium: Browser, pages: dict[str, str]) -> None:
    chromium.open("about:blank")
    chromium.send("Emulation.setScriptExecutionDisabled", value=True)
    chromium.go(pages["scored"])
    text = chromium.send("Runtime.evaluate", expression="document.body.innerText")["result"].get("value", "")
    for part in (
        "qlora matches lora within ±1 points",
        "95% interval",
        "Runs that did not complete",
        "Without JavaScript",
    ):
        assert part in text, part
    assert "Every run in a plot" not in text


def test_the_page_prints_every_row(scored: Browser) -> None:
    scored.send("Emulation.setEmulatedMedia", media="print")
    cut = scored.evaluate(
        "[...document.querySelectorAll('.scroll')].filter((item) => item.scrollHeight > item.clientHeight + 2).length"
    )
    assert cut == 0
    assert scored.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert scored.evaluate("getComputedStyle(document.querySelector('.verdict')).display") != "none"
