"""LaTeX: text that is safe to typeset, and a macro for every number that a paper quotes."""

import re
from collections.abc import Sequence

from reports.claiming import ClaimResult
from reports.evidence import Evidence, label
from reports.stats import single_arm_interval
from study.metrics import METRICS, ROUGE_TYPES

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "—": "---",
    "–": "--",
    "±": r"$\pm$",
    "−": r"$-$",
    "Δ": r"$\Delta$",
}
_DIGITS = dict(
    zip("0123456789", ("Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine"), strict=True)
)


def latex(text: str) -> str:
    """Text with every sign that TeX would act on written out; control characters are dropped."""
    return "".join(_SPECIAL.get(sign, sign) for sign in text if sign.isprintable())


def macro_name(*parts: str) -> str:
    """A macro name from any texts: letters only, words capitalised, digits as words (`qlora-nf4` → `QloraNfFour`)."""
    words = [word for part in parts for word in re.findall(r"[A-Za-z]+|\d", part)]
    return "".join(_DIGITS.get(word, word[:1].upper() + word[1:]) for word in words)


def numbers_tex(evidence: Evidence, results: Sequence[ClaimResult]) -> str:
    """`numbers.tex`: one macro a number, so that a paper's text cannot drift from its records."""
    macros: dict[str, str] = {}
    for arm in evidence.arms:
        for kind in ROUGE_TYPES if arm.scored is not None else ():
            assert arm.scored is not None
            interval = single_arm_interval(arm.scored.scores[kind], confidence=0.95)
            _define(macros, macro_name(arm.part.name, label(kind)), f"{interval.mean:.{METRICS[kind].decimals}f}")
        memory = arm.memory()
        if memory is not None:
            _define(macros, macro_name(arm.part.name, "PeakGib"), f"{memory.median_bytes / 1024**3:.3f}")
    for result in results:
        _define(macros, macro_name(result.claim.name, "Verdict"), str(result.judgement.verdict).replace("_", " "))
        for item in result.metrics:
            if item.comparison is None:
                continue
            low, high = item.comparison.interval(0.90)
            stem = (result.claim.name, label(item.metric))
            _define(macros, macro_name(*stem, "Difference"), f"{item.comparison.difference:+.2f}")
            _define(macros, macro_name(*stem, "Low"), f"{low:+.2f}")
            _define(macros, macro_name(*stem, "High"), f"{high:+.2f}")
    lines = [f"\\newcommand{{\\{name}}}{{{latex(value)}}}" for name, value in macros.items()]
    return "\n".join(["% written by python -m reports; scores in points, memory in GiB", *lines]) + "\n"


def _define(macros: dict[str, str], name: str, value: str) -> None:
    unique, suffix = name, "A"
    while unique in macros:
        unique, suffix = name + suffix, chr(ord(suffix) + 1)
    macros[unique] = value
