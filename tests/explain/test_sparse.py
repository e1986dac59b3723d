"""Maps that hold only what can be seen: what is listed is exact, what is not is below the floor, always."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from recuerdo.explain.sparse import Sparse

QUICK = settings(max_examples=100, deadline=None, database=None)
SHARES = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=7),
    elements=st.one_of(st.sampled_from([0.0, 0.25, 0.5]), st.floats(0, 1, width=32)),
)
FLOORS = st.sampled_from([1e-6, 1e-3, 0.25, 0.3, 0.9])


def holds(sparse: Sparse, dense: np.ndarray, *, floor: float | None = None) -> None:
    """The promises that every sparse map makes about the dense one that it stands for."""
    assert sparse.shape == dense.shape
    assert sparse.start.shape == (dense.shape[0] + 1,)
    assert sparse.start[0] == 0
    assert sparse.start[-1] == len(sparse.index) == len(sparse.value)
    listed = np.zeros(dense.shape, bool)
    for r in range(dense.shape[0]):
        columns = sparse.index[sparse.start[r] : sparse.start[r + 1]]
        assert (np.diff(columns) > 0).all(), "ascending"
        listed[r, columns] = True
        np.testing.assert_array_equal(sparse.value[sparse.start[r] : sparse.start[r + 1]], dense[r, columns])
        np.testing.assert_array_equal(sparse.row(r), np.where(listed[r], dense[r], 0))
    floor = sparse.floor if floor is None else floor
    assert (np.abs(dense[~listed]) < floor).all(), "a cell that is not listed is smaller than the floor"
    assert (np.abs(dense[listed]) >= np.float32(floor)).all(), "a cell that is listed is not"
    np.testing.assert_array_equal(sparse.dense(), np.where(listed, dense, 0))
    assert sparse.dense().shape == dense.shape


@QUICK
@given(SHARES, FLOORS)
def test_what_is_not_listed_is_below_the_floor(dense, floor):
    sparse = Sparse.of(dense, floor)
    assert sparse.floor == floor
    assert not sparse.signed
    holds(sparse, dense)


@QUICK
@given(SHARES, FLOORS)
def test_signed_maps_list_by_size(dense, floor):
    dense = dense - np.float32(0.5)
    sparse = Sparse.of(dense, floor, signed=True)
    assert sparse.signed
    holds(sparse, dense)


@QUICK
@given(SHARES)
def test_a_floor_of_nothing_keeps_everything(dense):
    np.testing.assert_allclose(Sparse.of(dense, 0.0).dense(), dense, atol=1e-12)


@QUICK
@given(SHARES, FLOORS, st.lists(st.integers(0, 7), max_size=4))
def test_stacked_parts_are_the_whole(dense, floor, cuts):
    edges = sorted({0, dense.shape[0], *(c for c in cuts if c < dense.shape[0])})
    parts = [Sparse.of(dense[a:b], floor) for a, b in zip(edges, edges[1:], strict=False)]
    stacked = Sparse.stacked(parts, dense.shape[1])
    holds(stacked, dense, floor=floor)


def test_stacked_parts_promise_no_more_than_their_highest_floor():
    dense = np.array([[0.2, 0.4], [0.2, 0.4]], np.float32)
    stacked = Sparse.stacked([Sparse.of(dense[:1], 0.1), Sparse.of(dense[1:], 0.3)], 2)
    assert stacked.floor == 0.3
    assert stacked.dense().tolist() == np.array([[0.2, 0.4], [0, 0.4]], np.float32).tolist()


def test_stacked_of_nothing_is_empty():
    stacked = Sparse.stacked([], 3)
    assert stacked.shape == (0, 3)
    assert stacked.dense().shape == (0, 3)


def test_stacked_keeps_the_sign():
    part = Sparse.of(np.array([[-0.5, 0.5]], np.float32), 0.1, signed=True)
    assert Sparse.stacked([part, part], 2).signed


@QUICK
@given(SHARES, FLOORS, st.integers(0, 50), st.booleans())
def test_at_most_keeps_the_largest(dense, floor, cells, signed):
    dense = dense - np.float32(0.5 * signed)
    whole = Sparse.of(dense, floor, signed=signed)
    fewer = whole.at_most(cells)
    assert len(fewer.value) <= cells
    assert fewer.signed == whole.signed
    assert fewer.floor >= whole.floor
    holds(fewer, dense)
    if len(whole.value) <= cells:
        assert len(fewer.value) == len(whole.value)
    else:
        size = np.sort(np.abs(whole.value))[::-1]
        left = size[size > size[cells]]  # all but the ties with the first that must go
        np.testing.assert_array_equal(np.sort(np.abs(fewer.value))[::-1], left)


@pytest.mark.parametrize("cells", [0, 1, 2, 3])
def test_at_most_of_equal_cells_keeps_all_or_none(cells):
    whole = Sparse.of(np.full((1, 3), 0.25, np.float32), 0.1)
    assert len(whole.at_most(cells).value) == (3 if cells == 3 else 0)
