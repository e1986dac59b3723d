"""Where a person says that words lie on pictures: boxes that train a captioner's looks, and judge them."""

import csv
from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from recuerdo.data.captioned import Captioned
from recuerdo.data.parallel import lines
from recuerdo.data.subwords import Subwords
from recuerdo.data.wording import Worded
from recuerdo.errors import InputError
from recuerdo.nn.grid import within
from recuerdo.tasks.captioned import Seen
from recuerdo.tasks.marking import bare, box

HEAD = ["image", "word", "left", "top", "right", "bottom"]
Box = tuple[float, float, float, float]
Marked = dict[str, list[tuple[tuple[str, ...], Box]]]  # of each picture's name: words, and the box they are about


@lru_cache(4)
def boxes_of(file: str) -> Marked:
    """The boxes of a table with the head image,word,left,top,right,bottom, its edges in shares of the picture.

    A word may be several ("black dog"), and may have several boxes on a picture. Raises InputError for a line of
    another form, with its number.
    """
    rows = [row for row in csv.reader(lines(file)) if row]
    if not rows or [cell.strip().lower() for cell in rows[0]] != HEAD:
        raise InputError(f"{file} is no table of boxes: its first line is {','.join(HEAD)}")
    found: Marked = {}
    for number, row in enumerate(rows[1:], 2):
        words = tuple(map(bare, row[1].split())) if len(row) == len(HEAD) else ()
        if not words:
            raise InputError(f"row {number} of {file} is no image, word and box: write {','.join(HEAD)}")
        try:
            edges = box(",".join(row[2:]))
        except InputError as error:
            raise InputError(f"row {number} of {file}: {error}") from None
        found.setdefault(row[0].strip(), []).append((words, edges))
    if not found:
        raise InputError(f"{file} has no box below its head")
    return found


def spans(words: Sequence[str], marked: Sequence[tuple[tuple[str, ...], Box]]) -> dict[int, list[Box]]:
    """The boxes of each word of a caption that a mark is about, by its number."""
    plain, found = list(map(bare, words)), dict[int, list[Box]]()
    for told, edges in marked:
        for first in range(len(plain) - len(told) + 1):
            if tuple(plain[first : first + len(told)]) == told:
                for word in range(first, first + len(told)):
                    found.setdefault(word, []).append(edges)
    return found


def cells_of(
    pairs: Sequence[tuple[Captioned, str]], cut: Subwords, marked: Marked, grid: tuple[int, int], shape: Sequence[int]
) -> Tensor:
    """Where the pieces of captions should look: bool [b, t, cells], as `shape` [b, t] is, nothing where nobody says."""
    found = torch.zeros(*shape, grid[0] * grid[1], dtype=torch.bool)
    for row, (one, caption) in enumerate(pairs):
        told = Worded.by_blanks(caption)
        about = spans(told.words, marked.get(one.path.name, ()))
        for piece, last in enumerate(cut.ends(caption)[: shape[1] - 1]):
            for word, (start, end) in enumerate(told.spans):
                if word in about and start <= last < end:
                    found[row, piece] = torch.stack([within(edges, *grid) for edges in about[word]]).any(0)
    return found


def pointed_at(seen: Sequence[Seen], there: Sequence[Captioned], marked: Marked) -> dict[str, float]:
    """Of the words that were said and that a mark is about, in percent: how often the cell that was read most is in a
    box of theirs (pointing game), and what these boxes cover of the picture; and how many such words there are.
    Raises InputError where there is none."""
    found = [hit for one, picture in zip(seen, there, strict=True) for hit in _hits(one, marked.get(picture.path.name))]
    if not found:
        raise InputError("no word that was said on these pictures has a box: mark words as they are said there")
    inside, covered = (sum(column) / len(found) for column in zip(*found, strict=True))
    return {"words in their box": 100 * inside, "box of the picture": 100 * covered, "words": float(len(found))}


def _hits(seen: Seen, marked: Sequence[tuple[tuple[str, ...], Box]] | None) -> Iterator[tuple[bool, float]]:
    for word, some in spans(seen.words, marked or ()).items():
        cells = torch.stack([within(edges, *seen.grid) for edges in some]).any(0)
        best = max(range(len(seen.weights[word])), key=seen.weights[word].__getitem__)
        yield bool(cells[best]), float(cells.float().mean())
