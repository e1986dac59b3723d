"""Judges with gold: numbers of the field for maps, answers and alignments whose right answer is known.

A map is scores over units (words, pixels, frames, slots), its gold a mask of 0 and 1 over the same units. Where equal
scores leave the order open, the expected value over all ways to break the tie counts: nobody gains by position.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from recuerdo.errors import InputError, ShapeError

Link = tuple[int, int]
Span = tuple[int, int]

# ---------------------------------------------------------------------------------------------------------- rationales


def token_f1(predicted: ArrayLike, gold: ArrayLike) -> float:
    """F1 of a predicted mask against a gold mask, both [n] of 0 and 1 (ERASER, DeYoung et al. 2020). 0 to 1.

    A prediction of nothing scores 0. Raises ShapeError, InputError when masks hold anything else or gold is empty.
    """
    found, right = _mask(predicted, "predicted"), _gold(gold)
    _same_shape(found, right)
    return float(2 * (found & right).sum() / (found.sum() + right.sum()))


def token_f1_top(scores: ArrayLike, gold: ArrayLike) -> float:
    """Token F1 of the k strongest units of a map [n], k = the size of gold: precision and recall are the same then."""
    return relevance_rank(scores, gold)


def auprc(scores: ArrayLike, gold: ArrayLike) -> float:
    """Area under the precision-recall curve of a map [n] against a gold mask [n]: average precision, 0 to 1.

    The sum of precision * gain in recall over the distinct scores, equal ones together (scikit-learn's
    average_precision_score). ERASER's code joins the points by straight lines instead, which is too kind (Davis &
    Goadrich 2006).
    """
    row, right = _map_and_gold(scores, gold)
    values, at = np.unique(row, return_inverse=True)
    many = np.bincount(at.ravel(), minlength=len(values))[::-1]
    hits = np.bincount(at.ravel(), right.ravel(), minlength=len(values))[::-1]
    return float((np.cumsum(hits) / np.cumsum(many)) @ hits / right.sum())


def iou_f1(predicted: Sequence[Span], gold: Sequence[Span], *, threshold: float = 0.5) -> float:
    """F1 of spans (start, end), end exclusive, that match when intersection / union >= `threshold` (ERASER). 0 to 1.

    Precision is the share of predicted spans with a match, recall the share of gold spans with one. (ERASER's code
    divides matched predictions by the number of gold spans; this differs only where two predictions match one span.)
    """
    if not gold:
        raise InputError("gold has no spans: leave this example out")
    if not 0 < threshold <= 1:
        raise InputError(f"the threshold is a share above 0 and at most 1, not {threshold}: the rule is 0.5")
    for start, end in (*predicted, *gold):
        if not start < end:
            raise InputError(f"the span ({start}, {end}) is empty: its end is exclusive and behind its start")
    if not predicted:
        return 0.0
    one, two = np.asarray(predicted)[:, None], np.asarray(gold)[None]
    shared = np.maximum(np.minimum(one[..., 1], two[..., 1]) - np.maximum(one[..., 0], two[..., 0]), 0)
    union = (one[..., 1] - one[..., 0]) + (two[..., 1] - two[..., 0]) - shared
    match = shared / union >= threshold
    precision, recall = match.any(1).mean(), match.any(0).mean()
    return float(2 * precision * recall / (precision + recall)) if precision else 0.0


# ------------------------------------------------------------------------------------------------------ regions, boxes


def box_mask(shape: tuple[int, int], top: int, left: int, bottom: int, right: int) -> np.ndarray:
    """The gold mask [h, w] of a box; bottom and right are exclusive. Raises InputError when it leaves the picture."""
    if not (0 <= top < bottom <= shape[0] and 0 <= left < right <= shape[1]):
        raise InputError(f"the box {(top, left, bottom, right)} does not lie in {shape[0]} x {shape[1]}")
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = True
    return mask


def pointing_game(scores: ArrayLike, region: ArrayLike) -> float:
    """1 when the maximum of a map lies inside the region, else 0 (Zhang et al. 2016, there with a margin of 15 pixels).

    Map and region [...] have one shape. Several equal maxima: the share of them that lie inside.
    """
    row, inside = _map_and_gold(scores, region)
    return float(inside[row == row.max()].mean())


def relevance_mass(scores: ArrayLike, region: ArrayLike) -> float:
    """The share of the relevance that lies inside the region (relevance mass accuracy, Arras et al. 2022). 0 to 1.

    Negative relevance counts as none. A map without relevance has none inside: 0.
    """
    row, inside = _map_and_gold(scores, region)
    positive = np.maximum(row.astype(float), 0)
    return float(positive[inside].sum() / positive.sum()) if positive.any() else 0.0


def relevance_rank(scores: ArrayLike, region: ArrayLike) -> float:
    """The share of the k strongest units inside the region, k its size (relevance rank accuracy, Arras et al. 2022).

    Map and region [...] have one shape. Equal units at the edge count with their mean.
    """
    row, inside = _map_and_gold(scores, region)
    k = int(inside.sum())
    last = np.sort(row, axis=None)[-k]
    above, tied = row > last, row == last
    return float((inside[above].sum() + inside[tied].mean() * (k - above.sum())) / k)


# -------------------------------------------------------------------------------------------------- supporting facts


def hit_at_k(scores: Sequence[ArrayLike], gold: Sequence[ArrayLike], k: int = 1) -> float:
    """How often a gold unit is among the k strongest: mean over questions, each a map [n] and its mask [n]. 0 to 1."""
    if k < 1:
        raise InputError(f"k is 1 or more, not {k}")
    return _mean_over_questions(scores, gold, lambda rank: rank <= k)


def mean_reciprocal_rank(scores: Sequence[ArrayLike], gold: Sequence[ArrayLike]) -> float:
    """The mean over questions of 1 / rank of the first gold unit (Voorhees 1999), each a map [n] and its mask [n]."""
    return _mean_over_questions(scores, gold, lambda rank: 1 / rank)


def _mean_over_questions(scores: Sequence[ArrayLike], gold: Sequence[ArrayLike], worth: Callable) -> float:
    if len(scores) != len(gold):
        raise ShapeError(f"there are {len(scores)} maps and {len(gold)} gold masks: hand over one of each per question")
    if not len(scores):
        raise InputError("there are no questions to judge")
    found = []
    for row, mask in zip(scores, gold, strict=True):
        rank, chance = _first_gold(*_map_and_gold(row, mask))
        found.append(chance @ worth(rank))
    return float(np.mean(found))


def _first_gold(row: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ranks that the first gold unit can have, 1 = strongest, and how likely each is when ties break at random."""
    best = row[right].max()
    ahead, tied = int((row > best).sum()), int((row == best).sum())
    hits = int((right & (row == best)).sum())
    place = np.arange(tied - hits + 1)  # so many of the tied units come before the first gold one
    missed = np.concatenate([[1.0], np.cumprod((tied - hits - place[:-1]) / (tied - place[:-1]))])
    return ahead + 1 + place, missed * hits / (tied - place)


