"""Do two maps agree about the order of the units? And does a map change when the model forgets all it learnt?

Rank agreement with leave-one-out is the tau of ferret (Attanasio et al. 2023). The randomisation check is the model
parameter randomisation test of Adebayo et al. 2018 (MPRT): a map that stays the same over a model of random parameters
cannot show what the trained one does.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from recuerdo.errors import InputError, ShapeError
from recuerdo.explain.truth_removal import as_row

BLOCK = 256
SAME = 0.7  # rank correlation: half of the variance of the ranks (0.7² = 0.49) is there without any learning

INDEPENDENT = "does not depend on what the model learnt"
DEPENDENT = "depends on what the model learnt"
TOO_FEW = "too few units to tell"


def kendall(first: ArrayLike, second: ArrayLike) -> float | None:
    """Kendall's tau-b of two maps [n]: pairs in the same order minus pairs in the other, -1 to 1, ties allowed for.

    None when one of them has no order (all values equal, or one unit). Row by row: nothing n x n is held.
    """
    a, b = _pair(first, second)
    agree = in_a = in_b = 0
    for i in range(0, len(a), BLOCK):
        up_a, up_b = _signs(a, i), _signs(b, i)
        agree += int((up_a * up_b).sum(dtype=np.int64))
        in_a, in_b = in_a + np.count_nonzero(up_a), in_b + np.count_nonzero(up_b)
    return agree / float(np.sqrt(float(in_a) * float(in_b))) if in_a and in_b else None


def _signs(row: np.ndarray, start: int) -> np.ndarray:
    """The signs of the differences of a block of values to all: compared, as unsigned values cannot be subtracted."""
    some = row[start : start + BLOCK, None]
    return (some > row).astype(np.int8) - (some < row)


def spearman(first: ArrayLike, second: ArrayLike) -> float | None:
    """Spearman's rank correlation of two maps [n], ties at their mean rank; None when one of them has no order."""
    a, b = (_ranks(row) for row in _pair(first, second))
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size else None


def _pair(first: ArrayLike, second: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    a, b = as_row(first), as_row(second)
    if len(a) != len(b):
        raise ShapeError(f"a map of {len(a)} units and one of {len(b)} cannot be compared: map the same units")
    return a, b


def _ranks(row: np.ndarray) -> np.ndarray:
    _, at, many = np.unique(row, return_inverse=True, return_counts=True)
    return (np.cumsum(many) - (many - 1) / 2)[at]


@dataclass(frozen=True)
class Randomisation:
    """How far a map stays the same while the model is randomised, layer by layer.

    `correlations`: Spearman with the trained model's map, by step (mean over seeds). `seeds`: the same between the
    maps of fully randomised models of different seeds (None with one seed). `bar`: from here on the map counts as
    independent of learning; `bar_from` says why. `verdict`: one of INDEPENDENT, DEPENDENT, TOO_FEW.
    """

    correlations: dict[str, float]
    seeds: float | None
    bar: float
    bar_from: str
    verdict: str

    def as_data(self) -> dict[str, Any]:
        """The same as plain data for JSON."""
        return asdict(self)


def randomisation(trained: ArrayLike, cascade: Mapping[str, ArrayLike], *, same: float = SAME) -> Randomisation:
    """The randomisation check of one map [n] against the maps of models with more and more random layers.

    `cascade`: a name for each step -> its map [n], or one for each seed [s, n]; the last step is fully randomised.
    The map does not depend on what was learnt when architecture and input alone fix half of its order: when its
    correlation with the last step's maps reaches `same`. Those maps also hold the noise of their own seed, which
    nothing can correlate with; what seeds have in common shows in their correlation with each other, so with several
    seeds the bar is same * sqrt(that) (Spearman's correction for attenuation). Unrelated orders correlate with a
    standard deviation of 1/sqrt(n - 1), so the bar is never below 1.645 times that; where this is above 1 (n <= 3)
    nothing can be told. A map without any order agrees with nothing (0). Raises InputError when there are no steps or
    the trained map has no order, ShapeError when maps differ in length.
    """
    row = as_row(trained)
    if not cascade:
        raise InputError("there are no randomised models to compare with: hand over one map per step, at least one")
    if (row == row[0]).all():
        raise InputError("the trained model's map has no order, all units are equal: there is nothing to compare")
    maps = {name: _seeds(name, given, len(row)) for name, given in cascade.items()}
    correlations = {name: float(np.mean([spearman(row, one) or 0.0 for one in many])) for name, many in maps.items()}
    name, last = list(maps.items())[-1]
    seeds = _agreement(last)
    chance = 1.645 / np.sqrt(max(len(row) - 1, 1))
    bar, source = same, f"{same:g}, half of the variance of the ranks"
    if seeds is not None:
        bar, source = same * float(np.sqrt(max(seeds, 0.0))), f"{source}, of what different seeds have in common"
    if chance > bar:
        bar, source = float(chance), f"95 % of unrelated orders of {len(row)} units agree less"
    verdict = TOO_FEW if bar >= 1 else INDEPENDENT if correlations[name] >= bar else DEPENDENT
    return Randomisation(correlations, seeds, bar, source, verdict)


def _seeds(name: str, given: ArrayLike, units: int) -> list[np.ndarray]:
    maps = np.asarray(given)
    if maps.ndim not in (1, 2) or maps.shape[-1] != units or not maps.size:
        raise ShapeError(
            f"the maps of step {name!r} have shape {list(maps.shape)}: hand over [{units}], or [s, {units}]"
        )
    return [as_row(one, name) for one in np.atleast_2d(maps)]


def _agreement(maps: list[np.ndarray]) -> float | None:
    """The mean correlation between the maps of different seeds; None with one seed."""
    pairs = [spearman(one, two) or 0.0 for i, one in enumerate(maps) for two in maps[:i]]
    return float(np.mean(pairs)) if pairs else None
