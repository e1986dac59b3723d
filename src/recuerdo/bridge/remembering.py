"""A memory inside a language model: `with remember_in(model, "book.db") as memory:`, scoped and reversible.

The output of a language model is a read: its last state asks the rows of the vocabulary, and the softmax of the scores
is the next token. A memory is one more part of that read. Its rows are tokens that were read long ago:

    key    the state of a token and of the words before it     value    the token that came next

It is read by two heads. One finds like meanings by the last state of the model, the other the very words by the fading
sum of early ones; `recuerdo.bridge.states` makes both. All parts merge exactly as reads do, by their log-masses: (p, 0)
is the model's, and a head's is lse = log sum exp(sharpness * (alike - threshold) + bias). So the memory speaks where
something like the present words was read before, as loud as it is alike, and is silent elsewhere; how far it is then to
be believed it learns while it reads (`recuerdo.bridge.belief`). This is the
nearest-neighbour language model of Khandelwal et al. (2020, arXiv 1911.00172) with the mixing of Grave et al.'s
continuous cache (2017, arXiv 1612.04426) in place of a fixed weight, over a store that lasts.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recuerdo.bridge.attention import is_foreign
from recuerdo.bridge.belief import Belief
from recuerdo.bridge.reads import MEMORY
from recuerdo.bridge.recalling import MEANING, WORDS, Head, Recall, Recaller, merged, recalls
from recuerdo.bridge.run import Loaded, quiet
from recuerdo.bridge.states import KeyRule, Listener, States
from recuerdo.errors import InputError, ModelError, NothingHeard
from recuerdo.store.contract import Store
from recuerdo.store.embedded import Embedded
from recuerdo.store.record import Receipt, Rows, Where

KEPT = 4096  # steps whose recalls are kept
TOGETHER = 64  # queries that are read at once
GET = 1000  # rows taken out of the store at once
PROBE = 16  # tokens, whose states say whether a model is the one that wrote a memory


@dataclass(frozen=True, eq=False)
class Read:
    """A text that was read: its tokens, the ids of the rows it left, and -log p of each token but the first, in nats:
    `plain` is the model's alone, `nats` with the memory of all that was read before."""

    tokens: int
    ids: np.ndarray
    plain: np.ndarray
    nats: np.ndarray


