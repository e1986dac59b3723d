"""The judges against small cases worked out by hand, closed forms, and published figures."""

import itertools
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recuerdo.errors import InputError, ShapeError
from recuerdo.metrics import (
    alignment_error_rate,
    answer_f1,
    auprc,
    bootstrap_interval,
    box_mask,
    exact_match,
    hit_at_k,
    iou_f1,
    mean_reciprocal_rank,
    ngram_entropy,
    normal_answer,
    parse_alignment,
    pointing_game,
    relevance_mass,
    relevance_rank,
    token_f1,
    token_f1_top,
)

DATA = Path(os.environ.get("RECUERDO_DATA", Path(__file__).resolve().parents[2] / "shared/data"))
few = settings(max_examples=60, deadline=None, database=None)


@st.composite
def tied_maps(draw) -> tuple[np.ndarray, np.ndarray]:
    """A small map with many ties, and a gold mask that marks something."""
    n = draw(st.integers(1, 6))
    row = np.array(draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)))
    gold = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n).filter(any)))
    return row, gold


def rankings(row: np.ndarray):
    """Every ranking, strongest first, that the map allows."""
    for ranking in itertools.permutations(range(len(row))):
        if all(row[a] >= row[b] for a, b in itertools.pairwise(ranking)):
            yield np.array(ranking)


# ---------------------------------------------------------------------------------------------------------- rationales


def test_token_f1():
    gold = [1, 1, 0, 0, 0]
    assert token_f1([1, 1, 0, 0, 0], gold) == 1
    assert token_f1([1, 0, 1, 0, 0], gold) == 0.5
    assert token_f1([1, 1, 1, 1, 1], gold) == pytest.approx(2 * 0.4 / 1.4)
    assert token_f1([0, 0, 1, 1, 1], gold) == 0
    assert token_f1(np.zeros(5, bool), gold) == 0
    assert token_f1(np.array([1.0, 1.0, 0, 0, 0]), np.array(gold, bool)) == 1


@few
@given(tied_maps())
def test_the_top_of_a_map_as_a_mask_and_its_expected_f1_under_ties(case):
    row, gold = case
    k = gold.sum()
    scores = []
    for ranking in rankings(row):
        mask = np.zeros(len(row), bool)
        mask[ranking[:k]] = True
        scores.append(token_f1(mask, gold))
    assert token_f1_top(row, gold) == pytest.approx(np.mean(scores))
    assert relevance_rank(row, gold) == token_f1_top(row, gold)


def test_average_precision_by_hand():
    assert auprc([4, 3, 2, 1], [1, 0, 1, 0]) == pytest.approx((1 + 2 / 3) / 2)
    assert auprc([4, 3, 2, 1], [0, 0, 0, 1]) == 1 / 4
    assert auprc([1, 1, 1, 1], [0, 0, 0, 1]) == 1 / 4, "a flat map knows the rate of gold and no more"
    assert auprc([1, 1, 1, 1], [1, 0, 0, 0]) == 1 / 4, "whatever its position"
    assert auprc(np.array([0, 255, 7], np.uint8), [0, 1, 0]) == 1
    assert auprc([[0.1, 0.4], [0.35, 0.8]], [[0, 0], [1, 1]]) == pytest.approx(
        0.5 + 0.5 * 2 / 3
    )  # scikit-learn's example


@few
@given(tied_maps())
def test_average_precision_is_its_definition(case):
    """Sum over thresholds of (recall gained) * precision; equal scores pass a threshold together."""
    row, gold = case
    area = recall = 0.0
    for threshold in sorted(set(row.tolist()), reverse=True):
        chosen = row >= threshold
        now = (gold & chosen).sum() / gold.sum()
        area += (now - recall) * (gold & chosen).sum() / chosen.sum()
        recall = now
    assert auprc(row, gold) == pytest.approx(area)


def test_spans_match_from_half_on():
    assert iou_f1([(0, 4)], [(0, 4)]) == 1
    assert iou_f1([(0, 2)], [(0, 4)]) == 1, "exactly a half is a match"
    assert iou_f1([(0, 1)], [(0, 4)]) == 0
    assert iou_f1([(3, 7)], [(0, 4)]) == 0, "one shared of seven"
    assert iou_f1([(0, 4), (10, 12)], [(0, 4), (20, 24)]) == 0.5
    assert iou_f1([(0, 4), (10, 12), (13, 14)], [(0, 5)]) == pytest.approx(2 * (1 / 3) / (4 / 3))
    assert iou_f1([(0, 3)], [(0, 4)], threshold=0.8) == 0
    assert iou_f1([], [(0, 4)]) == 0
    assert iou_f1([(0, 2), (2, 4)], [(0, 4)]) == 1, "two halves: no more than everything"


