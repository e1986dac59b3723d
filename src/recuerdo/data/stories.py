"""Stories with questions (bAbI, Weston et al. 2015), from text files to batches.

A file has one line for each sentence, `ID text`, or question, `ID text<TAB>answer<TAB>ids of supporting facts`; the IDs
start again at 1 with each story. A batch holds every distinct sentence once, and stories as rows of numbers of these.
"""

import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recuerdo.errors import InputError

PARTS = 3  # words of the longest answer that is built word by word ("apple,football,milk")
PAD, UNKNOWN = 0, 1
Words = tuple[str, ...]


@dataclass(frozen=True)
class Question:
    """A question after the first `before` sentences of a story. `facts` are sentence numbers, from 0."""

    words: tuple[str, ...]
    answer: str
    before: int
    facts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Story:
    """Sentences as words, and the questions among them. `task` is the bAbI task, 0 = of no task."""

    sentences: tuple[tuple[str, ...], ...]
    questions: tuple[Question, ...]
    task: int = 0

    def ask(self, number: int) -> "Story":
        """The story as question `number` sees it: the sentences before it, and this one question."""
        question = self.questions[number]
        return Story(self.sentences[: question.before], (question,), self.task)

    def newest(self, count: int) -> "Story":
        """The story without its older sentences, and without the facts that were among them."""
        gone = max(0, len(self.sentences) - count)
        if not gone:
            return self
        questions = tuple(
            replace(q, before=max(0, q.before - gone), facts=tuple(f - gone for f in q.facts if f >= gone))
            for q in self.questions
        )
        return Story(self.sentences[gone:], questions, self.task)


def split_words(text: str) -> tuple[str, ...]:
    """A sentence as lower-case words, without marks."""
    return tuple(re.findall(r"[\w'-]+", text.lower()))


def join_phrases(words: Words, pairs: Container[Words]) -> Words:
    """Pairs of words that are phrases become one word: "red", "square" -> "red square"."""
    out: list[str] = []
    i = 0
    while i < len(words):
        pair = words[i : i + 2] in pairs
        out.append(" ".join(words[i : i + 2]) if pair else words[i])
        i += 2 if pair else 1
    return tuple(out)


def parse(text: str, task: int = 0, where: str = "the story") -> list[Story]:
    """The stories of a text in bAbI's format. Raises InputError with the line that does not fit."""
    stories: list[Story] = []
    sentences: list[tuple[str, ...]] = []
    questions: list[Question] = []
    at: dict[int, int] = {}

    def close() -> None:
        if sentences or questions:
            stories.append(Story(tuple(sentences), tuple(questions), task))

    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        head, _, rest = line.strip().partition(" ")
        if not head.isdigit() or not rest:
            raise InputError(f"line {number} of {where} is not `ID text`: {line[:60]!r}")
        if int(head) == 1:
            close()
            sentences, questions, at = [], [], {}
        words, *told = rest.split("\t")
        if not told:
            at[int(head)] = len(sentences)
            sentences.append(split_words(words))
            continue
        facts = told[1].split() if len(told) > 1 else []
        if not all(fact.isdigit() and int(fact) in at for fact in facts):
            raise InputError(f"line {number} of {where} names a supporting fact that is no sentence before it")
        answer = told[0].strip().lower()
        questions.append(Question(split_words(words), answer, len(sentences), tuple(at[int(f)] for f in facts)))
    close()
    return stories


def babi(folder: Path, size: str, task: int, split: str) -> list[Story]:
    """One bAbI task, v1.2 in English. `size` "1k" or "10k", `split` "train" or "test".

    Where a copy lacks the training file of task 3 in 10k, the part of it that is there is taken
    (`qa3_10k_partial`). Raises InputError for a folder without the file.
    """
    found = sorted((folder / f"en-{size}").glob(f"qa{task}_*_{split}.txt"))
    if not found and (task, size, split) == (3, "10k", "train"):
        found = sorted((folder / "qa3_10k_partial").glob("qa3_*_train_partial.txt"))
    if not found:
        raise InputError(
            f"there is no qa{task}_…_{split}.txt in {folder / f'en-{size}'}: get bAbI v1.2 "
            "(https://research.facebook.com/downloads/babi/), and set RECUERDO_DATA to the folder that holds babi/"
        )
    return parse(found[0].read_text(encoding="utf-8"), task, found[0].name)


