"""The DNC against the equations of its papers, written slot by slot, and what every memory must keep to."""

import pytest
import torch
from torch.nn import functional as F

from recuerdo.errors import InputError
from recuerdo.memory.link import Dense, History
from recuerdo.memory.link import origin as origin_of
from recuerdo.models.dnc import DNC, Kit
from recuerdo.read import Share, bending, mute, watch

ALL = {"masks": True, "deallocation": True, "sharpening": True, "norm": True, "bypass": 0.0}
NONE = {"masks": False, "deallocation": False, "sharpening": False, "norm": False, "bypass": 0.0, "sharp": False}


def dnc(kit=None, link="dense", memory=(6, 4, 2), seed=0, **arguments):
    torch.manual_seed(seed)
    return DNC(3, 2, hidden=8, memory=memory, link=link, kit=ALL if kit is None else kit, **arguments).double().eval()


def x(batch=2, steps=7, seed=1):
    return torch.randn(batch, steps, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(a, b):
    return float(a @ b / (a.norm() * b.norm() + 1e-6)) if float(a.norm() * b.norm()) else 0.0


class Plain:
    """The memory of one sequence, as Graves et al. 2016 and Csordas & Schmidhuber 2019 write it."""

    def __init__(self, slots, width, heads, kit):
        self.kit, self.n, self.w, self.h = kit, slots, width, heads
        self.m = torch.zeros(slots, width).double()
        self.u, self.ww, self.p = (torch.zeros(slots).double() for _ in "uwp")
        self.r, self.l = torch.zeros(heads, slots).double(), torch.zeros(slots, slots).double()

    def content(self, key, strength, mask):
        mask = torch.ones_like(key) if mask is None else mask
        return torch.softmax(torch.tensor([strength * cosine(key * mask, row * mask) for row in self.m]), 0).double()

    def step(self, o):
        masks, n = self.kit["masks"], self.n
        psi = torch.ones(n).double()
        for h in range(self.h):
            psi = psi * (1 - o.free[h] * self.r[h])
        self.u = (self.u + self.ww - self.u * self.ww) * psi
        found = self.content(o.write_key[0], float(o.write_strength[0]), o.write_mask[0] if masks else None)
        order, free, left = self.u.argsort().tolist(), torch.zeros(n).double(), 1.0
        for slot in order:
            free[slot], left = (1 - self.u[slot]) * left, left * float(self.u[slot])
        self.ww = o.gate * (o.allocate * free + (1 - o.allocate) * found)
        if self.kit["deallocation"]:
            self.m = self.m * psi[:, None]
        self.m = self.m * (1 - self.ww[:, None] * o.erase[None]) + self.ww[:, None] * o.value[None]
        link = torch.zeros(n, n).double()
        for i in range(n):
            for j in range(n):
                if i != j:
                    link[i, j] = (1 - self.ww[i] - self.ww[j]) * self.l[i, j] + self.ww[i] * self.p[j]
        self.l, self.p = link, (1 - self.ww.sum()) * self.p + self.ww
        out = []
        for h in range(self.h):
            forward, backward = self.l @ self.r[h], self.l.T @ self.r[h]
            if self.kit["sharpening"]:
                backward, forward = self.sharp(backward, o.power[0, h]), self.sharp(forward, o.power[1, h])
            found = self.content(o.read_key[h], float(o.read_strength[h]), o.read_mask[h] if masks else None)
            out.append(o.mode[h, 0] * backward + o.mode[h, 1] * found + o.mode[h, 2] * forward)
        self.r = torch.stack(out)
        return self.r @ self.m

    def sharp(self, weights, power):
        if not float(weights.sum()):
            return weights
        high = weights**power
        return high / high.sum() * weights.sum() / (weights.sum() + 1e-3)


@pytest.mark.parametrize(
    "kit", [NONE, ALL, *({**NONE, name: True} for name in ("masks", "deallocation", "sharpening", "norm"))]
)
@torch.no_grad()
def test_its_reads_are_those_of_the_papers(kit):
    model, steps = dnc(kit, feedback=False), x(steps=6)
    torch.nn.init.normal_(model.interface.weight, std=1.5)
    orders = model.memory.orders(model.interface(model.controller(steps)[0])).steps()
    state = model.memory.start(2, steps)
    plain = [Plain(6, 4, 2, kit) for _ in range(2)]
    for order in orders:
        found = model.memory(order, state)
        for b in range(2):
            wanted = plain[b].step(type(order)(*(field[b] for field in order)))
            torch.testing.assert_close(found[b], wanted, rtol=1e-3, atol=1e-4)
    assert found.abs().max() > 0.1


@torch.no_grad()
def test_the_links_agree_where_all_is_kept():
    steps = x()
    dense, full = dnc(link="dense")(steps), dnc(link="history")(steps)
    torch.testing.assert_close(dense, full, rtol=0, atol=0.05)
    torch.testing.assert_close(full, dnc(link=History(7))(steps), rtol=0, atol=1e-12)
    assert not torch.allclose(full, dnc(link="history-1")(steps))
    assert not torch.allclose(full, dnc(link="none", kit={**ALL, "sharpening": False})(steps))


@pytest.mark.parametrize("controller", ["lstm", "feedforward"])
@pytest.mark.parametrize("feedback", [True, False])
@torch.no_grad()
def test_every_sequence_starts_afresh_and_alone(feedback, controller):
    model, steps = dnc(feedback=feedback, controller=controller), x(batch=3)
    once = model(steps)
    assert once.shape == (3, 7, 2)
    assert torch.equal(model(steps), once)
    torch.testing.assert_close(torch.cat([model(one[None]) for one in steps]), once)
    torch.testing.assert_close(model(steps[:, :4]), once[:, :4])  # the future is not known


@torch.no_grad()
def test_without_feedback_the_controller_does_not_hear_what_was_read():
    model, steps = dnc(feedback=False), x()
    before = model.controller(steps)[0]
    model(steps)
    assert torch.equal(model.controller(steps)[0], before)
    heard = dnc(feedback=True)
    assert heard.controller.input_size == 3 + 2 * 4
    assert model.controller.input_size == 3


@torch.no_grad()
def test_a_feedforward_controller_knows_of_the_past_only_what_was_read():
    model, steps, heard = dnc(controller="feedforward"), x(), torch.randn(2, 7, 3 + 2 * 4).double()
    changed = steps.clone()
    changed[:, 0] += 1
    assert not torch.allclose(model(steps)[:, -1], model(changed)[:, -1])
    alone = torch.cat([model.controller(step[:, None])[0] for step in heard.unbind(1)], 1)
    torch.testing.assert_close(model.controller(heard)[0], alone)


def test_reads_and_writes_have_addresses_and_looking_changes_nothing():
    model, steps = dnc(), x()
    plain = model(steps)
    with watch(model) as seen:
        assert torch.equal(model(steps), plain)
    assert seen.paths == ["memory.write", "memory.read"]
    assert len(seen.steps("memory.read")) == 7
    assert seen["memory.read@3:1"].shape == (2, 2, 1, 6)
    assert seen["memory.write@3"].shape == (2, 1, 1, 6)


@torch.no_grad()
def test_steering_a_read_changes_what_comes_out_and_only_from_there_on():
    model, steps, first = dnc(), x(), torch.arange(6) == 0
    plain = model(steps)

    def rule(address, reading):
        return [Share(first, 1.0)] if address.path == "memory.read" and address.step == 3 else []

    with bending(model, rule), watch(model) as seen:
        bent = model(steps)
    assert torch.equal(bent[:, :3], plain[:, :3])
    assert (bent[:, 3:] - plain[:, 3:]).abs().max() > 1e-4
    torch.testing.assert_close(seen["memory.read@3"].weights[:, 0][..., 0, 0], torch.ones(2, 2).double())


@torch.no_grad()
def test_steering_a_write_keeps_slots_empty():
    model, steps, kept = dnc(), x(), torch.arange(6) < 2
    with (
        bending(model, lambda address, reading: [mute(kept)] if address.path == "memory.write" else []),
        watch(model) as seen,
    ):
        model(steps)
    last = seen["memory.read@6"].value[:, 0]
    assert last[:, kept].abs().max() < 1e-6
    assert last[:, ~kept].abs().max() > 1e-3


@torch.no_grad()
def test_which_step_a_read_comes_from_is_told_by_what_was_watched():
    model, steps = dnc(), x()
    with watch(model) as seen:
        model(steps)
    reads = torch.stack([r.weights[:, :][:, :, 0] * r.lse.exp() for r in seen.steps("memory.read")], 2)
    writes = torch.stack([r.weights[:, :][:, 0, 0] * r.lse[:, 0].exp() for r in seen.steps("memory.write")], 1)
    met = origin_of(reads, writes)
    assert met.shape == (2, 2, 7, 7)
    assert met.triu(1).abs().max() == 0
    assert bool((met.sum(-1) <= reads.sum(-1) + 1e-6).all())


@pytest.mark.parametrize("norm", [True, False])
@torch.no_grad()
def test_it_starts_sharp_where_it_shall(norm):
    for sharp in (True, False):
        model = dnc({**ALL, "norm": norm, "sharp": sharp})
        orders = model.memory.orders(model.interface(torch.zeros(1, 8).double()) * (0 if norm else 1))
        powers = orders.power.flatten()
        strengths = torch.cat([orders.read_strength, orders.write_strength], -1).flatten()
        wanted = (4.05, 3.13) if sharp else (1.69, 1.69)
        assert strengths.tolist() == pytest.approx([wanted[0]] * 3, abs=0.3)
        assert powers.tolist() == pytest.approx([wanted[1]] * 4, abs=0.3)


def test_the_bypass_is_dropped_in_training_only():
    model, steps = dnc(Kit(bypass=0.5)), x()
    assert torch.equal(model(steps), model(steps))
    model.train()
    assert not torch.equal(model(steps), model(steps))


@torch.no_grad()
def test_half_precision_around_it_changes_nothing():
    model, steps = dnc().float(), x().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model(steps), dnc().float()(steps))
        narrow = model(steps.bfloat16())
    assert narrow.dtype == torch.float32
    assert torch.equal(narrow, model(steps.bfloat16().float()))


