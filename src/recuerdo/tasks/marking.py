"""Marks on what a model reads while it says something, words or parts of a picture: boost them, or mute them."""

import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from recuerdo.data.wording import Worded
from recuerdo.errors import InputError
from recuerdo.nn.grid import within
from recuerdo.read import Bend, Odds, Reading, mute
from recuerdo.read.watch import Address

BOOST = 20.0  # what boosting a word multiplies its odds by
SOURCE = ("cross", "align")  # modules that read the source for what is said
WITHIN = "encoder."  # and those that read it for itself

Rule = Callable[[Address, Reading], Sequence[Bend]]


def marking(told: Worded, onto: Tensor, boosted: Sequence[str], muted: Sequence[str]) -> Rule:
    """The rule (`recuerdo.read.watch.bending`) of marks on words, or on some that follow each other.

    `onto` [pieces, words + 1] says of which words the pieces are. What is muted is read by nobody, neither for what is
    said nor within the source, so that nothing of a Transformer's answer depends on it; a recurrent encoder has carried
    it on. What is boosted has 20 times the odds in each read for what is said.

    Raises InputError for words that the source has not, and for one that is marked twice.
    """
    taken = torch.zeros(len(onto), dtype=torch.bool)
    found: list[tuple[str, Tensor]] = []
    for what, words in (("boost", boosted), ("mute", muted)):
        for word in words:
            keys = onto[:, _places(told, word)].any(1)
            if (keys & taken).any():
                raise InputError(f"{word!r} is marked twice: boost it or mute it, once")
            taken |= keys
            found.append((what, keys))
    if not any(what == "boost" for what, _ in found) and taken[:-1].all():
        raise InputError("all words are muted: leave one to be read")

    def rule(place: Address, reading: Reading) -> Sequence[Bend]:
        whole, within = place.path.rpartition(".")[2] in SOURCE, place.path.startswith(WITHIN)
        if reading.shape[3] != len(onto) or not (whole or within):
            return ()
        device = reading.mixed.device
        return [
            mute(keys.to(device)) if what == "mute" else Odds(keys.to(device), BOOST)
            for what, keys in found
            if whole or what == "mute"
        ]

    return rule


def _places(told: Worded, words: str) -> list[int]:
    """Where these words stand, one after the other, wherever they do."""
    there, wanted = [bare(word) for word in told.words], [bare(word) for word in words.split()]
    found = [i + j for i in range(len(there)) for j in range(len(wanted)) if there[i : i + len(wanted)] == wanted]
    if not found:
        raise InputError(f"the text has no words {words!r}: give some as they stand there")
    return sorted(set(found))


def regions(
    grid: tuple[int, int], *, only: Sequence[str] = (), boosted: Sequence[str] = (), muted: Sequence[str] = ()
) -> tuple[Rule, list[str]]:
    """The rule of marks on boxes of a picture that is read as rows x columns of cells, and the marks as they are told.

    A box is "left, top, right, bottom", in shares of the picture. `only`: what lies in none of these is read by nobody.
    Raises InputError for what is no box, and where all is muted.
    """
    cells = grid[0] * grid[1]
    out = torch.zeros(cells, dtype=torch.bool)
    if only:
        out = ~torch.stack([within(box(one), *grid) for one in only]).any(0)
    for one in muted:
        out = out | within(box(one), *grid)
    if out.all():
        raise InputError("all of the picture is muted: leave a part to be read")
    more = torch.zeros(cells, dtype=torch.bool)
    for one in boosted:
        more = more | within(box(one), *grid)

    def rule(place: Address, reading: Reading) -> Sequence[Bend]:
        if reading.shape[3] != cells:
            return ()
        device = reading.mixed.device
        bends: list[Bend] = [mute(out.to(device))] if out.any() else []
        return [*bends, Odds((more & ~out).to(device), BOOST)] if (more & ~out).any() else bends

    told = (("only", only), ("boost", boosted), ("mute", muted))
    return rule, [f"{what}: {one}" for what, some in told for one in some]


def masked(picture: Tensor, *, only: Sequence[str] = (), muted: Sequence[str] = ()) -> Tensor:
    """A picture [height, width] of which all is black that lies in none of the boxes `only`, or in a muted one. Raises
    as `regions`."""
    seen = torch.full(picture.shape, not only, dtype=torch.bool)
    for some, value in ((only, True), (muted, False)):
        for one in some:
            seen[within(box(one), *picture.shape).view(picture.shape)] = value
    if not seen.any():
        raise InputError("all of the picture is muted: leave a part to be read")
    return picture * seen


def box(text: str) -> tuple[float, float, float, float]:
    """Left, top, right and bottom, in shares of a picture. Raises InputError."""
    try:
        left, top, right, bottom = map(float, text.split(","))
    except ValueError:
        left = top = right = bottom = 0.0
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise InputError(
            f"{text!r} is no box of a picture: write left,top,right,bottom in shares of it, such as 0,0,0.5,1 for its "
            "left half"
        )
    return left, top, right, bottom


def bare(word: str) -> str:
    """A word without the marks around it, in lower case; what has nothing else is left as it is."""
    return re.sub(r"^\W+|\W+$", "", word.lower()) or word
