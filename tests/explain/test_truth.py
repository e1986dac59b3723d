"""The truth score over models whose truth is known: sums with known weights, conjunctions, and nothing at all."""

import itertools
import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recuerdo.errors import InputError, ShapeError
from recuerdo.explain import truth_ranks
from recuerdo.explain.truth import (
    BETTER,
    DECORATION,
    MISLEADING,
    NO_SCORE,
    THRESHOLDS,
    UNTOLD,
    Removals,
    comprehensiveness,
    judge,
    kendall,
    leave_one_out,
    measure,
    oracle,
    order,
    randomisation,
    spearman,
    steps,
    sufficiency,
    truth_score,
    truth_table,
)
from recuerdo.explain.truth_ranks import DEPENDENT, INDEPENDENT, TOO_FEW
from recuerdo.explain.truth_removal import BY_THRESHOLD, ONE_SHOT, UNIT_BY_UNIT

few = settings(max_examples=40, deadline=None, database=None)


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def additive(weights, base: float = 0.05):
    """A model whose support of the target is a sum: the truth about it is its weights."""
    return lambda kept: base + kept @ np.asarray(weights, float)


def uneven(n: int, *seed: int) -> np.ndarray:
    """Weights of which a few matter, as in a text; they sum to 0.9."""
    weights = rng(*seed).exponential(size=n) ** 2
    return 0.9 * weights / weights.sum()


# --------------------------------------------------------------------------------------------------------------- order


def test_the_strongest_come_first_and_signs_count():
    assert order([0.1, -5.0, 3.0, 0.0], rng(0)).tolist() == [2, 0, 3, 1]
    assert order([1, np.inf, -np.inf], rng(0)).tolist() == [1, 0, 2]
    assert order([False, True], rng(0)).tolist() == [1, 0]


@pytest.mark.parametrize("kind", [np.int8, np.int64, np.uint8, np.uint64, np.float16, np.float32])
def test_every_kind_of_number_ranks_alike(kind):
    """Negated bytes would wrap: 0 would come before 200."""
    assert order(np.array([0, 3, 1, 100, 2], kind), rng(0)).tolist() == [3, 1, 4, 2, 0]


def test_large_integers_keep_their_order():
    assert order(np.array([2**60, 2**60 + 2, 2**60 + 1]), rng(0)).tolist() == [1, 2, 0]


def test_ties_break_at_random_and_never_by_position():
    first = np.bincount([order([0, 1, 1, 1], r)[0] for r in [rng(0)] for _ in range(900)], minlength=4)
    assert first[0] == 0
    assert (abs(first[1:] - 300) < 75).all()  # five standard deviations


@pytest.mark.parametrize(
    ("row", "error", "words"),
    [
        (
            [0.1, np.nan],
            InputError,
            "the map holds NaN: a unit without a value cannot be ranked; give it 0 or leave it out",
        ),
        ([], InputError, "the map has no units: there is nothing to remove"),
        ([[1, 2]], ShapeError, "the map has shape [1, 2]: hand over one number per unit, [n]"),
        (["a", "b"], InputError, "the map holds <U1, not numbers: hand over one number per unit"),
    ],
)
def test_what_cannot_be_ranked(row, error, words):
    with pytest.raises(error, match=f"^{re.escape(words)}$"):
        order(row, rng(0))


# -------------------------------------------------------------------------------------------------------------- curves


@pytest.mark.parametrize(
    ("n", "counts", "point"),
    [
        (1, [1], [0, 0, 0, 0, 0]),
        (2, [1], [0, 0, 0, 0, 0]),
        (10, [1, 2, 5], [0, 0, 0, 1, 2]),
        (60, [1, 3, 6, 12, 30], [0, 1, 2, 3, 4]),
        (1000, [10, 50, 100, 200, 500], [0, 1, 2, 3, 4]),
    ],
)
def test_steps_take_one_unit_at_least_and_no_number_twice(n, counts, point):
    got = steps(n)
    assert (got[0].tolist(), got[1].tolist()) == (counts, point)


def test_a_share_of_units_is_rounded_as_written():
    assert steps(50, [0.29])[0].tolist() == [15], "0.29 * 50 is 14.499… in floats"
    assert steps(3, [1.0])[0].tolist() == [3]


@pytest.mark.parametrize("thresholds", [[], [0.0], [1.2], [-0.1], [np.nan], [[0.1]]])
def test_thresholds_are_shares(thresholds):
    with pytest.raises(InputError, match="^thresholds are shares of the units, above 0 and at most 1, not "):
        steps(10, thresholds)


