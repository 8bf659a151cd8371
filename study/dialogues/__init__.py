"""The project's own dialogues with reference summaries, generated from a seed; needs no download and no licence."""

from study.dialogues.generator import GENERATOR_VERSION, SCENES, generate

__all__ = ["GENERATOR_VERSION", "SCENES", "generate"]
