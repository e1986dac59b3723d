"""What a model loses when what a map points at is taken away, or when nothing else is left.

Units are whatever was mapped: words, sentences, patches, frames, slots. The model comes in as a `Value`: a function
from what is still there to its support of one target. The target is fixed before anything is removed, and only units
that may be removed are counted: no padding, and no special token unless the map is over these, too.

Comprehensiveness and sufficiency are those of ERASER (DeYoung et al. 2020); AOPC is the mean of such a curve.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from recuerdo.errors import InputError, ShapeError

Value = Callable[[np.ndarray], np.ndarray]
"""kept: bool [v, n] (True = still there), v variants at once -> the support of one fixed target [v]: a
probability or a mean log-probability, finite. With a single unit (or a threshold of 1) one variant keeps nothing."""

THRESHOLDS = (0.01, 0.05, 0.10, 0.20, 0.50)  # ERASER's
BUDGET = 1000  # evaluations in which the oracle looks for the best orders

UNIT_BY_UNIT = "greedy, unit by unit"
BY_THRESHOLD = "greedy, re-ranked at each threshold"
ONE_SHOT = "one-shot leave-one-out: the budget is too small for a greedy search"


def order(map_row: ArrayLike, rng: np.random.Generator) -> np.ndarray:
    """The units of a map [n], strongest first: [n]. Equal units come in random order, never by position.

    Signs count: negative values, which speak against the target, rank last; a map of magnitudes cannot say this.
    Integer maps are welcome, unsigned ones, too. Raises InputError on NaN.
    """
    row = as_row(map_row)
    return np.lexsort((rng.random(len(row)), row))[::-1]


def as_row(map_row: ArrayLike, name: str = "") -> np.ndarray:
    """The map as real numbers [n], n >= 1, without NaN. Raises ShapeError and InputError."""
    row, who = np.asarray(map_row), f"the map {name!r}" if name else "the map"
    if row.ndim != 1:
        raise ShapeError(f"{who} has shape {list(row.shape)}: hand over one number per unit, [n]")
    if not len(row):
        raise InputError(f"{who} has no units: there is nothing to remove")
    if row.dtype.kind not in "biuf":
        raise InputError(f"{who} holds {row.dtype}, not numbers: hand over one number per unit")
    if np.isnan(row).any():
        raise InputError(f"{who} holds NaN: a unit without a value cannot be ranked; give it 0 or leave it out")
    return row


def steps(units: int, thresholds: Sequence[float] = THRESHOLDS) -> tuple[np.ndarray, np.ndarray]:
    """How many of n units each point of a curve removes [points], and the point of each threshold [thresholds].

    A threshold is a share of the units, rounded to whole units and 1 at least; the same number comes once. Raises
    InputError when a threshold is not above 0 and at most 1.
    """
    shares = np.asarray(thresholds, float)
    if shares.ndim != 1 or not len(shares) or not ((shares > 0) & (shares <= 1)).all():
        raise InputError(f"thresholds are shares of the units, above 0 and at most 1, not {thresholds}")
    counts = np.clip(np.floor(shares * units + 0.5 + 1e-9), 1, units).astype(int)  # 0.29 * 50 is 14.499…
    return np.unique(counts, return_inverse=True)


class Removals:
    """A `Value` over n units that asks the model for each variant once, however often it is needed."""

    def __init__(self, value: Value, units: int):
        self.units = units
        self._value = value
        self._known: dict[bytes, float] = {}

    @property
    def evaluations(self) -> int:
        """How many variants the model was asked for."""
        return len(self._known)

    def __call__(self, kept: np.ndarray) -> np.ndarray:
        """The support of the target [v] for what is kept, bool [v, n]. Raises ShapeError, InputError."""
        if kept.shape[1:] != (self.units,):
            raise ShapeError(f"variants of shape {list(kept.shape)} do not fit {self.units} units: [v, {self.units}]")
        names = [row.tobytes() for row in np.packbits(kept, axis=-1)]
        new = {name: i for i, name in enumerate(names) if name not in self._known}
        if new:
            self._known.update(zip(new, self._ask(kept[list(new.values())]), strict=True))
        return np.array([self._known[name] for name in names])

    def _ask(self, kept: np.ndarray) -> list[float]:
        support = np.asarray(self._value(kept), float)
        if support.shape != (len(kept),):
            raise ShapeError(
                f"the value of {len(kept)} variants has shape {list(support.shape)}: give one number per variant"
            )
        if not np.isfinite(support).all():
            raise InputError(
                "the value of a variant is not a finite number: give a probability or a bounded log-probability"
            )
        return support.tolist()


def comprehensiveness(value: Value, rankings: ArrayLike, thresholds: Sequence[float] = THRESHOLDS) -> np.ndarray:
    """p(all) - p(all without the top t), for each point of `steps`: [points], or [m, points] of m rankings [m, n].

    Large = the map found what the model needs. Hand over one `Removals` as value to share its answers between calls.
    """
    ranked = _rankings(rankings)
    drops = curves(value, np.atleast_2d(ranked), thresholds)[:, 0]
    return drops[0] if ranked.ndim == 1 else drops


def sufficiency(value: Value, rankings: ArrayLike, thresholds: Sequence[float] = THRESHOLDS) -> np.ndarray:
    """p(all) - p(only the top t), for each point of `steps`: [points], or [m, points] of m rankings [m, n].

    Small = what the map found is enough; below 0 = the rest stood in the way.
    """
    ranked = _rankings(rankings)
    drops = curves(value, np.atleast_2d(ranked), thresholds)[:, 1]
    return drops[0] if ranked.ndim == 1 else drops


def _rankings(rankings: ArrayLike) -> np.ndarray:
    ranked = np.asarray(rankings)
    if ranked.ndim not in (1, 2) or not ranked.size:
        raise ShapeError(f"rankings have shape {list(ranked.shape)}: hand over [n], or [m, n]")
    if not np.array_equal(np.sort(ranked, -1), np.broadcast_to(np.arange(ranked.shape[-1]), ranked.shape)):
        raise InputError(f"a ranking names each of its {ranked.shape[-1]} units once: take it from `order`")
    return ranked


def curves(value: Value, rankings: np.ndarray, thresholds: Sequence[float] = THRESHOLDS) -> np.ndarray:
    """Comprehensiveness and sufficiency of m rankings [m, n], all variants in one batch: [m, 2, points]."""
    many, units = rankings.shape
    removals = value if isinstance(value, Removals) else Removals(value, units)
    counts = steps(units, thresholds)[0]
    place = np.argsort(rankings, -1)  # the rank of each unit
    top = place[:, None] < counts[:, None]  # [m, points, n]
    kept = np.stack([~top, top], 1).reshape(-1, units)
    support = removals(np.concatenate([np.ones((1, units), bool), kept]))
    return support[0] - support[1:].reshape(many, 2, len(counts))


def leave_one_out(value: Value, units: int) -> np.ndarray:
    """How much the target loses without each single unit: [n]."""
    removals = value if isinstance(value, Removals) else Removals(value, units)
    support = removals(np.concatenate([np.ones((1, units), bool), ~np.eye(units, dtype=bool)]))
    return support[0] - support[1:]


@dataclass(frozen=True, eq=False)
class Oracle:
    """The best that was found with the model's help: curves [2, points], leave-one-out effects [n], the search."""

    curves: np.ndarray
    effects: np.ndarray
    search: str


