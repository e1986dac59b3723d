"""The four real models of the catalogue: outputs and weights equal their own eager attention."""

import pytest
import torch

from recuerdo.bridge import catalogue, watch
from recuerdo.bridge.run import load
from recuerdo.errors import FetchError

pytestmark = pytest.mark.models
TEXT = "The harbour was built in 1868. Its keeper for thirty years was Ysolde Marrack, a widow who kept bees."


def real(name: str):
    try:
        catalogue.get(name)
    except FetchError as error:
        pytest.skip(f"{name} is not here and cannot be fetched: {error}")
    return load(name)


def given(name: str, loaded) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    if name == "dinov2":
        return {"pixel_values": torch.randn(1, 3, 224, 224, generator=g)}
    if name == "whisper":
        ids = torch.tensor([[50257, 50362, 464, 25451]])
        return {"input_features": torch.randn(1, 80, 3000, generator=g), "decoder_input_ids": ids}
    return dict(loaded.tokenizer([TEXT, TEXT[:30]], padding=True, return_tensors="pt"))


def hidden(output) -> torch.Tensor:
    return output.logits if "logits" in output else output.last_hidden_state


def both(model, inputs) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor, list[torch.Tensor]]:
    """Outputs and weights of eager attention, and of our reads, in the order in which they were made."""
    eager = model(**inputs, output_attentions=True)
    with watch(model) as seen:
        ours = model(**inputs)
    names = ("attentions", "encoder_attentions", "decoder_attentions", "cross_attentions")
    told = [w for name in names for w in eager.get(name) or ()]
    heard = [seen[address].weights[:, :] for address in seen]
    if "decoder_attentions" in eager:  # a decoder layer reads itself, then the source
        depth = len(eager.decoder_attentions)
        encoder, decoder = heard[: -2 * depth], heard[-2 * depth :]
        heard = encoder + decoder[0::2] + decoder[1::2]
    assert [w.shape for w in told] == [w.shape for w in heard]
    return hidden(eager), told, hidden(ours), heard


def worst(a: list[torch.Tensor], b: list[torch.Tensor], rows: torch.Tensor | None) -> float:
    pairs = [(x.double() - y.double()).abs() for x, y in zip(a, b, strict=True)]
    return max((p if rows is None else p.transpose(1, 2)[rows]).max().item() for p in pairs)


@torch.no_grad()
@pytest.mark.parametrize("name", ["smollm2", "minilm", "whisper", "dinov2"])
def test_outputs_and_weights_equal_eager(name):
    loaded = real(name)
    model, inputs = loaded.model, given(name, loaded)
    rows = inputs["attention_mask"].bool() if "attention_mask" in inputs else None
    model.set_attn_implementation("eager")
    eager, told, ours, heard = both(model, inputs)
    kept = slice(None) if rows is None else rows
    assert (eager[kept] - ours[kept]).abs().max() <= 1e-5 * max(1.0, eager.abs().max().item())
    model.double()
    exact = {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}
    _, told64, _, heard64 = both(model, exact)
    assert worst(told64, heard64, rows) <= 1e-5  # the two ways are one
    # In float32 the rounding of DINOv2's sharp third layer alone moves eager's own weights by 2e-5.
    assert worst(heard, told, rows) <= max(1e-5, 2 * worst(told, told64, rows))
