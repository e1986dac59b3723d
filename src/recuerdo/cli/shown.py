"""Texts of other people on a terminal."""

import re
import time

# Control characters, halves of letters, and what turns the direction of the line.
OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


def shown(text: str) -> str:
    """Without control characters: a text may come from anybody, and a terminal obeys them."""
    return OBEYED.sub("�", text)


def line(text: str) -> str:
    """The same on one line."""
    return " ".join(shown(text).split())


def day(seconds: float, how: str = "%Y-%m-%d") -> str:
    """A time, or nothing where no calendar goes so far."""
    try:
        return time.strftime(how, time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return ""
