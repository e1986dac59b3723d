"""How far a map can be trusted: a number between chance (0) and the best that was found with the model's help (100).

    truth score = 100 * (C(map) - C(random)) / (C(oracle) - C(random))

C is the area over the curve (AOPC) of comprehensiveness, and in a second score of sufficiency; random is the mean of 20
random orders; the oracle is greedy leave-one-out. 0 is chance, below 0 is misleading; nothing is clipped.

What the interval says. For one example, map and oracle are fixed and only the random orders vary; the interval compares
the map with *one* random order (as one draw of a smoothed bootstrap), not with their mean: else a random map would be
called better than chance every third time. So an interval that holds 0 means: a random order could have done this. For
many examples the score is the ratio of sums, which stays stable where single denominators are tiny, and the examples
are resampled, too; the interval is the wider of the two at each end, since a handful of examples resampled among
themselves look more alike than they are.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from recuerdo.errors import InputError, ShapeError
from recuerdo.explain.truth_ranks import Randomisation, kendall, randomisation, spearman
from recuerdo.explain.truth_removal import (
    BUDGET,
    THRESHOLDS,
    Oracle,
    Removals,
    Value,
    as_row,
    comprehensiveness,
    curves,
    leave_one_out,
    oracle,
    order,
    steps,
    sufficiency,
)

__all__ = [
    "BETTER",
    "DECORATION",
    "MISLEADING",
    "NO_SCORE",
    "THRESHOLDS",
    "UNTOLD",
    "Measured",
    "Oracle",
    "Randomisation",
    "Removals",
    "Score",
    "Truth",
    "Value",
    "comprehensiveness",
    "judge",
    "kendall",
    "leave_one_out",
    "measure",
    "oracle",
    "order",
    "randomisation",
    "spearman",
    "steps",
    "sufficiency",
    "truth_score",
    "truth_table",
]

ORDERS = 20
TIE_BREAKS = 5  # a map with ties is the mean over so many ways to break them: one way alone is a throw of dice
DRAWS = 2000
OWN = 7_200_000  # salts every seed: a random map made from the same seed must not share its stream with our orders
EPSILON = 1e-3  # in units of the value: a tenth of a percent of probability

BETTER = "better than chance"
DECORATION = "this map is decoration"
MISLEADING = "this map is decoration: worse than chance"
UNTOLD = "too little to tell"
NO_SCORE = "no score"

Removal = Literal["keys", "input"]


@dataclass(frozen=True, eq=False)
class Measured:
    """What one example gave, before it is judged: curves of comprehensiveness and sufficiency, [2, points] each.

    `maps`: by method. `random` [orders, 2, points]. `shares`: which part of the units each point removes. `point`: the
    point of each of `thresholds` (on few units several share one). `tau`: rank agreement with leave-one-out.
    """

    maps: dict[str, np.ndarray]
    random: np.ndarray
    oracle: np.ndarray
    search: str
    tau: dict[str, float | None]
    thresholds: tuple[float, ...]
    shares: np.ndarray
    point: np.ndarray
    evaluations: int


@dataclass(frozen=True)
class Score:
    """A truth score with its 95 % interval, and what it is made of, all in units of the value.

    `aopc` and `curve` of the map, `random` and `oracle`: their AOPC (means over examples). `score`, `low` and `high`
    are None when there is nothing to find, and `reason` says why. `reason` also warns when not even the oracle can be
    told from chance. `empty`: in how many examples there was nothing to find; they count like the others.
    """

    score: float | None
    low: float | None
    high: float | None
    verdict: str
    reason: str | None
    aopc: float
    curve: tuple[float, ...]
    random: float
    oracle: float
    empty: int


@dataclass(frozen=True)
class Truth:
    """How far one method can be trusted. `score`, `low`, `high` and `verdict` are those of comprehensiveness.

    `removal`: how units were removed, "keys" (taken out of the reads) or "input" (replaced). `shares`: which part of
    the units each point of the curves removes (for many examples: the thresholds that were asked for). `tau`: Kendall's
    tau-b with leave-one-out, the mean where it exists. `search`: how the oracle was found. `evaluations`: how many
    variants the model was asked for, all methods together.
    """

    name: str
    removal: Removal
    comprehensiveness: Score
    sufficiency: Score
    shares: tuple[float, ...]
    tau: float | None
    search: str
    examples: int
    evaluations: int

    @property
    def score(self) -> float | None:
        """The truth score: 0 = chance, 100 = the oracle, None = nothing to find."""
        return self.comprehensiveness.score

    @property
    def low(self) -> float | None:
        """The low end of its interval."""
        return self.comprehensiveness.low

    @property
    def high(self) -> float | None:
        """The high end of its interval."""
        return self.comprehensiveness.high

    @property
    def verdict(self) -> str:
        """One of BETTER, DECORATION, MISLEADING, UNTOLD, NO_SCORE."""
        return self.comprehensiveness.verdict

    def as_data(self) -> dict[str, Any]:
        """The same as plain data for JSON, with the headline first."""
        head = {"name": self.name, "score": self.score, "low": self.low, "high": self.high, "verdict": self.verdict}
        return head | asdict(self)


def measure(
    value: Value,
    maps: Mapping[str, ArrayLike],
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    orders: int = ORDERS,
    budget: int = BUDGET,
    seed: int = 0,
) -> Measured:
    """Curves of many maps {method: [n]} over the same units of one example, of random orders and of the oracle.

    All orders go to `value` in one batch, each variant once. Take sinks out of a map (set them to 0) to score it
    without them, as a method of its own. Raises InputError and ShapeError for what cannot be ranked.
    """
    rows = _rows(maps)
    if orders < 2:
        raise InputError(f"chance needs at least 2 random orders, not {orders}: {ORDERS} is the rule")
    units, rng = len(next(iter(rows.values()))), np.random.default_rng([OWN, seed])
    removals = Removals(value, units)
    ranked = [rng.permutation(units) for _ in range(orders)]
    best = oracle(removals, units, thresholds, budget=budget, rng=rng)
    ends = [len(ranked)]
    for row in rows.values():
        ranked += [order(row, rng) for _ in range(TIE_BREAKS if len(np.unique(row)) < units else 1)]
        ends.append(len(ranked))
    found = curves(removals, np.stack(ranked), thresholds)
    counts, point = steps(units, thresholds)
    return Measured(
        maps={name: found[a:b].mean(0) for name, a, b in zip(rows, ends[:-1], ends[1:], strict=True)},
        random=found[:orders],
        oracle=best.curves,
        search=best.search,
        tau={name: kendall(row, best.effects) for name, row in rows.items()},
        thresholds=tuple(float(t) for t in thresholds),
        shares=counts / units,
        point=point,
        evaluations=removals.evaluations,
    )


def _rows(maps: Mapping[str, ArrayLike]) -> dict[str, np.ndarray]:
    rows = {name: as_row(row, name) for name, row in maps.items()}
    if not rows:
        raise InputError("there are no maps to measure: hand over at least one, by its name")
    lengths = {name: len(row) for name, row in rows.items()}
    if len(set(lengths.values())) > 1:
        raise ShapeError(f"the maps have different numbers of units, {lengths}: map the same units in all")
    return rows


def truth_score(
    value: Value,
    maps: Mapping[str, ArrayLike],
    *,
    removal: Removal = "keys",
    thresholds: Sequence[float] = THRESHOLDS,
    orders: int = ORDERS,
    budget: int = BUDGET,
    epsilon: float = EPSILON,
    seed: int = 0,
) -> dict[str, Truth]:
    """The truth of every map {method: [n]} of one example: `measure`, then `judge`."""
    one = measure(value, maps, thresholds=thresholds, orders=orders, budget=budget, seed=seed)
    return judge([one], removal=removal, epsilon=epsilon, seed=seed)


def truth_table(
    examples: Iterable[tuple[Value, Mapping[str, ArrayLike]]],
    *,
    removal: Removal = "keys",
    thresholds: Sequence[float] = THRESHOLDS,
    orders: int = ORDERS,
    budget: int = BUDGET,
    epsilon: float = EPSILON,
    seed: int = 0,
) -> dict[str, Truth]:
    """The truth of every method over many examples (value, maps), taken one at a time: `measure` each, then `judge`."""
    measured = []
    for value, maps in examples:
        own = int(
            np.random.SeedSequence([OWN, seed, len(measured)]).generate_state(1)[0]
        )  # else all share their orders
        measured.append(measure(value, maps, thresholds=thresholds, orders=orders, budget=budget, seed=own))
    return judge(measured, removal=removal, epsilon=epsilon, seed=seed)


def judge(
    measured: Sequence[Measured],
    *,
    removal: Removal = "keys",
    epsilon: float = EPSILON,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Truth]:
    """Score, interval and verdict of every method over the examples, in the order of the first one's maps.

    The score over many examples is the sum of what the map gains over chance divided by the sum of what the oracle
    gains, and all examples count. Below a mean gain of `epsilon` of the oracle (in units of the value; take a smaller
    one when the target is rare) there is nothing to find and no score. The verdict follows the interval: wholly below
    0 is worse than chance, a low end not above 0 is decoration, unless not even the oracle can be told from chance.
    Raises InputError when examples do not belong together.
    """
    _together(measured, removal)
    judges = [_Judge(measured, side, epsilon, draws, seed) for side in (0, 1)]
    first, single = measured[0], len(measured) == 1
    truths = {}
    for name in first.maps:
        taus = [tau for one in measured if (tau := one.tau[name]) is not None]
        truths[name] = Truth(
            name=name,
            removal=removal,
            comprehensiveness=judges[0].score([one.maps[name] for one in measured]),
            sufficiency=judges[1].score([one.maps[name] for one in measured]),
            shares=tuple(first.shares.tolist()) if single else first.thresholds,
            tau=float(np.mean(taus)) if taus else None,
            search="; ".join(sorted({one.search for one in measured})),
            examples=len(measured),
            evaluations=sum(one.evaluations for one in measured),
        )
    return truths


def _together(measured: Sequence[Measured], removal: str) -> None:
    if removal not in ("keys", "input"):
        raise InputError(f"removal is 'keys' or 'input', not {removal!r}: say how units were taken away")
    if not measured:
        raise InputError("there are no examples to judge: measure at least one")
    for i, one in enumerate(measured):
        if one.maps.keys() != measured[0].maps.keys():
            raise InputError(
                f"example {i} has the maps {list(one.maps)}, the first one {list(measured[0].maps)}: "
                "every example needs the same methods"
            )
        if one.thresholds != measured[0].thresholds:
            raise InputError(
                f"example {i} has the thresholds {one.thresholds}, the first one {measured[0].thresholds}: "
                "measure all with the same"
            )


class _Judge:
    """Judges one side of all examples: 0 comprehensiveness, more is better; 1 sufficiency, less is better."""

    def __init__(self, measured: Sequence[Measured], side: int, epsilon: float, draws: int, seed: int):
        self._measured, self._side, self._epsilon = measured, side, epsilon
        self._sign = (1.0, -1.0)[side]
        self._random = [self._aopc(one.random) for one in measured]
        self._chance = np.array([r.mean() for r in self._random])
        self._oracle = np.array([self._aopc(one.oracle) for one in measured])
        self._best = self._sign * (self._oracle - self._chance)  # what the oracle gains over chance, by example
        rng = np.random.default_rng([OWN, seed, side])
        self._luck = sum(_one_order(self._sign * r, draws, rng) for r in self._random)
        self._resampled = rng.integers(len(measured), size=(draws, len(measured)))
        self._reason = self._nothing()
        oracle_low = None if self._reason else self._interval(self._best)[0]
        if oracle_low is not None and oracle_low <= 0:
            self._warning = "not even the oracle can be told from chance here: too few units or examples"
        else:
            self._warning = None

    def _aopc(self, curve: np.ndarray) -> np.ndarray:
        return curve[..., self._side, :].mean(-1)

    def _nothing(self) -> str | None:
        """Why there is no score, if so."""
        mean = self._best.mean()
        if mean >= self._epsilon:
            return None
        if all(len(one.shares) == 1 and one.shares[0] == 1 for one in self._measured):
            return "nothing to find: every order removes the same units"
        if mean > -self._epsilon:
            return f"nothing to find: it does not matter which units are removed (the oracle gains {mean:.2g})"
        return f"the oracle found less than random orders do ({mean:.2g}): units act only together here"

    def score(self, of_examples: list[np.ndarray]) -> Score:
        """The score of one method from its curves [2, points] of all examples."""
        aopc = np.array([self._aopc(curve) for curve in of_examples])
        gain = self._sign * (aopc - self._chance)
        low, high = (None, None) if self._reason else self._interval(gain)
        return Score(
            score=None if self._reason else float(100 * gain.sum() / self._best.sum()),
            low=low,
            high=high,
            verdict=_verdict(low, high, bool(self._warning)),
            reason=self._reason or self._warning,
            aopc=float(aopc.mean()),
            curve=tuple(self._curve(of_examples).tolist()),
            random=float(self._chance.mean()),
            oracle=float(self._oracle.mean()),
            empty=int((self._best < self._epsilon).sum()),
        )

    def _curve(self, of_examples: list[np.ndarray]) -> np.ndarray:
        """The curve of the example, or the mean of all, each with a point for every threshold."""
        if len(of_examples) == 1:
            return of_examples[0][self._side]
        pairs = zip(of_examples, self._measured, strict=True)
        return np.mean([curve[self._side, one.point] for curve, one in pairs], 0)

    def _interval(self, gain: np.ndarray) -> tuple[float, float]:
        """95 % of 100 * gain / best [examples] against one random order, and over resampled examples: the wider."""
        best = self._best.sum()
        drawn = [100 * (gain.sum() - self._luck) / best]
        if len(gain) > 1:
            floor = len(gain) * self._epsilon  # a draw of examples with nothing to find must not flip the sign
            drawn.append(100 * gain[self._resampled].sum(-1) / np.maximum(self._best[self._resampled].sum(-1), floor))
        ends = np.percentile(drawn, (2.5, 97.5), axis=1)
        return float(ends[0].min()), float(ends[1].max())


def _one_order(random: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """How far one random order lies from the mean of all [orders], drawn often: [draws].

    Smoothed with Silverman's normal bandwidth: the ends of 20 plain draws leave out one random order in ten. In
    simulations of a fresh random order (normal, skewed, one needle among 10 to 60 units; 1 to 20 examples) the interval
    holds 0 in 95 to 98 % of cases; about 3 in 100 lie wholly above.
    """
    bandwidth = 1.06 * random.std(ddof=1) * len(random) ** -0.2
    return rng.choice(random, draws) - random.mean() + bandwidth * rng.standard_normal(draws)


def _verdict(low: float | None, high: float | None, blind: bool) -> str:
    if low is None or high is None:
        return NO_SCORE
    if blind and low <= 0 <= high:
        return UNTOLD
    return MISLEADING if high < 0 else BETTER if low > 0 else DECORATION
