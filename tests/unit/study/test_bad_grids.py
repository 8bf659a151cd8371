"""What is said of grids that cannot be used: every fault at once, each on one line with its path, value and choices."""

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from study.grid import Grid, load_grid
from study.problems import GridError
from study.schema import GridFile
from study.yaml_text import parse_yaml
from tests.unit.study.small_grid import SMALL, faults

PRECISIONS = "choose from fp32, fp16, bf16, int8, nf4, fp4"
SIZES = "write a number with its unit: 8GiB, 24GB or 512MiB"
NAMES = "use letters, digits, - and _ (at most 64, a letter or digit first)"

# What is set in the small grid, and the one fault that it is then told to have. A line that ends in … goes on.
CHANGES = {
    # top level
    "extra=1": "extra: unknown key: choose from study, protocol, model, data, prompt, arms, space, tune, …",
    "study=a/b": f"study 'a/b': {NAMES}",
    'study="a\\nb"': f"study 'a\\nb': {NAMES}",
    "study=2024": "study 2024: must be text",
    "protocol=draft": "protocol 'draft': choose from paper, seed",
    # model
    "model=null": "model null: must be a mapping of keys",
    "model=[1]": "model [1]: must be a mapping of keys",
    "model.id=phi2": "model.id 'phi2': choose from a Hub id (owner/name), a folder (./…, /… or ~/…), embedded/smollm2…",
    "model.id=random/gpt": "model.id 'random/gpt': choose from random/tiny-phi, random/phi-2",
    "model.id=microsoft/phi-2": "model.revision: missing: a Hub model needs a revision (a commit, tag or branch)",
    "model={id: microsoft/phi-2, revision: a b}": "model.revision 'a b': no commit, tag or branch",
    "model={id: a/b, revision: main, weights: random}": (
        "model.weights 'random': is for local folders: a Hub model is pretrained"
    ),
    "model.revision=main": "model.revision 'main': only a Hub model has a revision",
    "model.weights=pretrained": "model.weights 'pretrained': random/tiny-phi has random weights",
    # data
    "data.source=web": "data.source 'web': choose from generated, local, hub",
    "data.source=hub": "data.hub: missing: data.source is 'hub'",
    "data.limits.test=0": "data.limits.test 0: must be at least 1",
    "data.limits.tset=4": "data.limits.tset: unknown key (did you mean 'test'?): choose from train, validation, test",
    "data.limits={train: 8, validation: 4}": "data.limits.test: missing: generated data need a number of dialogues",
    "data.generated={turns: [9, 5]}": "data.generated.turns [9, 5]: two whole numbers, low first, within 4 to 14",
    "data.generated={turns: [9]}": "data.generated.turns [9]: needs at least 2 values",
    "data.generated={references: [0, 3]}": (
        "data.generated.references [0, 3]: two whole numbers, low first, within 1 to 3"
    ),
    "data.generated={scenes: [moon]}": "data.generated.scenes[0] 'moon': choose from appointment, shopping, …",
    "data.generated={scenes: [work, work]}": "data.generated.scenes ['work', 'work']: holds a scene twice",
    "data.local={train: a.txt, validation: b.csv, test: c.csv}": (
        "data.local.train 'a.txt': must be a .jsonl, .json or .csv file"
    ),
    'data.local={train: a.csv, validation: "b.csv[:x]", test: c.csv}': (
        "data.local.validation 'b.csv[:x]': no name with an optional slice such as dev.jsonl[:400]"
    ),
    'data.local={train: a.csv, validation: b.csv, test: "c.csv[5:5]"}': (
        "data.local.test 'c.csv[5:5]': the slice holds no rows"
    ),
    "data.local={train: a.csv, validation: b.csv, test: c.csv, summary_fields: [s, dialogue]}": (
        "data.local.summary_fields ['s', 'dialogue']: the dialogue, 'dialogue', is no summary"
    ),
    "data.local={train: a.csv, validation: b.csv, test: c.csv, summary_fields: [s, s]}": (
        "data.local.summary_fields ['s', 's']: holds a field twice"
    ),
    "data.hub={id: ../x, revision: main}": "data.hub.id '../x': no id of a Hub dataset (owner/name)",
    "data.hub={id: a/b, revision: main, test: 'a[:1]+b'}": (
        "data.hub.test 'a[:1]+b': no split's name, such as train or train[:400]"
    ),
    "data.hub={id: a/b}": "data.hub.revision: missing: this key is required",
    # prompt
    "prompt.template=sumarize": (
        "prompt.template 'sumarize': choose from summarize, instruct, seed-train, seed-test, "
        "or a mapping of name, text, lead, tail and stops"
    ),
    "prompt.template=[summarize]": "prompt.template ['summarize']: must be text or a mapping of keys",
    "prompt.template={name: own, text: no place}": (
        "prompt.template.text 'no place': must hold {dialogue} exactly once"
    ),
    "prompt.template={name: own, text: '{dialogue}', tial: x}": (
        "prompt.template.tial: unknown key (did you mean 'tail'?): choose from name, text, lead, tail, stops"
    ),
    "prompt.evaluation_template=instruct": (
        "prompt.evaluation_template: leave it out: training and evaluation share one prompt (protocol: seed excepts)"
    ),
    # arms
    "arms=[]": "arms []: needs at least 1 value",
    "arms={lora: 1}": "arms {lora: 1}: must be a list",
    "arms.1=null": "arms[1] null: must be a mapping of keys",
    "arms.lora=bf16": "arms[1] 'bf16': must be a mapping of keys",
    "arms.lora={name: lora}": "arms[1] (lora).precision: missing: an arm needs it, here or as an axis",
    "arms.qlora.precision=int3": f"arms[2] (qlora).precision 'int3': {PRECISIONS}",
    "arms.lora.method=qlora": "arms[1] (lora).method 'qlora': choose from lora, rslora, dora, none",
    "arms.lora.learning_rate=2": "arms[1] (lora).learning_rate 2: must be at most 1",
    "arms.lora.targets=qproj": (
        "arms[1] (lora).targets 'qproj': choose from all-linear, attention, mlp, or a list of module names"
    ),
    "arms.lora.targets=[q_proj, q_proj]": "arms[1] (lora).targets ['q_proj', 'q_proj']: holds a module twice",
    "arms.lora.targets=[q_proj, o_proj]": (
        "arms[1] (lora).targets: no linear layer 'o_proj': choose from q_proj, k_proj, v_proj, dense, fc1, fc2"
    ),
    "arms.lora.double_quant=true": (
        "arms[1] (lora).double_quant true: needs a 4-bit precision, not bf16: choose from nf4, fp4"
    ),
    "arms.lora.compute_dtype=fp16": (
        "arms[1] (lora).compute_dtype 'fp16': differs from the unquantised precision bf16: leave it out"
    ),
    "arms.lora={name: lora, precision: int8, compute_dtype: fp32}": (
        "arms[1] (lora).compute_dtype 'fp32': for int8: choose from bf16, fp16"
    ),
    "arms.zero-shot.rank=4": "arms[0] (zero-shot).rank 4: on a zero-shot arm (method none), which trains nothing",
    "arms.zero-shot.targets=mlp": (
        "arms[0] (zero-shot).targets 'mlp': on a zero-shot arm (method none), which trains nothing"
    ),
    "arms.zero-shot.repeats=3": "arms[0] (zero-shot).repeats 3: on a zero-shot arm (method none), which trains nothing",
    "arms.lora.repeats=0": "arms[1] (lora).repeats 0: must be at least 1",
    "arms.lora.repeats=101": "arms[1] (lora).repeats 101: must be at most 100",
    "arms.lora.repeats=often": "arms[1] (lora).repeats 'often': must be a whole number",
    "arms.lora.axes={repeats: [1, 2]}": "arms[1] (lora).axes.repeats: unknown key: choose from precision, method, …",
    "arms.zero-shot.name=lora": "arms[1] (lora).name 'lora': is the name of another arm",
    "arms.zero-shot={name: twin, precision: bf16}": (
        "arms[1] (lora): 'lora' is the same arm as 'twin' under another name"
    ),
    # axes
    "arms.lora.axes={rank: []}": "arms[1] (lora).axes.rank []: needs at least 1 value",
    "arms.lora.axes={rank: 4}": "arms[1] (lora).axes.rank 4: must be a list",
    "arms.lora.axes=[rank]": "arms[1] (lora).axes ['rank']: must be a mapping of keys",
    "arms.lora.axes={name: [a, b]}": "arms[1] (lora).axes.name: unknown key: choose from precision, method, …",
    "arms.lora.axes={rnak: [4]}": "arms[1] (lora).axes.rnak: unknown key (did you mean 'rank'?): choose from …",
    "arms.2={name: qlora, axes: {precision: [nf4, int3]}}": f"arms[2] (qlora).axes.precision[1] 'int3': {PRECISIONS}",
    "arms.lora.paired=[{rank: [4], alpha: [0]}]": "arms[1] (lora).paired[0].alpha[0] 0: must be at least 1",
    "arms.lora.axes={targets: [attention, [q_proj, a b]]}": (
        "arms[1] (lora).axes.targets[1][1] 'a b': no module name such as q_proj (a group stands alone: …"
    ),
    "arms.lora.axes={rank: [4, 8, 4]}": "arms[1] (lora).axes.rank [4, 8, 4]: holds a value twice",
    "arms.lora.axes={rank: [4, null]}": "arms[1] (lora).axes.rank[1] null: is no value of an axis: write what is meant",
    "arms.qlora.double_quant=true": (
        "arms[2] (qlora).axes.double_quant: arms[2] (qlora).double_quant states it too: leave one of them out"
    ),
    "arms.qlora.paired=[{double_quant: [true]}]": (
        "arms[2] (qlora).paired[0].double_quant: this arm has the axis twice"
    ),
    "arms.lora.paired=[{}]": "arms[1] (lora).paired[0] {}: needs at least 1 value",
    "arms.lora.paired=[{rank: [4, 8], alpha: [8]}]": (
        "arms[1] (lora).paired[0]: paired axes need equal lengths: 'rank' has 2, 'alpha' has 1"
    ),
    # space
    "space=null": "space: missing: trained arms need rank, alpha and learning_rate",
    "space.momentum=0.9": "space.momentum: unknown key: choose from rank, alpha, learning_rate",
    "space.rank=0": "space.rank 0: must be at least 1",
    "space.rank=x": "space.rank 'x': must be a whole number or a list",
    "space.rank=[4, x]": "space.rank[1] 'x': must be a whole number",
    "space.rank=[4, 4]": "space.rank [4, 4]: holds a value twice",
    "space.alpha=[]": "space.alpha []: needs at least 1 value",
    "space.learning_rate=fast": "space.learning_rate 'fast': must be a number or a list or a mapping of keys",
    "space.learning_rate={low: 1e-5}": "space.learning_rate.high: missing: this key is required",
    "space.learning_rate={low: 1e-2, high: 1e-4}": "space.learning_rate: low 0.01 must be below high 0.0001",
    # tune and seeds
    "tune=null": "tune null: must be a mapping of keys",
    "tune.trials=3": "tune.trials 3: no power of two (a Sobol block): choose from 2, 4",
    "tune.trials=0": "tune.trials 0: 'lora' has hyperparameters to choose: give trials or single values",
    "tune.select_by=bleu": "tune.select_by 'bleu': choose from rouge1, rouge2, rougeL, rougeLsum, validation_loss",
    "tune.reselect=2": "tune.reselect_seeds: missing: reselect needs at least one seed",
    "tune.reselect_seeds=[1, 1]": (
        "tune.reselect_seeds [1, 1]: the seeds of reselect differ from each other and from tune.seed 0"
    ),
    "tune.pruning=true": "tune.pruning true: must be a mapping of keys",
    "tune.pruning={start: 2}": "tune.pruning.start: unknown key (did you mean 'startup'?): choose from …",
    "tune.pruning={startup: 2, at: []}": "tune.pruning.at []: needs at least 1 value",
    "tune.pruning={startup: 2, at: 0.5}": "tune.pruning.at 0.5: must be a list",
    "tune.pruning={startup: 2, at: [0.5, 1]}": "tune.pruning.at[1] 1: must be below 1",
    "tune.pruning={startup: 2, at: [0.5, 0.25]}": (
        "tune.pruning.at [0.5, 0.25]: shares of a trial's steps, ascending, each once"
    ),
    "tune.pruning={startup: 2, keep: 0}": "tune.pruning.keep 0: must be above 0",
    "tune.pruning={startup: 0}": "tune.pruning.startup 0: must be at least 1",
    "tune.pruning={}": (
        "tune.pruning.startup 4: leaves none to prune: an arm has 4 trials (tune.trials and tune.tpe_trials)"
    ),
    "tune.share_graphs=3": "tune.share_graphs 3: must be true or false",
    "tune.share_graphs=null": "tune.share_graphs null: must be true or false",
    "tune.unpacked_base=nf4": "tune.unpacked_base 'nf4': must be true or false",
    "tune.share_graph=true": "tune.share_graph: unknown key (did you mean 'share_graphs'?): choose from …",
    "seeds=[]": "seeds []: needs at least 1 value",
    "seeds=11": "seeds 11: must be a list",
    "seeds=[11, 1.5]": "seeds[1] 1.5: must be a whole number",
    "seeds=[true]": "seeds[0] true: must be a whole number",
    "seeds=[-1]": "seeds[0] -1: must be at least 0",
    "seeds=[99999999999999999999]": "seeds[0] 99999999999999999999: must be at most 2147483647",
    "seeds=[11, 11]": "seeds [11]: each seed stands there once",
    "seeds=[0, 11]": "seeds [0]: tuning has these seeds too (tune.seed, tune.reselect_seeds): confirm needs fresh ones",
    # training and generation
    "training.stpes=4": "training.stpes: unknown key (did you mean 'steps'?): choose from device, steps, …",
    "training.steps=many": "training.steps 'many': must be a whole number",
    "training.steps=null": "training: exactly one of steps and epochs is needed: neither is given",
    "training.epochs=1": "training: exactly one of steps and epochs is needed: both are given",
    "training.micro_batch_size=3": "training.micro_batch_size 3: does not divide training.batch_size 4",
    "training.optimizer=paged_adamw_8bit": (
        "training.optimizer 'paged_adamw_8bit': moves memory out of the allocator's sight (protocol: seed excepts): "
        "choose from adamw"
    ),
    "training.dropout=.nan": "training.dropout '.nan': must be a number",
    "training.warmup_ratio=1": "training.warmup_ratio 1: must be below 1",
    "training.engine.turbo=1": "training.engine.turbo: unknown key: choose from completion_logits, pad_to_multiple, …",
    "training.memory_limit=8G": f"training.memory_limit '8G': {SIZES}",
    "training.memory_limit=8TB": f"training.memory_limit '8TB': {SIZES}",
    "training.memory_limit=0GiB": f"training.memory_limit '0GiB': {SIZES}",
    "training.memory_limit=-8GiB": f"training.memory_limit '-8GiB': {SIZES}",
    "training.memory_limit=''": f"training.memory_limit '': {SIZES}",
    # A bare number is told the form too.
    "training.memory_limit=8": f"training.memory_limit 8: {SIZES}",
    "training.memory_limit=8.5": f"training.memory_limit 8.5: {SIZES}",
    "training.memory_limit=true": f"training.memory_limit true: {SIZES}",
    "training.memory_limit=[8GiB]": f"training.memory_limit ['8GiB']: {SIZES}",
    "training.repeats=0": "training.repeats 0: must be at least 1",
    "generation.sampling={temperature: 0.7}": (
        "generation.sampling: leave it out: decoding is greedy (protocol: seed excepts)"
    ),
    "generation.max_new_tokens=0": "generation.max_new_tokens 0: must be at least 1",
    # claims
    "claims=none": "claims 'none': must be a list",
    "claims.0.candidate=qlora2": (
        "claims[0].candidate 'qlora2': is no arm of this grid: "
        "choose from zero-shot, lora, qlora, qlora@double_quant=true, qlora@double_quant=false"
    ),
    "claims.0.candidate=lora": "claims[0].reference 'lora': is the candidate 'lora' itself",
    "claims.0.metrics=[bleu]": "claims[0].metrics[0] 'bleu': choose from rouge1, rouge2, rougeL, rougeLsum",
    "claims.0.metrics=[rouge1, rouge1]": "claims[0].metrics ['rouge1', 'rouge1']: holds a metric twice",
    "claims.0.margin=0": "claims[0].margin 0: must be above 0",
    "claims.0.margin=big": "claims[0].margin 'big': must be a number or a mapping of keys",
    "claims.0.margin={retain: 2}": "claims[0].margin.retain 2: must be below 1",
    "claims.0={candidate: zero-shot, reference: lora, drop_in: true}": (
        "claims[0].drop_in: candidate 'zero-shot' is zero-shot and has no hyperparameters"
    ),
    'claims.0={candidate: lora, reference: "qlora@double_quant=true", margin: {retain: 0.9}}': (
        "claims[0].margin: retain needs a zero-shot arm (method none) on the base of 'qlora@double_quant=true'"
    ),
    "claims=[{name: a, candidate: lora, reference: zero-shot}, {name: a, candidate: lora, reference: zero-shot}]": (
        "claims[1] (a).name 'a': is the name of another claim"
    ),
}

