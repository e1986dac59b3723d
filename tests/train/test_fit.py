"""The loop: what it yields, that it learns, and what is left behind when it is left."""

import math
import os
import signal
import threading
from itertools import islice
from pathlib import Path

import pytest
import torch
import transformers
from torch import nn

from recuerdo.errors import InputError, RunError
from recuerdo.read import causal, read, watch
from recuerdo.steer.losses import mass_loss, right_reasons
from recuerdo.train import Checked, Pace, Part, Saved, State, Step, fit, mixed, rounds

TARGET = torch.tensor([1.0, -2.0, 0.5])


def squared(parameter):
    return lambda item: (parameter - TARGET).square().sum()


def parameter(start=0.0):
    return nn.Parameter(torch.full((3,), start))


# ------------------------------------------------------------------------------------------------------------- learning


@pytest.mark.parametrize("shape", ["cosine", "constant"])
def test_it_finds_the_least(shape):
    learned = parameter()
    events = list(fit(squared(learned), [learned], rounds([0], 1), Pace(300, 0.05, shape=shape)))
    assert [type(event) for event in events] == [Step] * 300
    assert [event.number for event in events] == list(range(1, 301))
    assert torch.allclose(learned.detach(), TARGET, atol=0.05)
    assert events[-1].loss < 1e-2 < events[0].loss
    assert learned.grad is None


def test_the_gradient_of_a_batch_is_the_mean_of_its_items():
    at_once, one_by_one = parameter(), parameter()
    items = [torch.tensor([1.0, 2.0, 3.0]), torch.tensor([-1.0, 0.0, 5.0])]
    steps = Pace(7, 0.1, clip=1e9)
    for _ in fit(lambda x: ((one_by_one - x) ** 2).sum(), [one_by_one], [items] * 7, steps):
        pass
    both = torch.stack(items)
    for _ in fit(lambda _: ((at_once - both) ** 2).sum(1).mean(), [at_once], [[0]] * 7, steps):
        pass
    assert torch.allclose(at_once, one_by_one, atol=1e-6)


def test_the_parts_of_a_loss_are_told_by_name_and_add_up():
    learned = parameter()

    def parts(item):
        return {"near": (learned - TARGET).square().sum(), "small": item * learned.abs().sum()}

    first = next(fit(parts, [learned], [[1.0, 3.0]], Pace(1)))
    assert first.parts == {"near": pytest.approx(5.25), "small": 0.0}
    assert first.loss == pytest.approx(5.25)
    assert first.norm == pytest.approx(2 * TARGET.norm().item())


def test_long_gradients_are_clipped():
    """With the clip the size of the gradient does not matter, so both runs go the same way."""
    small, large = parameter(), parameter()
    for factor, learned in ((1.0, small), (1e6, large)):
        pace = Pace(5, 0.1, clip=0.1)
        steep = squared(learned)
        for event in fit(lambda _, f=factor, s=steep: f * s(_), [learned], rounds([0], 1), pace):
            assert event.norm > 0.1
    assert torch.allclose(small, large, atol=1e-4)


def test_the_rate_rises_then_falls():
    pace = Pace(100, 1.0, warmup=0.1)
    rates = [pace.rate(step) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([i / 10 for i in range(1, 11)])
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] == pytest.approx(0.1)
    assert rates[54] == pytest.approx(0.55)  # half way down
    assert {Pace(100, 1.0, shape="constant", warmup=0).rate(step) for step in range(1, 101)} == {1.0}
    assert Pace(1).rate(1) == Pace(1).lr


def test_the_same_seed_makes_the_same_run():
    def run(seed):
        learned = parameter()
        batches = rounds([torch.randn(3, generator=torch.Generator().manual_seed(i)) for i in range(5)], 2, seed)
        return [event.loss for event in fit(lambda x: (learned - x).square().sum(), [learned], batches, Pace(20))]

    assert run(1) == run(1) != run(2)


def test_every_round_holds_every_item_once():
    drawn = [x for batch in islice(rounds("abcdefg", 3, seed=4), 14) for x in batch]
    for i in range(6):
        assert sorted(drawn[7 * i : 7 * i + 7]) == list("abcdefg")
    assert drawn[:7] != drawn[7:14]


# ------------------------------------------------------------------------------------------------------ check and save


