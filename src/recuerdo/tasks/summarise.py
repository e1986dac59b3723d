"""Summarise: a text and its summary in one sentence, a model that may copy, judged by ROUGE beside plain baselines."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recuerdo.data.parallel import Bilingual, batch, lines, padded, rounds, table
from recuerdo.data.sources import data_folder
from recuerdo.data.subwords import Subwords
from recuerdo.data.wording import Worded
from recuerdo.errors import InputError
from recuerdo.metrics.texts import rouge
from recuerdo.models.pointer import PointerGenerator
from recuerdo.nn.decoding import Choice
from recuerdo.tasks.aligned import of_words, owning
from recuerdo.tasks.marking import bare
from recuerdo.tasks.spoken import drawn, spoken, streamed
from recuerdo.tasks.summarised import COPIED, Summarised

MODELS = {"pointer": PointerGenerator}
SPLITS = {"train": "train", "valid": "dev", "test": "test"}  # names of the files of SciTLDR
Model = Any  # a PointerGenerator, or what has its loss, alignments and copying, and is a Speaker
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=\S)")


@dataclass(frozen=True)
class Paper:
    """A text by its sentences, and one summary or several."""

    sentences: tuple[str, ...]
    summaries: tuple[str, ...]

    @property
    def text(self) -> str:
        """All sentences."""
        return " ".join(self.sentences)


@dataclass(frozen=True)
class Summarise:
    """The texts, and how they come.

    `data`: "scitldr" (abstracts and their summaries in one sentence, Cachola et al. 2020: SciTLDR-A), or "files" of
    one's own: `train`, `valid` and `test` are each a file with a text, a tab and its summary on a line. `folder`: where
    the files are; "" = scitldr/ in RECUERDO_DATA, or here. `pieces`: so many subwords, learned from the training texts.
    `tokens`: so many of them in a batch. Of a text the first `longest` are read, and a summary has at most `said`.
    `smoothing`, `beam` and `alpha` as in `recuerdo.tasks.translate`; `subwords`: those to use instead of learned ones.

    Raises InputError for what cannot be.
    """

    data: str = "scitldr"
    train: str = ""
    valid: str = ""
    test: str = ""
    folder: str = ""
    pieces: int = 4000
    tokens: int = 6000
    longest: int = 400
    said: int = 60
    smoothing: float = 0.1
    beam: int = 5
    alpha: float = 1.0
    subwords: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if self.data not in ("scitldr", "files"):
            raise InputError(f"there is no source of summaries {self.data!r}: choose scitldr or files")
        if min(self.tokens, self.longest, self.said, self.beam) < 1 or not 0 <= self.smoothing < 1:
            raise InputError("tokens, longest, said and beam are 1 or more, and smoothing is from 0 to below 1")
        if self.data == "files" and not (self.subwords or (self.train and self.valid)):
            raise InputError('files of your own are named: train = "a.tsv", valid = …, and test = …')

    def model(self, name: str, **arguments) -> nn.Module:
        """The model of a name, as large as the subwords ask. Raises InputError for a name that is not in MODELS."""
        if name not in MODELS:
            raise InputError(f"there is no model {name!r} for summaries: choose {', '.join(MODELS)}")
        return MODELS[name](len(self._cut), **arguments)

    def carries(self) -> dict[str, str]:
        """The subwords: with them a trained model summarises where the texts are not."""
        return {"subwords": self._cut.told}

    def batches(self, *, seed: int, start: int = 0) -> Iterator[Bilingual]:
        """Batches without end, in another order each time round; a batch depends on seed and number alone."""
        return rounds(self._pieces("train"), self.tokens, seed=seed, start=start)

    def loss(self, model: Model, batch: Bilingual) -> dict[str, Tensor]:
        """What each piece of the summary costs given those before it, and what reading a place twice costs."""
        return model.loss(batch.source, batch.told, batch.target, smoothing=self.smoothing)

    @torch.no_grad()
    def check(self, model: Model, split: str) -> dict[str, float]:
        """`error` = 100 - the mean of ROUGE-1, -2 and -L; the three; the loss of a piece of the first summary.

        In validation the likeliest piece is said again and again, in the test the beam says it. The test also tells
        the same of the first sentence (lead-1) and of the sentence that is best by its references (oracle), and how
        many of the words that were said stand in the text (copied) and how many do not (novel).
        """
        if split not in ("valid", "test"):
            raise InputError(f"there is no split {split!r} of the texts: choose valid or test")
        papers = _read(self._file(split))
        right = [paper.summaries for paper in papers]
        said = self.say(model, [paper.text for paper in papers], wide=self.beam if split == "test" else 1)
        found = rouge(said, right)
        out = {"error": 100 - sum(found.values()) / len(found), **found, "loss": self._mean_loss(model, split)}
        if split == "test":
            for name, lead in (("lead-1", [p.sentences[0] for p in papers]), ("oracle", _oracle(papers))):
                out |= {f"{name} {which}": score for which, score in rouge(lead, right).items()}
            out |= _novelty(said, [paper.text for paper in papers])
        return out

    @torch.no_grad()
    def say(self, model: Model, texts: Sequence[str], *, wide: int = 1) -> list[str]:
        """Summaries, in the order of the texts; an empty text has an empty one."""
        out = [""] * len(texts)
        for rows, found in spoken(model, self._of(texts), longest=lambda _: self.said, wide=wide, alpha=self.alpha):
            for row, line in zip(rows, found, strict=True):
                out[row] = self._cut.decode(line[0].pieces) if texts[row].strip() else ""
        return out

    def draw(self, model: Model, text: str, *, count: int, choose: Choice) -> list[tuple[str, float]]:
        """Summaries of a text whose pieces are chosen so, with the mean log-probability of their pieces, best first.
        Raises InputError as `predict`."""
        return drawn(model, self._cut, self._asked(text), count=count, choose=choose, longest=self.said)

    def stream(self, model: Model, text: str) -> Iterator[str]:
        """The likeliest summary of a text, in parts as they are said. Raises InputError as `predict`."""
        return streamed(model, self._cut, self._asked(text), longest=self.said)

    @torch.no_grad()
    def predict(self, model: Model, text: str) -> Summarised:
        """The summary of a text, what each of its words read, and which were copied.

        What stands behind the first `longest` pieces was not read, and is not in `source`. Raises InputError for a
        text that says nothing.
        """
        told, ids = self._first(text), self._asked(text)
        ((_, found),) = spoken(model, [ids], longest=lambda _: self.said, wide=self.beam, alpha=self.alpha)
        said = self._cut.decode(found[0][0].pieces)
        others = tuple((self._cut.decode(line.pieces), line.score) for line in found[0])
        return self._seen(model, told, said, others)

    @torch.no_grad()
    def evidence(self, model: Model, split: str) -> dict[str, float]:
        """Of the words that were copied: in how many the word of the text that was read most is the same word, and in
        how many the one is that most of it was copied from; and how many of all were copied. In percent, greedily
        said."""
        papers, read_, from_, copied, all_ = _read(self._file(split)), 0, 0, 0, 0
        told = [self._first(paper.text) for paper in papers]
        for text, said in zip(told, self.say(model, told), strict=True):
            seen = self._seen(model, text, said, ())
            for i, word in enumerate(seen.words):
                all_ += 1
                if seen.share(i) > COPIED:
                    copied += 1
                    first = (places[0][0] if places else None for places in (seen.most_read(i), seen.copied_from(i)))
                    same = [at is not None and bare(seen.source[at]) == bare(word) for at in first]
                    read_, from_ = read_ + same[0], from_ + same[1]
        return {
            "source of copied words": 100 * read_ / max(1, copied),
            "copied from the same word": 100 * from_ / max(1, copied),
            "copied words": 100 * copied / max(1, all_),
        }

    # ------------------------------------------------------------------------------------------------ what is behind it

    def _asked(self, text: str) -> list[int]:
        """The pieces of a text that are read."""
        if not text.split():
            raise InputError("there is nothing to summarise: give a text with a word in it")
        return self._of([self._first(text)])[0]

    def _seen(self, model: Model, text: str, said: str, others) -> Summarised:
        asked, answer = Worded.by_blanks(text), Worded.by_blanks(said)
        source, target = padded(self._of([text])), padded(self._cut.encode([said]))
        onto, from_ = owning(self._cut, asked), owning(self._cut, answer)
        weights = of_words(model.alignments(source, target)["saying"][0], onto, from_)[:, :-1]
        copied = of_words(model.copying(source, target)[0], onto, from_)[:, :-1]
        rows, shares = (tuple(map(tuple, table.tolist())) for table in (weights, copied))
        return Summarised(tuple(asked.words), tuple(answer.words), rows, shares, others)

    def _first(self, text: str) -> str:
        """As much of a text as is read."""
        text = " ".join(text.split())
        ends = self._cut.ends(text)[:-1]
        return text if len(ends) < self.longest else text[: ends[self.longest - 2] + 1].rsplit(" ", 1)[0]

    def _of(self, texts: Sequence[str]) -> list[list[int]]:
        return [[*ids[:-1][: self.longest - 1], ids[-1]] for ids in self._cut.encode(texts)]

    def _mean_loss(self, model: Model, split: str) -> float:
        pairs, total, count = self._pieces(split), 0.0, 0
        order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]))
        for first in range(0, len(order), 50):
            some = batch([pairs[i] for i in order[first : first + 50]]).to(next(model.parameters()).device)
            total += float(model.loss(some.source, some.told, some.target)["piece"]) * len(some)
            count += len(some)
        return total / count

    @cached_property
    def _cut(self) -> Subwords:
        return Subwords(self.subwords) if self.subwords else _learned(self._file("train"), self.pieces)

    def _pieces(self, split: str) -> list[tuple[list[int], list[int]]]:
        """Texts and their first summaries."""
        papers = _read(self._file(split))
        said = self._cut.encode([paper.summaries[0] for paper in papers])
        return list(zip(self._of([paper.text for paper in papers]), [ids[-self.said :] for ids in said], strict=True))

    def _file(self, split: str) -> str:
        if self.data == "files":
            if not getattr(self, split):
                raise InputError(f'{split} = "" names no texts: write {split} = "a.tsv"')
            return str(Path(self.folder) / getattr(self, split))
        here = Path(self.folder) if self.folder else data_folder("scitldr")
        if here is None:
            raise InputError(
                "SciTLDR (https://github.com/allenai/scitldr) is needed and not here: set RECUERDO_DATA to the folder "
                "that holds scitldr/"
            )
        return str(here / f"{SPLITS[split]}.jsonl")


@lru_cache(8)
def _read(path: str) -> list[Paper]:
    if not path.endswith(".jsonl"):
        pairs = table(path, 0, 1)
        return [Paper(tuple(SENTENCE.split(text)), (summary,)) for text, summary in pairs]
    found = []
    for number, line in enumerate(lines(path), 1):
        try:
            told = json.loads(line)
            found.append(Paper(tuple(map(str, told["source"])), tuple(map(str, told["target"]))))
        except (ValueError, KeyError, TypeError):
            raise InputError(f"line {number} of {path} is no text of SciTLDR with source and target") from None
    found = [paper for paper in found if paper.text.split() and any(map(str.split, paper.summaries))]
    if not found:
        raise InputError(f"there is no text with a summary in {path}")
    return found


@lru_cache(4)
def _learned(path: str, size: int) -> Subwords:
    return Subwords.learn([line for paper in _read(path) for line in (paper.text, *paper.summaries)], size)


def _oracle(papers: Sequence[Paper]) -> list[str]:
    """Of each text the sentence with the highest mean of ROUGE-1, -2 and -L."""
    return [
        max(paper.sentences, key=lambda one, paper=paper: sum(rouge([one], [paper.summaries]).values()))
        for paper in papers
    ]


def _novelty(said: Sequence[str], texts: Sequence[str]) -> dict[str, float]:
    """Percent of words that were said and stand in the text, and that do not."""
    pairs = [
        (bare(word), set(map(bare, text.split())))
        for line, text in zip(said, texts, strict=True)
        for word in line.split()
    ]
    there = 100 * sum(word in words for word, words in pairs) / max(1, len(pairs))
    return {"words of the text": there, "novel words": 100 - there if pairs else 0.0}