@dataclass(frozen=True)
class Vocabulary:
    """Words and whole answers by number. Word 0 is padding, word 1 stands for all unknown ones."""

    words: tuple[str, ...]
    answers: tuple[str, ...]

    @staticmethod
    def of(stories: Iterable[Story]) -> "Vocabulary":
        """All words and answers of some stories, sorted."""
        words: set[str] = set()
        answers: set[str] = set()
        for story in stories:
            words.update(*story.sentences, *(q.words for q in story.questions))
            answers.update(q.answer for q in story.questions)
        words.update(*(answer.split(",") for answer in answers))
        return Vocabulary(("<pad>", "<unknown>", *sorted(words)), tuple(sorted(answers)))

    def phrases(self) -> list[tuple[str, str]]:
        """The pairs of words that are one word here, such as "red square"."""
        return [(pair[0], pair[1]) for word in self.words if len(pair := word.split(" ")) == 2]

    def index(self) -> dict[str, int]:
        """Word -> number."""
        return {word: i for i, word in enumerate(self.words)}


@dataclass(frozen=True, eq=False)
class Stories:
    """A batch of b stories with up to s sentences and q questions each; see the fields' shapes.

    A sentence or question is a row of `words`; row 0 is empty and stands where there is none.
    """

    words: Tensor  # [u, w] the distinct sentences and questions, as word numbers; 0 = padding
    sentence: Tensor  # [b, s] rows of `words`
    question: Tensor  # [b, q] rows of `words`
    before: Tensor  # [b, q] how many sentences stand before the question: it may read these
    answer: Tensor  # [b, q] class of the whole answer; -1 = there is none, or it is unknown
    parts: Tensor  # [b, q, p] the answer word by word; 0 = no further word
    facts: Tensor  # [b, q, s] bool: supporting facts
    task: Tensor  # [b, q] number of the task; 0 where there is no question

    def __len__(self) -> int:
        return int((self.question > 0).sum())

    def to(self, device: torch.device | str) -> "Stories":
        """The batch on another device."""
        return Stories(*(getattr(self, f.name).to(device) for f in fields(self)))

    def split(self, n: int) -> "list[Stories]":
        """The batch as n batches of its stories (fewer where there are not so many)."""
        parts = zip(*(getattr(self, f.name).chunk(n) for f in fields(self) if f.name != "words"), strict=True)
        return [Stories(self.words, *part) for part in parts]