@pytest.mark.parametrize(("every", "at"), [(0, [5]), (2, [2, 4, 5]), (5, [5])])
def test_check_and_save_come_every_so_often_and_at_the_end(every, at):
    learned = parameter()
    events = list(
        fit(
            squared(learned),
            [learned],
            rounds([0], 1),
            Pace(5),
            every=every,
            check=lambda: {"first": learned[0].item()},
            save=lambda: Path("here"),
        )
    )
    assert [event.number for event in events if isinstance(event, Checked)] == at
    assert [event.number for event in events if isinstance(event, Saved)] == at
    assert next(e for e in events if isinstance(e, Saved)).path == Path("here")
    assert next(e for e in reversed(events) if isinstance(e, Checked)).numbers == {"first": learned[0].item()}
    kinds = [type(event).__name__ for event in events[-3:]]
    assert kinds == ["Step", "Checked", "Saved"]


# ------------------------------------------------------------------------------------------------------------- leaving


def test_leaving_the_loop_keeps_whole_steps_and_no_gradients():
    learned, reference = parameter(), parameter()
    for event in fit(squared(learned), [learned], rounds([0], 1), Pace(10)):
        if event.number == 4:
            break
    steps = fit(squared(reference), [reference], rounds([0], 1), Pace(10))
    list(islice(steps, 4))
    steps.close()
    assert torch.equal(learned, reference)
    assert reference.grad is None


@pytest.mark.skipif(os.name == "nt", reason="signals are sent to oneself")
@pytest.mark.parametrize("moment", ["while the loss is computed", "while the weights change"])
def test_ctrl_c_leaves_the_weights_of_a_whole_step(moment, monkeypatch):
    """All parameters have seen the same number of steps."""
    learned = [parameter(), parameter(), parameter()]
    calls = 0

    def interrupt(*_):
        nonlocal calls
        calls += 1
        if calls == 3:
            signal.raise_signal(signal.SIGINT)

    def loss(item):
        if moment == "while the loss is computed":
            interrupt()
        return sum((p - TARGET).square().sum() for p in learned)

    if moment == "while the weights change":
        step = torch.optim.AdamW.step

        def broken(self, *told):
            interrupt()
            return step(self, *told)

        monkeypatch.setattr(torch.optim.AdamW, "step", broken)
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)  # a run in the background ignores Ctrl-C
    before = signal.getsignal(signal.SIGINT)
    done = 0
    with pytest.raises(KeyboardInterrupt):
        for event in fit(loss, learned, rounds([0], 1), Pace(10)):
            done = event.number
    made = 2 if moment == "while the loss is computed" else 3  # the step that was begun is made
    reference = [parameter(), parameter(), parameter()]
    whole = fit(lambda _: sum((p - TARGET).square().sum() for p in reference), reference, rounds([0], 1), Pace(10))
    monkeypatch.undo()
    list(islice(whole, made))
    assert done == 2
    assert all(torch.equal(a, b) for a, b in zip(learned, reference, strict=True))
    assert all(p.grad is None for p in learned)
    assert signal.getsignal(signal.SIGINT) is before
    signal.signal(signal.SIGINT, ours)


def test_it_runs_in_another_thread():
    learned, events = parameter(), []
    run = threading.Thread(target=lambda: events.extend(fit(squared(learned), [learned], rounds([0], 1), Pace(3))))
    run.start()
    run.join()
    assert len(events) == 3


def test_a_loss_that_is_not_finite_changes_nothing():
    learned = parameter()
    start = learned.detach().clone()
    with pytest.raises(InputError, match="the loss of step 1 is nan: lower the learning rate"):
        list(fit(lambda _: learned.sum() * math.nan, [learned], rounds([0], 1), Pace(3)))
    with pytest.raises(InputError, match="the gradient of step 1 is inf: lower the learning rate"):
        list(fit(lambda _: learned.sqrt().sum(), [learned], rounds([0], 1), Pace(3)))  # steep without end at 0
    assert torch.equal(learned, start)
    assert learned.grad is None


