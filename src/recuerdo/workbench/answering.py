"""Answers: a language model answers a question from the episodes that a memory found, and shows which of them it read.

Three steps, each with its numbers. Is it in the memory at all? (`sure_of`; where not, nobody is asked.) What does the
model say? (greedy, from the best episodes.) Which episode did the answer read? (its own attention, compared with what
other words read: `recuerdo.explain.views`.)
"""

import re
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from recuerdo.bridge.run import Heard, Loaded, encode, hear_answer, load, prompt_of
from recuerdo.errors import InputError, ModelError
from recuerdo.explain.rows import Layer, Selection
from recuerdo.read import Address, Bend, Reading, Share, bending
from recuerdo.store.cutter import Cutter
from recuerdo.store.record import Where
from recuerdo.workbench.looking import Look, Progress, see
from recuerdo.workbench.remembering import Asked, Episode, Memory

MODEL = "smollm2"
EPISODES = 3  # so many of the episodes that were found stand before the model
TOKENS = 24  # of an answer, at most
APART = "\n\n"
LEAST = 1.07  # below it a question is not in the memory: `python benchmarks/answers.py known` chose it
BRIEF = "Give only the answer, as short as possible."  # small models talk
LEAD = 'The answer is "'
ENDS = ('"', "\n")
# Words that say nothing about what a question is about.
EMPTY = """a an the this that these those is are was were be been being am do does did done have has had having will
would can could may might shall should must to of in on at by for from with about into as and or but not if then than so
i you he she it we they me him her us them my your his its our their what which who whom whose when where why how many
much there here name called"""


@dataclass(frozen=True)
class Told:
    """What the answer read of one episode.

    `weight`: its share in the memory's softmax. `read`: its share of what the answer read beyond what other words of
    the text and the question usually read there, sinks gone (0 where nothing is beyond the usual); shares of all
    episodes sum to 1. `raw`: the mean share of the answer's attention, over all layers and heads. `sentence`: the one
    that was read most.
    """

    id: int
    weight: float
    read: float
    raw: float
    sentence: str


@dataclass(frozen=True, eq=False)
class Answered:
    """A question, what was found, and what a language model answered from it.

    `known`: whether `sure` reaches `least`; where not, `answer` is empty and nobody was asked. `told`: the episodes
    that stood before the model. `followed`: whether the answer's attention followed the memory's weights. `look`: the
    evidence, to be rendered.
    """

    asked: Asked
    sure: float
    least: float
    model: str = ""
    answer: str = ""
    told: tuple[Told, ...] = ()
    followed: bool = True
    look: Look | None = None

    @property
    def known(self) -> bool:
        """Whether the question is in the memory."""
        return self.sure >= self.least

    @property
    def cited(self) -> Told | None:
        """The episode that the answer read most; None where it read none beyond the usual."""
        best = max(self.told, key=lambda one: one.read, default=None)
        return best if best is not None and best.read > 0 else None

    @property
    def agrees(self) -> bool:
        """Whether the answer read the episode that the memory found best."""
        return self.cited is not None and self.cited.id == self.told[0].id

    def as_json(self) -> dict[str, Any]:
        """Everything, as plain data."""
        return self.asked.as_json() | {
            "answer": {
                "text": self.answer if self.known else None,
                "known": self.known,
                "sure": self.sure,
                "least": self.least,
                "model": self.model,
                "followed": self.followed,
                "episodes": [vars(one) for one in self.told],
                "cited": None if self.cited is None else self.cited.id,
                "sentence": None if self.cited is None else self.cited.sentence,
                "agrees": self.agrees,
            }
        }


