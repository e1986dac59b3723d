"""Steering: exact, cheap, obeyed. `python benchmarks/steer.py [exact cost peers facts questions formats list] [--quick] [--json]`

exact      bent reads against the dense definition in float64, and the share that was asked for
cost       one mark against the unsteered read; training with a mark's loss against training without
peers      the same wish by other means: a plain bias, SpotLight's formula, PASTA's package on eager attention
facts, questions, formats, list: does SmolLM2 obey? (benchmarks/steer_obeys.py)
"""

import importlib.util
import json
import math
import sys

import torch
from measure import Report, arguments, in_new_process, interleaved, peak_above, peak_of_process, ratio

from recuerdo.read import Odds, Share, bend, bending, causal, mute, read


def inputs(n: int, heads: int = 4, seed: int = 0, *, gradients: bool = False) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(1, heads, n, 64, generator=g).requires_grad_(gradients) for _ in range(3)]


def span(n: int, first: int, length: int = 64) -> torch.Tensor:
    keys = torch.zeros(n, dtype=torch.bool)
    keys[first : first + length] = True
    return keys


WISHES = {
    "share 0.30": lambda keys: Share(keys, 0.3),
    "boost x20": lambda keys: Odds(keys, 20.0),
    "damp x0.01": lambda keys: Odds(keys, 0.01),
    "mute": mute,
}


def dense(query, key, value, keys, wish) -> tuple[torch.Tensor, torch.Tensor]:
    """The definition, N x N, float64: mixed, and the share of the marked keys."""
    n = query.shape[2]
    scores = (query @ key.mT / math.sqrt(query.shape[-1])).masked_fill(~torch.ones(n, n).tril().bool(), -torch.inf)
    weights = scores.softmax(-1)
    mass = weights[..., keys].sum(-1, keepdim=True)
    wanted = wish.amount if isinstance(wish, Share) else wish.amount * mass / (wish.amount * mass + 1 - mass)
    can = (mass > 0) & (mass < 1)
    factor = torch.where(keys, wanted / mass.clamp_min(1e-300), (1 - wanted) / (1 - mass).clamp_min(1e-300))
    bent = torch.where(can, weights * factor, weights)
    return bent @ value, bent[..., keys].sum(-1)