REFUSED = {
    "no step": (lambda: Pace(0), "is no pace: at least 1 step, lr and clip above 0"),
    "no rate": (lambda: Pace(3, lr=math.nan), "is no pace"),
    "warmup beyond": (lambda: Pace(3, warmup=1.5), "warmup a share of the steps"),
    "unknown shape": (lambda: Pace(3, shape="cosin"), "there is no shape 'cosin': choose cosine or constant"),
    "unknown optimiser": (lambda: Pace(3, optimiser="adamn"), "there is no optimiser 'adamn': choose adamw or adam or"),
    "unknown precision": (lambda: Pace(3, precision="half"), "there is no precision 'half': choose float32 or bfloat16"),
    "average of 1": (lambda: Pace(3, average=1.0), "average is below 1, patience and halve_every are 0 or more"),
    "halve, when": (lambda: Pace(3, shape="halve"), "the shape halve and halve_every belong together: give both"),
    "no parameters": (lambda: next(fit(len, [], [[0]], Pace(3))), "there is nothing to train: no parameters"),
    "no items": (lambda: next(rounds([], 2)), "there is nothing to draw batches from: give at least one item"),
    "batch of none": (lambda: next(rounds([1], 0)), "a size of 1 or more"),
    "batches that end": (
        lambda: list(fit(squared(P), [P], [[0]] * 2, Pace(3))), "the batches ended after 2 of 3 steps: give more, or"
    ),
}  # fmt: skip
P = parameter()


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_said(case):
    call, words = REFUSED[case]
    with pytest.raises(InputError) as error:
        call()
    assert words in str(error.value)


# --------------------------------------------------------------------------------------------------------- how and how far


def test_the_rate_is_halved_every_so_many_steps():
    pace = Pace(10, 0.8, warmup=0, shape="halve", halve_every=4)
    assert [pace.rate(step) for step in range(1, 11)] == [0.8] * 4 + [0.4] * 4 + [0.2] * 2


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd", "rmsprop", "muon"])
def test_every_optimiser_finds_the_least(name):
    learned = parameter()
    pace = Pace(300, 0.05, optimiser=name, clip=10)
    *_, last = fit(squared(learned), [learned], rounds([0], 1), pace)
    assert last.loss < 1e-2


def test_sgd_is_a_step_along_the_gradient():
    learned = parameter()
    list(fit(squared(learned), [learned], [[0]], Pace(1, 0.1, optimiser="sgd", clip=1e9)))
    assert torch.allclose(learned.detach(), 0.1 * 2 * TARGET)


def test_the_average_is_what_is_checked_and_the_parameters_come_back():
    """Against the definition: a running mean whose decay rises to that of the pace."""
    learned, seen, mean = parameter(), [], torch.zeros(3)
    run = fit(
        squared(learned), [learned], rounds([0], 1), Pace(30, 0.1, average=0.8), every=5,
        check=lambda: {"at": seen.append(learned.detach().clone()) or 0.0},
    )  # fmt: skip
    for event in run:
        if isinstance(event, Step):
            keep = min(0.8, (1 + event.number) / (10 + event.number))
            mean = keep * mean + (1 - keep) * learned.detach()
        else:
            assert torch.allclose(seen[-1], mean, atol=1e-6)
            assert not torch.allclose(seen[-1], learned.detach(), atol=1e-3)
    assert len(seen) == 6


def test_an_exception_in_check_brings_the_parameters_back():
    learned = parameter()
    state = State({"p": learned}, Pace(3, 0.1, average=0.5))

    def check():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(fit(squared(learned), [learned], rounds([0], 1), state.pace, check=check, state=state))
    reference = parameter()
    list(fit(squared(reference), [reference], rounds([0], 1), Pace(3, 0.1)))
    assert torch.equal(learned, reference)


def test_patience_ends_the_run():
    learned, numbers = parameter(), iter([5.0, 4.0, 4.0, math.nan, 3.0, 2.0])
    events = list(
        fit(squared(learned), [learned], rounds([0], 1), Pace(100, patience=2), every=3,
            check=lambda: {"error": next(numbers), "other": 0.0}, save=lambda: Path("x"))
    )  # fmt: skip
    assert [event.number for event in events if isinstance(event, Checked)] == [3, 6, 9, 12]
    assert isinstance(events[-1], Saved)


def test_bfloat16_is_in_the_products_only():
    layer = nn.Linear(4, 4)
    kinds = []

    def loss(item):
        out = layer(item)
        kinds.append(out.dtype)
        return out.float().square().mean()

    list(fit(loss, layer.parameters(), [[torch.randn(2, 4)]], Pace(1, precision="bfloat16")))
    assert kinds == [torch.bfloat16]
    assert layer.weight.dtype == torch.float32


