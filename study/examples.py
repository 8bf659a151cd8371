"""One dialogue with its reference summaries, and the digest that names a set of them."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Example:
    """A dialogue (turns separated by a newline, each "Speaker: text") and its reference summaries.

    Raises:
        ValueError: the dialogue or a reference is blank, or there is no reference; the message names the id.
    """

    id: str
    dialogue: str
    references: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse an example that cannot be scored."""
        if not self.dialogue.strip():
            raise ValueError(f"example {self.id!r}: the dialogue is empty")
        if not self.references:
            raise ValueError(f"example {self.id!r}: no reference summary")
        for position, reference in enumerate(self.references):
            if not reference.strip():
                raise ValueError(f"example {self.id!r}: reference {position} is empty")


def digest(examples: Iterable[Example]) -> str:
    """Give the sha256 (64 hex digits) over id, dialogue and references of all examples, in their order.

    The bytes are canonical JSON (sorted keys, no spaces, ASCII escapes), one object a line, so that the digest does
    not depend on the platform, the locale or the Python version.
    """
    sha = hashlib.sha256()
    for example in examples:
        fields = {"dialogue": example.dialogue, "id": example.id, "references": list(example.references)}
        sha.update(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode("ascii"))
        sha.update(b"\n")
    return sha.hexdigest()
