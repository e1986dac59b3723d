"""The pairs of a translation as they are trained with: read once, cut into pieces, and which pieces go together."""

from functools import lru_cache

from recuerdo.data.aligning import align, by_hand, dictionary, words_of
from recuerdo.data.parallel import Pair, Pieces, Source
from recuerdo.data.subwords import Subwords
from recuerdo.data.wording import owners


@lru_cache(16)
def all_of(sources: tuple[Source, ...]) -> list[Pair]:
    """The pairs of all sources, one source after the other."""
    return [pair for source in sources for pair in source.pairs()]


@lru_cache(4)
def learned(sources: tuple[Source, ...], size: int, tokenised: bool) -> Subwords:
    """Subwords of both sides together."""
    return Subwords.learn([side for pair in all_of(sources) for side in pair], size, tokenised=tokenised)


@lru_cache(16)
def encoded(sources: tuple[Source, ...], told: str) -> list[Pieces]:
    """The pieces of each pair."""
    cut, pairs = Subwords(told), all_of(sources)
    return list(zip(cut.encode([a for a, _ in pairs]), cut.encode([b for _, b in pairs]), strict=True))


@lru_cache(4)
def linked(sources: tuple[Source, ...], told: str, by: str = "") -> list[list[tuple[int, int]]]:
    """Which pieces of each pair go together: those of words that do, as the dictionary `by`, a file, has it first."""
    known = dictionary(by) if by else {}
    cut, lines = Subwords(told), [[" ".join(side.split()) for side in pair] for pair in all_of(sources)]
    words = [[words_of(side) for side in pair] for pair in lines]
    plain = [([w.lower() for w in a.words], [w.lower() for w in b.words]) for a, b in words]
    links = [by_hand(a, b, some, known) for (a, b), some in zip(plain, align(plain), strict=True)]
    found = []
    for (a, b), some in zip(words, links, strict=True):
        pieces: list[dict[int, list[int]]] = [{}, {}]
        for side, told_side in zip(pieces, (a, b), strict=True):
            for piece, its in enumerate(owners(cut.ends(told_side.text), told_side)):
                for word in its:
                    side.setdefault(word, []).append(piece)
        found.append([(i, j) for w, v in sorted(some) for i in pieces[0].get(w, ()) for j in pieces[1].get(v, ())])
    return found
