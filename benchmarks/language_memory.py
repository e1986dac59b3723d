"""A memory inside a language model: facts told long ago, and the perplexity of long texts; SmolLM2 with and without it.

The model sees the last 1,024 tokens, with and without the memory. `facts`: codes are stated among paragraphs of XQuAD-en,
more than 4,096 tokens before they are asked for. `texts`: the second half of long documents of MASC (speeches, fiction,
travel guides, …), the first half of which the memory has read. How keys are made and the two heads were
chosen on 12 facts of seed 100 and on the first 3,000 tokens of the two documents named in TUNED; neither is used here.
"""

import html
import json
import os
import random
import re
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import ROOT, Report, arguments, median

from recuerdo.bridge.remembering import remember_in
from recuerdo.bridge.run import load, quiet

DATA = Path(os.environ.get("RECUERDO_DATA", ROOT.parent / "shared/data"))
WINDOW, FAR = 1024, 4096
COLOURS = ("red", "blue", "green", "yellow", "white", "black", "brown", "golden", "silver", "purple", "orange", "pink")
THINGS = ("gate", "door", "safe", "tower", "boat", "garden", "house", "bridge", "cellar", "mill")
ASKED = "\n\nWhat is the code of the {name}? The code of the {name} is"
TUNED = ("spoken/debate-transcript/2nd_Gore-Bush.xml", "written/non-fiction/CUP1.xml")
TEXTS = (
    "spoken/debate-transcript/3rd_Bush-Kerry.xml",
    "written/travel-guides/WhereToHongKong.xml",
    "written/fiction/hotel-california.xml",
    "spoken/court-transcript/Lessig-court-transcript.xml",
    "written/essays/Ant_Robot.xml",
    "written/movie-script/pirates.xml",
)


def missing(section: str, name: str) -> None:
    print(f"{section}: needs the data folder; set RECUERDO_DATA to where {name} lies", file=sys.stderr)


# ---------------------------------------------------------------------------------------------------------------- facts


def paragraphs() -> list[str]:
    told = json.loads((DATA / "xquad/xquad.en.json").read_text(encoding="utf-8"))
    return [p["context"] for document in told["data"] for p in document["paragraphs"]]


def facts_among(tokenizer: Any, seed: int, count: int, far: int) -> tuple[list[int], list[tuple[str, str]]]:
    """Tokens of a text that states `count` codes between sentences, and then goes on for `far` tokens without any."""
    chance = random.Random(seed)
    names = chance.sample([f"{colour} {thing}" for colour in COLOURS for thing in THINGS], count)
    facts = [(name, str(chance.randrange(1000, 10000))) for name in names]
    filler = chance.sample(paragraphs(), 60)
    sentences = re.split(r"(?<=[.!?]) ", " ".join(filler[:8]))
    told = [f"{sentences[i]} The code of the {name} is {code}." for i, (name, code) in enumerate(facts)]
    with quiet():
        head = tokenizer(" ".join(told) + " ")["input_ids"]
        rest = tokenizer(" ".join(filler[8:]))["input_ids"]
    return head + rest[:far], facts


@torch.no_grad()
def answers(loaded: Any, before: list[int], facts: list[tuple[str, str]]) -> float:
    """The share of codes that a greedy answer gives, each asked for after the last tokens of the text."""
    right = 0
    for name, code in facts:
        asked = loaded.tokenizer(ASKED.format(name=name))["input_ids"]
        given = torch.tensor([before[-(WINDOW - len(asked) - 8) :][-192:] + asked])
        with quiet():
            out = loaded.model.generate(
                given, attention_mask=torch.ones_like(given), max_new_tokens=6, do_sample=False,
                pad_token_id=loaded.tokenizer.eos_token_id,
            )  # fmt: skip
        right += loaded.tokenizer.decode(out[0, given.shape[1] :]).strip().startswith(code)
    return right / len(facts)


