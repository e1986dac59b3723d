"""A memory of texts: remember, ask, correct, pin, boost, mute, forget. `Memory` ties a store to an encoder.

A text becomes passages, a passage one row: its key is the encoder's vector. A question reads the rows by attention;
words that it shares with them (BM25) count as a bias in the same softmax.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch

from recuerdo.bridge.sentences import SentenceEncoder
from recuerdo.data.documents import documents
from recuerdo.errors import InputError, NoMemory
from recuerdo.memory.episodic import Episodic
from recuerdo.store.contract import Store
from recuerdo.store.near import Near
from recuerdo.store.record import Hand, Receipt, Record, Rows, Where, check_text
from recuerdo.workbench.asked import Asked, Episode
from recuerdo.workbench.moving import MOVING
from recuerdo.workbench.opening import open_store, place_of
from recuerdo.workbench.passages import passages, sentences_of
from recuerdo.workbench.running import open_run
from recuerdo.workbench.tags import OWN, PART, SAME, SOURCE, TEXT, mark, own, shown

SHARPNESS = 20.0  # of cosines
WORDS = 0.6  # what a unit of BM25 adds to a logit
PIN = 4.0  # what pinning adds to a logit
TOGETHER = 64  # passages that are kept in one go
FOLLOW = {"minilm": "follow-minilm"}  # the trained next question of an encoder
LONG, MOST, FAR = 10_000, 1000, 16  # characters of a question, episodes that are shown, hops
Step = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Said:
    """A text to be kept: where it is from, its tags and author, and the time it speaks of (seconds since 1970)."""

    text: str
    source: str = ""
    tags: tuple[str, ...] = ()
    author: str = ""
    when: float | None = None


@dataclass(frozen=True)
class Remembered:
    """What became of a text: the ids of its new rows, how many were known from the same source, and which of the new
    ones say what another row says already: new id -> old id."""

    ids: tuple[int, ...]
    known: int
    same: dict[int, int] = field(default_factory=dict)


class Memory:
    """A memory of texts with an encoder: `with Memory("notes.db") as memory: memory.ask("Who …?")`.

    `where` is what `recuerdo.workbench.opening` understands: a file, a schema on a server, a collection in a cluster.
    `encoder` is a name that `SentenceEncoder` takes; a memory keeps to the one that it was made with. `make`: whether
    one is made where there is none. `further`: a run of the task `find`, which says where further hops look; "" = the
    one that comes with the package for this encoder, or question plus what was read. `approximate`: questions without a
    filter go by the index, where there is one (`recuerdo memories index`).

    Raises NoMemory where there is no memory, StoreError for what cannot be opened, InputError for another encoder than
    the memory's own, and what the encoder raises.
    """

    def __init__(
        self,
        where: str | Path,
        *,
        encoder: str = "",
        further: str | Path = "",
        read_only: bool = False,
        make: bool = True,
        approximate: Near | None = None,
        progress: Callable[..., None] | None = None,
    ):
        self.name = place_of(where).name
        store: Store | None = None
        try:
            store = open_store(where, read_only=read_only, approximate=approximate)
        except NoMemory:
            if read_only or not make:
                raise
        try:
            facts = store.notes() if store is not None else {}
            if MOVING in facts:
                fix = f"finish it with `recuerdo memories move {facts[MOVING]} {self.name}`"
                raise InputError(f"{self.name} is half of a move: {fix}")
            made_by = facts.get("encoder")
            if made_by and encoder and encoder != made_by:
                raise InputError(f"{self.name} was made with the encoder {made_by}, not {encoder}: leave it away")
            name = made_by or encoder or "minilm"
            self.encoder = SentenceEncoder(name, progress=progress)
            if store is None:
                store = open_store(where, width=self.encoder.width, approximate=approximate)
            self.store = store
            self._same_encoder(name, new=made_by is None)
        except BaseException:
            if store is not None:
                store.close()
            raise
        self.reader = Episodic(self.store, sharpness=SHARPNESS)
        self.named = further or FOLLOW.get(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the store."""
        self.store.close()

    # ----------------------------------------------------------------------------------------------------- remembering

    def remember(
        self,
        text: str,
        *,
        source: str = "",
        tags: Sequence[str] = (),
        author: str = "",
        when: float | None = None,
        step: Step | None = None,
    ) -> Remembered:
        """Keep a text, passage by passage. What was kept before from the same source is not kept twice, so a run that
        was stopped may be repeated. A passage that another row already says word for word is kept and linked to that.

        `when` is the time that it speaks of (seconds since 1970; None = now). Raises InputError for a text without a
        word.
        """
        told = self.remember_all([Said(text, source, tuple(tags), author, when)], step=step)
        if not told.ids and not told.known:
            raise InputError("there is no word to remember")
        return told

    def remember_file(
        self,
        path: Path,
        *,
        folder: Path | None = None,
        tags: Sequence[str] = (),
        author: str = "",
        step: Step | None = None,
    ) -> Remembered:
        """Keep what a file says (`recuerdo.data.documents` reads it); a row knows the file and the page, row or line.

        With a `folder` the path counts from there and cannot leave it. Raises InputError for what cannot be read.
        """
        said = (
            Said(
                one.text,
                " ".join(filter(None, [str(path), one.part])),
                (*tags, *one.tags),
                one.author or author,
                one.time,
            )
            for one in documents(path, folder)
        )
        return self.remember_all(said, step=step)

    def remember_all(self, said: Iterable[Said], *, step: Step | None = None) -> Remembered:
        """Keep texts as `remember` does; some passages at a time are encoded and written, each such part as a whole."""
        ids: list[int] = []
        same: dict[int, int] = {}
        known = 0
        waiting: list[tuple[Said, str]] = []

        def write() -> None:
            if not waiting:
                return
            texts = [part for _, part in waiting]
            twins = [self._twin(part) for part in texts]
            tags = [_tags(one, part, twin) for (one, part), twin in zip(waiting, twins, strict=True)]
            now = time.time()
            times = [now if one.when is None else one.when for one, _ in waiting]
            rows = Rows(self.encoder.encode(texts), texts, tags=tags, times=times, author=waiting[0][0].author)
            kept = self.store.append(rows).tolist()
            ids.extend(kept)
            same.update({id: twin for id, twin in zip(kept, twins, strict=True) if twin is not None})
            waiting.clear()
            if step is not None:
                step("remembering passages", len(ids), 0)

        for one in said:
            check_text(one.text)
            if own(one.tags) != list(one.tags):
                raise InputError(f"tags that begin with {', '.join(OWN)} are the memory's own")
            for part in dict.fromkeys(passages(one.text)):
                if one.source and len(self.store.ids(Where(tags=(PART + mark(one.source, part),)))):
                    known += 1
                    continue
                # A row's author is one for all that is written together, and a twin must be there to be found.
                if waiting and (waiting[0][0].author != one.author or any(part == other for _, other in waiting)):
                    write()
                waiting.append((one, part))
                if len(waiting) == TOGETHER:
                    write()
        write()
        return Remembered(tuple(ids), known, same)

    # ---------------------------------------------------------------------------------------------------------- asking

    def ask(
        self, question: str, *, top: int = 5, hops: int = 1, where: Where | None = None, words: float = WORDS
    ) -> Asked:
        """The episodes that answer a question. `words` is what a unit of BM25 adds to a logit; 0 = by meaning alone.

        With more `hops` what was read moves the question, and the episode that a hop read most is not read again: so
        the second finds the fact that shares nothing with the question but what the first one found. Rows that say the
        same word for word count as one episode, whose weight is theirs together. Raises InputError for a question
        without a word, and for what is far more than anybody asks for, or less than one.
        """
        _check_asked(question, top, hops, words)
        ids, scores = self.store.matches(question, where=where) if words else (np.empty(0, np.int64), np.empty(0))
        added = {int(id): words * float(x) for id, x in zip(ids, scores, strict=True)}
        asked = torch.from_numpy(self.encoder.encode([question]))
        query, shown = asked, []
        while True:
            last = self.reader(query, top=2 * top, where=where, added=[added])[0]
            shown.append(self._episodes(asked[0].numpy(), self.reader.records(last), last.weights[0].tolist(), top))
            if len(shown) == hops or not shown[-1]:
                break
            best = shown[-1][0]
            added = added | dict.fromkeys((best.record.id, *best.also), -np.inf)
            query = self.further(query, last.mixed)
        # More rows were read than are shown, for those that say the same: covered counts what is shown.
        read = float(last.weights[0].sum())
        share = sum(one.weight for one in shown[-1]) / read if read else 0.0
        return Asked(question, tuple(shown), share * float(last.covered[0]), last.looked, last.addressed)

    def rows_of(self, question: str, *, top: int = 5, where: Where | None = None) -> list[tuple[int, float]]:
        """The rows that answer a question, best first, each with the weight of its episode; rows that say the same
        word for word have it together."""
        (found,) = self.ask(question, top=top, where=where).hops
        return [(id, one.weight) for one in found for id in (one.record.id, *one.also)]

    def _episodes(
        self, query: np.ndarray, records: list[Record], weights: list[float], top: int
    ) -> tuple[Episode, ...]:
        groups: dict[str, list[tuple[float, Record]]] = {}
        for record, weight in zip(records, weights, strict=False):
            if not weight:  # a hop before has read it
                continue
            groups.setdefault(record.text, []).append((weight, record))
        found = []
        for same in sorted(groups.values(), key=lambda same: -sum(weight for weight, _ in same))[:top]:
            _, record = min(same, key=lambda pair: pair[1].id)
            also = tuple(one.id for _, one in same if one.id != record.id)
            found.append(Episode(sum(weight for weight, _ in same), record, self._carried(query, record.text), also))
        return tuple(found)

    def _carried(self, query: np.ndarray, text: str) -> str:
        """The sentence of a text that is most like the question."""
        parts = sentences_of(text) or [text]
        return parts[0] if len(parts) == 1 else parts[int((self.encoder.encode(parts) @ query).argmax())]

    # ------------------------------------------------------------------------------------------------- a person's hand

    def correct(self, id: int, text: str, *, author: str = "", reason: str = "") -> int:
        """Put another text in the place of a row's, as its next version, whose number is returned; the old one is kept
        in its history until the row is forgotten."""
        check_text(text)
        if not sentences_of(text):
            raise InputError("there is no word to remember")
        old = self.store.get([id])[0]
        tags = [tag for tag in old.tags if not tag.startswith((SAME, TEXT))] + [TEXT + mark("", text)]
        row = Rows(self.encoder.encode([text]), [text], tags=[tags], times=[old.time], author=author)
        return self.store.update(id, row, reason=reason)

    def boost(self, ids: Sequence[int], amount: float, *, author: str = "", reason: str = "") -> None:
        """Set what is added to the logits of rows; 0 takes back what was done to them."""
        self.store.bias(ids, amount, author=author, reason=reason)

    def pin(self, ids: Sequence[int], *, author: str = "", reason: str = "") -> None:
        """Read rows far more than others: 4 is added to their logits, which multiplies their odds by 55."""
        self.store.bias(ids, PIN, author=author, reason=reason)

    def mute(self, ids: Sequence[int], *, author: str = "", reason: str = "") -> None:
        """Never read rows, until they are boosted by 0."""
        self.store.bias(ids, -np.inf, author=author, reason=reason)

    def undo(self, id: int, *, author: str = "", reason: str = "") -> Hand:
        """Take back what a hand did last to a row (correct, pin, boost, mute): what that was. Undone again, it goes
        further back. Raises InputError where nothing is left; an erase cannot be undone."""
        return self.store.undo(id, author=author, reason=reason)

    def forget(self, ids: Sequence[int], *, author: str = "", reason: str = "") -> Receipt:
        """Erase rows and all their versions, to the last byte within reach."""
        return self.store.forget(ids, author=author, reason=reason)

    # ----------------------------------------------------------------------------------------------- what is behind it

    @cached_property
    def further(self) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """What makes the question of the next hop."""
        if self.named is None:
            return _further
        run = open_run(self.named)
        if run.recipe.task != "find" or getattr(run.task, "encoder", "") != self.encoder.name:
            raise InputError(f"{self.named} says nothing about where to look next with the encoder {self.encoder.name}")
        return torch.no_grad()(run.model)

    def _twin(self, text: str) -> int | None:
        """The first row that says the same word for word."""
        there = self.store.ids(Where(tags=(TEXT + mark("", text),)))
        return int(there[0]) if len(there) else None

    def _same_encoder(self, name: str, *, new: bool) -> None:
        """Write down which encoder makes the keys, or see that it is the one that made them."""
        if self.encoder.width != self.store.width or (new and len(self.store.ids())):
            raise InputError(f"{self.name} holds keys that {name} did not make: they are not a memory of texts")
        probe = self.encoder.probe()
        if new:
            self.store.note("probe", probe.tobytes().hex())
            self.store.note("encoder", name)  # last: a memory that has it has both
            return
        told = np.frombuffer(bytes.fromhex(self.store.notes().get("probe", "")), np.float32)
        if told.shape != probe.shape or float(told @ probe) < 0.999:
            raise InputError(
                f"{self.name} was made with the encoder {name}, which gives other vectors now: "
                "use the files that it was made with, or make another memory"
            )


def _check_asked(question: str, top: int, hops: int, words: float) -> None:
    check_text(question)
    if len(question) > LONG:
        raise InputError(f"a question of {len(question):,} characters is too long: {LONG:,} are the most")
    if not sentences_of(question):
        raise InputError("a question has at least one word")
    if not (1 <= top <= MOST and 1 <= hops <= FAR):
        raise InputError(f"episodes are 1 to {MOST} and hops 1 to {FAR}, not {top} and {hops}")
    if not 0 <= words <= MOST:
        raise InputError(f"the weight of shared words is 0 to {MOST}, not {words}")


def _further(query: torch.Tensor, mixed: torch.Tensor) -> torch.Tensor:
    """The question of the next hop: what was asked and what was read, of length 1 as all keys are."""
    return torch.nn.functional.normalize(query + mixed, dim=-1)


def _tags(said: Said, part: str, twin: int | None) -> list[str]:
    """The tags of a passage: those of people, and the memory's own."""
    source = [SOURCE + shown(said.source)] if said.source else []
    same = [] if twin is None else [f"{SAME}{twin}"]
    return [*said.tags, *source, PART + mark(said.source, part), TEXT + mark("", part), *same]
