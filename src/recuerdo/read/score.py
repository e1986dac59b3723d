"""Scores: how strongly a query matches a key.

A score makes queries and keys ready once per read (`project`, O(N)), then scores blocks of pairs (`block`). Where the
projected score is a plain product, `Pairs.scale` is a number and the fused kernels can be used; `plain` is always the
definition from the paper, written without that trick, and the contract suite holds both against each other.

Shapes: query [b, h, q, d], key [b, g, k, d], scores [b, h, q, k]; b batch, h heads, g key heads (g divides h).
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from recuerdo.errors import ReadError, ShapeError


class Pairs(NamedTuple):
    """Queries and keys made ready. With `scale` a number, the scores are `scale * query @ key.mT`."""

    query: Tensor
    key: Tensor
    scale: float | None


def _same_width(query: Tensor, key: Tensor) -> None:
    if query.shape[-1] != key.shape[-1]:
        raise ShapeError(
            f"this score needs queries and keys of one width, not {tuple(query.shape)} and {tuple(key.shape)}: "
            "project one of them, or use Bilinear or Additive with key_width"
        )


@runtime_checkable
class Score(Protocol):
    """What every score offers."""

    @property
    def numbers_per_pair(self) -> int:
        """How many numbers one pair holds while a block is scored; it sizes the blocks."""
        ...

    def project(self, query: Tensor, key: Tensor) -> Pairs:
        """Make queries and keys ready, once per read."""
        ...

    def block(self, query: Tensor, key: Tensor, rows: slice, cols: slice) -> Tensor:
        """Score projected queries [b, h, n, d'] against projected keys [b, h, m, d'] -> [b, h, n, m]."""
        ...

    def plain(self, query: Tensor, key: Tensor) -> Tensor:
        """The definition, on unprojected queries [b, h, q, d] and keys [b, h, k, d]."""
        ...


@dataclass(frozen=True)
class Product:
    """`scale * q . k`; scale None means 1 / sqrt(d) (Vaswani et al. 2017), 1 is Luong's dot (2015)."""

    scale: float | None = None
    numbers_per_pair: int = 1

    def _scale(self, query: Tensor) -> float:
        return query.shape[-1] ** -0.5 if self.scale is None else self.scale

    def project(self, query: Tensor, key: Tensor) -> Pairs:
        _same_width(query, key)
        return Pairs(query, key, self._scale(query))

    def block(self, query: Tensor, key: Tensor, rows: slice, cols: slice) -> Tensor:
        return self._scale(query) * (query @ key.mT)

    def plain(self, query: Tensor, key: Tensor) -> Tensor:
        return self._scale(query) * torch.einsum("bhqd,bhkd->bhqk", query, key)


dot = Product(1.0)
scaled_dot = Product()


@dataclass(frozen=True)
class SoftCapped:
    """`cap * tanh(scale * q . k / cap)`: bounded scores (Gemma 2, Riviere et al. 2024)."""

    cap: float
    scale: float | None = None
    numbers_per_pair: int = 2

    def project(self, query: Tensor, key: Tensor) -> Pairs:
        _same_width(query, key)
        return Pairs(query, key, None)

    def block(self, query: Tensor, key: Tensor, rows: slice, cols: slice) -> Tensor:
        scale = query.shape[-1] ** -0.5 if self.scale is None else self.scale
        return self.cap * torch.tanh((query * (scale / self.cap)) @ key.mT)

    def plain(self, query: Tensor, key: Tensor) -> Tensor:
        return self.cap * torch.tanh(Product(self.scale).plain(query, key) / self.cap)


