"""What a study will take before it runs: peak memory of every arm, the cards that hold it, time and energy."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.forecast import Overhead, Pace, Rates
from harness.messages import Rehearsal, RehearsalCase, Rehearse
from harness.workers import Allowance, Silent, Template, WorkerDied
from results.layout import DEFAULT_RESULTS, StudyFolder
from results.schema import Record
from results.store import ResultsError, read_records
from study.arms import Arm
from study.grid import Grid

# Where the data are not here, a batch is taken to be as long as the grid allows, and a dialogue as DialogSum's are on
# average: 258 tokens with its summary, 12% of them the summary.
MEAN_TOKENS = 258
SUMMARY_SHARE = 0.12
# The longest time without an answer: a large model's rehearsal takes seconds.
PATIENCE_S = 300.0


@dataclass(frozen=True, slots=True)
class Prospect:
    """One arm: peaks of allocated memory while training (at the largest rank of its space) and evaluating, in bytes;
    seconds and joules of all its runs. None where it cannot be told; `error` says why memory cannot."""

    arm: Arm
    train_bytes: int | None = None
    evaluate_bytes: int | None = None
    batch: tuple[int, int, int] | None = None
    pace: Pace | None = None
    seconds: float | None = None
    joules: float | None = None
    error: str | None = None

    @property
    def peak_bytes(self) -> int | None:
        """The higher of the two peaks."""
        known = [size for size in (self.train_bytes, self.evaluate_bytes) if size is not None]
        return max(known, default=None)


@dataclass(frozen=True, slots=True)
class Prospects:
    """Every arm of a study, and what was reckoned with. `assumed`: the examples were not here to be measured."""

    arms: tuple[Prospect, ...]
    overhead: Overhead
    assumed: bool


@dataclass(frozen=True, slots=True)
class Workload:
    """What a study consists of: trainings on the validation and on the test split by arm, and the dialogues of each
    split (None where neither the grid nor the data tell)."""

    runs: Mapping[str, tuple[int, int]]
    sizes: Mapping[str, int | None]


def foresee(grid: Grid, work: Workload, train: str | None, results: Path, machine: str | None) -> Prospects:
    """The prospects of a study.

    Args:
        work: how many trainings each arm has, and the dialogues of each split.
        train: the training examples as JSON lines, None where they are not here.
        results: the folder whose studies tell of times; the reference studies that come with the project do too.
        machine: the GPU's name or `cpu`; None is any GPU.
    """
    records = list(known_records(results))
    rates = Rates.of(records)
    answers = _rehearsed(grid, train)
    arms = tuple(
        _prospect(grid, arm, work, answer, rates, machine) for arm, answer in zip(grid.arms, answers, strict=True)
    )
    here = [record for record in records if machine in (None, record.environment.get("gpu"))]
    return Prospects(arms, Overhead.of(here or records), assumed=not any(answer.tokens for answer in answers))


def known_records(results: Path) -> Iterator[Record]:
    """All readable records under a folder and of the project's own reference studies."""
    own = Path(__file__).resolve().parent.parent / DEFAULT_RESULTS
    folders = {path.parent.resolve() for path in results.glob("*/records.jsonl")}
    folders |= {path.parent.resolve() for path in own.glob("reference-*/records.jsonl")}
    for folder in sorted(folders):
        try:
            yield from read_records(StudyFolder(folder)).all
        except ResultsError:
            continue


def _rehearsed(grid: Grid, train: str | None) -> Sequence[Rehearsal]:
    """One answer an arm, in the grid's order."""
    cases = tuple(_case(grid, arm) for arm in grid.arms)
    answers = {number: Rehearsal(number, error="no answer") for number in range(len(cases))}
    with tempfile.TemporaryDirectory() as folder, _file(Path(folder), train) as train_file:
        worker = Template().start("cpu", Path(folder) / "forecast.log")
        try:
            worker.send(Rehearse(grid.model.id, grid.model.revision, None, grid.prompts, train_file, cases))
            waiting = len(cases)
            while waiting:
                event = worker.next_event(Allowance(PATIENCE_S))
                if isinstance(event, Rehearsal):
                    answers[event.case] = event
                    waiting -= 1
        except (WorkerDied, Silent) as error:
            answers = {
                number: answer if answer.error is None else Rehearsal(number, error=f"the rehearsal ended: {error}")
                for number, answer in answers.items()
            }
        finally:
            worker.end()
    return [answers[number] for number in range(len(cases))]