# Text put in the place of the line `tune: {trials: 4}`, and the fault that it is.
TEXTS = {
    "a tag": (
        "tune: {trials: !!int 4}",
        "tune.trials 'tag:yaml.org,2002:int': YAML tags are not allowed: leave it out",
    ),
    "a tag that lies": (
        "tune: {trials: !!int many}",
        "tune.trials 'tag:yaml.org,2002:int': YAML tags are not allowed…",
    ),
    "a tag that calls": ("tune: !!python/object/apply:os.system [id]", "tune 'tag:yaml.org,2002:python/object/apply…"),
    "a tagged key": ("tune: {!!str trials: 4}", "tune.trials 'tag:yaml.org,2002:str': YAML tags are not allowed…"),
    "an alias": ("tune: {trials: &a 4, seed: *a}", "tune.seed: YAML aliases (*name) are not allowed: write it out"),
    "an alias of itself": ("tune: &a {trials: 4, seed: *a}", "tune.seed: YAML aliases (*name) are not allowed…"),
    "a merge key": ("tune: {trials: 4, <<: {seed: 1}}", "tune.<<: unknown key: choose from trials, tpe_trials, …"),
    "a key twice": ("tune: {trials: 4, trials: 8}", "tune.trials: duplicate key (again on line 17)"),
    "a section twice": ("tune: {trials: 4}\nmodel: {id: random/phi-2}", "model: duplicate key (again on line 18)"),
    "a key that is a list": ("tune: {trials: 4, [a, b]: 1}", "tune: a key must be text (line 17)"),
    "a key that is a number": ("tune: {trials: 4, 1: 1}", "tune.1: unknown key: choose from trials, tpe_trials, …"),
    "a key that is null": ("tune: {trials: 4, null: 1}", "tune.null: unknown key: choose from trials, tpe_trials, …"),
    "a huge exponent": ("tune: {trials: 1e999}", "tune.trials '1e999': too large for a number"),
    "a huge integer": (f"tune: {{trials: {'9' * 5000}}}", f"tune.trials '{'9' * 58}…"),
    "digits of another script": ("tune: {trials: 1\u0664}", "tune.trials '1\u0664': must be a whole number"),
    "an octal number": ("tune: {trials: 0o4}", "tune.trials '0o4': must be a whole number"),
    "a terminal escape": (
        'tune: {trials: 4, select_by: "a\\e[2J"}',
        "tune.select_by 'a\\x1b[2J': the character '\\x1b' …",
    ),
    "a terminal escape as key": (
        'tune: {trials: 4, "\\e[2J": 1}',
        "tune.\\x1b[2J '\\x1b[2J': the character '\\x1b' is …",
    ),
    "a lone surrogate": (
        'tune: {trials: 4, select_by: "\\ud800"}',
        "tune.select_by '\\ud800': the character '\\ud800' …",
    ),
    "a lone surrogate as key": (
        'tune: {trials: 4, "\\ud800": 1}',
        "tune.\\ud800 '\\ud800': the character '\\ud800' is …",
    ),
    "a key with line breaks": ('tune: {trials: 4, "a\\nb": 1}', "tune.a\\nb: unknown key: choose from trials, …"),
    "10 kB of text": (f"tune: {{trials: {'x' * 10_000}}}", f"tune.trials '{'x' * 58}…: must be a whole number"),
    "a key of 10 kB": (f"tune: {{trials: 4, ? {'x' * 10_000} : 1}}", f"tune.{'x' * 59}…: unknown key: choose from …"),
}