@pytest.mark.parametrize(
    ("link", "controller"),
    [("history", "lstm"), ("history", "feedforward"), ("history-3", "lstm"), ("dense", "lstm"), ("none", "lstm")],
)
def test_gradients_are_finite_after_hundred_steps_and_reach_all_parameters(link, controller):
    torch.manual_seed(0)
    kit = {**ALL, "sharpening": link != "none"}
    model = DNC(3, 2, hidden=8, memory=(5, 4, 2), link=link, kit=kit, controller=controller)
    model(100 * x(steps=100).float()).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert bool(parameter.grad.isfinite().all()), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_nothing_becomes_nan_at_ten_times_the_rate(seed):
    torch.manual_seed(seed)
    model = DNC(3, 2, hidden=16, memory=(16, 8, 2), kit=ALL)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(200):
        inputs = x(batch=4, steps=12, seed=step).float()
        F.mse_loss(model(inputs), inputs[..., :2].roll(3, 1)).backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        assert bool(norm.isfinite()), step
        optimiser.step()
        optimiser.zero_grad()
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def test_what_cannot_be_built_is_said():
    with pytest.raises(InputError, match=r"a DNC needs sizes of 1 or more, not hidden=8, memory=\(0, 4, 1\)"):
        DNC(3, 2, hidden=8, memory=(0, 4, 1))
    with pytest.raises(InputError, match="the kit of a DNC has no 'magic': it has bypass, deallocation, masks"):
        DNC(3, 2, kit={"magic": True})
    with pytest.raises(InputError, match="bypass is a share from 0 to below 1 that is dropped, not 1.5"):
        Kit(bypass=1.5)
    with pytest.raises(InputError, match="there is no link 'chain'"):
        DNC(3, 2, link="chain")
    with pytest.raises(InputError, match="there is no controller 'gru': choose lstm or feedforward"):
        DNC(3, 2, controller="gru")
    assert DNC(3, 2, link=Dense()).memory.link == Dense()
