"""The Transformer against torch's own layers; said piece by piece it is what it is all at once."""

import pytest
import torch
from torch import nn

from recuerdo.errors import InputError
from recuerdo.models.transformer import Transformer
from recuerdo.nn.decoding import beam, greedy, stream
from recuerdo.nn.places import sinusoids
from recuerdo.read import watch

SOURCE = torch.tensor([[5, 6, 7, 8, 2], [9, 5, 2, 0, 0]])
TOLD = torch.tensor([[1, 10, 11, 12], [1, 13, 0, 0]])


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Transformer(20, width=16, heads=4, inner=24, layers=2, dropout=0.0).eval()


def copied(layer, theirs):
    """The parameters of one of our layers in torch's."""
    looks = [(layer.own, theirs.self_attn)]
    norms = [(layer.norm_own, theirs.norm1)]
    if hasattr(layer, "cross"):
        looks.append((layer.cross, theirs.multihead_attn))
        norms += [(layer.norm_cross, theirs.norm2), (layer.norm_think, theirs.norm3)]
    else:
        norms.append((layer.norm_think, theirs.norm2))
    pairs = norms + [(layer.think[0], theirs.linear1), (layer.think[3], theirs.linear2)]
    with torch.no_grad():
        for own, other in looks:
            other.in_proj_weight.copy_(torch.cat([own.query.weight, own.pair.weight]))
            other.in_proj_bias.copy_(torch.cat([own.query.bias, own.pair.bias]))
            pairs.append((own.out, other.out_proj))
        for own, other in pairs:
            other.weight.copy_(own.weight)
            other.bias.copy_(own.bias)
    return theirs.eval()


def test_the_same_as_the_layers_of_torch(model):
    for part in (*model.encoder, *model.decoder):
        for module in part.modules():
            if isinstance(module, nn.LayerNorm):  # as they start, norms would all be alike
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
    sizes = {"dim_feedforward": 24, "dropout": 0.0, "batch_first": True, "norm_first": True}
    gone, future = SOURCE == 0, nn.Transformer.generate_square_subsequent_mask(4)
    x = model.piece(SOURCE) * 4 + sinusoids(0, 5, 16, torch.empty(0))
    for layer in model.encoder:
        x = copied(layer, nn.TransformerEncoderLayer(16, 4, **sizes))(x, src_key_padding_mask=gone)
    memory = model.norm_source(x)
    y = model.piece(TOLD) * 4 + sinusoids(0, 4, 16, torch.empty(0))
    for layer in model.decoder:
        theirs = copied(layer, nn.TransformerDecoderLayer(16, 4, **sizes))
        y = theirs(y, memory, tgt_mask=future, memory_key_padding_mask=gone)
    right = model.norm_told(y) @ model.piece.weight.T
    torch.testing.assert_close(model(SOURCE, TOLD), right[TOLD > 0], atol=1e-5, rtol=1e-5)


def test_places_are_those_of_the_paper_at_any_distance():
    table = sinusoids(0, 50, 6, torch.empty(0))
    assert table[0].tolist() == [0, 1, 0, 1, 0, 1]
    for i in range(3):
        speed = 10000 ** (-2 * i / 6)
        assert table[7, 2 * i] == pytest.approx(torch.tensor(7 * speed).sin().item(), abs=1e-6)
        assert table[7, 2 * i + 1] == pytest.approx(torch.tensor(7 * speed).cos().item(), abs=1e-6)
    torch.testing.assert_close(sinusoids(40, 3, 6, torch.empty(0)), table[40:43])
    assert sinusoids(0, 2, 5, torch.empty(0)).shape == (2, 5)


def test_said_piece_by_piece_it_is_the_same(model):
    with torch.no_grad():
        whole, said = model(SOURCE, TOLD), model.begin(SOURCE)
        each = torch.stack([model.step(TOLD[:, i], said) for i in range(4)], 1)
        torch.testing.assert_close(each[TOLD > 0], whole, atol=1e-5, rtol=1e-5)
        said = model.begin(SOURCE)
        model.step(TOLD[:, 0], said)
        told = model.step(TOLD[[1, 0, 1], 1], said.take(torch.tensor([1, 0, 1])))
        torch.testing.assert_close(told, each[[1, 0, 1], 1], atol=1e-5, rtol=1e-5)


def test_ways_of_a_sentence_share_its_source(model):
    with torch.no_grad():
        whole = model(SOURCE, TOLD)  # 4 rows of the first sentence, then 2 of the second
        said = model.begin(SOURCE).ways(3)
        with watch(model) as seen:
            model.step(TOLD[[0, 0, 0, 1, 1, 1], 0], said)
        assert seen["decoder.0.cross"].shape == (2, 4, 3, 5)
        said = said.reorder(torch.tensor([2, 0, 1, 3, 5, 5]))
        told = model.step(TOLD[[0, 0, 0, 1, 1, 1], 1], said)
        torch.testing.assert_close(told, whole[[1, 1, 1, 5, 5, 5]], atol=1e-5, rtol=1e-5)
        left = said.take(torch.tensor([2, 1, 0]))
        torch.testing.assert_close(model.step(TOLD[[0, 0, 0], 2], left), whole[[2, 2, 2]], atol=1e-5, rtol=1e-5)


