"""How much a model supports what it said, when some tokens are not there: what the truth of a map is measured by.

The target is fixed first: the answer that was heard (its probability per token), or, for an encoder, the meaning of
the whole text (cosine with its mean vector). Then tokens are taken away in one of two ways. `keys`: nobody reads them,
in no layer, head or row. `input`: a neutral token stands in their place.

A key that nobody reads need not be there: the token is left out of the sequence and the others keep their positions,
which is exact and shorter. Where positions are not told to the model (relative distances, windows) this would not be
the same; there the keys are muted in every read. Which one holds is tried on the text itself.
"""

import copy
import inspect
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from recuerdo.bridge.attention import attach
from recuerdo.bridge.run import Heard, Loaded
from recuerdo.errors import InputError, ModelError
from recuerdo.read import bending, mute

REMOVALS = ("keys", "input")
TOKENS_AT_ONCE = 1024
WASTE = 0.25  # of a batch may be padding
SAME = 1e-4  # relative: supports that differ by less are the same number in float32
Support = Callable[[np.ndarray], np.ndarray]


def support_of(loaded: Loaded, heard: Heard, removal: str) -> Support:
    """A function: which of the n tokens before the answer are there, bool [v, n] -> the model's support [v], 0 to 1.

    `removal` is "keys" or "input". Raises InputError for another one, ModelError for a model that neither answered
    nor is an encoder; the function raises InputError when nothing is left to read.
    """
    if removal not in REMOVALS:
        raise InputError(f"there is no removal {removal!r}: choose keys or input")
    if not can_judge(loaded, heard):
        raise ModelError(
            f"{loaded.name} gave no answer here, so there is nothing whose support could fall: ask a question"
        )
    ids, neutral = torch.tensor(heard.ids), neutral_token(loaded.tokenizer)
    with torch.no_grad():
        judge = _Answer(loaded, heard) if heard.answer_ids else _Meaning(loaded, heard)
        short = _may_be_left_out(loaded, heard, judge)

    def support(kept: np.ndarray) -> np.ndarray:
        there = torch.from_numpy(np.ascontiguousarray(kept))
        if not bool(there.any(1).all()):
            raise InputError("nothing is left to read when all of the text is taken away: choose smaller units")
        with torch.no_grad():
            if removal == "keys":
                found = judge.parts(ids.expand_as(there), there) if short else _muted(loaded, judge, ids, there)
            else:
                read, all_there = torch.where(there, ids, neutral), torch.ones_like(there)
                found = judge.parts(read, all_there) if short else _plain(judge, read)
        return found.double().numpy()

    return support


def can_judge(loaded: Loaded, heard: Heard) -> bool:
    """Whether there is a target: an answer that a language model gave, or the text that an encoder read."""
    return bool(heard.ids) and (loaded.kind == "encoder" or (loaded.kind == "causal" and bool(heard.answer_ids)))


def neutral_token(tokenizer: Any) -> int:
    """A token that says as little as possible: the tokenizer's own mask token, else an underscore.

    Not its padding: in many chat models this is the token that ends a message.
    """
    if tokenizer.mask_token_id is not None:
        return tokenizer.mask_token_id
    return tokenizer("_", add_special_tokens=False)["input_ids"][0]


# -------------------------------------------------------------------------------------------------- two kinds of target


class _Judge(Protocol):
    """What a target is worth; both ways agree where a model is told its positions."""

    def whole(self, ids: Tensor, counted: Tensor) -> Tensor:
        """Rows [v, n] as they are, in one batch; only tokens that are `counted` [v, n] belong to the meaning."""
        ...

    def parts(self, ids: Tensor, there: Tensor) -> Tensor:
        """Rows [v, n] without the tokens that are not `there` [v, n]; the others keep their positions."""
        ...


class _Answer:
    """The probability of the answer that was heard, per token (the geometric mean)."""

    def __init__(self, loaded: Loaded, heard: Heard):
        self._model, self._ids = loaded.model, torch.tensor(heard.ids)
        self._answer = torch.tensor(heard.answer_ids)
        self._cache: Any = None  # keys and values of the whole text: what stands before a change never changes

    def whole(self, ids: Tensor, counted: Tensor) -> Tensor:
        given = torch.cat([ids, self._answer[:-1].expand(len(ids), -1)], 1)
        return self._chance(self._model(given, use_cache=False, logits_to_keep=len(self._answer)).logits)

    def parts(self, ids: Tensor, there: Tensor) -> Tensor:
        changed = ~there | (ids != self._ids)
        last = there.shape[1] - 1 - there.flip(1).int().argmax(1)  # the row that writes the answer's first token
        same = torch.where(changed.any(1), changed.int().argmax(1), ids.shape[1]).minimum(last)
        found = torch.empty(len(ids))
        for some in _batches(there.sum(1) - same + len(self._answer), same):
            found[some] = self._after(ids[some], there[some], int(same[some].min()))
        return found

    def _after(self, ids: Tensor, there: Tensor, same: int) -> Tensor:
        """Some rows whose first `same` tokens are those of the whole text."""
        n, many = ids.shape[1], len(self._answer)
        kept = [row.nonzero()[:, 0] + same for row in there[:, same:]]
        given = [torch.cat([row[at], self._answer[:-1]]) for row, at in zip(ids, kept, strict=True)]
        place = [torch.cat([at, torch.arange(n, n + many - 1)]) for at in kept]
        length = torch.tensor([len(row) for row in given])
        slack = int(length.max() - length.min())
        logits = self._model(
            pad_sequence(given, batch_first=True),
            position_ids=pad_sequence(place, batch_first=True),
            attention_mask=torch.ones(len(ids), same + int(length.max()), dtype=torch.long),
            cache=self._start(same, len(ids)),
            use_cache=same > 0,
            logits_to_keep=many + slack,
        ).logits
        at = (slack - (length.max() - length))[:, None] + torch.arange(many)
        return self._chance(logits.gather(1, at[..., None].expand(-1, -1, logits.shape[-1])))

    def _start(self, same: int, rows: int) -> Any:
        if not same:
            return None
        if self._cache is None:
            self._cache = self._model(self._ids[None], use_cache=True, logits_to_keep=1).cache
        cache = copy.deepcopy(self._cache)
        if same < len(self._ids):
            cache.crop(same - len(self._ids))  # negative: so many tokens less
        cache.batch_repeat_interleave(rows)
        return cache

    def _chance(self, logits: Tensor) -> Tensor:
        chances = torch.log_softmax(logits.float(), -1)
        return chances.gather(-1, self._answer.expand(len(logits), -1)[..., None])[..., 0].mean(-1).exp()


