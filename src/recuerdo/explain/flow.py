"""Views that follow the weights further: through the layers, by what is carried, and by what changes the answer.

rollout   attention multiplied through the layers, half of each layer being its residual path (Abnar & Zuidema 2020)
value     weights times the size of the value they carry (Kobayashi et al. 2020, without the output projection)
gradient  weights times their gradient for the answer, positive part (Chefer et al. 2021)

None of them writes out N x N: rollout walks row blocks, the gradient of a weight is grad(mixed) . value.
"""

from collections.abc import Callable

import numpy as np
import torch

from recuerdo.errors import InputError
from recuerdo.explain.evidence import View
from recuerdo.explain.rows import Layer, Selection
from recuerdo.explain.views import Keys, Queries, together
from recuerdo.explain.words import pool
from recuerdo.read import Reading

BLOCK = 64


def rollout_view(
    selection: Selection, queries: Queries, keys: Keys, *, progress: Callable[[int, int], None] | None = None
) -> View:
    """What each query word draws on through all layers, over the text's words; a row sums to one.

    Raises InputError for cross-attention or for a single layer, where there is nothing to multiply.
    """
    n = selection.layers[0].queries
    if len(selection.layers) < 2 or n != selection.layers[0].keys:
        raise InputError("rollout needs the self-attention of all layers: leave out --layer, or choose another view")
    flow = np.zeros((queries.count, n), np.float32)
    sizes = queries.rows_of_words()
    for row, word in enumerate(queries.word):
        if word >= 0:
            flow[word, queries.first + row] += 1.0 / sizes[word]
    for done, layer in enumerate(reversed(selection.layers)):
        flow = 0.5 * flow + 0.5 * _through(flow, selection, layer, n)
        if progress is not None:
            progress(done + 1, len(selection.layers))
    words = pool(flow[:, : len(keys.tokens)], keys.word, keys.count)
    # In a decoder nearly all of it ends in the first token: what reaches the text is shown as shares of the text.
    words = words / np.maximum(words.sum(-1, keepdims=True), 1e-30)
    note = "weights multiplied through all layers, half of each its residual path; renormalised over the text"
    return together("rollout", "rollout", note, words, np.mean)


def _through(flow: np.ndarray, selection: Selection, layer: Layer, n: int) -> np.ndarray:
    """flow [queries, n] times the layer's mean weights [n, n], row block by row block."""
    out = np.zeros_like(flow)
    for first in range(0, n, BLOCK):
        last = min(first + BLOCK, n)
        if flow[:, first:last].any():
            out += flow[:, first:last] @ selection.rows(layer, first, last, n).mean(0)
    return out


def value_view(selection: Selection, queries: Queries, keys: Keys) -> View:
    """Weights times the size of the value they carry, renormalised over all tokens, over the text's words."""
    n = len(keys.tokens)
    found = np.zeros((queries.count, keys.count))
    for layer in selection.layers:
        size = _per_head(layer.steps[-1].value[0, :, :n].float().norm(dim=-1), layer, selection)
        _gather(found, selection, layer, queries, keys, lambda rows, _, size=size: rows * size[:, None])
    note = "weights times the size of the value they carry, renormalised"
    return together("value", "by value size", note, _shares(found, queries, selection), np.mean)


def gradient_view(selection: Selection, queries: Queries, keys: Keys, reads: list[Reading]) -> View:
    """Weights times their gradient for the answer, positive part, renormalised; over the text's words.

    `reads` are the layers' reads of one pass over text and answer, whose `mixed` hold gradients.
    """
    n = len(keys.tokens)
    found = np.zeros((queries.count, keys.count))
    for layer, reading in zip(selection.layers, reads, strict=True):
        grad = reading.mixed.grad
        if grad is None:
            raise InputError("the gradient view needs a backward pass: ask for it with a question")
        value = reading.value[0, :, :n].detach().float().repeat_interleave(reading.pairing.groups, 0)
        chosen = slice(None) if selection.head is None else slice(selection.head, selection.head + 1)

        def slope(rows: np.ndarray, at: slice, grad=grad, value=value, chosen=chosen) -> np.ndarray:
            gain = (grad[0, :, at].float() @ value.mT)[chosen].numpy()
            return np.maximum(rows * gain[..., : rows.shape[-1]], 0.0)

        _gather(found, selection, layer, queries, keys, slope)
    note = "weights times their gradient for the answer, positive part, renormalised"
    return together("gradient", "by gradient", note, _shares(found, queries, selection), np.mean)


def _per_head(per_key_head: torch.Tensor, layer: Layer, selection: Selection) -> np.ndarray:
    """[g, keys] -> [h, keys] of the chosen heads."""
    spread = per_key_head.repeat_interleave(layer.heads // per_key_head.shape[0], 0)
    return (spread if selection.head is None else spread[selection.head : selection.head + 1]).numpy()


def _gather(
    found: np.ndarray, selection: Selection, layer: Layer, queries: Queries, keys: Keys,
    how: Callable[[np.ndarray, slice], np.ndarray],
) -> None:  # fmt: skip
    """Add to `found` [queries, words] what `how` makes of the rows [h, n, keys] of one layer, mean over its heads."""
    for first, last in selection.chunks(queries.first, queries.last):
        at = queries.word[first - queries.first : last - queries.first]
        rows = how(selection.rows(layer, first, last, len(keys.tokens)), slice(first, last))
        rows = rows / (rows.sum(-1, keepdims=True) + 1e-12)
        np.add.at(found, at[at >= 0], pool(rows, keys.word, keys.count).mean(0)[at >= 0])


def _shares(found: np.ndarray, queries: Queries, selection: Selection) -> np.ndarray:
    return found / queries.rows_of_words()[:, None] / len(selection.layers)
