"""Episodic memory: queries read the rows of stores by attention, with gradients, and say how much was not looked at.

Two ways, one softmax:

    whole     all rows that are addressed are tensors, and the read is the house's own, exact in outputs and gradients
    found     the stores look for the best rows of each query (a scan over millions, or an engine's proposal); these are
              read, and `covered` says which share of the softmax over *all* rows addressed they hold

Either read is heard by `watch` and bent by `bending`, at the address of this module and the number of the hop.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import torch
from torch import Tensor, nn

from recuerdo.errors import InputError, ShapeError
from recuerdo.read import Reading, dot, read
from recuerdo.store.contract import Store
from recuerdo.store.record import DAY, Found, Record, Rows, Rules, Where

Added = Mapping[tuple[int, int], float]  # (store, id) -> what a look adds to a logit
WHOLE = 20_000  # rows up to which all of them are read


@dataclass(frozen=True, eq=False)
class Held:
    """Rows of stores as tensors: `ids` [n], `store` [n] (which one), keys [n, d], values [n, e], `bias` and `age` [n].

    `bias` is what hands add to the logits, `age` is in days; a muted row is not among them. Ask for gradients with
    `held.keys.requires_grad_()`, and put rows back with `Episodic.write`.
    """

    ids: Tensor
    store: Tensor
    keys: Tensor
    values: Tensor
    bias: Tensor
    age: Tensor

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class Episodes:
    """What q queries read at one hop: the k rows that they read most, best first.

    `ids` and `store` [q, k] int64, -1 where there are fewer; `weights` [q, k]: the share of each in the softmax over
    all that was looked at, with gradients; `lse` [q] the log-mass of that; `covered` [q]: the share of the softmax over
    all rows addressed that these k hold, at least; `mixed` [q, e]: the values, weighed (over all rows where the read
    was whole, else over the rows found, whose weights then count as all); `looked` of `addressed` rows.
    """

    ids: Tensor
    store: Tensor
    weights: Tensor
    lse: Tensor
    covered: Tensor
    mixed: Tensor
    looked: int
    addressed: int
    reading: Reading


def _add(query: Tensor, mixed: Tensor) -> Tensor:
    """The query of the next hop: what was asked and what was read, as memory networks add them."""
    return query + mixed


class Episodic(nn.Module):
    """Attention over one or more stores whose keys are of one width.

    A row's logit is `sharpness * (key . query) + bias - fading * age in days`; the first and the last are parameters
    where `learned`. Values are the rows' own, or their keys where they have none. `move` makes the query of the next
    hop of query [q, d] and mixed [q, e]. Up to `whole` rows all are read.

    Raises InputError for no stores, and for stores of different widths.
    """

    def __init__(
        self,
        *stores: Store,
        sharpness: float = 1.0,
        fading: float = 0.0,
        learned: bool = False,
        move: Callable[[Tensor, Tensor], Tensor] = _add,
        whole: int = WHOLE,
    ):
        super().__init__()
        if not stores:
            raise InputError("an episodic memory needs at least one store")
        if len({store.width for store in stores}) > 1:
            raise InputError(f"the stores have keys of widths {[s.width for s in stores]}: one encoder for all of them")
        self.stores, self.move, self.whole = stores, move, whole
        numbers = [torch.tensor(float(x)) for x in (sharpness, fading)]
        if learned:
            self.sharpness, self.fading = (nn.Parameter(x) for x in numbers)
        else:
            self.register_buffer("sharpness", numbers[0])
            self.register_buffer("fading", numbers[1])

    def forward(
        self,
        query: Tensor,
        *,
        hops: int = 1,
        top: int = 10,
        where: Where | None = None,
        now: float | None = None,
        held: Held | None = None,
        added: Sequence[Mapping[int, float]] = (),
    ) -> list[Episodes]:
        """Queries [q, d] read the memory `hops` times: what each hop read.

        `where` filters, `now` is what age is counted to, `held` are the rows where they were taken out before (with
        gradients of their own); then the stores are not asked. `added` has for each store what this look adds to the
        logits of rows, by id. Raises ShapeError for queries that do not fit.
        """
        if query.dim() != 2 or query.shape[1] != self.stores[0].width:
            raise ShapeError(f"queries are [q, {self.stores[0].width}], not {list(query.shape)}")
        if hops < 1 or top < 1:
            raise InputError(f"hops and top are 1 or more, not {hops} and {top}")
        told: list[Episodes] = []
        more = {(number, id): x for number, some in enumerate(added) for id, x in some.items()}
        now = time.time() if now is None else now
        if held is None and sum(store.stats().rows for store in self.stores) <= self.whole:
            held = self.rows(where=where, now=now)
        for _ in range(hops):
            query = self._moved(query, told[-1].mixed) if told else query
            told.append(
                self._found(query, top, where, now, more) if held is None else self._whole(query, top, held, more)
            )
        return told

    def _moved(self, query: Tensor, mixed: Tensor) -> Tensor:
        if self.move is _add and mixed.shape != query.shape:
            raise ShapeError(
                f"queries {list(query.shape)} and what was read {list(mixed.shape)} cannot be added up: "
                "pass `move`, which makes the next query of both"
            )
        return self.move(query, mixed)

    def rows(self, *, where: Where | None = None, now: float | None = None) -> Held:
        """All rows that are addressed, as tensors of their own: what the stores change later does not change them."""
        now = time.time() if now is None else now
        parts = []
        for number, store in enumerate(self.stores):
            ids, keys, values = store.vectors(where)
            # A query of zeros finds every row that may be read, with its bias, or its bias less its age, as logit.
            zeros, most = np.zeros((1, store.width), np.float32), max(1, len(ids))
            plain, aged = (store.scan(zeros, top=most, rules=Rules(0.0, x, now), where=where) for x in (0.0, 1.0))
            least = [(found.ids[0], found.logits[0]) for found in (plain, aged)]
            there = reduce(np.intersect1d, (ids, *(some for some, _ in least)))  # what nobody changed in between
            bias, less = (_of_ids(there, some, logits) for some, logits in least)
            own, numbers = _of_ids(there, ids, keys), np.full(len(there), number)
            told = (there, numbers, own, own if values is None else _of_ids(there, ids, values), bias, bias - less)
            parts.append([torch.from_numpy(np.array(x)) for x in told])
        ids, numbers, keys, values, bias, age = (torch.cat(x) for x in zip(*parts, strict=True))
        return Held(ids, numbers, keys, values, bias.to(keys.dtype), age.to(keys.dtype))

    def records(self, episodes: Episodes, query: int = 0) -> list[Record]:
        """The rows that a query read, as they stand in their stores, best first."""
        pairs = zip(episodes.store[query].tolist(), episodes.ids[query].tolist(), strict=True)
        return [self.stores[number].get([id])[0] for number, id in pairs if id >= 0]

    def write(self, held: Held, *, reason: str = "written by the network") -> int:
        """Put keys and values that have changed back, each as the next version of its row: how many there were."""
        changed = 0
        for number, id, key, value in zip(held.store.tolist(), held.ids.tolist(), held.keys, held.values, strict=True):
            store = self.stores[number]
            old = store.get([id])[0]
            new_key, new_value = key.detach().cpu().numpy(), value.detach().cpu().numpy()
            if np.array_equal(old.key, new_key) and (old.value is None or np.array_equal(old.value, new_value)):
                continue
            row = Rows(
                new_key[None],
                [old.text],
                None if old.value is None else new_value[None],
                [old.tags],
                [old.time],
                old.author,
            )
            store.update(id, row, reason=reason)
            changed += 1
        return changed

    def _whole(self, query: Tensor, top: int, held: Held, more: Added) -> Episodes:
        kind = query.dtype
        bias = held.bias.to(kind) - self.fading.to(kind) * held.age.to(kind)
        if more:
            pairs = zip(held.store.tolist(), held.ids.tolist(), strict=True)
            bias = bias + torch.tensor([more.get(pair, 0.0) for pair in pairs], dtype=kind)
        keys, values = held.keys[None, None].to(kind), held.values[None, None].to(kind)
        asked = (query * self.sharpness.to(kind))[None, None]
        reading = read(asked, keys, values, score=dot, bias=bias[None, None, None])
        weights = reading.weights[:, :][0, 0]
        kept = weights.detach().topk(min(top, len(held)), dim=-1).indices
        shares = weights.gather(-1, kept)
        missing = top - kept.shape[1]
        lse = reading.lse
        if lse is None:  # a softmax has one
            raise InputError("the memory is read by softmax only")
        return Episodes(
            _padded(held.ids[kept], missing, -1),
            _padded(held.store[kept], missing, -1),
            _padded(shares, missing, 0),
            lse[0, 0],
            shares.detach().sum(-1),
            reading.mixed[0, 0],
            len(held),
            len(held),
            reading,
        )

    def _found(self, query: Tensor, top: int, where: Where | None, now: float, more: Added) -> Episodes:
        kind, rules = query.dtype, Rules(float(self.sharpness.detach()), float(self.fading.detach()), now)
        asked = query.detach().float().cpu().numpy()
        each = [
            _scan(store, asked, top, rules, where, {id: x for (owner, id), x in more.items() if owner == number})
            for number, store in enumerate(self.stores)
        ]
        found, owner = _together(each)
        keys, values, bias, age = (x.to(kind) for x in self._of(found, owner, now, more))
        many = (query * self.sharpness.to(kind))[:, None, None]
        added = (bias - self.fading.to(kind) * age)[:, None, None]
        reading = read(many, keys[:, None], values[:, None], score=dot, bias=added)
        lse = reading.lse
        if lse is None:
            raise InputError("the memory is read by softmax only")
        seen = lse[:, 0, 0]
        # What was looked at and is not among the best keeps its mass; that has no gradient.
        all_of_it = torch.from_numpy(found.lse).to(kind)
        there = torch.from_numpy(found.ids >= 0)
        inside = torch.from_numpy(found.weights.sum(1)).to(kind)
        rest = torch.where(inside < 1, all_of_it + torch.log1p(-inside.clamp(max=1)), -math.inf)
        some = there.any(1)  # where nothing was found there is no mass, and -inf has no gradient
        total = torch.where(some, torch.logaddexp(seen.masked_fill(~some, 0.0), rest), -math.inf)
        part = (seen.masked_fill(~some, 0.0) - total.masked_fill(~some, 0.0)).exp()
        share = reading.weights[:, :][:, 0, 0] * part[:, None]
        return Episodes(
            torch.from_numpy(found.ids),
            torch.from_numpy(owner),
            torch.where(there, share, 0.0),
            total,
            torch.from_numpy(found.covered).to(kind),
            reading.mixed[:, 0, 0],
            found.looked,
            found.addressed,
            reading,
        )

    def _of(self, found: Found, owner: np.ndarray, now: float, more: Added) -> tuple[Tensor, ...]:
        """Keys [q, k, d], values [q, k, e], biases and ages [q, k] of the rows found; bias -inf where there is none."""
        (q, k), d = found.ids.shape, self.stores[0].width
        known: dict[tuple[int, int], Record] = {}
        for number, store in enumerate(self.stores):
            ids = sorted({int(id) for id in found.ids[owner == number] if id >= 0})
            known |= {(number, one.id): one for one in store.get(ids)}
        some = next(iter(known.values()), None)
        e = d if some is None or some.value is None else len(some.value)
        keys, values = np.zeros((q, k, d), np.float32), np.zeros((q, k, e), np.float32)
        bias, age = np.full((q, k), -np.inf), np.zeros((q, k))
        for i, j in zip(*np.nonzero(found.ids >= 0), strict=True):
            pair = (int(owner[i, j]), int(found.ids[i, j]))
            one = known[pair]
            keys[i, j], values[i, j] = one.key, one.key if one.value is None else one.value
            bias[i, j], age[i, j] = one.bias + more.get(pair, 0.0), (now - one.time) / DAY
        return tuple(torch.from_numpy(x) for x in (keys, values, bias, age))


def _scan(
    store: Store, asked: np.ndarray, top: int, rules: Rules, where: Where | None, more: Mapping[int, float]
) -> Found:
    """A scan with something added to the logits of some rows: these are read apart, and the two reads are put together.

    The mass that the rows had is taken out of all of it, and comes back with what was added. Where the scan was
    approximate, it is only known of the rows found that it was in; that of others may count twice, so that what is
    covered is never too much.
    """
    found = store.scan(asked, top=top + len(more), rules=rules, where=where)
    if not more:
        return found
    given = where or Where()
    ids = tuple(id for id in more if given.ids is None or id in given.ids)
    apart = store.scan(asked, top=max(1, len(ids)), rules=rules, where=replace(given, ids=ids))
    raised = apart.logits + np.array([[more.get(int(id), 0.0) for id in row] for row in apart.ids])
    counted = np.stack([np.isin(some, known) for some, known in zip(apart.ids, found.ids, strict=True)])
    counted |= np.isneginf(found.unseen)[:, None]
    was = np.logaddexp.reduce(np.where(counted, apart.logits, -np.inf), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        left = np.where(np.isneginf(was), found.lse, found.lse + np.log1p(-np.exp(np.minimum(was - found.lse, 0.0))))
    others = np.where(np.isin(found.ids, list(more)), -np.inf, found.logits)
    all_ids = np.concatenate([np.where(np.isneginf(others), -1, found.ids), apart.ids], 1)
    logits = np.concatenate([others, raised], 1)
    order = np.stack([np.lexsort((i, -x))[:top] for i, x in zip(all_ids, logits, strict=True)])
    return replace(
        found,
        ids=np.take_along_axis(all_ids, order, 1),
        logits=np.take_along_axis(logits, order, 1),
        lse=np.logaddexp(left, np.logaddexp.reduce(raised, 1)),
    )


def _together(each: Sequence[Found]) -> tuple[Found, np.ndarray]:
    """What several stores found as one, and which of them each row is from, -1 for none: [q, k]."""
    # Ids of several stores may be the same numbers, so they are merged as places in a list of (store, id).
    k = max(one.ids.shape[1] for one in each)
    width = sum(one.ids.shape[1] for one in each)
    owner, ids = np.full((len(each[0].ids), width), -1), np.full((len(each[0].ids), width), -1)
    at, placed = 0, []
    for number, one in enumerate(each):
        columns = np.arange(at, at + one.ids.shape[1])
        ids[:, columns], owner[:, columns] = one.ids, np.where(one.ids >= 0, number, -1)
        placed.append(replace(one, ids=np.where(one.ids >= 0, columns, -1)))
        at += one.ids.shape[1]
    both = placed[0]
    for one in placed[1:]:
        both = both.merge(one)
    best = both.ids[:, :k]
    found = np.where(best >= 0, np.take_along_axis(ids, best.clip(0), 1), -1)
    whose = np.where(best >= 0, np.take_along_axis(owner, best.clip(0), 1), -1)
    return replace(both, ids=found, logits=both.logits[:, :k]), whose


def _of_ids(wanted: np.ndarray, ids: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The rows of wanted ids, out of rows [n, …] of `ids` [n]."""
    order = np.argsort(ids)
    return rows[order[np.searchsorted(ids[order], wanted)]]


def _padded(tensor: Tensor, missing: int, value: float) -> Tensor:
    return nn.functional.pad(tensor, (0, missing), value=value) if missing else tensor
