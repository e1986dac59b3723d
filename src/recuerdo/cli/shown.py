"""Texts of other people on a terminal."""

import re


def shown(text: str) -> str:
    """Without control characters: a text may come from anybody, and a terminal obeys them."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "�", text)