@few
@given(st.integers(1, 12), st.integers(0, 10**6))
def test_curves_of_a_sum_are_sums(n, seed):
    weights, ranking = rng(seed).normal(size=n), rng(seed, 1).permutation(n)
    counts = steps(n)[0]
    lost = np.array([weights[ranking[:k]].sum() for k in counts])
    np.testing.assert_allclose(comprehensiveness(additive(weights), ranking), lost, atol=1e-12)
    np.testing.assert_allclose(sufficiency(additive(weights), ranking), weights.sum() - lost, atol=1e-12)


def test_many_rankings_are_evaluated_at_once_and_each_variant_once():
    calls = []

    def value(kept):
        assert kept.dtype == bool
        assert len({row.tobytes() for row in kept}) == len(kept), "no variant twice in a batch"
        calls.append(len(kept))
        return kept @ np.arange(8.0)

    rankings = np.stack([np.arange(8), np.arange(8), np.arange(8)[::-1]])
    thresholds = [0.25, 0.5]
    shared = Removals(value, 8)
    got = comprehensiveness(shared, rankings, thresholds)
    assert got.shape == (3, 2)
    assert got.tolist() == [[1, 6], [1, 6], [13, 22]]
    # all; without and with only the first and last 2 and 4, of which the halves complete each other
    assert (calls, shared.evaluations) == ([7], 7)
    assert sufficiency(shared, rankings[0], thresholds).tolist() == [27, 22]
    assert calls == [7], "the answers are shared"


def test_the_order_of_a_batch_does_not_matter():
    weights = uneven(9, 3)
    shared = Removals(additive(weights), 9)
    kept = rng(1).random((40, 9)) < 0.5
    doubled = np.concatenate([kept, kept[::-1]])
    np.testing.assert_allclose(shared(doubled), 0.05 + doubled @ weights)
    assert shared.evaluations == len(np.unique(kept, axis=0))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: comprehensiveness(additive([1, 2]), [0, 0]), InputError, "a ranking names each of its 2 units once"),
        (
            lambda: comprehensiveness(additive([1, 2]), [0.3, 0.7]),
            InputError,
            "names each of its 2 units once: take it",
        ),
        (lambda: sufficiency(additive([1]), np.zeros((1, 1, 1))), ShapeError, "rankings have shape [1, 1, 1]"),
        (lambda: sufficiency(additive([1]), []), ShapeError, "rankings have shape [0]: hand over [n], or [m, n]"),
        (lambda: comprehensiveness(Removals(additive([1, 2]), 2), [0, 1, 2]), ShapeError, "do not fit 2 units: [v, 2]"),
        (
            lambda: comprehensiveness(lambda kept: kept.astype(float), [0, 1]),
            ShapeError,
            "the value of 3 variants has shape [3, 2]: give one number per variant",
        ),
        (
            lambda: comprehensiveness(lambda kept: np.where(kept[:, 0], 0.5, -np.inf), [0, 1]),
            InputError,
            "the value of a variant is not a finite number: give a probability or a bounded log-probability",
        ),
        (
            lambda: oracle(additive([1, 2]), 2, budget=3),
            InputError,
            "leave-one-out of 2 units takes 4 evaluations and the",
        ),
        (lambda: oracle(additive([1, 2]), 2, budget=3), InputError, "budget is 3: raise it, or map larger units"),
        (lambda: truth_score(additive([1]), {}), InputError, "there are no maps to measure: hand over at least one"),
        (
            lambda: truth_score(additive([1, 2]), {"a": [1, 2], "b": [1]}),
            ShapeError,
            "the maps have different numbers of units, {'a': 2, 'b': 1}: map the same units in all",
        ),
        (lambda: truth_score(additive([1]), {"raw": [np.nan]}), InputError, "the map 'raw' holds NaN"),
        (
            lambda: truth_score(additive([1, 2]), {"a": [1, 2]}, orders=1),
            InputError,
            "chance needs at least 2 random orders, not 1: 20 is the rule",
        ),
        (
            lambda: truth_score(additive([1, 2]), {"a": [1, 2]}, removal="words"),
            InputError,
            "removal is 'keys' or 'input', not 'words': say how units were taken away",
        ),
        (lambda: truth_table([]), InputError, "there are no examples to judge: measure at least one"),
        (
            lambda: truth_table([(additive([1, 2]), {"a": [1, 2]}), (additive([1, 2]), {"b": [1, 2]})]),
            InputError,
            "example 1 has the maps ['b'], the first one ['a']: every example needs the same methods",
        ),
        (
            lambda: judge([measure(additive([1, 2]), {"a": [1, 2]}, thresholds=t) for t in ([0.5], [1.0])]),
            InputError,
            "example 1 has the thresholds (1.0,), the first one (0.5,): measure all with the same",
        ),
    ],
)
def test_what_cannot_be_measured_is_told(call, error, words):
    with pytest.raises(error, match=re.escape(words)):
        call()


