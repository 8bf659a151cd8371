"""A small good grid that every test of grids starts from, and what is said of changes to it."""

from study.grid import load_grid
from study.problems import GridError

SMALL = """\
study: small
model: {id: random/tiny-phi}
data:
  source: generated
  limits: {train: 8, validation: 4, test: 4}
prompt: {template: summarize}
arms:
  - {name: zero-shot, precision: bf16, method: none}
  - {name: lora, precision: bf16}
  - name: qlora
    precision: nf4
    axes: {double_quant: [true, false]}
space:
  rank: [4, 8]
  alpha: [8, 16]
  learning_rate: {low: 1e-4, high: 1e-2}
tune: {trials: 4}
seeds: [11, 12, 13]
training: {steps: 4, batch_size: 4}
generation: {max_new_tokens: 8}
claims:
  - {candidate: qlora, reference: lora, metrics: [rouge1], margin: 1.0}
"""


def faults(text: str, *overrides: str) -> list[str]:
    """Every fault of a grid, a line each; none where it is good."""
    try:
        load_grid(text, overrides)
    except GridError as error:
        return str(error).split("\n")
    return []
