"""What every store refuses, in the same words: rows, biases and queries that do not fit it."""

import numpy as np

from recuerdo.errors import InputError
from recuerdo.store.record import Rows, vectors

MOST_BIAS = 1_000_000
FORGOTTEN = "was forgotten, and an erase cannot be undone"


def check_rows(rows: Rows, widths: tuple[int, int], name: object) -> None:
    """Raises InputError for keys and values that are not of the store's widths; no rows fit any store."""
    given = (rows.width, rows.value_width)
    if len(rows) and widths != given:
        raise InputError(f"{name} keeps keys and values of width {widths}, not {given}")


def check_version(rows: Rows, widths: tuple[int, int], name: object) -> None:
    """Raises InputError for what cannot be the next version of a row."""
    check_rows(rows, widths, name)
    if len(rows) != 1:
        raise InputError(f"one row takes the place of another, not {len(rows)}")


def check_bias(amount: float) -> None:
    """Raises InputError for what cannot be added to a logit without drowning all others in float32."""
    if not (abs(amount) <= MOST_BIAS or amount == -np.inf):
        raise InputError(f"a bias is a number or -inf, not {amount}, and {MOST_BIAS:,} is the most")


def check_said(*words: str) -> None:
    """Raises InputError for authors, reasons and facts that cannot be written down."""
    for told in words:
        try:
            told.encode()
        except UnicodeEncodeError:
            raise InputError(f"authors, reasons and facts are Unicode, not {told[:40]!r}") from None


def checked_queries(queries: np.ndarray, top: int, width: int, name: object) -> np.ndarray:
    """Queries [q, d] float32. Raises InputError for queries that do not fit the keys, and for a `top` below 1."""
    asked = vectors(queries, "queries")
    if asked.shape[1] != width:
        raise InputError(f"queries are of width {asked.shape[1]}, the keys of {name} of {width}")
    if top < 1:
        raise InputError(f"top is 1 or more, not {top}")
    return asked
