"""Does a memory answer, and does it say so when it cannot? XQuAD-en, SmolLM2 over what attention finds.

python benchmarks/answers.py                  all of it; some minutes on two cores
python benchmarks/answers.py --quick          a few questions, under 50 s
python benchmarks/answers.py known            only what is "not in memory", without a language model
python benchmarks/answers.py answers --questions 60
python benchmarks/answers.py chosen --questions 50    the same on the half where the default was chosen

Articles are cut into two halves by a fixed seed (as in `finds.py`). Constants are chosen on the first half, and
everything that is told of answers is of the second.
"""

import os
import sys
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from measure import ROOT, Report, arguments, questions

import numpy as np  # isort: skip  (after measure has set the wait policy)
import torch

from recuerdo.data.questions import Asked, Paragraph, paragraphs
from recuerdo.metrics import answer_f1, bootstrap_interval, exact_match, normal_answer
from recuerdo.workbench.answering import EPISODES, LEAST, MODEL, Answered, answer_from, sure_of
from recuerdo.workbench.looking import load
from recuerdo.workbench.remembering import Memory

MANY, FEW = 200, 16  # questions of `known` and of `answers`
QUICK_KNOWN, QUICK_ANSWERS = 16, 2
SOME = 30  # paragraphs of the quick run


def xquad(quick: bool) -> list[Paragraph]:
    """XQuAD-en of the data folder; nothing, and a word about it, where it is not there. Some of it where it is quick."""
    file = Path(os.environ.get("RECUERDO_DATA", ROOT.parent / "shared/data")) / "xquad/xquad.en.json"
    if file.is_file():
        return paragraphs(file)[: SOME if quick else None]
    print("answers: needs the data folder; set RECUERDO_DATA to where xquad/xquad.en.json lies", file=sys.stderr)
    return []