# ------------------------------------------------------------------------------------------------------------- regions


def test_a_box_is_a_mask():
    mask = box_mask((3, 4), 1, 1, 3, 3)
    assert mask.tolist() == [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0]]


def test_pointing_game():
    box = box_mask((3, 4), 1, 1, 3, 3)
    row = np.zeros((3, 4))
    row[2, 2] = 1
    assert pointing_game(row, box) == 1
    row[0, 0] = 2
    assert pointing_game(row, box) == 0
    row[1, 1] = 2
    assert pointing_game(row, box) == 0.5
    assert pointing_game(np.zeros((3, 4)), box) == pytest.approx(4 / 12), "a flat map points at random"


def test_relevance_inside():
    box = box_mask((2, 2), 0, 0, 1, 2)
    assert relevance_mass([[3, 1], [4, 0]], box) == 0.5
    assert relevance_mass([[3, 1], [-4, 0]], box) == 1, "what speaks against is no relevance"
    assert relevance_mass(np.array([[200, 100], [200, 100]], np.uint8), box) == 0.5, "bytes do not overflow"
    assert relevance_mass([[-1, -1], [0, 0]], box) == 0
    assert relevance_rank([[3, 1], [4, 0]], box) == 0.5
    assert relevance_rank([[3, 5], [4, 0]], box) == 0.5
    assert relevance_rank([[4, 5], [3, 0]], box) == 1
    assert relevance_rank([[0, 0], [0, 0]], box) == 0.5


# -------------------------------------------------------------------------------------------------- supporting facts


def test_hits_and_ranks():
    maps = [[3, 2, 1], [3, 2, 1], [3, 2, 1, 0]]
    gold = [[1, 0, 0], [0, 1, 1], [0, 0, 0, 1]]
    assert hit_at_k(maps, gold) == pytest.approx(1 / 3)
    assert hit_at_k(maps, gold, 2) == pytest.approx(2 / 3)
    assert hit_at_k(maps, gold, 9) == 1
    assert mean_reciprocal_rank(maps, gold) == pytest.approx((1 + 1 / 2 + 1 / 4) / 3)


@few
@given(tied_maps(), st.integers(1, 6))
def test_ties_count_with_their_expected_value(case, k):
    row, gold = case
    first = np.array([np.flatnonzero(gold[ranking])[0] + 1 for ranking in rankings(row)])
    assert hit_at_k([row], [gold], k) == pytest.approx((first <= k).mean())
    assert mean_reciprocal_rank([row], [gold]) == pytest.approx((1 / first).mean())


# ---------------------------------------------------------------------------------------------------------- alignments


def test_a_line_of_links():
    assert parse_alignment("1-1 2p3", base=1) == ({(0, 0)}, {(0, 0), (1, 2)})
    assert parse_alignment("0-0 1-2") == ({(0, 0), (1, 2)}, {(0, 0), (1, 2)})
    assert parse_alignment("") == (set(), set())


def test_alignment_error_rate_by_hand():
    sure, possible = [{(0, 0)}], [{(0, 0), (1, 1)}]
    assert alignment_error_rate([{(0, 0)}], sure, possible) == 0
    assert alignment_error_rate([{(0, 0), (1, 1)}], sure, possible) == 0, "possible links do no harm"
    assert alignment_error_rate([{(1, 1)}], sure, possible) == pytest.approx(1 - 1 / 2)
    assert alignment_error_rate([{(2, 2)}], sure, possible) == 1
    assert alignment_error_rate([set()], sure, possible) == 1
    assert alignment_error_rate([[(0, 0)]], sure, [[(1, 1)]]) == 0, "sure links are possible without being listed"
    many = alignment_error_rate([{(0, 0)}, {(5, 5)}], sure * 2, possible * 2)
    assert many == pytest.approx(1 - 2 / 4), "all pairs count together"


