"""What a claim rests on, as tables: scores of every seed, what was chosen, and what the design can show.

Each has no rows where a study has nothing of the kind; random weights have no scores, and no tables of them.
"""

from collections.abc import Iterator, Sequence

from reports.claiming import ClaimResult, MetricResult
from reports.evidence import ArmEvidence, Evidence
from reports.expected import ExpectedCurve, expected_curves
from reports.sensitivity import TOP, Pair, Sensitivity, sensitivities
from reports.stats import TOST_CONFIDENCE, Comparison
from reports.tables import MISSING, Cell, Column, Table, number
from results.schema import Choice, PlannedRun
from study.metrics import METRICS, ROUGE_TYPES
from study.power import EnoughSeeds, TooFewDialogues

STUDY_TABLES = ("seeds", "hyperparameters", "estimands", "power", "sensitivity", "expected")


def study_tables(evidence: Evidence, claims: Sequence[ClaimResult]) -> tuple[Table, ...]:
    """Those of the tables below that have rows, in the order of a report."""
    tables = (
        seeds_table(evidence),
        hyperparameters_table(evidence),
        estimands_table(claims),
        power_table(claims),
        sensitivity_table(evidence),
        expected_table(evidence),
    )
    return tuple(table for table in tables if table.rows)


def label(metric: str) -> str:
    """How a metric is called."""
    return METRICS[metric].label if metric in METRICS else metric


def _decimals(metric: str) -> int:
    return METRICS[metric].decimals if metric in METRICS else 2


# --- scores of every seed ---


def seeds_table(evidence: Evidence) -> Table:
    """One row a planned test run: its mean scores over the dialogues, or what became of it. None for random weights."""
    columns = (
        Column("arm"),
        Column("seed", numeric=True),
        Column("repeat", numeric=True),
        *(Column(METRICS[key].label, METRICS[key].unit, numeric=True) for key in ROUGE_TYPES),
        Column("dialogues", numeric=True),
        Column("status"),
        Column("run"),
    )
    rows = [_seed_row(arm, run) for arm in evidence.arms for run in arm.test_runs]
    rows += [row for arm in evidence.external for row in _external_rows(arm)]
    caption = (
        "Every test run at the tuned hyperparameters (zero-shot: the untrained model). Scores are F measures, means"
        " over references and dialogues. A run without a score counts in no mean: its status says why, or that it "
        "was left out."
    )
    return Table("seeds", caption, columns, () if evidence.random_weights else tuple(rows))


def _seed_row(arm: ArmEvidence, run: PlannedRun) -> tuple[Cell, ...]:
    ids = (run.run_id,)
    scored = arm.scored is not None and run.run_id in arm.scored.run_ids
    return (
        Cell(run.arm),
        number(run.seed, "d", ids),
        number(run.repeat, "d", ids),
        *_score_cells(arm, run.run_id),
        Cell(_status(arm, run, scored=scored), ids if run.run_id in arm.recorded else ()),
        Cell(run.run_id),
    )


def _external_rows(arm: ArmEvidence) -> Iterator[tuple[Cell, ...]]:
    """A system from elsewhere: the seeds that were added."""
    if arm.scored is not None:
        for seed, run_id in zip(arm.scored.seeds, arm.scored.run_ids, strict=True):
            ids = (run_id,)
            status = Cell("from elsewhere", ids)
            yield (
                *(Cell(arm.part.name), number(seed, "d", ids), Cell(MISSING)),
                *(*_score_cells(arm, run_id), status, Cell(run_id)),
            )


def _score_cells(arm: ArmEvidence, run_id: str) -> Iterator[Cell]:
    """The mean of every metric of one run, and its dialogues; dashes where it is not among the scored."""
    scored, ids = arm.scored, (run_id,)
    place = None if scored is None or run_id not in scored.run_ids else scored.run_ids.index(run_id)
    for key in ROUGE_TYPES:
        mean = None if scored is None or place is None else float(scored.scores[key][place].mean())
        yield number(mean, f".{METRICS[key].decimals}f", ids)
    yield number(None if scored is None or place is None else len(scored.example_ids), "d", ids)


