"""What it costs to read with the log-mass, to see, and to summarise, against torch's own fused attention.

python benchmarks/read.py            all of it (about four minutes on two cores)
python benchmarks/read.py --quick    under 50 s
python benchmarks/read.py rule       where two products beat the fused kernel (the rule in read/choose.py)
"""

import json
import sys

from measure import Report, arguments, in_new_process, interleaved, peak_above, ratio

import torch  # isort: skip  (after measure has set the wait policy)
import torch.nn.functional as F

from recuerdo.read import causal, read

PEER = f"torch {torch.__version__} scaled_dot_product_attention"


def inputs(n: int, *, batch: int = 1, heads: int = 8, width: int = 64, dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    return [torch.randn(batch, heads, n, width, generator=g).to(dtype) for _ in range(3)]


def seeing(report: Report, quick: bool) -> None:
    for n, rounds in ((1024, 15), (4096, 3 if quick else 7), (16384, 3)):
        q, k, v = inputs(n)
        if quick and n == 16384:
            continue
        for name, mask in (("full", None), ("causal", causal)):
            kept = read(q, k, v, mask=mask)
            spot = slice(n // 2, n // 2 + 256), slice(n // 4, n // 4 + 256)
            times = interleaved(
                {
                    "sdpa": lambda: F.scaled_dot_product_attention(q, k, v, is_causal=mask is not None),
                    "read": lambda: read(q, k, v, mask=mask).lse,
                    "tile": lambda: kept.weights[spot],
                },
                rounds,
            )
            how = f"CPU s, median of {rounds}"
            value = ratio(times, "read", "sdpa")
            report.add(
                f"read + lse, {n} tokens, {name}",
                value,
                "x SDPA",
                target="<= 1.05",
                ok=value <= 1.05,
                against=PEER,
                how=how,
            )
            value = 100 * ratio(times, "tile", "sdpa")
            goal = {"target": "<= 1", "ok": value <= 1} if n == 16384 else {}
            report.add(f"exact 256 x 256 tile, {n} tokens, {name}", value, "% of SDPA", **goal, against=PEER, how=how)


def sentences(report: Report, quick: bool) -> None:
    """Batches of short sentences, as they are trained: one thread, and two for comparison."""
    for threads, (batch, heads, n, width), dtype in (
        (1, (89, 4, 25, 32), torch.bfloat16),
        (1, (89, 4, 25, 32), torch.float32),
        (1, (256, 4, 12, 32), torch.bfloat16),
        (2, (89, 4, 25, 32), torch.bfloat16),
    ):
        torch.set_num_threads(threads)
        q, k, v = inputs(n, batch=batch, heads=heads, width=width, dtype=dtype)
        rounds = 31 if quick else 101
        times = interleaved(
            {"sdpa": lambda: F.scaled_dot_product_attention(q, k, v), "read": lambda: read(q, k, v).lse}, rounds
        )
        value = ratio(times, "read", "sdpa")
        goal = {"target": "<= 0.5", "ok": value <= 0.5} if dtype == torch.bfloat16 and threads == 1 else {}
        what = f"read + lse, {batch} sentences of {n}, {heads} heads x {width}, {str(dtype)[6:]}, {threads} thread(s)"
        report.add(what, value, "x SDPA", **goal, against=PEER, how=f"CPU s, median of {rounds}")
    torch.set_num_threads(2)


def summaries(report: Report, quick: bool) -> None:
    for n, rounds in ((4096, 3 if quick else 5), (16384, 1 if quick else 3)):
        if quick and n == 16384:
            continue
        q, k, v = inputs(n)

        def everything():
            reading = read(q, k, v)
            return reading.summary(top=8, bins=64)

        times = interleaved({"sdpa": lambda: F.scaled_dot_product_attention(q, k, v), "all": everything}, rounds)
        value = ratio(times, "all", "sdpa")
        what = f"output + lse + entropy + received + top-8 + overview, {n}"
        report.add(
            what, value, "x SDPA", target="<= 2.5", ok=value <= 2.5, against=PEER, how=f"CPU s, median of {rounds}"
        )
        reading = read(q, k, v)
        parts = {
            "sdpa": lambda: F.scaled_dot_product_attention(q, k, v),
            "received": reading.received,
            "entropy": reading.entropy,
        }
        times = interleaved(parts, rounds)
        for name in ("received", "entropy"):
            report.add(
                f"{name} alone, {n}",
                ratio(times, name, "sdpa"),
                "x SDPA",
                against=PEER,
                how=f"CPU s, median of {rounds}",
            )


def memory(report: Report, quick: bool) -> None:
    n = 4096 if quick else 32768
    found = {name: in_new_process(__file__, "peak", name, str(n))["bytes"] for name in ("sdpa", "read", "summary")}
    four = 4 * 8 * n * 64 * 4
    value = (found["read"] - found["sdpa"]) / four
    what = f"peak of read + lse beyond SDPA's, {n} tokens, 8 heads"
    report.add(what, value, "x q,k,v,out", target="<= 2", ok=value <= 2, against=PEER, how="RSS, a process each")
    value = (found["summary"] - found["sdpa"]) / four
    what = f"peak with every summary beyond SDPA's, {n} tokens, 8 heads"
    report.add(what, value, "x q,k,v,out", target="<= 2", ok=value <= 2, against=PEER, how="RSS, a process each")


def peak(name: str, n: int) -> None:
    """The peak of one case in this process, printed as JSON."""
    cases = {
        "sdpa": lambda q, k, v: F.scaled_dot_product_attention(q, k, v),
        "read": lambda q, k, v: read(q, k, v),
        "summary": lambda q, k, v: read(q, k, v).summary(),
    }
    with torch.inference_mode():
        cases[name](*inputs(256))
        q, k, v = inputs(n)
        print(json.dumps({"bytes": peak_above(lambda: cases[name](q, k, v))}))


def training(report: Report, quick: bool) -> None:
    n, rounds = (1024, 5) if quick else (4096, 3)
    q, k, v = (x.requires_grad_() for x in inputs(n))
    bias = torch.zeros(1, 8, 1, n, requires_grad=True)
    out = torch.randn(1, 8, n, 64)

    def step(mixed) -> None:
        mixed.backward(out)
        for x in (q, k, v, bias):
            x.grad = None

    times = interleaved(
        {
            "sdpa": lambda: step(F.scaled_dot_product_attention(q, k, v)),
            "read": lambda: step(read(q, k, v).mixed),
            "bias": lambda: step(read(q, k, v, bias=bias).mixed),
            "mask": lambda: step(F.scaled_dot_product_attention(q, k, v, attn_mask=bias)),
        },
        rounds,
    )
    for name, what in (
        ("read", "read"),
        ("bias", "read with a learned bias per key"),
        ("mask", "SDPA with a learned mask"),
    ):
        report.add(
            f"{what}, forward + backward, {n}",
            ratio(times, name, "sdpa"),
            "x SDPA",
            against=PEER,
            how=f"CPU s, median of {rounds}",
        )


def backward(report: Report, quick: bool) -> None:
    """Forward and backward in bfloat16: torch's kernel goes back in bfloat16, ours in float32."""
    for keys, batch in ((36, 80), (120, 24), (1024, 2)):
        x = [torch.randn(batch, 4, keys, 32, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]

        def step(mixed, x=x) -> None:
            torch.autograd.grad(mixed.sum(), x)

        times = interleaved(
            {
                "sdpa": lambda x=x: step(F.scaled_dot_product_attention(*x)),
                "read": lambda x=x: step(read(*x).mixed),
            },
            3 if quick else 11,
        )
        what = f"read, forward + backward in bfloat16, {keys} keys"
        report.add(what, ratio(times, "read", "sdpa"), "x SDPA", against=PEER, how="CPU s, median")


def rule(report: Report, quick: bool) -> None:
    """Two products against the fused kernel by number of keys: what SHORT_KEYS in read/choose.py was taken from."""
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        for keys in (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512):
            q, k, v = inputs(keys, batch=max(1, 16384 // (8 * keys)), dtype=dtype)
            times = interleaved(
                {"fused": lambda: read(q, k, v, path="fused"), "matmul": lambda: read(q, k, v, path="matmul")},
                5 if quick else 21,
            )
            what = f"two products, {keys} keys, {str(dtype)[6:]}"
            report.add(what, ratio(times, "matmul", "fused"), "x fused", against="the fused path", how="CPU s, median")


SECTIONS = {"seeing": seeing, "sentences": sentences, "summaries": summaries, "memory": memory, "training": training}
SECTIONS |= {"backward": backward}

if __name__ == "__main__":
    if sys.argv[1:2] == ["peak"]:
        peak(sys.argv[2], int(sys.argv[3]))
    else:
        options = arguments(__doc__)
        torch.set_num_threads(2)
        for section in options.sections or SECTIONS:
            with torch.inference_mode(section not in ("training", "backward")):
                (SECTIONS | {"rule": rule})[section](Report(options.json), options.quick)
