"""A memory inside a language model: facts told long ago, and the perplexity of long texts; SmolLM2 with and without it.

The model sees the last 1,024 tokens, with and without the memory. `facts`: codes are stated among paragraphs of XQuAD-en,
more than 4,096 tokens before they are asked for. `again` and the names of documents: the second halves of long documents
of MASC (speeches, fiction, travel guides, …) and of a text that tells its facts again, the first halves of which the
memory has read. How keys are made, the two heads and how belief is learned were chosen on facts of seed 100 (12 and 17)
and on the first 3,000 and 4,000 tokens of the two documents named in TUNED; neither is used here.
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
from functools import partial
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
)


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
    """The share of codes that a greedy answer gives, each asked for after the last 64 tokens of the text."""
    right = 0
    for name, code in facts:
        asked = loaded.tokenizer(ASKED.format(name=name))["input_ids"]
        given = torch.tensor([before[-64:] + asked])
        with quiet():
            out = loaded.model.generate(
                given, attention_mask=torch.ones_like(given), max_new_tokens=6, do_sample=False,
                pad_token_id=loaded.tokenizer.eos_token_id,
            )  # fmt: skip
        right += loaded.tokenizer.decode(out[0, given.shape[1] :]).strip().startswith(code)
    return right / len(facts)


@torch.no_grad()
def free_answers(loaded: Any, facts: list[tuple[str, str]]) -> float:
    """The share of codes that are in a greedy answer of 24 tokens to a question in the model's own chat form."""
    right = 0
    for name, code in facts:
        chat = [{"role": "user", "content": f"What is the code of the {name}?"}]
        with quiet():
            text = loaded.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
            given = loaded.tokenizer(text, return_tensors="pt")
            out = loaded.model.generate(
                **given, max_new_tokens=24, do_sample=False, pad_token_id=loaded.tokenizer.eos_token_id
            )
        right += code in loaded.tokenizer.decode(out[0, given["input_ids"].shape[1] :])
    return right / len(facts)


@torch.no_grad()
def answers_seeing_all(model: Any, tokenizer: Any, before: list[int], facts: list[tuple[str, str]]) -> float:
    """The same with all of the text before the model: no memory that hands it the same keys and values can do more."""
    cache, right = None, 0
    for a in range(0, len(before), 512):
        cache = model(torch.tensor([before[a : a + 512]]), cache=cache, use_cache=True, logits_to_keep=1).cache
    for name, code in facts:
        asked, told = tokenizer(ASKED.format(name=name))["input_ids"], tokenizer(f" {code}")["input_ids"]
        out = model(torch.tensor([asked + told[:-1]]), cache=cache, use_cache=True, logits_to_keep=len(told))
        right += out.logits[0].argmax(-1).tolist() == told
        cache.crop(len(before) - cache.get_seq_length())
    return right / len(facts)