@contextmanager
def _file(folder: Path, train: str | None) -> Iterator[str | None]:
    if train is None:
        yield None
        return
    path = folder / "train.jsonl"
    path.write_text(train, encoding="utf-8")
    yield str(path)


def _case(grid: Grid, arm: Arm) -> RehearsalCase:
    training, generation = grid.training, grid.generation
    sizes = [size for split in ("validation", "test") if (size := grid.data.limit(split)) is not None]
    together = min([generation.batch_size, *([max(sizes)] if len(sizes) == 2 else [])])
    width, fresh = training.max_tokens - generation.max_new_tokens, generation.max_new_tokens
    evaluated = (together, width, fresh, round(SUMMARY_SHARE * together * training.max_tokens))
    static = bool(generation.static_cache) and generation.sampling is None
    if not arm.trains:
        return RehearsalCase(arm, None, None, grid.tune.seed, None, evaluated, static)
    # A pass of the longest dialogues that a grid allows; at least one of them.
    bound, together_trained = training.engine.pass_tokens, training.micro_batch_size
    while bound is not None and together_trained > 1 and together_trained * training.max_tokens > bound:
        together_trained = (together_trained + 1) // 2
    tokens = together_trained * training.max_tokens
    learned = tokens if training.loss_on == "all" or not training.engine.completion_logits else SUMMARY_SHARE * tokens
    batch = (together_trained, training.max_tokens, round(learned))
    return RehearsalCase(arm, max(grid.space_of(arm).rank), training, grid.tune.seed, batch, evaluated, static)


def _prospect(grid: Grid, arm: Arm, work: Workload, answer: Rehearsal, rates: Rates, machine: str | None) -> Prospect:
    if answer.error is not None:
        return Prospect(arm, error=answer.error)
    train_bytes = None if answer.parts is None else sum(answer.parts.values())
    found = Prospect(arm, train_bytes, answer.evaluate_bytes, answer.batch)
    if not arm.trains:
        return found
    base = (answer.total or 0) - (answer.trainable or 0)
    pace = rates.pace(arm, max(grid.space_of(arm).rank), grid.training, (grid.model.id, base), machine)
    if pace is None:
        return found
    seconds = _seconds(work, work.runs[arm.name], pace, answer.tokens or _tokens(grid, work))
    joules = None if pace.watts is None or seconds is None else seconds * pace.watts
    return Prospect(arm, train_bytes, answer.evaluate_bytes, answer.batch, pace, seconds, joules)


def _tokens(grid: Grid, work: Workload) -> int | None:
    """Real tokens of a training on data that are not here; None where their number is not known either."""
    training = grid.training
    if training.steps is not None:
        return training.steps * training.batch_size * MEAN_TOKENS
    examples = work.sizes["train"]
    return None if examples is None else round((training.epochs or 1.0) * examples * MEAN_TOKENS)


def _seconds(work: Workload, runs: tuple[int, int], pace: Pace, tokens: int | None) -> float | None:
    """Seconds of all trainings of an arm: those on the validation split share a process, the others have their own."""
    tuned, confirmed = runs
    validation, test = work.sizes["validation"], work.sizes["test"]
    if tokens is None or (tuned and validation is None) or (confirmed and test is None):
        return None
    tuning = pace.run_s(tokens, validation or 0) - pace.start_s
    return tuned * tuning + (pace.start_s if tuned else 0.0) + confirmed * pace.run_s(tokens, test or 0)


def totals(prospects: Iterable[Prospect]) -> tuple[float | None, float | None]:
    """Seconds and joules of all arms that train; None where one of them cannot be told."""
    trained = [prospect for prospect in prospects if prospect.arm.trains]
    seconds = [prospect.seconds for prospect in trained]
    joules = [prospect.joules for prospect in trained]
    return _sum(seconds), _sum(joules)


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None
