"""Is what a translator reads the alignment that people gave? Error rates on the Hansards (Mihalcea & Pedersen 2003)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from recuerdo.data.parallel import lines, padded
from recuerdo.data.subwords import Subwords
from recuerdo.errors import InputError
from recuerdo.metrics import Link, alignment_error_rate, parse_alignment

CHOSEN_ON = 100  # pairs at the front, on which the best map is chosen; the others are the test
FILES = ("enfr.src-tgt", "enfr.gold")

Maps = Callable[[Tensor, Tensor], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Gold:
    """A pair of sentences and its links (source word, target word), sure ones and possible ones."""

    source: str
    target: str
    sure: frozenset[Link]
    possible: frozenset[Link]

    def turned(self) -> "Gold":
        """The same from the other side."""
        sure, possible = (frozenset((j, i) for i, j in links) for links in (self.sure, self.possible))
        return Gold(self.target, self.source, sure, possible)


def hansards(folder: Path) -> list[Gold]:
    """The 447 pairs of English and French in `folder`. Raises InputError where they are not."""
    texts, links = (lines(folder / name) for name in FILES)
    if len(texts) != len(links):
        raise InputError(f"{folder} has {len(texts)} pairs and {len(links)} alignments: one for one")
    found = []
    for text, line in zip(texts, links, strict=True):
        source, _, target = text.partition(" ||| ")
        sure, possible = parse_alignment(line, base=1)
        found.append(Gold(source, target, frozenset(sure), frozenset(possible)))
    return found


def error_rates(maps: Maps, gold: Sequence[Gold], cut: Subwords) -> dict[str, float]:
    """Percent of error of each map that `maps` gives of a source [1, s] and a target [1, t], and of the diagonal.

    A target word is linked to the source word that it reads most, unless it reads the end of the source more.
    """
    found: dict[str, list[set[Link]]] = {}
    for one in gold:
        words, of = cut.words(one.source)
        said, said_of = cut.words(one.target)
        source, target = (padded(cut.encode([text])) for text in (one.source, one.target))
        for name, weights in maps(source, target).items():
            found.setdefault(name, []).append(links_of(weights[0], of, len(words), said_of, len(said)))
        found.setdefault("diagonal", []).append(
            {(min(len(words) - 1, round(j * len(words) / len(said))), j) for j in range(len(said))}
        )
    sure, possible = [one.sure for one in gold], [one.possible for one in gold]
    return {name: 100 * alignment_error_rate(links, sure, possible) for name, links in found.items()}


def links_of(weights: Tensor, of: Sequence[int], words: int, said_of: Sequence[int], said: int) -> set[Link]:
    """Weights [t, s] of pieces -> links of words."""
    most = of_words(weights, of, words, said_of, said).argmax(-1)
    return {(int(i), j) for j, i in enumerate(most) if i < words}


def of_words(weights: Tensor, of: Sequence[int], words: int, said_of: Sequence[int], said: int) -> Tensor:
    """Weights [t, s] of pieces -> of words, [said, words + 1], the end of the source last.

    What a word read of another is the sum over that one's pieces, and the mean over its own. `of` and `said_of` say
    which word each piece is of (`Subwords.words`).
    """
    onto, from_ = _owners(of, words), _owners(said_of, said)[:, :said]
    return (from_ / from_.sum(0)).T @ weights @ onto


def _owners(of: Sequence[int], words: int) -> Tensor:
    """[pieces, words + 1]: 1 where a piece is of a word, or, last, of none."""
    return torch.nn.functional.one_hot(torch.tensor([word if word >= 0 else words for word in of]), words + 1).float()


def judged(maps: Maps, gold: Sequence[Gold], cut: Subwords) -> Iterator[tuple[str, float]]:
    """On the pairs behind the first hundred: the usual map, the raw one, and the one that is best on the first hundred.

    `maps` names the usual one first; the raw one is the next.
    """
    chosen_on, test = error_rates(maps, gold[:CHOSEN_ON], cut), error_rates(maps, gold[CHOSEN_ON:], cut)
    names = [name for name in test if name != "diagonal"]
    best = min(names, key=chosen_on.__getitem__)
    yield f"AER, the usual map ({names[0]})", test[names[0]]
    yield f"AER, raw ({names[min(1, len(names) - 1)]})", test[names[min(1, len(names) - 1)]]
    yield f"AER, chosen on {CHOSEN_ON} pairs ({best})", test[best]
    yield "AER, diagonal", test["diagonal"]