def test_who_watches_a_beam_sees_later_what_was_read_then(model):
    then = []
    with watch(model, each=lambda _, reading: then.append(reading.weights[:, :])) as seen:
        lines = beam(model, SOURCE, longest=12, width=3)
    assert len(seen.steps("decoder.1.own")) > 4
    assert len(lines[0]) == 3
    count = dict.fromkeys(seen.paths, 0)
    heard = iter(then)
    order = [path for path in seen.paths if path.startswith("decoder")]
    for path in seen.paths[: len(seen.paths) - len(order)]:
        torch.testing.assert_close(seen[path].weights[:, :], next(heard))
    for weights in heard:
        path = order[0]
        torch.testing.assert_close(seen.steps(path)[count[path]].weights[:, :], weights)
        count[path], order = count[path] + 1, [*order[1:], path]


@pytest.mark.parametrize("say", [greedy, beam])
def test_what_was_read_when_it_spoke_can_be_learned_from_where_somebody_watched(model, say):
    with watch(model) as seen:
        say(model, SOURCE, longest=6)
    factor = torch.ones((), requires_grad=True)
    seen["decoder.1.cross"].weights[:, :].mul(factor).square().sum().backward()
    assert factor.grad > 0


def test_a_model_that_has_spoken_at_length_can_be_trained(model):
    with torch.no_grad():
        model.piece.weight[2] = -model.norm_told.weight  # it finds no end
    assert len(greedy(model, SOURCE[:1], longest=300)[0].pieces) > 280
    model(SOURCE, TOLD).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.places.mul_(1)


def test_a_stream_goes_on_where_somebody_begins_to_watch(model):
    whole = list(stream(model, SOURCE[:1], longest=9))
    some = stream(model, SOURCE[:1], longest=9)
    first = next(some)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    with watch(model):
        assert [first, *some] == whole


def test_it_knows_places_beyond_those_it_has_made(model):
    many = torch.arange(600)[None] % 17 + 3
    with torch.no_grad():
        long, short = model(many, many), model(many[:, :20], many)
    assert long.isfinite().all()
    assert not torch.allclose(long, short)
    torch.testing.assert_close(model.places[580:600], sinusoids(580, 20, 16, torch.empty(0)))


def test_padding_and_what_comes_later_change_nothing(model):
    with torch.no_grad():
        whole = model(SOURCE, TOLD)
        alone = model(SOURCE[1:, :3], TOLD[1:, :2])
        torch.testing.assert_close(whole[4:], alone, atol=1e-5, rtol=1e-5)
        later = TOLD.clone()
        later[0, 3] = 15
        changed = model(SOURCE, later)
        torch.testing.assert_close(changed[:3], whole[:3])
        assert not torch.allclose(changed[3], whole[3])


def test_reads_are_watched(model):
    with torch.no_grad(), watch(model) as seen:
        model(SOURCE, TOLD)
    assert [str(place) for place in seen] == [
        "encoder.0.own", "encoder.1.own", "decoder.0.own", "decoder.0.cross", "decoder.1.own", "decoder.1.cross",
    ]  # fmt: skip
    own, cross = seen["decoder.0.own"].weights[:, :], seen["decoder.1.cross"].weights[:, :]
    assert (own.triu(1) == 0).all()
    assert (cross[1, :, :, 3:] == 0).all()
    torch.testing.assert_close(cross.sum(-1), torch.ones(2, 4, 4))


def test_sizes_that_cannot_be():
    with pytest.raises(InputError, match="3 heads do not divide a width of 16"):
        Transformer(20, width=16, heads=3)
    with pytest.raises(InputError, match="1 layer or more, not 0"):
        Transformer(20, layers=0)


def test_alignments_of_every_layer_and_head_in_both_rows(model):
    target = torch.tensor([[10, 11, 12, 2], [13, 2, 0, 0]])
    maps = model.alignments(SOURCE, target)
    assert list(maps)[:2] == ["layer 0, saying", "layer 1, saying"]
    assert len(maps) == 2 * 2 * (1 + 4)
    told = torch.cat([torch.ones(2, 1, dtype=torch.long), target], 1)
    with torch.no_grad(), watch(model) as seen:
        model.hear(SOURCE, told)
    weights = seen["decoder.0.cross"].weights[:, :]
    torch.testing.assert_close(maps["layer 0, hearing"], weights.mean(1)[:, 1:])
    torch.testing.assert_close(maps["layer 0 head 3, saying"], weights[:, 3, :-1])
    assert all(map.shape == (2, 4, 5) for map in maps.values())


@pytest.mark.parametrize("head", [None, 2])
def test_what_shows_the_alignment_is_what_is_guided(head):
    torch.manual_seed(0)
    model = Transformer(20, width=16, heads=4, inner=24, layers=3, dropout=0.0, head=head).eval()
    target = torch.tensor([[10, 11, 12, 2], [13, 2, 0, 0]])
    states, weights = model.guided(SOURCE, TOLD)
    torch.testing.assert_close(states, model.hear(SOURCE, TOLD))
    maps = model.alignments(SOURCE, target)
    name = "layer 1, saying" if head is None else "layer 1 head 2, hearing"
    assert next(iter(maps)) == name
    torch.testing.assert_close(weights[0], maps[name][0, :3])
    torch.testing.assert_close(weights[1, :1], maps[name][1, :1])
    weights[..., 0].sum().backward()
    assert model.decoder[1].cross.query.weight.grad.abs().sum() > 0


def test_heads_that_are_not_there_show_nothing():
    with pytest.raises(InputError, match="there is no head 4 to show the alignment: choose 0 to 3"):
        Transformer(20, width=16, heads=4, head=4)
