"""The top of the page: each claim's verdict in words, with its intervals drawn on the margin."""

from collections.abc import Sequence
from dataclasses import dataclass

from reports.claiming import ClaimResult, MetricResult
from reports.page_text import escaped
from reports.tables import MISSING
from reports.verdict import Verdict
from reports.wording import claim_sentence, metric_sentences, secondary_sentences
from study.metrics import METRICS

# Sign and word: a verdict is never told by its colour alone.
_SIGNS = {Verdict.SUPPORTED: "✓", Verdict.REFUTED: "✕", Verdict.INCONCLUSIVE: "?", Verdict.NO_VERDICT: "–"}
_NUMBERS = ("difference", "90% interval", "95% interval", "would match within")
_WIDTH, _HEIGHT, _MIDDLE = 360.0, 44.0, 16.0


@dataclass(frozen=True, slots=True)
class Strip:
    """A difference with its 95% and 90% intervals on the band ±margin, all in points."""

    difference: float
    low95: float
    low90: float
    high90: float
    high95: float
    margin: float

    @property
    def reach(self) -> float:
        """How far the axis goes to either side of 0."""
        return 1.12 * max(abs(self.low95), abs(self.high95), self.margin)


def verdict_section(results: Sequence[ClaimResult]) -> str:
    """Every claim, in the grid's order."""
    claims = [_claim(result) for result in results] or ["<p>This study makes no claim.</p>"]
    return "\n".join(claims)


def _claim(result: ClaimResult) -> str:
    verdict = result.judgement.verdict
    parts = [
        f'<p class="badge"><span aria-hidden="true">{_SIGNS[verdict]}</span> {escaped(_words(verdict))}</p>',
        f"<h3>{escaped(claim_sentence(result))}</h3>",
        *(f"<p>{escaped(_sentence(reason))}</p>" for reason in metric_sentences(result)),
        _metrics(result),
        _beside(result),
        *(f'<p class="needs">What it would need: {escaped(need)}.</p>' for need in result.needs),
        *(f'<p class="note">Note: {escaped(note)}.</p>' for note in result.notes),
        _seeds(result),
    ]
    return f'<article class="verdict {escaped(verdict)}">' + "\n".join(part for part in parts if part) + "</article>"


def _sentence(text: str) -> str:
    """A reason as a sentence of its own."""
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _beside(result: ClaimResult) -> str:
    """What stands beside the verdict and does not decide it: the gain that is kept, the drop-in comparison."""
    sentences = secondary_sentences(result)
    kept = len(result.retention) if result.claim is not None else 0
    lists = {"Gain kept": sentences[:kept], "Drop-in": sentences[kept:]}
    parts = "".join(
        f"<div><h4>{title}</h4><ul>{''.join(f'<li>{escaped(item)}.</li>' for item in items)}</ul></div>"
        for title, items in lists.items()
        if items
    )
    return f'<div class="beside">{parts}</div>' if parts else ""


def _words(verdict: Verdict) -> str:
    return str(verdict).replace("_", " ")


def _metrics(result: ClaimResult) -> str:
    """A table of the compared metrics; nothing where none could be compared."""
    if result.claim is None or not any(item.comparison for item in result.metrics):
        return ""
    head = ("metric", "verdict", *_NUMBERS, "on the margin")
    rows = [_metric_row(item, result.claim.margin) for item in result.metrics]
    titles = "".join(f'<th scope="col">{title}</th>' for title in head)
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="differences of this claim"><table class="claim">'
        f"<thead><tr>{titles}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        f'<p class="note">Candidate minus reference, in points. The thick bar is the 90% interval, which decides; the '
        f"thin line the 95% interval; the shaded band ±{result.claim.margin:g} points, inside which the arms match.</p>"
    )


def _metric_row(item: MetricResult, margin: float) -> str:
    metric, verdict = METRICS.get(item.metric), item.judgement.verdict
    label = item.metric if metric is None else metric.label
    texts = [MISSING] * 4
    drawing = ""
    if item.comparison is not None:
        (low90, high90), (low95, high95) = item.comparison.interval(0.90), item.comparison.interval(0.95)
        smallest = item.judgement.smallest_margin
        texts = [
            f"{item.comparison.difference:+z.2f}",
            _interval(low90, high90),
            _interval(low95, high95),
            MISSING if smallest is None else f"±{smallest:.2f}",
        ]
        drawing = strip_svg(Strip(item.comparison.difference, low95, low90, high90, high95, margin))
    cells = "".join(
        f'<td class="number" data-label="{title}">{escaped(text)}</td>'
        for title, text in zip(_NUMBERS, texts, strict=True)
    )
    return (
        f'<tr class="{escaped(verdict)}"><th scope="row">{escaped(label)}</th>'
        f'<td><span class="word"><span aria-hidden="true">{_SIGNS[verdict]}</span> {escaped(_words(verdict))}</span>'
        f"</td>{cells}<td>{drawing}</td></tr>"
    )


def _interval(low: float, high: float) -> str:
    return f"[{low:+z.2f}, {high:+z.2f}]"


def strip_svg(strip: Strip) -> str:
    """The drawing of one difference; its classes are styled by the page, so that it follows light and dark."""
    reach = strip.reach

    def x(value: float) -> str:
        return f"{_WIDTH / 2 + value / reach * (_WIDTH / 2 - 8):.1f}"

    band = float(x(strip.margin)) - float(x(-strip.margin))
    thick = max(float(x(strip.high90)) - float(x(strip.low90)), 1.0)
    said = (
        f"difference {strip.difference:+z.2f}, 90% interval {_interval(strip.low90, strip.high90)}, "
        f"95% interval {_interval(strip.low95, strip.high95)}, margin ±{strip.margin:g} points"
    )
    ticks = [(-strip.margin, f"−{strip.margin:g}"), (0.0, "0"), (strip.margin, f"+{strip.margin:g}")]
    labels = [f'<text x="{x(at)}" y="{_HEIGHT - 4:g}">{escaped(text)}</text>' for at, text in ticks]
    return (
        f'<svg class="strip" viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" role="img" aria-label="{escaped(said)}">'
        f'<rect class="band" x="{x(-strip.margin)}" y="2" width="{band:.1f}" height="28"/>'
        f'<line class="zero" x1="{x(0)}" x2="{x(0)}" y1="2" y2="30"/>'
        f'<line class="thin" x1="{x(strip.low95)}" x2="{x(strip.high95)}" y1="{_MIDDLE:g}" y2="{_MIDDLE:g}"/>'
        f'<rect class="thick" x="{x(strip.low90)}" y="{_MIDDLE - 4:g}" width="{thick:.1f}" height="8"/>'
        f'<circle class="dot" cx="{x(strip.difference)}" cy="{_MIDDLE:g}" r="5"/>'
        f"{''.join(labels)}</svg>"
    )


def _seeds(result: ClaimResult) -> str:
    if not result.seeds:
        return ""
    counts = ", ".join(f"{arm} {count.scored} of {count.planned}" for arm, count in result.seeds.items())
    dialogues = {item.comparison.dialogues for item in result.metrics if item.comparison is not None}
    of = f", on {', '.join(map(str, sorted(dialogues)))} dialogues" if dialogues else ""
    ids = " ".join(result.run_ids)
    link = f' <a href="#runs" data-runs="{escaped(ids)}">Show these runs</a>' if ids else ""
    return f'<p class="note">Seeds scored: {escaped(counts)}{of}.{link}</p>'
