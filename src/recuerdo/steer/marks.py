"""Marks: what a person says about where to look. Plain data, checked when it is made; no model and no torch.

    Mark = where (words, characters, a box, a time, slots) + what to do + in which reads + who, why and when

The odds of a marked part are its share of a read divided by the share of all the rest. `boost` and `damp` multiply the
odds, `share` sets the share, `mute` removes the part as if it had never been there.
"""

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import MISSING, dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypedDict, TypeVar, Unpack

from recuerdo.errors import MarkError
from recuerdo.steer.places import MOST, Box, Quote, Scope, Slots, Span, Time, Where, day, now, number, short, words

__all__ = [
    "ACTIONS", "MOST", "MOST_FACTOR", "VERSION", "Box", "Mark", "Quote", "Scope", "Slots", "Span", "Time", "Where",
    "as_marks", "boost", "build", "check_overlaps", "check_version", "damp", "marks_as_data", "mute", "number", "plain",
    "read_marks", "share", "spans_of",
]  # fmt: skip

VERSION = 1  # of marks as data
MOST_FACTOR = 1e6  # beyond it 32-bit numbers leave nothing to the rest: that is share 1
MOST_SCOPES = 1024  # on one place: every pair of them is compared
ACTIONS = ("boost", "damp", "share", "mute")
ALL_READS = Scope()
KINDS: dict[str, type[Any]] = {"quote": Quote, "span": Span, "box": Box, "time": Time, "slots": Slots}

T = TypeVar("T")


@dataclass(frozen=True)
class Mark:
    """One wish about where to look.

    `action`: boost (`amount` = factor on the odds, above 1), damp (factor, between 0 and 1), share (the marked part
    gets exactly `amount` of each read, 0 to 1), mute (no amount). `date`: ISO 8601 or empty. Instead of a place, text
    is taken as a Quote and a pair of numbers as a Span. Raises MarkError.
    """

    where: Where
    action: str
    amount: float | None = None
    scope: Scope = ALL_READS
    author: str = ""
    reason: str = ""
    date: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", _place(self.where))
        if not isinstance(self.action, str) or self.action not in ACTIONS:
            raise MarkError(f"there is no such action{_nearest(self.action, ACTIONS)}")
        object.__setattr__(self, "amount", _amount(self.action, self.amount))
        if not isinstance(self.scope, Scope):
            raise MarkError(f"the scope is a Scope, not {type(self.scope).__name__}")
        words(self.author, "the author")
        words(self.reason, "the reason")
        day(self.date)

    def dated(self) -> "Mark":
        """The same mark with this second as its date, if it has none."""
        return self if self.date else replace(self, date=now())

    def to_data(self) -> dict[str, Any]:
        """As JSON-able data; what is at its default is left out."""
        data = plain(self)
        kind = next(name for name, made in KINDS.items() if isinstance(self.where, made))
        data["where"] = {"kind": kind, **plain(self.where)}
        if "scope" in data:
            data["scope"] = plain(self.scope)
        return data

    @classmethod
    def from_data(cls, data: Any) -> "Mark":
        """The mark of `to_data`; `where` may also be the words themselves. Raises MarkError for any other shape."""
        mark = dict(data) if isinstance(data, Mapping) else data
        if isinstance(mark, dict):
            check_version(mark.pop("version", VERSION), "the mark")
            if isinstance(where := mark.get("where"), Mapping):
                where = dict(where)
                kind = where.pop("kind", None)
                if not isinstance(kind, str) or kind not in KINDS:
                    raise MarkError(f"where has no such kind{_nearest(kind, KINDS)}")
                mark["where"] = build(KINDS[kind], where, f"a {kind}")
            elif "where" in mark:
                words(where, "where, if not an object,")
            if "scope" in mark:
                mark["scope"] = build(Scope, mark["scope"], "the scope")
        return build(cls, mark, "a mark")

    def __str__(self) -> str:
        amount = "" if self.amount is None else f" {'x' if self.action in ('boost', 'damp') else ''}{self.amount:g}"
        reads = "" if self.scope == ALL_READS else f" ({self.scope})"
        return f"{self.action}{amount} {self.where}{reads}"