# Whole texts that hold no grid at all.
NO_GRIDS = {
    "nothing": ("", "a grid is a mapping of keys: choose from study, protocol, model, …"),
    "a comment alone": ("# to do", "null: a grid is a mapping of keys: choose from study, …"),
    "a list": ("- study: small", "[{study: 'small'}]: a grid is a mapping of keys: choose from study, …"),
    "a scalar": ("small", "'small': a grid is a mapping of keys: choose from study, …"),
    "no YAML": ("study: [small", "not YAML: line 1, column 14: expected ',' or ']', but got '<stream end>'"),
    "an unknown alias": ("study: *a", "not YAML: line 1, column 8: found undefined alias 'a'"),
    "two documents": ("study: a\n---\nstudy: b", "not YAML: line 2, column 1: but found another document"),
    "a raw escape": ("study: a\nmodel: \x1b[2J", "not YAML: line 2: the character '\\x1b' is not allowed"),
    "deep nesting": ("study: " + "[" * 5000, "line 1 is nested deeper than 12 levels"),
    "deep nesting of blocks": ("- " * 5000 + "a", "line 1 is nested deeper than 12 levels"),
    "many values": ("study: [" + "a," * 30_000 + "]", "line 1: a grid has at most 20000 values"),
    "a long text": ("study: " + "a" * 200_000, "200007 characters: a grid has at most 200000"),
    "a bomb of aliases": (
        "a: &a [x, x]\n" + "".join(f"{n}: &{n} [*{p}, *{p}]\n" for p, n in zip("abcdefg", "bcdefgh", strict=True)),
        "b[0]: YAML aliases (*name) are not allowed: write it out",
    ),
}


