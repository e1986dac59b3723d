"""Every view equals the same formula over the written-out weights, and says of which sort it is."""

import numpy as np
import pytest
import torch

from recuerdo.errors import InputError
from recuerdo.explain.compare import compare
from recuerdo.explain.evidence import Evidence
from recuerdo.explain.flow import gradient_view, rollout_view, value_view
from recuerdo.explain.rows import Layer, Selection
from recuerdo.explain.sinks import list_sinks, sink_mask
from recuerdo.explain.views import BEYOND, FLOOR, Keys, Queries, make_views
from recuerdo.explain.words import cut
from recuerdo.read import causal, read

LAYERS, HEADS, GROUPS, PROMPT, STEPS, WIDTH = 3, 4, 2, 14, 4, 8
TEXT = cut("one two three. Four five six seven.")
# Token 0 is a start token, 1 … 9 the nine words and marks of the text, 10 … 13 the question.
WORD = np.array([-1, *range(9), -1, -1, -1, -1])


def layers(requires_grad: bool = False) -> tuple[list[Layer], torch.Tensor, list]:
    """Generation-like reads: a prompt of 14 tokens, then 3 steps; and the dense weights [L, h, 17, 17]."""
    g = torch.Generator().manual_seed(0)
    total, made, dense, tensors = PROMPT + STEPS - 1, [], torch.zeros(LAYERS, HEADS, PROMPT + STEPS - 1, 17), []
    for number in range(LAYERS):
        q = 2 * torch.randn(1, HEADS, total, WIDTH, generator=g)
        k, v = (torch.randn(1, GROUPS, total, WIDTH, generator=g) for _ in range(2))
        k[:, :, 0] += q.mean(1, keepdim=True).mean(2)  # something like a sink
        if requires_grad:
            q.requires_grad_()
        steps = [read(q[:, :, :PROMPT], k[:, :, :PROMPT], v[:, :, :PROMPT], mask=causal)]
        steps += [
            read(q[:, :, i : i + 1], k[:, :, : i + 1], v[:, :, : i + 1], mask=causal) for i in range(PROMPT, total)
        ]
        made.append(Layer(f"layers.{number}", steps))
        whole = read(q, k, v, mask=causal)
        tensors.append((q, k, v, whole))
        dense[number] = whole.weights[:, :][0].detach()
    return made, dense, tensors


def asked() -> tuple[Queries, Keys]:
    queries = Queries(PROMPT - 1, np.array([0, 1, 1, -1]), 2)  # two words, the second of two tokens; then a space
    names = ["<s>", *TEXT.words, "what", "is", "it", "?"]
    return queries, Keys(names, [True] + [False] * 13, WORD, len(TEXT))


def by_word(rows: np.ndarray) -> np.ndarray:
    """Dense rows [.., 14 or more] -> text words [.., 9]."""
    return rows[..., 1:10]


def grouped(rows: np.ndarray) -> np.ndarray:
    return np.stack([rows[0], rows[1:3].mean(0)])


def check(view, want: np.ndarray, together, rows: np.ndarray | None = None) -> None:
    got = view.map.dense()
    full = np.concatenate([together(want if rows is None else rows, axis=0)[None], want])
    assert np.abs(np.where(np.abs(full) >= FLOOR, got - full, got)).max() < 1e-5


@pytest.mark.parametrize(("layer", "head"), [(None, None), (1, None), (None, 2), (2, 3)])
def test_lift_and_raw_are_their_formulas(layer, head):
    made, dense, _ = layers()
    selection = Selection.of(made, layer, head)
    views = {v.name: v for v in make_views(selection, *asked()).views}
    chosen = dense[slice(None) if layer is None else [layer]][:, slice(None) if head is None else [head]].numpy()
    rows = chosen[:, :, PROMPT - 1 : PROMPT + STEPS - 1, :PROMPT]
    usual = np.zeros(rows.shape[:2] + (PROMPT,))
    for j in range(PROMPT):
        later = chosen[:, :, j + 1 : PROMPT - 1, j]
        usual[..., j] = later.sum(-1) / max(PROMPT - 2 - j, 1)
    lift = by_word(np.maximum(rows - BEYOND * usual[:, :, None], 0).mean((0, 1)))
    check(views["lift"], grouped(lift), np.max, lift[:3])  # the fourth row belongs to no word
    raw = by_word(rows.mean((0, 1)))
    check(views["raw"], grouped(raw), np.mean)
    assert list(views)[0] == "lift"


def test_aside_sets_the_sink_aside_and_renormalises():
    made, dense, _ = layers()
    views = make_views(Selection.of(made), *asked())
    aside = {v.name: v for v in views.views}["aside"].map.dense()
    assert np.allclose(aside.sum(-1), 1, atol=len(TEXT) * FLOOR)


def test_sinks_are_keys_with_a_large_share_and_a_small_value():
    usual = np.array([[0.5, 0.01, 0.4, 0.01, 0.01, 0.0], [0.01, 0.01, 0.01, 0.01, 0.01, 0.01]])
    values = np.array([[0.1, 1.0, 1.0, 0.1, 1.2, 1.0], [0.1, 1.0, 1.0, 1.0, 1.0, 1.0]])
    assert sink_mask(usual, values).tolist() == [[True] + [False] * 5, [False] * 6]
    told = list_sinks(np.array([0.3, 0.001, 0.05]), np.array([7, 1, 2]), ["<s>", "a", "</s>"], [True, False, True])
    assert [(s.token, s.share) for s in told] == [(0, 0.3), (2, 0.05)]
    assert told[0].why == "the first token: a large share from every query, and a small value"
    assert told[0].heads == 7
    assert "a special token" in told[1].why


