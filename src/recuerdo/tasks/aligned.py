"""Is what a translator reads the alignment that people gave? Error rates on the Hansards (Mihalcea & Pedersen 2003)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from recuerdo.data.parallel import lines, padded
from recuerdo.data.subwords import Subwords
from recuerdo.data.wording import Worded, as_written, owners
from recuerdo.errors import InputError
from recuerdo.metrics import Link, alignment_error_rate, parse_alignment

CHOSEN_ON = 100  # pairs at the front, on which the best map is chosen; the others are the test
FILES = ("enfr.src-tgt", "enfr.gold")

Maps = Callable[[Tensor, Tensor], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Gold:
    """A pair of sentences and its links (source word, target word), sure ones and possible ones."""

    source: Worded
    target: Worded
    sure: frozenset[Link]
    possible: frozenset[Link]

    def turned(self) -> "Gold":
        """The same from the other side."""
        sure, possible = (frozenset((j, i) for i, j in links) for links in (self.sure, self.possible))
        return Gold(self.target, self.source, sure, possible)


def hansards(folder: Path, *, tokenised: bool) -> list[Gold]:
    """The 447 pairs of English and French in `folder`, as they are written, or as Multi30k's tokeniser leaves them.

    Raises InputError where they are not.
    """
    texts, links = (lines(folder / name) for name in FILES)
    if len(texts) != len(links):
        raise InputError(f"{folder} has {len(texts)} pairs and {len(links)} alignments: one for one")
    found = []
    for text, line in zip(texts, links, strict=True):
        english, _, french = text.partition(" ||| ")
        sure, possible = parse_alignment(line, base=1)
        pair = [
            as_written(side.split(), french=i == 1, tokenised=tokenised) for i, side in enumerate((english, french))
        ]
        found.append(Gold(pair[0], pair[1], frozenset(sure), frozenset(possible)))
    return found


def error_rates(maps: Maps, gold: Sequence[Gold], cut: Subwords) -> dict[str, float]:
    """Percent of error of each map that `maps` gives of a source [1, s] and a target [1, t], and of the diagonal.

    A target word is linked to the source word that it reads most, unless it reads the end of the source more.
    """
    found: dict[str, list[set[Link]]] = {}
    for one in gold:
        source, target = (padded(cut.encode([side.text])) for side in (one.source, one.target))
        onto, from_ = (owning(cut, side) for side in (one.source, one.target))
        for name, weights in maps(source, target).items():
            found.setdefault(name, []).append(links_of(weights[0], onto, from_))
        words, said = len(one.source.spans), len(one.target.spans)
        found.setdefault("diagonal", []).append({(min(words - 1, round(j * words / said)), j) for j in range(said)})
    sure, possible = [one.sure for one in gold], [one.possible for one in gold]
    return {name: 100 * alignment_error_rate(links, sure, possible) for name, links in found.items()}


def owning(cut: Subwords, told: Worded) -> Tensor:
    """[pieces, words + 1]: 1 where a piece is of a word, or, last, of none."""
    found = torch.zeros(len(ends := cut.ends(told.text)), len(told.spans) + 1)
    for piece, words in enumerate(owners(ends, told)):
        found[piece, words or -1] = 1
    return found


def links_of(weights: Tensor, onto: Tensor, from_: Tensor) -> set[Link]:
    """Weights [t, s] of pieces -> links of words; one word that stands for two has the links of both."""
    table = of_words(weights, onto, from_)
    return {(i, j) for j, i in (table == table.amax(-1, keepdim=True)).nonzero().tolist() if i < onto.shape[1] - 1}


def of_words(weights: Tensor, onto: Tensor, from_: Tensor) -> Tensor:
    """Weights [t, s] of pieces -> of words, [said, words + 1], the end of the source last.

    What a word read of another is the sum over that one's pieces, and the mean over its own. `onto` and `from_` say
    of which words the pieces of source and target are (`owning`).
    """
    own = from_[:, :-1]
    return (own / own.sum(0).clamp_min(1)).T @ weights @ onto


def judged(maps: Maps, gold: Sequence[Gold], cut: Subwords) -> Iterator[tuple[str, float]]:
    """On the pairs behind the first hundred: the usual map, the raw one, the shifted one of a Transformer, and the one
    that is best on the first hundred.

    `maps` names the usual one first; the raw one is the next, and the shifted one, where there is one, the third.
    """
    chosen_on, test = error_rates(maps, gold[:CHOSEN_ON], cut), error_rates(maps, gold[CHOSEN_ON:], cut)
    names = [name for name in test if name != "diagonal"]
    best = min(names, key=chosen_on.__getitem__)
    yield f"AER, the usual map ({names[0]})", test[names[0]]
    yield f"AER, raw ({names[min(1, len(names) - 1)]})", test[names[min(1, len(names) - 1)]]
    for name in names[2:3]:
        yield f"AER, shifted ({name})", test[name]
    yield f"AER, chosen on {CHOSEN_ON} pairs ({best})", test[best]
    yield "AER, diagonal", test["diagonal"]
