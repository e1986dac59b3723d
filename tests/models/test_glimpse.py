"""Glimpses against a plain loop over pixels; what they do not look at changes nothing; places are learned by reward."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from recuerdo.errors import InputError, ShapeError
from recuerdo.models.glimpse import Glimpse
from recuerdo.nn.retina import Ground, retina


def plain(pictures, middle, wide):
    out = torch.zeros(len(pictures), wide, wide, dtype=pictures.dtype)
    for i, picture in enumerate(pictures):
        for y in range(wide):
            for x in range(wide):
                down, across = (int(m) - wide // 2 + at for m, at in zip(middle[i], (y, x), strict=True))
                if 0 <= down < picture.shape[0] and 0 <= across < picture.shape[1]:
                    out[i, y, x] = picture[down, across]
    return out


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 120), st.integers(1, 120), st.integers(1, 14), st.lists(st.floats(-1, 1), min_size=4, max_size=4))
def test_squares_are_cut_as_by_a_loop(height, width, wide, place):
    pictures = torch.randint(1, 255, (2, height, width), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    ground = Ground(pictures, wide)
    middle = ground.middle(torch.tensor(place).view(2, 2))
    assert ((middle >= 0) & (middle < torch.tensor([height, width]))).all()
    assert torch.equal(ground.cut(middle), plain(pictures, middle, wide))


@pytest.mark.parametrize("scale", [0, 1, 2])
def test_the_gradient_of_a_place_is_the_slope_of_the_picture(scale):
    pictures = torch.randint(0, 255, (3, 50, 71), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    place = torch.tensor([[0.0, 0.1], [-0.9, 0.95], [0.3, -0.6]])
    ground = Ground(pictures, (6 + 2) * 4)
    taken = retina(Ground(pictures, 6 * 4), place, 6, 3)
    asked = place.clone().requires_grad_()
    with_slope = retina(ground, asked, 6, 3)
    assert torch.equal(with_slope, taken)

    middle, each, wide = ground.middle(place), 2**scale, 6 * 2**scale

    def cells(off):
        return plain(pictures, middle + torch.tensor(off), wide).float().view(3, 6, each, 6, each).mean((2, 4)) / 255

    weights = torch.randn(3, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    (with_slope.view(3, 3, 6, 6) * weights)[:, scale].sum().backward()
    for axis, (off, side) in enumerate([((each, 0), 50), ((0, each), 71)]):
        back = tuple(-one for one in off)
        per_pixel = (cells(off) - cells(back)) / (2 * each)
        slope = (per_pixel * weights[:, scale]).sum((1, 2)) * 0.5 * (side - 1)
        torch.testing.assert_close(asked.grad[:, axis], slope, atol=1e-4, rtol=1e-4)


def made(**more):
    torch.manual_seed(0)
    return Glimpse(10, **{"looks": 4, "size": 6, "scales": 2, "hidden": 32, **more}).eval()


def test_scales_are_means_around_the_same_place():
    pictures = torch.randint(0, 255, (3, 40, 50), dtype=torch.uint8)
    place = torch.tensor([[0.0, 0.0], [-1.0, 1.0], [0.3, -0.6]])
    ground = Ground(pictures, 12)
    middle = ground.middle(place)
    fine, coarse = retina(ground, place, 6, 2).view(3, 2, 6, 6).unbind(1)
    torch.testing.assert_close(fine, plain(pictures, middle, 6).float() / 255)
    wide = plain(pictures, middle, 12).float().view(3, 6, 2, 6, 2).mean((2, 4)) / 255
    torch.testing.assert_close(coarse, wide)


@pytest.mark.parametrize("side", [60, 200])
def test_a_pixel_outside_of_all_glimpses_changes_nothing(side):
    model = made()
    pictures = torch.randint(0, 255, (5, side, side), dtype=torch.uint8)
    with torch.no_grad():
        looks = model(pictures)
        touched = torch.zeros(5, side, side, dtype=torch.bool)
        middle = Ground(pictures, 12).middle(looks.places.view(-1, 2)).view(5, -1, 2)
        for i in range(5):
            for down, across in middle[i].tolist():
                touched[i, max(0, down - 6) : down + 6, max(0, across - 6) : across + 6] = True
        other = pictures.where(touched, 255 - pictures)
        assert not torch.equal(other, pictures)
        again = model(other)
        assert torch.equal(again.logits, looks.logits)
        assert torch.equal(again.places, looks.places)
        changed = model(pictures.where(~touched, 255 - pictures))
        assert not torch.equal(changed.logits, looks.logits)


def test_looks_are_the_same_alone_and_for_numbers_of_any_kind():
    model, pictures = made(), torch.randint(0, 255, (4, 30, 30), dtype=torch.uint8)
    with torch.no_grad():
        looks, alone = model(pictures), model(pictures[2:3])
        torch.testing.assert_close(looks.logits[2:3], alone.logits)
        torch.testing.assert_close(model(pictures.float()).logits, looks.logits)
    assert looks.logits.shape == (4, 4, 10)
    assert looks.places.shape == (4, 4, 2)
    assert looks.log_probs.shape == looks.baselines.shape == (4, 3)
    assert not looks.places[:, 0].any()
    assert made(looks=1)(pictures).log_probs.shape == (4, 0)


def test_drawn_places_are_drawn_around_the_likeliest():
    model = made(std=0.2)
    pictures = torch.randint(0, 255, (1, 30, 30), dtype=torch.uint8).expand(4000, -1, -1)
    with torch.no_grad():
        likeliest, drawn = model(pictures[:1]).places[0, 1], model(pictures, drawn=True)
    places = drawn.places[:, 1]
    torch.testing.assert_close(places.mean(0), likeliest, atol=0.02, rtol=0)
    torch.testing.assert_close(places.std(0), torch.full((2,), 0.2), atol=0.02, rtol=0)
    exact = torch.distributions.Normal(likeliest, 0.2).log_prob(places).sum(1)
    inside = (places.abs() < 1).all(1)
    known = drawn.log_probs[:, 0][inside] - exact[inside]
    torch.testing.assert_close(known, known[0].expand_as(known), atol=1e-3, rtol=0)


def test_reward_moves_places():
    """The digit is a light square; it is rewarded to look at it."""
    torch.manual_seed(0)
    model = Glimpse(2, looks=2, size=4, scales=3, hidden=32, std=0.2)
    rule = torch.optim.Adam(model.parameters(), lr=3e-3)
    draw = torch.Generator().manual_seed(0)

    def pictures(count):
        side = torch.randint(0, 2, (count,), generator=draw)
        out = torch.zeros(count, 20, 20, dtype=torch.uint8)
        out[side == 0, 8:12, 2:6] = 255
        out[side == 1, 8:12, 14:18] = 255
        return out, torch.stack([torch.zeros(count), torch.where(side == 0, -0.6, 0.6)], 1), side

    for _ in range(700):
        some, wanted, side = pictures(64)
        looks = model(some, drawn=True)
        reward = -(looks.places[:, 1] - wanted).square().sum(1, keepdim=True)
        gain = reward - looks.baselines.detach()
        loss = -(looks.log_probs * gain).mean() + (looks.baselines - reward).square().mean()
        loss = loss + torch.nn.functional.cross_entropy(looks.logits[:, 0], side)  # the state is learned by this alone
        rule.zero_grad()
        loss.backward()
        rule.step()
    some, wanted, _ = pictures(100)
    with torch.no_grad():
        assert (model(some).places[:, 1] - wanted).square().sum(1).sqrt().mean() < 0.25


def test_the_slope_alone_moves_places():
    """No reward is given: a light spot beside the first glimpse is found because what is seen is to be bright."""
    torch.manual_seed(0)
    away = (torch.arange(40)[:, None] - 28).square() + (torch.arange(40) - 12).square()
    pictures = 255 * (-away / 200).exp()[None]
    model = Glimpse(2, looks=3, size=4, scales=2, hidden=16, std=0.05)
    rule = torch.optim.Adam(model.locate.parameters(), lr=3e-3)
    seen = []
    model.what.register_forward_hook(lambda module, given, told: seen.append(given[0]))

    @torch.no_grad()
    def off():
        return float(((model(pictures).places[0, -1] + 1) * 19.5 - torch.tensor([28.0, 12.0])).norm())

    assert off() > 6
    for _ in range(150):
        model(pictures.expand(16, -1, -1), drawn=True, slope=1.0)
        loss = -seen[-1].mean()
        rule.zero_grad()
        loss.backward()
        rule.step()
    assert off() < 3


def test_slopes_are_for_training_only_and_leave_the_glimpses_as_they_are():
    pictures = torch.randint(0, 255, (4, 30, 40), dtype=torch.uint8)
    plainly, sloped = made(), made()
    torch.testing.assert_close(plainly(pictures).logits, sloped(pictures, slope=1.0).logits, atol=0, rtol=0)
    told = []
    for model, slope in ((plainly, 0.0), (sloped, 1.0)):
        torch.manual_seed(1)
        told.append(model(pictures, drawn=True, slope=slope))
    torch.testing.assert_close(told[0].logits, told[1].logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(told[0].places, told[1].places, atol=1e-6, rtol=0)
    told[0].logits.sum().backward()
    told[1].logits.sum().backward()
    assert plainly.locate[0].weight.grad is None
    assert sloped.locate[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("drawn", [False, True])
def test_moves_onward_go_no_further_than_was_seen(drawn):
    model = made(moves="onward", std=0.001)
    model.locate[-1].bias.data[:] = torch.tensor([9.0, -9.0])  # down and left, as far as it goes
    pictures = torch.randint(0, 255, (4, 61, 101), dtype=torch.uint8)
    with torch.no_grad():
        pixels = Ground(pictures, 12).pixels(model(pictures, drawn=drawn).places)
    steps = pixels.diff(dim=1)
    assert (steps[:, 0] - torch.tensor([6.0, -6.0])).abs().max() < 0.5
    assert pixels.min() >= 0
    assert (pixels <= torch.tensor([60.0, 100.0])).all()


def test_an_onward_reader_does_not_care_where_a_thing_is():
    """Two pictures that are one, shifted: places from the same start are shifted too, without what tells where."""
    model = made(moves="onward")
    for parameter in model.where.parameters():
        parameter.data.zero_()
    picture = torch.zeros(1, 80, 80, dtype=torch.uint8)
    picture[0, 30:50, 36:44] = torch.randint(0, 255, (20, 8), dtype=torch.uint8)
    wide = torch.zeros(1, 80, 120, dtype=torch.uint8)
    wide[0, :, 20:100] = picture[0]
    with torch.no_grad():
        one, two = model(picture), model(wide)
        near, far = (Ground(p, 12).pixels(looks.places)[0] for p, looks in ((picture, one), (wide, two)))
    torch.testing.assert_close(near.diff(dim=0), far.diff(dim=0), atol=0.6, rtol=0)


@pytest.mark.parametrize("shape", [(3, 3), (0, 5, 5), (1, 0, 5), (1, 1, 5, 5)])
def test_other_shapes_are_no_pictures(shape):
    with pytest.raises(ShapeError, match="pictures are \\[b, height, width\\]"):
        made()(torch.zeros(shape, dtype=torch.uint8))


def test_sizes_that_cannot_be():
    with pytest.raises(InputError, match="looks, size, scales and hidden are 1 or more"):
        Glimpse(10, looks=0)
    with pytest.raises(InputError, match="std is above 0"):
        Glimpse(10, std=0.0)
    with pytest.raises(InputError, match="there are no moves 'back': choose anywhere, onward, scouted, sought"):
        Glimpse(10, moves="back")


@pytest.mark.parametrize("what", ["dense", "convolved", "apart"])
def test_either_way_to_see_reads_the_same_squares(what):
    model, pictures = made(what=what), torch.randint(0, 255, (4, 30, 40), dtype=torch.uint8)
    looks = model(pictures)
    assert looks.logits.shape == (4, 4, 10)
    for i in range(4):
        torch.testing.assert_close(model(pictures[i : i + 1]).logits[0], looks.logits[i], atol=1e-5, rtol=0)
    model(pictures, drawn=True).logits.sum().backward()
    assert all(p.grad is not None for p in model.what.parameters())
    with pytest.raises(InputError, match="there is nothing that sees 'dimly': choose dense, convolved, apart"):
        made(what="dimly")


@pytest.mark.parametrize("moves", ["scouted", "sought"])
@pytest.mark.parametrize("what", ["dense", "convolved", "apart"])
def test_a_scout_learns_of_places_alone_and_what_names_the_picture_of_the_picture_alone(what, moves):
    torch.manual_seed(0)
    model, pictures = made(what=what, moves=moves), torch.randint(0, 255, (4, 90, 80), dtype=torch.uint8)
    looks = model(pictures, drawn=True)
    looks.log_probs.sum().backward(retain_graph=True)
    assert all(p.grad.abs().sum() > 0 for p in model.scout.parameters())
    assert all(p.grad is None for p in model.what.parameters())
    model.zero_grad()
    looks.logits.sum().backward()
    assert all(p.grad is None for p in model.scout.parameters())
    assert all(p.grad is not None for p in model.what.parameters())
    model.zero_grad()
    model(pictures, drawn=True, slope=1.0).logits.sum().backward()  # by the slope places are told of the picture, too
    assert all(p.grad.abs().sum() > 0 for p in model.scout.parameters())


def test_eyes_apart_see_each_scale_by_itself():
    model = made(what="apart", scales=3, size=6)
    square = torch.rand(2, 3 * 36)
    other = square.clone()
    other[:, 36:] = torch.rand(2, 72)
    first, *_ = model.what[:5](square).chunk(3, 1)
    assert torch.equal(first, model.what[:5](other).chunk(3, 1)[0])


@given(scale=st.integers(0, 2), down=st.integers(0, 5), across=st.integers(0, 5))
def test_a_scout_that_reads_one_cell_goes_to_its_middle(scale, down, across):
    model = made(scales=3, moves="sought")
    scores = torch.zeros(1, 3, 6, 6)
    scores[0, scale, down, across] = 100.0
    model.scout.scores = nn.Sequential(nn.Identity())
    model.scout.scores.forward = lambda square: scores
    model.scout.trust.weight.data.zero_(), model.scout.trust.bias.data.zero_()
    model.locate[-1].weight.data.zero_(), model.locate[-1].bias.data.zero_()
    side = 49  # 48 pixels from the first to the last, of which the widest square shows half
    looks = model(torch.zeros(1, side, side, dtype=torch.uint8))
    pixels = looks.places[0, 1] * 0.5 * (side - 1)
    cell = 2**scale
    assert pixels.tolist() == pytest.approx([(down - 2.5) * cell, (across - 2.5) * cell], abs=1e-4)


def test_a_scout_scores_what_it_sees_the_same_wherever_it_lies():
    model = made(scales=2, moves="sought")
    near = torch.zeros(1, 6, 6)
    near[0, 2:4, 1:3] = 1.0
    squares = [torch.cat([torch.zeros(1, 36), one.flatten(1)], 1) for one in (near, near.roll((1, 2), (1, 2)))]
    here, there = (model.scout.scores(square)[0, 1] for square in squares)
    torch.testing.assert_close(there[2:5, 3:5], here[1:4, 1:3])  # but for the border