class Encoder:
    """Makes batches of stories. Encoding is done once for each story; a batch is then made of small arrays."""

    def __init__(self, vocabulary: Vocabulary):
        self.vocabulary = vocabulary
        self._word = vocabulary.index()
        self._answer = {answer: i for i, answer in enumerate(vocabulary.answers)}
        self._phrases = set(vocabulary.phrases())
        self._said = {tuple(self._parts(answer)): i for answer, i in self._answer.items()}

    def _parts(self, answer: str) -> list[int]:
        told = self._ids(answer.split(","))[:PARTS]
        return told + [0] * (PARTS - len(told))

    def _ids(self, words: Sequence[str]) -> list[int]:
        return [self._word.get(word, UNKNOWN) for word in words]

    def _line(self, words: Words) -> list[int]:
        return self._ids(join_phrases(words, self._phrases) if self._phrases else words)

    def unknown(self, story: Story) -> Words:
        """The words of a story and its questions that the vocabulary lacks, each once."""
        lines = (*story.sentences, *(q.words for q in story.questions))
        joined = [word for words in lines for word in join_phrases(words, self._phrases)]
        return tuple(dict.fromkeys(word for word in joined if word not in self._word))

    def encode(self, story: Story) -> "Encoded":
        """One story as arrays."""
        lines = [self._line(words) for words in (*story.sentences, *(q.words for q in story.questions))]
        width = max((len(line) for line in lines), default=1)
        words = np.zeros((len(lines), width), dtype=np.int16)
        for row, line in zip(words, lines, strict=True):
            row[: len(line)] = line
        s = len(story.sentences)
        parts = np.zeros((len(story.questions), PARTS), dtype=np.int16)
        for row, question in zip(parts, story.questions, strict=True):
            row[:] = self._parts(question.answer)
        return Encoded(
            words[:s],
            words[s:],
            np.array([q.before for q in story.questions], dtype=np.int64),
            np.array([self._answer.get(q.answer, -1) for q in story.questions], dtype=np.int64),
            parts,
            tuple(q.facts for q in story.questions),
            story.task,
        )

    def renamed(self, story: "Encoded", table: np.ndarray) -> "Encoded":
        """The same story under other names: `table` [vocabulary] gives each word's new number."""
        parts = table[story.parts]
        answer = np.array([self._said.get(tuple(row), -1) for row in parts.tolist()], dtype=np.int64)
        sentences, questions = table[story.sentences], table[story.questions]
        return replace(story, sentences=sentences, questions=questions, answer=answer, parts=parts)


@dataclass(frozen=True, eq=False)
class Encoded:
    """One story as arrays: sentences [s, w], questions [q, w], before, answer [q], parts [q, p], facts, task."""

    sentences: np.ndarray
    questions: np.ndarray
    before: np.ndarray
    answer: np.ndarray
    parts: np.ndarray
    facts: tuple[tuple[int, ...], ...]
    task: int

    def reordered(self, order: np.ndarray) -> "Encoded":
        """The same story with its sentences in another order; for stories whose questions all come at the end."""
        place = np.argsort(order)
        facts = tuple(tuple(int(place[fact]) for fact in some) for some in self.facts)
        return replace(self, sentences=self.sentences[order], facts=facts)


def batch(stories: Sequence[Encoded]) -> Stories:
    """Encoded stories as one batch, each distinct sentence once."""
    lines = [part for story in stories for part in (story.sentences, story.questions)]
    width = max(part.shape[1] for part in lines)
    all_lines = np.zeros((1 + sum(len(part) for part in lines), width), dtype=np.int16)
    start = 1
    for part in lines:
        all_lines[start : start + len(part), : part.shape[1]] = part
        start += len(part)
    # np.unique(axis=0) sorts rows as structures, which is slow: rows as byte strings are quicker, and the empty one,
    # all zeros, still comes first.
    keys = np.ascontiguousarray(all_lines.astype(">i2")).view(f"S{2 * width}")[:, 0]
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    words = torch.from_numpy(all_lines[first].astype(np.int64))
    b, s = len(stories), max(len(story.sentences) for story in stories)
    q = max(len(story.questions) for story in stories)
    sentence, question = np.zeros((b, s), dtype=np.int64), np.zeros((b, q), dtype=np.int64)
    before, task = np.zeros((b, q), dtype=np.int64), np.zeros((b, q), dtype=np.int64)
    answer, parts = np.full((b, q), -1, dtype=np.int64), np.zeros((b, q, PARTS), dtype=np.int64)
    facts = np.zeros((b, q, s), dtype=bool)
    start = 1
    for i, story in enumerate(stories):
        n, m = len(story.sentences), len(story.questions)
        sentence[i, :n] = inverse[start : start + n]
        question[i, :m] = inverse[start + n : start + n + m]
        start += n + m
        before[i, :m], answer[i, :m], parts[i, :m], task[i, :m] = story.before, story.answer, story.parts, story.task
        for j, some in enumerate(story.facts):
            facts[i, j, list(some)] = True
    arrays = (sentence, question, before, answer, parts, facts, task)
    return Stories(words, *(torch.from_numpy(x) for x in arrays))