# -------------------------------------------------------------------------------------------------------------- oracle


def best_of_all(value, n: int, thresholds) -> tuple[float, float]:
    """The best AOPC of comprehensiveness and of sufficiency over every ranking there is."""
    rankings = np.array(list(itertools.permutations(range(n))))
    shared = Removals(value, n)
    drops = comprehensiveness(shared, rankings, thresholds).mean(-1).max()
    return drops, sufficiency(shared, rankings, thresholds).mean(-1).min()


@few
@given(st.integers(1, 6), st.integers(0, 10**6), st.sampled_from([20, 40, 1000]))
def test_of_a_sum_the_oracle_finds_the_best_at_any_budget(n, seed, budget):
    value = additive(rng(seed).normal(size=n))
    found = oracle(value, n, [0.2, 0.5, 0.8], budget=budget).curves.mean(-1)
    np.testing.assert_allclose(found, best_of_all(value, n, [0.2, 0.5, 0.8]), atol=1e-12)


def copies(kept: np.ndarray) -> np.ndarray:
    """Two words say the same (.6 and .5, either is nearly enough), a third one adds .25 on its own."""
    return 1 - (1 - 0.6 * kept[:, 0]) * (1 - 0.5 * kept[:, 1]) + 0.25 * kept[:, 2]


def test_greedy_finds_copies_that_one_shot_leave_one_out_misses():
    effects = leave_one_out(copies, 3)
    np.testing.assert_allclose(effects, [0.3, 0.2, 0.25])
    one_shot = comprehensiveness(copies, order(effects, rng(0)), [2 / 3])
    np.testing.assert_allclose(one_shot, [0.55])
    greedy = oracle(copies, 3, [2 / 3])
    assert greedy.search == UNIT_BY_UNIT
    np.testing.assert_allclose(greedy.curves[0], [0.8])
    np.testing.assert_allclose(greedy.effects, effects)
    short = oracle(copies, 3, [2 / 3], budget=9)
    assert short.search == BY_THRESHOLD, "one threshold: all is ranked once"


def test_a_conjunction_is_found_by_adding_greedily():
    """Both of two words are needed: one alone adds nothing, and only with the first the second does."""

    def both(kept):
        return 0.5 * (kept[:, 3] & kept[:, 5]) + 0.05 * kept[:, 3] + 0.01 * kept[:, 0]

    found = oracle(both, 8, [0.25])
    np.testing.assert_allclose(found.curves, [[0.56], [0.01]])
    truths = truth_score(both, {"pair": np.isin(np.arange(8), [3, 5])}, thresholds=[0.25])
    assert truths["pair"].sufficiency.score == pytest.approx(100)


def test_a_pair_of_which_either_is_enough_is_found_by_asking_for_each_alone():
    """Without one of two words nothing is lost: leave-one-out has no first step, but alone each of them is enough."""

    def either(kept):
        return 0.05 + 0.9 * (kept[:, 0] | kept[:, 1]) + 0.001 * kept[:, 2:].sum(1)

    assert leave_one_out(either, 20)[:2].tolist() == [0, 0]
    found = oracle(either, 20, [0.1])
    assert found.curves[0] == pytest.approx(0.9)
    pair = np.array([2, 2, *[0] * 18])
    truth = truth_score(either, {"pair": pair, "one by one": leave_one_out(either, 20)}, thresholds=[0.1])
    assert truth["pair"].score == pytest.approx(100)
    assert truth["one by one"].score < 10


def test_what_hides_from_the_oracle_may_score_above_100_and_is_not_clipped():
    """Either of two pairs is enough, so neither without one unit nor with one alone anything shows."""

    def pairs(kept):
        return 0.05 + 0.9 * (kept[:, :2].all(1) | kept[:, 2:4].all(1)) + 0.001 * kept[:, 4:].sum(1)

    truth = truth_score(pairs, {"one of each": np.isin(np.arange(20), [0, 2])}, thresholds=[0.1], seed=1)["one of each"]
    part = truth.comprehensiveness
    assert part.aopc == pytest.approx(0.9)
    assert part.oracle < 0.01
    assert part.score is None or part.score > 100
    small = truth_score(pairs, {"a": np.isin(np.arange(20), [0, 2])}, thresholds=[0.1], epsilon=1e-9, seed=1)["a"]
    assert small.score > 1000