@pytest.fixture(scope="module")
def hansards() -> dict[str, list[str]]:
    folder = DATA / "word_alignment"
    files = {"gold": "enfr.gold", "pairs": "enfr.src-tgt", "found": "enfr.awesome-align.out"}
    missing = [name for name in files.values() if not (folder / name).is_file()]
    if missing:
        pytest.skip(
            f"needs {', '.join(missing)} in {folder}: set RECUERDO_DATA to the folder that holds word_alignment/"
        )
    return {key: (folder / name).read_text(encoding="utf-8").splitlines() for key, name in files.items()}


@pytest.mark.data
def test_the_published_error_rate_on_hansards(hansards):
    """awesome-align's README says 4.1 % for its output on the 447 En-Fr Hansards pairs (Mihalcea & Pedersen 2003)."""
    gold = [parse_alignment(line, base=1) for line in hansards["gold"]]
    sure, possible = [s for s, _ in gold], [p for _, p in gold]
    assert (len(gold), sum(map(len, sure))) == (447, 4038)
    found = [parse_alignment(line)[0] for line in hansards["found"]]
    assert round(100 * alignment_error_rate(found, sure, possible), 2) == 4.07
    diagonal = []
    for pair in hansards["pairs"]:
        left, right = (len(side.split()) for side in pair.split("|||"))
        diagonal.append({(min(left - 1, round(j * left / right)), j) for j in range(right)})
    assert 0.53 < alignment_error_rate(diagonal, sure, possible) < 0.58


# ------------------------------------------------------------------------------------------------------------- fluency


def test_entropy_of_ngrams():
    words = ["a", "b", "c", "d", "e", "f", "g", "h", "i"]  # eight bigrams, seven trigrams, each once
    assert ngram_entropy(words) == pytest.approx((math.log2(8) + 2 * math.log2(7)) / 3)
    assert ngram_entropy(["la"] * 50) == 0
    assert math.copysign(1, ngram_entropy(["la"] * 50)) == 1
    # a b a b a: bigrams ab 2, ba 2; trigrams aba 2, bab 1
    h3 = -(2 / 3 * math.log2(2 / 3) + 1 / 3 * math.log2(1 / 3))
    assert ngram_entropy(["a", "b", "a", "b", "a"]) == pytest.approx(np.mean([2 / 3 * 1, 4 / 3 * h3]))
    assert ngram_entropy(range(100)) > ngram_entropy([i % 7 for i in range(100)])
    assert [ngram_entropy(["a", "b", "c"][:n]) for n in range(4)] == [0, 0, 0, pytest.approx(1 / 3)]


# ----------------------------------------------------------------------------------------------------------- intervals


def test_a_bootstrap_interval_is_near_the_closed_form():
    rng = np.random.default_rng(0)
    values = rng.normal(3, 2, 400)
    low, high = bootstrap_interval(values, 2000, 1)
    se = values.std() / 20
    np.testing.assert_allclose([low, high], values.mean() + np.array([-1.96, 1.96]) * se, atol=0.2 * se)
    assert bootstrap_interval(values, 2000, 1) == (low, high), "the same seed, the same interval"
    narrow = bootstrap_interval(values, 2000, 1, level=0.5)
    assert low < narrow[0] < narrow[1] < high
    assert bootstrap_interval([1, 1, 1]) == (1, 1)


def test_a_bootstrap_interval_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(2)
    held = 0
    for seed in range(150):
        low, high = bootstrap_interval(rng.exponential(1, 60), 300, seed)
        held += low <= 1 <= high
    assert 0.87 <= held / 150 <= 0.99


# -------------------------------------------------------------------------------------------------------------- errors

MASK = [1, 0, 0]


@pytest.mark.parametrize(
    ("answer", "gold", "exact", "f1"),
    [
        ("The  Denver Broncos!", ["Denver Broncos"], 1.0, 1.0),
        ("an apple, a day", ["apple day"], 1.0, 1.0),
        ("in 1888", ["1888", "the year 1888"], 0.0, 2 / 3),
        ("Ada and Ada", ["Ada"], 0.0, 1 / 2),
        ("thermal theory", ["a hermal theo"], 0.0, 0.0),
        ("well-known", ["wellknown"], 1.0, 1.0),
        ("", ["x"], 0.0, 0.0),
        ("the", ["x"], 0.0, 0.0),
        ("x", [], 0.0, 0.0),
    ],
)
def test_answers_as_squad_judges_them(answer, gold, exact, f1):
    assert exact_match(answer, gold) == exact
    assert answer_f1(answer, gold) == pytest.approx(f1)