def test_parts_of_a_batch_count_their_weight():
    """Means over parts of different length, weighed by their lengths, are the mean over all."""
    items = torch.randn(7, 3)
    one, parted = parameter(), parameter()
    pace = Pace(4, 0.1, clip=1e9)
    for a, b in zip(
        fit(lambda x: ((one - x) ** 2).sum(1).mean(), [one], [[items]] * 4, pace),
        fit(lambda x: ((parted - x) ** 2).sum(1).mean(), [parted],
            [[Part(items[:5], 5 / 7), Part(None, 0.0), Part(items[5:], 2 / 7)]] * 4, pace),
        strict=True,
    ):  # fmt: skip
        assert a.loss == pytest.approx(b.loss, rel=1e-6)
    assert torch.allclose(one, parted, atol=1e-6)


# --------------------------------------------------------------------------------------------------------------- going on


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd", "rmsprop", "muon"])
@pytest.mark.parametrize("stop", [1, 4, 5, 8])
def test_a_run_that_goes_on_is_the_run_that_was_not_stopped(name, stop):
    """Bit for bit, with noise in the loss, an average and checks; the state passes through tensors and numbers."""
    pace = Pace(12, 0.1, optimiser=name, average=0.9, patience=3)

    def noisy(learned):
        return lambda item: ((learned - TARGET + torch.randn(3)) * item).square().sum()

    def run(learned, state, upto):
        batches = ([float(n)] for n in range(state.number + 1, 100))
        for event in fit(noisy(learned), [learned], batches, pace, every=4,
                         check=lambda: {"far": (learned - TARGET).square().sum().item()}, state=state):  # fmt: skip
            yield event
            if isinstance(event, Step) and event.number == upto:
                return

    whole = parameter()
    expected = list(run(whole, State({"p": whole}, pace, seed=3), 99))
    first = parameter()
    state = State({"p": first}, pace, seed=3)
    events = list(run(first, state, stop))
    second = nn.Parameter(first.detach().clone())
    again = State({"p": second}, pace, seed=3)
    again.load({name: t.clone() for name, t in state.tensors().items()}, state.numbers())
    torch.manual_seed(99)
    events += run(second, again, 99)
    assert events == expected
    assert torch.equal(whole, second)


def layers():
    torch.manual_seed(5)
    return nn.Sequential(nn.Embedding(30, 6), nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 12), nn.Linear(12, 1))


def test_muon_turns_matrices_between_layers_and_leaves_the_rest_to_adamw():
    """One step against a known gradient: of a matrix all its directions move alike (Jordan et al. 2024)."""
    model, plain, start = layers(), layers(), layers().state_dict()
    torch.manual_seed(1)
    wanted = {name: torch.randn_like(p) for name, p in start.items()}
    for one, name in ((model, "muon"), (plain, "adamw")):
        own = dict(one.named_parameters())

        def loss(item, own=own):
            return sum((p * wanted[name]).sum() for name, p in own.items())

        state = State(own, Pace(1, 0.01, optimiser=name), tables=[one[0].weight])
        list(fit(loss, one.parameters(), [[0]], state.pace, state=state))
    for name, p in model.named_parameters():
        if name in ("1.weight", "3.weight"):
            left, _, right = torch.linalg.svd(wanted[name], full_matrices=False)
            full = -0.01 * 0.2 * max(p.shape) ** 0.5 * left @ right
            moved = (p - start[name]).detach()
            assert (moved * full).sum() > 0.95 * moved.norm() * full.norm(), name
            assert moved.norm() == pytest.approx(float(full.norm()), rel=0.2), name
        else:
            assert torch.equal(p, plain.state_dict()[name]), name


def test_muon_goes_on_bit_for_bit():
    pace, items = Pace(12, 0.02, optimiser="muon", average=0.9, decay=0.1), torch.arange(30)

    def run(model, state, upto):
        batches = ([items[n::7]] for n in range(state.number, 99))
        told = fit(lambda item: model(item).square().mean(), model.parameters(), batches, pace, state=state)
        return [event for _, event in zip(range(upto), told, strict=False)]

    whole, first, second = layers(), layers(), layers()

    def state_of(model):
        return State(dict(model.named_parameters()), pace, seed=1, tables=[model[0].weight])

    expected = run(whole, state_of(whole), 99)
    state = state_of(first)
    events = run(first, state, 5)
    second.load_state_dict(first.state_dict())
    again = state_of(second)
    again.load({name: t.clone() for name, t in state.tensors().items()}, state.numbers())
    events += run(second, again, 99)
    assert events == expected
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True))


