"""LaTeX: text that is safe to typeset, and the names of macros."""

import re

from study.problems import one_line

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
    # At the start of a row these two would be read as arguments of the \\ that ends the row before.
    "[": "{[}",
    "*": "{*}",
    "—": "---",
    "–": "--",
    "…": r"\ldots{}",
    "±": r"$\pm$",
    "−": r"$-$",
    "Δ": r"$\Delta$",
}
_DIGITS = dict(
    zip("0123456789", ("Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine"), strict=True)
)
# A hyphen that is the sign of a number, not one inside a name or an exponent.
_SIGN = re.compile(r"(?<![\w.)\]])-(?=[\d.])")


def latex(text: str) -> str:
    """Text with every sign that TeX would act on written out."""
    return "".join(_SPECIAL.get(sign, sign) for sign in one_line(text))


def latex_number(text: str) -> str:
    """A printed number, or an interval of two, with true minus signs."""
    return latex(_SIGN.sub("−", text))


def macro_name(*parts: str) -> str:
    """A macro name from any texts: letters only, words capitalised, digits as words (`qlora-nf4` → `QloraNfFour`)."""
    words = [word for part in parts for word in re.findall(r"[A-Za-z]+|[0-9]", part)]
    return "".join(_DIGITS.get(word, word[:1].upper() + word[1:]) for word in words)


class Macros:
    """Macros under unique names, each with a remark of what it holds."""

    def __init__(self) -> None:
        self._lines: dict[str, str] = {}

    def define(self, value: str, *parts: str) -> None:
        """A macro for a printed number, named after `parts`; where two come to one name, the later says `AgainOne`."""
        name = base = macro_name(*parts) or "Unnamed"
        count = 0
        while name in self._lines:
            count += 1
            name = base + "Again" + macro_name(str(count))
        self._lines[name] = f"\\newcommand{{\\{name}}}{{{latex_number(value)}}} % {one_line(' / '.join(parts))}"

    def text(self) -> str:
        """Every definition on a line of its own, in the order of their making."""
        return "".join(f"{line}\n" for line in self._lines.values())