def _status(arm: ArmEvidence, run: PlannedRun, *, scored: bool) -> str:
    record = arm.recorded.get(run.run_id)
    if record is None:
        return "not_run"
    if record.status != "completed" or scored:
        return record.status
    # Only the first completed repeat of a seed is scored.
    again = arm.scored is not None and run.seed in arm.scored.seeds
    return "completed, repeat of a scored run" if again else "completed, but left out"


# --- what was chosen ---


def hyperparameters_table(evidence: Evidence) -> Table:
    """One row a trained arm with what was frozen for it."""
    # Random weights have no score that anything was chosen by.
    frozen = None if evidence.random_weights else evidence.frozen
    select_by = None if frozen is None else METRICS[frozen.select_by]
    columns = (
        Column("arm"),
        Column("rank", numeric=True),
        Column("alpha", numeric=True),
        Column("learning rate", numeric=True),
        *(
            []
            if select_by is None
            else [Column(f"validation {select_by.label.removeprefix('validation ')}", select_by.unit, numeric=True)]
        ),
        Column("trials", numeric=True),
        Column("completed trials", numeric=True),
        Column("at an edge of the space"),
        Column("chosen by"),
    )
    chosen = [(arm.part.name, arm.choice) for arm in evidence.arms if arm.choice is not None]
    form = None if select_by is None else f".{select_by.decimals}f"
    rows = tuple(_choice_row(name, choice, form) for name, choice in chosen)
    caption = (
        "Hyperparameters frozen for each arm before any score of the test split was seen. Where a choice lies at an"
        " edge of the space, a better one may lie beyond."
    )
    return Table("hyperparameters", caption, columns, rows)


def _choice_row(name: str, choice: Choice, form: str | None) -> tuple[Cell, ...]:
    ids = () if choice.run_id is None else (choice.run_id,)
    return (
        Cell(name),
        number(choice.rank, "d", ids),
        number(choice.alpha, "d", ids),
        number(choice.learning_rate, ".3g", ids),
        *([] if form is None else [number(choice.score, form, ids)]),
        number(choice.trials, "d"),
        number(choice.completed_trials, "d", choice.ranking),
        Cell(", ".join(choice.edges).replace("_", " ") or "no"),
        Cell(choice.reason),
    )


# --- the estimands ---


def estimands_table(claims: Sequence[ClaimResult]) -> Table:
    """One row a claim, metric and estimand: tuned against tuned with its cross-check, then drop-in if any."""
    columns = (
        Column("claim"),
        Column("metric"),
        Column("estimand"),
        Column("difference", "points", numeric=True),
        Column("90% interval", "points", numeric=True),
        Column("90% interval (bootstrap)", "points", numeric=True),
        Column("95% interval", "points", numeric=True),
        Column("gain kept", "%", numeric=True),
        Column("gain kept, 95% interval", "%", numeric=True),
    )
    rows = tuple(row for claim in claims for item in claim.metrics for row in _estimand_rows(claim, item))
    caption = (
        "Candidate minus reference. The verdict is that of tuned against tuned; drop-in (the candidate at the "
        "reference's hyperparameters) is secondary. The bootstrap, which draws dialogues and the seeds of each arm "
        "anew, is a cross-check that decides nothing. Gain kept is the candidate's gain over the reference's zero-"
        "shot model as a share of the reference's, with Fieller's interval; a dash where that gain cannot be told "
        "from 0."
    )
    return Table("estimands", caption, columns, rows)