def _place(where: Any) -> Where:
    if isinstance(where, Where):
        return where
    if isinstance(where, str):
        return Quote(where)
    if isinstance(where, tuple) and len(where) == 2:
        return Span(*where)
    raise MarkError(
        f"a mark is on words, on a pair (start, end) of characters, or on a Quote, Span, Box, Time or Slots, "
        f"not on {type(where).__name__}"
    )


def _amount(action: str, amount: Any) -> float | None:
    """The amount that fits the action. Raises MarkError with the action that was probably meant."""
    if action == "mute":
        if amount is not None:
            raise MarkError("mute takes no amount, it removes the marked part: to weaken it use damp")
        return None
    if amount is None:
        raise MarkError(f"{action} needs an amount: a {'share, 0 to 1' if action == 'share' else 'factor on the odds'}")
    value = number(amount, f"the amount of {action}")
    if action == "share" and not 0 <= value <= 1:
        raise MarkError(f"a share is between 0 and 1, not {value:g}: to multiply the odds use boost or damp")
    if action == "boost" and value <= 1:
        raise MarkError(f"boost needs a factor above 1, not {value:g}: to weaken use damp, to remove use mute")
    if action == "boost" and value > MOST_FACTOR:
        raise MarkError(f"boost by {value:g} is above {MOST_FACTOR:,.0f}: to leave nothing to the rest use share 1")
    if action == "damp" and not 0 < value < 1:
        raise MarkError(
            f"damp needs a factor between 0 and 1, not {value:g}: to strengthen use boost, to remove use mute"
        )
    return value


# ------------------------------------------------------------------------------------------------------ as people write


class About(TypedDict, total=False):
    """What may be said of a mark beside its place and amount: the fields of its Scope, and who, why, when."""

    role: str | None
    layers: Iterable[int] | None
    heads: Iterable[tuple[int, int]] | None
    queries: tuple[int | None, int | None] | None
    steps: tuple[int | None, int | None] | None
    head_set: str | None
    author: str
    reason: str
    date: str


Place = Where | str | tuple[int, int]


def boost(where: Place, factor: float, **about: Unpack[About]) -> Mark:
    """Multiply the odds of a place by `factor`, above 1. Raises MarkError."""
    return _made("boost", where, factor, about)


def damp(where: Place, factor: float, **about: Unpack[About]) -> Mark:
    """Multiply the odds of a place by `factor`, between 0 and 1. Raises MarkError."""
    return _made("damp", where, factor, about)


def share(where: Place, amount: float, **about: Unpack[About]) -> Mark:
    """Give a place exactly this share, 0 to 1, of each read. Raises MarkError."""
    return _made("share", where, amount, about)


def mute(where: Place, **about: Unpack[About]) -> Mark:
    """Remove a place from the reads. Raises MarkError."""
    return _made("mute", where, None, about)


def _made(action: str, where: Place, amount: float | None, about: Mapping[str, Any]) -> Mark:
    scoped = {field.name for field in fields(Scope)}
    for name in about:
        if name not in About.__annotations__:
            raise MarkError(f"{action} takes no {name!r}{_nearest(name, About.__annotations__)}")
    scope = Scope(**{name: value for name, value in about.items() if name in scoped})
    told: dict[str, Any] = {name: value for name, value in about.items() if name not in scoped}
    return Mark(_place(where), action, amount, scope=scope, **told)


# -------------------------------------------------------------------------------------------------------------- as data