def test_parity_has_greedy_steps():
    """An odd number of marked words: leaving out any one turns it over; the search goes on from there."""

    def parity(kept):
        return 0.2 + 0.6 * (kept[:, :3].sum(1) % 2)

    found = oracle(parity, 6, [0.2, 0.5])
    assert found.curves[0].tolist() == pytest.approx([0.6, 0.6])
    # an odd number of removals of the first three lowers it
    assert best_of_all(parity, 6, [0.2, 0.5])[0] == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("budget", "search"), [(2800, UNIT_BY_UNIT), (600, BY_THRESHOLD), (300, ONE_SHOT), (120, ONE_SHOT)]
)
def test_the_budget_bounds_the_search_and_the_result_says_so(budget, search):
    n, weights = 60, uneven(60, 1)
    shared = Removals(additive(weights), n)
    found = oracle(shared, n, budget=budget)
    assert found.search == search
    finals = 8 * len(THRESHOLDS) + 1  # the curves of the orders that were found
    assert shared.evaluations <= budget + finals
    truth = truth_score(additive(weights), {"true": weights}, budget=budget)["true"]
    assert truth.search == search
    assert truth.score == pytest.approx(100)


# -------------------------------------------------------------------------------------------------- scores, one example


@few
@given(st.integers(12, 40), st.integers(0, 10**6))
def test_the_true_weights_score_100_and_their_reverse_is_misleading_or_decoration(n, seed):
    weights = uneven(n, seed)
    truths = truth_score(additive(weights), {"true": weights, "reversed": -weights}, seed=seed)
    for part in (truths["true"].comprehensiveness, truths["true"].sufficiency):
        assert part.score == pytest.approx(100)
        assert part.low <= 100 <= part.high
        assert part.low > 0 or part.reason is not None
    assert truths["true"].tau == pytest.approx(1)
    assert truths["reversed"].tau == pytest.approx(-1)
    assert truths["reversed"].score < 0
    assert truths["reversed"].sufficiency.score < 0
    assert truths["reversed"].verdict in (MISLEADING, DECORATION, UNTOLD)


def test_verdicts_follow_the_interval():
    weights = np.linspace(0, 1, 40) / 20
    truths = truth_score(
        additive(weights), {"true": weights, "reversed": -weights, "flat": np.ones(40), "random": rng(4).random(40)}
    )
    verdicts = {name: (truth.verdict, truth.sufficiency.verdict) for name, truth in truths.items()}
    assert verdicts == {
        "true": (BETTER, BETTER),
        "reversed": (MISLEADING, MISLEADING),
        "flat": (DECORATION, DECORATION),
        "random": (DECORATION, DECORATION),
    }
    assert DECORATION == "this map is decoration"
    for truth in truths.values():
        assert truth.low < truth.score < truth.high


def test_the_formula():
    weights = uneven(30, 8)
    raw = measure(additive(weights), {"noisy": weights + 0.05 * rng(1).normal(size=30)}, seed=3)
    truth = judge([raw])["noisy"]
    for side, part in enumerate((truth.comprehensiveness, truth.sufficiency)):
        random, best, own = raw.random[:, side].mean(), raw.oracle[side].mean(), raw.maps["noisy"][side].mean()
        assert part.score == pytest.approx(100 * (own - random) / (best - random))
        assert (part.random, part.oracle, part.aopc) == pytest.approx((random, best, own))
        assert part.curve == pytest.approx(raw.maps["noisy"][side])
        assert len(part.curve) == len(truth.shares) == 5
    assert raw.random.shape == (20, 2, 5), "the mean of 20 orders"
    assert truth.shares == pytest.approx((1 / 30, 2 / 30, 3 / 30, 6 / 30, 15 / 30))
    assert (truth.score, truth.low, truth.high) == (
        truth.comprehensiveness.score,
        truth.comprehensiveness.low,
        truth.comprehensiveness.high,
    )


@pytest.mark.parametrize("side", [0, 1])
def test_the_interval_is_the_distance_to_one_random_order(side):
    weights = np.r_[0.5, 0.2, np.full(22, 0.005)]  # random orders are skewed: few take away much
    raw = measure(additive(weights), {"half": np.r_[0, 1, np.zeros(22)]}, orders=1000)
    truth = judge([raw], draws=20000)["half"]
    part = (truth.comprehensiveness, truth.sufficiency)[side]
    sign = (1, -1)[side]
    random = sign * raw.random[:, side].mean(-1)
    gains = sign * raw.maps["half"][side].mean() - np.percentile(random, [97.5, 2.5])
    best = sign * raw.oracle[side].mean() - random.mean()
    np.testing.assert_allclose([part.low, part.high], 100 * gains / best, atol=12)


def needle(n: int, at: int):
    return lambda kept: 0.1 + 0.8 * kept[:, at]