class _Meaning:
    """The cosine between the mean vector of what is there and that of the whole text."""

    def __init__(self, loaded: Loaded, heard: Heard):
        self._model = loaded.model
        whole = torch.tensor([heard.ids])
        self._target = self._mean(self._model(input_ids=whole).last_hidden_state, torch.ones_like(whole))

    def whole(self, ids: Tensor, counted: Tensor) -> Tensor:
        return self._likeness(self._model(input_ids=ids).last_hidden_state, counted)

    def parts(self, ids: Tensor, there: Tensor) -> Tensor:
        found = torch.empty(len(ids))
        for some in _batches(there.sum(1), torch.zeros(len(ids), dtype=torch.long)):
            kept = [row.nonzero()[:, 0] for row in there[some]]
            given = pad_sequence([row[at] for row, at in zip(ids[some], kept, strict=True)], batch_first=True)
            mask = pad_sequence([torch.ones_like(at) for at in kept], batch_first=True)
            place = pad_sequence(kept, batch_first=True)
            vectors = self._model(input_ids=given, attention_mask=mask, position_ids=place).last_hidden_state
            found[some] = self._likeness(vectors, mask)
        return found

    def _likeness(self, vectors: Tensor, share: Tensor) -> Tensor:
        return torch.nn.functional.cosine_similarity(self._mean(vectors, share), self._target, dim=-1)

    def _mean(self, vectors: Tensor, share: Tensor) -> Tensor:
        weight = share.float()[..., None]
        return (vectors.float() * weight).sum(1) / weight.sum(1)


def _batches(length: Tensor, same: Tensor) -> Iterator[Tensor]:
    """Rows that are worked on together [v]: alike in how much they share with the whole text, and in length."""
    order = np.lexsort((length.numpy(), same.numpy()))
    start = 0
    for end in range(1, len(order) + 1):
        if end < len(order):
            work = length[order[start : end + 1]] + same[order[start : end + 1]] - same[order[start]]
            padded = int(work.max()) * len(work)
            if padded <= TOKENS_AT_ONCE and int(work.sum()) >= (1 - WASTE) * padded:
                continue
        yield torch.from_numpy(order[start:end])
        start = end


# ------------------------------------------------------------------------------------------ leaving out, or muting


def _plain(judge: _Judge, read: Tensor) -> Tensor:
    """The support of rows as they are, some at a time."""
    parts = read.split(_rows_at_once(read))
    return torch.cat([judge.whole(some, torch.ones_like(some)) for some in parts])


def _rows_at_once(rows: Tensor) -> int:
    return max(1, TOKENS_AT_ONCE // rows.shape[1])


def _muted(loaded: Loaded, judge: _Judge, ids: Tensor, there: Tensor) -> Tensor:
    """The support when the other keys are muted in every read of the model: the definition."""

    def rule(address: object, reading: Any) -> list:
        removed = torch.nn.functional.pad(~some, (0, max(reading.shape[3] - some.shape[1], 0)))
        keys = removed[:, : reading.shape[3]]
        return [mute(keys)] if bool(keys.any()) else []

    found = []
    for some in there.split(_rows_at_once(there)):
        with attach(loaded.model), bending(loaded.model, rule):
            found.append(judge.whole(ids.expand_as(some), some))
    return torch.cat(found)


def _may_be_left_out(loaded: Loaded, heard: Heard, judge: _Judge) -> bool:
    """Whether leaving tokens out is the same as muting them: tried on half of the document."""
    if "position_ids" not in inspect.signature(loaded.model.forward).parameters or _windows(loaded.model.config):
        return False
    start, end = heard.document
    inside = [i for i, (a, b) in enumerate(heard.offsets) if start <= a < b <= end]
    there = torch.ones(1, len(heard.ids), dtype=torch.bool)
    there[0, inside[::2]] = False  # here and there: without its first half alone a text would only be moved
    if not bool(there.any()):
        return False
    ids = torch.tensor([heard.ids])
    short, defined = judge.parts(ids, there), _muted(loaded, judge, ids, there)
    return bool(((short - defined).abs() <= SAME * defined.abs()).all())


def _windows(config: Any) -> bool:
    """Whether some layer reads a window only; whatever is left out would move keys into it."""
    kinds = getattr(config, "layer_types", None) or []
    return bool(getattr(config, "sliding_window", None)) or any(kind != "full_attention" for kind in kinds)
