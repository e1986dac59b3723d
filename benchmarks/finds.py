"""Does a memory find what answers a question? Attention and BM25 as one softmax, against BM25 and plain MiniLM.

python benchmarks/finds.py                     XQuAD-en; `turns` is left out without its data
python benchmarks/finds.py --quick             every third question, passages only; under 50 s
python benchmarks/finds.py turns --data FILE   the evidence turns of long conversations (locomo10.json)
"""

import os
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterable, Sequence
from pathlib import Path

from measure import ROOT, Report, arguments, data

import numpy as np  # isort: skip  (after measure has set the wait policy)
import torch

from recuerdo.bridge.sentences import SentenceEncoder
from recuerdo.data.questions import Conversation, Paragraph, conversations, paragraphs
from recuerdo.metrics import bootstrap_interval
from recuerdo.store.embedded import Embedded
from recuerdo.store.record import Rows
from recuerdo.workbench.remembering import SHARPNESS, WORDS, Memory

GRID = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.3)  # weights of a unit of BM25 beside 20 x cosine
BEST = 10  # turns that count as found


def xquad() -> list[Paragraph]:
    """XQuAD-en of the data folder; nothing, and a word about it, where it is not there."""
    file = Path(os.environ.get("RECUERDO_DATA", ROOT.parent / "shared/data")) / "xquad/xquad.en.json"
    if file.is_file():
        return paragraphs(file)
    print("paragraphs: needs the data folder; set RECUERDO_DATA to where xquad/xquad.en.json lies", file=sys.stderr)
    return []


class Scored:
    """Questions over rows: cosines and BM25, [questions, rows], as the store and the encoder of a memory give them."""

    def __init__(self, store: Embedded, encoder: SentenceEncoder, questions: Sequence[str]):
        self.ids, keys, _ = store.vectors()
        self.cosine = encoder.encode(questions) @ keys.T
        self.words = np.zeros_like(self.cosine)
        order = np.argsort(self.ids)
        for row, question in zip(self.words, questions, strict=True):
            ids, scores = store.matches(question)
            row[order[np.searchsorted(self.ids[order], ids)]] = scores

    def logits(self, words: float) -> np.ndarray:
        return SHARPNESS * self.cosine + words * self.words


