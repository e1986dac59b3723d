"""Made-up sequences for the tasks of memory: copy, repeat copy, associative recall, priority sort, n-grams.

As in Graves et al. 2014. Each function makes one batch, and all that is drawn comes from the generator it is given.
A batch shows the input first and then asks, with silent steps, for the answer; only answer steps count.
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor


@dataclass(frozen=True, eq=False)
class Sequences:
    """inputs [b, t, in], targets [b, t, out] of 0 and 1 (or shares), and `asked` [t]: which steps are answers.

    `best` is what an ideal observer loses, in nats a sequence; 0 where the answer can be known.
    """

    inputs: Tensor
    targets: Tensor
    asked: Tensor
    best: float = 0.0

    def __len__(self) -> int:
        return self.inputs.shape[0]


def _bits(draw: Generator, *shape: int) -> Tensor:
    return torch.randint(0, 2, shape, generator=draw).float()


def _blank(batch: int, steps: int, width: int) -> Tensor:
    return torch.zeros(batch, steps, width)


def _asked(steps: int, answers: int) -> Tensor:
    return torch.arange(steps) >= steps - answers


def copy(draw: Generator, batch: int, width: int, size: int) -> Sequences:
    """`size` vectors of `width` bits, an end mark, and the same vectors as answer. One channel more for the mark."""
    items, steps = _bits(draw, batch, size, width), 2 * size + 1
    inputs, targets = _blank(batch, steps, width + 1), _blank(batch, steps, width)
    inputs[:, :size, :width], inputs[:, size, width] = items, 1
    targets[:, size + 1 :] = items
    return Sequences(inputs, targets, _asked(steps, size))


def repeat_copy(draw: Generator, batch: int, width: int, size: int, *, repeats: int, scale: float = 10.0) -> Sequences:
    """A start mark, `size` vectors, how often (over `scale`), and as answer the vectors so often, then an end mark.

    Two channels more in the input (mark, how often), one more in the answer (end).
    """
    items, answers = _bits(draw, batch, size, width), size * repeats + 1
    steps = size + 2 + answers
    inputs, targets = _blank(batch, steps, width + 2), _blank(batch, steps, width + 1)
    inputs[:, 0, width], inputs[:, size + 1, width + 1] = 1, repeats / scale
    inputs[:, 1 : size + 1, :width] = items
    targets[:, size + 2 : -1, :width] = items.repeat(1, repeats, 1)
    targets[:, -1, width] = 1
    return Sequences(inputs, targets, _asked(steps, answers))


def associative_recall(draw: Generator, batch: int, width: int, size: int, *, long: int = 3) -> Sequences:
    """`size` items of `long` vectors, each behind a mark; then one of them between other marks: what came after it?

    Two channels more, for the marks of items and of the question.
    """
    items = _bits(draw, batch, size, long, width)
    which = torch.randint(0, size - 1, (batch,), generator=draw)
    rows = torch.arange(batch)
    shown = size * (long + 1)
    steps = shown + (long + 2) + long
    inputs, targets = _blank(batch, steps, width + 2), _blank(batch, steps, width)
    parts = inputs[:, :shown].unflatten(1, (size, long + 1))
    parts[:, :, 0, width], parts[:, :, 1:, :width] = 1, items
    inputs[:, [shown, shown + long + 1], width + 1] = 1
    inputs[:, shown + 1 : shown + 1 + long, :width] = items[rows, which]
    targets[:, -long:] = items[rows, which + 1]
    return Sequences(inputs, targets, _asked(steps, long))


def priority_sort(draw: Generator, batch: int, width: int, size: int) -> Sequences:
    """`size` vectors with priorities in [-1, 1], an end mark, and the first four fifths of them, highest first.

    Two channels more in the input: priority and mark.
    """
    items, priority = _bits(draw, batch, size, width), 2 * torch.rand(batch, size, generator=draw) - 1
    answers = max(1, size * 4 // 5)
    steps = size + 1 + answers
    inputs, targets = _blank(batch, steps, width + 2), _blank(batch, steps, width)
    inputs[:, :size, :width], inputs[:, :size, width], inputs[:, size, width + 1] = items, priority, 1
    order = priority.argsort(-1, descending=True)[:, :answers]
    targets[:, size + 1 :] = items.gather(1, order[..., None].expand(-1, -1, width))
    return Sequences(inputs, targets, _asked(steps, answers))


def n_gram(draw: Generator, batch: int, width: int, size: int, *, order: int = 6) -> Sequences:
    """`size` bits of which each depends on the `order - 1` before, by a table that is new in every sequence.

    The table is drawn from Beta(1/2, 1/2); `width` is 1. Nobody can know all bits: `best` is what is lost by the
    Bayes estimator (N1 + 1/2) / (N0 + N1 + 1) from the counts so far (Graves et al. 2014, equation 10).
    """
    past = order - 1
    table = _beta_half(draw, batch, 2**past)
    chance = torch.rand(batch, size, generator=draw)
    bits = torch.zeros(batch, size)
    bits[:, :past] = (chance[:, :past] < 0.5).float()
    rows, places = torch.arange(batch), 2 ** torch.arange(past)
    counts, lost = torch.zeros(batch, 2**past, 2), torch.zeros(batch)
    for step in range(past, size):
        context = (bits[:, step - past : step].long() * places).sum(-1)
        bits[:, step] = (chance[:, step] < table[rows, context]).float()
        seen, bit = counts[rows, context], bits[:, step].long()
        lost -= ((seen.gather(1, bit[:, None])[:, 0] + 0.5) / (seen.sum(-1) + 1)).log()
        counts[rows, context, bit] += 1
    asked = torch.arange(size - 1) >= past - 1
    return Sequences(bits[:, :-1, None], bits[:, 1:, None], asked, float(lost.mean()))


def _beta_half(draw: Generator, *shape: int) -> Tensor:
    """Draws from Beta(1/2, 1/2), which is the arcsine law: sin^2 of an even angle."""
    return (torch.rand(shape, generator=draw) * torch.pi / 2).sin().square()
