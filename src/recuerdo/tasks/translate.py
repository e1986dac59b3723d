"""Translate: pairs of lines, a model that reads one and says the other, judged by BLEU and chrF."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recuerdo.data.parallel import PAD, Bilingual, Pair, Source, batch, padded, rounds
from recuerdo.data.sources import data_folder, data_sets
from recuerdo.data.subwords import END, Subwords
from recuerdo.data.wording import Worded, plainly
from recuerdo.errors import InputError
from recuerdo.metrics.texts import bleu, chrf
from recuerdo.models.seq2seq import Seq2Seq
from recuerdo.models.transformer import Transformer
from recuerdo.nn.decoding import Choice
from recuerdo.nn.saying import loss_of_saying
from recuerdo.read import bending
from recuerdo.tasks.aligned import CHOSEN_ON, error_rates, hansards, judged, of_words, owning
from recuerdo.tasks.marking import marking
from recuerdo.tasks.paired import all_of, encoded, learned, linked
from recuerdo.tasks.spoken import drawn, spoken, streamed
from recuerdo.tasks.translated import Translated

MODELS = {"transformer": Transformer, "seq2seq": Seq2Seq}
SOURCES = ("multi30k", "tatoeba", "files")
FORMS = {"tokenised": ".lc.norm.tok", "raw": ""}
TATOEBA = "fra_eng.tsv.gz"  # English, then French
SPLITS = {"train": "train", "valid": "val", "test": "test_2016_flickr"}  # names of the files of Multi30k
Model = Any  # an nn.Module that is a Speaker (`recuerdo.nn.decoding`), and is Speaking, with `alignments`
SENTENCE = re.compile(r"(?<=[.!?…])\s+")
LEAST = 1e-9  # of a weight whose logarithm is taken
LINES = 256  # that are translated together
WORDS, LONG = 5, 4  # a group of lengths holds so many, and the last begins behind so many groups
ROOM = 10  # a translation has at most twice as many pieces as the source, and so many more


@dataclass(frozen=True)
class Translate:
    """The pairs, and how they come.

    `data`: "multi30k", "tatoeba" (English and French, a table whose parts `recuerdo.data.parallel.parted` makes), both
    as "multi30k+tatoeba", or "files" of one's own: then `train`, `valid` and `test` are each (source, target), two
    files whose lines say the same, or one file with a tab between source and target. `source` and `target` are
    languages as Multi30k names them (en, de, fr). `form`: "tokenised" is the lower-cased, normalised, tokenised text of
    Multi30k that papers score, "raw" the text as it is. `folder`: where the files are, or the folders multi30k/ and
    tatoeba/ with them; "" = where `recuerdo data get` puts them (RECUERDO_DATA), and of one's own files here.

    `pieces`: so many subwords, of both sides together, learned from the training pairs. `tokens`: so many of them on
    either side of a batch. Pairs of more than `longest` pieces are not trained with. `smoothing` of the labels. `both`:
    for so many steps, the first, every pair is also heard turned round, so that one model learns both directions before
    it keeps to its own (bidirectional training: Ding et al. 2021).
    `guided`: how much it counts that what shows the alignment, a `head` of the Transformer, reads what goes together
    (`recuerdo.data.aligning` finds that in the training pairs; where `dictionary`, a file, knows a word, that word must
    look there). `beam` and `alpha` as in `recuerdo.nn.decoding.beam`,
    for the test. `subwords`: those to use instead of learned ones.

    Raises InputError for what cannot be.
    """

    data: str = "multi30k"
    source: str = "en"
    target: str = "fr"
    form: str = "tokenised"
    train: tuple[str, ...] = ()
    valid: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    folder: str = ""
    pieces: int = 4000
    tokens: int = 3000
    longest: int = 100
    smoothing: float = 0.1
    both: int = 0
    guided: float = 0.0
    dictionary: str = ""
    beam: int = 5
    alpha: float = 1.0
    subwords: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        for name in self._named:
            if name not in SOURCES:
                raise InputError(f"there is no source of pairs {name!r}: choose {', '.join(SOURCES)}, or some with +")
        if self.form not in FORMS:
            raise InputError(f"there is no form {self.form!r} of the text: choose {' or '.join(FORMS)}")
        if not 0 <= self.guided < float("inf"):
            raise InputError(f"guided is the weight of a loss, 0 or more, not {self.guided}")
        if self.dictionary and not self.guided:
            raise InputError("a dictionary says where words look while attention is guided: set guided = 0.05 as well")
        if min(self.tokens, self.longest, self.beam) < 1 or self.both < 0 or not 0 <= self.smoothing < 1:
            raise InputError(
                "tokens, longest and beam are 1 or more, both is 0 or more, and smoothing is from 0 to below 1"
            )
        if "tatoeba" in self._named and (self.form != "raw" or {self.source, self.target} != {"en", "fr"}):
            raise InputError(
                f'tatoeba has English and French as they are written: form = "raw", not {self.form!r} '
                f"from {self.source} to {self.target}"
            )
        if "files" in self._named and not (self.subwords or (self.train and self.valid)):
            raise InputError('files of your own are named: train = ["a.en", "a.fr"], valid = […], and test = […]')

    def model(self, name: str, **arguments) -> nn.Module:
        """The model of a name, as large as the subwords ask. Raises InputError for a name that is not in MODELS."""
        if name not in MODELS:
            raise InputError(f"there is no model {name!r} for translating: choose {', '.join(MODELS)}")
        return MODELS[name](len(self._cut), **arguments)

    def carries(self) -> dict[str, str]:
        """The subwords: with them a trained model translates where the pairs are not."""
        return {"subwords": self._cut.told}

    def batches(self, *, seed: int, start: int = 0) -> Iterator[Bilingual]:
        """Batches without end, in another order each time round; a batch depends on seed and number alone."""
        pairs = self._pieces("train")
        rows = [row for row, pair in enumerate(pairs) if max(map(len, pair)) <= self.longest]
        if not rows:
            raise InputError(f"no pair has {self.longest} pieces or fewer on both sides: raise longest")
        links = linked(self._sources("train"), self._cut.told, self.dictionary) if self.guided else None
        some = None if links is None else [links[row] for row in rows]
        told = [pairs[row] for row in rows]
        own = rounds(told, self.tokens, seed=seed, start=max(start, self.both), links=some)
        if start >= self.both:
            return own
        turned = None if some is None else [*some, *([(j, i) for i, j in one] for one in some)]
        every = rounds([*told, *((b, a) for a, b in told)], self.tokens, seed=seed, start=start, links=turned)
        return chain(islice(every, self.both - start), own)

    def loss(self, model: Model, batch: Bilingual) -> dict[str, Tensor]:
        """Cross-entropy of each piece of the target given those before it, the mean over them; where it is `guided`, so
        many times how far what shows the alignment is from the links (Garg et al. 2019)."""
        found: dict[str, Tensor] = {}
        if batch.links is None:
            states = model.hear(batch.source, batch.told)
        else:
            states, weights = model.guided(batch.source, batch.told)
            wanted, known = batch.links, batch.links.sum(-1) > 0
            off = -(wanted * weights.float().clamp_min(LEAST).log()).sum(-1)[known].sum() / known.sum().clamp_min(1)
            found["aligned"] = self.guided * off
        return {"piece": _said(states, model.table, batch, self.smoothing), **found}

    @torch.no_grad()
    def check(self, model: Model, split: str) -> dict[str, float]:
        """`error` = 100 - BLEU; BLEU; chrF; the cross-entropy of a piece; BLEU of each source where there are several.

        In validation the likeliest piece is said again and again, in the test the beam says it.
        """
        if split not in ("valid", "test"):
            raise InputError(f"there is no split {split!r} of the pairs: choose valid or test")
        pairs, wide = self._pairs(split), self.beam if split == "test" else 1
        said = self.say(model, [a for a, _ in pairs], wide=wide)
        right = [b for _, b in pairs]
        found = bleu(said, right, tokenised=self._tokenised)
        return {
            "error": 100 - found.score,
            "BLEU": found.score,
            "chrF": chrf(said, right).score,
            "loss": self._mean_loss(model, split),
            **self._of_each(said, right, split),
        }

    @torch.no_grad()
    def by_length(self, model: Model, split: str) -> list[dict[str, float]]:
        """BLEU of the pairs whose source has so many words, five at a time, said by the beam: `from`, `to` (the last is
        without end: 0), `pairs`, `BLEU`. Groups without a pair are left out."""
        pairs = self._pairs(split)
        said = self.say(model, [a for a, _ in pairs], wide=self.beam)
        groups: dict[int, list[int]] = {}
        for i, (source, _) in enumerate(pairs):
            groups.setdefault(min((len(source.split()) - 1) // WORDS, LONG), []).append(i)
        return [
            {
                "from": WORDS * group + 1,
                "to": 0 if group == LONG else WORDS * (group + 1),
                "pairs": len(rows),
                "BLEU": bleu([said[i] for i in rows], [pairs[i][1] for i in rows], tokenised=self._tokenised).score,
            }
            for group, rows in sorted(groups.items())
        ]

    def judged_by(self) -> dict[str, str]:
        """The signatures of sacrebleu: how exactly the scores are reckoned."""
        return {
            "BLEU": bleu(["a"], ["a"], tokenised=self._tokenised).signature,
            "chrF": chrf(["a"], ["a"]).signature,
        }

    @torch.no_grad()
    def say(self, model: Model, texts: Sequence[str], *, wide: int = 1) -> list[str]:
        """Translations, in the order of the texts; an empty text has an empty one.

        What is longer than was learned from is said in parts: sentences together as far as they fit, and what is still
        too long cut between words, or, where there are none, between pieces.
        """
        parts = [self._parts(text) for text in texts]
        ids = [one for some in parts for one in some]
        said = [""] * len(ids)
        for rows, lines in spoken(model, ids, longest=_longest, wide=wide, alpha=self.alpha):
            for row, line in zip(rows, lines, strict=True):
                said[row] = self._cut.decode(line[0].pieces)
        whole = iter(said)
        return [" ".join(filter(None, (next(whole) for _ in some))) for some in parts]

    def say_lines(self, model: Model, texts: Iterable[str]) -> Iterator[str]:
        """Translations of lines as they come, some hundred at a time, in their order, by the beam."""
        told = iter(texts)
        while some := list(islice(told, LINES)):
            yield from self.say(model, some, wide=self.beam)

    def draw(self, model: Model, text: str, *, count: int, choose: Choice) -> list[tuple[str, float]]:
        """Translations of a line whose pieces are chosen so, with the mean log-probability of their pieces, best first.
        Raises InputError as `predict`."""
        ids = self._asked(text)
        return drawn(model, self._cut, ids, count=count, choose=choose, longest=_longest(len(ids)))

    def stream(self, model: Model, text: str) -> Iterator[str]:
        """The likeliest translation of a line, in parts as they are said. Raises InputError as `predict`."""
        ids = self._asked(text)
        return streamed(model, self._cut, ids, longest=_longest(len(ids)))

    @torch.no_grad()
    def predict(self, model: Model, text: str, *, boost: Sequence[str] = (), mute: Sequence[str] = ()) -> Translated:
        """The translation of a line, and what each of its words read of the source.

        Marked words of the source are boosted or muted (`recuerdo.tasks.marking`); the translation without the marks
        is then in `before`. Raises InputError for a text that says nothing, for one that is far longer than what was
        learned from, for words that it has not, and for marks where the model has no attention.
        """
        text, boost, mute = self._plain(text), [*map(self._plain, boost)], [*map(self._plain, mute)]
        asked, ids = Worded.by_blanks(text), self._asked(text)
        plain = self._translated(model, asked, ids)
        if not boost and not mute:
            return plain
        if _is_blind(model):
            raise InputError(f"this {type(model).__name__} has no attention: boost and mute cannot reach it")
        with bending(model, marking(asked, owning(self._cut, asked), boost, mute)):
            steered = self._translated(model, asked, ids)
        marks = [*(f"boost: {word}" for word in boost), *(f"mute: {word}" for word in mute)]
        return replace(steered, marks=tuple(marks), before=plain)

    @torch.no_grad()
    def evidence(self, model: Model, split: str) -> dict[str, float]:
        """Alignment error rates in percent on the Hansards test set, English and French, in word_alignment/ of
        RECUERDO_DATA: of the usual map, the raw one, the one that is best on the first hundred pairs, and the diagonal;
        all on the other pairs. On "valid": of every map, on the first hundred."""
        if {self.source, self.target} != {"en", "fr"}:
            raise InputError(f"the gold alignments are of English and French, not of {self.source} and {self.target}")
        if _is_blind(model):
            raise InputError("this model has no attention: there is nothing to compare with an alignment")
        folder = _folder("the gold alignments are", "word_alignment")
        gold = hansards(folder, tokenised=self._tokenised)
        gold = [one if self.source == "en" else one.turned() for one in gold]
        if split == "valid":
            return error_rates(model.alignments, gold[:CHOSEN_ON], self._cut)
        return dict(judged(model.alignments, gold, self._cut))

    # ------------------------------------------------------------------------------------------------ what is behind it

    def _parts(self, text: str) -> list[list[int]]:
        """The pieces of a text, in parts of at most `longest`."""
        found: list[list[int]] = []
        for unit in self._units(self._plain(" ".join(text.split()))):
            if found and len(found[-1]) + len(unit) <= self.longest:
                found[-1] = [*found[-1][:-1], *unit]  # the end of the one before goes
            else:
                found.append(unit)
        return found

    def _units(self, text: str) -> Iterator[list[int]]:
        """A text's pieces if they are few enough, else those of its sentences, of its words, or some at a time."""
        if not text:
            return
        (ids,) = self._cut.encode([text])
        if len(ids) <= self.longest:
            yield ids
            return
        some, words = SENTENCE.split(text), text.split(" ")
        if len(some) == 1 and len(words) > 1:
            some = [" ".join(half) for half in (words[: len(words) // 2], words[len(words) // 2 :])]
        if len(some) > 1:
            for one in some:
                yield from self._units(one)
            return
        size = max(1, self.longest - 1)
        yield from ([*ids[:-1][first : first + size], END] for first in range(0, len(ids) - 1, size))

    def _asked(self, text: str) -> list[int]:
        """The pieces of a line that can be translated at once."""
        (ids,) = self._cut.encode([self._plain(text)])
        if not text.split():
            raise InputError("there is nothing to translate: give a text with a word in it")
        if len(ids) > 2 * self.longest:
            raise InputError(
                f"the text has {len(ids)} pieces, and this model learned from up to {self.longest}: "
                "give it in sentences"
            )
        return ids

    def _translated(self, model: Model, asked: Worded, ids: list[int]) -> Translated:
        ((_, lines),) = spoken(model, [ids], longest=_longest, wide=self.beam, alpha=self.alpha)
        said = self._cut.decode(lines[0][0].pieces)
        other = [(self._cut.decode(line.pieces), line.score) for line in lines[0]]
        answer, target = Worded.by_blanks(said), self._cut.encode([said])[0]
        usual = next(iter(model.alignments(padded([ids]), padded([target])).values()), None)
        sides = owning(self._cut, asked), owning(self._cut, answer)
        weights = () if usual is None else tuple(map(tuple, of_words(usual[0], *sides)[:, :-1].tolist()))
        strange = self._cut.strange(asked.text)
        unread = tuple(word for word in asked.words if not strange.isdisjoint(word))
        return Translated(tuple(asked.words), tuple(answer.words), weights, tuple(other), unread)

    def _plain(self, text: str) -> str:
        """The text without marks of the printer that the pairs never had."""
        return plainly(text, self._cut.strange(text))

    def _of_each(self, said: list[str], right: list[str], split: str) -> dict[str, float]:
        """BLEU of the pairs of each source, where there are several."""
        found, first = {}, 0
        for name, source in zip(self._named, self._sources(split), strict=True):
            last = first + len(source.pairs())
            found[f"BLEU {name}"] = bleu(said[first:last], right[first:last]).score
            first = last
        return found if len(found) > 1 else {}

    def _mean_loss(self, model: Model, split: str) -> float:
        most = 2 * self.longest  # of what is longer the beginning: reads are as many as pieces times pieces
        pairs, total, count = [(a[:most], b[:most]) for a, b in self._pieces(split)], 0.0, 0
        order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][1]))
        for first in range(0, len(order), 100):
            some = batch([pairs[i] for i in order[first : first + 100]]).to(next(model.parameters()).device)
            states = model.hear(some.source, some.told)
            total += float(_said(states, model.table, some, 0.0)) * len(some)
            count += len(some)
        return total / count

    @property
    def _named(self) -> list[str]:
        return self.data.split("+")

    @property
    def _tokenised(self) -> bool:
        return self._named == ["multi30k"] and self.form == "tokenised"

    @cached_property
    def _cut(self) -> Subwords:
        if self.subwords:
            return Subwords(self.subwords)
        return learned(self._sources("train"), self.pieces, self._tokenised)

    def _pieces(self, split: str) -> list[tuple[list[int], list[int]]]:
        return encoded(self._sources(split), self._cut.told)

    def _pairs(self, split: str) -> list[Pair]:
        return all_of(self._sources(split))

    def _sources(self, split: str) -> tuple[Source, ...]:
        return tuple(self._source(name, split) for name in self._named)

    def _source(self, name: str, split: str) -> Source:
        if name == "files":
            named = getattr(self, split)
            if len(named) not in (1, 2):
                raise InputError(
                    f'{split} = {list(named)} names no pairs: write {split} = ["a.en", "a.fr"], or one table'
                )
            return Source(tuple(str(Path(self.folder) / name) for name in named))
        here = Path(self.folder) if self.folder else _folder(f"{name} is", name)
        here = here / name if (here / name).is_dir() else here
        if name == "tatoeba":
            return Source((str(here / TATOEBA),), split, turned=self.source == "fr")
        stem = f"{SPLITS[split]}{FORMS[self.form]}"
        return Source(tuple(str(here / f"{stem}.{language}.gz") for language in (self.source, self.target)))


def _said(states: Tensor, table: Tensor, pairs: Bilingual, smoothing: float) -> Tensor:
    return loss_of_saying(states, table, pairs.target[pairs.target != PAD], smoothing=smoothing)


def _is_blind(model: Model) -> bool:
    return isinstance(model, Seq2Seq) and model.align is None


def _longest(size: int) -> int:
    return 2 * size + ROOM


def _folder(what: str, name: str) -> Path:
    if folder := data_folder(name):
        return folder
    get = f"fetch it with `recuerdo data get {name}`, or " if name in data_sets() else ""
    raise InputError(f"{what} needed and not here: {get}set RECUERDO_DATA to the folder that holds {name}/")
