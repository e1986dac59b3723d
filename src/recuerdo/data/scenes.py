"""Scenes of coloured shapes, made as they are asked for, and sentences that say what is on them, true or not.

A scene has one to three groups in the nine parts of a square: one large shape, or two to four small ones of the same
colour and kind. Which counts go with which colours and shapes in training, validation and test is parted, so that what
is judged are combinations that were never seen; and some colours never go with some shapes at all ("new"). Sentences
come from a small grammar with synonyms, and are read by it again: what a sentence claims can be checked against a
scene, fact by fact.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from recuerdo.errors import InputError

SIDE = 72
PART = SIDE // 3
SPLITS = ("train", "valid", "test", "new")
COLOURS = {
    "red": (220, 50, 47),
    "green": (60, 170, 70),
    "blue": (60, 100, 230),
    "yellow": (235, 205, 60),
    "orange": (240, 135, 30),
    "purple": (150, 70, 190),
    "white": (235, 235, 235),
    "pink": (245, 150, 190),
}
SHAPES = ("circle", "square", "triangle", "cross", "ring", "star")
NAMES = {  # of a shape: one, several
    "circle": (("circle", "circles"), ("disc", "discs")),
    "square": (("square", "squares"), ("box", "boxes")),
    "triangle": (("triangle", "triangles"),),
    "cross": (("cross", "crosses"), ("plus sign", "plus signs")),
    "ring": (("ring", "rings"), ("hoop", "hoops")),
    "star": (("star", "stars"),),
}
HUES = {name: (name,) for name in COLOURS} | {"purple": ("purple", "violet")}
COUNTS = {1: ("a", "one"), 2: ("two", "a pair of"), 3: ("three",), 4: ("four",)}
RELATIONS = {  # how a group lies to another: words, and (rows, columns) that grow that way
    "left": (("left of", "to the left of"), (0, -1)),
    "right": (("right of", "to the right of"), (0, 1)),
    "above": (("above", "over"), (-1, 0)),
    "below": (("below", "under"), (1, 0)),
}
PLACES = {
    (0, 0): ("at the top left", "in the top left corner"),
    (0, 1): ("at the top",),
    (0, 2): ("at the top right", "in the top right corner"),
    (1, 0): ("on the left",),
    (1, 1): ("in the middle", "in the centre"),
    (1, 2): ("on the right",),
    (2, 0): ("at the bottom left", "in the bottom left corner"),
    (2, 1): ("at the bottom",),
    (2, 2): ("at the bottom right", "in the bottom right corner"),
}
OPENINGS = ("", "there {is} ", "we see ", "a picture of ")
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Named:
    """Some things of one kind, as a sentence names them."""

    count: int
    colour: str
    shape: str


@dataclass(frozen=True)
class Group:
    """Things of one kind that lie together in one of the nine parts (row, column); `box` is their top, left, bottom and
    right, the last two behind them."""

    what: Named
    part: tuple[int, int]
    box: Box


@dataclass(frozen=True)
class Claim:
    """What a sentence says: where its subject is, or how it lies to an object."""

    subject: Named
    place: tuple[int, int] | None = None
    relation: str | None = None
    object: Named | None = None


@dataclass(frozen=True)
class Scenes:
    """`pixels` [b, 3, 72, 72] uint8, and the groups on each."""

    pixels: Tensor
    groups: tuple[tuple[Group, ...], ...]


def combinations(split: str) -> list[Named]:
    """The things, count, colour and shape together, that are of a split: 136 of training, 8 of validation and 16 of the
    test, whose colours go with their shapes in training, too, but in other numbers; and 32 that are "new", whose
    colours never go with their shapes elsewhere. Raises InputError for another split."""
    if split not in SPLITS:
        raise InputError(f"there is no split {split!r} of the scenes: choose {', '.join(SPLITS)}")
    return [thing for thing, own in _parted() if own == split]


@cache
def _parted() -> list[tuple[Named, str]]:
    held = {1: "test", 2: "test", 3: "valid"}
    found = []
    for i, colour in enumerate(COLOURS):
        for j, shape in enumerate(SHAPES):
            kind = (j - i) % len(SHAPES)
            for count in COUNTS:
                own = held.get(kind, "train") if count == 1 + (i + j) % len(COUNTS) else "train"
                found.append((Named(count, colour, shape), own if kind else "new"))
    return found


def scenes(split: str, count: int, draw: random.Random) -> Scenes:
    """So many scenes. Those of the other splits have at least one group that is of that split; the rest is of training.
    Raises InputError for another split."""
    known, own = combinations("train"), combinations(split)
    made = [_scene(known, own, draw) for _ in range(count)]
    return Scenes(_drawn([objects for _, objects in made], draw), tuple(groups for groups, _ in made))


# ------------------------------------------------------------------------------------------------------------ sentences


def describe(groups: Sequence[Group], draw: random.Random) -> str:
    """A true sentence about a scene: of one group where it is, of several how two of them lie to each other."""
    one, *others = draw.sample(groups, len(groups))
    if not others:
        place, turned = draw.choice(PLACES[one.part]), draw.random() < 0.25
        return f"{place} there {_is(one)} {_np(one, draw)}" if turned else f"{_opened(one, draw)} {place}"
    other = others[0]
    words = draw.choice(RELATIONS[draw.choice(_relations(one.part, other.part))][0])
    if draw.random() < 0.25:
        return f"{words} {_np(other, draw)} there {_is(one)} {_np(one, draw)}"
    return f"{_opened(one, draw)} {words} {_np(other, draw)}"


def claim(sentence: str) -> Claim | None:
    """What a sentence of the grammar says; None for any other."""
    named = [(found.span(), _NAMES[found[0]]) for found in _pattern().finditer(sentence)]
    frame, at = "", 0
    for (start, end), what in named:
        frame += sentence[at:start] + ("@s" if what.count > 1 else "@")
        at = end
    told = _frames().get(frame + sentence[at:])
    if told is None:
        return None
    place, relation, turned = told
    what = [one for _, one in named]
    return Claim(what[-1] if turned else what[0], place, relation, None if place else what[0 if turned else 1])


def spoken_of(sentence: str) -> list[tuple[tuple[int, int], Named]]:
    """What a sentence names, in its order: from which letter to which, and what."""
    return [(found.span(), _NAMES[found[0]]) for found in _pattern().finditer(sentence)]


def facts(said: Claim | None, groups: Sequence[Group]) -> dict[str, list[bool]]:
    """Each fact of a claim, by its kind, and whether the scene bears it out: `object` (colour and shape together),
    `count`, and `place` or `relation`. What is no claim is a false `sentence`."""
    if said is None:
        return {"sentence": [False]}
    found: dict[str, list[bool]] = {"object": [], "count": []}
    meant = []
    for named in (said.subject, said.object):
        if named is None:
            continue
        alike = [one for one in groups if (one.what.colour, one.what.shape) == (named.colour, named.shape)]
        found["object"].append(bool(alike))
        if alike:
            found["count"].append(alike[0].what.count == named.count)
            meant.append(alike[0])
    if said.place is not None:
        found["place"] = [bool(meant) and meant[0].part == said.place]
    else:
        there = len(meant) == 2 and meant[0] != meant[1]
        found["relation"] = [there and said.relation in _relations(meant[0].part, meant[1].part)]
    return found


def _relations(one: tuple[int, int], other: tuple[int, int]) -> list[str]:
    """How one part lies to another: one or two ways."""
    return [
        name
        for name, (_, way) in RELATIONS.items()
        if sum((a - b) * step for a, b, step in zip(one, other, way, strict=True)) > 0
    ]


def _is(group: Group) -> str:
    return "are" if group.what.count > 1 else "is"


def _np(group: Group, draw: random.Random) -> str:
    return draw.choice(_spellings(group.what))


def _opened(group: Group, draw: random.Random) -> str:
    return draw.choice(OPENINGS).format(**{"is": _is(group)}) + _np(group, draw)


def _spellings(what: Named) -> list[str]:
    return [
        f"{count if count != 'a' or hue[0] not in 'aeiou' else 'an'} {hue} {names[what.count > 1]}"
        for count in COUNTS[what.count]
        for hue in HUES[what.colour]
        for names in NAMES[what.shape]
    ]


_NAMES = {
    text: named
    for named in (Named(n, colour, shape) for n in COUNTS for colour in COLOURS for shape in SHAPES)
    for text in _spellings(named)
}


@cache
def _pattern() -> re.Pattern[str]:
    longest = sorted(_NAMES, key=len, reverse=True)
    return re.compile(r"\b(?:" + "|".join(map(re.escape, longest)) + r")\b")


@cache
def _frames() -> dict[str, tuple[tuple[int, int] | None, str | None, bool]]:
    """Whole sentences with @ for what is named (@s for several) -> place, relation, whether the subject comes last."""
    found: dict[str, tuple[tuple[int, int] | None, str | None, bool]] = {}
    for a, is_ in (("@", "is"), ("@s", "are")):
        for opening in (one.format(**{"is": is_}) for one in OPENINGS):
            for part, places in PLACES.items():
                found |= {f"{opening}{a} {words}": (part, None, False) for words in places}
            for name, (spelled, _) in RELATIONS.items():
                found |= {f"{opening}{a} {words} {b}": (None, name, False) for words in spelled for b in ("@", "@s")}
        for part, places in PLACES.items():
            found |= {f"{words} there {is_} {a}": (part, None, True) for words in places}
        for name, (spelled, _) in RELATIONS.items():
            found |= {f"{words} {b} there {is_} {a}": (None, name, True) for words in spelled for b in ("@", "@s")}
    return found


# ------------------------------------------------------------------------------------------------------------- pictures


@dataclass(frozen=True)
class _Object:
    colour: str
    shape: str
    down: float
    across: float
    size: float


def _scene(
    known: Sequence[Named], own: Sequence[Named], draw: random.Random
) -> tuple[tuple[Group, ...], list[_Object]]:
    many = draw.choice((1, 2, 2, 3))
    things = [draw.choice(own)]
    while len(things) < many:
        thing = draw.choice(known)
        if (thing.colour, thing.shape) not in [(one.colour, one.shape) for one in things]:
            things.append(thing)
    groups, objects = [], []
    for thing, part in zip(things, draw.sample(sorted(PLACES), many), strict=True):
        some = list(_laid(thing, part, draw))
        edges = [(o.down - o.size, o.across - o.size, o.down + o.size, o.across + o.size) for o in some]
        low, high = [int(min(e[i] for e in edges)) for i in (0, 1)], [-int(-max(e[i] for e in edges)) for i in (2, 3)]
        groups.append(Group(thing, part, (low[0], low[1], high[0] + 1, high[1] + 1)))
        objects += some
    return tuple(groups), objects


def _laid(thing: Named, part: tuple[int, int], draw: random.Random) -> Iterator[_Object]:
    """One large thing anywhere in a part, or small ones each in a quarter of it."""
    top, left = (PART * at for at in part)
    if thing.count == 1:
        size = draw.uniform(6.0, 9.5)
        free = PART / 2 - size - 0.5
        down, across = (at + PART / 2 + draw.uniform(-free, free) for at in (top, left))
        yield _Object(thing.colour, thing.shape, down, across, size)
        return
    size = draw.uniform(4.2, 5.2)
    for quarter in draw.sample(range(4), thing.count):
        middle = (PART * (1 + 2 * (quarter // 2)) / 4, PART * (1 + 2 * (quarter % 2)) / 4)
        free = PART / 4 - size - 0.3
        down, across = (at + m + draw.uniform(-free, free) for at, m in zip((top, left), middle, strict=True))
        yield _Object(thing.colour, thing.shape, down, across, size)


WIDE = 23  # pixels of the square in which a thing is drawn


def _drawn(scenes_: Sequence[Sequence[_Object]], draw: random.Random) -> Tensor:
    """The objects of each scene on a dark ground that is not quite even, all scenes at once."""
    b, noise = len(scenes_), torch.Generator().manual_seed(draw.getrandbits(62))
    ground = 15 + 50 * torch.rand(b, 1, 1, 1, generator=noise)
    margin = WIDE // 2 + 1
    canvas = (ground + 8 * torch.randn(b, 3, SIDE + 2 * margin, SIDE + 2 * margin, generator=noise)).clamp_(0, 255)
    for nth in range(max(map(len, scenes_), default=0)):
        rows = [i for i, objects in enumerate(scenes_) if nth < len(objects)]
        some = [scenes_[i][nth] for i in rows]
        middle = torch.tensor([[o.down, o.across] for o in some])
        first = middle.floor().long() - WIDE // 2
        at = torch.arange(WIDE)
        away = (first[:, :, None] + at + 0.5) - middle[:, :, None]  # [n, 2, wide]: down and across
        turn = (torch.rand(len(some), generator=noise) - 0.5) * 0.4
        size = torch.tensor([o.size for o in some])
        inside = _inside([o.shape for o in some], away, size, turn)[:, None]
        hue = torch.tensor([COLOURS[o.colour] for o in some]) + 24 * (torch.rand(len(some), 3, generator=noise) - 0.5)
        where = (
            torch.tensor(rows)[:, None, None, None],
            torch.arange(3)[None, :, None, None],
            (first[:, 0, None] + at + margin)[:, None, :, None],
            (first[:, 1, None] + at + margin)[:, None, None, :],
        )
        canvas[where] = canvas[where] * (1 - inside) + hue[:, :, None, None] * inside
    return canvas[:, :, margin:-margin, margin:-margin].clamp(0, 255).round().to(torch.uint8)


def _inside(shapes: Sequence[str], away: Tensor, size: Tensor, turn: Tensor) -> Tensor:
    """How much of each pixel [n, wide, wide] is inside of a shape: from its signed distance to the outline."""
    r, cos, sin = (x[:, None, None] for x in (size, turn.cos(), turn.sin()))
    down, across = away[:, 0, :, None], away[:, 1, None, :]
    v, u = down * cos - across * sin, down * sin + across * cos
    far = (u.square() + v.square()).sqrt()
    tip = torch.pi / 5
    angle = (torch.atan2(u, -v).remainder(2 * tip) - tip).abs()  # from the nearest valley of a star
    angle = tip - angle
    x, y, inner = far * angle.cos(), far * angle.sin(), 0.45 * r
    edge = torch.stack([inner * torch.cos(torch.tensor(tip)) - r, inner * torch.sin(torch.tensor(tip))])
    away_of = {
        "circle": far - r,
        "ring": (far - 0.72 * r).abs() - 0.28 * r,
        "square": torch.maximum(u.abs(), v.abs()) - 0.86 * r,
        "triangle": torch.maximum(v, 0.866 * u.abs() - 0.5 * v) - 0.5 * r,
        "cross": torch.minimum(
            torch.maximum(u.abs() - 0.3 * r, v.abs() - r), torch.maximum(v.abs() - 0.3 * r, u.abs() - r)
        ),
        "star": ((x - r) * edge[1] - y * edge[0]) / edge.norm(dim=0),
    }
    which = torch.tensor([SHAPES.index(shape) for shape in shapes])
    distance = torch.stack([away_of[shape].expand(len(which), WIDE, WIDE) for shape in SHAPES])
    return (0.5 - distance[which, torch.arange(len(which))]).clamp(0, 1)
