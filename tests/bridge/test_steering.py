"""Steered Hugging Face models equal their own eager attention with the dense bend in it: every family, forward, generate.

The reference is the model's own eager function; here its weights are bent as the definition says, N x N, and the position
of every key is worked out from what the model was given, not from its reads.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import transformers as tf
from torch import Tensor

from recuerdo.bridge import attach
from recuerdo.bridge.reads import reads_of
from recuerdo.errors import MarkError, NothingHeard, ReadError
from recuerdo.read import Address, bending, watch
from recuerdo.steer import Mark, boost, damp, mute, share
from recuerdo.steer.rule import Marked, Rule

sys.path.insert(0, str(Path(__file__).parent))
from families import CAUSAL, ENCODERS, FAMILIES, PAIRS, PIXELS, SOUND, build, inputs, padded, tokens

TOLERANCE = 1e-5
HERE = (0, 1)  # where a mark is on the text is of no matter here: its keys are given beside it
WINDOWED = ("mistral, window", "gemma2", "gemma3")
SOURCE, TARGET = frozenset({"encoder", "cross"}), frozenset({"self"})
LENGTH = {"vit": 17, "dinov2": 17, "clip vision": 17}


def keys(n: int, *spans: tuple[int, int]) -> Tensor:
    marked = torch.zeros(n, dtype=torch.bool)
    for start, end in spans:
        marked[start:end] = True
    return marked


def wants(name: str, action: str, n: int = 12) -> list[Marked]:
    """One mark or several, on the source of a pair and on what is written."""
    n = LENGTH.get(name, n)
    made = {
        "share": [(share(HERE, 0.3), (3, 6))],
        "boost": [(boost(HERE, 8.0), (3, 6))],
        "mute": [(mute(HERE), (5, 7))],
        "several": [(share(HERE, 0.4), (4, 6)), (damp(HERE, 0.1), (7, 8)), (mute(HERE), (9, 10))],
    }[action]
    pair = name in PAIRS or name in SOUND
    marked = [Marked(mark, keys(20 if name in SOUND else n, span), SOURCE if pair else TARGET) for mark, span in made]
    return marked + ([Marked(boost(HERE, 5.0), keys(7, (1, 3)), TARGET)] if pair else [])


# ------------------------------------------------------------------------------------------------------ the reference


class Given(NamedTuple):
    """What the running forward pass was given: tokens so far (with these) and the step of a generation."""

    end: int
    step: int


def bent(weights: Tensor, wishes: list[tuple[Mark, Tensor, Tensor]]) -> Tensor:
    """Weights [b, h, q, k] with the shares that the marks ask for: (mark, keys [b, k], where it holds [h, q])."""
    before = weights.double()
    rest = before
    parts, shares, fixed = [], [], []
    for mark, marked, here in wishes:
        part = before * marked[:, None, None]
        rest, mass = rest - part, part.sum(-1)
        share_of = mark.action in ("share", "mute")
        parts.append(part)
        fixed.append(here & (mass > 0) & share_of)
        factor = torch.where(here, 1.0 if share_of else mark.amount, 1.0).double()
        shares.append(torch.where(fixed[-1], mark.amount or 0.0, mass * factor))
    parts.append(rest)
    shares.append(rest.sum(-1))
    fixed.append(torch.zeros_like(shares[-1], dtype=torch.bool))
    wanted, is_fixed = torch.stack(shares), torch.stack(fixed)
    given, free = (wanted * is_fixed).sum(0), (wanted * ~is_fixed).sum(0)
    divided = torch.where(is_fixed, wanted, wanted * (1 - given) / free.clamp_min(1e-300))
    only = torch.where(is_fixed, wanted / given.clamp_min(1e-300), 0.0)
    after = torch.where(free > 0, divided, only)
    after = torch.where((free <= 0) & (given <= 0), torch.stack([part.sum(-1) for part in parts]), after)
    return sum(p / p.sum(-1, keepdim=True).clamp_min(1e-300) * a[..., None] for p, a in zip(parts, after, strict=True))


@contextmanager
def dense(model: torch.nn.Module, marked: list[Marked]) -> Iterator[None]:
    """Inside the block the model's own eager attention is bent."""
    names = {id(module): name for name, module in model.named_modules()}
    sources = {sys.modules[type(module).__module__] for module in model.modules()}
    sources = {source for source in sources if hasattr(source, "eager_attention_forward")}
    own = {source: source.eager_attention_forward for source in sources}
    now, pair = [Given(0, 0)], model.config.is_encoder_decoder
    implementation = model.config._attn_implementation

    def look(module, args, told) -> None:
        past = told.get("cache")
        ids = told.get("decoder_input_ids" if pair else "input_ids")
        length = 0 if past is None else int(past.get_seq_length())
        now[0] = Given(length + (0 if ids is None else ids.shape[1]), now[0].step + 1 if length else 0)

    def wishes(name: str, query: Tensor, key: Tensor) -> list[tuple[Mark, Tensor, Tensor]]:
        role = "cross" if "encoder_attn" in name or "EncDecAttention" in name else "self"
        role = "encoder" if pair and "encoder." in name.replace("decoder.", "") and role == "self" else role
        layer = int(next(part for part in name.split(".") if part.isdigit()))
        (b, h, q, _), k = query.shape, key.shape[2]
        end = q if role == "encoder" or now[0].end == 0 else now[0].end
        first = max(end - k, 0) if role == "self" else 0
        found = []
        for one in marked:
            scope, (start, stop) = one.mark.scope, one.mark.scope.steps or (None, None)
            step = 0 if role == "encoder" else now[0].step
            if role not in one.roles or scope.role not in (None, role) or not (start or 0) <= step < (stop or 99):
                continue
            here = torch.ones(h, q, dtype=torch.bool)
            if scope.layers is not None:
                here &= layer in [x % 2 for x in scope.layers]
            if scope.heads is not None:
                here &= torch.tensor([(layer, head) in scope.heads for head in range(h)])[:, None]
            if scope.queries is not None:
                at, (start, stop) = torch.arange(end - q, end), scope.queries
                here &= (at >= (start or 0)) & (at < (stop or 10**9))
            columns = torch.zeros(b, first + k, dtype=torch.bool)
            whole = one.keys if one.keys.dim() == 1 else one.keys.repeat_interleave(b // len(one.keys), 0)
            columns[:, : whole.shape[-1]] = whole[..., : first + k]
            found.append((one.mark, columns[:, first:], here))
        return found

    def eager(source):
        def attend(module, query, key, value, attention_mask, *args, **told):
            out, weights = own[source](module, query, key, value, attention_mask, *args, **told)
            found = wishes(names[id(module)], query, key)
            if not found:
                return out, weights
            weights = bent(weights, found)
            value = value.double().repeat_interleave(query.shape[1] // value.shape[1], 1)
            return (weights @ value).to(query.dtype).transpose(1, 2).contiguous(), weights.to(query.dtype)

        return attend

    handle = model.register_forward_pre_hook(look, with_kwargs=True)
    model.set_attn_implementation("eager")
    for source in sources:
        source.eager_attention_forward = eager(source)
    try:
        yield
    finally:
        handle.remove()
        model.set_attn_implementation(implementation)
        for source, function in own.items():
            source.eager_attention_forward = function


@contextmanager
def steered(model: torch.nn.Module, marked: list[Marked]) -> Iterator[Rule]:
    rule = Rule(marked, reads_of(model))
    with attach(model), bending(model, rule):
        yield rule


def hidden(output) -> Tensor:
    return output.logits if "logits" in output else output.last_hidden_state


def near(a: Tensor, b: Tensor, tolerance: float = TOLERANCE) -> None:
    assert a.shape == b.shape
    assert (a - b).abs().max() <= tolerance * max(1.0, b.abs().max().item())


# --------------------------------------------------------------------------------------------------------- every family


@torch.no_grad()
@pytest.mark.parametrize("action", ["boost", "several"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_forward_pass_equals_the_dense_reference(name, action):
    pad = action == "several" and name not in PIXELS and name not in SOUND
    model, given, marked = build(name), inputs(name, pad), wants(name, action)
    with dense(model, marked):
        want = hidden(model(**given))
    with steered(model, marked) as rule:
        got = hidden(model(**given))
    keep = given["attention_mask"].bool() if pad and name not in PAIRS else slice(None)
    # T5 does not scale its scores: here they are so sharp that float32 itself is off by as much in the reference.
    near(got[keep], want[keep], 4 * TOLERANCE if name == "t5" else TOLERANCE)
    assert (want[keep] - hidden(model(**given))[keep]).abs().max() > 100 * TOLERANCE
    layers = 4 if name in PAIRS or name in SOUND else 2
    assert rule.bent == [layers] * (len(marked) - (layers == 4)) + [2] * (layers == 4)


OPTIONS = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "return_dict_in_generate": True,
           "output_logits": True}  # fmt: skip


def prompt(name: str, side: str = "none") -> dict[str, Tensor]:
    given = padded("left") if side == "left" and name in CAUSAL else inputs(name)
    given.pop("decoder_input_ids", None)
    if name not in SOUND and "attention_mask" not in given:
        given["attention_mask"] = torch.ones_like(given["input_ids"])
    return given


def same_generation(model, given, marked, **options) -> Rule:
    with dense(model, marked):
        want = model.generate(**given, **OPTIONS | options)
    with steered(model, marked) as rule:
        got = model.generate(**given, **OPTIONS | options)
    assert torch.equal(want.sequences, got.sequences)
    for a, b in zip(got.logits, want.logits, strict=True):
        near(a, b, 2 * TOLERANCE)
    if "sequences_scores" in want:
        near(got.sequences_scores, want.sequences_scores)
    return rule


@torch.no_grad()
@pytest.mark.parametrize(("action", "side"), [("boost", "none"), ("several", "left")])
@pytest.mark.parametrize("name", [*CAUSAL, *PAIRS, *SOUND])
def test_generate_with_a_cache_equals_the_dense_reference(name, action, side):
    model, given, marked = build(name), prompt(name, side), wants(name, action)
    rule = same_generation(model, given, marked)
    if name in CAUSAL and name not in WINDOWED:
        assert rule.bent == [12] * len(marked)


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama", "gemma2", "bart"])
def test_beams_take_the_marks_of_their_example(name):
    """Two examples with marks of their own, three beams each."""
    mine = torch.stack([keys(12, (3, 6)), keys(12, (7, 9))])
    marked = [Marked(share(HERE, 0.5), mine, SOURCE if name == "bart" else TARGET)]
    same_generation(build(name), prompt(name, "left"), marked, num_beams=3)


@torch.no_grad()
@pytest.mark.parametrize(("cache", "prefill"), [("static", None), ("static", 5), ("dynamic", 5)])
@pytest.mark.parametrize("name", ["llama", "mistral, window", "gemma2"])
def test_caches_that_are_allocated_beforehand_or_slide(name, cache, prefill):
    """A prompt twice as long as the window, and one that only grows beyond it; whole or in chunks."""
    model = build(name)
    marked = [Marked(share(HERE, 0.4), keys(16, (3, 6))), Marked(boost(HERE, 6.0), keys(16, (8, 10), (13, 15)))]
    options = {"cache_implementation": cache, "prefill_chunk_size": prefill}
    for length in (12, 4):
        ids = tokens(2, 12)[:, :length]
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        same_generation(model, given, marked, **options)


@torch.no_grad()
@pytest.mark.parametrize("cache", ["static", "dynamic"])
@pytest.mark.parametrize("name", ["llama", "gemma2", "mistral, window", "bart"])
def test_generations_in_one_block_begin_anew(name, cache):
    """Whatever the one before has left: a shorter prompt, one within the window, a longer one."""
    model, marked = build(name), [Marked(share(HERE, 0.4, steps=(0, 3)), keys(12, (2, 5)), SOURCE | TARGET)]
    given = [{k: v[:, :n] for k, v in prompt(name).items()} for n in (12, 9, 4, 4, 5)]
    options = OPTIONS | {"cache_implementation": cache, "max_new_tokens": 4, "min_new_tokens": 4}
    with dense(model, marked):
        want = [model.generate(**x, **options) for x in given]
    with steered(model, marked):
        got = [model.generate(**x, **options) for x in given]
    for a, b in zip(got, want, strict=True):
        assert torch.equal(a.sequences, b.sequences)
        for x, y in zip(a.logits, b.logits, strict=True):
            near(x, y, 2 * TOLERANCE)


@torch.no_grad()
@pytest.mark.parametrize("cache", ["static", "dynamic"])
@pytest.mark.parametrize("steps", [(0, 1), (1, 3)])
@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_a_prompt_of_one_token_is_step_0(name, steps, cache):
    given = {"input_ids": tokens()[:, :1], "attention_mask": torch.ones(2, 1, dtype=torch.long)}
    model, marked = build(name), [Marked(boost(HERE, 9.0, steps=steps), keys(2, (0, 1)))]
    rule = same_generation(model, given, marked, cache_implementation=cache)
    assert rule.bent == [2 * (steps[1] - steps[0])]


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama", "gpt2", "bart", *WINDOWED])
@pytest.mark.parametrize("new", [1, 3])
def test_it_goes_on_from_a_cache_that_was_filled_outside(name, new):
    """The prompt was read before the block, unsteered; its keys are steered all the same."""
    model, ids, full = build(name), tokens(), 3 if name in WINDOWED else 8  # a window that is not full forgets nothing
    whole = {"decoder_input_ids": ids, "input_ids": ids} if name == "bart" else {"input_ids": ids}
    key = next(iter(whole))
    marked = [Marked(share(HERE, 0.4), keys(12, (1, 3)), SOURCE | TARGET)]
    caches = [model(**whole | {key: ids[:, :full]}, use_cache=True).cache for _ in range(2)]
    rest = whole | {key: ids[:, full : full + new]}
    with dense(model, marked):
        want = model(**rest, cache=caches[0])
    with steered(model, marked) as rule:
        got = model(**rest, cache=caches[1])
    near(got.logits, want.logits)
    assert rule.bent == [6 if name == "bart" else 2]


@torch.no_grad()
@pytest.mark.parametrize("cache", ["static", "dynamic"])
@pytest.mark.parametrize("name", WINDOWED)
def test_a_window_that_was_filled_outside_is_an_error(name, cache):
    """What it has forgotten cannot be told from it: no mark may land on other keys than those that were marked."""
    model, ids = build(name), tokens()
    made = tf.StaticCache(model.config, max_cache_len=20) if cache == "static" else tf.DynamicCache(config=model.config)
    past = model(input_ids=ids[:, :10], cache=made, use_cache=True).cache
    with (
        pytest.raises(MarkError) as caught,
        steered(model, [Marked(share(HERE, 0.4), keys(12, (8, 9)))]),
    ):
        model(input_ids=ids[:, 10:11], cache=past)
    assert str(caught.value) == (
        "model.layers.0.self_attn goes on from a cache that keeps a window of the keys and was filled outside of the "
        "block, so nobody knows where the marked keys are: let the model read the whole text inside the block"
    )


# ------------------------------------------------------------------------------------------------------------- the scope


SCOPES = {
    "steps": {"steps": (2, 4)},
    "the prompt only": {"steps": (0, 1)},
    "from the first token on": {"steps": (1, None)},
    "queries": {"queries": (5, 8)},
    "queries to come": {"queries": (13, 15)},
    "layers": {"layers": [1]},
    "the last layer": {"layers": [-1]},
    "heads": {"heads": [(0, 1), (1, 3)]},
    "heads of one layer, in some steps": {"heads": [(1, 0), (1, 2)], "steps": (0, 3), "queries": (4, None)},
}


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama", "gemma2"])
@pytest.mark.parametrize("scope", SCOPES)
def test_a_scope_acts_where_it_says(scope, name):
    same_generation(build(name), prompt(name, "left"), [Marked(share(HERE, 0.6, **SCOPES[scope]), keys(12, (4, 6)))])


@torch.no_grad()
@pytest.mark.parametrize("name", ["bart", "t5", "whisper"])
@pytest.mark.parametrize("scope", [{"role": "cross", "steps": (1, 3)}, {"role": "encoder", "layers": [1]},
                                   {"role": "self", "queries": (2, 4)}, {"role": "cross", "queries": (2, 4)}])  # fmt: skip
def test_a_role_acts_where_it_says(scope, name):
    model, marked = build(name), [Marked(share(HERE, 0.6, **scope), keys(8, (0, 3)))]
    with dense(model, marked):
        want = model.generate(**prompt(name), **OPTIONS)
    with watch_all(model, marked) as (_, seen):
        got = model.generate(**prompt(name), **OPTIONS)
    assert torch.equal(got.sequences, want.sequences)
    for a, b in zip(got.logits, want.logits, strict=True):
        near(a, b, 2 * TOLERANCE)
    reads = reads_of(model)
    start, end = scope.get("steps", scope.get("queries", (0, 99)))
    for address, reading in seen.items():
        path, step, _ = Address.parse(address)
        at = reads.role(path) == scope["role"] and start <= (step or 0) < end
        at = at and reads.layer(path) in scope.get("layers", [0, 1])
        assert (reading.bent is not None) == at, address


@contextmanager
def watch_all(model, marked):
    with attach(model), bending(model, Rule(marked, reads_of(model))), watch(model) as seen:
        yield model, seen


@torch.no_grad()
def test_addresses_rows_and_heads_of_a_scope():
    """Exactly these weights are other than unsteered, and the share is what was asked for."""
    model, given = build("llama"), prompt("llama")
    marked = [Marked(share(HERE, 0.25, heads=[(0, 2)], queries=(6, 9)), keys(12, (3, 5)))]
    with attach(model), watch(model) as before:
        model(**given)
    with watch_all(model, marked) as (_, seen):
        model(**given)
    path = "model.layers.0.self_attn"
    assert [p for p in seen if seen[p].bent is not None] == [path]
    old, new = before[path].weights[:, :], seen[path].weights[:, :]
    changed = ((old - new).abs() > 1e-6).any(-1)
    assert changed[:, 2, 6:9].all()
    changed[:, 2, 6:9] = False
    assert not changed.any()
    assert (new[:, 2, 6:9, 3:5].sum(-1) - 0.25).abs().max() <= 1e-6


@torch.no_grad()
@pytest.mark.parametrize("name", [*CAUSAL, *ENCODERS])
def test_every_row_that_can_gives_the_share(name):
    model, given = build(name), inputs(name, True)
    with watch_all(model, [Marked(share(HERE, 0.3), keys(12, (3, 6)))]) as (_, seen):
        model(**given)
    real = given["attention_mask"].bool()
    for reading in seen.values():
        assert reading.bent is not None
        weights = reading.weights[:, :]
        marked = weights[..., 3:6].sum(-1)
        able = (marked > 0) & ((weights[..., :3].sum(-1) + weights[..., 6:].sum(-1)) > 0) & real[:, None]
        assert able.any()
        assert (marked[able] - 0.3).abs().max() <= TOLERANCE
        assert (weights.sum(-1).transpose(1, 2)[real] - 1).abs().max() <= TOLERANCE


# --------------------------------------------------------------------------------------------------------------- the undo


@torch.no_grad()
@pytest.mark.parametrize("leave", ["plain", "exception", "exception in the model", "contradiction"])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_leaving_the_block_restores_the_model_bit_for_bit(leave, implementation):
    model, given = build("llama"), prompt("llama")
    model.set_attn_implementation(implementation)
    before, hooks = model(**given).logits, [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    marked = wants("llama", "share")
    if leave == "plain":
        with steered(model, marked):
            assert not torch.equal(model(**given).logits, before)
    elif leave == "exception":
        with pytest.raises(ZeroDivisionError), steered(model, marked):
            model(**given)
            raise ZeroDivisionError
    elif leave == "exception in the model":
        with pytest.raises(IndexError), steered(model, marked):
            model(**given)
            model(input_ids=torch.tensor([[1000]]))
    else:
        with pytest.raises(ReadError, match="key 3 is held by two bends"), steered(model, [*marked, *marked]):
            model(**given)
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    assert model.config._attn_implementation == implementation
    assert torch.equal(model(**given).logits, before)
    assert torch.equal(model.generate(**given, max_new_tokens=3), build("llama").generate(**given, max_new_tokens=3))


@torch.no_grad()
@pytest.mark.parametrize("inside", [False, True])
def test_who_watches_hears_the_bent_reads(inside):
    """Whichever block was opened first; and what was heard makes the output."""
    model, given, rule = build("llama"), prompt("llama"), Rule(wants("llama", "share"), reads_of(build("llama")))
    if inside:
        with attach(model), bending(model, rule), watch(model) as seen:
            model.generate(**given, **OPTIONS)
    else:
        with attach(model), watch(model) as seen, bending(model, rule):
            model.generate(**given, **OPTIONS)
    assert len(seen) == 12
    for reading in seen.values():
        assert reading.bent is not None
        assert (reading.bent.after[:, :, -1] - 0.3).abs().max() <= 1e-6
        assert (reading.mass(keys(reading.shape[3], (3, 6)))[:, :, -1] - 0.3).abs().max() <= TOLERANCE
        want = reading.weights[:, :] @ reading.value.repeat_interleave(2, 1)
        near(reading.mixed, want)


@torch.no_grad()
def test_blocks_of_two_rules_add_up():
    model, given = build("llama"), prompt("llama")
    first, second = Marked(share(HERE, 0.3), keys(12, (3, 6))), Marked(boost(HERE, 4.0), keys(12, (8, 9)))
    reads = reads_of(model)
    with attach(model), bending(model, Rule([first], reads)), bending(model, Rule([second], reads)):
        apart = model(**given).logits
    with steered(model, [first, second]):
        assert torch.equal(model(**given).logits, apart)


def test_steering_reaches_the_weights_in_training():
    """A fine-tuning step through bent reads: the gradients of the dense reference."""
    model, given, marked = build("llama"), prompt("llama"), wants("llama", "several")
    found = []
    for block in (dense, steered):
        model.zero_grad()
        with block(model, marked):
            model(**given, labels=given["input_ids"]).loss.backward()
        found.append({n: p.grad.clone() for n, p in model.named_parameters()})
    for name, grad in found[0].items():
        near(found[1][name], grad, 5 * TOLERANCE)


# ----------------------------------------------------------------------------------------------------------------- errors


@torch.no_grad()
def test_errors_name_the_way_out():
    model, given = build("llama"), prompt("llama")
    with pytest.raises(NothingHeard) as caught, bending(model, Rule([], reads_of(model))):
        model(**given)  # not attached
    assert str(caught.value).startswith(
        "LlamaForCausalLM was steered and none of its attention was heard: run it inside"
    )
    for scope, words in (
        ({"layers": [2]}, "there is no layer 2: this model has layers 0 to 1"),
        ({"layers": [-3]}, "there is no layer -3: this model has layers 0 to 1"),
        ({"heads": [(5, 0)]}, "there is no layer 5: this model has layers 0 to 1"),
        ({"heads": [(0, 4)]}, "there is no head 4: this model has heads 0 to 3"),
        ({"head_set": "copying"}, "the head set 'copying' was not looked up: pass the profile that holds it"),
    ):
        with pytest.raises(MarkError) as caught:
            Rule([Marked(boost(HERE, 2.0, **scope), keys(12, (1, 2)))], reads_of(model))
        assert str(caught.value) == words
    three = [Marked(mute(HERE), keys(12, (1, 2)).expand(3, 12))]
    with pytest.raises(MarkError, match="^the marks are on 3 examples, and the model reads 2$"), steered(model, three):
        model(**given)