@pytest.mark.parametrize("shape", ["sum", "needle"])
def test_the_interval_of_a_random_map_holds_zero_as_often_as_it_says(shape):
    """95 %, and not the third that an interval of the mean of the random orders would give."""
    held = {"comprehensiveness": 0, "sufficiency": 0}
    better = 0
    for seed in range(200):
        n = 15 + seed % 30
        value = additive(uneven(n, seed)) if shape == "sum" else needle(n, seed % n)
        truth = truth_score(value, {"random": rng(seed, 1).random(n)}, seed=seed, budget=200)["random"]
        for side in held:
            part = getattr(truth, side)
            held[side] += part.low <= 0 <= part.high
        better += truth.verdict == BETTER
    assert all(0.91 <= count / 200 <= 1 for count in held.values()), held
    assert better / 200 <= 0.07


def test_a_map_of_sinks_is_decoration_and_the_same_map_without_them_is_not():
    weights = uneven(24, 5)
    weights[0], weights[1:] = 0, weights[1:] * 2
    raw = np.array([1000.0, *weights[1:]])
    only = np.array([1000.0, *[0.0] * 23])
    truths = truth_score(additive(weights), {"raw": raw, "aside": np.array([0, *raw[1:]]), "sinks only": only})
    assert truths["sinks only"].verdict == DECORATION
    assert truths["raw"].score < truths["aside"].score == pytest.approx(100)
    assert truths["aside"].verdict == BETTER


def test_a_map_of_magnitudes_is_wrong_about_what_speaks_against():
    weights = np.array([0.3, 0.2, 0.1, -0.35, -0.25, *np.linspace(-0.02, 0.02, 15)])
    truths = truth_score(additive(weights, 0.5), {"signed": weights, "unsigned": abs(weights)})
    assert truths["signed"].score == pytest.approx(100)
    assert truths["unsigned"].score < 50


@pytest.mark.parametrize("kind", [np.int32, np.uint8])
def test_integer_maps_score_like_any_other(kind):
    weights = uneven(20, 6)
    whole = np.argsort(np.argsort(weights)).astype(kind)
    truths = truth_score(additive(weights), {"float": weights, "whole": whole})
    assert truths["whole"].score == truths["float"].score == pytest.approx(100)


def test_ties_are_broken_more_than_once():
    """A sparse map says nothing about most units; one way to rank these would be a throw of dice."""
    weights = uneven(30, 7)
    sparse = np.where(weights >= np.sort(weights)[-3], weights, 0)
    truths = [truth_score(additive(weights), {"sparse": sparse}, seed=s)["sparse"] for s in range(8)]
    assert np.std([truth.comprehensiveness.aopc for truth in truths]) < 0.008  # 0.012 with one way
    flat = [truth_score(additive(weights), {"flat": np.zeros(30)}, seed=s)["flat"] for s in range(8)]
    assert {truth.verdict for truth in flat} == {DECORATION}


def test_the_same_seed_gives_the_same_truth():
    weights = uneven(18, 2)
    maps = {"a": rng(3).random(18), "flat": np.zeros(18)}
    first, again, other = (truth_score(additive(weights), maps, seed=s)["flat"] for s in (5, 5, 6))
    assert first == again != other
    alone = truth_score(additive(weights), {"a": maps["a"]}, seed=5)["a"]
    assert alone.score == truth_score(additive(weights), maps, seed=5)["a"].score, "whatever else is measured"


# ------------------------------------------------------------------------------------------------------ nothing to find


@pytest.mark.parametrize("n", [2, 10, 50])
def test_where_nothing_matters_there_is_no_score(n):
    truth = truth_score(lambda kept: np.full(len(kept), 0.7), {"a": np.arange(n)})["a"]
    for part in (truth.comprehensiveness, truth.sufficiency):
        assert (part.score, part.low, part.high, part.verdict, part.empty) == (None, None, None, NO_SCORE, 1)
        assert part.reason == "nothing to find: it does not matter which units are removed (the oracle gains 0)"
    assert truth.tau is None
    assert (truth.score, truth.verdict) == (None, NO_SCORE)


def test_one_unit_has_one_order():
    truth = truth_score(additive([0.6]), {"a": [3]})["a"]
    assert (truth.score, truth.verdict) == (None, NO_SCORE)
    assert truth.comprehensiveness.reason == "nothing to find: every order removes the same units"
    assert truth.comprehensiveness.curve == pytest.approx((0.6,))
    assert truth.shares == (1.0,)
    whole = truth_score(additive([0.6, 0.1]), {"a": [3, 1]}, thresholds=[1.0])["a"]
    assert whole.comprehensiveness.reason == "nothing to find: every order removes the same units"


