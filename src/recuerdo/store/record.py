"""What a store keeps and what it finds: rows, the rules of a look at them, and what came of it."""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from recuerdo.errors import InputError

Ids = Sequence[int] | np.ndarray
LONGEST = 64 * 2**20  # bytes of one text
MOST_TAG = 200  # characters of a tag or an author
DAY = 86_400.0
FIRST, LAST = -62_135_596_800, 253_402_300_799  # seconds since 1970 that a calendar can name


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows to be kept: keys [n, d], and for each row a text, a value [n, e], tags and the time it speaks of.

    `times` are seconds since 1970, None = now. `author` is one for all of them. Raises InputError for what does not fit
    together, keys or values that are not finite, texts that are no Unicode or too long, and tags that nobody can type.
    """

    keys: np.ndarray
    texts: Sequence[str] = ()
    values: np.ndarray | None = None
    tags: Sequence[Sequence[str]] = ()
    times: Sequence[float] | None = None
    author: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", vectors(self.keys, "keys"))
        n = len(self.keys)
        if self.values is not None:
            object.__setattr__(self, "values", vectors(self.values, "values"))
        for name, given in (("texts", self.texts), ("values", self.values), ("tags", self.tags), ("times", self.times)):
            if given is not None and len(given) not in ({n} if name in ("values", "times") else {0, n}):
                raise InputError(f"{n} keys and {len(given)} {name} do not fit together: give one for each row")
        for text in self.texts:
            check_text(text)
        for tag in (*(tag for tags in self.tags for tag in tags), *([self.author] if self.author else [])):
            _check_tag(tag)
        if self.times is not None and not all(map(_is_time, self.times)):
            raise InputError("a time is a number of seconds since 1970, of the years 1 to 9999")

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def width(self) -> int:
        """d, the width of the keys."""
        return self.keys.shape[1]

    @property
    def value_width(self) -> int:
        """e, the width of the values; 0 where there are none."""
        return 0 if self.values is None else self.values.shape[1]


@dataclass(frozen=True, eq=False)
class Record:
    """A row as it stands in the store, or stood there as an older version.

    `time` is the time it speaks of, `written` when it was written; `bias` is added to its logit by a person's hand, and
    0 for older versions, which are never read.
    """

    id: int
    version: int
    key: np.ndarray
    value: np.ndarray | None
    text: str
    tags: tuple[str, ...]
    author: str
    time: float
    written: float
    bias: float = 0.0


@dataclass(frozen=True)
class Hand:
    """What a person (or a program) did to a row: `what` is "correct", "bias" (with its amount), "undo" or "forget".

    An undo has the amount that the bias was put back to, None where a correction was taken back.
    """

    what: str
    id: int
    amount: float | None
    author: str
    reason: str
    time: float


@dataclass(frozen=True)
class Where:
    """Which rows are looked at: those of these ids, with all these tags, by this author, of this time.

    `since` <= time < `until`, in seconds since 1970. Nothing given = all rows.
    """

    ids: tuple[int, ...] | None = None
    tags: tuple[str, ...] = ()
    author: str | None = None
    since: float = -math.inf
    until: float = math.inf

    @property
    def nothing(self) -> bool:
        """Whether a tag or the author is one that no row can have."""
        return not all(map(_is_tag, (*self.tags, *([] if self.author is None else [self.author]))))


@dataclass(frozen=True)
class Rules:
    """How a row's logit is made: `sharpness * (key . query) + bias - fading * age in days`.

    `now` (seconds since 1970) is what age is counted to; None = this moment. Raises InputError for what is not finite.
    """

    sharpness: float = 1.0
    fading: float = 0.0
    now: float | None = None

    def __post_init__(self) -> None:
        if not all(math.isfinite(x) for x in (self.sharpness, self.fading, self.now or 0.0)):
            raise InputError("sharpness, fading and now are finite numbers")


@dataclass(frozen=True, eq=False)
class Found:
    """What q queries found: the best rows of each, and the log-mass of all that was addressed.

    `ids` [q, k] int64, best first, -1 where there are fewer; `logits` [q, k] float64, -inf there; `lse` [q] the
    log-sum-exp of the logits of all rows that were looked at; `unseen` [q] an upper bound of the log-mass of those that
    were addressed and not looked at, -inf where the scan was exact; `looked` and `addressed`: how many rows.
    """

    ids: np.ndarray
    logits: np.ndarray
    lse: np.ndarray
    unseen: np.ndarray
    looked: int
    addressed: int

    @property
    def weights(self) -> np.ndarray:
        """The share of each row in the softmax over all that was looked at, [q, k]."""
        with np.errstate(invalid="ignore"):
            return np.where(np.isneginf(self.logits), 0.0, np.exp(self.logits - self.lse[:, None]))

    @property
    def covered(self) -> np.ndarray:
        """The share of the softmax over all rows addressed that the rows found hold, at least: [q]."""
        with np.errstate(invalid="ignore"):
            looked = np.where(np.isneginf(self.lse), 0.0, np.exp(self.lse - np.logaddexp(self.lse, self.unseen)))
        return self.weights.sum(1) * looked

    def merge(self, other: Self) -> "Found":
        """What both stores found together: the same as one store with the rows of both would find."""
        ids, logits = np.concatenate([self.ids, other.ids], 1), np.concatenate([self.logits, other.logits], 1)
        k = max(self.ids.shape[1], other.ids.shape[1])
        order = np.stack([np.lexsort((i, -x))[:k] for i, x in zip(ids, logits, strict=True)])
        return Found(
            np.take_along_axis(ids, order, 1),
            np.take_along_axis(logits, order, 1),
            np.logaddexp(self.lse, other.lse),
            np.logaddexp(self.unseen, other.unseen),
            self.looked + other.looked,
            self.addressed + other.addressed,
        )


@dataclass(frozen=True)
class Receipt:
    """What `forget` erased: how many rows and versions, which files were searched for traces, what is still owed."""

    rows: int
    versions: int
    searched: tuple[str, ...]
    owed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stats:
    """How large a store is: rows, versions that are kept beside them, width of keys and values, bytes on disk; and the
    id that the next row gets."""

    rows: int
    versions: int
    width: int
    value_width: int
    schema: int
    bytes: int
    next: int


def vectors(given: np.ndarray, what: str) -> np.ndarray:
    """[n, d] float32 that are finite, or InputError."""
    try:
        with np.errstate(over="ignore"):  # told below
            found = np.ascontiguousarray(np.zeros(0) if np.iscomplexobj(given) else given, dtype=np.float32)
    except (TypeError, ValueError):
        raise InputError(f"{what} are numbers, [n, d]") from None
    if found.ndim != 2 or not found.shape[1]:
        raise InputError(f"{what} are [n, d], not of shape {found.shape}")
    if not np.isfinite(found).all():
        raise InputError(f"{what} are finite: row {int(np.argmin(np.isfinite(found).all(1)))} is not")
    return found


def by_id(records: Sequence[Record], width: int, value_width: int) -> dict[int, list[Record]]:
    """Id -> its versions 1, 2, …, the ids rising. Raises InputError for versions that do not follow each other, and for
    keys and values that are not of these widths or not finite."""
    for one in records:
        given = (one.key.shape, (0,) if one.value is None else one.value.shape)
        if given != ((width,), (value_width,)) or not all(
            np.isfinite(x).all() for x in (one.key, one.value) if x is not None
        ):
            raise InputError(f"row {one.id} has no finite key of width {width} and value of width {value_width}")
    found: dict[int, list[Record]] = {}
    for one in sorted(records, key=lambda one: (one.id, one.version)):
        found.setdefault(one.id, []).append(one)
    for id, told in found.items():
        if id < 0 or [one.version for one in told] != list(range(1, len(told) + 1)):
            raise InputError(f"the versions of row {id} are 1, 2, … one after the other")
    return found


def whole(ids: Ids) -> list[int]:
    """Ids as whole numbers, or InputError."""
    given = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
    if not all(isinstance(id, int | np.integer) and not isinstance(id, bool) for id in given):
        raise InputError(f"ids are whole numbers, not {given[:3]}")
    return [int(id) for id in given]


def check_text(text: str) -> None:
    """Raises InputError for what is no Unicode, or too long for one row."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise InputError(f"a text is no Unicode (a lone surrogate): {text[:40]!r}") from None
    if size > LONGEST:
        raise InputError(f"a text of {size:,} bytes is too long for one row: cut it, {LONGEST:,} bytes are the most")


def _is_time(time: float) -> bool:
    return isinstance(time, (int, float, np.number)) and FIRST <= time <= LAST


def _is_tag(tag: str) -> bool:
    seen = not any(unicodedata.category(c)[0] == "C" for c in tag)
    return 0 < len(tag) <= MOST_TAG and tag == tag.strip() and seen


def _check_tag(tag: str) -> None:
    if not _is_tag(tag):
        raise InputError(f"a tag or an author is 1 to {MOST_TAG} characters that can be seen, not {tag[:40]!r}")
