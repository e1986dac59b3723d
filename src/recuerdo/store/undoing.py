"""Undo, alike in every store: what a hand did last to a row, and how the row was before that.

The journal is never cut: to take something back is written down as one thing more, "undo", and whoever undoes again
goes further back, as in an editor. A correction is taken back by a version more, which says what the one before said.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from recuerdo.errors import InputError
from recuerdo.store.record import Hand, Record, Rows


@dataclass(frozen=True)
class Back:
    """What is taken back, and what the row gets: the content of a version, or (where that is 0) a bias."""

    hand: Hand
    version: int
    amount: float


def taken_back(id: int, hands: Sequence[Hand], version: int, name: object) -> Back:
    """What an undo of row `id`, whose present version is `version`, has to do after these hands, oldest first.

    Raises InputError where nothing is left to be undone.
    """
    corrected = sum(hand.what == "correct" or (hand.what == "undo" and hand.amount is None) for hand in hands)
    now = says = version - corrected  # the present version, and the one whose content it has
    standing: list[tuple[Hand, int]] = []  # what was done and not undone, and the content before
    for hand in hands:
        if hand.what == "undo" and standing:
            undone, before = standing.pop()
            now, says = (now + 1, before) if undone.what == "correct" else (now, says)
        elif hand.what == "correct":
            standing.append((hand, says))
            now = says = now + 1
        elif hand.what == "bias":
            standing.append((hand, says))
    if not standing or standing[-1][1] < 1:
        raise InputError(f"nothing that a hand did to row {id} of {name} is left to be undone")
    hand, before = standing.pop()
    if hand.what == "correct":
        return Back(hand, before, 0.0)
    return Back(hand, 0, next((one.amount or 0.0 for one, _ in reversed(standing) if one.what == "bias"), 0.0))


def again(one: Record) -> Rows:
    """A version as a row to be kept once more, by whom it was."""
    value = None if one.value is None else one.value[None]
    return Rows(one.key[None], [one.text], value, [one.tags], [one.time], one.author)
