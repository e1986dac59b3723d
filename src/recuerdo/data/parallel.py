"""Parallel text: pairs of lines that say the same in two languages, and batches of them with subwords.

They come as two files with a line for a line, as Multi30k does (Elliott et al. 2016), or as one table of columns.
"""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recuerdo.data.subwords import BEGIN, PAD
from recuerdo.errors import InputError

ONE_IN = 150  # first lines of a table without parts is kept for validation, and one for the test
NOISE = 4.0  # pieces by which lengths are blurred, so that a batch is not always of the same pairs

Pair = tuple[str, str]
Pieces = tuple[list[int], list[int]]
Link = tuple[int, int]


def lines(path: str | Path) -> list[str]:
    """The lines of a text file, or of one in .gz. Raises InputError for one that cannot be read as UTF-8."""
    path = Path(path)
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = raw[: error.start].count(b"\n") + 1
        raise InputError(f"{path} is not UTF-8 in line {number}: save it as UTF-8 (iconv -t utf-8)") from None
    return text.replace("\r\n", "\n").removesuffix("\n").split("\n") if text else []


def aligned(source: str | Path, target: str | Path) -> list[Pair]:
    """The pairs of two files, line by line; those with an empty side are left out. Raises InputError for two files that
    are not of the same length, for what `lines` does not read, and for no pair at all."""
    first, second = lines(source), lines(target)
    if len(first) != len(second):
        raise InputError(
            f"{source} has {len(first)} lines and {target} has {len(second)}: line by line they must say the same"
        )
    return _there(zip(first, second, strict=True), f"{source} and {target}")


def table(path: str | Path, source: int, target: int) -> list[Pair]:
    """The pairs in two columns of a file whose columns are parted by tabs, counted from 0. Raises InputError."""
    told = []
    for number, line in enumerate(lines(path), 1):
        cells = line.split("\t")
        if line and len(cells) <= max(source, target):
            raise InputError(f"line {number} of {path} has {len(cells)} columns, not {max(source, target) + 1}")
        if line:
            told.append((cells[source], cells[target]))
    return _there(told, str(path))


def _there(pairs, where: str) -> list[Pair]:
    told = [(a.strip(), b.strip()) for a, b in pairs]
    told = [(a, b) for a, b in told if a and b]
    if not told:
        raise InputError(f"there is no pair of lines in {where}")
    return told


@dataclass(frozen=True)
class Source:
    """Where pairs come from: two files line by line, or one table of two columns.

    `part`: train, valid or test of a table that has no such parts (`parted`), "" = all of it. `turned`: the second
    language is the source.
    """

    files: tuple[str, ...]
    part: str = ""
    turned: bool = False

    def pairs(self) -> list[Pair]:
        """Them. Raises InputError as `aligned` and `table` do."""
        told = _read(self.files)
        told = parted(told, self.part) if self.part else told
        return [(b, a) for a, b in told] if self.turned else told


@lru_cache(8)
def _read(files: tuple[str, ...]) -> list[Pair]:
    return table(files[0], 0, 1) if len(files) == 1 else aligned(*files)


def parted(pairs: Sequence[Pair], part: str) -> list[Pair]:
    """train, valid or test: by a checksum of the first line, so that all translations of one are in one part, and the
    same pairs always; no line of either language that is in valid or test is in train."""
    where = {0: "valid", 1: "test"}
    of = [where.get(zlib.crc32(a.encode()) % ONE_IN, "train") for a, _ in pairs]
    if part != "train":
        return [pair for pair, its in zip(pairs, of, strict=True) if its == part]
    kept = {b for (_, b), its in zip(pairs, of, strict=True) if its != "train"}
    return [pair for pair, its in zip(pairs, of, strict=True) if its == "train" and pair[1] not in kept]