def test_a_state_of_something_else_is_refused():
    state = State({"p": parameter()}, Pace(3))
    list(fit(squared(state.parameters["p"]), state.parameters.values(), rounds([0], 1), Pace(3), state=state))
    for other in (State({"q": parameter()}, Pace(3)), State({"p": parameter()}, Pace(3, average=0.5))):
        with pytest.raises(RunError, match="this state is of other parameters or of another optimiser"):
            other.load(state.tensors(), state.numbers())


def test_seeds_are_mixed_well():
    assert len({mixed(a, b) for a in range(30) for b in range(30)}) == 900
    assert mixed(1, 2) != mixed(12) != mixed("12")
    assert mixed(1, "model") == 107009095783771184


def test_parameters_that_a_step_makes_infinite_are_neither_checked_nor_saved():
    """Loss and gradient are finite here, but the weights decay faster than a float can say."""
    learned, calls = nn.Parameter(torch.full((1,), 1e10)), []
    pace = Pace(9, optimiser="sgd", decay=1e30)
    run = fit(lambda _: learned.sum(), [learned], rounds([0], 1), pace, every=1, check=lambda: calls.append(1) or {})
    with pytest.raises(InputError, match="step 1 made parameters infinite: lower the learning rate"):
        list(run)
    assert not calls


# ------------------------------------------------------------------------------------------- losses from marks, with fit


class Own(nn.Module):
    """Two layers of attention that call our read."""

    def __init__(self, words: int, width: int = 16):
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.layers = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(2))
        self.head = nn.Linear(width, words)

    def forward(self, ids):
        x = self.words(ids)
        for layer in self.layers:
            q, k, v = layer(x).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
            x = x + read(q, k, v, mask=causal).mixed.transpose(1, 2).flatten(2)
        return self.head(x)


def test_marks_teach_an_own_model_where_to_look():
    torch.manual_seed(0)
    model = Own(20)
    ids = torch.randint(0, 20, (6, 9), generator=torch.Generator().manual_seed(1))
    keys = ids < 5  # the words that matter; the last word shall read them
    keys[:, 2] = True
    rows = torch.arange(9) == 8

    def loss(item):
        with watch(model) as seen:
            model(ids)
        return {path: mass_loss(reading.log_mass(keys), 0.9, rows) for path, reading in seen.items()}

    def mass():
        with torch.no_grad(), watch(model) as seen:
            model(ids)
        return min(reading.log_mass(keys).exp()[:, :, -1].mean().item() for reading in seen.values())

    before = mass()
    for _ in fit(loss, model.parameters(), rounds([0], 1), Pace(60, 0.02)):
        pass
    assert before < 0.6
    assert mass() == pytest.approx(0.9, abs=0.05)


def test_right_reasons_fine_tune_a_hugging_face_encoder():
    """A decoy word tells the class in training only; the penalty on its embeddings makes the model read the other word.

    The penalty is differentiated twice, which fused attention cannot: the model runs on its eager attention.
    """

    def batch(seed, decoy_is_right):
        draw = torch.Generator().manual_seed(seed)
        classes = torch.randint(0, 2, (48,), generator=draw)
        decoys = classes if decoy_is_right else torch.randint(0, 2, (48,), generator=draw)
        ids = torch.randint(10, 20, (48, 6), generator=draw)
        ids[:, 1], ids[:, 4] = 2 + decoys, 4 + classes
        return ids, classes

    wrong = torch.zeros(1, 6)
    wrong[:, 1] = 1
    right = {}
    for weight in (0.0, 1.0):
        torch.manual_seed(0)
        sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        sizes |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.3}
        config = transformers.BertConfig(vocab_size=20, max_position_embeddings=8, **sizes)
        model = transformers.BertForSequenceClassification._from_config(config, attn_implementation="eager")

        def loss(item, model=model, weight=weight):
            ids, classes = item
            words = model.get_input_embeddings()(ids).detach().requires_grad_()
            answer = model(inputs_embeds=words).logits.log_softmax(-1)
            return {
                "class": nn.functional.nll_loss(answer, classes),
                "reasons": weight * right_reasons(answer, words, wrong),
            }

        items = [batch(seed, True) for seed in range(4)]
        # The penalty is per unit of an embedding: embeddings that grow would escape it, so they stand still.
        learned = [p for name, p in model.named_parameters() if "word_embeddings" not in name]
        for _ in fit(loss, learned, rounds(items, 1), Pace(50, 5e-3)):
            pass
        ids, classes = batch(99, False)
        with torch.no_grad():
            right[weight] = (model(ids).logits.argmax(-1) == classes).float().mean().item()
    assert right[0.0] < 0.85
    assert right[1.0] > 0.97