def as_marks(marks: Any) -> tuple[Mark, ...]:
    """One mark, a list of them, or the data of either, as marks. Raises MarkError, also for more than MOST."""
    if isinstance(marks, Mark):
        return (marks,)
    if isinstance(marks, Mapping):
        if "marks" not in marks:
            return (Mark.from_data(marks),)
        for name in marks:
            if name not in ("version", "marks"):
                raise MarkError(f"marks as data have no {short(str(name))!r}{_nearest(name, ('version', 'marks'))}")
        check_version(marks.get("version", VERSION), "the marks")
        marks = marks["marks"]
    if isinstance(marks, str | bytes) or not isinstance(marks, Iterable):
        raise MarkError(f"marks are a list of marks, not {type(marks).__name__}: make one, such as boost('words', 4)")
    count = len(marks) if isinstance(marks, Sized) else None
    found = [] if count is not None and count > MOST else list(islice(marks, MOST + 1))
    if (count is not None and count > MOST) or len(found) > MOST:
        raise MarkError(f"{'too many' if count is None else f'{count:,}'} marks: at most {MOST:,} at once")
    return tuple(_numbered(item, i, len(found)) for i, item in enumerate(found, 1))


def _numbered(item: Any, i: int, count: int) -> Mark:
    if isinstance(item, Mark):
        return item
    try:
        return Mark.from_data(item)
    except MarkError as error:
        raise MarkError(f"mark {i} of {count}: {error}") from None


def marks_as_data(marks: Any) -> dict[str, Any]:
    """JSON-able data of marks, with the version: what `as_marks` and `read_marks` take."""
    return {"version": VERSION, "marks": [mark.to_data() for mark in as_marks(marks)]}


def read_marks(source: str | Path) -> tuple[Mark, ...]:
    """Marks from JSON: text that begins with [ or {, else the path of a file. Raises MarkError."""
    name = "the marks"
    if not isinstance(source, str) or source.lstrip()[:1] not in ("[", "{"):
        name = str(source)
        try:
            source = Path(source).read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise MarkError(f"{short(name)} is not UTF-8 text: marks are kept as JSON") from None
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise MarkError(f"marks cannot be read from {short(name, 100)!r}: {why}") from None
    try:
        return as_marks(json.loads(source))
    except MarkError:
        raise
    except (ValueError, RecursionError) as error:
        raise MarkError(f"{short(name, 100)} are not JSON ({short(str(error), 100)})") from None


def check_version(version: Any, what: str) -> None:
    """Raises MarkError for data of another version."""
    if isinstance(version, bool) or not isinstance(version, int) or not 0 < version < 2**31:
        raise MarkError(f"the version of {what} is no version: it is {VERSION}")
    if version > VERSION:
        raise MarkError(f"a newer recuerdo (version {version}) wrote {what}: update recuerdo")


def plain(item: Any) -> dict[str, Any]:
    """The fields of a dataclass that are not at their default, tuples as lists."""
    values = {field.name: (getattr(item, field.name), field.default) for field in fields(item)}
    return {name: _lists(value) for name, (value, usual) in values.items() if usual is MISSING or value != usual}


def _lists(value: Any) -> Any:
    return [_lists(entry) for entry in value] if isinstance(value, tuple) else value


def build(made: type[T], data: Any, what: str) -> T:
    """A dataclass from JSON data. Raises MarkError for data that are no object, unknown fields and missing ones."""
    known = {field.name: field.default is MISSING for field in fields(made)}  # type: ignore[arg-type]
    if not isinstance(data, Mapping):
        raise MarkError(f"{what} is an object with {', '.join(known)}, not {type(data).__name__}")
    for name in data:
        if name not in known:
            raise MarkError(f"{what} has no {short(str(name))!r}{_nearest(name, known)}")
    if missing := [name for name, needed in known.items() if needed and name not in data]:
        raise MarkError(f"{what} has no {missing[0]!r}, which it needs")
    return made(**data)


def _nearest(name: Any, known: Iterable[str]) -> str:
    """The way out after an unknown name. Cut short, as comparing two long names takes long."""
    names = list(known)
    near = difflib.get_close_matches(str(name)[:40], names, n=1)
    return f": did you mean {near[0]}?" if near else f": there is {', '.join(names)}"