def is_told(expected: str, line: str) -> bool:
    return line.startswith(expected[:-1].rstrip()) if expected.endswith("…") else line == expected


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_spoils_the_grid_is_told_with_its_path_and_value(change: str) -> None:
    (line,) = faults(SMALL, change)
    assert is_told(CHANGES[change], line), line


@pytest.mark.parametrize("kind", TEXTS)
def test_yaml_that_a_grid_must_not_hold_is_told_where_it_stands(kind: str) -> None:
    text, expected = TEXTS[kind]
    (line,) = faults(SMALL.replace("tune: {trials: 4}", text))
    assert is_told(expected, line), line


@pytest.mark.parametrize("kind", NO_GRIDS)
def test_a_text_that_is_no_grid_is_refused(kind: str) -> None:
    text, expected = NO_GRIDS[kind]
    line, *_ = faults(text)
    assert is_told(expected, line), line


def test_the_small_grid_itself_has_no_fault() -> None:
    assert faults(SMALL) == []


def test_every_missing_key_of_the_top_level_is_told() -> None:
    required = {name for name, field in GridFile.model_fields.items() if field.is_required()}
    assert set(faults("tune: {trials: 2}")) == {f"{name}: missing: this key is required" for name in required}


def test_many_faults_are_told_at_once_in_the_order_of_the_file() -> None:
    text = SMALL.replace("seeds: [11, 12, 13]", "seeds: [11, 11]\nseeds: [1]").replace("steps: 4", "steps: !!int 4")
    told = faults(
        text,
        "study=a b",
        "data.source=web",
        "arms.zero-shot.rank=4",
        "arms.lora.dropout=1",
        "arms.qlora.axes={precision: [nf4, int3], rnak: [4]}",
        "space.rank=[]",
        "tune.trials=3",
        "training.batch_size=0",
        "generation.sampling={temperature: 1}",
        "claims=[{candidate: qlora, reference: lora}, {candidate: nobody, reference: lora, metrics: [rouge1, rouge1]}]",
        "floors=true",
    )
    expected = [
        "floors: unknown key: choose from …",
        f"study 'a b': {NAMES}",
        "data.source 'web': choose from generated, local, hub",
        "arms[1] (lora).dropout 1: must be below 1",
        "arms[0] (zero-shot).rank 4: on a zero-shot arm (method none), which trains nothing",
        "arms[2] (qlora).axes.precision: arms[2] (qlora).precision states it too: leave one of them out",
        f"arms[2] (qlora).axes.precision[1] 'int3': {PRECISIONS}",
        "arms[2] (qlora).axes.rnak: unknown key (did you mean 'rank'?): choose from …",
        "space.rank []: needs at least 1 value",
        "tune.trials 3: no power of two (a Sobol block): choose from 2, 4",
        "seeds: duplicate key (again on line 19)",
        "training.steps 'tag:yaml.org,2002:int': YAML tags are not allowed: leave it out",
        "training.batch_size 0: must be at least 1",
        "generation.sampling: leave it out: decoding is greedy (protocol: seed excepts)",
        "claims[1].metrics ['rouge1', 'rouge1']: holds a metric twice",
        "claims[1].candidate 'nobody': is no arm of this grid: choose from …",
    ]
    assert len(told) == len(expected), told
    assert [line for line, wanted in zip(told, expected, strict=True) if not is_told(wanted, line)] == []