def fitted(articles: Sequence[int]) -> np.ndarray:
    """Which articles constants are chosen on."""
    names = sorted(set(articles))
    first = {names[i] for i in np.random.default_rng(2026).permutation(len(names))[: len(names) // 2]}
    return np.array([article in first for article in articles])


def drawn(read: list[Paragraph], first: bool, most: int, seed: int) -> list[tuple[int, Asked]]:
    """Some questions of one half of the articles: (paragraph, question)."""
    half = fitted([one.article for one in read])
    there = [(n, asked) for n, one in enumerate(read) for asked in one.asked if half[n] is np.bool_(first)]
    return [there[i] for i in np.random.default_rng(seed).permutation(len(there))[:most]]


def remembered(folder: str, read: list[Paragraph]) -> tuple[Memory, list[list[int]]]:
    """A memory of all paragraphs, and the rows of each."""
    memory = Memory(Path(folder) / "xquad.db")
    rows = [list(memory.remember(one.text, source=f"paragraph {n}").ids) for n, one in enumerate(read)]
    return memory, rows


# --------------------------------------------------------------------------------------------------- is it in memory?


def known(report: Report, options: Namespace) -> None:
    """Half of the paragraphs is forgotten; which questions are said to be in the memory?"""
    read = xquad(options.quick)
    if not read:
        return
    most = options.questions or (QUICK_KNOWN if options.quick else MANY)
    gone = set(np.random.default_rng(1).permutation(len(read))[: len(read) // 2].tolist())
    with tempfile.TemporaryDirectory() as folder:
        memory, rows = remembered(folder, read)
        with memory:
            receipt = memory.forget([id for n in gone for id in rows[n]], reason="benchmark")
            report.add("rows that were forgotten", receipt.rows, "rows", how=f"{len(gone)} of {len(read)} paragraphs")
            told = {first: _sure(memory, drawn(read, first, most, 2), gone) for first in (True, False)}
    for first, half in ((True, "first half"), (False, "second half")):
        sure, there = told[first]
        said, how = sure < LEAST, f"{len(sure)} questions, {int((~there).sum())} without their paragraph"
        if first:
            best = max(np.unique(sure.round(2)), key=lambda x: np.mean(sure[there] >= x) + np.mean(sure[~there] < x))
            report.add(f"{half}: the level that is best there", float(best), "", how=f"{how}; shipped: {LEAST}")
        report.add(f"{half}: more where the paragraph is there", _auc(sure, there), "AUC", how=how)
        report.add(
            f'{half}: "not in memory", precision', float(np.mean(~there[said])) if said.any() else 0.0, "", how=how
        )
        report.add(f'{half}: "not in memory", recall', float(np.mean(said[~there])), "", how=how)
        report.add(f"{half}: in memory, and said to be", float(np.mean(~said[there])), "of questions", how=how)


def _sure(memory: Memory, asked: list[tuple[int, Asked]], gone: set[int]) -> tuple[np.ndarray, np.ndarray]:
    sure = [sure_of(memory, memory.ask(one.question, top=EPISODES)) for _, one in asked]
    return np.array(sure), np.array([number not in gone for number, _ in asked])


def _auc(sure: np.ndarray, there: np.ndarray) -> float:
    """How often a question whose paragraph is there gets more than one whose is not."""
    more = sure[there][:, None] - sure[~there][None]
    return float(np.mean((more > 0) + 0.5 * (more == 0)))


# ------------------------------------------------------------------------------------------------------------ answers


def answers(report: Report, options: Namespace, *, first: bool = False) -> None:
    """What SmolLM2 answers, with and without following the memory's weights, and whether it cites where that stands."""
    read = xquad(options.quick)
    if not read:
        return
    asked = drawn(read, first, options.questions or (QUICK_ANSWERS if options.quick else FEW), 3)
    loaded = load(MODEL)
    with tempfile.TemporaryDirectory() as folder:
        memory, _ = remembered(folder, read)
        with memory:
            found = [memory.ask(one.question) for _, one in asked]
            for what, follow in (("plain", False), ("following the weights", True)):
                said = [answer_from(memory, one, model=loaded, follow=follow) for one in found]
                _judge(
                    report, f"{'first half, ' if first else ''}{what}", memory, said, [one.answers for _, one in asked]
                )


def _judge(report: Report, what: str, memory: Memory, said: list[Answered], gold: list[tuple[str, ...]]) -> None:
    right = [_holds(one.answer, some) for one, some in zip(said, gold, strict=True)]
    how = f"{len(said)} questions; what is said to be not in memory counts as wrong"
    for name, values in (
        ("exact match", [exact_match(one.answer, some) for one, some in zip(said, gold, strict=True)]),
        ("F1", [answer_f1(one.answer, some) for one, some in zip(said, gold, strict=True)]),
        ("holds the gold answer", right),
    ):
        low, high = bootstrap_interval(np.array(values, float))
        report.add(f"{what}: {name}", float(np.mean(values)), "", how=f"{how}; 95 % [{low:.3f}, {high:.3f}]")
    cited = np.array(
        [
            one.cited is not None and _holds(memory.store.get([one.cited.id])[0].text, some)
            for one, some in zip(said, gold, strict=True)
        ]
    )
    good, told = np.array(right), np.array([one.known for one in said])
    if good.any():
        value, how = float(cited[good].mean()), f"{cited[good].sum()} of {good.sum()} answers that hold the gold"
        aim = {"target": ">= 0.95", "ok": value >= 0.95}
        report.add(f"{what}: the cited episode holds it", value, "of right", **aim, how=how)
    if told.any():
        agree, how = np.array([one.agrees for one in said]), f"{told.sum()} answers, right or wrong"
        report.add(f"{what}: the cited episode holds the gold", float(cited[told].mean()), "of answers", how=how)
        report.add(f"{what}: memory and answer agree", float(agree[told].mean()), "of answers", how=how)


def _holds(text: str, gold: Sequence[str]) -> bool:
    """Whether a text has a gold answer, word for word, as SQuAD compares words."""
    said = f" {' '.join(normal_answer(text))} "
    return any(f" {' '.join(normal_answer(one))} " in said for one in gold)


SECTIONS = {"known": known, "answers": answers, "chosen": partial(answers, first=True)}
USUAL = ("known", "answers")

if __name__ == "__main__":
    options = arguments(__doc__, questions)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    for section in options.sections or USUAL:
        SECTIONS[section](Report(options.json), options)