def answer(
    memory: Memory,
    question: str,
    *,
    model: str | Loaded = MODEL,
    follow: bool = True,
    least: float = LEAST,
    top: int = 5,
    where: Where | None = None,
    progress: Progress | None = None,
) -> Answered:
    """Ask a memory, and let a language model answer from the best episodes, or say that it is not in the memory.

    The attention that the answer pays to the episodes is divided as the memory's weights are, so that what is pinned,
    boosted or muted moves the answer; without `follow` the model divides it by itself. Raises InputError as
    `Memory.ask` does, ModelError and FetchError for a model that cannot be used.
    """
    return answer_from(
        memory, memory.ask(question, top=top, where=where), model=model, follow=follow, least=least, progress=progress
    )


def answer_from(
    memory: Memory,
    asked: Asked,
    *,
    model: str | Loaded = MODEL,
    follow: bool = True,
    least: float = LEAST,
    progress: Progress | None = None,
) -> Answered:
    """The same for what was found already."""
    episodes = asked.episodes[:EPISODES]
    sure = sure_of(memory, asked)
    if sure < least:
        return Answered(asked, sure, least)
    loaded = model if isinstance(model, Loaded) else load(model, progress=progress)
    if loaded.kind != "causal":
        raise ModelError(f"{loaded.name} does not answer: take a language model, such as {MODEL}")
    said = Before.of(loaded, asked.question, episodes)
    heard = said.heard(follow, progress)
    text = re.split("|".join(ENDS), heard.answer)[0].strip()
    if not heard.answer.strip():
        return Answered(asked, sure, least, loaded.name, "", said.told(None), follow)
    selection = Selection.of([Layer(path, steps) for path, steps in heard.own.items()])
    seen = see(loaded, heard, selection, asked.question)
    return Answered(asked, sure, least, loaded.name, text, said.told(seen), follow, seen)


# ------------------------------------------------------------------------------------------------ is it in the memory?


def sure_of(memory: Memory, asked: Asked) -> float:
    """How much an episode is about the question, 0 to 2: the share of the question's words that it has (stems, without
    such as "the" and "who"), and the cosine of its sentence that is most like the question; of the best episode."""
    episodes = asked.episodes[:EPISODES]
    if not episodes:
        return 0.0
    question, *sentences = memory.encoder.encode([asked.question, *(one.sentence for one in episodes)])
    shares = shares_of_words(asked.question, [one.record.text for one in episodes])
    return max(share + max(float(one @ question), 0.0) for share, one in zip(shares, sentences, strict=True))


def shares_of_words(question: str, texts: Sequence[str]) -> list[float]:
    """The share of the stems of a question that each text has, those of empty words aside."""
    cutter = Cutter()
    try:
        asked, empty, *there = cutter.of([question, EMPTY, *texts])
    finally:
        cutter.close()
    words = [word for word in asked if word not in empty] or list(asked)
    return [sum(word in text for word in words) / max(len(words), 1) for text in there]


# ------------------------------------------------------------------------------------------- what stands before a model


