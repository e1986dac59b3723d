"""The way through time against every way there is; words of pieces."""

import itertools

import numpy as np
import pytest

from recuerdo.explain.timeline import timeline, warped


def ways(rows, steps):
    """All ways from the first corner to the last, as lists of (row, step)."""

    def on(at):
        if at == (rows - 1, steps - 1):
            yield [at]
            return
        for down, across in ((1, 0), (0, 1), (1, 1)):
            new = at[0] + down, at[1] + across
            if new[0] < rows and new[1] < steps:
                yield from ([at, *rest] for rest in on(new))

    return on((0, 0))


@pytest.mark.parametrize(("rows", "steps"), [(1, 1), (1, 4), (4, 1), (3, 5), (5, 3), (4, 6)])
def test_the_cheapest_of_all_ways(rows, steps):
    for seed in range(5):
        cost = np.random.default_rng(seed).normal(size=(rows, steps))
        best = min(ways(rows, steps), key=lambda way: sum(cost[at] for at in way))
        starts = [min(step for row, step in best if row == i) for i in range(rows)]
        assert warped(cost).tolist() == starts


def test_words_begin_where_their_first_piece_does():
    pieces = [" Hel", "lo", " world", ".", ""]
    weights = np.full((2, 5, 50), 0.001)
    for piece in range(5):
        weights[:, piece, 10 * piece : 10 * piece + 10] = 1.0
    words, shares = timeline(pieces, weights, 0.02)
    assert [word.text for word in words] == ["Hello", "world."]
    assert [word.start for word in words] == pytest.approx([0.0, 0.4], abs=0.05)
    assert [word.end for word in words] == pytest.approx([0.4, 0.8], abs=0.05)
    assert shares.sum(1) == pytest.approx([1, 1])
    assert shares[0, :20].sum() > 0.9


def test_words_begin_and_end_with_sound():
    pieces, weights = [" a", " b", ""], np.full((1, 3, 30), 0.001)
    for piece in range(3):
        weights[:, piece, 10 * piece : 10 * piece + 10] = 1.0
    loud = np.zeros(30, bool)
    loud[[6, 7, 14, 15]] = True
    words, _ = timeline(pieces, weights, 0.1, loud)
    assert [edge for word in words for edge in (word.start, word.end)] == pytest.approx([0.6, 0.8, 1.4, 1.6])
    words, _ = timeline(pieces, weights, 0.1, np.zeros(30, bool))
    assert words[1].end > words[1].start


def test_nothing_said_and_short_sounds():
    words, shares = timeline([""], np.zeros((2, 1, 9)), 0.02)
    assert (words, shares.shape) == ([], (0, 9))
    for steps in (1, 2, 4, 5):
        words, shares = timeline([" a", " b", ""], np.random.default_rng(0).random((2, 3, steps)), 0.02)
        assert len(words) == 2
        assert np.isfinite(shares).all()
        assert all(b.start >= a.start for a, b in itertools.pairwise(words))
