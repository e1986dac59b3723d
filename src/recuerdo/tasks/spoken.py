"""What a model says of texts: of many in batches of similar length; of one drawn several times, or as it is said."""

from collections.abc import Callable, Iterator, Sequence

import torch

from recuerdo.data.parallel import PAD, padded
from recuerdo.data.subwords import TORN, Subwords
from recuerdo.errors import InputError
from recuerdo.nn.decoding import Choice, Line, Speaker, beam, greedy, sample, stream

AT_ONCE = 6000  # pieces of a batch, over all ways of its beam
MOST = 1000  # lines that are drawn of a text: each is a row of one batch


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
        source = _of(model, [ids[i] for i in rows])
        limit = torch.tensor([longest(int(size)) for size in (source != PAD).sum(1)], device=source.device)
        if wide == 1:
            yield rows, [[line] for line in greedy(model, source, longest=limit)]
        else:
            yield rows, beam(model, source, longest=limit, width=wide, alpha=alpha)


def drawn(
    model: Speaker, cut: Subwords, ids: Sequence[int], *, count: int, choose: Choice, longest: int
) -> list[tuple[str, float]]:
    """What is said of one text when its pieces are chosen so, so many times: the lines and the mean log-probability of
    their pieces, best first. Raises InputError for a count that is not from 1 to MOST."""
    if not 1 <= count <= MOST:
        raise InputError(f"lines are drawn 1 to {MOST} times, not {count}")
    lines = sample(model, _of(model, [ids] * count), longest=longest, choose=choose)
    return sorted(((cut.decode(line.pieces), line.score) for line in lines), key=lambda one: -one[1])


def streamed(model: Speaker, cut: Subwords, ids: Sequence[int], *, longest: int) -> Iterator[str]:
    """What is said of one text, greedily, in parts as they are said; together they are the whole."""
    pieces: list[int] = []
    told = ""
    for piece in stream(model, _of(model, [ids]), longest=longest):
        pieces.append(piece)
        now = cut.decode(pieces)
        if not now.endswith(TORN):  # a letter that is not whole yet
            yield now[len(told) :]
            told = now
    yield cut.decode(pieces)[len(told) :]


def _of(model: Speaker, ids: Sequence[Sequence[int]]) -> torch.Tensor:
    source = padded(ids)
    return source.to(next(model.parameters()).device) if isinstance(model, torch.nn.Module) else source
