"""Looking into real models: what it costs, and whether the map points at the evidence.

python benchmarks/look.py            all of it (the evidence section takes about half an hour on two cores)
python benchmarks/look.py --quick    under 50 s
python benchmarks/look.py evidence   one section: families, long, evidence
"""

import importlib.util
import json
import os
import re
import shutil
import sys
import time
from pathlib import Path

from measure import ROOT, Report, arguments, cpu, in_new_process, median, peak_above, peak_of_process

import numpy as np  # isort: skip
import torch

QUESTION = "Who has the power to try all impeachments?"
LONG = ROOT / "benchmarks/texts/constitution.txt"


# ------------------------------------------------------------------------------------------------ a model of GPT-2 size


def gpt2(implementation: str, tokens: int, layers: int) -> None:
    """One case in this process: CPU seconds, and peak memory above the model, printed as JSON."""
    import transformers

    from recuerdo.bridge import watch

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    config = transformers.GPT2Config(n_positions=tokens, n_layer=layers, use_cache=False)
    config._attn_implementation = "eager" if implementation == "weights" else "sdpa"
    model = transformers.GPT2Model(config).eval()
    ids = torch.randint(0, 1000, (1, tokens), generator=torch.Generator().manual_seed(0))

    def run(ids):
        if implementation == "weights":
            return model(ids, output_attentions=True)
        if implementation == "plain":
            return model(ids)
        with watch(model) as seen:
            model(ids)
        return seen

    with torch.inference_mode():
        run(ids[:, :64])
        found = {
            "bytes": peak_above(lambda: run(ids)),
            "cpu": median([cpu(lambda: run(ids)) for _ in range(1 if layers < 12 else 3)]),
        }
    print(json.dumps(found))


def families(report: Report, quick: bool) -> None:
    tokens, layers = (4096, 2) if quick else (4096, 12)
    found = {
        name: in_new_process(__file__, "gpt2", name, str(tokens), str(layers))
        for name in ("plain", "watched", "weights")
    }
    what, how = (
        f"GPT-2 ({layers} layers) at {tokens:,} tokens",
        f"CPU s, median of {1 if quick else 3}; RSS; a process each",
    )
    against = "output_attentions=True"
    value = found["weights"]["cpu"] / found["watched"]["cpu"]
    report.add(f"{what}: watched, times faster", value, "x", target=">= 2", ok=value >= 2, against=against, how=how)
    value = found["weights"]["bytes"] / found["watched"]["bytes"]
    goal = {} if quick else {"target": ">= 10", "ok": value >= 10}  # what is saved grows with the layers
    report.add(f"{what}: watched, times less memory", value, "x", **goal, against=against, how=how)
    value = found["watched"]["cpu"] / found["plain"]["cpu"]
    report.add(
        f"{what}: watched", value, "x plain", target="<= 1.1", ok=value <= 1.1, against="sdpa, unwatched", how=how
    )


# ---------------------------------------------------------------------------------------------------- a long document


def shortened(text: str, tokens: int) -> str:
    """The start of a text, whole paragraphs, of at most so many tokens of SmolLM2."""
    from transformers import AutoTokenizer

    from recuerdo.bridge.catalogue import resolve

    tokenizer = AutoTokenizer.from_pretrained(resolve("smollm2"))
    parts, kept = text.split("\n\n"), []
    for part in parts:
        if len(tokenizer("\n\n".join([*kept, part]))["input_ids"]) > tokens:
            break
        kept.append(part)
    return "\n\n".join(kept)


def cells_of_page(page: Path):
    """The cells of the token map, unpacked from the file."""
    import base64
    import gzip

    from recuerdo.explain.sparse import Sparse

    text = page.read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="recuerdo-data">(.*?)</script>', text, re.DOTALL).group(1))["map"]["cells"]
    kinds = {"u16": "<u2", "u32": "<u4"}
    start, index, value = (
        np.frombuffer(gzip.decompress(base64.b64decode(data[k]["data"])), kinds[data[k]["dtype"]])
        for k in ("start", "index", "value")
    )
    return Sparse(
        (data["rows"], data["cols"]),
        start.astype(int),
        index.astype(int),
        value / 65535 * data["value"]["max"],
        data["floor"],
    )