def oracle(
    value: Value,
    units: int,
    thresholds: Sequence[float] = THRESHOLDS,
    *,
    budget: int = BUDGET,
    rng: np.random.Generator | None = None,
) -> Oracle:
    """The curves that a map would have to reach for a truth score of 100.

    Greedy leave-one-out: the units without which the target is lowest, given all that is already removed, go next; for
    sufficiency, those with which it is highest are added next. Unit by unit when both searches fit into `budget`
    evaluations, else by threshold, else one-shot, and `search` says which. For each of the two curves the best of
    the greedy and the one-shot orders (without one, one alone) counts. It is no upper bound: units that only act
    together can hide from it, so a map may score above 100. Raises InputError when not even leave-one-out fits.
    """
    rng = rng or np.random.default_rng(0)
    removals = value if isinstance(value, Removals) else Removals(value, units)
    stops, search = _affordable(units, thresholds, budget)
    effects = leave_one_out(removals, units)
    alone = removals(np.eye(units, dtype=bool))
    ranked = [order(effects, rng), order(alone, rng)]
    if search != ONE_SHOT:
        ranked += [_greedy(removals, stops, adding, rng) for adding in (False, True)]
    found = curves(removals, np.stack(ranked), thresholds)
    aopc = found.mean(-1)
    best = np.stack([found[aopc[:, 0].argmax(), 0], found[aopc[:, 1].argmin(), 1]])
    return Oracle(best, effects, search)


def _affordable(units: int, thresholds: Sequence[float], budget: int) -> tuple[np.ndarray, str]:
    """After how many chosen units the search ranks anew, and what it is then called."""
    if budget < 2 * units:
        raise InputError(
            f"leave-one-out of {units} units takes {2 * units} evaluations and the budget is {budget}: "
            "raise it, or map larger units"
        )
    counts = steps(units, thresholds)[0]
    for stops, search in ((np.arange(1, counts[-1] + 1), UNIT_BY_UNIT), (counts, BY_THRESHOLD)):
        if 2 * (units - np.concatenate([[0], stops[:-1]])).sum() <= budget:  # each ranking asks for all that is left
            return stops, search
    return counts, ONE_SHOT


def _greedy(removals: Removals, stops: np.ndarray, adding: bool, rng: np.random.Generator) -> np.ndarray:
    """A ranking [n] of what to remove (or add) next, ranked anew after each of `stops` chosen units."""
    chosen, left = np.zeros(0, int), np.arange(removals.units)
    for stop in stops:
        state = np.full((len(left), removals.units), not adding)
        state[:, chosen] = adding
        state[np.arange(len(left)), left] = adding
        support = removals(state)
        left = left[order(support if adding else -support, rng)]
        take = stop - len(chosen)
        chosen, left = np.concatenate([chosen, left[:take]]), left[take:]
    return np.concatenate([chosen, left])