@dataclass(frozen=True)
class Cosine:
    """`sharpness * cos(q, k)`: content addressing of the NTM (Graves et al. 2014). A zero vector scores 0.

    `sharpness` is a number or a tensor that broadcasts to [b, h, q], such as a learned key strength.
    """

    sharpness: float | Tensor = 1.0
    numbers_per_pair: int = 1

    @staticmethod
    def _unit(x: Tensor) -> Tensor:
        return x / x.norm(dim=-1, keepdim=True).clamp_min(1e-12)

    def project(self, query: Tensor, key: Tensor) -> Pairs:
        _same_width(query, key)
        unit = self._unit(query)
        if isinstance(self.sharpness, Tensor):
            return Pairs(unit * self.sharpness.to(unit.dtype)[..., None], self._unit(key), 1.0)
        return Pairs(unit, self._unit(key), self.sharpness)

    def block(self, query: Tensor, key: Tensor, rows: slice, cols: slice) -> Tensor:
        product = query @ key.mT
        return product if isinstance(self.sharpness, Tensor) else self.sharpness * product

    def plain(self, query: Tensor, key: Tensor) -> Tensor:
        cosine = nn.functional.cosine_similarity(query[..., :, None, :], key[..., None, :, :], dim=-1, eps=1e-12)
        if isinstance(self.sharpness, Tensor):
            return self.sharpness.to(cosine.dtype)[..., None] * cosine
        return self.sharpness * cosine


@dataclass(frozen=True)
class SquaredDistance:
    """`-sharpness * |q - k|^2`: a Gaussian kernel read (Nadaraya 1964, Watson 1964).

    The product form needs two more features. Distances do not change when everything moves together, so both are
    first centred on the mean key: this keeps the cancellation in |q|^2 - 2 q.k + |k|^2 small.
    """

    sharpness: float = 1.0
    numbers_per_pair: int = 1

    def project(self, query: Tensor, key: Tensor) -> Pairs:
        _same_width(query, key)
        groups = query.shape[1] // key.shape[1]
        centre = key.mean(-2, keepdim=True)
        query, key = query - centre.repeat_interleave(groups, 1), key - centre
        q2, k2 = query.square().sum(-1, keepdim=True), key.square().sum(-1, keepdim=True)
        query = torch.cat([2 * query, -q2, torch.ones_like(q2)], -1)
        return Pairs(query, torch.cat([key, torch.ones_like(k2), -k2], -1), self.sharpness)

    def block(self, query: Tensor, key: Tensor, rows: slice, cols: slice) -> Tensor:
        return self.sharpness * (query @ key.mT)

    def plain(self, query: Tensor, key: Tensor) -> Tensor:
        return -self.sharpness * (query[..., :, None, :] - key[..., None, :, :]).square().sum(-1)


class Bilinear(nn.Module):
    """`q W k`: Luong's general score (2015). Queries of width d, keys of width `key_width` (default d)."""

    numbers_per_pair = 1

    def __init__(self, width: int, key_width: int | None = None):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, key_width or width))
        nn.init.xavier_uniform_(self.weight)

    def project(self, query: Tensor, key: Tensor) -> Pairs:
        return Pairs(query @ self.weight.to(query.dtype), key, 1.0)

    def block(self, query: Tensor, key: Tensor, rows: slice, cols: slice) -> Tensor:
        return query @ key.mT

    def plain(self, query: Tensor, key: Tensor) -> Tensor:
        return torch.einsum("bhqd,de,bhke->bhqk", query, self.weight.to(query.dtype), key)


class Additive(nn.Module):
    """`v . tanh(W q + U k + b)` (Bahdanau et al. 2014), `hidden` numbers for each pair.

    With `ready` the keys that are handed over are U k already: who reads the same keys again and again makes them once.
    """

    def __init__(self, width: int, hidden: int, key_width: int | None = None, *, ready: bool = False):
        super().__init__()
        self.query = nn.Linear(width, hidden)
        self.key = nn.Identity() if ready else nn.Linear(key_width or width, hidden, bias=False)
        self.vector = nn.Parameter(torch.randn(hidden) * hidden**-0.5)

    @property
    def numbers_per_pair(self) -> int:
        return 2 * self.vector.shape[0]

    def project(self, query: Tensor, key: Tensor) -> Pairs:
        return Pairs(self.query(query), self.key(key), None)

    def block(self, query: Tensor, key: Tensor, rows: slice, cols: slice) -> Tensor:
        return torch.tanh(query[..., :, None, :] + key[..., None, :, :]) @ self.vector.to(query.dtype)

    def plain(self, query: Tensor, key: Tensor) -> Tensor:
        pairs = self.query(query)[..., :, None, :] + self.key(key)[..., None, :, :]
        return torch.einsum("bhqka,a->bhqk", torch.tanh(pairs), self.vector.to(query.dtype))