# ---------------------------------------------------------------------------------------------------------- alignments


def parse_alignment(line: str, *, base: int = 0) -> tuple[set[Link], set[Link]]:
    """The (sure, possible) links of a line such as `1-1 2p3`; sure ones are possible, too. `base` = the first index.

    `i-j` is sure, `ipj` only possible. Raises InputError for anything else and for an index below `base`.
    """
    sure: set[Link] = set()
    possible: set[Link] = set()
    for word in line.split():
        parts = re.fullmatch(r"(\d+)([-p])(\d+)", word)
        if parts is None:
            raise InputError(f"{word!r} is no link: write i-j (sure) or ipj (possible)")
        link = int(parts[1]) - base, int(parts[3]) - base
        if min(link) < 0:
            raise InputError(f"{word!r} has an index below {base}: this file counts from {base}")
        possible.add(link)
        if parts[2] == "-":
            sure.add(link)
    return sure, possible


def alignment_error_rate(
    predictions: Sequence[Iterable[Link]], sure: Sequence[Iterable[Link]], possible: Sequence[Iterable[Link]]
) -> float:
    """AER of word alignments over all sentence pairs together, 0 to 1, lower is better (Och & Ney 2003).

    1 - (|A and S| + |A and P|) / (|A| + |S|); sure links S count as possible P, whether listed there or not.
    """
    if not len(predictions) == len(sure) == len(possible):
        raise ShapeError(
            f"there are {len(predictions)} predictions, {len(sure)} sure and {len(possible)} possible sets of links: "
            "hand over one of each per sentence pair"
        )
    hits = size = 0
    for a, s, p in zip(predictions, sure, possible, strict=True):
        found, certain = set(a), set(s)
        hits += len(found & certain) + len(found & (certain | set(p)))
        size += len(found) + len(certain)
    if not size:
        raise InputError("there is not one link, neither predicted nor sure: nothing can be judged")
    return 1 - hits / size


