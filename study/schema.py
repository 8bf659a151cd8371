"""The grid file as a strict schema: what each key may hold. The border between text and values."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import PydanticCustomError

from study.arms import TARGET_GROUPS, Dtype, Method, Precision
from study.bytesize import memory_bytes
from study.datasets import FILE_TYPES, is_hub_split, parse_slice
from study.dialogues import SCENES
from study.faults import Place, place_of, problems_of
from study.metrics import CLAIMABLE, SELECTABLE
from study.models import is_hub_id
from study.problems import Problem, choices
from study.settings import Protocol


def _one_of(values: Sequence[str], more: str = "") -> AfterValidator:
    """A check that a text is one of `values`."""
    message = choices(values) + more

    def check(value: str) -> str:
        if value not in values:
            raise PydanticCustomError("one_of", "{message}", {"message": message})
        return value

    return AfterValidator(check)


def _written_as(pattern: str, words: str) -> AfterValidator:
    """A check of a text's form; `words` say which."""
    compiled = re.compile(pattern, re.ASCII)

    def check(value: str) -> str:
        if compiled.fullmatch(value) is None:
            raise PydanticCustomError("written_as", "{words}", {"words": words})
        return value

    return AfterValidator(check)


def _local_file(value: str) -> str:
    if PurePath(_sliced(value)).suffix not in FILE_TYPES:
        raise PydanticCustomError("local_file", "must be a .jsonl, .json or .csv file")
    return value


def _hub_split(value: str) -> str:
    if not is_hub_split(_sliced(value)):
        raise PydanticCustomError("hub_split", "no split's name, such as train or train[:400]")
    return value


def _sliced(value: str) -> str:
    try:
        return parse_slice(value).name
    except ValueError as error:
        raise PydanticCustomError("slice", "{why}", {"why": str(error)}) from None


def _hub_dataset(value: str) -> str:
    if not is_hub_id(value, owner_needed=False):
        raise PydanticCustomError("hub_dataset", "no id of a Hub dataset (owner/name)")
    return value


def _memory_size(value: object) -> object:
    # Also a bare number is told the form, rather than that it is no text.
    try:
        memory_bytes(value if isinstance(value, str) else "")
    except ValueError as error:
        raise PydanticCustomError("memory_size", "{why}", {"why": str(error)}) from None
    return value


Name = Annotated[
    str,
    _written_as(r"[A-Za-z0-9][\w-]{0,63}", "use letters, digits, - and _ (at most 64, a letter or digit first)"),
]
Text = Annotated[str, StringConstraints(min_length=1, max_length=4000)]
Revision = Annotated[str, _written_as(r"\w[\w./-]{0,199}", "no commit, tag or branch")]
ModuleName = Annotated[
    str,
    _written_as(
        r"[A-Za-z_]\w{0,99}", f"no module name such as q_proj (a group stands alone: {', '.join(TARGET_GROUPS)})"
    ),
]
Targets = Annotated[str, _one_of(TARGET_GROUPS, ", or a list of module names")]
LocalFile = Annotated[Text, AfterValidator(_local_file)]
HubSplit = Annotated[Text, AfterValidator(_hub_split)]
MemorySize = Annotated[str, BeforeValidator(_memory_size)]
Rank = Annotated[int, Field(ge=1, le=1024)]
Alpha = Annotated[int, Field(ge=1, le=4096)]
Rate = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]


