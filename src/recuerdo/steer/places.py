"""Where a mark is, and in which reads: the parts of a mark, each checked when it is made. No model and no torch."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from itertools import islice
from numbers import Integral, Real
from typing import Any

from recuerdo.errors import MarkError

MOST = 10_000  # marks at once, and entries of one list
ROLES = ("self", "cross", "encoder")


# ------------------------------------------------------------------------------------------------- one value, checked


def number(value: Any, what: str) -> float:
    """`value` as a float. Raises MarkError unless it is a finite number (True is not one)."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise MarkError(f"{what} is a number, not {_kind(value)}")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise MarkError(f"{what} is {found}: give a finite number")
    return found + 0.0  # -0.0 becomes 0.0


def words(value: Any, what: str) -> str:
    """`value` as it is. Raises MarkError unless it is text that UTF-8 can hold."""
    if not isinstance(value, str):
        raise MarkError(f"{what} is text, not {_kind(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise MarkError(f"{what} holds half a character (a lone surrogate): decode the text anew") from None
    return value


def day(value: Any, what: str = "the date") -> str:
    """`value` as it is. Raises MarkError unless it is empty or a date in ISO 8601."""
    if words(value, what):
        try:
            datetime.fromisoformat(value)
        except ValueError:
            raise MarkError(f"{what} {short(value)!r} is not ISO 8601: write it like 2026-11-30T14:05:00Z") from None
    return value


def now() -> str:
    """This second in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def short(text: str, most: int = 40) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(text[: 4 * most].split())
    return line if len(line) <= most and len(text) <= 4 * most else line[: most - 1].rstrip() + "…"


def _kind(value: Any) -> str:
    return "nothing" if value is None else type(value).__name__


def _integer(value: Any, what: str, *, signed: bool = False) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise MarkError(f"{what} is a whole number, not {_kind(value)}")
    if not -(2**53) < (found := int(value)) < 2**53:
        raise MarkError(f"{what} is too large")
    if found < 0 and not signed:
        raise MarkError(f"{what} is {found}: it counts from 0")
    return found


def _listed(value: Any, what: str) -> list[Any]:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise MarkError(f"{what} are a list, not {_kind(value)}")
    found = list(islice(value, MOST + 1))
    if not found:
        raise MarkError(f"{what} are an empty list: name at least one")
    if len(found) > MOST:
        raise MarkError(f"{what} are more than {MOST:,}: name fewer")
    return found


def _range(value: Any, what: str) -> tuple[int | None, int | None] | None:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise MarkError(f"{what} are a pair (first, end), either of them None for open")
    first, end = (None if side is None else _integer(side, f"a side of {what}") for side in value)
    if end is not None and (first or 0) >= end:
        raise MarkError(f"{what} {first or 0} to {end} hold nothing: the end is not included, and must be larger")
    return None if first is None and end is None else (first, end)


def _set(item: Any, **values: Any) -> None:
    for name, value in values.items():
        object.__setattr__(item, name, value)


# -------------------------------------------------------------------------------------------------------------- where


@dataclass(frozen=True)
class Quote:
    """Words of the text, found by what they say: the only place, the `occurrence`-th (from 1), or `every` place."""

    quote: str
    occurrence: int | None = None
    every: bool = False

    def __post_init__(self) -> None:
        if not words(self.quote, "the quote").strip():
            raise MarkError("the quote is empty: quote the words to mark")
        if not isinstance(self.every, bool):
            raise MarkError(f"every is true or false, not {_kind(self.every)}")
        if self.occurrence is not None:
            _set(self, occurrence=_integer(self.occurrence, "the occurrence"))
            if self.occurrence == 0:
                raise MarkError("the occurrence is 0: it counts from 1; to mark all, use every=True")
            if self.every:
                raise MarkError("the quote has an occurrence and every: choose one of them")

    def __str__(self) -> str:
        which = "every " if self.every else "" if self.occurrence is None else f"no. {self.occurrence} of "
        return f"{which}{short(self.quote)!r}"


@dataclass(frozen=True)
class Span:
    """Characters `start` to `end` (not included) of the text; a kept `quote` proves that it is the same text."""

    start: int
    end: int
    quote: str | None = None

    def __post_init__(self) -> None:
        start, end = _integer(self.start, "the start"), _integer(self.end, "the end")
        if start >= end:
            raise MarkError(f"characters {start} to {end} hold nothing: the end is not included, and must be larger")
        _set(self, start=start, end=end)
        if self.quote is not None:
            words(self.quote, "the quote")

    def __str__(self) -> str:
        return f"characters {self.start} to {self.end}" if self.quote is None else repr(short(self.quote))


@dataclass(frozen=True)
class Box:
    """A part of an image, in fractions 0 to 1 of its width (left, right) and height (top, bottom)."""

    left: float
    top: float
    right: float
    bottom: float

    def __post_init__(self) -> None:
        for field in fields(self):
            value = number(getattr(self, field.name), f"the {field.name} of the box")
            if not 0 <= value <= 1:
                raise MarkError(f"the {field.name} of the box is {value:g}: give a fraction, 0 to 1, of the image")
            _set(self, **{field.name: value})
        if self.left >= self.right or self.top >= self.bottom:
            raise MarkError(f"the {self} holds nothing: left is below right, and top below bottom")

    def __str__(self) -> str:
        return f"box {self.left:g}, {self.top:g} to {self.right:g}, {self.bottom:g}"


@dataclass(frozen=True)
class Time:
    """A part of a sound, in seconds from its beginning."""

    start: float
    end: float

    def __post_init__(self) -> None:
        start, end = number(self.start, "the start"), number(self.end, "the end")
        if start < 0 or start >= end:
            raise MarkError(f"{start:g} to {end:g} s hold nothing: the start is 0 or later, and before the end")
        _set(self, start=start, end=end)

    def __str__(self) -> str:
        return f"{self.start:g} to {self.end:g} s"


@dataclass(frozen=True)
class Slots:
    """Slots of a memory, by number."""

    slots: tuple[int, ...]

    def __post_init__(self) -> None:
        _set(self, slots=tuple(sorted({_integer(slot, "a slot") for slot in _listed(self.slots, "slots")})))

    def __str__(self) -> str:
        return short("slots " + ", ".join(map(str, self.slots[:40])))


Where = Quote | Span | Box | Time | Slots


# -------------------------------------------------------------------------------------------------------------- scope


@dataclass(frozen=True)
class Scope:
    """The reads that a mark acts on; what is None is not restricted.

    `role`: self, cross or encoder. `layers`: numbers, negative from the end. `heads`: pairs (layer, head).
    `queries`: positions of the reading tokens, and `steps`: generation steps (0 = the pass over the prompt), each as
    (first, end), end not included, None = open. `head_set`: the name of a saved profile.
    """

    role: str | None = None
    layers: tuple[int, ...] | None = None
    heads: tuple[tuple[int, int], ...] | None = None
    queries: tuple[int | None, int | None] | None = None
    steps: tuple[int | None, int | None] | None = None
    head_set: str | None = None

    def __post_init__(self) -> None:
        if self.role is not None and (not isinstance(self.role, str) or self.role not in ROLES):
            raise MarkError(f"there is no such role: it is {', '.join(ROLES[:-1])} or {ROLES[-1]}")
        if self.heads is not None and (self.layers is not None or self.head_set is not None):
            raise MarkError("heads already name their layers: give heads, or layers and a head_set")
        if self.layers is not None:
            layers = {_integer(layer, "a layer", signed=True) for layer in _listed(self.layers, "layers")}
            _set(self, layers=tuple(sorted(layers)))
        if self.heads is not None:
            _set(self, heads=tuple(sorted({_head(pair) for pair in _listed(self.heads, "heads")})))
        for name in ("queries", "steps"):
            if getattr(self, name) is not None:
                _set(self, **{name: _range(getattr(self, name), name)})
        if self.head_set is not None and not words(self.head_set, "the head set").strip():
            raise MarkError("the head set has no name: give that of a saved profile")

    def meets(self, other: "Scope") -> bool:
        """Whether one read can be in both scopes; True also where that depends on the model."""
        if None not in (self.role, other.role) and self.role != other.role:
            return False
        for mine, others in ((self.queries, other.queries), (self.steps, other.steps)):
            if mine and others and not _ranges_meet(mine, others):
                return False
        if self.heads is not None and other.heads is not None:
            return _heads_meet(self.heads, other.heads)
        mine, others = self._layers(), other._layers()
        if mine is None or others is None:
            return True
        return not mine.isdisjoint(others) or _mixed(mine, others)

    def _layers(self) -> set[int] | None:
        named = self.layers if self.heads is None else [layer for layer, _ in self.heads]
        return None if named is None else set(named)

    def __str__(self) -> str:
        told = [self.role] if self.role else []
        told += [f"layers {', '.join(map(str, self.layers[:12]))}"] if self.layers else []
        told += [f"heads {', '.join(f'{layer}:{head}' for layer, head in self.heads[:12])}"] if self.heads else []
        for name, pair in (("queries", self.queries), ("steps", self.steps)):
            if pair:
                told.append(f"{name} {pair[0] or 0} to {'the end' if pair[1] is None else pair[1]}")
        told += [f"head set {short(self.head_set)!r}"] if self.head_set else []
        return short(", ".join(told), 80) or "all reads"


def _head(pair: Any) -> tuple[int, int]:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise MarkError("heads are pairs (layer, head), such as ((3, 0), (3, 5))")
    return _integer(pair[0], "a layer", signed=True), _integer(pair[1], "a head")


def _mixed(mine: set[int], others: set[int]) -> bool:
    """Layers counted from both ends may be the same ones: only a model knows."""
    return (min(mine) < 0 <= max(others)) or (min(others) < 0 <= max(mine))


def _heads_meet(mine: tuple[tuple[int, int], ...], others: tuple[tuple[int, int], ...]) -> bool:
    if not set(mine).isdisjoint(others):
        return True
    ends = {head for layer, head in mine if layer < 0}, {head for layer, head in others if layer < 0}
    return any(layer >= 0 and head in ends[1] for layer, head in mine) or any(
        layer >= 0 and head in ends[0] for layer, head in others
    )


def _ranges_meet(mine: tuple[int | None, int | None], others: tuple[int | None, int | None]) -> bool:
    end = min(math.inf if side is None else side for side in (mine[1], others[1]))
    return max(mine[0] or 0, others[0] or 0) < end
