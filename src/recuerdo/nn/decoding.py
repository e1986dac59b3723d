"""How a decoder says something: the likeliest piece after piece, drawn pieces, or several ways at once (beam).

What is common: keys are kept, so that a step costs one position; sentences that have ended leave the batch; nothing is
said of padding. A sentence is said the same alone and among others, up to the rounding of sums.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import wraps
from typing import ParamSpec, Protocol, Self, TypeVar

import torch
from torch import Tensor

from recuerdo.errors import InputError
from recuerdo.read.watch import watched

P = ParamSpec("P")
T = TypeVar("T")
ENOUGH = 4  # ended sentences leave the batch when they are one in so many


class Said(Protocol):
    """A decoder in the middle of some sentences."""

    def ways(self, count: int) -> Self:
        """Each sentence in so many ways, from now on a row each; those of one sentence stand beside each other."""
        ...

    def take(self, rows: Tensor) -> Self:
        """Some of the sentences with all their ways, by rows [n], each as often as it is named. They go on, and this
        is used up."""
        ...

    def reorder(self, rows: Tensor) -> Self:
        """As `take`, where each row is of the same sentence as the one that stands there now."""
        ...


class Speaker(Protocol):
    """A model that says something about a source, piece by piece."""

    def begin(self, source: Tensor) -> Said:
        """Sources [b, s] of which nothing is said yet."""
        ...

    def step(self, pieces: Tensor, said: Said) -> Tensor:
        """Hear the last pieces [b]; `said` moves on, and what may come next is given as logits [b, v]."""
        ...


@dataclass(frozen=True)
class Marks:
    """The pieces that are no text: padding, begin and end."""

    pad: int = 0
    begin: int = 1
    end: int = 2


@dataclass(frozen=True)
class Line:
    """Something that was said: its pieces without the end, the mean log-probability that ranks it, and whether it ended
    by itself or was cut off."""

    pieces: list[int]
    score: float
    ended: bool


Choice = Callable[[Tensor], tuple[Tensor, Tensor]]  # logits [b, v] -> the log-probability and the piece, each [b]


def likeliest(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The likeliest piece."""
    return logits.log_softmax(-1).max(-1)