def _estimand_rows(claim: ClaimResult, item: MetricResult) -> Iterator[tuple[Cell, ...]]:
    ids, decimals = claim.run_ids, _decimals(item.metric)
    kept = claim.retention.get(item.metric)
    if item.comparison is not None:
        bootstrap = None if item.bootstrap is None else (item.bootstrap.low, item.bootstrap.high)
        meaningful = kept is not None and kept.reference_gain > 0.0
        share = kept.ratio if kept is not None and meaningful else None
        limits = kept.interval if kept is not None and meaningful else None
        yield (
            *(Cell(claim.name), Cell(label(item.metric)), Cell("tuned against tuned")),
            *_difference(item.comparison, bootstrap, decimals, ids),
            number(None if share is None else 100 * share, ".1f", ids),
            _interval(None if limits is None else (100 * limits.low, 100 * limits.high), ".1f", ids),
        )
    drop_in = claim.drop_in.get(item.metric)
    if isinstance(drop_in, Comparison):
        yield (
            *(Cell(claim.name), Cell(label(item.metric)), Cell("drop-in (secondary)")),
            *_difference(drop_in, None, decimals, claim.drop_in_run_ids),
            *(Cell(MISSING), Cell(MISSING)),
        )


def _difference(
    found: Comparison, bootstrap: tuple[float, float] | None, decimals: int, ids: tuple[str, ...]
) -> tuple[Cell, ...]:
    signed = f"+z.{decimals}f"
    return (
        number(found.difference, signed, ids),
        _interval(found.interval(TOST_CONFIDENCE), signed, ids),
        _interval(bootstrap, signed, ids),
        _interval(found.interval(0.95), signed, ids),
    )


def _interval(limits: tuple[float, float] | None, form: str, ids: tuple[str, ...]) -> Cell:
    return Cell(MISSING) if limits is None else Cell(f"[{limits[0]:{form}}, {limits[1]:{form}}]", ids)


# --- variances and power ---


def power_table(claims: Sequence[ClaimResult]) -> Table:
    """One row a claim and metric: what its scores vary with, and what the design could and would have to show."""
    columns = (
        Column("claim"),
        Column("metric"),
        Column("σ seed", "points", numeric=True),
        Column("σ residual", "points", numeric=True),
        Column("σ dialogue", "points", numeric=True),
        Column("degrees of freedom", numeric=True),
        Column("seeds of the candidate", numeric=True),
        Column("seeds of the reference", numeric=True),
        Column("dialogues", numeric=True),
        Column("margin", "points", numeric=True),
        Column("smallest margin", "points", numeric=True),
        Column("power", "%", numeric=True),
        Column("seeds needed", numeric=True),
        Column("dialogues needed", numeric=True),
    )
    rows = tuple(
        _power_row(claim, item, item.comparison)
        for claim in claims
        for item in claim.metrics
        if item.comparison is not None
    )
    caption = (
        "Standard deviations of the scores between training seeds, of what is left within a seed, and between "
        "dialogues in the difference of the arms. Power is the probability that a study of this design supports a "
        "true difference of 0, at the variances found. Seeds needed are those an arm for 80% of that on these "
        "dialogues; where no number of seeds is enough, the dialogues needed stand instead."
    )
    return Table("power", caption, columns, rows)


def _power_row(claim: ClaimResult, item: MetricResult, found: Comparison) -> tuple[Cell, ...]:
    ids, parts, needed = claim.run_ids, found.components, item.needed
    margin = None if claim.claim is None else claim.claim.margin
    return (
        Cell(claim.name),
        Cell(label(item.metric)),
        *(number(sigma, ".2f", ids) for sigma in (parts.sigma_seed, parts.sigma_residual, parts.sigma_item)),
        number(found.dof, ".1f", ids),
        number(found.seeds_candidate, "d", ids),
        number(found.seeds_reference, "d", ids),
        number(found.dialogues, "d", ids),
        number(margin, "g"),
        number(found.smallest_margin, f".{_decimals(item.metric)}f", ids),
        number(None if item.power is None else 100 * item.power, ".0f", ids),
        number(needed.advised if isinstance(needed, EnoughSeeds) else None, "d", ids),
        number(needed.dialogues if isinstance(needed, TooFewDialogues) else None, "d", ids),
    )