def exact(report: Report, quick: bool) -> None:
    n = 512 if quick else 1024
    keys = span(n, n // 3)
    for name, make in WISHES.items():
        wish = make(keys)
        ours, theirs = inputs(n, gradients=True), [x.double() for x in inputs(n)]
        theirs = [x.requires_grad_() for x in theirs]
        reading = bend(read(*ours, mask=causal), wish)
        mixed, _ = dense(*theirs, keys, wish)
        grad = torch.randn(mixed.shape, generator=torch.Generator().manual_seed(1))
        reading.mixed.backward(grad)
        mixed.backward(grad.double())
        error = (reading.mixed - mixed).abs().max().item()
        slope = max(
            ((a.grad - b.grad).abs().max() / b.grad.abs().max()).item() for a, b in zip(ours, theirs, strict=True)
        )
        how = f"{n} keys, 4 heads, float32 against float64"
        report.add(f"{name}: outputs", error, "largest", target="<= 1e-5", ok=error <= 1e-5, against="dense", how=how)
        report.add(
            f"{name}: gradients", slope, "relative", target="<= 1e-5", ok=slope <= 1e-5, against="dense", how=how
        )
        before = torch.equal(reading.mixed[:, :, : n // 3], read(*ours, mask=causal).mixed[:, :, : n // 3])
        report.add(
            f"{name}: rows before the mark equal", float(before), "bool", target="1", ok=before, how="bit for bit"
        )
        if isinstance(wish, Share) and wish.amount:
            off = (reading.bent.after[:, :, n // 3 :, 0] - 0.3).abs().max().item()
            report.add(
                "share 0.30: farthest row", off, "off", target="<= 5e-5", ok=off <= 5e-5, how="every row that can"
            )


class Reader(torch.nn.Module):
    """A model that is one read."""

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        return read(*tensors, mask=causal).mixed


def steered(tensors: list[torch.Tensor], wish) -> torch.Tensor:
    """What a steered model does: the rule is asked at every read."""
    model = Reader()
    with bending(model, lambda address, reading: [wish]):
        return model(*tensors)


def memory(what: str, n: int) -> None:
    """Peak memory of this process after one read, printed as JSON."""
    tensors = inputs(n, 1)
    with torch.no_grad():
        steered(tensors, WISHES[what](span(n, n // 3))) if what in WISHES else Reader()(*tensors)
    print(json.dumps({"bytes": peak_of_process()}))


def cost(report: Report, quick: bool) -> None:
    torch.set_num_threads(1)
    for n, heads, rounds in ((4096, 4, 7),) if quick else ((4096, 8, 11), (16384, 2, 7), (32768, 1, 5)):
        tensors, keys = inputs(n, heads), span(n, n // 3)
        variants = {"plain": lambda: Reader()(*tensors)}
        for name, make in WISHES.items():
            variants[name] = lambda make=make: steered(tensors, make(keys))
        with torch.no_grad():
            times = interleaved(variants, rounds)
        for name in WISHES:
            value = ratio(times, name, "plain")
            how = f"CPU s, median of {rounds} rounds, 64 keys marked, {heads} heads, 1 thread"
            report.add(
                f"{name}, {n:,} tokens",
                value,
                "x",
                target="<= 1.10",
                ok=value <= 1.1,
                against="unsteered read",
                how=how,
            )
    n = 8192 if quick else 32768
    found = {what: in_new_process(__file__, "memory", what, str(n))["bytes"] for what in ("plain", "share 0.30")}
    extra, square = found["share 0.30"] - found["plain"], 4.0 * n * n
    how = f"peaks of a process each: {found['plain'] / 1e6:.0f} and {found['share 0.30'] / 1e6:.0f} MB"
    report.add(f"share 0.30, {n:,} tokens: memory above the plain read", extra / square, "x N x N", target="<= 0.05",
               ok=extra <= 0.05 * square, against="one float32 map", how=how)  # fmt: skip
    n = 2048 if quick else 4096
    tensors, keys = inputs(n, 4, gradients=True), span(n, n // 3)

    def train(loss: bool, wish=None) -> None:
        reading = read(*tensors, mask=causal)
        reading = reading if wish is None else bend(reading, wish)
        total = reading.mixed.square().mean()
        if loss:
            seen = reading.log_mass(keys)
            total = total - torch.where(torch.isneginf(seen), 0.0, seen).mean()
        total.backward()

    variants = {
        "plain": lambda: train(False),
        "mass loss": lambda: train(True),
        "steered": lambda: train(False, Share(keys, 0.3)),
    }
    times = interleaved(variants, 5 if quick else 9)
    value = ratio(times, "mass loss", "plain")
    how = "CPU s, forward + backward, 4 heads, 1 thread"
    goal = {} if quick else {"target": "<= 1.20", "ok": value <= 1.2}
    report.add(f"training with a mark's loss, {n:,} tokens", value, "x", **goal, against="without it", how=how)
    report.add(
        f"training through a steered read, {n:,} tokens",
        ratio(times, "steered", "plain"),
        "x",
        against="unsteered",
        how=how,
    )


def peers(report: Report, quick: bool) -> None:
    """Asked for 0.30 on 40 of 512 keys: what do others give?"""
    n = 512
    query, key, value = inputs(n)
    keys = span(n, 100, 40)
    weights = (query @ key.mT / 8).softmax(-1)
    share = weights[..., keys].sum(-1).mean()
    spot = (weights.log() + math.log(0.3 / share) * keys).softmax(-1)[..., keys].sum(-1)
    how = f"{n} random keys, 40 marked, full attention; rows {spot.min():.3f} to {spot.max():.3f}"
    report.add("asked 0.30: SpotLight's log(target / share)", float(spot.mean()), "mean share", against="0.30", how=how)
    bias = (query @ key.mT / 8 + math.log(0.3 / 0.7 * (1 - share) / share) * keys).softmax(-1)[..., keys].sum(-1)
    how = f"the best single bias for the mean row; rows {bias.min():.3f} to {bias.max():.3f}"
    report.add("asked 0.30: a plain bias", float(bias.mean()), "mean share", against="0.30", how=how)
    ours = bend(read(query, key, value), Share(keys, 0.3)).bent.after[..., 0]
    how = f"rows {ours.min():.4f} to {ours.max():.4f}"
    report.add(
        "asked 0.30: recuerdo",
        float(ours.mean()),
        "mean share",
        target="0.3000",
        ok=bool((ours - 0.3).abs().max() < 5e-5),
        against="0.30",
        how=how,
    )
    pasta(report, quick)


def pasta(report: Report, quick: bool) -> None:
    """PASTA's package (alpha 0.01 on all heads) against our damp of the rest, on the same tiny Llama; time and memory."""
    if importlib.util.find_spec("pastalib") is None or importlib.util.find_spec("datasets") is None:
        report.add(
            "PASTA: not measured", 0.0, "", how="pip install pastalib==0.1.3 datasets (it does not declare datasets)"
        )
        return
    from pastalib.pasta import PASTA
    from transformers import LlamaConfig, LlamaForCausalLM

    from recuerdo.bridge import attach

    n, layers = (512, 2) if quick else (2048, 4)
    size = {"hidden_size": 512, "num_hidden_layers": layers, "num_attention_heads": 8, "num_key_value_heads": 8}
    config = LlamaConfig(**size, intermediate_size=1024, vocab_size=500, max_position_embeddings=n)
    torch.manual_seed(0)
    model = LlamaForCausalLM._from_config(config, attn_implementation="eager").eval()
    ids = torch.randint(5, 500, (1, n))
    first, end = n // 2, n // 2 + 32
    steerer = PASTA(model, None, head_config={str(i): list(range(8)) for i in range(layers)}, alpha=0.01)
    steerer.token_ranges_from_batch = lambda *a, **k: torch.tensor([[first, end]])
    keys = span(n, first, 32)

    def theirs() -> torch.Tensor:
        mask = torch.ones_like(ids)
        with steerer.apply_steering(
            model=model, strings=["x"], substrings=["y"], model_input={"input_ids": ids}, offsets_mapping=[None]
        ) as m:
            return m(input_ids=ids, attention_mask=mask, logits_to_keep=1).logits

    def plain() -> torch.Tensor:
        return model(input_ids=ids, logits_to_keep=1).logits

    def ours() -> torch.Tensor:
        with attach(model), bending(model, lambda address, reading: [Odds(keys, 100.0)]):  # alpha 0.01 on the rest
            return model(input_ids=ids, logits_to_keep=1).logits

    torch.set_num_threads(1)
    with torch.no_grad():
        try:
            moved = (theirs() - plain()).abs().max().item()
        except Exception as error:  # noqa: BLE001 - whatever a foreign package raises is the finding
            report.add("PASTA: fails", 0.0, "", how=f"{type(error).__name__}: {str(error)[:80]}")
            return
        same = (theirs() - ours()).abs().max().item() / max(moved, 1e-9)
        times = interleaved({"eager": plain, "pasta": theirs, "ours": ours}, 3)
        memory, own = peak_above(theirs), peak_above(ours)
    how = f"Llama of {layers} layers x 8 heads, {n:,} tokens, 32 marked, all heads"
    report.add("PASTA (eager): steered pass", ratio(times, "pasta", "eager"), "x", against="eager, unsteered", how=how)
    value = ratio(times, "ours", "pasta")
    report.add(
        "recuerdo: the same wish", value, "x PASTA", target="< 1", ok=value < 1, against="pastalib 0.1.3", how=how
    )
    report.add("PASTA: memory", memory / 1e6, "MB", against=f"recuerdo {own / 1e6:.0f} MB", how="peak above rest")
    report.add("logits differ", same, "of what steering moves", against="pastalib 0.1.3", how="float32")


def obeys(name: str):
    def section(report: Report, quick: bool) -> None:
        import steer_obeys

        getattr(steer_obeys, name)(report, quick)

    return section


SECTIONS = {"exact": exact, "cost": cost, "peers": peers} | {
    name: obeys(name) for name in ("facts", "questions", "formats", "list")
}

if __name__ == "__main__":
    if sys.argv[1:2] == ["memory"]:
        raise SystemExit(memory(sys.argv[2], int(sys.argv[3])))
    options = arguments(__doc__)
    for section in options.sections or SECTIONS:
        SECTIONS[section](Report(options.json), options.quick)
