"""Everything about a read but its values: who may read whom, and how strongly.

Every path works from a Pairing, and so does whatever is asked later: from it, and from the log-mass of the rows, any
rectangle of the weights is exact, and nothing N x N is kept.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from recuerdo.errors import ShapeError
from recuerdo.read.mask import Added, Bias, Extent, Mask, everything
from recuerdo.read.normalise import Normaliser, Softmax
from recuerdo.read.score import Score

ALL = slice(None)


@dataclass(frozen=True, eq=False)
class Pairing:
    """Projected queries [b, h, q, d] and keys [b, g, k, d] (g divides h), and the rules between them."""

    query: Tensor
    key: Tensor
    scale: float | None  # a number: scores are scale * query @ key.mT
    score: Score
    mask: Mask
    biases: tuple[Bias, ...]
    normalise: Normaliser

    @property
    def extent(self) -> Extent:
        """Queries and keys."""
        return Extent(self.query.shape[2], self.key.shape[2])

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """[b, h, q, k]: the shape of the weights that are never stored."""
        b, h, q, _ = self.query.shape
        return b, h, q, self.key.shape[2]

    @property
    def groups(self) -> int:
        """Query heads for each key head."""
        return self.query.shape[1] // self.key.shape[1]

    @property
    def is_softmax(self) -> bool:
        """Whether the rows have a log-mass."""
        return isinstance(self.normalise, Softmax)

    @property
    def working_type(self) -> torch.dtype:
        """Scores of half-width inputs are worked out in float32."""
        return torch.promote_types(self.query.dtype, torch.float32)

    def with_tensors(self, query: Tensor, key: Tensor) -> "Pairing":
        """The same rules between other queries and keys."""
        return replace(self, query=query, key=key)

    def scores(self, rows: slice = ALL, cols: slice = ALL, *, own_type: bool = False) -> Tensor:
        """Scores of a rectangle with bias, hidden pairs at -inf: [b, h, n, m] in the working type.

        With `own_type` a product is rounded to the inputs' type first: quicker for half-width inputs.
        """
        query, key = self.query[:, :, rows], self.key[:, :, cols]
        if self.scale is None or not own_type:
            query, key = query.to(self.working_type), key.to(self.working_type)
        if self.scale is not None and own_type:
            product = grouped_product(query, key).to(self.working_type)
            scores = product * self.scale if product.requires_grad else product.mul_(self.scale)
        elif self.scale is not None:
            scores = grouped_product(query * self.scale, key)
        else:
            scores = self.score.block(query, expand_heads(key, self.groups), rows, cols)
        for bias in self.biases:
            scores = scores + bias.block(rows, cols, self.extent, query.device).to(scores.dtype)
        if scores.requires_grad or not self.mask.causal or not self.mask.structural or self.mask.banded:
            seen = self.mask.block(rows, cols, self.extent, query.device)
            return scores if seen is None else scores.masked_fill(~seen, -torch.inf)
        # Only columns behind the first row's position can be hidden: a narrow strip of a wide rectangle.
        start, stop, _ = cols.indices(self.extent.keys)
        strip = slice(min(max(rows.indices(self.extent.queries)[0] + self.extent.offset + 1, start), stop), stop)
        seen = self.mask.block(rows, strip, self.extent, query.device)
        if seen is not None:
            scores[..., strip.start - start :].masked_fill_(~seen, -torch.inf)
        return scores

    def empty_rows(self) -> Tensor | None:
        """Rows that can read nothing, [b|1, h|1, q|1] bool, judged at O(mask) cost; None when there can be none."""
        if self.mask is everything and not self.biases and self.key.shape[2]:
            return None
        extent, device = self.extent, self.query.device
        hard = [b.values for b in self.biases if isinstance(b, Added)]
        hidden = [torch.isneginf(values) for values in hard if values.dtype.is_floating_point]
        if self.mask.structural and not any(bool(h.any()) for h in hidden):
            if extent.keys == 0:
                return torch.ones(1, 1, extent.queries, dtype=torch.bool, device=device)
            reach = 0 if self.mask.causal else self.mask.after
            if reach is not None and extent.offset + reach < 0:
                at = torch.arange(extent.queries, device=device) + extent.offset
                return (at + reach < 0)[None, None]
            return None
        if not self.mask.causal and not self.mask.banded and self.mask.allowed is None and not hidden:
            counts = self.mask.lengths
            return None if counts is None else (counts.to(device) <= 0)[:, None, None]
        if not hidden and self.mask.per_key and extent.keys:
            return self.mask.once("empty", lambda _: self._empty_by_blocks(hidden))
        return self._empty_by_blocks(hidden)

    def _empty_by_blocks(self, hidden: list[Tensor]) -> Tensor | None:
        """The general case: look at row blocks of the combined mask."""
        extent, rows_at_once, parts = self.extent, 512, []
        wide = [h.shape[-2] for h in hidden] + ([1] if self.mask.allowed is None else [self.mask.allowed.shape[-2]])
        one_row = max(wide) == 1 and not self.mask.causal and not self.mask.banded
        for start in range(0, 1 if one_row else extent.queries, rows_at_once):
            rows = slice(start, min(start + rows_at_once, extent.queries))
            seen = self.mask.block(rows, ALL, extent, self.query.device)
            for h in hidden:
                open_ = ~(h if h.shape[-2] == 1 else h[..., rows, :])
                seen = open_ if seen is None else seen & open_
            if seen is not None:
                empty = ~seen.expand(*seen.shape[:-1], extent.keys).any(-1)
                empty = empty[(None,) * (3 - empty.dim())]
                parts.append(empty[..., :1] if one_row else empty.expand(*empty.shape[:-1], rows.stop - rows.start))
        if not parts:
            return None
        empty = torch.cat(parts, -1)
        return empty if bool(empty.any()) else None


def expand_heads(x: Tensor, groups: int) -> Tensor:
    """[b, g, n, d] -> [b, g * groups, n, d]: every key head serves `groups` query heads."""
    return x if groups == 1 else x.repeat_interleave(groups, 1)


def grouped_product(query: Tensor, key: Tensor) -> Tensor:
    """query [b, h, n, d] @ key[b, g, m, d].mT -> [b, h, n, m], without repeating the keys."""
    b, h, n, d = query.shape
    g = key.shape[1]
    if g == h:
        return query @ key.mT
    return (query.reshape(b, g, h // g * n, d) @ key.mT).view(b, h, n, key.shape[2])


def grouped_mix(weights: Tensor, value: Tensor) -> Tensor:
    """weights [b, h, n, m] @ value [b, g, m, e] -> [b, h, n, e], without repeating the values."""
    b, h, n, m = weights.shape
    g = value.shape[1]
    if g == h:
        return weights @ value
    return (weights.reshape(b, g, h // g * n, m) @ value).view(b, h, n, value.shape[3])


def check_shapes(query: Tensor, key: Tensor, value: Tensor) -> None:
    """Raise ShapeError unless [b, h, q, d], [b, g, k, d], [b, g, k, e] fit together."""
    of_query, of_key, of_value = query.shape, key.shape, value.shape
    if not len(of_query) == len(of_key) == len(of_value) == 4:
        raise ShapeError(
            f"read takes query [b, h, q, d], key [b, g, k, d] and value [b, g, k, e], not {_shapes(query, key, value)}"
        )
    if of_key[1] != of_value[1] or of_query[1] % max(of_key[1], 1):
        raise ShapeError(
            f"the key heads must equal the value heads and divide the query heads: {_shapes(query, key, value)}"
        )
    if of_key[2] != of_value[2]:
        raise ShapeError(f"every key needs one value: {_shapes(query, key, value)}")
    if not of_query[0] == of_key[0] == of_value[0]:
        raise ShapeError(f"the batch sizes differ: {_shapes(query, key, value)}")
    if not query.dtype == key.dtype == value.dtype or not query.dtype.is_floating_point:
        types = f"{query.dtype}, {key.dtype}, {value.dtype}"
        raise ShapeError(f"query, key and value need one floating-point type, not {types}: convert with .to(...)")


def _shapes(query: Tensor, key: Tensor, value: Tensor) -> str:
    return f"query {tuple(query.shape)}, key {tuple(key.shape)}, value {tuple(value.shape)}"
