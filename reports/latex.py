"""LaTeX: text that is safe to typeset, and the names of macros."""

import re
import unicodedata

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
    "×": r"$\times$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "·": r"$\cdot$",
    "°": r"$^\circ$",
    "→": r"$\to$",
    "Δ": r"$\Delta$",
    "α": r"$\alpha$",
    "μ": r"$\mu$",
    "µ": r"$\mu$",
    "ρ": r"$\rho$",
    "σ": r"$\sigma$",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
    "ß": r"\ss{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
}
# Combining signs (Unicode, "Combining Diacritical Marks") as TeX puts them on the letter before.
_ACCENTS = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0304": "=",
    "\u0306": "u",
    "\u0307": ".",
    "\u0308": '"',
    "\u030a": "r",
    "\u030b": "H",
    "\u030c": "v",
    "\u0327": "c",
}
_DIGITS = dict(
    zip("0123456789", ("Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine"), strict=True)
)
# A hyphen that is the sign of a number, not one inside a name or an exponent.
_SIGN = re.compile(r"(?<![\w.)\]])-(?=[\d.])")


def latex(text: str) -> str:
    """Text with every sign that TeX would act on written out, in ASCII: a letter that pdflatex does not know would stop
    a paper. One without a name here is written as its code point, `{[}U+4E2D]`."""
    return "".join(map(_sign, unicodedata.normalize("NFC", one_line(text))))


def _sign(sign: str) -> str:
    if sign in _SPECIAL:
        return _SPECIAL[sign]
    if sign.isascii():
        return sign
    parts = unicodedata.normalize("NFD", sign)
    letter, mark = parts[0], parts[1:]
    if mark in _ACCENTS and letter.isascii() and letter.isalpha():
        return f"\\{_ACCENTS[mark]}{{{letter}}}"
    return f"{{[}}U+{ord(sign):04X}]"


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
        self._values: dict[str, tuple[str, str]] = {}

    def remark(self, name: str) -> str | None:
        """What the macro of that name holds; None where there is none."""
        return self._values[name][1] if name in self._values else None

    def define(self, value: str, name: str, remark: str) -> None:
        """A macro for a printed number.

        Raises:
            ValueError: a name that TeX cannot have, or that stands for something else already.
        """
        if not (name.isascii() and name.isalpha()):
            raise ValueError(f"{name!r} is no name of a macro: letters only")
        if name in self._values:
            raise ValueError(f"\\{name} stands for {self._values[name][1]} already")
        self._values[name] = (value, remark)

    def text(self) -> str:
        """Every definition on a line of its own, in the order of their making."""
        return "".join(
            f"\\newcommand{{\\{name}}}{{{latex_number(value)}}} % {one_line(remark)}\n"
            for name, (value, remark) in self._values.items()
        )