@dataclass(frozen=True, eq=False)
class Bilingual:
    """A batch of pairs as pieces: source [b, s] and target [b, t] int64, each with the end, padded with 0.

    `links` [b, t - 1, s]: what each piece of the target but the last should read, rows that sum to one, or to 0 where
    nobody knows; None where no marks are given.
    """

    source: Tensor
    target: Tensor
    links: Tensor | None = None

    def __len__(self) -> int:
        """The pieces of the target: the loss is the mean over these."""
        return int((self.target != PAD).sum())

    @property
    def told(self) -> Tensor:
        """What stands before each piece of the target, [b, t]: begin, then all but the last."""
        return before(self.target)

    def split(self, n: int) -> list["Bilingual"]:
        """The batch as at most n batches, without padding that all of their pairs have."""
        sides = list(zip(self.source.chunk(n), self.target.chunk(n), strict=True))
        links = [None] * len(sides) if self.links is None else self.links.chunk(n)
        found = []
        for part, some in zip(sides, links, strict=True):
            source, target = (side[:, : int((side != PAD).sum(1).max())] for side in part)
            found.append(
                Bilingual(source, target, None if some is None else some[:, : target.shape[1] - 1, : source.shape[1]])
            )
        return found

    def to(self, device: torch.device) -> "Bilingual":
        """The batch on another device."""
        links = None if self.links is None else self.links.to(device)
        return Bilingual(self.source.to(device), self.target.to(device), links)


def before(target: Tensor) -> Tensor:
    """What stands before each piece of targets [b, t]: begin, then all but the last."""
    told = torch.cat([torch.full_like(target[:, :1], BEGIN), target[:, :-1]], 1)
    return told.masked_fill(target == PAD, PAD)


def padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Pieces of some lines -> [b, t] int64, padded with 0."""
    width = max((len(row) for row in rows), default=0)
    return torch.tensor([[*row, *[PAD] * (width - len(row))] for row in rows], dtype=torch.long).view(len(rows), width)


def batch(pairs: Sequence[Pieces], links: Sequence[Sequence[Link]] | None = None) -> Bilingual:
    """Pairs of pieces as a batch; `links` of each pair say which pieces (source, target) go together."""
    source, target = padded([a for a, _ in pairs]), padded([b for _, b in pairs])
    if links is None:
        return Bilingual(source, target)
    wanted = torch.zeros(len(pairs), target.shape[1] - 1, source.shape[1])
    for row, some in enumerate(links):
        for i, j in some:
            wanted[row, j, i] = 1.0
    return Bilingual(source, target, wanted / wanted.sum(-1, keepdim=True).clamp_min(1.0))


def buckets(pairs: Sequence[Pieces], pieces: int, draw: np.random.Generator) -> list[list[int]]:
    """One round over all pairs: numbers of pairs of similar length, batch by batch, in random order.

    A batch has at most so many `pieces` on each side, padding counted, but at least one pair.
    """
    sizes = np.array([(len(a), len(b)) for a, b in pairs], dtype=float).reshape(-1, 2)
    order = np.argsort(sizes.sum(1) + NOISE * draw.random(len(sizes)), kind="stable")
    found, group, longest = [], list[int](), np.zeros(2)
    for i in order.tolist():
        size = np.maximum(longest, sizes[i])
        if group and size.max() * (len(group) + 1) > pieces:
            found.append(group)
            group, size = [], sizes[i]
        group.append(i)
        longest = size
    if group:
        found.append(group)
    return [found[i] for i in draw.permutation(len(found))]


def rounds(
    pairs: Sequence[Pieces],
    pieces: int,
    *,
    seed: int,
    start: int = 0,
    links: Sequence[Sequence[Link]] | None = None,
) -> Iterator[Bilingual]:
    """Batches without end from number `start` on; a batch depends on the seed and its number alone."""
    number, round_ = 0, 0
    while True:
        groups = buckets(pairs, pieces, np.random.default_rng((seed, round_)))
        for group in groups[max(0, start - number) :]:
            yield batch([pairs[i] for i in group], None if links is None else [links[i] for i in group])
        number, round_ = number + len(groups), round_ + 1
        start = max(start, number)
