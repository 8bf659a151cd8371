"""From the sections of a grid file to values; what a section says wrongly is added to a list of problems."""

from study.arms import Dtype
from study.datasets import SPLITS, DataSpec, GeneratedData, HubData, LocalData
from study.dialogues import SCENES
from study.models import EMBEDDED, RANDOM, ModelSpec, is_hub_id
from study.problems import Problem, choices
from study.prompts import PLACEHOLDER, TEMPLATES, Prompts, PromptTemplate
from study.schema import (
    DataSection,
    FilesSection,
    GeneratedSection,
    GenerationSection,
    HubSection,
    ModelSection,
    PromptSection,
    PruningSection,
    RangeSection,
    SpaceSection,
    TemplateSection,
    TrainingSection,
    TuneSection,
)
from study.settings import EngineSettings, Generation, Protocol, Sampling, Training
from study.space import Interval, Pruning, Space, Tune

# Widest ranges that the generator of dialogues knows: turns a dialogue, references a dialogue.
_TURNS, _REFERENCES = (4, 14), (1, 3)


def read_model(section: ModelSection, problems: list[Problem]) -> ModelSpec:
    """Which model."""
    model = ModelSpec(section.id, section.revision, section.weights)
    if model.source == "random":
        if "weights" in section.model_fields_set and section.weights == "pretrained":
            problems.append(Problem.of("model.weights", section.weights, f"{section.id} has random weights"))
        model = ModelSpec(section.id, section.revision, "random")
    known = {"embedded": (EMBEDDED,), "random": RANDOM}.get(model.source)
    if known is not None and section.id not in known:
        problems.append(Problem.of("model.id", section.id, choices(known)))
    if model.source != "hub":
        if section.revision is not None:
            problems.append(Problem.of("model.revision", section.revision, "only a Hub model has a revision"))
        if model.source == "embedded" and section.weights == "random":
            problems.append(Problem.of("model.weights", "random", "the embedded model is pretrained"))
        return model
    if not is_hub_id(section.id):
        forms = ("a Hub id (owner/name)", "a folder (./…, /… or ~/…)", EMBEDDED, *RANDOM)
        problems.append(Problem.of("model.id", section.id, choices(forms)))
    elif section.revision is None:
        problems.append(Problem("model.revision", "missing: a Hub model needs a revision (a commit, tag or branch)"))
    if section.weights == "random":
        problems.append(Problem.of("model.weights", "random", "is for local folders: a Hub model is pretrained"))
    return model


def read_data(section: DataSection, problems: list[Problem]) -> DataSpec:
    """Where the dialogues come from. The sections of other sources may stand beside the one that is used."""
    for files in (section.local, section.hub):
        if files is not None:
            _check_fields(files, problems)
    source: GeneratedData | LocalData | HubData
    if section.source == "hub" and section.hub is not None:
        hub = section.hub
        source = HubData(hub.id, hub.revision, _splits(hub), hub.dialogue_field, _fields(hub))
    elif section.source == "local" and section.local is not None:
        source = LocalData(_splits(section.local), section.local.dialogue_field, _fields(section.local))
    else:
        if section.source != "generated":
            problems.append(Problem(f"data.{section.source}", f"missing: data.source is {section.source!r}"))
        source = _generated(section.generated or GeneratedSection(), problems)
    if section.source == "generated":
        problems += [
            Problem(f"data.limits.{split}", "missing: generated data need a number of dialogues")
            for split in SPLITS
            if getattr(section.limits, split) is None
        ]
    limits = tuple((split, getattr(section.limits, split)) for split in SPLITS)
    return DataSpec(source, limits, section.overlap)


def _splits(section: FilesSection) -> tuple[tuple[str, str], ...]:
    return (("train", section.train), ("validation", section.validation), ("test", section.test))


def _fields(section: FilesSection) -> tuple[str, ...] | None:
    return None if section.summary_fields is None else tuple(section.summary_fields)


