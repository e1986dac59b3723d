"""Places that a person drew become the cells that a model sees."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recuerdo.errors import InputError, MarkError
from recuerdo.steer.cells import box_mask, patch_mask, time_mask
from recuerdo.steer.places import Box


def test_a_box_holds_the_pixels_whose_centres_lie_in_it():
    corner = box_mask(Box(24 / 28, 0, 1, 4 / 28), 28, 28)
    want = torch.zeros(28, 28, dtype=torch.bool)
    want[:4, 24:] = True
    assert torch.equal(corner, want)
    assert box_mask(Box(0, 0, 1, 1), 3, 5).all()
    assert box_mask(Box(0.49, 0.24, 1, 0.26), 2, 2).tolist() == [[False, True], [False, False]]


def test_a_box_too_small_for_a_centre_takes_the_cell_it_covers_most():
    assert box_mask(Box(0.3, 0.1, 0.45, 0.2), 2, 4).nonzero().tolist() == [[0, 1]]
    assert box_mask(Box(0.2, 0.0, 0.35, 1.0), 2, 4).nonzero().tolist() == [[0, 1], [1, 1]]  # thin and tall
    assert box_mask(Box(1 - 1e-16, 0.0, 1.0, 1e-300), 2, 2).nonzero().tolist() == [[0, 1]]


@settings(deadline=None, max_examples=200)
@given(st.lists(st.floats(0, 1), min_size=4, max_size=4), st.integers(1, 40), st.integers(1, 40))
def test_no_box_is_lost_and_neighbours_do_not_share(sides, height, width):
    (left, right), (top, bottom) = sorted(sides[:2]), sorted(sides[2:])
    if left == right or top == bottom:
        return
    cells = box_mask(Box(left, top, right, bottom), height, width)
    assert cells.any()
    ys, xs = cells.nonzero().T
    assert bool((xs + 1 >= left * width - 1e-9).all() & (xs <= right * width + 1e-9).all())
    assert bool((ys + 1 >= top * height - 1e-9).all() & (ys <= bottom * height + 1e-9).all())
    assert cells.sum() == len(ys.unique()) * len(xs.unique())  # a rectangle
    if left > 0.5 / width and right - left > 1 / width:
        beside = box_mask(Box(0, top, left, bottom), height, width)
        assert not (beside & cells).any()


def test_patches_come_row_by_row_behind_what_stands_before_them():
    lower = Box(0.5, 0.5, 1, 1)
    assert patch_mask(lower, 2, 2).tolist() == [False, False, False, True]
    assert patch_mask(lower, 2, 3, before=1).nonzero().flatten().tolist() == [5, 6]
    assert torch.equal(patch_mask(lower, 14, 14), box_mask(lower, 14, 14).flatten())


def test_frames_whose_centres_lie_in_a_time():
    assert time_mask(0.04, 0.1, 6, 0.02).nonzero().flatten().tolist() == [2, 3, 4]
    assert time_mask(0.0, 99.0, 6, 0.02).all()  # people draw to beyond the end
    assert time_mask(0.051, 0.052, 6, 0.02).nonzero().flatten().tolist() == [2]
    assert time_mask(0.058, 0.069, 6, 0.02).nonzero().flatten().tolist() == [3]  # 9 of 11 ms lie there


REFUSED = {
    "no pixels": (lambda: box_mask(Box(0, 0, 1, 1), 0, 4), InputError, "the height is 0: give a whole number, 1 or"),
    "half a column": (lambda: box_mask(Box(0, 0, 1, 1), 4, 2.5), InputError, "the width is 2.5"),
    "before of minus": (lambda: patch_mask(Box(0, 0, 1, 1), 2, 2, before=-1), InputError, "give 0 or more"),
    "no frames": (lambda: time_mask(0, 1, 0, 0.02), InputError, "the number of frames is 0"),
    "frames without length": (lambda: time_mask(0, 1, 9, 0.0), InputError, "a frame lasts 0 s: give the seconds"),
    "frames of NaN": (lambda: time_mask(0, 1, 9, float("nan")), MarkError, "the length of a frame is nan"),
    "time backwards": (lambda: time_mask(2, 1, 9, 0.02), MarkError, "2 to 1 s hold nothing"),
    "time behind the end": (lambda: time_mask(2, 3, 50, 0.02), MarkError, "begin after the sound, which lasts 1 s"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_gets_a_clear_word(case):
    call, kind, told = REFUSED[case]
    with pytest.raises(kind) as caught:
        call()
    assert told in str(caught.value)
