"""Losses from marks equal their written-out definitions in float64, with gradients, and hold at every edge."""

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from recuerdo.bridge import watch
from recuerdo.errors import AddressError, InputError, ReadError, ShapeError
from recuerdo.read import causal, lengths, read
from recuerdo.steer.losses import log_of, map_loss, mass_loss, right_reasons

B, H, Q, K = 2, 3, 5, 7
NAN, INFINITE = float("nan"), float("inf")


def numbers(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def weights(seed=0, shape=(B, H, Q, K)):
    return (2 * numbers(*shape, seed=seed)).softmax(-1)


def two_part(mass, target):
    """KL of (target, 1 - target) from (mass, 1 - mass), number by number."""
    wanted, found = torch.tensor([target, 1 - target], dtype=torch.float64), torch.stack([mass, 1 - mass], -1)
    return (torch.xlogy(wanted, wanted) - torch.xlogy(wanted, found)).sum(-1)


# ------------------------------------------------------------------------------------------------------------- mass_loss


@pytest.mark.parametrize("target", [1.0, 0.7, 0.01, 0.0])
def test_mass_loss_is_the_divergence_of_two_parts(target):
    mass = weights()[..., :3].sum(-1)
    want = two_part(mass, target)
    assert torch.allclose(mass_loss(mass.log(), target), want.mean(), rtol=1e-12)
    assert torch.allclose(mass_loss(mass.log(), target, log_rest=(1 - mass).log()), want.mean(), rtol=1e-12)
    only = mass_loss(mass.log(), target, heads=[2, 0])
    assert torch.allclose(only, want[:, [2, 0]].mean(), rtol=1e-12)
    assert torch.equal(mass_loss(mass.log(), target, heads=-1), mass_loss(mass.log(), target, heads=2))


def test_target_one_is_minus_the_log_of_the_mass_and_a_met_target_is_nothing():
    mass = weights()[..., :3].sum(-1)
    assert torch.allclose(mass_loss(mass.log()), -mass.log().mean())
    met = torch.full((B, H, Q), 0.3, dtype=torch.float64, requires_grad=True)
    loss = mass_loss(met.log(), 0.3)
    loss.backward()
    assert loss.abs() < 1e-15
    assert met.grad.abs().max() < 1e-15


@pytest.mark.parametrize("shape", [(Q,), (B, Q), (B, H, Q), (B, 1, Q)])
@pytest.mark.parametrize("kind", ["bool", "weights"])
def test_rows_are_chosen_or_weighed(shape, kind):
    mass = weights()[..., :3].sum(-1)
    rows = numbers(*shape, seed=1).abs() if kind == "weights" else numbers(*shape, seed=1) > 0
    each = (rows[:, None] if len(shape) == 2 else rows).double().expand(B, H, Q)
    want = (each * -mass.log()).sum() / each.sum()
    assert torch.allclose(mass_loss(mass.log(), rows=rows), want)
    want = (each * -mass.log())[:, 1:].sum() / each[:, 1:].sum()
    assert torch.allclose(mass_loss(mass.log(), rows=rows, heads=[1, 2]), want)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.one_of(st.just(-INFINITE), st.just(0.0), st.floats(-60, 1e-6)), min_size=1, max_size=6),
    st.sampled_from([0.0, 1e-3, 0.3, 1.0]),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
def test_no_row_makes_a_nan(logs, target, dtype):
    """Rows that see nothing marked, or nothing else, or all but nothing: the loss and its gradient are finite."""
    log_mass = torch.tensor(logs, dtype=dtype)[None, None].requires_grad_()
    loss = mass_loss(log_mass, target)
    loss.backward()
    assert bool(loss.isfinite())
    assert loss >= -1e-5
    assert bool(log_mass.grad.isfinite().all())
    assert not log_mass.grad[0, 0, torch.tensor(logs).isneginf()].any()