def test_a_planted_sink_is_set_aside_and_listed():
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 1, 16, WIDTH, generator=g) for _ in range(3))
    q[..., 0], k[..., 0] = 4.0, 0.0
    k[:, :, 5, 0], v[:, :, 5] = 9.0, 1e-3  # every query reads key 5, which carries nothing
    layer = Layer("l", [read(q, k, v)])
    queries = Queries(0, np.arange(16), 16)
    keys = Keys([f"w{i}" for i in range(16)], [False] * 16, np.arange(16), 16)
    made = make_views(Selection.of([layer]), queries, keys)
    assert [s.word for s in made.sinks] == ["w5"]
    views = {v.name: v.map.dense() for v in made.views}
    assert views["raw"][0, 5] > 0.5
    assert views["aside"][:, 5].max() == 0


def test_the_atlas_holds_each_heads_own_lift():
    made, _, _ = layers()
    whole = make_views(Selection.of(made), *asked())
    for layer in range(LAYERS):
        for head in range(HEADS):
            alone = make_views(Selection.of(made, layer, head), *asked()).views[0].map.dense()
            peak = whole.atlas.peak[:, layer, head]
            assert np.abs(np.where(peak >= FLOOR, peak - alone.max(-1), 0)).max() < 1e-5


def test_runs_of_words_change_nothing(monkeypatch):
    made, _, _ = layers()
    queries, keys = Queries(0, WORD, len(TEXT)), asked()[1]
    whole = make_views(Selection.of(made), queries, keys)
    monkeypatch.setattr("recuerdo.explain.views.ROWS_AT_ONCE", 3)
    runs = make_views(Selection.of(made), queries, keys)
    for a, b in zip(whole.views, runs.views, strict=True):
        assert a.map.shape == b.map.shape == (1 + len(TEXT), len(TEXT))
        assert np.abs(a.map.dense() - b.map.dense()).max() <= FLOOR
    assert np.allclose(whole.atlas.peak, runs.atlas.peak, atol=1e-6)
    assert np.allclose(np.sort(whole.atlas.value), np.sort(runs.atlas.value), atol=1e-6)


def test_value_view_is_its_formula():
    made, dense, tensors = layers()
    rows = dense[:, :, PROMPT - 1 :, :PROMPT].numpy()
    size = np.stack([v[0, :, :PROMPT].norm(dim=-1).repeat_interleave(2, 0).numpy() for _, _, v, _ in tensors])
    carried = rows * size[:, :, None]
    carried /= carried.sum(-1, keepdims=True)
    check(value_view(Selection.of(made), *asked()), grouped(by_word(carried.mean((0, 1)))), np.mean)


def test_rollout_is_the_product_of_the_layers():
    made, dense, _ = layers()
    flow = np.eye(17)
    for layer in range(LAYERS):
        flow = (0.5 * np.eye(17) + 0.5 * dense[layer].mean(0).numpy()) @ flow
    words = by_word(grouped(flow[PROMPT - 1 :]))
    words /= words.sum(-1, keepdims=True)
    check(rollout_view(Selection.of(made), *asked()), words, np.mean)


def test_rollout_of_one_layer_is_refused():
    made, _, _ = layers()
    with pytest.raises(InputError, match="rollout needs the self-attention of all layers"):
        rollout_view(Selection.of(made, 1), *asked())


def test_gradient_view_is_weight_times_its_gradient():
    made, _, tensors = layers(requires_grad=True)
    g = torch.Generator().manual_seed(9)
    pull = torch.randn(1, HEADS, 17, WIDTH, generator=g)
    want = np.zeros((STEPS, PROMPT))
    for q, k, v, whole in tensors:
        whole.mixed.retain_grad()
        (whole.mixed * pull).sum().backward()
        weights = whole.weights[:, :].detach().requires_grad_()
        (weights @ v.repeat_interleave(2, 1) * pull).sum().backward()
        part = (weights * weights.grad).clamp_min(0)[0, :, PROMPT - 1 :, :PROMPT].detach().numpy()
        want += (part / part.sum(-1, keepdims=True)).mean(0) / LAYERS
    view = gradient_view(Selection.of(made), *asked(), [whole for *_, whole in tensors])
    check(view, grouped(by_word(want)), np.mean)


def test_gradient_view_needs_a_backward_pass():
    made, _, tensors = layers()
    with pytest.raises(InputError, match="needs a backward pass"):
        gradient_view(Selection.of(made), *asked(), [whole for *_, whole in tensors])


def look(selection: Selection, text=TEXT) -> Evidence:
    views = make_views(selection, *asked())
    return Evidence(
        kind="answer", title="t", model="m", tokens=18, layers=LAYERS, heads=HEADS, selection=selection.words,
        text=text, answer=cut("seven six"), views=views.views, question="q?",
    )  # fmt: skip


def test_compare_is_the_signed_difference_of_shares():
    made, _, _ = layers()
    first, second = look(Selection.of(made, 0)), look(Selection.of(made, 2))
    found = compare(first, second, "raw")
    a, b = (x.view("raw").map.dense() for x in (first, second))
    want = b / b.sum(-1, keepdims=True) - a / a.sum(-1, keepdims=True)
    got = found.view().map
    assert got.signed
    assert np.abs(np.where(np.abs(want) >= FLOOR, got.dense() - want, 0)).max() < 1e-6
    assert np.abs(compare(first, first).view().map.dense()).max() == 0
    assert "layer 2" in found.view().note
    assert "layer 0" in found.view().note


def test_compare_refuses_different_texts():
    made, _, _ = layers()
    with pytest.raises(InputError, match="the two looks are over different texts"):
        compare(look(Selection.of(made)), look(Selection.of(made), text=cut("a b c d e f g h i")))
