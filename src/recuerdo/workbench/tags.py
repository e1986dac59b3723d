"""The tags that a memory of texts makes for itself, beside those of people."""

import hashlib
from collections.abc import Sequence

SAME, SOURCE, PART, TEXT = "same-as:", "from:", "part:", "text:"


def source_of(tags: Sequence[str]) -> str:
    """Where a row is from; empty where nobody said."""
    return next((tag[len(SOURCE) :] for tag in tags if tag.startswith(SOURCE)), "")


def own(tags: Sequence[str]) -> list[str]:
    """The tags that people gave."""
    return [tag for tag in tags if not tag.startswith((SAME, SOURCE, PART, TEXT))]


def mark(source: str, text: str) -> str:
    """A short name of a text from a source."""
    return hashlib.sha256(f"{source}\0{text}".encode()).hexdigest()[:20]