def facts(report: Report, small: bool) -> None:
    if not (DATA / "xquad/xquad.en.json").is_file():
        missing("facts", "xquad/xquad.en.json")
        return
    loaded = load("smollm2")
    seeds, count = ((1,), 8) if small else ((1, 2, 3), 20)
    alone, recalled, forgotten = [], [], []
    for seed in seeds:
        ids, told = facts_among(loaded.tokenizer, seed, count, FAR + 32)
        alone.append(answers(loaded, ids, told))
        with tempfile.TemporaryDirectory() as folder:
            with remember_in(loaded, Path(folder) / "facts.db", window=WINDOW) as memory:
                memory.read(ids, new=WINDOW * 3 // 4)
            with remember_in(loaded, Path(folder) / "facts.db", window=WINDOW) as memory:
                recalled.append(answers(loaded, ids, told))
                memory.forget(f"{told[0][0]} is {told[0][1]}")
                forgotten.append(answers(loaded, ids, told[:1]))
    how = f"{count} codes each of seeds {', '.join(map(str, seeds))}, told > {FAR:,} tokens before, greedy"
    report.add("facts told long ago, the model alone", 100 * float(np.mean(alone)), "% recalled", how=how)
    report.add(
        "facts told long ago, with the memory", 100 * float(np.mean(recalled)), "% recalled", target=">= 90 %",
        ok=float(np.mean(recalled)) >= 0.9, against="the model alone", how=f"{how}; the memory opened again",
    )  # fmt: skip
    report.add(
        "the same, one of each seed, after `forget`", 100 * float(np.mean(forgotten)), "% recalled", target="0",
        ok=sum(forgotten) == 0, how=how,
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------- texts


def document(name: str) -> str:
    """A document of MASC as it was written."""
    breaks = {"NO_BREAK": "", "SPACE_BREAK": " ", "LINE_BREAK": "\n", "SENTENCE_BREAK": " ", "PARAGRAPH_BREAK": "\n\n"}
    with tarfile.open(DATA / "semcor/google_semcor_masc_noad_xml.tar.gz") as files:
        file = files.extractfile(f"google_semcor_masc/masc/{name}")
        told = file.read().decode() if file else ""
    words = re.findall(r'<word text="([^"]*)".*?break_level="(\w+)"', told)
    return "".join(breaks.get(gap, " ") + html.unescape(word) for word, gap in words).strip()


@torch.no_grad()
def windows(model: Any, ids: list[int], new: int) -> None:
    """What `memory.read` asks of the model, without the memory: for the time that it takes."""
    for start in range(0, len(ids) - 1, new):
        end = min(start + new, len(ids))
        begin = 0 if not start else max(0, end - WINDOW)
        model(torch.tensor([ids[begin:end]]), use_cache=False, logits_to_keep=end - start).logits.log_softmax(-1)


@torch.no_grad()
def whole(model: Any, ids: list[int]) -> np.ndarray:
    """-log p of every token but the first, the model seeing all of the text."""
    cache, nats = None, []
    for a in range(0, len(ids) - 1, 512):
        part = torch.tensor([ids[a : a + 512]])
        out = model(part, cache=cache, use_cache=True)
        cache, after = out.cache, torch.tensor(ids[a + 1 : a + 1 + part.shape[1]])
        nats.append(torch.nn.functional.cross_entropy(out.logits[0, : len(after)], after, reduction="none"))
    return torch.cat(nats).numpy()


def texts(report: Report, small: bool) -> None:
    if not (DATA / "semcor/google_semcor_masc_noad_xml.tar.gz").is_file():
        missing("texts", "semcor/google_semcor_masc_noad_xml.tar.gz")
        return
    loaded = load("smollm2")
    length, names = (1536, TEXTS[:1]) if small else (6000, TEXTS)
    rows: dict[str, list[float]] = {"alone": [], "memory": [], "all": [], "alone s": [], "memory s": []}
    for name in names:
        with quiet():
            ids = loaded.tokenizer(document(name))["input_ids"][:length]
        start = time.process_time()
        windows(loaded.model, ids, WINDOW // 2)
        rows["alone s"].append((time.process_time() - start) / len(ids))
        with tempfile.TemporaryDirectory() as folder, remember_in(loaded, Path(folder) / "text.db") as memory:
            start = time.process_time()
            read = memory.read(ids)
            rows["memory s"].append((time.process_time() - start) / len(ids))
        half = len(ids) // 2
        rows["alone"].append(float(read.plain[half:].mean()))
        rows["memory"].append(float(read.nats[half:].mean()))
        if not small:
            rows["all"].append(float(whole(loaded.model, ids)[half:].mean()))
        report.add(
            f"perplexity, second half of {Path(name).stem}, with the memory", float(np.exp(rows["memory"][-1])), "",
            target=f"< {np.exp(rows['alone'][-1]):.2f}", ok=rows["memory"][-1] < rows["alone"][-1],
            against="the model alone", how=f"{len(ids):,} tokens, window {WINDOW}",
        )  # fmt: skip
    how = f"{len(names)} texts of {length:,} tokens, window {WINDOW}, second halves"
    for what, key in (("the model alone", "alone"), ("with the memory", "memory"), ("seeing all of it", "all")):
        if rows[key]:
            report.add(f"perplexity of long texts, {what}", float(np.exp(np.mean(rows[key]))), "", how=how)
    ratios = [b / a for a, b in zip(rows["alone s"], rows["memory s"], strict=True)]
    report.add("time to read a token, the model alone", 1000 * median(rows["alone s"]), "ms", how=f"CPU, {how}")
    report.add("time to read a token and remember it", 1000 * median(rows["memory s"]), "ms", how=f"CPU, {how}")
    report.add("the same, against the model alone", median(ratios), "x", against="the model alone", how=f"CPU, {how}")


SECTIONS = {"facts": facts, "texts": texts}


def main() -> None:
    options = arguments(__doc__ or "")
    report = Report(options.json)
    for name, section in SECTIONS.items():
        if not options.sections or name in options.sections:
            section(report, options.quick)


if __name__ == "__main__":
    main()