def test_rows_that_see_nothing_marked_are_left_out():
    mass = weights()[..., :3].sum(-1).log()
    hidden = mass.clone()
    hidden[:, :, :2] = -INFINITE
    for target in (1.0, 0.3):
        assert torch.allclose(mass_loss(hidden, target), mass_loss(mass[:, :, 2:], target))
    nothing = torch.full_like(mass, -INFINITE, requires_grad=True)
    loss = mass_loss(nothing, log_rest=torch.zeros_like(mass))
    loss.backward()
    assert loss == 0
    assert not nothing.grad.any()
    assert mass_loss(mass, rows=torch.zeros(Q, dtype=torch.bool)) == 0


def test_rows_that_see_only_marked_keys_say_nothing_about_a_smaller_share():
    mass = weights()[..., :3].sum(-1).log()
    full = mass.clone()
    full[:, :, :2] = 0.0
    want = mass_loss(mass[:, :, 2:], 0.3)
    assert torch.allclose(mass_loss(full, 0.3), want)
    rest = torch.log(-torch.expm1(mass))
    rest[:, :, :2] = -INFINITE
    assert torch.allclose(mass_loss(full, 0.3, log_rest=rest), want)
    assert torch.allclose(mass_loss(full), -full.mean())  # but they count for "look here"


def test_the_log_of_the_rest_keeps_the_digits_where_a_row_looks_almost_nowhere_else():
    scores = torch.tensor([[[[30.0, 0.0]]]], requires_grad=True)  # the second key holds 1e-13
    parts = scores.log_softmax(-1)
    loss = mass_loss(parts[..., 0], 0.0, log_rest=parts[..., 1])
    loss.backward()
    assert torch.allclose(loss, torch.tensor(30.0))
    assert torch.allclose(scores.grad.flatten(), torch.tensor([1.0, -1.0]))


@pytest.mark.parametrize("target", [1.0, 0.4, 0.0])
def test_mass_loss_has_right_gradients(target):
    scores = numbers(B, H, Q, K).requires_grad_()
    rows = numbers(Q, seed=1).abs()

    def loss(scores):
        logs = scores.log_softmax(-1)
        return mass_loss(logs[..., :3].logsumexp(-1), target, rows, heads=[0, 2])

    assert gradcheck(loss, (scores,))
    assert gradgradcheck(loss, (scores,))


# -------------------------------------------------------------------------------------- through a read, by every path


@pytest.mark.parametrize("path", ["fused", "matmul", "tiled"])
@pytest.mark.parametrize("mask", [None, causal, lengths(torch.tensor([40, 22]))], ids=["full", "causal", "lengths"])
@pytest.mark.parametrize("target", [1.0, 0.3])
def test_the_losses_of_a_reading_are_those_of_its_written_out_weights(path, mask, target):
    tensors = [numbers(B, h, 40, 8, seed=h + i, dtype=torch.float32) for i, h in enumerate((4, 2, 2))]
    keys, human = torch.zeros(40, dtype=torch.bool), torch.arange(40) % 3
    keys[20:25] = True

    def losses(path, dtype):
        query, key, value = (x.detach().to(dtype, copy=True).requires_grad_() for x in tensors)
        reading = read(query, key, value, mask=mask, path=path)
        written = reading.weights[:, :]
        rest = reading.log_mass(~keys)
        log_mass = reading.log_mass(keys) if dtype == torch.float32 else log_of(written[..., keys].sum(-1))
        found = mass_loss(log_mass, target, log_rest=rest), map_loss(log_of(reading.weights[30:, :]), human)
        sum(found).backward()
        return [*found, query.grad, key.grad]

    for a, b in zip(losses(path, torch.float32), losses("plain", torch.float64), strict=True):
        assert bool(a.isfinite().all())
        assert torch.allclose(a.double(), b, atol=2e-5)