class Section(BaseModel):
    """A mapping of the grid: unknown keys and wrong types are faults, never guessed at."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ModelSection(Section):
    id: Annotated[str, StringConstraints(min_length=1, max_length=300)]
    revision: Revision | None = None
    weights: Literal["pretrained", "random"] = "pretrained"


class LimitsSection(Section):
    train: Count | None = None
    validation: Count | None = None
    test: Count | None = None


class GeneratedSection(Section):
    seed: Seed = 0
    scenes: Annotated[list[Annotated[str, _one_of(SCENES)]], Field(min_length=1)] | None = None
    turns: Annotated[list[int], Field(min_length=2, max_length=2)] = [4, 14]
    references: Annotated[list[int], Field(min_length=2, max_length=2)] = [1, 3]


class FilesSection(Section):
    train: LocalFile
    validation: LocalFile
    test: LocalFile
    dialogue_field: Text = "dialogue"
    summary_fields: Annotated[list[Text], Field(min_length=1)] | None = None


class HubSection(FilesSection):
    id: Annotated[str, AfterValidator(_hub_dataset)]
    revision: Revision
    train: HubSplit = "train"
    validation: HubSplit = "validation"
    test: HubSplit = "test"


class DataSection(Section):
    source: Literal["generated", "local", "hub"]
    limits: LimitsSection = LimitsSection()
    overlap: Literal["refuse", "drop"] = "refuse"
    generated: GeneratedSection | None = None
    local: FilesSection | None = None
    hub: HubSection | None = None


class TemplateSection(Section):
    name: Name
    text: Text
    lead: Annotated[str, StringConstraints(max_length=400)] = " "
    tail: Annotated[str, StringConstraints(max_length=400)] = ""
    stops: list[Text] = []


class PromptSection(Section):
    template: Name | TemplateSection
    evaluation_template: Name | TemplateSection | None = None


class ArmFields(Section):
    """What an arm may state and an axis may vary."""

    precision: Precision | None = None
    method: Method = Method.LORA
    compute_dtype: Dtype | None = None
    double_quant: bool | None = None
    targets: Targets | Annotated[list[ModuleName], Field(min_length=1)] | None = None
    dropout: Share | None = None
    checkpointing: bool | None = None
    rank: Rank | None = None
    alpha: Alpha | None = None
    learning_rate: Rate | None = None


Axes = dict[str, Annotated[list[Any], Field(min_length=1)]]


class ArmSection(ArmFields):
    """`axes` are crossed; the lists of one group of `paired` advance together; `repeats` stands for training.repeats in
    this arm."""

    name: Name
    repeats: Annotated[int, Field(ge=1, le=100)] | None = None
    axes: Axes = {}
    paired: list[Annotated[Axes, Field(min_length=1)]] = []


class RangeSection(Section):
    low: Rate
    high: Rate
    scale: Literal["log", "linear"] = "log"


class SpaceSection(Section):
    rank: Rank | Annotated[list[Rank], Field(min_length=1)]
    alpha: Alpha | Annotated[list[Alpha], Field(min_length=1)]
    learning_rate: Rate | Annotated[list[Rate], Field(min_length=1)] | RangeSection


class PruningSection(Section):
    at: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1, max_length=16)] = [0.25, 0.5]
    startup: Annotated[int, Field(ge=1, le=4096)] = 4
    keep: Annotated[float, Field(gt=0, lt=1)] = 0.5


class TuneSection(Section):
    trials: Annotated[int, Field(ge=0, le=4096)]
    tpe_trials: Annotated[int, Field(ge=0, le=4096)] = 0
    seed: Seed = 0
    sobol_seed: Seed = 0
    select_by: Annotated[str, _one_of(SELECTABLE)] = "rougeL"
    reselect: Annotated[int, Field(ge=0, le=64)] = 0
    reselect_seeds: list[Seed] = []
    pruning: PruningSection | None = None
    share_graphs: bool = False
    unpacked_base: bool = False


class EngineSection(Section):
    completion_logits: bool = True
    pad_to_multiple: Annotated[int, Field(ge=1, le=1024)] = 8
    fused: bool = True
    pass_tokens: Annotated[int, Field(ge=16, le=10_000_000)] | None = None
    pool_steps: Annotated[int, Field(ge=1, le=100_000)] | None = None
    cuda_graphs: bool = True
    kernels: bool = True


class TrainingSection(Section):
    device: Literal["auto", "gpu", "cpu"] = "auto"
    steps: Count | None = None
    epochs: Annotated[float, Field(gt=0, le=1000)] | None = None
    batch_size: Count = 16
    micro_batch_size: Count | None = None
    max_tokens: Annotated[int, Field(ge=16, le=131_072)] = 1024
    optimizer: Literal["adamw", "paged_adamw_8bit"] = "adamw"
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_ratio: Share = 0.03
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    adapter_dtype: Literal["fp32", "compute"] = "fp32"
    dropout: Share = 0.0
    model_dropout: bool = False
    checkpointing: bool = False
    loss_on: Literal["completion", "all"] = "completion"
    length_grouping: bool = True
    engine: EngineSection = EngineSection()
    # A week bounds any run; a clock overflows on much larger numbers.
    timeout_minutes: Annotated[float, Field(gt=0, le=10_080)] | None = None
    repeats: Annotated[int, Field(ge=1, le=100)] = 1
    memory_limit: MemorySize | None = None
    save_adapters: Literal["none", "first-seed", "all"] = "first-seed"


class SamplingSection(Section):
    temperature: Annotated[float, Field(gt=0, le=10)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0, le=1_000_000)] = 50


class GenerationSection(Section):
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = 64
    batch_size: Count = 32
    dtype: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    sampling: SamplingSection | None = None
    static_cache: bool = True


class RetainSection(Section):
    retain: Annotated[float, Field(gt=0, lt=1)]


class ClaimSection(Section):
    name: Name | None = None
    candidate: Text
    reference: Text
    metrics: Annotated[list[Annotated[str, _one_of(CLAIMABLE)]], Field(min_length=1)] = ["rougeL"]
    margin: Annotated[float, Field(gt=0, le=100)] | RetainSection = 1.0
    # Two one-sided tests at 5% are the 90% interval; the verdict is defined by that and by nothing else.
    confidence: Annotated[float, Field(ge=0.9, le=0.9)] = 0.90
    drop_in: bool = False


class Parts(Section):
    """What of a grid file is sound: None where a top-level key has a fault or is missing, and in the place of an arm
    or a claim that has one."""

    study: Name | None = None
    protocol: Protocol | None = "paper"
    model: ModelSection | None = None
    data: DataSection | None = None
    prompt: PromptSection | None = None
    arms: tuple[ArmSection | None, ...] = ()
    space: SpaceSection | None = None
    tune: TuneSection | None = TuneSection(trials=0)
    seeds: tuple[Seed, ...] = ()
    training: TrainingSection | None = None
    generation: GenerationSection | None = GenerationSection()
    claims: tuple[ClaimSection | None, ...] = ()


class GridFile(Parts):
    """A whole grid file; the top-level keys stand in the order in which a study is told."""

    study: Name
    protocol: Protocol = "paper"
    model: ModelSection
    data: DataSection
    prompt: PromptSection
    arms: Annotated[tuple[ArmSection, ...], Field(min_length=1)]
    tune: TuneSection = TuneSection(trials=0)
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    training: TrainingSection
    generation: GenerationSection = GenerationSection()
    claims: tuple[ClaimSection, ...] = ()


@dataclass(frozen=True, slots=True)
class Checked:
    """A grid file held against the schema: its sound parts, and every fault that the schema sees."""

    parts: Parts
    problems: tuple[Problem, ...]


def check(data: dict[str, Any]) -> Checked:
    """Holds a grid's plain values against the schema; a faulty part leaves the others to be looked at further."""
    try:
        # As JSON: there strictness still takes a list for a tuple and a text for an enumeration.
        return Checked(GridFile.model_validate_json(json.dumps(data)), ())
    except ValidationError as error:
        places = {place_of(item, data) for item in error.errors(include_url=False)}
        sound = Parts.model_validate_json(json.dumps(_sound(data, places)))
        return Checked(sound, tuple(problems_of(error, GridFile, data)))


def _sound(data: dict[str, Any], faulty: Iterable[Place]) -> dict[str, Any]:
    """`data` without what stands at a faulty place: a member of `arms` or `claims` alone, or else a top-level key."""
    result = {key: value for key, value in data.items() if key in Parts.model_fields}
    for key, *rest in faulty:
        if key in ("arms", "claims") and rest:
            result[str(key)] = [None if index == rest[0] else item for index, item in enumerate(result[str(key)])]
        elif key in ("arms", "claims", "seeds"):
            result[str(key)] = []
        elif key in result:
            result[str(key)] = None
    return result
