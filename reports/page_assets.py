"""The page's own style and script, and the policy that allows them and nothing else."""

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files

# What matplotlib writes into every SVG: a style for everything on the page, and who drew it.
_SVG_STYLE = re.compile(r"<style\b[^>]*>.*?</style>", re.DOTALL)
_SVG_METADATA = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)
_SVG_NAME = re.compile(r'(\bid="|href="#|url\(#)')


@cache
def asset(name: str) -> str:
    """The text of `reports/assets/<name>`, with the line ends that its hash is made of."""
    return files("reports").joinpath("assets", name).read_text(encoding="utf-8").replace("\r\n", "\n")


def policy() -> str:
    """The Content-Security-Policy: no network at all, and only this page's own style and script by their hashes.

    Style attributes are allowed, for matplotlib's drawings are made of them; they can load nothing, as no image or
    font may be loaded from anywhere.
    """
    return "; ".join(
        (
            "default-src 'none'",
            f"style-src {_hash('page.css')}",
            f"style-src-elem {_hash('page.css')}",
            "style-src-attr 'unsafe-inline'",
            f"script-src {_hash('page.js')}",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _hash(name: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(asset(name).encode()).digest()).decode()}'"


def inlined_svg(svg: str, number: int) -> str:
    """A drawing as a part of the page: without a style of its own (the page has it), its ids told apart by `number`."""
    bare = _SVG_METADATA.sub("", _SVG_STYLE.sub("", svg))
    return _SVG_NAME.sub(lambda match: f"{match[0]}f{number}-", bare)
