"""Put marks onto the keys of a model: tokens of a text, slots of a memory (`recuerdo.steer.cells`: image, sound)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from recuerdo.errors import MarkError
from recuerdo.steer.marks import Mark, check_overlaps, spans_of
from recuerdo.steer.places import Slots

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


def on_prompt(
    marks: Sequence[Mark], text: str, prompt: str, offsets: Sequence[tuple[int, int]], document: tuple[int, int]
) -> list[Tensor]:
    """The tokens of a prompt, bool [n] for each mark, for marks that count their characters in `text`.

    `document` is where the prompt has the text: whole, or without the blanks at its ends, which a chat template may
    strip. Raises MarkError as `on_tokens` does.
    """
    start, end = document
    shift = max(text.find(prompt[start:end]), 0) - start
    inside = [(max(a, start) + shift, min(b, end) + shift) if a < end and b > start else (0, 0) for a, b in offsets]
    return on_tokens(marks, text, inside)


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


def on_slots(slots: Slots) -> Tensor:
    """The slots as keys, bool [largest slot + 1]."""
    keys = torch.zeros(max(slots.slots) + 1, dtype=torch.bool)
    keys[list(slots.slots)] = True
    return keys