@pytest.mark.parametrize("target", [1.0, 0.5, 0.0, None])
def test_training_on_marks_moves_the_attention_there(target):
    keys = torch.arange(30) // 10 == 1
    query, key = (numbers(1, 2, n, 8, seed=n).float().requires_grad_() for n in (4, 30))
    optimiser = torch.optim.Adam([query, key], lr=0.1)
    for _ in range(80):
        optimiser.zero_grad()
        reading = read(query, key, key)
        if target is None:
            loss = map_loss(log_of(reading.weights[:, :]), keys)
        else:
            loss = mass_loss(reading.log_mass(keys), target)
        loss.backward()
        optimiser.step()
    weights = read(query, key, key).weights[:, :]
    assert (weights[..., keys].sum(-1) - (1.0 if target is None else target)).abs().max() < 0.02
    if target is None:
        assert (weights[..., keys] - 0.1).abs().max() < 0.02


# -------------------------------------------------------------------------------------------------------------- map_loss


@pytest.mark.parametrize("shape", [(K,), (B, K), (B, 1, Q, K), (1, H, 1, K)])
def test_map_loss_is_the_divergence_from_the_normalised_map(shape):
    attention, human = weights(), numbers(*shape, seed=3).abs() * (numbers(*shape, seed=4) > -0.5)
    each = (human[:, None, None] if human.dim() == 2 else human).expand(B, H, Q, K)
    assert bool((each == 0).any())
    wanted = each / each.sum(-1, keepdim=True)
    want = (torch.xlogy(wanted, wanted) - wanted * attention.log()).sum(-1)
    assert torch.allclose(map_loss(attention.log(), human), want.mean())
    assert torch.allclose(map_loss(attention.log(), 1000 * human, heads=[1]), want[:, 1].mean())
    assert torch.allclose(map_loss(attention.log() + 5, human), want.mean())  # scores do as well
    rows = torch.arange(Q) == 2
    assert torch.allclose(map_loss(attention.log(), human, rows, heads=[2, 1]), want[:, 1:, 2].mean())


def test_a_map_that_is_met_costs_nothing_and_a_mark_is_a_map_too():
    attention = weights()
    assert map_loss(attention.log(), attention).abs() < 1e-12
    marked = torch.arange(K) == 4
    assert torch.allclose(map_loss(attention.log(), marked), mass_loss(attention[..., 4].log()))


@settings(deadline=None, max_examples=100)
@given(st.lists(st.sampled_from([-INFINITE, -40.0, -1.0, 0.0]), min_size=4, max_size=4), st.integers(0, 15))
def test_no_map_makes_a_nan(logs, bits):
    """What a query cannot read is taken out of the map; rows with nothing left are left out."""
    human = torch.tensor([bits >> i & 1 for i in range(4)])
    scores = torch.tensor(logs)
    log_weights = torch.stack([scores, torch.zeros(4)])[None, None].requires_grad_()
    loss = map_loss(log_weights, human)
    loss.backward()
    assert bool(loss.isfinite())
    assert bool(log_weights.grad.isfinite().all())
    each = []
    for row in (scores.double(), torch.zeros(4, dtype=torch.float64)):
        seen = ~row.isneginf()
        if human[seen].any():
            wanted = human[seen] / human[seen].sum()
            each.append((torch.xlogy(wanted, wanted) - wanted * row[seen].log_softmax(-1)).sum())
    assert torch.allclose(loss.double(), torch.stack(each).mean() if each else torch.zeros(1).double(), atol=1e-5)


def test_map_loss_has_right_gradients():
    scores = numbers(B, H, Q, K).requires_grad_()
    human = numbers(B, K, seed=2).relu()
    assert gradcheck(lambda s: map_loss(s, human, torch.arange(Q).double(), heads=1), (scores,))
    assert gradgradcheck(lambda s: map_loss(s, human), (scores,))


def test_the_log_of_a_weight_of_nothing_has_no_gradient():
    seen = torch.tensor([0.0, 0.25, 1.0], requires_grad=True)
    logs = log_of(seen)
    logs[1:].sum().backward()
    assert torch.equal(logs.detach(), torch.tensor([0.0, 0.25, 1.0]).log())
    assert seen.grad.tolist() == [0.0, 4.0, 1.0]