def facts(report: Report, small: bool) -> None:
    loaded = load("smollm2")
    seeds, count = ((1,), 6) if small else ((1, 2, 3), 17)
    alone, recalled, forgotten = [], [], []
    for seed in seeds:
        ids, told = facts_among(loaded.tokenizer, seed, count, FAR + 32)
        alone.append(answers(loaded, ids, told))
        with tempfile.TemporaryDirectory() as folder:
            with remember_in(loaded, Path(folder) / "facts.db", window=WINDOW) as memory:
                memory.read(ids, new=WINDOW if small else WINDOW * 3 // 4)
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


def chat(report: Report, small: bool) -> None:
    loaded, count = load("smollm2"), 4 if small else 17
    ids, told = facts_among(loaded.tokenizer, 1, count, 256)
    with tempfile.TemporaryDirectory() as folder, remember_in(loaded, Path(folder) / "facts.db") as memory:
        memory.read(ids)
        right = free_answers(loaded, told)
    how = f"{count} codes of seed 1, asked in a chat of its own, 24 tokens, greedy; the answer is not begun for it"
    report.add("the codes, freely answered, with the memory", 100 * right, "% recalled", how=how)


def whole(report: Report, small: bool) -> None:
    loaded, count = load("smollm2"), 4 if small else 17
    ids, told = facts_among(loaded.tokenizer, 1, count, 1024 if small else FAR + 32)
    right = answers_seeing_all(loaded.model, loaded.tokenizer, ids, told)
    how = f"{count} codes of seed 1, {len(ids):,} tokens; the right code is the greedy answer"
    report.add("the codes, the model alone seeing all of the text", 100 * right, "% recalled", how=how)


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
def nats_seeing_all(model: Any, ids: list[int]) -> np.ndarray:
    """-log p of every token but the first, the model seeing all of the text."""
    cache, nats = None, []
    for a in range(0, len(ids) - 1, 512):
        part = torch.tensor([ids[a : a + 512]])
        out = model(part, cache=cache, use_cache=True)
        cache, after = out.cache, torch.tensor(ids[a + 1 : a + 1 + part.shape[1]])
        nats.append(torch.nn.functional.cross_entropy(out.logits[0, : len(after)], after, reduction="none"))
    return torch.cat(nats).numpy()


def told_again(tokenizer: Any, seed: int, length: int) -> list[int]:
    """Tokens of a text of facts among other sentences, each fact of the first half told once more in the second."""
    chance = random.Random(seed)
    names = chance.sample([f"{colour} {thing}" for colour in COLOURS for thing in THINGS], length // 100)
    facts = [f"The code of the {name} is {chance.randrange(1000, 10000)}." for name in names]
    sentences = iter(re.split(r"(?<=[.!?]) ", " ".join(chance.sample(paragraphs(), 120))))
    halves = [[f"{next(sentences)} {fact}" for fact in order] for order in (facts, chance.sample(facts, len(facts)))]
    with quiet():
        return tokenizer(" ".join(halves[0] + halves[1]))["input_ids"][:length]


def text(report: Report, loaded: Any, name: str, ids: list[int], *, see_all: bool) -> None:
    """The perplexity of the second half, by the model with and without the memory, and by the model seeing all of it."""
    with tempfile.TemporaryDirectory() as folder, remember_in(loaded, Path(folder) / "text.db") as memory:
        read = memory.read(ids)
    half = len(ids) // 2
    alone, both = (float(np.exp(nats[half:].mean())) for nats in (read.plain, read.nats))
    report.add(
        f"perplexity, second half of {name}, with the memory", both, "", target=f"< {alone:.4g}", ok=both < alone,
        against="the model alone", how=f"{len(ids):,} tokens, window {WINDOW}",
    )  # fmt: skip
    if see_all:
        seen = float(np.exp(nats_seeing_all(loaded.model, ids)[half:].mean()))
        report.add(f"perplexity, second half of {name}, seeing all of it", seen, "", how=f"{len(ids):,} tokens")


def again(report: Report, small: bool) -> None:
    loaded = load("smollm2")
    for seed in (1,) if small else (1, 2, 3):
        ids = told_again(loaded.tokenizer, seed, 1536 if small else 3000)
        text(report, loaded, f"facts told again ({seed})", ids, see_all=seed == 1 and not small)


def written(name: str, report: Report, small: bool) -> None:
    loaded = load("smollm2")
    with quiet():
        ids = loaded.tokenizer(document(name))["input_ids"][: 1024 if small else 4000]
    text(report, loaded, Path(name).stem, ids, see_all=not small)


def times(report: Report, small: bool) -> None:
    """CPU time to read a token and to say one, with the memory and without it, in turn."""
    loaded, length = load("smollm2"), 1024 if small else 3072
    ids = told_again(loaded.tokenizer, 1, 3072)[:length]
    alone, both = [], []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(1 if small else 3):
            start = time.process_time()
            windows(loaded.model, ids, WINDOW // 2)
            alone.append(1000 * (time.process_time() - start) / len(ids))
            with remember_in(loaded, Path(folder) / f"{turn}.db") as memory:
                start = time.process_time()
                memory.read(ids)
                both.append(1000 * (time.process_time() - start) / len(ids))
        how = f"CPU, {len(ids):,} tokens, window {WINDOW}, half of it new"
        report.add("time to read a token, the model alone", median(alone), "ms", how=how)
        report.add("time to read a token and remember it", median(both), "ms", against="the model alone", how=how)
        speaking(report, loaded, Path(folder) / "0.db", ids[:64], 8 if small else 24)


@torch.no_grad()
def speaking(report: Report, loaded: Any, file: Path, before: list[int], count: int) -> None:
    given = torch.tensor([before])

    def say() -> float:
        start = time.process_time()
        with quiet():
            loaded.model.generate(
                given, attention_mask=torch.ones_like(given), max_new_tokens=count, min_new_tokens=count,
                do_sample=False, pad_token_id=loaded.tokenizer.eos_token_id,
            )  # fmt: skip
        return 1000 * (time.process_time() - start) / count

    alone, both = [], []
    for _ in range(3):
        alone.append(say())
        with remember_in(loaded, file) as memory:
            both.append(say())
            rows = memory.store.stats().rows
    how = f"CPU, median of 3, {count} tokens, {rows:,} rows"
    report.add("time to say a token, the model alone", median(alone), "ms", how=how)
    report.add("time to say a token with the memory", median(both), "ms", against="the model alone", how=how)


XQUAD, MASC = "xquad/xquad.en.json", "semcor/google_semcor_masc_noad_xml.tar.gz"
SECTIONS = {
    "facts": (facts, XQUAD),
    "chat": (chat, XQUAD),
    "whole": (whole, XQUAD),
    "again": (again, XQUAD),
    "times": (times, XQUAD),
    **{Path(name).stem: (partial(written, name), MASC) for name in TEXTS},
}
QUICK = ("facts", "again")


def main() -> None:
    options = arguments(__doc__ or "")
    report = Report(options.json)
    for name in options.sections or (QUICK if options.quick else SECTIONS):
        section, needed = SECTIONS[name]
        if (DATA / needed).is_file():
            section(report, options.quick)
        else:
            print(f"{name}: needs the data folder; set RECUERDO_DATA to where {needed} lies", file=sys.stderr)


if __name__ == "__main__":
    main()
