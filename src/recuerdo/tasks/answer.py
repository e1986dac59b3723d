"""Answer questions about stories: bAbI's twenty tasks, or endless stories of our own of the same kinds.

The training file is divided once into training and validation stories; the test file is opened only for "test".
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from inspect import signature
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from recuerdo.data.exchange import Variety
from recuerdo.data.phrases import joined, phrases
from recuerdo.data.simulate import BABI, simulate
from recuerdo.data.stories import (
    PARTS,
    Encoded,
    Encoder,
    Question,
    Stories,
    Story,
    Vocabulary,
    babi,
    batch,
    split_words,
)
from recuerdo.errors import InputError
from recuerdo.models.dnc import StoryDNC
from recuerdo.models.entnet import EntNet
from recuerdo.models.key_value import KeyValue
from recuerdo.models.memn2n import MemN2N
from recuerdo.models.reader import Reader
from recuerdo.models.universal import Universal
from recuerdo.read import bending, watch
from recuerdo.tasks.answered import Answered, Hop, bends_on
from recuerdo.tasks.hops import heard, off_the_facts, over_sentences, reads_sentences

MODELS: dict[str, Callable[..., nn.Module]] = {
    "memn2n": MemN2N,
    "key_value": KeyValue,
    "entnet": EntNet,
    "reader": Reader,
    "universal": Universal,
    "story_dnc": StoryDNC,
}
SIZES = ("1k", "10k", "own")
NAMES = ("kept", "found")
SAME = 100  # stories of a task that stay the same
BOOST = 20.0  # what boosting a sentence multiplies its odds by
SOLVED = 5.0  # percent of wrong answers up to which a task counts as solved (Weston et al. 2015)


@dataclass(frozen=True)
class Answer:
    """The stories, and how they come.

    `size`: "1k" or "10k" questions a task of bAbI, or "own": our own stories, as many questions as 1k. `batch`: so many
    questions by themselves; with `lines` instead whole stories, up to so many lines of them (padding counted), each
    story with all its questions. `newest`: only so many sentences before a question are there (0 = all).
    `names`: "kept", or "found": two words that are one thing become one word (`recuerdo.data.phrases`), and each time a
    story comes by in training, words that are exchangeable in its task are exchanged, and the sentences are shuffled
    where their order tells nothing (`recuerdo.data.exchange`). All this is found in the training questions alone.
    `again`: tasks whose training stories come by once more in each round, for every time that they are named.
    `same`: tasks of which, beside all stories under changing names, a hundred come as they are, again and again, so
    that they are half of what comes. What is always new may never be learned, where what repeats is, and then holds
    for the rest as well (two-set training: Charton & Kempe 2024, arXiv 2410.07041). Needs names "found".
    `facts`: weight of a second loss, that what a question reads over all hops be its supporting facts. With 0 nothing
    in training knows them.
    `holdout`: share of the training stories that are for validation. `folder`: where bAbI is; "" = babi/ in
    RECUERDO_DATA. `words` and `answers`: a vocabulary to use instead of the training questions' own.

    Raises InputError for what cannot be.
    """

    size: str = "1k"
    tasks: tuple[int, ...] = tuple(range(1, 21))
    batch: int = 32
    lines: int = 0
    newest: int = 0
    names: str = "kept"
    again: tuple[int, ...] = ()
    same: tuple[int, ...] = ()
    facts: float = 0.0
    holdout: float = 0.1
    folder: str = ""
    words: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise InputError(f"there is no size {self.size!r} of stories: choose {', '.join(SIZES)}")
        if self.names not in NAMES:
            raise InputError(f"names are {' or '.join(NAMES)}, not {self.names!r}")
        if not self.tasks or not all(1 <= task <= 20 for task in self.tasks):
            raise InputError(f"tasks are numbers from 1 to 20, not {self.tasks}")
        if not set(self.again) <= set(self.tasks):
            raise InputError(f"only tasks that are learned can come again, not {self.again}")
        if not set(self.same) <= set(self.tasks) or (self.same and self.names != "found"):
            raise InputError(f"only tasks that are learned can stay the same, beside names that are found: {self.same}")
        if self.facts < 0:
            raise InputError(f"facts is the weight of a loss, 0 or more, not {self.facts}")
        if not 0 < self.holdout < 1 or self.batch < 1 or min(self.lines, self.newest) < 0:
            raise InputError("holdout is above 0 and below 1, batch at least 1, lines and newest at least 0")

    def model(self, name: str, **arguments) -> nn.Module:
        """The model of a name, as large as the vocabulary asks. Raises InputError for a name that is not in MODELS."""
        if name not in MODELS:
            raise InputError(f"there is no model {name!r} for stories: choose {', '.join(MODELS)}")
        known = self._vocabulary()
        if "answer_words" in signature(MODELS[name]).parameters:  # an answer of one word may share that word's vector
            index = known.index()
            arguments.setdefault("answer_words", tuple(index.get(answer, 0) for answer in known.answers))
        return MODELS[name](len(known.words), len(known.answers), **arguments)

    def carries(self) -> dict[str, list[str]]:
        """The words and answers that a model of this task knows: with them it answers where the stories are not."""
        known = self._vocabulary()
        return {"words": list(known.words), "answers": list(known.answers)}

    def batches(self, *, seed: int, start: int = 0) -> Iterator[Stories]:
        """Batches without end, in another order each time round; a batch depends on seed and number alone."""
        changing, vary = _prepared(self, self._folder())
        stories = changing + self._repeated(changing)
        number, round_ = 0, 0
        while True:
            parts = self._order(stories, np.random.default_rng((seed, round_)))
            for part in parts[max(0, start - number) :] if start < number + len(parts) else ():
                draw = np.random.default_rng((seed, round_, int(part[0])))
                yield batch([vary(stories[i], draw) if i < len(changing) else stories[i] for i in part])
            number, round_ = number + len(parts), round_ + 1
            start = max(start, number)

    def loss(self, model: nn.Module, batch: Stories) -> dict[str, Tensor]:
        """Cross-entropy of the answers, of whole ones or added up over their words; what the model has to add; facts.

        What it adds is its attribute `extra`, parts by name, set by its forward pass (`recuerdo.models.universal`).
        """
        if not self.facts:
            return {"answer": _cross_entropy(model(batch), batch), **getattr(model, "extra", {})}
        logits, maps = heard(model, batch)
        parts = {"answer": _cross_entropy(logits, batch), "facts": self.facts * off_the_facts(maps, batch)}
        return parts | getattr(model, "extra", {})

    @torch.no_grad()
    def check(self, model: nn.Module, split: str) -> dict[str, float]:
        """Percent of wrong answers: the mean over tasks, tasks above 5 %, the mean loss, and each task by itself."""
        wrong, asked, loss = np.zeros(21), np.zeros(21), 0.0
        for stories in self.split(split):
            logits = model(stories)
            there = stories.question > 0
            right = said(logits, stories)[there]
            tasks = stories.task[there].numpy()
            wrong += np.bincount(tasks, (~right).numpy(), 21)
            asked += np.bincount(tasks, minlength=21)
            loss += _cross_entropy(logits, stories).item() * len(stories)
        errors = {task: 100 * wrong[task] / asked[task] for task in range(21) if asked[task]}
        numbers = {
            "error": float(np.mean(list(errors.values()))),
            "failed": float(sum(error > SOLVED for error in errors.values())),
            "loss": loss / asked.sum(),
        }
        return numbers | {f"task {task}": float(error) for task, error in errors.items()}

    def split(self, split: str) -> Iterator[Stories]:
        """The stories of "train", "valid" or "test" in batches, as they are."""
        stories = {"train": self._stories, "valid": self._valid, "test": self._test}[split]()
        encoder = Encoder(self._vocabulary())
        rows = [encoder.encode(story) for story in stories]
        for part in self._parts(rows, np.array([_length(row) for row in rows]), max(4 * self.lines, 2000)):
            yield batch([rows[i] for i in part])

    @torch.no_grad()
    def evidence(self, model: nn.Module, split: str) -> dict[str, float]:
        """Does it look at the supporting facts? Percent of the rightly answered questions with one fact (two facts)
        whose most-read sentence is one, and whose facts are all among the most-read sentences of the hops.

        Of a task that is not solved nothing is counted.
        """
        errors = self.check(model, split)
        hits: dict[str, list[bool]] = {}
        for stories in self.split(split):
            logits, maps = heard(model, stories)
            right = said(logits, stories)
            most = maps.sum(0).argmax(-1)
            each = torch.where(maps.amax(-1) > 0, maps.argmax(-1), -1)  # a hop may read nothing at all
            for i, j in (right & (stories.question > 0)).nonzero().tolist():
                task, facts = int(stories.task[i, j]), set(stories.facts[i, j].nonzero()[:, 0].tolist())
                if errors[f"task {task}"] > SOLVED or len(facts) not in (1, 2):
                    continue
                kind = "one fact" if len(facts) == 1 else "two facts"
                for name in (kind, f"task {task}, {kind}"):
                    hits.setdefault(f"{name}: most read", []).append(int(most[i, j]) in facts)
                    hits.setdefault(f"{name}: all among hops", []).append(facts <= set(each[:, i, j].tolist()))
        return {name: 100 * float(np.mean(found)) for name, found in sorted(hits.items())}

    @torch.no_grad()
    def predict(
        self, model: nn.Module, story: str, question: str, *, boost: Sequence[str] = (), mute: Sequence[str] = ()
    ) -> Answered:
        """The answer to a question about a story, and what each hop read.

        `story` has a sentence on each line (bAbI's numbers in front are passed over), or several behind each other.
        `boost` multiplies the odds of a sentence by 20 in every hop, `mute` takes it out. Raises InputError for a story
        without a sentence, a question without a word, a mark on a sentence that is not there or
        is marked twice, and marks for a model that does not read sentences.
        """
        lines = story_lines(story)
        words = split_words(question)
        if not lines or not words:
            raise InputError("a story has at least one sentence, and a question at least one word")
        told = Story(tuple(split_words(line) for line in lines), (Question(words, "", len(lines)),))
        encoder = Encoder(self._vocabulary())
        if self.newest and not self.lines:
            told, lines = told.newest(self.newest), lines[-self.newest :]
        stories = batch([encoder.encode(told)])
        unknown = encoder.unknown(told)
        plain = self._answered(model, stories, lines, question, unknown)
        marks = [*(("boost", line) for line in boost), *(("mute", line) for line in mute)]
        if not marks:
            return plain
        if not plain.hops:
            raise InputError(f"{type(model).__name__} does not read sentences: boost and mute cannot reach it")
        bends = bends_on(marks, lines, BOOST)
        with bending(model, lambda place, read: bends if reads_sentences(str(place), read, stories) else ()):
            steered = self._answered(model, stories, lines, question, unknown)
        return replace(steered, marks=tuple(f"{what}: {line}" for what, line in marks), before=plain)

    def _answered(
        self, model: nn.Module, stories: Stories, lines: Sequence[str], question: str, unknown: tuple[str, ...]
    ) -> Answered:
        known = self._vocabulary()
        with watch(model) as seen:
            logits = model(stories)[0, 0]
        maps = over_sentences(seen, stories)
        looks = tuple(Hop(address, tuple(weights[0, 0].tolist())) for address, weights in maps.items())
        if logits.dim() == 1:
            top = logits.softmax(-1).topk(min(5, len(logits)))
            chances = [(known.answers[i], p) for i, p in zip(top.indices.tolist(), top.values.tolist(), strict=True)]
        else:
            first, rest = logits[0].softmax(-1), logits[1:].softmax(-1).max(-1)
            more = [known.words[i] for i in rest.indices.tolist() if i]
            top = first.topk(min(5, len(first)))
            likely = float(rest.values.prod())  # that the further words are what they are
            chances = [
                (",".join([known.words[i], *more]), p * likely)
                for i, p in zip(top.indices.tolist(), top.values.tolist(), strict=True)
            ]
        return Answered(tuple(lines), question, chances[0][0], tuple(chances), looks, unknown)

    # ------------------------------------------------------------------------------------------------ what is behind it

    def _stories(self) -> list[Story]:
        return _training_file(self.size, self.tasks, self._folder(), self.holdout)[0]

    def _valid(self) -> list[Story]:
        return self._each(_training_file(self.size, self.tasks, self._folder(), self.holdout)[1])

    def _test(self) -> list[Story]:
        if self.size == "own":
            return self._each([s for task in self.tasks for s in _own(task, seed=1)])
        return self._each([s for task in self.tasks for s in babi(self._folder(), self.size, task, "test")])

    def _each(self, stories: list[Story]) -> list[Story]:
        """Stories as they come: whole, or each question by itself."""
        if self.lines:
            return stories
        alone = [story.ask(n) for story in stories for n in range(len(story.questions))]
        return [story.newest(self.newest) for story in alone] if self.newest else alone

    def _folder(self) -> Path:
        if self.size == "own":
            return Path()
        folder = self.folder or os.environ.get("RECUERDO_DATA", "")
        if not folder:
            raise InputError(
                "bAbI is needed and no folder of data is known: get bAbI v1.2 "
                "(https://research.facebook.com/downloads/babi/) and set RECUERDO_DATA to the folder that holds babi/"
            )
        return Path(folder) if self.folder else Path(folder) / "babi"

    def _vocabulary(self) -> Vocabulary:
        if self.words:
            return Vocabulary(self.words, self.answers)
        return _vocabulary(self.size, self.tasks, self._folder(), self.holdout, self.names == "found")

    def _repeated(self, stories: Sequence[Encoded]) -> list[Encoded]:
        """The stories that come as they are, as many of a task as come under changing names."""
        found: list[Encoded] = []
        for task in self.same:
            told = [story for story in stories if story.task == task]
            found += islice(cycle(told[:SAME]), len(told))
        return found

    def _order(self, stories: Sequence[Encoded], draw: np.random.Generator) -> list[list[int]]:
        """One time round: the numbers of the stories of each batch, stories of like length together."""
        lengths = np.array([_length(story) for story in stories])
        if not self.lines:
            order = draw.permutation(len(stories)).tolist()
            return [order[i : i + self.batch] for i in range(0, len(order), self.batch)]
        parts = self._parts(stories, lengths * np.exp(draw.normal(0, 0.15, len(stories))), self.lines)
        return [parts[i] for i in draw.permutation(len(parts))]

    def _parts(self, stories: Sequence[Encoded], keys: np.ndarray, lines: int) -> list[list[int]]:
        parts: list[list[int]] = [[]]
        longest = 0
        for i in np.argsort(keys, kind="stable").tolist():
            longest = max(longest, _length(stories[i]))
            if parts[-1] and longest * (len(parts[-1]) + 1) > lines:
                parts.append([])
                longest = _length(stories[i])
            parts[-1].append(i)
        return parts


def _cross_entropy(logits: Tensor, stories: Stories) -> Tensor:
    """Mean over the questions: of whole answers, or added up over the words of each."""
    if logits.dim() == 3:
        return functional.cross_entropy(logits.flatten(0, 1), stories.answer.flatten(), ignore_index=-1)
    there = stories.question > 0
    return functional.cross_entropy(logits[there].flatten(0, 1), stories.parts[there].flatten()) * PARTS


def said(logits: Tensor, stories: Stories) -> Tensor:
    """Whether the likeliest answer is the right one, [b, q]."""
    if logits.dim() == 3:
        return logits.argmax(-1) == stories.answer
    return (logits.argmax(-1) == stories.parts).all(-1)


def story_lines(story: str) -> list[str]:
    """The sentences of a text: one on each line, without bAbI's numbers and questions, or several behind each other."""
    lines = [re.sub(r"^\s*\d+\s+", "", line).strip() for line in story.splitlines()]
    lines = [line for line in lines if line and "\t" not in line]
    return [part.strip() for line in lines for part in re.split(r"(?<=[.!?])\s+", line) if part.strip()]


def _length(story: Encoded) -> int:
    return len(story.sentences) + len(story.questions)


def _own(task: int, seed: int) -> list[Story]:
    """About 1,000 questions of our own, with bAbI's names."""
    stories: list[Story] = []
    while sum(len(story.questions) for story in stories) < 1000:
        stories += simulate(task, seed * 10**6 + len(stories), 50, names=BABI)
    return stories


@lru_cache(maxsize=2)
def _prepared(task: Answer, folder: Path) -> tuple[list[Encoded], Variety]:
    """The training stories of a task as arrays, and how they may be varied: the same for every seed. `folder` is the
    task's, which may have changed since."""
    encoder, stories = Encoder(task._vocabulary()), task._stories()
    pairs = encoder.vocabulary.phrases()
    plain = [joined(story, pairs) for story in stories] if task.names == "found" else []
    often = [*stories, *(story for number in task.again for story in stories if story.task == number)]
    return [encoder.encode(story) for story in task._each(often)], Variety.found(plain, encoder)


@lru_cache(maxsize=4)
def _training_file(size: str, tasks: tuple[int, ...], folder: Path, holdout: float) -> tuple[list[Story], list[Story]]:
    """Training and validation stories; a task's are divided by themselves, and stories stay whole."""
    train: list[Story] = []
    valid: list[Story] = []
    for task in tasks:
        stories = _own(task, seed=0) if size == "own" else babi(folder, size, task, "train")
        order = np.random.default_rng(7).permutation(len(stories))
        n = max(1, round(holdout * len(stories)))
        valid += [stories[i] for i in order[:n]]
        train += [stories[i] for i in order[n:]]
    return train, valid


@lru_cache(maxsize=4)
def _vocabulary(size: str, tasks: tuple[int, ...], folder: Path, holdout: float, with_phrases: bool) -> Vocabulary:
    train, valid = _training_file(size, tasks, folder, holdout)
    pairs = phrases(train) if with_phrases else []
    return Vocabulary.of([joined(story, pairs) for story in (*train, *valid)])