def _check_fields(section: FilesSection, problems: list[Problem]) -> None:
    path = "data.hub.summary_fields" if isinstance(section, HubSection) else "data.local.summary_fields"
    fields = section.summary_fields or []
    if section.dialogue_field in fields:
        problems.append(Problem.of(path, fields, f"the dialogue, {section.dialogue_field!r}, is no summary"))
    if len(set(fields)) < len(fields):
        problems.append(Problem.of(path, fields, "holds a field twice"))


def _generated(section: GeneratedSection, problems: list[Problem]) -> GeneratedData:
    for name, value, (lowest, highest) in (
        ("turns", section.turns, _TURNS),
        ("references", section.references, _REFERENCES),
    ):
        if not lowest <= value[0] <= value[1] <= highest:
            message = f"two whole numbers, low first, within {lowest} to {highest}"
            problems.append(Problem.of(f"data.generated.{name}", value, message))
    scenes = SCENES if section.scenes is None else tuple(section.scenes)
    if len(set(scenes)) < len(scenes):
        problems.append(Problem.of("data.generated.scenes", scenes, "holds a scene twice"))
    turns, references = section.turns, section.references
    return GeneratedData(section.seed, scenes, (turns[0], turns[1]), (references[0], references[1]))


def read_prompts(section: PromptSection, protocol: Protocol | None, problems: list[Problem]) -> Prompts:
    """The templates of training and evaluation: one and the same, but for the seed protocol."""
    training = _template(section.template, "prompt.template", problems)
    if section.evaluation_template is None:
        return Prompts(training, training)
    if protocol == "paper":
        message = "leave it out: training and evaluation share one prompt (protocol: seed excepts)"
        problems.append(Problem("prompt.evaluation_template", message))
    return Prompts(training, _template(section.evaluation_template, "prompt.evaluation_template", problems))


def _template(section: str | TemplateSection, path: str, problems: list[Problem]) -> PromptTemplate:
    fallback = next(iter(TEMPLATES.values()))
    if isinstance(section, str):
        if section not in TEMPLATES:
            message = f"{choices(TEMPLATES)}, or a mapping of name, text, lead, tail and stops"
            problems.append(Problem.of(path, section, message))
        return TEMPLATES.get(section, fallback)
    if section.text.count(PLACEHOLDER) != 1:
        problems.append(Problem.of(f"{path}.text", section.text, f"must hold {PLACEHOLDER} exactly once"))
        return fallback
    return PromptTemplate(section.name, section.text, section.lead, section.tail, tuple(section.stops))


def read_space(section: SpaceSection, problems: list[Problem]) -> Space:
    """The search space; one value stands for a choice of one."""
    rate = section.learning_rate
    rates: Interval | tuple[float, ...]
    if isinstance(rate, RangeSection):
        if rate.low >= rate.high:
            problems.append(Problem("space.learning_rate", f"low {rate.low:g} must be below high {rate.high:g}"))
        rates = Interval(rate.low, rate.high, rate.scale)
    else:
        rates = tuple(rate) if isinstance(rate, list) else (rate,)
    rank = tuple(section.rank) if isinstance(section.rank, list) else (section.rank,)
    alpha = tuple(section.alpha) if isinstance(section.alpha, list) else (section.alpha,)
    for name, values in (("rank", rank), ("alpha", alpha), ("learning_rate", rates)):
        if isinstance(values, tuple) and len(set(values)) < len(values):
            problems.append(Problem.of(f"space.{name}", values, "holds a value twice"))
    return Space(rank, alpha, rates)