# ---------------------------------------------------------------------------------------------------------- right_reasons


def network(dtype=torch.float64):
    torch.manual_seed(0)
    layers = torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 4), torch.nn.LogSoftmax(-1)
    return torch.nn.Sequential(*layers).to(dtype)


def slopes(model, inputs, step=1e-6):
    """d(sum of the log-probabilities) / d(input), by finite differences."""
    out = torch.zeros_like(inputs)
    for i in range(inputs.shape[-1]):
        up, down = inputs.clone(), inputs.clone()
        up[:, i] += step
        down[:, i] -= step
        out[:, i] = (model(up).sum(-1) - model(down).sum(-1)) / (2 * step)
    return out.detach()


def test_right_reasons_is_the_squared_gradient_on_what_was_marked():
    model, inputs = network(), numbers(5, 6).requires_grad_()
    wrong = numbers(5, 6, seed=1) > 0
    wrong[:, 0], wrong[3] = True, False  # one example without a mark
    want = (slopes(model, inputs.detach()).square() * wrong).sum() / 4
    assert torch.allclose(right_reasons(model(inputs), inputs, wrong), want, rtol=1e-5)
    assert torch.allclose(right_reasons(model(inputs), inputs, 2.0 * wrong), 2 * want, rtol=1e-5)
    everywhere = slopes(model, inputs.detach()).square()[:, :2].sum(-1).mean()
    assert torch.allclose(right_reasons(model(inputs), inputs, (torch.arange(6) < 2)[None]), everywhere, rtol=1e-5)
    assert right_reasons(model(inputs), inputs, torch.zeros(5, 1)) == 0


def test_right_reasons_trains_the_parameters():
    """Its own gradient, the second derivative of the model, equals finite differences."""
    inputs, wrong = numbers(3, 6).requires_grad_(), (torch.arange(6) < 3)[None]
    first, bias, last = numbers(8, 6, seed=1), numbers(8, seed=2), numbers(4, 8, seed=3)

    def loss(first, bias, last):
        hidden = torch.tanh(inputs @ first.T + bias)
        return right_reasons((hidden @ last.T).log_softmax(-1), inputs, wrong)

    assert gradcheck(loss, tuple(x.requires_grad_() for x in (first, bias, last)))


def test_a_mask_may_leave_out_the_last_axes():
    inputs = numbers(2, 5, 3).requires_grad_()
    marked = torch.tensor([[1, 1, 0, 0, 0], [0, 0, 0, 0, 1]]).bool()

    def penalty(wrong):
        return right_reasons(inputs.square().flatten(1)[:, :8].log_softmax(-1), inputs, wrong)

    assert torch.equal(penalty(marked), penalty(marked[..., None].expand(2, 5, 3)))
    assert penalty(marked) > 0


def test_a_model_learns_to_leave_the_marked_input_alone():
    """Two inputs tell the answer in training, one of them was marked: what is learned must hold without it."""
    torch.manual_seed(0)
    answer = torch.randint(2, (400,))
    data = torch.stack([answer * 2.0 - 1, answer * 2.0 - 1], -1) + 0.3 * torch.randn(400, 2)
    tested = data.clone()
    tested[:, 0] = tested[torch.randperm(400), 0]

    def accuracy(strength):
        torch.manual_seed(1)
        model = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
        optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
        shown = data[:10].clone().requires_grad_()  # ten marked examples
        for _ in range(200):
            loss = torch.nn.functional.cross_entropy(model(data), answer)
            reasons = right_reasons(model(shown).log_softmax(-1), shown, torch.tensor([[True, False]]))
            optimiser.zero_grad()
            (loss + strength * reasons).backward()
            optimiser.step()
        return (model(tested).argmax(-1) == answer).float().mean()

    assert accuracy(0.0) < 0.9
    assert accuracy(1.0) > 0.97