class Drawn:
    """A piece drawn by its probability.

    `temperature` divides the logits: below 1 the likely becomes likelier. `top`: only among so many, 0 = all. `share`:
    only among the fewest that hold such a share of the probability (nucleus: Holtzman et al. 2020). The same `seed`
    draws the same for the same batch. The log-probability is the model's own, of what it would say undrawn.

    Raises InputError for what cannot be.
    """

    def __init__(self, temperature: float = 1.0, *, top: int = 0, share: float = 1.0, seed: int = 0):
        if not 0 < temperature < float("inf") or top < 0 or not 0 < share <= 1:
            raise InputError(
                f"nothing can be drawn with temperature {temperature}, top {top} and share {share}: give a temperature "
                "above 0, top 0 or more, and a share above 0 and up to 1"
            )
        self.temperature, self.top, self.share, self.seed = temperature, top, share, seed
        self._draw: torch.Generator | None = None

    def __call__(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [b, v] -> the log-probability and the piece, each [b]."""
        if self._draw is None or self._draw.device != logits.device:
            self._draw = torch.Generator(logits.device).manual_seed(self.seed)
        chances = (logits / self.temperature).softmax(-1)
        if 0 < self.top < chances.shape[-1]:
            least = chances.topk(self.top, -1).values[:, -1:]
            chances = chances.where(chances >= least, 0.0)
        if self.share < 1:
            ordered, at = chances.sort(-1, descending=True)
            held = ordered.cumsum(-1) - ordered  # by those that are likelier
            chances = chances.scatter(-1, at, ordered.where(held < self.share * ordered.sum(-1, keepdim=True), 0.0))
        piece = torch.multinomial(chances, 1, generator=self._draw)
        return logits.log_softmax(-1).gather(1, piece)[:, 0], piece[:, 0]


def _mode() -> Callable[[], AbstractContextManager[object]]:
    """No gradients; and where nobody watches none later either, which spares a tenth or more of one line's time. Who
    watches may go on with what was read, and ask for gradients of that."""
    return torch.no_grad if watched() else torch.inference_mode


def _without_gradients(say: Callable[P, T]) -> Callable[P, T]:
    @wraps(say)
    def quick(*args: P.args, **kwargs: P.kwargs) -> T:
        with _mode()():
            return say(*args, **kwargs)

    return quick


def stream(
    speaker: Speaker, source: Tensor, *, longest: int, choose: Choice = likeliest, marks: Marks = Marks()
) -> Iterator[int]:
    """The pieces said of one source [1, s], each as soon as it is chosen, without the end."""
    mode = _mode()  # one for all pieces: what was begun in one cannot be written to in the other
    with mode():
        said, last = speaker.begin(source), torch.full((1,), marks.begin, device=source.device)
    for _ in range(longest):
        with mode():
            _, last = choose(_text_only(speaker.step(last, said), marks))
        if int(last) == marks.end:
            return
        yield int(last)


def greedy(speaker: Speaker, source: Tensor, *, longest: int | Tensor, marks: Marks = Marks()) -> list[Line]:
    """The likeliest next piece again and again, at most `longest` (one number or [b]): a Line a source [b, s]."""
    return sample(speaker, source, longest=longest, choose=likeliest, marks=marks)


@_without_gradients
def sample(
    speaker: Speaker, source: Tensor, *, longest: int | Tensor, choose: Choice, marks: Marks = Marks()
) -> list[Line]:
    """One piece after another as `choose` says, at most `longest` (one number or [b]): a Line a source [b, s]."""
    b = len(source)
    if not b:
        return []
    limits, pieces = torch.as_tensor(longest).expand(b).tolist(), [list[int]() for _ in range(b)]
    said, rows, going = speaker.begin(source), list(range(b)), [True] * b  # rows: the sentence of each row
    last, total = torch.full((b,), marks.begin, device=source.device), torch.zeros(b, device=source.device)
    out: list[Line | None] = [None] * b
    while True:
        best, last = choose(_text_only(speaker.step(last, said), marks))
        total = total + best
        for i, piece in enumerate(last.tolist()):
            if going[i]:
                line = pieces[rows[i]]
                line.append(piece)
                if piece == marks.end or len(line) >= limits[rows[i]]:
                    out[rows[i]], going[i] = _line(line, float(total[i]), 1.0, marks), False
        if True not in going:
            return [line for line in out if line is not None]
        if ENOUGH * sum(going) <= (ENOUGH - 1) * len(going):
            some = [i for i, still in enumerate(going) if still]
            left = torch.tensor(some, device=source.device)
            said, rows, going = said.take(left), [rows[i] for i in some], [True] * len(some)
            last, total = last[left], total[left]


@_without_gradients
def beam(
    speaker: Speaker,
    source: Tensor,
    *,
    longest: int | Tensor,
    width: int = 5,
    alpha: float = 1.0,
    marks: Marks = Marks(),
) -> list[list[Line]]:
    """Beam search: for each source [b, s] the `width` best lines that were found, best first.

    A line's score is its log-probability divided by its length (with the end) to the power of `alpha`. At each step the
    `width` best goings-on of a sentence are kept; those of them that end are put aside, and a sentence is through when
    so many are there, or at its `longest` (one number, or [b]). Raises InputError for a width below 1.
    """
    if width < 1:
        raise InputError(f"a beam is 1 wide or more, not {width}")
    b, device = len(source), source.device
    if not b:
        return []
    limit = torch.as_tensor(longest, device=device).expand(b)
    said, last = speaker.begin(source), torch.full((b,), marks.begin, device=device)
    rows = torch.arange(b, device=device)
    pieces = last.new_zeros(b * width, 0)
    total = torch.full((b, width), -torch.inf, device=device)
    total[:, 0] = 0.0  # at first all ways are the same way
    out: list[list[Line]] = [[] for _ in range(b)]
    for length in range(1, int(limit.max()) + 1):
        logs = _text_only(speaker.step(last, said), marks).log_softmax(-1)
        # The best of each way first, one more than is kept, as one of them may end: the best of all are among these.
        many = min(width + 1, logs.shape[-1])
        likely, which = logs.topk(many, -1)
        if length == 1:
            said, likely, which = said.ways(width), *(x.repeat_interleave(width, 0) for x in (likely, which))
        scores = total[:, :, None] + likely.view(-1, width, many)
        scores, found = scores.flatten(1).topk(min(2 * width, width * many))
        way, piece = found // many, which.view(-1, width * many).gather(1, found)
        ends = piece == marks.end
        rank = torch.arange(found.shape[1], device=device)
        row, at = (ends & (rank < width) & scores.isfinite()).nonzero(as_tuple=True)
        through = pieces[row * width + way[row, at]].tolist()
        for line, told, score in zip(rows[row].tolist(), through, scores[row, at].tolist(), strict=True):
            out[line].append(_line([*told, marks.end], score, alpha, marks))
        # What goes on: the best `width` that do not end.
        order = (ends.long() * found.shape[1] + rank).topk(width, largest=False).indices
        total, piece, way = (x.gather(1, order) for x in (scores, piece, way))
        from_ = (torch.arange(len(rows), device=device)[:, None] * width + way).flatten()
        pieces = torch.cat([pieces[from_], piece.view(-1, 1)], 1)
        left = torch.tensor([len(out[i]) < width for i in rows.tolist()], device=device)
        cut = left & (limit[rows] <= length)
        for i in cut.nonzero()[:, 0].tolist():
            for j in range(width - len(out[int(rows[i])])):
                if total[i, j].isfinite():
                    out[int(rows[i])].append(_line(pieces[i * width + j].tolist(), float(total[i, j]), alpha, marks))
        left = left & ~cut
        if not left.any():
            break
        keep = left.repeat_interleave(width)
        said = said.reorder(from_) if left.all() else said.take(from_[keep])
        rows, total, pieces, last = rows[left], total[left], pieces[keep], piece.flatten()[keep]
    return [sorted(lines, key=lambda one: -one.score)[:width] for lines in out]


def _text_only(logits: Tensor, marks: Marks) -> Tensor:
    """Padding and begin are never said."""
    logits = logits.float()
    logits[:, marks.pad] = logits[:, marks.begin] = -torch.inf
    return logits


def _line(pieces: Sequence[int], total: float, alpha: float, marks: Marks) -> Line:
    ended = pieces[-1] == marks.end
    return Line(list(pieces[:-1] if ended else pieces), total / len(pieces) ** alpha, ended)
