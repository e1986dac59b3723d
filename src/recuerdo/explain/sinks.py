"""Attention sinks: keys that many queries give a large share, whatever they look for, and that carry little.

Softmax must put its weight somewhere; a head that has nothing to say puts it on a few keys of small value (Xiao et al.
2024). A raw map shows these. They are found head by head, by what they are: a usual share many times the median key's,
and a value of less than half the median size. They are labelled and set aside; what is left is renormalised.
"""

from dataclasses import dataclass

import numpy as np

TIMES_MEDIAN = 8.0  # a sink of a head gets so many times the median key's usual share,
SMALL = 0.5  # and its value has less than this part of the median value's size.
WORTH_TELLING = 0.002  # sinks that take less of a mean row are set aside, too, but not listed


@dataclass(frozen=True)
class Sink:
    """A key that is set aside: its token, its text, the share it takes of a mean row, and why it counts as a sink."""

    token: int
    word: str
    share: float
    why: str
    heads: int = 0  # in how many heads


def sink_mask(usual: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Which keys are sinks of which head: usual shares [h, keys] and sizes of values [h, keys] -> bool [h, keys]."""
    seen = np.where(usual > 0, usual, np.nan)
    with np.errstate(all="ignore"):
        typical = np.nanmedian(seen, -1, keepdims=True) if usual.size else np.zeros((len(usual), 1))
    large = usual > TIMES_MEDIAN * np.nan_to_num(typical)
    small = values < SMALL * np.median(values, -1, keepdims=True) if values.size else np.zeros_like(large)
    return large & small


def list_sinks(shares: np.ndarray, heads: np.ndarray, tokens: list[str], special: list[bool]) -> list[Sink]:
    """Sinks worth telling, strongest first: what each key takes as a sink [keys], and in how many heads [keys]."""
    found = []
    for token in np.argsort(-shares):
        if shares[token] < WORTH_TELLING:
            break
        kind = "the first token" if token == 0 else "a special token" if special[token] else "a plain word"
        why = f"{kind}: a large share from every query, and a small value"
        found.append(Sink(int(token), tokens[token], float(shares[token]), why, int(heads[token])))
    return found