@dataclass(frozen=True, eq=False)
class Before:
    """Episodes as one text before a model, with the characters of each in it."""

    loaded: Loaded
    question: str
    episodes: tuple[Episode, ...]
    text: str
    spans: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, loaded: Loaded, question: str, episodes: Sequence[Episode]) -> "Before":
        """The best episodes that the model has room for, apart by blank lines; one at least."""
        for count in range(len(episodes), 0, -1):
            some, spans, at = tuple(episodes[:count]), [], 0
            texts = [one.record.text.strip() for one in some]
            for text in texts:
                spans.append((at, at + len(text)))
                at += len(text) + len(APART)
            made = cls(loaded, question, some, APART.join(texts), tuple(spans))
            try:
                made._encoded()
            except InputError:
                if count == 1:
                    raise
                continue
            return made
        raise InputError("there is no episode to answer from")

    @property
    def _asked(self) -> str:
        return f"{self.question}\n{BRIEF}"

    def _encoded(self) -> tuple[Any, tuple[int, int]]:
        text, place, _, special = prompt_of(self.loaded, self.text, self._asked, LEAD)
        return encode(self.loaded, text, special=special, room=TOKENS, document=place), place

    def heard(self, follow: bool, progress: Progress | None = None) -> Heard:
        """What the model answers, with every read of it."""
        loaded = replace(self.loaded, processors=(Until(self.loaded, ENDS),))
        rule = Follow(self.keys(), [one.weight for one in self.episodes])
        with bending(self.loaded.model, rule) if follow else nullcontext():
            return hear_answer(loaded, self.text, self._asked, lead=LEAD, generate=TOKENS, progress=progress)

    def keys(self) -> list[torch.Tensor]:
        """The tokens of each episode in the prompt, bool [tokens]."""
        encoded, (start, _) = self._encoded()
        return [
            torch.tensor([a < end + start and b > first + start for a, b in encoded["offset_mapping"]])
            for first, end in self.spans
        ]

    def told(self, seen: Look | None) -> tuple[Told, ...]:
        """What the answer read of each episode, in the order of the memory's weights."""
        if seen is None:
            return tuple(Told(one.record.id, one.weight, 0.0, 0.0, one.sentence) for one in self.episodes)
        text, of = seen.evidence.text, seen.evidence.text.sentence_of()
        owner = np.array([sum(a >= end for _, end in self.spans) for a, _ in text.spans])
        lift, raw = (seen.evidence.view(name).map.row(0).astype(float) for name in ("lift", "raw"))
        whole, found = max(lift.sum(), 1e-12), []
        for number, one in enumerate(self.episodes):
            own = owner == number
            by_sentence = np.bincount(of, np.where(own, lift, 0.0), minlength=len(text.sentences))
            sentence = text.sentence(int(by_sentence.argmax())) if by_sentence.any() else one.sentence
            read, share = float(lift[own].sum() / whole), float(raw[own].sum())
            found.append(Told(one.record.id, one.weight, read, share, sentence))
        return tuple(found)


class Until:
    """A logits processor: after one of these marks the model says nothing more."""

    def __init__(self, loaded: Loaded, marks: Sequence[str]):
        ends = loaded.model.generation_config.eos_token_id
        self._end = ends[0] if isinstance(ends, list) else ends
        self._decode, self._marks, self._first = loaded.tokenizer.decode, marks, 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """input_ids [1, n], scores [1, vocabulary] -> scores."""
        self._first = self._first or input_ids.shape[1]
        said = self._decode(input_ids[0, self._first :])
        if self._end is None or not any(mark in said for mark in self._marks):
            return scores
        only = torch.full_like(scores, -torch.inf)
        only[:, self._end] = 0.0
        return only


class Follow:
    """A rule for `recuerdo.read.bending`: the answer reads of the episodes what the memory's weights say.

    Each head of each row that writes a token keeps what it reads of all episodes together; how that is divided among
    them are the memory's weights. So the read of a row is two reads, one inside the other: the memory's over episodes,
    the model's over the words of each.
    """

    def __init__(self, keys: Sequence[torch.Tensor], weights: Sequence[float]):
        self.keys, total = list(keys), sum(weights)
        self.weights = [weight / total for weight in weights]

    def __call__(self, address: Address, reading: Reading) -> list[Bend]:
        """Shares of each head, for the last row: it writes the next token."""
        q, k = reading.shape[2:]
        row = reading.weights[q - 1 : q, :k][0, :, 0]
        # A cache that keeps a window only begins with a later key.
        first = max(len(self.keys[0]) + (address.step or 0) - k, 0)
        behind = max(k - len(self.keys[0]) + first, 0)
        keys = [torch.nn.functional.pad(some[first : first + k], (0, behind)) for some in self.keys]
        together = torch.stack(keys).any(0)
        mass = row[:, together].sum(-1).clamp(0.0, 1.0)
        last = torch.zeros(q, dtype=torch.bool)
        last[-1] = True
        return [Share(some, mass * weight, None, last) for some, weight in zip(keys, self.weights, strict=True)]