@pytest.mark.parametrize("path", ["matmul", "tiled"])
def test_right_reasons_through_a_read(path):
    keys = numbers(2, 1, 20, 8, dtype=torch.float32).requires_grad_()
    query = numbers(1, 1, 1, 8, seed=1, dtype=torch.float32).expand(2, -1, -1, -1).requires_grad_()
    found = read(query, keys, keys, path=path).mixed.flatten(1).log_softmax(-1)
    penalty = right_reasons(found, keys, (torch.arange(20) < 4)[None, None])
    (slope,) = torch.autograd.grad(penalty, query)
    assert penalty > 0
    assert bool(slope.abs().sum() > 0)


def test_the_fused_path_says_that_it_has_no_second_derivative():
    keys = numbers(2, 1, 20, 8, dtype=torch.float32).requires_grad_()
    found = read(keys, keys, keys, path="fused").mixed.flatten(1).log_softmax(-1)
    with pytest.raises(ReadError, match="no second derivative: pass path='tiled'"):
        right_reasons(found, keys, torch.ones(2, 1))


# ----------------------------------------------------------------------------------------------------- Hugging Face models


def little_llama(**how):
    shape = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.LlamaConfig(**shape, num_key_value_heads=2, intermediate_size=64, pad_token_id=0)
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM._from_config(config, **how)


def test_marks_fine_tune_a_hugging_face_model():
    """The mass of the last two words on marked words rises in the chosen heads, through the model's own weights."""
    model, ids = little_llama(), torch.arange(1, 25).reshape(2, 12)
    keys = torch.zeros(2, 12, dtype=torch.bool)
    keys[0, 3:5], keys[1, 7] = True, True
    rows = torch.arange(12) >= 10

    def loss():
        with watch(model) as seen:
            model(ids)
        return mass_loss(seen["model.layers.1.self_attn"].log_mass(keys), rows=rows, heads=[0, 3])

    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    before = loss()
    for _ in range(30):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
    assert before > 1
    assert loss() < 0.1


def test_right_reasons_of_a_hugging_face_model():
    model, ids = little_llama(attn_implementation="eager"), torch.arange(1, 25).reshape(2, 12)
    wrong = torch.zeros(2, 12, dtype=torch.bool)
    wrong[:, 2:4] = True

    def penalty():
        words = model.get_input_embeddings()(ids).detach().requires_grad_()
        answer = model(inputs_embeds=words).logits[:, -1].log_softmax(-1)
        return right_reasons(answer, words, wrong)

    optimiser = torch.optim.Adam(model.parameters(), lr=0.003)
    before = penalty()
    for _ in range(10):
        optimiser.zero_grad()
        penalty().backward()
        optimiser.step()
    assert 0 < penalty() < before / 2


def test_a_model_without_second_derivatives_is_told_at_once():
    words = numbers(1, 1, 12, 8, dtype=torch.float32).requires_grad_()
    mixed = torch.nn.functional.scaled_dot_product_attention(words, words, words, is_causal=True)
    with pytest.raises(InputError, match='without a second derivative.*attn_implementation="eager"'):
        right_reasons(mixed[:, 0, -1].log_softmax(-1), words, torch.ones(1, 1, 12))


# ---------------------------------------------------------------------------------------------------------------- refused

