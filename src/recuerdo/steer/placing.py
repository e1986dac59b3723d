"""Put marks onto the keys of a model: tokens of a text, patches of an image, frames of a sound, slots of a memory."""

from collections.abc import Sequence

import torch
from torch import Tensor

from recuerdo.errors import MarkError
from recuerdo.steer.marks import Mark, check_overlaps, spans_of
from recuerdo.steer.places import Box, Slots, Time

Spans = list[tuple[int, int]]


def on_tokens(
    marks: Sequence[Mark], text: str, offsets: Sequence[tuple[int, int]], *, document: tuple[int, int] | None = None
) -> list[Tensor]:
    """The tokens of each mark, bool [n] for n offsets (the characters of each token in `text`).

    A token belongs to a mark that holds any of its visible characters. Marks on text count characters in the document,
    which is `text` or the part of it between the two numbers. Marks on anything else get no token.

    Raises MarkError for marks that do not fit the text, that hold no token, or that lie on one another.
    """
    start, end = document or (0, len(text))
    spans = spans_of(marks, text[start:end])
    visible = [_visible(text, a, b) for a, b in offsets]
    found, taken = [], []
    for mark, places in zip(marks, spans, strict=True):
        keys = torch.zeros(len(offsets), dtype=torch.bool)
        for a, b in places:
            keys |= torch.tensor([x < b + start and y > a + start for x, y in visible], dtype=torch.bool)
        if places and not bool(keys.any()):
            raise MarkError(f"the mark {mark} holds no token of the text: mark at least one letter of it")
        found.append(keys)
        taken.append(runs(keys))
    check_overlaps(marks, taken)
    return found


def _visible(text: str, start: int, end: int) -> tuple[int, int]:
    """A token's characters without the space around them; (0, 0) for none."""
    piece = text[start:end]
    lead, tail = len(piece) - len(piece.lstrip()), len(piece) - len(piece.rstrip())
    return (start + lead, end - tail) if lead < len(piece) else (0, 0)


def runs(keys: Tensor) -> Spans:
    """The runs of True in [n] bool, as (first, behind the last)."""
    steps = torch.diff(torch.nn.functional.pad(keys.long(), (1, 1)))
    firsts, ends = (steps == 1).nonzero()[:, 0].tolist(), (steps == -1).nonzero()[:, 0].tolist()
    return list(zip(firsts, ends, strict=True))


def on_patches(box: Box, rows: int, columns: int) -> Tensor:
    """The cells of a grid whose centres lie in a box, bool [rows, columns]; if none does, the cell it covers most."""
    top, left = torch.arange(rows) / rows, torch.arange(columns) / columns
    high = (torch.minimum(top + 1 / rows, torch.tensor(box.bottom)) - top.clamp_min(box.top)).clamp_min(0)
    wide = (torch.minimum(left + 1 / columns, torch.tensor(box.right)) - left.clamp_min(box.left)).clamp_min(0)
    y, x = top + 0.5 / rows, left + 0.5 / columns
    inside = ((y >= box.top) & (y < box.bottom))[:, None] & ((x >= box.left) & (x < box.right))
    if not bool(inside.any()):
        inside.view(-1)[int((high[:, None] * wide).argmax())] = True
    return inside


def on_frames(time: Time, frames: int, seconds: float) -> Tensor:
    """The frames, `seconds` long each, whose middles lie in a span of time, bool [frames]; at least one.

    Raises MarkError for a span behind the last frame.
    """
    if time.start >= frames * seconds:
        raise MarkError(f"the mark on {time} lies behind the end of the sound, {frames * seconds:g} s")
    middle = (torch.arange(frames) + 0.5) * seconds
    inside = (middle >= time.start) & (middle < time.end)
    if not bool(inside.any()):
        inside[min(int(time.start / seconds), frames - 1)] = True
    return inside


def on_slots(slots: Slots) -> Tensor:
    """The slots as keys, bool [largest slot + 1]."""
    keys = torch.zeros(max(slots.slots) + 1, dtype=torch.bool)
    keys[list(slots.slots)] = True
    return keys
