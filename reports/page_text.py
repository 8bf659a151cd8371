"""Text and data as the page may hold them: nothing from outside can end an element, hide or run."""

import html
import json
from typing import Any

from study.problems import one_line

# Inside a script element a browser looks for `</script`, `<!--` and (of old) line separators, wherever they stand.
_IN_JSON = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


def escaped(text: object) -> str:
    """`text` for an element's content or a quoted attribute, on one line, with signs that print nothing written out."""
    return html.escape(one_line(str(text)), quote=True)


def visible_lines(text: str) -> str:
    """`text` with its line breaks, and every other sign that prints nothing written out."""
    return "\n".join(one_line(line) for line in text.replace("\r\n", "\n").split("\n"))


def island(name: str, value: Any) -> str:
    """An element that holds `value` as JSON for the page's script, under the id `data-<name>`; it is never run.

    Raises:
        ValueError: a number that is not finite, which JSON cannot hold.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).translate(_IN_JSON)
    return f'<script type="application/json" id="data-{escaped(name)}">{text}</script>'
