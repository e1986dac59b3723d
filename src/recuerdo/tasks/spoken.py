"""What a model says of many texts: batches of similar length, one after the other."""

from collections.abc import Callable, Iterator, Sequence

import torch

from recuerdo.data.parallel import PAD, padded
from recuerdo.nn.decoding import Line, Speaker, beam, greedy

AT_ONCE = 6000  # pieces of a batch, over all ways of its beam


@torch.no_grad()
def spoken(
    model: Speaker,
    ids: Sequence[Sequence[int]],
    *,
    longest: Callable[[int], int],
    wide: int = 1,
    alpha: float = 1.0,
) -> Iterator[tuple[list[int], list[list[Line]]]]:
    """Rows of `ids` and the lines said of each, the best first, until all have come by.

    `longest`: how many pieces may be said of a text of so many, of each by itself: the others of a batch change
    nothing. One way of `wide` is greedy.
    """
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    while order:
        many = max(1, AT_ONCE // (wide * len(ids[order[-1]])))
        rows, order = order[-many:], order[:-many]
        source = padded([ids[i] for i in rows])
        limit = torch.tensor([longest(int(size)) for size in (source != PAD).sum(1)])
        if isinstance(model, torch.nn.Module):
            device = next(model.parameters()).device
            source, limit = source.to(device), limit.to(device)
        if wide == 1:
            yield rows, [[line] for line in greedy(model, source, longest=limit)]
        else:
            yield rows, beam(model, source, longest=limit, width=wide, alpha=alpha)