def read_tune(section: TuneSection, problems: list[Problem]) -> Tune:
    """How hyperparameters are looked for."""
    if section.trials & (section.trials - 1):
        lower = 1 << (section.trials.bit_length() - 1)
        message = f"no power of two (a Sobol block): {choices((lower, 2 * lower))}"
        problems.append(Problem.of("tune.trials", section.trials, message))
    if section.tpe_trials and not section.trials:
        problems.append(
            Problem.of("tune.tpe_trials", section.tpe_trials, "follows a block of 0 trials: set tune.trials")
        )
    again = section.reselect_seeds
    if section.reselect and not again:
        problems.append(Problem("tune.reselect_seeds", "missing: reselect needs at least one seed"))
    if len({section.seed, *again}) < 1 + len(again):
        message = f"the seeds of reselect differ from each other and from tune.seed {section.seed}"
        problems.append(Problem.of("tune.reselect_seeds", again, message))
    return Tune(
        trials=section.trials,
        tpe_trials=section.tpe_trials,
        seed=section.seed,
        sobol_seed=section.sobol_seed,
        select_by=section.select_by,
        reselect=section.reselect,
        reselect_seeds=tuple(again),
        pruning=None if section.pruning is None else _pruning(section.pruning, section, problems),
        share_graphs=section.share_graphs,
        unpacked_base=section.unpacked_base,
    )


def _pruning(section: PruningSection, tune: TuneSection, problems: list[Problem]) -> Pruning:
    if section.at != sorted(set(section.at)):
        problems.append(Problem.of("tune.pruning.at", section.at, "shares of a trial's steps, ascending, each once"))
    trials = tune.trials + tune.tpe_trials
    if section.startup >= trials:
        message = f"leaves none to prune: an arm has {trials} trials (tune.trials and tune.tpe_trials)"
        problems.append(Problem.of("tune.pruning.startup", section.startup, message))
    return Pruning(tuple(section.at), section.startup, section.keep)


def read_training(section: TrainingSection, protocol: Protocol | None, problems: list[Problem]) -> Training:
    """How every arm is trained."""
    if (section.steps is None) == (section.epochs is None):
        given = "both are given" if section.steps is not None else "neither is given"
        problems.append(Problem("training", f"exactly one of steps and epochs is needed: {given}"))
    micro = section.batch_size if section.micro_batch_size is None else section.micro_batch_size
    if section.batch_size % micro:
        message = f"does not divide training.batch_size {section.batch_size}"
        problems.append(Problem.of("training.micro_batch_size", micro, message))
    if section.optimizer == "paged_adamw_8bit" and protocol == "paper":
        message = "moves memory out of the allocator's sight (protocol: seed excepts): " + choices(("adamw",))
        problems.append(Problem.of("training.optimizer", section.optimizer, message))
    return Training(
        steps=section.steps,
        epochs=section.epochs,
        batch_size=section.batch_size,
        micro_batch_size=micro,
        max_tokens=section.max_tokens,
        optimizer=section.optimizer,
        schedule=section.schedule,
        warmup_ratio=section.warmup_ratio,
        weight_decay=section.weight_decay,
        max_grad_norm=section.max_grad_norm,
        adapter_dtype=section.adapter_dtype,
        model_dropout=section.model_dropout,
        loss_on=section.loss_on,
        length_grouping=section.length_grouping,
        engine=EngineSettings(
            section.engine.completion_logits,
            section.engine.pad_to_multiple,
            fused=section.engine.fused or None,
            pass_tokens=section.engine.pass_tokens,
            pool_steps=section.engine.pool_steps,
            cuda_graphs=section.engine.cuda_graphs or None,
            kernels=section.engine.kernels or None,
        ),
    )


def read_generation(section: GenerationSection, protocol: Protocol | None, problems: list[Problem]) -> Generation:
    """How every arm writes its summaries."""
    sampling = section.sampling
    if sampling is not None and protocol == "paper":
        problems.append(Problem("generation.sampling", "leave it out: decoding is greedy (protocol: seed excepts)"))
    return Generation(
        max_new_tokens=section.max_new_tokens,
        batch_size=section.batch_size,
        dtype=None if section.dtype == "auto" else Dtype(section.dtype),
        sampling=None if sampling is None else Sampling(sampling.temperature, sampling.top_p, sampling.top_k),
        static_cache=section.static_cache or None,
    )