class LanguageMemory:
    """The memory of a model inside the block of `remember_in`.

    Every call of the model inside the block, also from `generate`, gives the log-chances of the model and its memory
    together. `recalls` tells what the last tokens read. Only `read` writes: what the model says is not remembered
    unless it is read.
    """

    def __init__(self, model: Any, tokenizer: Any, listener: Listener, recaller: Recaller, window: int):
        self.model, self.store, self.window = model, recaller.store, window
        told = self.store.notes()
        self.centre, self.belief = _centre(told.get("centre", ""), model.device), Belief.of_text(told.get("belief", ""))
        self.recalls: deque[Recall] = deque(maxlen=KEPT)
        self.heard = 0
        self._tokenizer, self._listener, self._recaller = tokenizer, listener, recaller
        self._given: tuple[Tensor, int] | None = None
        self._aside = False

    # --------------------------------------------------------------------------------------------------------- reading

    def read(
        self,
        text: str | Sequence[int],
        *,
        tags: Sequence[str] = (),
        author: str = "",
        new: int | None = None,
        step: Callable[[str, int, int], None] | None = None,
    ) -> Read:
        """Let the model read a text, or tokens, and remember it part by part: each is on the disk when the next begins.

        The model sees `window` tokens at a time, the last `new` (half of them) for the first time: the more are new,
        the quicker it reads, and the less it sees before each. A text stands for itself. Raises InputError for a text
        of fewer than two tokens.
        """
        ids, pieces = self._tokens(text)
        n, new = len(ids), self.window // 2 if new is None else new
        if not 1 <= new <= self.window:
            raise InputError(f"of a window of {self.window} tokens, 1 to {self.window} are new, not {new}")
        kept, plain, nats, now = [], [], [], time.time()
        for start in range(0, n - 1, new):
            end = min(start + new, n)
            begin = 0 if not start else max(0, end - self.window)
            states, logits = self._run(ids[begin:end], keep=end - start)
            if self.centre is None:  # it is that of the first words that the memory reads, for good
                self.centre = states.mean()
                self.store.note("centre", self.centre.cpu().numpy().tobytes().hex())
            after = torch.tensor(ids[start + 1 : end + 1])
            keys, logits = self._listener.rule.keys(states, self.centre)[: len(after)], logits[: len(after)]
            for a in range(0, len(after), TOGETHER):
                some = slice(a, a + TOGETHER)
                told = self._nats(logits[some], keys[some], after[some])
                plain.append(told[0])
                nats.append(told[1])
            rows = Rows(
                keys.cpu().numpy(),
                pieces[start + 1 : end + 1],
                after[:, None].numpy().astype(np.float32),
                tags=[tuple(tags)] * len(after) if tags else (),
                times=[now] * len(after),  # one for the whole text: by it the rows of a text are known
                author=author,
            )
            kept.append(self.store.append(rows))
            self.store.note("belief", self.belief.as_text())
            if step is not None:
                step("reading", end, n)
        self.heard += 1
        return Read(n, *(np.concatenate(x) for x in (kept, plain, nats)))

    def _nats(self, logits: Tensor, keys: Tensor, after: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """-log p of the tokens that came, of the model alone and with its memory, which learns from them."""
        at = after.to(logits.device)[:, None]
        told = logits.float().log_softmax(-1).gather(-1, at)[:, 0]
        alone, recalled = told.cpu().numpy(), self._recaller(keys)
        if recalled is None:
            return -alone, -alone
        both = merged(logits, recalled, self.belief)[0].gather(-1, at)[:, 0]
        self.belief.learn(recalled.mass, alone.astype(np.float64), recalled.chance(after))
        return -alone, -both.cpu().numpy()

    @torch.no_grad()
    def _run(self, ids: Sequence[int], *, keep: int) -> tuple[States, Tensor]:
        """The model by itself over tokens: what was heard, and its logits for the last of them."""
        given = torch.tensor([list(ids)], device=self.model.device)
        self._aside = True
        try:
            with self._listener.another_sequence(), quiet():
                logits = self.model(given, use_cache=False, logits_to_keep=keep).logits
                return self._listener.heard(given[0], 0), logits[0, -keep:]
        finally:
            self._aside = False

    def _tokens(self, text: str | Sequence[int]) -> tuple[list[int], list[str]]:
        """Tokens, and the piece of the text that ends with each."""
        if isinstance(text, str):
            if self._tokenizer is None:
                raise InputError("without a tokenizer a memory reads tokens, not texts: pass what recuerdo.load gives")
            with quiet():
                told = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
            ids, ends = told["input_ids"], [end for _, end in told["offset_mapping"]]
            pieces = [text[a:b] for a, b in zip([0, *ends], ends, strict=False)]
        else:
            ids = [int(i) for i in text]
            with quiet():
                pieces = [f"<{i}>" if self._tokenizer is None else self._tokenizer.decode([i]) for i in ids]
        most = int(self.model.get_input_embeddings().weight.shape[0])
        if len(ids) < 2 or not 0 <= min(ids) <= max(ids) < most:
            raise InputError(f"a text to be remembered has two tokens or more, from 0 to {most - 1}")
        return ids, pieces

    # ------------------------------------------------------------------------------------------------------- recalling

    def begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A call of the model begins."""
        self._given = None if self._aside else self._listener.given(args, kwargs)

    def end(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """A call of the model ends: its output, with the memory in its logits."""
        if self._given is None:
            return output
        logits = getattr(output, "logits", None)
        if logits is None:
            raise ModelError(f"{type(self.model).__name__} gave no logits that a memory could be merged with")
        if logits.requires_grad:
            raise InputError("no gradient goes through a memory: call the model under torch.no_grad()")
        (tokens, past), self._given = self._given, None
        states = self._listener.heard(tokens, past)
        self.heard += 1
        rows = logits.shape[1]
        if self.centre is None or not rows:
            return output
        keys, out = self._listener.rule.keys(states, self.centre), logits[0].clone()
        first = past + len(tokens) - rows
        for a in range(0, rows, TOGETHER):
            some = slice(a, a + TOGETHER)
            recalled = self._recaller(keys[some])
            if recalled is not None:
                both, shares = merged(logits[0, some], recalled, self.belief)
                out[some] = both.to(out.dtype)
                self.recalls.extend(recalls(first + a, recalled, shares, self._recaller.top))
        output.logits = out[None]
        return output

    def passage(self, id: int, *, before: int = 12, after: int = 4) -> tuple[str, str, str]:
        """The words around a row: what stood before its token, the token, and what followed; as far as it is there."""
        there = self.store.ids(Where(ids=tuple(range(max(0, id - before), id + after + 1))))
        rows = {one.id: one.text for one in self.store.get(there)}
        if id not in rows:
            raise InputError(f"row {id} is not there")
        left = "".join(rows.get(i, "") for i in range(id - before, id))
        return left, rows[id], "".join(rows.get(i, "") for i in range(id + 1, id + after + 1))

    # ------------------------------------------------------------------------------------------------------ forgetting

    def find(self, text: str) -> list[np.ndarray]:
        """Where the memory holds these words: for each time the ids of their rows, [n], in order."""
        return [ids[:-1] for ids in self._found(text)]

    def forget(self, text: str, *, author: str = "", reason: str = "") -> Receipt:
        """Erase words wherever the memory holds them: afterwards it cannot say them, nor go on from their end.

        The rows that follow stay; the states in their keys had seen the words. Raises InputError where they are not
        found.
        """
        found = self._found(text)
        if not found:
            raise InputError(f"the memory does not hold {text[:60]!r}: give the words as they were read")
        erased = np.unique(np.concatenate(found))
        return self.store.forget(erased[erased >= 0], author=author, reason=reason)

    def _found(self, text: str) -> list[np.ndarray]:
        """The same with the row that stands on the last word, and says the next one; -1 where there is none."""
        if not text:
            raise InputError("there is no word to look for")
        ids, pieces, times = self.store.ids(self._recaller.where), [], []
        for a in range(0, len(ids), GET):
            for one in self.store.get(ids[a : a + GET]):
                pieces.append(one.text)
                times.append(one.time)
        # A row follows another where it has the next id and is of the same text.
        cut = np.flatnonzero((np.diff(ids) != 1) | (np.diff(times) != 0)) + 1
        found = []
        for some in np.split(np.arange(len(ids)), cut):
            ends, whole = np.cumsum([len(pieces[i]) for i in some]), "".join(pieces[i] for i in some)
            there = np.append(ids[some], -1)
            at = whole.find(text)
            while at >= 0:
                first, last = np.searchsorted(ends, [at, at + len(text) - 1], side="right")
                found.append(there[first : last + 2])
                at = whole.find(text, at + len(text))
        return found


def _centre(text: str, device: torch.device) -> Tensor | None:
    """The centre [2, d] that was written down; None where nothing was."""
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.float32).view(2, -1).to(device) if text else None


# ------------------------------------------------------------------------------------------------------------ attaching


@contextmanager
def remember_in(
    model: Any,
    store: str | Path | Store,
    *,
    rule: KeyRule | None = None,
    heads: Sequence[Head] = (MEANING, WORDS),
    top: int = 32,
    window: int = 1024,
    where: Where | None = None,
) -> Iterator[LanguageMemory]:
    """Give a causal Hugging Face model a memory inside the block: what `memory.read` reads is recalled at its output.

    `model` is what `recuerdo.load` gives, or a model (which then reads tokens only). `store` is a file, made where
    there is none, or an open store with keys of twice the model's width and values of width 1. How keys are made is
    written into a new memory and taken from an old one; `rule` chooses it (`KeyRule`). `heads` say how alike words must
    be for the memory to speak; each looks for the `top` best rows for each token; the model sees `window` tokens at a
    time while it reads; `where` narrows what is recalled.

    Leaving the block restores the model exactly. Raises ModelError for what is no causal model of Transformers,
    InputError for a memory that another model or another rule made, NothingHeard when nothing ran in the block.
    """
    model, tokenizer = (model.model, model.tokenizer) if isinstance(model, Loaded) else (model, None)
    width = _width(model)
    limit = getattr(model.config, "max_position_embeddings", None) or window
    if not 2 <= window <= limit:
        raise InputError(f"the window is 2 to {limit} tokens, which this model can see, not {window}")
    with ExitStack() as stack:
        if isinstance(store, str | Path):
            store = stack.enter_context(Embedded(store, width=2 * width, value_width=1))
        rule = _same_rule(store, width, rule, model)
        listener = Listener(model, rule)
        stack.enter_context(listener.listening())
        _same_model(store, model, listener, rule)
        recaller = Recaller(store, heads, top=top, where=where)
        memory = LanguageMemory(model, tokenizer, listener, recaller, window)
        stack.enter_context(_inside(model, recaller))
        for handle in (
            model.register_forward_pre_hook(memory.begin, with_kwargs=True),
            model.register_forward_hook(memory.end, with_kwargs=True),
        ):
            stack.callback(handle.remove)
        yield memory
        if not memory.heard:
            raise NothingHeard(
                f"{type(model).__name__} was given a memory and nothing ran: read a text or call the model in the block"
            )


def _width(model: Any) -> int:
    if not is_foreign(model) or not hasattr(model, "get_output_embeddings") or model.get_output_embeddings() is None:
        raise ModelError(
            f"{type(model).__name__} is no causal model of Transformers: a memory needs one that says tokens"
        )
    if getattr(model.config, "is_encoder_decoder", False):
        raise ModelError(f"{type(model).__name__} is an encoder-decoder: a memory follows one sequence, a decoder's")
    if MEMORY in dict(model.named_children()):
        raise ModelError(
            f"{type(model).__name__} has a part named {MEMORY} already: leave the block before you begin another"
        )
    return int(model.config.get_text_config().hidden_size)


@contextmanager
def _inside(model: nn.Module, recaller: Recaller) -> Iterator[None]:
    """The recaller is a part of the model, which gives its reads an address. It has no parameters."""
    model.add_module(MEMORY, recaller)
    try:
        yield
    finally:
        del model._modules[MEMORY]


def _same_rule(store: Store, width: int, rule: KeyRule | None, model: Any) -> KeyRule:
    """The rule that the memory goes by; a new one is given this rule, or one that suits the model."""
    told = store.notes().get("rule")
    if told is None:
        if store.width != 2 * width or len(store.ids()):
            raise InputError(
                f"this store has {len(store.ids())} rows and keys of width {store.width}: a new memory of "
                f"{type(model).__name__} is empty, with keys of width {2 * width} and values of width 1"
            )
        return rule or KeyRule(min(1, model.config.get_text_config().num_hidden_layers - 1))
    kept = KeyRule.of_text(told)
    if rule is not None and rule != kept:
        raise InputError(f"this memory was made by {kept}, not by {rule}: leave the rule out, or make another memory")
    return kept


def _same_model(store: Store, model: Any, listener: Listener, rule: KeyRule) -> None:
    """Write down which model makes the keys, or see that it is the one that made them."""
    ids = torch.arange(1, PROBE + 1, device=model.device)[None] % model.get_input_embeddings().weight.shape[0]
    with torch.no_grad(), listener.another_sequence():
        model(ids, use_cache=False)
        states = listener.heard(ids[0], 0)
    last = torch.cat([states.own[-1:], states.early[-1:]]).float()
    probe = nn.functional.normalize(last, dim=-1).cpu().numpy()
    told = store.notes()
    if "rule" not in told:
        store.note("language model", type(model).__name__)
        store.note("probe", probe.tobytes().hex())
        store.note("rule", rule.as_text())  # last: a memory with a rule is whole
        return
    kept = np.frombuffer(bytes.fromhex(told.get("probe", "")), np.float32)
    if kept.size != probe.size or bool(((kept.reshape(probe.shape) * probe).sum(-1) < 0.999).any()):
        raise InputError(
            f"this memory was made with another model ({told.get('language model', 'unknown')}), whose states are not "
            f"those of this {type(model).__name__}: use that model, or make another memory"
        )
