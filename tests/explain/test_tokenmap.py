"""The map of a whole read equals the dense weights, however many layers, steps and blocks it was put together from."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recuerdo.errors import AddressError
from recuerdo.explain import tokenmap
from recuerdo.explain.rows import Layer, Selection
from recuerdo.explain.tokenmap import tile, token_map
from recuerdo.read import causal, read, sparsemax

HEADS, WIDTH = 4, 8


def tensors(q: int, k: int, seed: int, grad: bool = False) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(seed)
    shapes = (1, HEADS, q, WIDTH), (1, 2, k, WIDTH), (1, 2, k, WIDTH)
    return tuple((2 * torch.randn(shape, generator=g)).requires_grad_(grad) for shape in shapes)


def one_read(n: int, seed: int, **rules) -> tuple[Layer, np.ndarray]:
    """A layer that read all at once, and its weights [h, n, n]."""
    reading = read(*tensors(n, n, seed), mask=causal, **rules)
    return Layer(f"layers.{seed}", [reading]), reading.weights[:, :][0].detach().numpy()


def generation(n: int, prompt: int, seed: int, path: str = "auto", grad: bool = False) -> tuple[Layer, np.ndarray]:
    """A layer that read a prompt and then went on token by token, and the weights of all its steps [h, n, n]."""
    query, key, value = tensors(n, n, seed, grad)
    edges = [0, prompt, *range(prompt + 1, n + 1)]
    steps = [
        read(query[:, :, a:b], key[:, :, :b], value[:, :, :b], mask=causal, path=path)
        for a, b in zip(edges, edges[1:], strict=False)
    ]
    dense = np.zeros((HEADS, n, n), np.float32)
    for step, a, b in zip(steps, edges, edges[1:], strict=False):
        dense[:, a:b, :b] = step.weights[:, :][0].detach().numpy()
    return Layer(f"layers.{seed}", steps), dense


def names(n: int) -> list[str]:
    return [f"t{i}" for i in range(n)]


def overview_of(dense: np.ndarray) -> np.ndarray:
    """As docs/page-format.md says it: the bin of i is floor(i * a / rows); a cell is the mean over its rows."""
    q, k = dense.shape
    a, b = min(256, q), min(256, k)
    rows, cols = np.eye(a)[np.arange(q) * a // q], np.eye(b)[np.arange(k) * b // k]
    return (rows / rows.sum(0)).T @ dense @ cols


@pytest.mark.parametrize("head", [None, 0, 3])
@pytest.mark.parametrize("layer", [None, 1, -1])
@pytest.mark.parametrize("n", [1, 7, 40])
def test_cells_and_overview_equal_the_dense_mean(n, layer, head):
    made = [one_read(n, 0), one_read(n, 1, normalise=sparsemax), generation(n, max(n // 2, 1), 2)]
    selection = Selection.of([m[0] for m in made], layer, head)
    dense = np.stack([m[1] for m in (made if layer is None else [made[layer]])])
    mean = (dense if head is None else dense[:, head : head + 1]).mean((0, 1))
    got = token_map(selection, names(n), names(n))
    assert got.label == selection.words
    assert (got.rows, got.cols) == (names(n), names(n))
    np.testing.assert_allclose(got.cells.dense(), np.where(mean >= got.cells.floor, mean, 0), atol=1e-6)
    assert (mean[got.cells.dense() == 0] < got.cells.floor + 1e-6).all()
    np.testing.assert_allclose(got.overview, overview_of(mean), atol=1e-6)
    np.testing.assert_allclose(got.overview.sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize("n", [257, 300, 600])
def test_the_overview_of_many_tokens_is_pooled(n):
    layer, dense = one_read(n, 3)
    got = token_map(Selection.of([layer]), names(n), names(n), cells=500)
    assert got.overview.shape == (256, 256)
    np.testing.assert_allclose(got.overview, overview_of(dense.mean(0)), atol=1e-6)
    np.testing.assert_allclose(got.overview.sum(-1), 1, atol=1e-5)
    assert 0 < len(got.cells.value) <= 500
    mean = dense.mean(0)
    assert (mean[got.cells.dense() == 0] < got.cells.floor + 1e-6).all(), "the largest cells are kept"


def test_fewer_rows_than_columns():
    """Cross-attention: target tokens over source tokens."""
    query, key, value = tensors(5, 300, 4)
    reading = read(query, key, value)
    mean = reading.weights[:, :][0].mean(0).numpy()
    got = token_map(Selection.of([Layer("cross", [reading])]), names(5), names(300))
    assert got.overview.shape == (5, 256)
    np.testing.assert_allclose(got.overview, overview_of(mean), atol=1e-6)
    np.testing.assert_allclose(got.cells.dense(), np.where(mean >= got.cells.floor, mean, 0), atol=1e-6)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("path", ["auto", "matmul", "fused", "tiled"])
def test_steps_of_a_generation_are_one_read(path, grad):
    n, prompt = 23, 9
    layer, dense = generation(n, prompt, 5, path, grad)
    whole = read(*tensors(n, n, 5), mask=causal, path="plain").weights[:, :][0]
    np.testing.assert_allclose(dense, whole.numpy(), atol=1e-5)  # scores near 20 carry float32's rounding
    assert (layer.queries, layer.keys, layer.heads) == (n, n, HEADS)
    rows = layer.rows(0, n, n)
    np.testing.assert_allclose(rows.detach().numpy(), dense, atol=1e-6)
    np.testing.assert_allclose(layer.rows(7, 12, n).detach().numpy(), dense[:, 7:12], atol=1e-6)
    np.testing.assert_allclose(
        layer.rows(prompt - 1, n, prompt).detach().numpy(), dense[:, prompt - 1 :, :prompt], atol=1e-6
    )
    got = token_map(Selection.of([layer]), names(n), names(n))
    np.testing.assert_allclose(got.overview, dense.mean(0), atol=1e-6)
    assert Selection.of([layer]).rows(layer, 3, 5, n).shape == (HEADS, 2, n)


def test_keys_that_do_not_exist_yet_weigh_nothing():
    layer, _ = generation(12, 4, 6)
    rows = layer.rows(0, 12, 20)
    assert rows.shape == (HEADS, 12, 20)
    assert not rows[:, :, 12:].any()


@settings(max_examples=30, deadline=None, database=None)
@given(st.data())
def test_a_tile_equals_the_dense_rectangle(data):
    n = 30
    layer, dense = generation(n, 11, 7)
    head = data.draw(st.sampled_from([None, 2]))
    (a, b), (c, d) = (sorted(data.draw(st.tuples(st.integers(0, n - 1), st.integers(1, n)))) for _ in range(2))
    b, d = max(b, a + 1), max(d, c + 1)
    mean = dense.mean(0) if head is None else dense[head]
    got = tile(Selection.of([layer], head=head), slice(a, b), slice(c, d), n)
    np.testing.assert_allclose(got, mean[a:b, c:d], atol=1e-6)


def test_blocks_of_rows_change_nothing(monkeypatch):
    layer, dense = one_read(50, 8)
    whole = token_map(Selection.of([layer]), names(50), names(50))
    monkeypatch.setattr(tokenmap, "OVERVIEW", 16)
    steps = []
    small = token_map(
        Selection.of([layer]), names(50), names(50), progress=lambda done, total: steps.append((done, total))
    )
    assert small.overview.shape == (16, 16)
    np.testing.assert_allclose(small.overview.sum(-1), 1, atol=1e-5)
    np.testing.assert_array_equal(small.cells.dense(), whole.cells.dense())
    assert steps[-1] == (50, 50)
    assert [s[0] for s in steps] == sorted({s[0] for s in steps})


def test_a_long_read_is_mapped_block_by_block():
    n = 400  # more than one block of rows, and blocks that end inside a bin
    layer, dense = one_read(n, 9)
    steps = []
    got = token_map(Selection.of([layer]), names(n), names(n), progress=lambda done, total: steps.append(done))
    assert len(steps) > 1
    np.testing.assert_allclose(got.overview, overview_of(dense.mean(0)), atol=1e-6)
    np.testing.assert_allclose(
        tile(Selection.of([layer]), slice(100, 300), slice(0, n), n), dense.mean(0)[100:300], atol=1e-6
    )


# --------------------------------------------------------------------------------------------------------- selections


def test_a_selection_says_what_it_is():
    layers = [one_read(5, seed)[0] for seed in range(3)]
    assert Selection.of(layers).words == "mean over all layers and heads"
    assert Selection.of(layers, layer=-1).words == "layer 2, mean over its heads"
    assert Selection.of(layers, layer=-1).layers == [layers[2]]
    assert Selection.of(layers, head=3).words == "head 3 of every layer"
    assert Selection.of(layers, layer=1, head=0).words == "layer 1, head 0"
    assert (Selection.of(layers).heads, Selection.of(layers, head=3).heads) == (HEADS, 1)


@pytest.mark.parametrize(
    ("layer", "head", "words"),
    [
        (3, None, "there is no layer 3: this model has layers 0 to 2"),
        (-4, None, "there is no layer -4: this model has layers 0 to 2"),
        (None, 4, "there is no head 4: this model has heads 0 to 3"),
        (None, -1, "there is no head -1: this model has heads 0 to 3"),
        (1, 99, "there is no head 99: this model has heads 0 to 3"),
    ],
)
def test_a_selection_of_what_does_not_exist(layer, head, words):
    layers = [one_read(5, seed)[0] for seed in range(3)]
    with pytest.raises(AddressError) as caught:
        Selection.of(layers, layer, head)
    assert str(caught.value) == words


def test_a_selection_of_nothing():
    with pytest.raises(AddressError, match="^nothing was read that could be shown: the list of layers is empty$"):
        Selection.of([])


def test_pieces_of_a_range_cover_it_once():
    selection = Selection.of([one_read(5, 0)[0]])
    rows = [i for a, b in selection.chunks(3, 200) for i in range(a, b)]
    assert rows == list(range(3, 200))
    assert list(selection.chunks(3, 3)) == []