LOGS = weights().log()
MASS = weights()[..., :3].sum(-1).log()
INPUT = torch.zeros(3, 4, requires_grad=True)
ANSWER = (INPUT + 1).log_softmax(-1)
REFUSED = {
    "target above one": (lambda: mass_loss(MASS, 1.2), InputError, "the target is 1.2: give a share, 0 to 1"),
    "target of NaN": (lambda: mass_loss(MASS, NAN), InputError, "the target is nan"),
    "mass without heads": (lambda: mass_loss(MASS[0]), ShapeError, "log_mass is [b, h, q], not (3, 5)"),
    "mass instead of its log": (lambda: mass_loss(MASS.exp()), InputError, "pass reading.log_mass(keys), not"),
    "rest of another shape": (
        lambda: mass_loss(MASS, 0.2, log_rest=MASS[..., 1:]), ShapeError, "log_rest has the shape of log_mass, (2, 3, 5)"
    ),
    "rest that is no log": (
        lambda: mass_loss(MASS, 0.2, log_rest=MASS.exp()), InputError, "pass reading.log_mass(~keys)"
    ),
    "head beyond": (lambda: mass_loss(MASS, heads=3), AddressError, "there is no head 3: this read has 3"),
    "one head of many beyond": (lambda: map_loss(LOGS, torch.ones(K), heads=[0, -4]), AddressError, "no head -4"),
    "rows that do not fit": (
        lambda: mass_loss(MASS, rows=torch.ones(4)), ShapeError, "of a read (2, 3, 5), not (4,)"
    ),
    "rows of one": (lambda: mass_loss(MASS, rows=torch.ones(1)), ShapeError, "rows are [q], [b, q] or [b, h, q]"),
    "rows of minus": (
        lambda: mass_loss(MASS, rows=-torch.ones(Q)), InputError, "rows holds numbers that are negative or not finite"
    ),
    "rows of NaN": (lambda: mass_loss(MASS, rows=torch.full((Q,), NAN)), InputError, "negative or not finite"),
    "weights without heads": (
        lambda: map_loss(LOGS[0], torch.ones(K)), ShapeError, "log_weights is [b, h, q, k], not (3, 5, 7)"
    ),
    "map of other keys": (
        lambda: map_loss(LOGS, torch.ones(K - 1)), ShapeError, "a human map is [k], [b, k] or four axes that fit"
    ),
    "map of three axes": (lambda: map_loss(LOGS, torch.ones(H, Q, K)), ShapeError, "not (3, 5, 7)"),
    "map of minus": (
        lambda: map_loss(LOGS, -torch.ones(K)), InputError, "the human map holds numbers that are negative or not finite"
    ),
    "map without end": (lambda: map_loss(LOGS, torch.full((K,), INFINITE)), InputError, "the human map holds"),
    "inputs that are ids": (
        lambda: right_reasons(ANSWER, torch.zeros(3, 4, dtype=torch.long), torch.ones(3, 4)),
        InputError, "inputs are int64, which have no gradient",
    ),
    "inputs without a gradient": (
        lambda: right_reasons(ANSWER, torch.zeros(3, 4), torch.ones(3, 4)), InputError, "call inputs.requires_grad_()"
    ),
    "inputs of one axis": (
        lambda: right_reasons(ANSWER, torch.zeros(3, requires_grad=True), torch.ones(3)), ShapeError, "examples first"
    ),
    "mask that does not fit": (
        lambda: right_reasons(ANSWER, INPUT, torch.ones(2, 4)), ShapeError, "each full or 1, not (2, 4)"
    ),
    "mask of more axes": (lambda: right_reasons(ANSWER, INPUT, torch.ones(3, 4, 1)), ShapeError, "not (3, 4, 1)"),
    "mask of minus": (lambda: right_reasons(ANSWER, INPUT, -torch.ones(3, 4)), InputError, "wrong holds numbers"),
    "logits": (lambda: right_reasons(INPUT + 1, INPUT, torch.ones(3, 4)), InputError, "pass logits.log_softmax(-1)"),
    "answers from elsewhere": (
        lambda: right_reasons(MASS, INPUT, torch.ones(3, 4)), InputError, "log_probabilities do not depend on inputs"
    ),
    "answers from other inputs": (
        lambda: right_reasons(torch.zeros(3, 4, requires_grad=True).log_softmax(-1), INPUT, torch.ones(3, 4)),
        InputError, "compute them from these very inputs",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_gets_a_clear_word(case):
    call, kind, told = REFUSED[case]
    with pytest.raises(kind) as caught:
        call()
    assert told in str(caught.value)


def test_a_model_that_diverged_is_not_hidden():
    log_mass = MASS.clone()
    log_mass[0, 0, 0] = NAN
    assert mass_loss(log_mass).isnan()
    assert mass_loss(log_mass, 0.3).isnan()