# ------------------------------------------------------------------------------------------------------------ on a text


def spans_of(marks: Any, text: str) -> list[list[tuple[int, int]]]:
    """The characters (start, end) of each mark in `text`; an empty list for marks that are not on text.

    Raises MarkError for a quote that is not there or not the only one, and for characters of another text.
    """
    return [_characters(mark.where, text) for mark in as_marks(marks)]


def _characters(where: Where, text: str) -> list[tuple[int, int]]:
    if isinstance(where, Quote):
        return _places(where, text)
    if not isinstance(where, Span):
        return []
    if where.end > len(text):
        raise MarkError(
            f"the mark ends at character {where.end:,}, and the text has {len(text):,}: it was made on another text"
        )
    if where.quote not in (None, found := text[where.start : where.end]):
        told = f"characters {where.start} to {where.end} are {short(found)!r} here, not {short(where.quote or '')!r}"
        raise MarkError(f"{told}: the mark was made on another text")
    return [(where.start, where.end)]


def _places(where: Quote, text: str) -> list[tuple[int, int]]:
    quote, told = where.quote, repr(short(where.quote))
    if (first := text.find(quote)) < 0:
        raise MarkError(f"{told} is not in the text: {_instead(quote, text)}")
    if not where.every and where.occurrence is None:
        if text.find(quote, first + len(quote)) < 0:
            return [(first, first + len(quote))]
        raise MarkError(
            f"{told} stands {text.count(quote)} times in the text: choose one with its occurrence (from 1), mark every "
            "one, or quote more of the words around it"
        )
    found = [match.span() for match in re.finditer(re.escape(quote), text)]
    if where.occurrence is None:
        return found
    if where.occurrence > len(found):
        raise MarkError(f"{told} stands {len(found)} times in the text: there is no occurrence {where.occurrence}")
    return [found[where.occurrence - 1]]


def _instead(quote: str, text: str) -> str:
    """What to quote instead: the same words where only case, spaces or the form of quotation marks differ."""
    alike = {"'": "['‘’]", "’": "['‘’]", "‘": "['‘’]", '"': '["“”]', "“": '["“”]', "”": '["“”]', "-": "[-–—]"}
    parts = ("".join(alike.get(letter) or re.escape(letter) for letter in word) for word in quote[:200].split())
    near = re.search(r"\s+".join(parts), text, flags=re.IGNORECASE)
    if near is None:
        return "copy the words as they stand there"
    if quote.startswith(near[0]):
        return f"only its beginning is, at character {near.start():,}; copy the words as they stand there"
    return f"did you mean {near[0][:80]!r}, at character {near.start():,}?"


def check_overlaps(marks: Sequence[Mark], spans: Sequence[Sequence[tuple[int, int]]]) -> None:
    """Raises MarkError when two marks act on the same place in reads that may be the same.

    `spans[i]` holds the places of `marks[i]` as (start, end), end not included: characters, or as well tokens, patches
    or frames. Takes O(n log n) unless marks of many different scopes, MOST_SCOPES at most, lie on one another.
    """
    places = sorted((start, end, i) for i, found in enumerate(spans) for start, end in found)
    reached: dict[Scope, tuple[int, int]] = {}  # for each scope the last place: its end and its mark
    for start, end, i in places:
        reached = {scope: place for scope, place in reached.items() if place[0] > start}
        scope = marks[i].scope
        for other, (_, j) in reached.items():
            if j != i and scope.meets(other):
                raise MarkError(
                    f"two marks lie on one another: {marks[j]}, and {marks[i]}. Keep one of them, or give them scopes "
                    "that do not meet"
                )
        if len(reached) > MOST_SCOPES:
            raise MarkError(
                f"more than {MOST_SCOPES:,} scopes lie on one place ({marks[i]}): name several heads or layers in one"
            )
        reached[scope] = max(end, reached.get(scope, (0, 0))[0]), i
