"""What a step of memory costs: the DNC against the package `dnc` and against the dense link, and what a head's Reading adds.

python benchmarks/memory.py            all of it (about three minutes on two cores)
python benchmarks/memory.py --quick    under 50 s
python benchmarks/memory.py link       history against dense link: the same numbers, and their cost by slots
The peer is optional: pip install dnc flann
"""

import importlib
import importlib.metadata
import warnings

from measure import Report, arguments, interleaved, median, ratio

import torch  # isort: skip  (after measure has set the wait policy)
import torch.nn.functional as F
from torch import nn

from recuerdo.memory.head import given
from recuerdo.memory.link import Dense, History, precede
from recuerdo.models.dnc import DNC
from recuerdo.models.ntm import NTM
from recuerdo.read import watch

BATCH, STEPS, WIDTH, READS, HIDDEN = 8, 40, 64, 4, 256


class Part(nn.Module):
    """The memory of our DNC with its interface, as the peer's `Memory` has it: hidden states in, reads out."""

    def __init__(self, slots: int, link: str):
        super().__init__()
        model = DNC(1, 1, hidden=HIDDEN, memory=(slots, WIDTH, READS), link=link)
        self.interface, self.memory = model.interface, model.memory

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        state = self.memory.start(len(hidden), hidden)
        orders = self.memory.orders(self.interface(hidden)).steps()
        return torch.stack([self.memory(step, state) for step in orders], 1)


def peer(slots: int):
    """The same part of the package `dnc` and its version, or None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            memory = importlib.import_module("dnc.memory").Memory(
                HIDDEN, mem_size=slots, cell_size=WIDTH, read_heads=READS, independent_linears=False
            )
    except ImportError:
        return None

    def run(hidden: torch.Tensor) -> torch.Tensor:
        state, reads = memory.reset(len(hidden)), []
        for row in hidden.unbind(1):
            read, state = memory(row, state)
            reads.append(read)
        return torch.stack(reads, 1)

    return run


def trained(run, x: torch.Tensor):
    """Forward and backward, as a step of training does them."""
    return lambda: run(x).square().mean().backward()


def step(report: Report, quick: bool) -> None:
    """The memory of a DNC, forward and backward, by number of slots."""
    x = torch.randn(BATCH, STEPS, HIDDEN)
    rounds = 5 if quick else 9
    how = f"CPU s, fwd + bwd, B={BATCH} T={STEPS} W={WIDTH} R={READS}, 1 thread, median of {rounds}"
    for slots in (512,) if quick else (64, 256, 512):
        variants = {name: trained(Part(slots, name), x) for name in ("history", "history-16", "dense", "none")}
        other = peer(slots)
        if other is None:
            report.add(f"dnc from PyPI, {slots} slots", float("nan"), "", how="not installed: pip install dnc flann")
        else:
            variants["dnc"] = trained(other, x)
        times = interleaved(variants, rounds)
        for name in variants:
            report.add(f"DNC memory, {slots} slots, {name}", 1e3 * median(times[name]), "ms", how=how)
        for name in ("dnc", "dense") if other else ("dense",):
            value = ratio(times, name, "history")
            goal = {"target": ">= 3.5", "ok": value >= 3.5} if slots == 512 else {}
            against = f"dnc {importlib.metadata.version('dnc')} (PyPI)" if name == "dnc" else "our dense link"
            report.add(
                f"history link is so many times faster, {slots} slots", value, "x", **goal, against=against, how=how
            )


def link(report: Report, quick: bool) -> None:
    """The history link says what the dense one says."""
    batch, slots, steps = 4, 64, 60
    for kind, unit in (("one slot", "largest difference"), ("soft", "% Frobenius")):
        draw = torch.Generator().manual_seed(0)
        dense, history = (kind_of.start(torch.zeros(batch, slots).double()) for kind_of in (Dense(), History()))
        before = torch.zeros(batch, slots).double()
        for _ in range(steps):
            if kind == "soft":
                weights = torch.softmax(3 * torch.randn(batch, slots, generator=draw).double(), -1)
            else:
                where = F.one_hot(torch.randint(0, slots, (batch,), generator=draw), slots)
                weights = where * torch.rand(batch, 1, generator=draw).double()
            dense.write(weights, before)
            history.write(weights, before)
            before = precede(before, weights)
        every = torch.eye(slots).double().expand(batch, slots, slots)
        mine, wanted = history.follow(every)[1], dense.follow(every)[1]
        how = f"{steps} writes on {slots} slots, float64"
        if kind == "soft":
            value = float(100 * (mine - wanted).norm() / wanted.norm())
            report.add("history link against dense, soft writes", value, unit, target="<= 1", ok=value <= 1, how=how)
        else:
            value = float((mine - wanted).abs().max())
            report.add(
                "history link against dense, writes to one slot",
                value,
                unit,
                target="<= 1e-6",
                ok=value <= 1e-6,
                how=how,
            )


def heads(report: Report, quick: bool) -> None:
    """What it costs that every head is a Reading, and what it costs to watch."""
    rounds = 5 if quick else 11
    for name, model in (
        ("DNC", DNC(9, 8, hidden=64, memory=(128, 16, 1))),
        ("NTM", NTM(9, 8, hidden=64, memory=(128, 16, 1))),
    ):
        x = torch.randn(16, 41, 9)

        def watched():
            with watch(model):
                model(x).square().mean().backward()

        times = interleaved({"plain": trained(model, x), "watched": watched}, rounds)
        how = f"CPU s, fwd + bwd, B=16 T=41 N=128 W=16, median of {rounds}"
        report.add(f"{name} for copy, one batch", 1e3 * median(times["plain"]), "ms", how=how)
        report.add(f"{name} while watched", ratio(times, "watched", "plain"), "x", against="unwatched", how=how)
    weights, memory = torch.softmax(torch.randn(8, 4, 512), -1), torch.randn(8, 512, 64)
    times = interleaved(
        {
            "product": lambda: [weights @ memory for _ in range(100)],
            "given": lambda: [given(weights, memory) for _ in range(100)],
        },
        rounds,
    )
    report.add(
        "a Reading of a head", 1e4 * median(times["given"]), "us", against="per head and step", how="B=8 N=512 R=4"
    )


SECTIONS = {"link": link, "step": step, "heads": heads}

if __name__ == "__main__":
    options = arguments(__doc__)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for section in options.sections or SECTIONS:
        SECTIONS[section](Report(options.json), options.quick)
