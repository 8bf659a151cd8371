"""Text from outside (error messages, model ids, data descriptions) as a report may show it: it is published."""

import re

from study.problems import one_line, shortened

SHOWN_CHARACTERS = 300

# Two parts or more, so that "and/or" and "tokens /s" stay; not after a colon or a word, so that addresses do.
_PATH = re.compile(r"(?<![\w/.:])(?:~|\.{1,2})?(?:/[\w.@+=%-]+){2,}/?")
_WINDOWS_PATH = re.compile(r"\b[A-Za-z]:\\(?:[\w.@ -]+\\)*([\w.@-]+)")


def public_text(text: str, limit: int = SHOWN_CHARACTERS) -> str:
    """`text` on one line, cut to `limit` characters, and without paths: they name people and machines, and two machines
    with the same records would write different reports. The last part of a path stays (`…/phi-2`)."""
    shown = _PATH.sub(lambda match: "…/" + match[0].rstrip("/").rpartition("/")[2], one_line(text))
    shown = _WINDOWS_PATH.sub(lambda match: "…/" + match[1], shown)
    return shortened(shown, limit)