def one_long(tokens: int, out: str) -> None:
    """`recuerdo look` over a long document in this process: its seconds and its peak, printed as JSON."""
    from recuerdo.explain import render
    from recuerdo.workbench.looking import look

    torch.set_num_threads(2)
    text = shortened(LONG.read_text(encoding="utf-8"), tokens)
    start = time.time()
    seen = look("smollm2", text, question=QUESTION, generate=32).draw_map()
    heard = time.time() - start
    render.write(seen.evidence, Path(out))
    cells, worst, shown = cells_of_page(Path(out)), 0.0, 0
    n = cells.shape[0]
    for r, c in ((n // 2, n // 2), (n - 64, 0), (n - 64, n - 128), (n // 3, n // 3 - 32), (n // 4, 0)):
        # Tiles as the page holds them, against weights worked out anew.
        exact = seen.tile(slice(r, r + 64), slice(c, c + 64))
        listed = np.stack([cells.row(i)[c : c + 64] for i in range(r, r + 64)])
        shown += int((listed > 0).sum())
        worst = max(worst, float(np.abs(np.where(exact >= cells.floor, exact - listed, 0)).max()))
    row = {
        "seconds": heard,
        "peak": peak_of_process(),
        "page": Path(out).stat().st_size,
        "worst": worst,
        "shown": shown,
    }
    print(json.dumps(row | {"tokens": seen.evidence.tokens, "floor": cells.floor, "answer": seen.heard.answer}))


def seconds_to_open(page: Path) -> float | None:
    """From the address to all maps unpacked, in an installed Chromium; None without one."""
    program = next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None)
    if program is None or importlib.util.find_spec("playwright") is None:
        return None
    from playwright.sync_api import sync_playwright

    taken = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        for _ in range(3):
            tab, start = browser.new_page(), time.time()
            tab.goto(page.resolve().as_uri())
            while not tab.evaluate("() => !!window.recuerdo"):
                tab.wait_for_timeout(20)
            taken.append(time.time() - start)
        browser.close()
    return median(taken)


def long(report: Report, quick: bool) -> None:
    out = os.environ.get("RECUERDO_BENCH_PAGE", "/dev/shm/recuerdo-long.html")
    found = in_new_process(__file__, "long", "800" if quick else "7500", out)
    what, how = f"look over {found['tokens']:,} tokens, answer of 32", "one process"
    report.add(f"{what}: peak memory", found["peak"] / 1e9, "GB", target="<= 3.5", ok=found["peak"] <= 3.5e9, how=how)
    report.add(f"{what}: page", found["page"] / 1e6, "MB", target="<= 2", ok=found["page"] <= 2e6, how=how)
    report.add(f"{what}: largest error of a listed cell", found["worst"], "weight", target="<= 1e-5", ok=found["worst"] <= 1e-5,
               how=f"{found['shown']} cells of 5 tiles against exact ones; cells below {found['floor']:.1e} are not listed")  # fmt: skip
    report.add(f"{what}: wall", found["seconds"], "s", how=how)
    opened = seconds_to_open(Path(out))
    if opened is not None:
        report.add(
            f"{what}: page opens",
            opened,
            "s",
            target="< 2",
            ok=opened < 2,
            against="Chromium, headless",
            how="median of 3",
        )


# ------------------------------------------------------------------------------------------- does it point at the evidence


def data_folder() -> Path:
    return Path(os.environ.get("RECUERDO_DATA", ROOT.parent / "shared/data"))


def questions(rounds: int) -> list[dict]:
    """Up to `rounds` questions of every XQuAD-en paragraph, drawn by a fixed seed; halves are split by paragraph."""
    file = data_folder() / "xquad/xquad.en.json"
    paragraphs = [p for article in json.loads(file.read_text())["data"] for p in article["paragraphs"]]
    tuning = set(np.random.default_rng(2026).permutation(len(paragraphs))[: len(paragraphs) // 2].tolist())
    drawn = []
    for number, paragraph in enumerate(paragraphs):
        order = np.random.default_rng(1000 + number).permutation(len(paragraph["qas"]))[:rounds]
        drawn += [
            {"half": "tuning" if number in tuning else "scoring", "paragraph": number, "context": paragraph["context"]}
            | {"question": paragraph["qas"][i]["question"], "answers": paragraph["qas"][i]["answers"]}
            for i in order
        ]
    return drawn


def plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).lower()


def judged(loaded, item: dict) -> dict | None:
    """What every view says about one question; None when the model did not answer it or the context is too short."""
    from recuerdo.explain.words import cut
    from recuerdo.workbench.looking import look

    text = cut(item["context"])
    if len(text.sentences) < 3:
        return None
    seen = look(loaded, item["context"], question=item["question"], generate=24)
    answer = seen.heard.answer
    hits = [a for a in item["answers"] if plain(a["text"]) in plain(answer)]
    if not hits:
        return None
    spans, of = np.array(text.spans), text.sentence_of()
    gold: set[int] = set()
    for hit in hits:
        for at in (m.start() for m in re.finditer(re.escape(hit["text"]), item["context"])):
            inside = (spans[:, 0] < at + len(hit["text"])) & (spans[:, 1] > at)
            gold |= set(of[inside].tolist())
    first = answer.lower().find(hits[0]["text"].lower())
    chosen = [
        1 + i for i, (a, b) in enumerate(seen.evidence.answer.spans) if a < first + len(hits[0]["text"]) and b > first
    ] if first >= 0 else [0]  # fmt: skip
    found = {"half": item["half"], "chance": len(gold) / len(text.sentences), "first": float(0 in gold)}
    for view in seen.evidence.views:
        rows = np.mean([view.map.row(q) for q in chosen], 0)
        best = int(np.bincount(of, rows, minlength=len(text.sentences)).argmax())
        found[f"{view.name}, the answer's words"] = float(best in gold)
        found[f"{view.name}, the whole answer"] = float(int(seen.evidence.sentences(view.name).argmax()) in gold)
    return found


def evidence(report: Report, quick: bool) -> None:
    from recuerdo.bridge.run import load

    if not data_folder().is_dir():
        print("evidence: needs the data folder; set RECUERDO_DATA to where xquad/xquad.en.json lies", file=sys.stderr)
        return
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    loaded, found, start = load("smollm2"), [], time.time()
    drawn = questions(1 if quick else 3)
    for number, item in enumerate(drawn[::3] if quick else drawn):
        row = judged(loaded, item)
        found += [row] if row is not None else []
        if quick and time.time() - start > 8:
            break
        if number % 50 == 49:
            print(
                f"evidence: {number + 1} of {len(drawn)} questions, {len(found)} answered", file=sys.stderr, flush=True
            )
    for half in ("tuning", "scoring"):
        rows = [row for row in found if row["half"] == half]
        for name in rows[0] if rows else ():
            if name == "half":
                continue
            hits = np.array([row[name] for row in rows])
            draws = np.random.default_rng(0).choice(hits, (2000, len(hits))).mean(1)
            low, high = 100 * np.quantile(draws, [0.025, 0.975])
            judged_by = not quick and half == "scoring" and name == "lift, the answer's words"
            target = {"target": ">= 93", "ok": 100 * hits.mean() >= 93} if judged_by else {}
            how = f"{len(rows)} answered questions, 95 % [{low:.1f}, {high:.1f}]"
            report.add(
                f"right sentence, {half} half: {name}",
                100 * float(hits.mean()),
                "%",
                **target,
                against="XQuAD-en gold",
                how=how,
            )


SECTIONS = {"families": families, "long": long, "evidence": evidence}

if __name__ == "__main__":
    words = sys.argv[1:]
    if words[:1] == ["gpt2"]:
        gpt2(words[1], int(words[2]), int(words[3]))
    elif words[:1] == ["long"] and len(words) == 3:
        one_long(int(words[1]), words[2])
    else:
        options = arguments(__doc__)
        for section in options.sections or SECTIONS:
            SECTIONS[section](Report(options.json), options.quick)
