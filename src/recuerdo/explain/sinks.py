"""Attention sinks: keys that every query gives the same large share, whatever it looks for.

Softmax must put its weight somewhere; heads that have nothing to say put it on a few keys of small value (Xiao et al.
2024). A raw map shows these. They are found by what they are, labelled and set aside; what is left is renormalised.
"""

from dataclasses import dataclass

import numpy as np

SMALL = 0.75  # A plain word that is a sink has a value of less than this part of the median value's size.
TIMES_MEDIAN = 8.0  # a sink gets so many times the median key's share,
SPREAD = 0.5  # and its share varies over the queries by less than this part of its mean.


@dataclass(frozen=True)
class Sink:
    """A key that is set aside: its token, its text, the share it takes of a mean row, and why it counts as a sink."""

    token: int
    word: str
    share: float
    why: str


def find_sinks(rows: np.ndarray, tokens: list[str], special: list[bool], values: np.ndarray) -> list[Sink]:
    """Sinks among the keys of mean rows [queries, keys], strongest first.

    `values` [keys] are the sizes of the keys' values against the median. The first token and special tokens count as
    soon as they take a large share; a plain word only when its share hardly varies from query to query and its value
    is small, so that reading it changes nothing.
    """
    share = rows.mean(0)
    spread = rows.std(0) / (share + 1e-9)
    large = share > TIMES_MEDIAN * np.median(share[share > 0]) if (share > 0).any() else np.zeros(len(share), bool)
    found = []
    for token in np.argsort(-share):
        if not large[token]:
            break
        if token == 0:
            why = "the first token: every later query sees it"
        elif special[token]:
            why = "a special token"
        elif spread[token] < SPREAD and len(rows) > 1 and values[token] < SMALL:
            why = f"every query gives it the same share, and its value has {values[token]:.2f} of the usual size"
        else:
            continue
        found.append(Sink(int(token), tokens[token], float(share[token]), why))
    return found