def test_two_units_cannot_tell_a_map_from_chance_and_it_says_so():
    truth = truth_score(additive([0.6, 0.1]), {"a": [3, 1]})["a"]
    assert truth.score == pytest.approx(100)
    assert truth.low < 0
    assert truth.verdict == UNTOLD
    assert truth.comprehensiveness.reason == (
        "not even the oracle can be told from chance here: too few units or examples"
    )


def test_small_gains_count_when_the_target_is_rare():
    weights = 0.0005 * uneven(20, 1)
    assert truth_score(additive(weights, 0), {"a": weights})["a"].score is None
    assert truth_score(additive(weights, 0), {"a": weights}, epsilon=1e-7)["a"].score == pytest.approx(100)


def test_an_oracle_below_chance_is_told():
    """A decoy that looks needed when it alone is out or in, and without which the model does better otherwise."""

    def decoy(kept):
        left, there = kept.sum(1), kept[:, 0]
        one_out, one_in = 0.5 - 0.01 * ~there, 0.5 + 0.1 * there
        return np.where(left >= 9, one_out, np.where(left <= 1, one_in, np.where(there, 0.2, 0.9)))

    part = truth_score(decoy, {"a": np.arange(10)}, thresholds=[0.3], budget=20)["a"].comprehensiveness
    assert part.oracle < part.random
    assert part.reason.startswith("the oracle found less than random orders do (-")
    assert part.reason.endswith("): units act only together here")
    assert part.verdict == NO_SCORE


# --------------------------------------------------------------------------------------------------------- many examples


def examples(count: int, *seed: int):
    for i in range(count):
        r = rng(*seed, i)
        n = int(r.integers(6, 30))
        weights = uneven(n, *seed, i)
        maps = {
            "true": weights,
            "noisy": weights + 0.12 * r.normal(size=n),
            "random": r.random(n),
            "reversed": -weights,
        }
        yield additive(weights), maps


def test_a_table_of_methods():
    table = truth_table(examples(20, 1), seed=2)
    assert list(table) == ["true", "noisy", "random", "reversed"]
    assert {name: truth.verdict for name, truth in table.items()} == {
        "true": BETTER,
        "noisy": BETTER,
        "random": DECORATION,
        "reversed": MISLEADING,
    }
    true = table["true"]
    assert true.score == pytest.approx(100)
    assert 70 < true.low <= 100 <= true.high < 130
    assert table["noisy"].score < 90
    assert true.examples == 20
    assert true.shares == THRESHOLDS
    assert len(true.comprehensiveness.curve) == 5
    assert true.comprehensiveness.empty == 0


def test_more_examples_narrow_the_interval():
    widths = []
    for count in (1, 4, 16):
        noisy = truth_table(examples(count, 3))["noisy"]
        widths.append(noisy.high - noisy.low)
    assert widths[0] > widths[1] > widths[2]


def test_the_table_is_a_ratio_of_sums_and_every_example_counts():
    measured = [measure(value, maps, seed=i) for i, (value, maps) in enumerate(examples(4, 5))]
    empty = measure(
        lambda kept: np.full(len(kept), 0.5), {"true": [1, 2], "noisy": [1, 2], "random": [2, 1], "reversed": [1, 1]}
    )
    table = judge([*measured, empty])
    for side, name in ((0, "noisy"), (1, "noisy"), (0, "random"), (1, "reversed")):
        chance = np.array([one.random[:, side].mean() for one in measured])
        gain = np.array([one.maps[name][side].mean() for one in measured]) - chance
        best = np.array([one.oracle[side].mean() for one in measured]) - chance
        part = (table[name].comprehensiveness, table[name].sufficiency)[side]
        assert part.score == pytest.approx(100 * gain.sum() / best.sum())
        assert part.empty == 1
    means = np.mean([one.maps["noisy"][0][one.point] for one in [*measured, empty]], 0)
    assert table["noisy"].comprehensiveness.curve == pytest.approx(means)
    assert table["noisy"].evaluations == sum(one.evaluations for one in [*measured, empty])


def test_one_example_with_a_tiny_denominator_does_not_rule_the_table():
    """Its own score would be in the thousands; the sums do not notice."""
    measured = [measure(value, maps, seed=i) for i, (value, maps) in enumerate(examples(6, 9))]
    r = rng(11)
    weak = {name: r.random(12) for name in measured[0].maps}
    tiny = measure(lambda kept: 0.5 + 1e-5 * (kept @ r.normal(size=12)), weak)
    before, after = judge(measured)["noisy"], judge([*measured, tiny])["noisy"]
    assert after.score == pytest.approx(before.score, abs=0.5)