def test_adapters_in_fp16_are_refused_since_their_gradients_cannot_be_scaled() -> None:
    told = faults(SMALL, "training.adapter_dtype=compute", "arms.qlora.compute_dtype=fp16")
    assert told == [
        "training.adapter_dtype 'compute': 'qlora@double_quant=true' computes in fp16, "
        "whose gradients cannot be scaled: choose from fp32"
    ]
    assert faults(SMALL, "arms.qlora.compute_dtype=fp16") == []
    assert faults(SMALL, "training.adapter_dtype=compute") == []


def test_a_faulty_setting_is_told_beside_the_faults_of_the_text() -> None:
    text = SMALL.replace("trials: 4", "trials: !!int 4")
    assert faults(text, "training.steps", "seeds=[1", "seeds=[1, *a]", "study=&a b") == [
        "tune.trials 'tag:yaml.org,2002:int': YAML tags are not allowed: leave it out",
        "--set 'training.steps': write key=value, such as training.steps=100",
        "--set seeds: not YAML: line 1, column 3: expected ',' or ']', but got '<stream end>'",
        "--set seeds: not YAML: line 1, column 5: found undefined alias 'a'",
    ]


def test_a_product_of_axes_that_is_too_large_is_refused_before_it_is_made() -> None:
    values = ", ".join(str(rank) for rank in range(1, 101))
    rates = ", ".join(f"{rate}e-5" for rate in range(1, 101))
    axes = f"{{rank: [{values}], alpha: [{values}], learning_rate: [{rates}], double_quant: [true, false]}}"
    (line,) = faults(SMALL, f"arms.lora.axes={axes}")
    assert line == "arms[1] (lora) 2000000: at most 512 arms after the axes are multiplied"


