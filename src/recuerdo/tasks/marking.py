"""Marks on words of a source that a model reads while it says something: boost them, or mute them."""

import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from recuerdo.data.wording import Worded
from recuerdo.errors import InputError
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


def bare(word: str) -> str:
    """A word without the marks around it, in lower case; what has nothing else is left as it is."""
    return re.sub(r"^\W+|\W+$", "", word.lower()) or word