def ranks(logits: np.ndarray, owner: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """The rank of each question's paragraph, [questions]; a paragraph is as good as its best row, ties share a rank."""
    best = np.full((len(logits), owner.max() + 1), -np.inf)
    for number in range(best.shape[1]):
        best[:, number] = logits[:, owner == number].max(1)
    own = best[np.arange(len(gold)), gold][:, None]
    return 1 + (best > own).sum(1) + ((best == own).sum(1) - 1) / 2


def crossed(of: dict[float, np.ndarray], half: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """Ranks [questions] where each half's weight is the one that is best on the other half; and both weights."""
    found, chosen = np.zeros(len(half)), []
    for judged in (half, ~half):
        best = max(of, key=lambda w: (np.mean(of[w][~judged] < 1.5), np.mean(1 / of[w][~judged])))
        found[judged] = of[best][judged]
        chosen.append(best)
    return found, chosen


def told(report: Report, what: str, rank: np.ndarray, how: str, *, target: bool = False, against: str = "") -> None:
    """R@1 and MRR of ranks."""
    hits = (rank < 1.5).astype(float)
    low, high = bootstrap_interval(hits)
    aim = {"target": ">= 0.93", "ok": hits.mean() >= 0.93} if target else {}
    interval = f"{how}; 95 % [{low:.3f}, {high:.3f}]"
    report.add(f"{what}, R@1", float(hits.mean()), "of questions", **aim, against=against, how=interval)
    report.add(f"{what}, MRR", float(np.mean(1 / rank)), "", against=against, how=how)


def halves(articles: Sequence[int]) -> np.ndarray:
    """Which of two halves each article is in, by a fixed seed."""
    names = sorted(set(articles))
    first = {names[i] for i in np.random.default_rng(2026).permutation(len(names))[: len(names) // 2]}
    return np.array([article in first for article in articles])


def paragraphs_found(report: Report, options: Namespace) -> None:
    """XQuAD-en: which of 240 paragraphs answers? Rows as `remember` cuts them, and whole paragraphs."""
    read = xquad()
    asked = [(number, one.question) for number, part in enumerate(read) for one in part.asked]
    asked = asked[:: 3 if options.quick else 1]
    gold, questions = np.array([n for n, _ in asked]), [question for _, question in asked]
    if not asked:
        return
    half = halves([one.article for one in read])[gold]
    with tempfile.TemporaryDirectory() as folder, Memory(Path(folder) / "passages.db") as memory:
        owner: list[int] = []
        for number, one in enumerate(read):
            owner += [number] * len(memory.remember(one.text, source=f"paragraph {number}").ids)
        judge(report, "passages", Scored(memory.store, memory.encoder, questions), np.array(owner), gold, half)
        best = [memory.ask(question, top=1).hops[0][0].record.id for question in questions[::40]]
        scored = Scored(memory.store, memory.encoder, questions[::40])
        same = scored.ids[scored.logits(WORDS).argmax(1)] == best
        report.add("`ask` has the same best row", float(same.mean()), "of questions", how=f"{len(same)} questions")
        if options.quick:
            return
        with Embedded(Path(folder) / "whole.db", width=memory.encoder.width) as store:
            store.append(Rows(memory.encoder.encode([one.text for one in read]), [one.text for one in read]))
            scored = Scored(store, memory.encoder, questions)
        judge(report, "whole paragraphs", scored, np.arange(len(read)), gold, half)


def judge(report: Report, what: str, scored: Scored, owner: np.ndarray, gold: np.ndarray, half: np.ndarray) -> None:
    """Ours, with constants chosen on the other half of the articles and with those that are shipped, and the peers."""
    of = {words: ranks(scored.logits(words), owner, gold) for words in GRID}
    rank, chosen = crossed(of, half)
    how = f"{len(gold)} questions over {owner.max() + 1} paragraphs in {len(owner)} rows"
    weights = f"BM25 x {' and '.join(f'{x:g}' for x in chosen)}, each chosen on the other half of the articles"
    told(report, f"{what}: attention + BM25", rank, f"{how}; {weights}", target=True)
    told(report, f"{what}: as shipped", of[WORDS], f"{how}; BM25 x {WORDS:g}, seen before")
    told(report, f"{what}: BM25 alone", ranks(scored.words, owner, gold), how, against="FTS5, Porter stems")
    told(report, f"{what}: MiniLM alone", of[0.0], how, against="cosine")


def turns(report: Report, options: Namespace) -> None:
    """Long conversations: how much of a question's evidence is among the ten turns that weigh most?"""
    if options.data is None:
        print("turns: needs --data FILE (locomo10.json, which has no licence to be shipped)", file=sys.stderr)
        return
    encoder = SentenceEncoder()
    found: dict[str, list[np.ndarray]] = {name: [] for name in ("attention + BM25", "BM25 alone", "MiniLM alone")}
    kinds: list[int] = []
    for one in conversations(options.data):
        kinds += [asked.category for asked in one.asked]
        for name, recall in zip(found, of_conversation(one, encoder), strict=True):
            found[name].append(recall)
    kind = np.array(kinds)
    for name, parts in found.items():
        recall = np.concatenate(parts)
        for group, rows in [("1-4", kind < 5), *((str(k), kind == k) for k in sorted(set(kinds)))]:
            ours = name == "attention + BM25" and group == "1-4"
            value = float(recall[rows].mean())
            aim = {"target": ">= 0.62", "ok": value >= 0.62} if ours else {}
            how = f"{int(rows.sum())} questions; BM25 x {WORDS:g}, as shipped"
            report.add(f"evidence turns, category {group}: {name}, R@10", value, "of evidence", **aim, how=how)


def of_conversation(one: Conversation, encoder: SentenceEncoder) -> Iterable[np.ndarray]:
    """Recall of each question's evidence [questions]: of both together, of BM25, of the cosine."""
    with tempfile.TemporaryDirectory() as folder, Embedded(Path(folder) / "turns.db", width=encoder.width) as store:
        texts = [turn.text for turn in one.turns]
        store.append(Rows(encoder.encode(texts), texts))
        scored = Scored(store, encoder, [asked.question for asked in one.asked])
    ids = np.array([turn.id for turn in one.turns])[np.argsort(np.argsort(scored.ids))]
    for logits in (scored.logits(WORDS), scored.words, scored.cosine):
        best = np.argsort(-logits, 1, kind="stable")[:, :BEST]
        yield np.array(
            [len(asked.turns & {*ids[row]}) / len(asked.turns) for asked, row in zip(one.asked, best, strict=True)]
        )


SECTIONS = {"paragraphs": paragraphs_found, "turns": turns}

if __name__ == "__main__":
    options = arguments(__doc__, data)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    for section in options.sections or SECTIONS:
        SECTIONS[section](Report(options.json), options)