def test_arms_of_several_sections_are_counted_together() -> None:
    values = ", ".join(str(rank) for rank in range(1, 301))
    told = faults(SMALL, f"arms.lora.axes={{rank: [{values}]}}", f"arms.qlora.axes={{rank: [{values}]}}", "claims=[]")
    assert told == ["arms 601: at most 512 arms after the axes are multiplied"]


def test_a_claim_on_an_arm_with_a_fault_is_not_a_second_fault() -> None:
    assert faults(SMALL, "claims.0.candidate=qlora@double_quant=true", "arms.qlora.precision=int3") == [
        f"arms[2] (qlora).precision 'int3': {PRECISIONS}"
    ]
    assert faults(SMALL, "arms.qlora={precision: nf4}") == ["arms[2].name: missing: this key is required"]


def check_outcome(text: str, *overrides: str) -> None:
    """A text is a grid, or is refused in words that a terminal can print, a line a fault."""
    try:
        assert isinstance(load_grid(text, overrides), Grid)
        return
    except GridError as error:
        problems, lines = error.problems, str(error).split("\n")
    assert len(lines) == len(problems) > 0
    assert all(line.isprintable() and len(line) < 2000 for line in lines)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["lora", "bf16", "all-linear", "random/tiny-phi", "train[:4]", "{dialogue}", "a.csv", "\x1b[2J"])
)
KEYS = st.text(max_size=8) | st.sampled_from(
    [*GridFile.model_fields, "name", "precision", "axes", "paired", "rank", "low", "retain", "text", "hub", "0"]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(VALUES)
def test_a_random_structure_is_a_grid_or_a_grid_error(value: object) -> None:
    check_outcome(yaml.safe_dump(value))


def places(value: object, above: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every place in a structure of mappings and lists, the whole left out."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, inner in members for place in ((*above, key), *places(inner, (*above, key)))]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(places(parse_yaml(SMALL))), VALUES)
def test_the_small_grid_with_a_random_value_anywhere_is_a_grid_or_a_grid_error(
    place: tuple[str | int, ...], value: object
) -> None:
    data = parse_yaml(SMALL)
    here = data
    for part in place[:-1]:
        here = here[part]
    here[place[-1]] = value
    check_outcome(yaml.safe_dump(data))


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(SMALL)), st.text(max_size=6) | st.sampled_from(["!!int ", "&a ", "*a", "[", "{", ": ", "- "]))
def test_the_small_grid_with_random_signs_anywhere_is_a_grid_or_a_grid_error(position: int, signs: str) -> None:
    check_outcome(SMALL[:position] + signs + SMALL[position:])


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(["arms", "lora", "claims", "0", "9", "training", "steps", "seeds", "axes", "rank"]) | KEYS
    ),
    st.text(max_size=10) | VALUES.map(lambda value: yaml.safe_dump(value, default_flow_style=True)),
)
def test_the_small_grid_with_a_random_setting_is_a_grid_or_a_grid_error(path: list[str], value: str) -> None:
    check_outcome(SMALL, ".".join(path) + "=" + value)