@dataclass(frozen=True)
class Sharper:
    """`sharpness` times another score: its softmax at the temperature 1 / sharpness."""

    score: Score
    sharpness: float

    @property
    def numbers_per_pair(self) -> int:
        return self.score.numbers_per_pair

    def project(self, query: Tensor, key: Tensor) -> Pairs:
        query, key, scale = self.score.project(query, key)
        return Pairs(query, key, None if scale is None else self.sharpness * scale)

    def block(self, query: Tensor, key: Tensor, rows: slice, cols: slice) -> Tensor:
        return self.sharpness * self.score.block(query, key, rows, cols)

    def plain(self, query: Tensor, key: Tensor) -> Tensor:
        return self.sharpness * self.score.plain(query, key)


class LocationAware(nn.Module):
    """`v . tanh(W q + U k + L f + b)`, f the previous alignment convolved (Chorowski et al. 2015).

    Every step needs the weights of the step before: `score.after(previous)` gives the score of the next step.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        filters: int = 10,
        reach: int = 15,
        key_width: int | None = None,
        ready: bool = False,
    ):
        super().__init__()
        self.content = Additive(width, hidden, key_width, ready=ready)
        self.filters = nn.Conv1d(1, filters, 2 * reach + 1, padding=reach, bias=False)
        self.location = nn.Linear(filters, hidden, bias=False)

    def after(self, previous: Tensor) -> "AfterAlignment":
        """The score for the queries that follow the alignment `previous`, [b, h, q, k] or broadcastable in q."""
        return AfterAlignment(self, previous)

    def seen(self, previous: Tensor) -> Tensor:
        """Location features [b, h, q, k, hidden] of alignments [b, h, q, k]."""
        flat = previous.flatten(0, 2)[:, None]
        features = nn.functional.conv1d(flat, self.filters.weight.to(flat.dtype), padding=self.filters.padding[0])
        return self.location(features.mT).unflatten(0, previous.shape[:3])

    @property
    def numbers_per_pair(self) -> int:
        return 3 * self.content.vector.shape[0]

    def project(self, query: Tensor, key: Tensor) -> Pairs:
        raise ReadError(
            "a location-aware score needs the alignment of the step before: pass score.after(previous_weights), "
            "with zeros [b, h, 1, k] at the first step"
        )

    def block(self, query: Tensor, key: Tensor, rows: slice, cols: slice) -> Tensor:
        return self.project(query, key).query

    def plain(self, query: Tensor, key: Tensor) -> Tensor:
        return self.project(query, key).query


@dataclass(frozen=True, eq=False)
class AfterAlignment:
    """A location-aware score bound to the alignment of the step before (`LocationAware.after`)."""

    parent: LocationAware
    previous: Tensor

    @property
    def numbers_per_pair(self) -> int:
        return self.parent.numbers_per_pair

    def project(self, query: Tensor, key: Tensor) -> Pairs:
        if self.previous.shape[-1] != key.shape[-2]:
            raise ShapeError(
                f"the previous alignment covers {self.previous.shape[-1]} keys, but there are {key.shape[-2]}: "
                "pass the weights over these very keys"
            )
        return Pairs(self.parent.content.query(query), self.parent.content.key(key), None)

    def _pairs(self, query: Tensor, key: Tensor, location: Tensor) -> Tensor:
        return torch.tanh(query[..., :, None, :] + key[..., None, :, :] + location)

    def block(self, query: Tensor, key: Tensor, rows: slice, cols: slice) -> Tensor:
        one_step = self.previous.shape[2] == 1
        location = self.parent.seen(self.previous if one_step else self.previous[:, :, rows])[..., cols, :]
        return self._pairs(query, key, location) @ self.parent.content.vector.to(query.dtype)

    def plain(self, query: Tensor, key: Tensor) -> Tensor:
        query, key = self.parent.content.query(query), self.parent.content.key(key)
        pairs = self._pairs(query, key, self.parent.seen(self.previous))
        return torch.einsum("bhqka,a->bhqk", pairs, self.parent.content.vector.to(query.dtype))
