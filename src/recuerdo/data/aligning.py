"""Which words of two lines go together, learned from many pairs of lines and nothing else.

IBM model 1 (Brown et al. 1993) with a pull to the diagonal (Dyer, Chahuneau & Smith 2013), learned both ways; what both
ways say is taken, and grown by neighbours that one of them says, of words without a link (Koehn et al. 2003). It gives
marks from which a translator's attention can learn (Garg et al. 2019). A person's dictionary has the last word.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from recuerdo.data.parallel import lines
from recuerdo.data.wording import Worded
from recuerdo.errors import InputError

WORD = re.compile(r"\w+|[^\w\s]")
PULL = 4.0  # how fast a link loses with its distance from the diagonal
NONE = 0.08  # the share of words that go with nothing
LEAST = 1e-9  # of a probability
AROUND = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]

Link = tuple[int, int]  # word of the source, word of the target


def words_of(text: str) -> Worded:
    """A line's words, each mark by itself."""
    return Worded(text, tuple(found.span() for found in WORD.finditer(text)))


def align(pairs: Sequence[tuple[Sequence[str], Sequence[str]]], *, rounds: int = 5) -> list[set[Link]]:
    """The links of each pair of lines, given as words."""
    if not pairs:
        return []
    ways = []
    for one, two in ((0, 1), (1, 0)):
        ways.append(_one_way([pair[one] for pair in pairs], [pair[two] for pair in pairs], rounds))
    return [
        grown({(i, j) for j, i in enumerate(there) if i >= 0}, {(i, j) for i, j in enumerate(back) if j >= 0})
        for there, back in zip(*ways, strict=True)
    ]


def dictionary(path: str | Path) -> dict[str, set[str]]:
    """The words of a source that each word of a target is known to come from: a file with a word of the source, a tab
    and a word of the target in each line, in lower case here. Raises InputError for a line of another form."""
    found: dict[str, set[str]] = {}
    for number, line in enumerate(lines(path), 1):
        words = line.lower().split("\t")
        if not line.strip():
            continue
        if len(words) != 2 or not all(word.strip() for word in words):
            raise InputError(
                f"{path}, line {number}, is no word of the source, a tab and a word of the target: {line!r}"
            )
        found.setdefault(words[1].strip(), set()).add(words[0].strip())
    return found


def by_hand(source: Sequence[str], target: Sequence[str], links: set[Link], known: Mapping[str, set[str]]) -> set[Link]:
    """Links of a pair of lines in which the words of a person's dictionary go where it says: of several places the one
    that was linked before, or else the one nearest to the diagonal."""
    found = set(links)
    for j, word in enumerate(target):
        there = [i for i, other in enumerate(source) if other in known.get(word, ())]
        if not there:
            continue
        kept = {(i, j) for i in there} & links
        straight = j * len(source) / len(target)
        found = {link for link in found if link[1] != j} | (kept or {(min(there, key=lambda i: abs(i - straight)), j)})
    return found


def grown(there: set[Link], back: set[Link]) -> set[Link]:
    """What both say, and, from there on, neighbours that one of them says of two words that have no link yet."""
    found, either = there & back, there | back
    fresh = list(found)
    while fresh:
        i, j = fresh.pop()
        for a, b in AROUND:
            near = (i + a, j + b)
            if near in either and not any(near[0] == x or near[1] == y for x, y in found):
                found.add(near)
                fresh.append(near)
    return found


def _one_way(sources: list[Sequence[str]], targets: list[Sequence[str]], rounds: int) -> list[list[int]]:
    """For each word of each target the word of its source that it goes with, -1 for none."""
    known: list[dict[str, int]] = [{"": 0}, {}]
    source, target = (
        [np.array([own.setdefault(word, len(own)) for word in line], dtype=np.int64) for line in lines]
        for own, lines in zip(known, (sources, targets), strict=True)
    )
    n, m = (np.array([len(line) for line in side]) for side in (source, target))
    if not m.sum():
        return [[] for _ in targets]
    # A row for each word of a target; in it nothing, and each word of the source.
    of = np.repeat(np.arange(len(n)), m)
    wide = n[of] + 1
    starts = np.concatenate([[0], np.cumsum(wide)[:-1]])
    row = np.repeat(np.arange(len(of), dtype=np.int32), wide)
    place = (np.arange(len(row)) - starts[row]).astype(np.int32)  # 0: nothing; i + 1: word i
    first = np.concatenate([[0], np.cumsum(n)[:-1]])
    all_source = np.concatenate([*source, np.zeros(1, dtype=np.int64)])
    one = np.where(place > 0, all_source[np.minimum(first[of[row]] + place - 1, len(all_source) - 1)], 0)
    two = np.concatenate(target)[row]
    at = (np.arange(len(of)) - np.concatenate([[0], np.cumsum(m)[:-1]])[of] + 0.5) / m[of]
    prior = np.exp(-PULL * np.abs((place - 0.5) / np.maximum(n[of[row]], 1) - at[row]))
    prior[place == 0] = 0
    total = np.bincount(row, prior, len(of))[row]
    prior = np.where(place > 0, (1 - NONE) * prior / np.maximum(total, LEAST), NONE)
    del at, total
    kinds, code = np.unique(one * len(known[1]) + two, return_inverse=True)
    owner = kinds // len(known[1])
    chance = np.ones(len(kinds))
    share = prior
    for _ in range(rounds):
        share = chance[code] * prior
        share /= np.maximum(np.bincount(row, share, len(of)), LEAST)[row]
        count = np.bincount(code, share, len(kinds))
        chance = count / np.maximum(np.bincount(owner, count, len(known[0])), LEAST)[owner]
    share = chance[code] * prior
    best = np.maximum.reduceat(share, starts)
    chosen = np.full(len(of), -1)
    hit = np.flatnonzero(share >= best[row])[::-1]
    chosen[row[hit]] = place[hit] - 1  # the first of equals stays
    return [line.tolist() for line in np.split(chosen, np.cumsum(m)[:-1])]