# --- sensitivity ---


def sensitivity_table(evidence: Evidence) -> Table:
    """One row a claim, metric and configuration of the candidate; a column for each of the reference's."""
    columns = (
        Column("claim"),
        Column("metric"),
        Column("candidate's configuration", numeric=True),
        *(Column(f"against the reference's {_ordinal(place)}", "points", numeric=True) for place in range(1, TOP + 1)),
        Column("spread", "points", numeric=True),
    )
    rows = tuple(row for found in sensitivities(evidence) for row in _sensitivity_rows(found))
    caption = (
        f"Candidate minus reference on the validation split, for each arm's {TOP} best configurations (1 is the one "
        "that was chosen). A configuration that was run again on more seeds has the mean over them. The spread is "
        "the largest minus the smallest difference of the metric: how far the comparison hangs on the choice. These"
        " scores chose the configurations and test nothing."
    )
    return Table("sensitivity", caption, columns, rows)


def _ordinal(place: int) -> str:
    return {1: "1st", 2: "2nd", 3: "3rd"}.get(place, f"{place}th")


def _sensitivity_rows(found: Sensitivity) -> Iterator[tuple[Cell, ...]]:
    signed = f"+z.{_decimals(found.metric)}f"
    everything = tuple(dict.fromkeys(run_id for pair in found.pairs for run_id in pair.run_ids))
    for place in dict.fromkeys(pair.candidate.rank_in_arm for pair in found.pairs):
        row: dict[int, Pair] = {
            pair.reference.rank_in_arm: pair for pair in found.pairs if pair.candidate.rank_in_arm == place
        }
        yield (
            Cell(found.claim),
            Cell(label(found.metric)),
            number(place, "d"),
            *(
                number(row[other].difference, signed, row[other].run_ids) if other in row else Cell(MISSING)
                for other in range(1, TOP + 1)
            ),
            number(found.spread, f".{_decimals(found.metric)}f", everything),
        )


# --- expected validation performance ---


def expected_table(evidence: Evidence) -> Table:
    """One row an arm and number of trials: 1, 2, 4, … up to the whole block."""
    curves = expected_curves(evidence)
    metric = None if evidence.frozen is None else METRICS[evidence.frozen.select_by]
    columns = (
        Column("arm"),
        Column("trials", numeric=True),
        Column(
            "expected best"
            if metric is None
            else f"expected best validation {metric.label.removeprefix('validation ')}",
            None if metric is None else metric.unit,
            numeric=True,
        ),
        Column("training", "s", numeric=True),
        Column("trials without a score", numeric=True),
    )
    rows = tuple(row for curve in curves for row in _expected_rows(curve, 2 if metric is None else metric.decimals))
    missing = [f"{curve.arm}: {curve.reason}" for curve in curves if curve.reason is not None and curve.run_ids]
    caption = (
        "The best validation score that so many trials reach on average, of the block of sets that every arm was given "
        "alike (Dodge et al. 2019), and their seconds of training. A trial that ended without a score counts as the "
        "worst score of any arm's trial; what the sampler proposed after the block is not counted."
    ) + (f" Without a curve: {'; '.join(missing)}." if missing else "")
    return Table("expected", caption, columns, rows)


def _expected_rows(curve: ExpectedCurve, decimals: int) -> Iterator[tuple[Cell, ...]]:
    last = len(curve.points)
    for point in curve.points:
        # A power of two, or the whole block, which is one unless points of the block came to one set.
        if point.trials & (point.trials - 1) == 0 or point.trials == last:
            yield (
                Cell(curve.arm),
                number(point.trials, "d"),
                number(point.score, f".{decimals}f", curve.run_ids),
                number(point.seconds, ".1f", curve.run_ids),
                number(curve.counted_as_worst, "d", curve.run_ids),
            )