@pytest.mark.parametrize("count", [2, 5])
def test_over_a_handful_of_examples_a_random_map_stays_decoration(count):
    """Two examples resampled among themselves would agree by luck every second time."""
    held = [
        truth.low <= 0 <= truth.high
        for seed in range(60)
        for truth in [truth_table(examples(count, 20, seed), seed=seed, budget=150)["random"]]
    ]
    assert np.mean(held) >= 0.9


def test_examples_that_differ_widen_the_interval():
    """Right in every second text and wrong in the others: eight texts leave the mean open, however clear each one is."""
    n, rows = 100, [{"a": np.arange(100) == (0 if i % 2 else 1)} for i in range(8)]
    table = truth_table([(needle(n, 0), row) for row in rows], thresholds=[0.01])["a"]
    assert table.score == pytest.approx(50, abs=3)
    assert table.low < 20
    assert table.high > 80


def test_a_table_without_anything_to_find():
    flat = [(lambda kept: np.zeros(len(kept)), {"a": [1, 2, 3]})] * 3
    part = truth_table(flat)["a"].comprehensiveness
    assert (part.score, part.verdict, part.empty) == (None, NO_SCORE, 3)
    assert part.reason.startswith("nothing to find: it does not matter which units are removed")


def test_examples_do_not_share_their_random_orders():
    asked = []

    def value(kept):
        asked[-1] |= {row.tobytes() for row in kept}
        return kept @ np.arange(20.0)

    def again():
        for _ in range(2):
            asked.append(set())
            yield value, {"a": np.arange(20)}

    truth_table(again())
    assert len(asked[0] ^ asked[1]) > 100


def test_a_truth_is_plain_data():
    for truth in (
        *truth_table(examples(2, 1)).values(),
        truth_score(additive([0.5]), {"a": [1]}, removal="input")["a"],
    ):
        data = json.loads(json.dumps(truth.as_data(), allow_nan=False))
        assert list(data)[:5] == ["name", "score", "low", "high", "verdict"]
        for key in ("name", "removal", "tau", "search", "examples", "evaluations", "score", "low", "high", "verdict"):
            assert data[key] == getattr(truth, key)
        for side in ("comprehensiveness", "sufficiency"):
            assert set(data[side]) >= {"aopc", "curve", "random", "oracle", "score", "low", "high", "verdict", "reason"}


# ------------------------------------------------------------------------------------------------------- rank agreement


def slow_tau(a, b) -> float | None:
    pairs = list(itertools.combinations(range(len(a)), 2))
    up_a = [np.sign(float(a[i]) - float(a[j])) for i, j in pairs]
    up_b = [np.sign(float(b[i]) - float(b[j])) for i, j in pairs]
    size = np.sqrt(np.abs(up_a).sum() * np.abs(up_b).sum())
    return float(np.dot(up_a, up_b) / size) if size else None


@few
@given(st.integers(1, 9), st.integers(0, 10**6), st.sampled_from([np.int8, np.uint8, np.float32, bool]))
def test_tau_b_is_its_definition(n, seed, kind):
    a, b = rng(seed).integers(0, 4, (2, n)).astype(kind)
    assert kendall(a, b) == pytest.approx(slow_tau(a, b))
    assert kendall(a, a) in (None, pytest.approx(1))


def test_known_correlations():
    # scipy.stats: kendalltau([12, 2, 1, 12, 2], [1, 4, 7, 1, 0]) = -0.4714…, spearmanr of [1..5], [5, 6, 7, 8, 7] = 0.8207…
    assert kendall([12, 2, 1, 12, 2], [1, 4, 7, 1, 0]) == pytest.approx(-0.47140452079103173)
    assert spearman([1, 2, 3, 4, 5], [5, 6, 7, 8, 7]) == pytest.approx(0.8207826816681233)
    assert spearman([1, 2, 3], [-1, -2, -3]) == pytest.approx(-1)
    assert spearman(np.array([1, 2, 3], np.uint8), [10, 10, 400]) == pytest.approx(np.sqrt(0.75))
    assert kendall([1, 1], [1, 2]) is None
    assert spearman([1, 1], [1, 2]) is None
    assert spearman([1], [1]) is None


def test_blocks_of_tau_change_nothing(monkeypatch):
    a, b = rng(0).integers(0, 20, (2, 50))
    whole = kendall(a, b)
    monkeypatch.setattr(truth_ranks, "BLOCK", 7)
    assert kendall(a, b) == whole == pytest.approx(slow_tau(a, b))