@few
@given(st.text("aThe .,'x1 ", max_size=20), st.text("aThe .,'x1 ", max_size=20))
def test_answers_are_judged_evenly(one, other):
    assert answer_f1(one, [other]) == answer_f1(other, [one])
    assert 0 <= exact_match(one, [other]) <= 1
    assert exact_match(one, [one]) == 1
    if normal_answer(one):
        assert answer_f1(one, [other, one]) == 1


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: token_f1([0.5, 0, 0], MASK),
            InputError,
            "the predicted mask holds more than 0 and 1: hand over a mask",
        ),
        (lambda: token_f1([3, 7], [1, 0]), InputError, "not scores or positions"),
        (lambda: token_f1(["a"], [1]), InputError, "the predicted mask holds more than 0 and 1"),
        (lambda: token_f1([1, 0], MASK), ShapeError, "shapes [2] and [3] differ: gold is over the same units"),
        (lambda: token_f1(MASK, [0, 0, 0]), InputError, "gold marks nothing: leave this example out"),
        (lambda: token_f1([], []), InputError, "gold marks nothing"),
        (lambda: token_f1_top([1, 2], MASK), ShapeError, "shapes [2] and [3] differ"),
        (lambda: auprc([1, np.nan, 2], MASK), InputError, "the map holds something that is not a finite number"),
        (lambda: auprc([1, 2, 3], [0, 0, 2]), InputError, "the gold mask holds more than 0 and 1"),
        (lambda: auprc(["x", "y", "z"], MASK), InputError, "not a finite number"),
        (lambda: pointing_game(np.zeros((2, 2)), np.ones(4)), ShapeError, "shapes [2, 2] and [4] differ"),
        (lambda: relevance_mass([np.inf, 0, 0], MASK), InputError, "not a finite number"),
        (lambda: relevance_rank([1, 2, 3], [0, 0, 0]), InputError, "gold marks nothing"),
        (lambda: iou_f1([(0, 1)], []), InputError, "gold has no spans: leave this example out"),
        (lambda: iou_f1([(2, 2)], [(0, 1)]), InputError, "the span (2, 2) is empty: its end is exclusive"),
        (lambda: iou_f1([(0, 1)], [(0, 1)], threshold=0), InputError, "above 0 and at most 1, not 0: the rule is 0.5"),
        (lambda: box_mask((3, 4), 0, 0, 4, 1), InputError, "the box (0, 0, 4, 1) does not lie in 3 x 4"),
        (lambda: box_mask((3, 4), 1, 2, 1, 3), InputError, "does not lie in 3 x 4"),
        (lambda: hit_at_k([[1]], [[1]], 0), InputError, "k is 1 or more, not 0"),
        (lambda: hit_at_k([[1]], []), ShapeError, "there are 1 maps and 0 gold masks: hand over one of each"),
        (lambda: mean_reciprocal_rank([], []), InputError, "there are no questions to judge"),
        (lambda: parse_alignment("1-1 2:3"), InputError, "'2:3' is no link: write i-j (sure) or ipj (possible)"),
        (lambda: parse_alignment("0-1", base=1), InputError, "'0-1' has an index below 1: this file counts from 1"),
        (lambda: alignment_error_rate([set()], [], []), ShapeError, "1 predictions, 0 sure and 0 possible"),
        (lambda: alignment_error_rate([set()], [set()], [{(0, 0)}]), InputError, "there is not one link"),
        (lambda: bootstrap_interval([1.0]), InputError, "an interval needs at least 2 values, all finite"),
        (lambda: bootstrap_interval([1.0, np.nan]), InputError, "at least 2 values, all finite"),
        (lambda: bootstrap_interval(np.ones((2, 2))), ShapeError, "values have shape [2, 2]: hand over [n]"),
        (lambda: bootstrap_interval([1, 2], 0), InputError, "draws is 1 or more and level between 0 and 1, not 0"),
        (lambda: bootstrap_interval([1, 2], level=1), InputError, "level between 0 and 1, not 2000 and 1"),
    ],
)
def test_what_cannot_be_judged_is_told(call, error, words):
    with pytest.raises(error, match=re.escape(words)):
        call()
