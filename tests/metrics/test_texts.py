"""Scores of captions: CIDEr-D against the reference code's figure, the others against their libraries."""

import pytest

from recuerdo.errors import ShapeError
from recuerdo.metrics.texts import caption_scores, cider

SAID = ["a dog runs on the beach", "two men play football in a park", "a red car"]
RIGHT = [
    ["a dog is running along the beach", "the brown dog runs on the sand", "a dog plays"],
    ["two men are playing soccer", "men play football in the park"],
    ["a red car parked by a house", "the red car is parked", "a car", "an old red car"],
]


def test_cider_is_that_of_the_reference_code():
    """2.941297516463159 is what pycocoevalcap 1.2's `Cider().compute_score` says of these (there not times 100)."""
    assert cider(SAID, RIGHT) == pytest.approx(294.1297516463159)


def test_cider_rewards_what_is_rare_and_minds_the_length():
    assert cider(["a b c d"] * 2, [["a b c d"], ["e f g h"]]) == pytest.approx(500)
    assert cider(["x", "y"], [["a b c d"], ["e f g h"]]) == 0
    assert cider(["", ""], [["a b c d"], ["e f g h"]]) == 0
    long = "a b c d" + " a b c d" * 6
    assert cider([long, "e f g h"], [["a b c d"], ["e f g h"]]) < 510  # said again and again counts once


def test_scores_of_captions_from_the_libraries():
    from nltk.translate.bleu_score import corpus_bleu

    found = caption_scores(SAID, RIGHT)
    assert list(found) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr"]
    words = [[one.split() for one in some] for some in RIGHT]
    for order in (1, 2):
        theirs = corpus_bleu(words, [one.split() for one in SAID], weights=[1 / order] * order)
        assert found[f"BLEU-{order}"] == pytest.approx(100 * theirs)
    whole = caption_scores([some[0] for some in RIGHT], RIGHT)
    assert whole["BLEU-4"] == pytest.approx(100)
    assert whole["ROUGE-L"] == pytest.approx(100)
    assert whole["METEOR"] > 98
    assert all(whole[name] > found[name] for name in found)


@pytest.mark.parametrize("told", [([], []), (["a"], []), (["a"], [[]])])
def test_captions_without_references_are_refused(told):
    for judge in (cider, caption_scores):
        with pytest.raises(ShapeError, match="captions, references of .* each has at least one"):
            judge(*told)