# ------------------------------------------------------------------------------------------------------------- answers


def normal_answer(text: str) -> list[str]:
    """The words of an answer as SQuAD compares them: no letter case, no punctuation, no a, an, the."""
    bare = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()


def exact_match(answer: str, gold: Sequence[str]) -> float:
    """1 when an answer is one of the gold answers, normalised, else 0 (SQuAD 1.1, Rajpurkar et al. 2016)."""
    return max((float(normal_answer(answer) == normal_answer(one)) for one in gold), default=0.0)


def answer_f1(answer: str, gold: Sequence[str]) -> float:
    """F1 of the words of an answer against the gold answer that it is most like, normalised (SQuAD 1.1). 0 to 1."""
    return max((_words_f1(normal_answer(answer), normal_answer(one)) for one in gold), default=0.0)


def _words_f1(said: list[str], right: list[str]) -> float:
    same = (Counter(said) & Counter(right)).total()
    return 2 * same / (len(said) + len(right)) if same else 0.0


# ------------------------------------------------------------------------------------------------------------- fluency


def ngram_entropy(tokens: Sequence[Hashable]) -> float:
    """The fluency of a generated text in bits: repetition brings it down. PASTA drops what is below 3.0.

    The mean of 2/3 * the entropy of its bigrams and 4/3 * that of its trigrams, as ROME computes it (Meng et al. 2022,
    experiments/py/eval_utils_counterfact.py) and PASTA after it (evaluation/metrics.py): together (H2 + 2 * H3) / 3.
    The tokens are words (both take NLTK's). A text too short for an n-gram has no entropy there: 0.
    """
    return (_entropy(tokens, 2) + 2 * _entropy(tokens, 3)) / 3


def _entropy(tokens: Sequence[Hashable], n: int) -> float:
    counts = Counter(zip(*(tokens[i:] for i in range(n)), strict=False))
    share = np.array(list(counts.values()), float) / max(counts.total(), 1)
    return abs(float((share * np.log2(share)).sum()))


# ----------------------------------------------------------------------------------------------------------- intervals


def bootstrap_interval(
    values: ArrayLike, draws: int = 2000, seed: int = 0, *, level: float = 0.95
) -> tuple[float, float]:
    """The percentile bootstrap interval of the mean of [n] values, n >= 2 (Efron 1979): (low, high).

    With few values (below about 20) it is too narrow. Raises ShapeError, InputError.
    """
    row = np.asarray(values, float)
    if row.ndim != 1:
        raise ShapeError(f"values have shape {list(row.shape)}: hand over [n]")
    if len(row) < 2 or not np.isfinite(row).all():
        raise InputError("an interval needs at least 2 values, all finite")
    if draws < 1 or not 0 < level < 1:
        raise InputError(f"draws is 1 or more and level between 0 and 1, not {draws} and {level}")
    rng = np.random.default_rng(seed)
    means = np.array([row[rng.integers(len(row), size=len(row))].mean() for _ in range(draws)])
    low, high = np.percentile(means, (50 * (1 - level), 50 * (1 + level)))
    return float(low), float(high)


# -------------------------------------------------------------------------------------------------------------- checks


def _mask(given: ArrayLike, name: str) -> np.ndarray:
    mask = np.asarray(given)
    if mask.dtype.kind not in "biuf" or not np.isin(mask, (0, 1)).all():
        raise InputError(f"the {name} mask holds more than 0 and 1: hand over a mask, not scores or positions")
    return mask.astype(bool)


def _gold(given: ArrayLike) -> np.ndarray:
    mask = _mask(given, "gold")
    if not mask.any():
        raise InputError("gold marks nothing: leave this example out")
    return mask


def _same_shape(given: np.ndarray, gold: np.ndarray) -> None:
    if given.shape != gold.shape:
        raise ShapeError(f"shapes {list(given.shape)} and {list(gold.shape)} differ: gold is over the same units")


def _map_and_gold(scores: ArrayLike, gold: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    row, right = np.asarray(scores), _gold(gold)
    _same_shape(row, right)
    if row.dtype.kind not in "biuf" or not np.isfinite(row).all():
        raise InputError("the map holds something that is not a finite number: it cannot be judged")
    return row, right