@pytest.mark.parametrize("compare", [kendall, spearman])
def test_maps_that_cannot_be_compared(compare):
    with pytest.raises(ShapeError, match="^a map of 2 units and one of 3 cannot be compared: map the same units$"):
        compare([1, 2], [1, 2, 3])
    with pytest.raises(InputError, match="the map holds NaN"):
        compare([1, np.nan], [1, 2])


# -------------------------------------------------------------------------------------------------------- randomisation


def random_models(n: int, seeds: int, fixed: float, *seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Maps of random models [seeds, n] that share a part which the architecture fixes, and that part [n]."""
    r = rng(*seed)
    shared = r.normal(size=n)
    return np.sqrt(fixed) * shared + np.sqrt(1 - fixed) * r.normal(size=(seeds, n)), shared


def test_a_map_that_learning_changed():
    random, _ = random_models(60, 4, 0.1, 1)
    trained = rng(2).normal(size=60)
    found = randomisation(trained, {"top": trained + 0.1 * rng(3).normal(size=60), "all": random})
    assert found.verdict == DEPENDENT
    assert found.correlations["top"] > 0.95
    assert abs(found.correlations["all"]) < 0.3
    assert list(found.correlations) == ["top", "all"]


def test_a_map_of_positions_does_not_depend_on_learning():
    """It shows recency whatever the model: nearly the same over random parameters."""
    recency = np.arange(30.0)
    found = randomisation(recency + rng(0).normal(size=30), {"all": recency + rng(1).normal(size=30)})
    assert found.verdict == INDEPENDENT == "does not depend on what the model learnt"
    assert (found.bar, found.seeds) == (0.7, None)
    assert found.bar_from == "0.7, half of the variance of the ranks"


def test_noise_of_the_seeds_does_not_hide_what_architecture_fixes():
    """The trained map is the fixed part itself; single random maps correlate with it no better than their noise allows."""
    random, shared = random_models(200, 6, 0.35, 4)
    found = randomisation(shared, {"all": random})
    assert found.correlations["all"] < 0.7
    assert found.verdict == INDEPENDENT
    assert found.bar == pytest.approx(0.7 * np.sqrt(found.seeds))
    assert found.bar_from == "0.7, half of the variance of the ranks, of what different seeds have in common"


def test_a_trained_map_that_is_half_its_own_depends_on_learning():
    random, shared = random_models(200, 6, 0.8, 5)
    found = randomisation(0.5 * shared + rng(6).normal(size=200), {"all": random})
    assert found.verdict == DEPENDENT
    assert found.seeds > 0.7


def test_unrelated_maps_are_rarely_called_independent_even_when_short():
    called = [
        randomisation(rng(s).normal(size=n), {"all": rng(s, 1).normal(size=(k, n))}).verdict == INDEPENDENT
        for s in range(100)
        for n, k in ((5, 1), (8, 3), (20, 2))
    ]
    assert np.mean(called) < 0.06


def test_the_bar_of_short_maps_is_chance():
    found = randomisation([1, 2, 3, 4, 5], {"all": [1, 2, 3, 4, 5]})
    assert found.bar == pytest.approx(1.645 / 2)
    assert found.bar_from == "95 % of unrelated orders of 5 units agree less"
    assert found.verdict == INDEPENDENT
    assert randomisation([1, 2, 3], {"all": [1, 2, 3]}).verdict == TOO_FEW == "too few units to tell"


def test_a_random_map_without_order_agrees_with_nothing():
    found = randomisation(np.arange(20), {"all": np.ones((2, 20))})
    assert (found.correlations["all"], found.verdict) == (0, DEPENDENT)


def test_a_randomisation_is_plain_data():
    found = randomisation(np.arange(20), {"top": np.arange(20), "all": rng(0).random((3, 20))})
    data = json.loads(json.dumps(found.as_data(), allow_nan=False))
    assert set(data) == {"correlations", "seeds", "bar", "bar_from", "verdict"}
    assert data["correlations"]["top"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("trained", "cascade", "error", "words"),
    [
        ([1, 2], {}, InputError, "there are no randomised models to compare with: hand over one map per step"),
        ([1, 1], {"all": [1, 2]}, InputError, "the trained model's map has no order, all units are equal"),
        ([1, 2], {"all": [1, 2, 3]}, ShapeError, "the maps of step 'all' have shape [3]: hand over [2], or [s, 2]"),
        ([1, 2], {"all": np.zeros((0, 2))}, ShapeError, "the maps of step 'all' have shape [0, 2]"),
        ([1, 2], {"all": [1, np.nan]}, InputError, "the map 'all' holds NaN"),
    ],
)
def test_a_randomisation_that_cannot_be_checked(trained, cascade, error, words):
    with pytest.raises(error, match=re.escape(words)):
        randomisation(trained, cascade)
