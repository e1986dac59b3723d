"""Recalling inside a language model: heads read the rows of a memory, and merge with the model's own chances.

A row is a token that was read: its key the two vectors of `recuerdo.bridge.states`, its value the token that came next.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from recuerdo.bridge.belief import Belief
from recuerdo.errors import InputError
from recuerdo.read import Part, Reading, dot, merge, read
from recuerdo.store.contract import Store
from recuerdo.store.record import Where


@dataclass(frozen=True)
class Head:
    """How a head reads: a row is alike by `own` times the product of the own states, and by the rest that of the
    contexts, 1 at most; its logit is sharpness * (alike - threshold). Raises InputError for what makes no head."""

    own: float
    sharpness: float
    threshold: float

    def __post_init__(self) -> None:
        if not (0 <= self.own <= 1 and self.sharpness > 0 and -1 <= self.threshold <= 2):
            raise InputError(
                f"a head has an own share from 0 to 1, a sharpness above 0 and a threshold from -1 to 2, not {self}"
            )

    def query(self, keys: Tensor) -> Tensor:
        """Keys [q, 2 d] as queries: sharpness * alike is their product with a key."""
        own, context = keys.chunk(2, -1)
        return self.sharpness * torch.cat([self.own * own, (1 - self.own) * context], -1)


# Chosen on facts of one seed and on two documents, 3,000 tokens each, which no figure of ours is about: see
# benchmarks/language_memory.py.
MEANING = Head(own=0.8, sharpness=20.0, threshold=1.0)
WORDS = Head(own=0.0, sharpness=75.0, threshold=0.95)


class Recalled(NamedTuple):
    """A read of the memory by q queries: its Reading over the n rows that any of them found, a head for each `Head`;
    `ids` [n] of these rows; `tokens` [u], which the columns of `reading.mixed` [1, h, q, u] are the chances of; and
    `covered` [q]: the share of the mass of all rows addressed that these rows hold."""

    reading: Reading
    ids: np.ndarray
    tokens: Tensor
    covered: Tensor

    @property
    def mass(self) -> np.ndarray:
        """The log-mass of all heads together, [q] float64."""
        return self.reading.part.lse[0].double().logsumexp(0).numpy()

    def chance(self, tokens: Tensor) -> np.ndarray:
        """The log-chance that the memory by itself gave to tokens [q]: [q] float64; -inf = not recalled."""
        mixed, lse = (x[0].double() for x in self.reading.part)
        shares = (lse - lse.logsumexp(0)).exp().nan_to_num(0.0)  # of a memory all of which is muted
        there = self.tokens == tokens.cpu()[:, None]
        return (mixed * shares[..., None] * there).sum((0, -1)).log().numpy()


@dataclass(frozen=True)
class Recall:
    """What the model read in its memory for one token.

    `position`: how many tokens of the sequence stood before it; `share`: how much of the next token's chances came from
    the memory; `rows`: (id, weight) of the rows, best first, where the weights are shares of the memory's part, both
    heads together; `covered`: how much of the mass of all rows was looked at.
    """

    position: int
    share: float
    rows: tuple[tuple[int, float], ...]
    covered: float


class Recaller(nn.Module):
    """Reads the rows of a store by some heads. As a module it has an address, at which its reads are heard."""

    def __init__(self, store: Store, heads: Sequence[Head], *, top: int, where: Where | None = None):
        super().__init__()
        if top < 1 or not heads:
            raise InputError(f"a memory is read by one head or more, and one row or more, not {len(heads)} and {top}")
        self.store, self.heads, self.top, self.where = store, tuple(heads), top, where

    def forward(self, keys: Tensor) -> Recalled | None:
        """What tokens with these keys [q, 2 d] recall; None where there is nothing to read."""
        queries = [head.query(keys.float().cpu()) for head in self.heads]
        each = [self.store.scan(one.numpy(), top=self.top, where=self.where) for one in queries]
        ids = np.unique(np.concatenate([found.ids.ravel() for found in each]))
        ids = ids[ids >= 0]
        if not len(ids):
            return None
        rows = self.store.get(ids)
        tokens, columns = torch.tensor([_token(one.value) for one in rows]).unique(return_inverse=True)
        value = nn.functional.one_hot(columns, len(tokens)).float()
        key = torch.from_numpy(np.stack([one.key for one in rows]))
        less = torch.tensor([head.sharpness * head.threshold for head in self.heads])
        bias = torch.tensor([one.bias for one in rows]) - less[:, None]
        reading = read(
            torch.stack(queries)[None], key[None, None], value[None, None], score=dot, bias=bias[None, :, None]
        )
        mass = reading.part.lse[0].logsumexp(0)
        all_of_it = torch.from_numpy(np.stack([found.lse for found in each])).float() - less[:, None]
        return Recalled(reading, ids, tokens, (mass - all_of_it.logsumexp(0)).exp().clamp(max=1.0))


def _token(value: np.ndarray | None) -> int:
    return -1 if value is None else int(value[0])


def merged(logits: Tensor, recalled: Recalled, belief: Belief) -> tuple[Tensor, Tensor]:
    """The model's logits [q, v] and what was recalled, as far as it is believed: log-chances of all together [q, v],
    and the heads' shares [h, q] in them."""
    own, tokens = logits.float().log_softmax(-1), recalled.tokens.to(logits.device)
    mixed, lse = (x[0].float().to(logits.device) for x in recalled.reading.part)
    lse = lse + torch.from_numpy(belief.shift(recalled.mass)).to(lse)
    heads = [Part(*part) for part in zip(mixed, lse, strict=True)]
    both = merge(Part(own[:, tokens].exp(), torch.zeros_like(lse[0])), *heads)
    own -= both.lse[:, None]
    own[:, tokens] = both.mixed.log()
    return own, (lse - both.lse).exp()


def recalls(first: int, recalled: Recalled, shares: Tensor, top: int) -> Iterator[Recall]:
    """What each of q tokens read, the first of which stood at position `first`: at most `top` rows each."""
    weights = torch.einsum("hqn,hq->qn", recalled.reading.weights[:, :][0].float(), shares.cpu())
    for i, row in enumerate(weights):
        whole = float(row.sum())
        best = row.topk(min(top, len(row)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        rows = tuple((int(recalled.ids[j]), weight / whole) for j, weight in pairs if weight)
        yield Recall(first + i, whole, rows, float(recalled.covered[i]))
