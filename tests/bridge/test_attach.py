"""Every family: outputs and weights equal the model's own eager attention, in forward and in generate, with padding."""

import sys
from pathlib import Path

import pytest
import torch
import transformers as tf

from recuerdo.bridge import attach, watch
from recuerdo.errors import ModelError, NothingHeard, ReadError

sys.path.insert(0, str(Path(__file__).parent))
from families import CAUSAL, FAMILIES, PAIRS, SOUND, build, inputs, padded, tokens

TOLERANCE = 1e-5


def hidden(output) -> torch.Tensor:
    return output.logits if "logits" in output else output.last_hidden_state


@torch.no_grad()
@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_outputs_and_weights_equal_eager(name, pad):
    model, given = build(name), inputs(name, pad)
    model.set_attn_implementation("eager")
    eager = model(**given, output_attentions=True)
    with watch(model) as seen:
        ours = model(**given)
    scale = hidden(eager).abs().max().item()
    keep = given["attention_mask"].bool() if pad and "attention_mask" in given and name not in PAIRS else slice(None)
    assert (hidden(ours)[keep] - hidden(eager)[keep]).abs().max() <= TOLERANCE * max(1.0, scale)
    told = {"self": eager.get("attentions") or eager.get("encoder_attentions") or ()}
    told |= {"decoder": eager.get("decoder_attentions") or (), "cross": eager.get("cross_attentions") or ()}
    expected = [w for group in told.values() for w in group]
    assert len(seen) == len(expected) > 0
    assert not seen.silent
    unmatched = list(expected)
    for address in seen:
        weights = seen[address].weights[:, :]
        at = [i for i, w in enumerate(unmatched) if w.shape == weights.shape and (w - weights).abs().max() <= TOLERANCE]
        assert at, f"the weights at {address} equal none of the model's own"
        unmatched.pop(at[0])
    assert not unmatched


@torch.no_grad()
@pytest.mark.parametrize("side", ["none", "left"])
@pytest.mark.parametrize("name", [*CAUSAL, *PAIRS, *SOUND])
def test_generate_with_cache_equals_eager_and_every_step_is_kept(name, side):
    model = build(name)
    given = padded("left") if side == "left" and name in CAUSAL else inputs(name)
    given.pop("decoder_input_ids", None)
    if name not in SOUND and "attention_mask" not in given:
        given["attention_mask"] = torch.ones_like(given["input_ids"])
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "return_dict_in_generate": True,
               "output_logits": True}  # fmt: skip
    model.set_attn_implementation("eager")
    eager = model.generate(**given, **options, output_attentions=True)
    with watch(model) as seen:
        ours = model.generate(**given, **options)
    assert torch.equal(eager.sequences, ours.sequences)
    for a, b in zip(eager.logits, ours.logits, strict=True):
        assert (a - b).abs().max() <= 2 * TOLERANCE * max(1.0, a.abs().max().item())
    own = [p for p in seen.paths if "encoder." not in p or "decoder" in p]
    for path in own:
        assert len(seen.steps(path)) in (6, 1), path  # 1: an encoder inside a text-to-text model
    attentions = eager.get("attentions") or eager.decoder_attentions
    decoder = [p for p in own if len(seen.steps(p)) == 6 and "cross" not in p.lower() and "encdec" not in p.lower()
               and "encoder_attn" not in p]  # fmt: skip
    real = given.get("attention_mask", torch.ones(2, 1)).bool()
    for layer, path in enumerate(decoder):
        for step in range(6):
            want, got = attentions[step][layer], seen[f"{path}@{step}"].weights[:, :]
            if want.shape[-1] != got.shape[-1]:  # a sliding cache of fixed size: compare what exists
                want = want[..., -got.shape[-1] :]
            if step == 0 and side == "left" and name in CAUSAL:  # rows of padding read nothing here, anything there
                want, got = (w.transpose(1, 2)[real] for w in (want, got))
            assert (want - got).abs().max() <= TOLERANCE


def test_a_model_outside_the_interface_is_an_error_that_says_so():
    model = tf.BloomForCausalLM(tf.BloomConfig(vocab_size=99, hidden_size=32, n_layer=2, n_head=4)).eval()
    with (
        pytest.raises(NothingHeard, match="BloomForCausalLM was watched and none of its attention was heard"),
        watch(model),
    ):
        model(input_ids=tokens())


def state(model) -> tuple:
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    return (
        type(model),
        hooks,
        model.config._attn_implementation,
        [type(m) for m in model.modules()],
        sorted(vars(model)),
    )


@pytest.mark.parametrize("leave", ["plain", "nested", "exception"])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_nothing_is_left_behind(leave, implementation):
    model = build("llama")
    model.set_attn_implementation(implementation)
    before, outputs = state(model), model(input_ids=tokens()).logits
    if leave == "plain":
        with watch(model):
            model(input_ids=tokens())
    elif leave == "nested":
        with watch(model) as outer:
            with watch(model) as inner, attach(model):
                model(input_ids=tokens())
            model(input_ids=tokens())
        assert len(outer) == 2 * len(inner)
    else:
        with pytest.raises(ZeroDivisionError), watch(model):
            model(input_ids=tokens())
            raise ZeroDivisionError
    assert state(model) == before
    assert torch.equal(model(input_ids=tokens()).logits, outputs)


def test_a_long_generation_keeps_one_cache():
    model = build("llama")
    with torch.no_grad(), watch(model) as seen:
        model.generate(input_ids=tokens(), attention_mask=torch.ones(2, 12), max_new_tokens=20, min_new_tokens=20)
    reads = seen.steps("model.layers.0.self_attn")
    assert len({r.pairing.key.untyped_storage().data_ptr() for r in reads}) == 1
    assert [r.shape[3] for r in reads] == [12, *range(13, 32)]


def test_training_reaches_the_weights_through_the_read():
    model = build("llama")
    model.zero_grad()
    with watch(model) as seen:
        model(input_ids=tokens())
        seen["model.layers.1.self_attn"].mass(
            torch.ones(12, 1)[:6].repeat(2, 1) * torch.arange(12)[:, None]
        ).sum().backward()
    assert model.model.layers[0].self_attn.q_proj.weight.grad.abs().sum() > 0


def test_errors_name_the_way_out():
    with pytest.raises(ModelError, match="Linear is not a Transformers model"), attach(torch.nn.Linear(2, 2)):
        pass
    model = build("llama").train()
    model.config.attention_dropout = 0.5
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    with pytest.raises(ReadError, match=r"call model.eval\(\)"), watch(model):
        model(input_ids=tokens())
