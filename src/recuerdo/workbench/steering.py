"""Steer a model by marks: around any call of it, or one question asked twice, before and after."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recuerdo.bridge.attention import attach, is_foreign
from recuerdo.bridge.beside import Beside
from recuerdo.bridge.reads import reads_of
from recuerdo.bridge.run import Heard, Loaded, hear_answer, load
from recuerdo.errors import InputError, MarkError, ModelError
from recuerdo.explain.compare import moved, share_on
from recuerdo.explain.evidence import MarkedWords
from recuerdo.explain.rows import Layer, Selection
from recuerdo.explain.views import Queries
from recuerdo.read import bending
from recuerdo.steer.cells import patch_mask, time_mask
from recuerdo.steer.guard import Guard, guard
from recuerdo.steer.marks import Mark, as_marks
from recuerdo.steer.places import Box, Quote, Slots, Span, Time
from recuerdo.steer.placing import on_prompt, on_slots, on_tokens, runs
from recuerdo.steer.profiles import Profile, looked_up
from recuerdo.steer.rule import Marked, Rule
from recuerdo.workbench.looking import Look, Progress, look, see

SOURCE = frozenset({"encoder", "cross"})
OWN = frozenset({"self"})
ANY = SOURCE | OWN


@contextmanager
def steer(
    model: Loaded | nn.Module,
    marks: Any,
    *,
    text: str | Sequence[str] | None = None,
    inputs: Any = None,
    document: tuple[int, int] | None = None,
    profile: Profile | None = None,
) -> Iterator[Rule]:
    """Inside the block every read of the model obeys the marks; leaving it, also by an exception, is the undo.

    `marks`: one Mark, several, or their data; for a batch one list of marks for each text. `model`: own, Hugging Face,
    or what `load` gave. Marks on text need `text`, the very text that the model reads (a list for a batch), and
    `inputs`, what a fast tokenizer made of it (left out with what `load` gave: its tokenizer is asked). Marks on
    images need `inputs` with pixel_values; marks on sound and on slots nothing. `document` is the part of the text in
    which the marks count their characters. `profile` holds the heads of marks whose scope names a head set.

    Yields the Rule; its `bent` counts the reads that each mark bent. Raises MarkError for marks that fit neither text
    nor model, NothingHeard when no read came by.
    """
    net = model.model if isinstance(model, Loaded) else model
    marked = [replace(m, paths=_tower(m.mark, net)) for m in _place(model, net, marks, text, inputs, document, profile)]
    rule = Rule(marked, reads_of(net))
    with ExitStack() as stack:
        if is_foreign(net):
            stack.enter_context(attach(net))  # type: ignore[arg-type]
        stack.enter_context(bending(net, rule))
        yield rule


def _place(
    model: Loaded | nn.Module, net: nn.Module, marks: Any, text: Any, inputs: Any, document: Any, profile: Any
) -> list[Marked]:
    """The marks on the keys of the model."""
    if isinstance(text, str) or text is None:
        return _one(model, net, list(as_marks(marks)), text, inputs, document, profile)
    texts = list(text)
    lists = [as_marks(some) for some in _for_each(marks, len(texts))]
    for mark in (mark for some in lists for mark in some if not isinstance(mark.where, Quote | Span)):
        raise MarkError(f"the mark {mark} is not on words, and a batch of texts has nothing else to mark")
    offsets = _offsets(model, texts, inputs)
    width = max(len(some) for some in offsets)
    placed = []
    for example, some in enumerate(lists):
        for mark, keys in zip(some, on_tokens(some, texts[example], offsets[example], document=document), strict=True):
            rows = torch.zeros(len(texts), width, dtype=torch.bool)
            rows[example, : len(keys)] = keys
            placed.append(_marked(mark, rows, _roles(net), profile))
    return _together(placed)


def _for_each(marks: Any, count: int) -> list[Any]:
    """The marks of each text: a list of lists as it is, anything else for every text. Raises MarkError."""
    if not count:
        raise MarkError("text= is an empty list: pass the texts that the model reads")
    if not isinstance(marks, list | tuple) or not any(isinstance(some, list | tuple) for some in marks):
        return [as_marks(marks)] * count
    if len(marks) != count:
        raise MarkError(f"there are lists of marks for {len(marks)} texts, and text= holds {count}")
    return list(marks)


def _marked(
    mark: Mark, keys: Tensor, roles: frozenset[str], profile: Profile | None, behind: int | None = None
) -> Marked:
    """A mark on keys, with heads, strengths and queries of its head set; `behind` = the first token after the text."""
    narrowed, found = looked_up(mark, profile)
    if found is not None and found.queries == "after" and behind is not None and mark.scope.queries is None:
        narrowed = replace(narrowed, scope=replace(narrowed.scope, queries=(behind, None)))
    if found is not None and found.steps is not None and mark.scope.steps is None:
        narrowed = replace(narrowed, scope=replace(narrowed.scope, steps=found.steps))
    return Marked(narrowed, keys, roles, None if found is None else found.strengths_at(mark.amount))


def _tower(mark: Mark, net: nn.Module) -> Callable[[str], bool] | None:
    """The part of a model of words and pictures that the mark is on; None where there is one part only."""
    if not hasattr(getattr(net, "config", None), "vision_config") or isinstance(mark.where, Slots):
        return None
    sees = isinstance(mark.where, Box)
    return lambda path: ("vision" in path) is sees


def _together(placed: list[Marked]) -> list[Marked]:
    """Marks of one wish on different texts of a batch are one: each read is then bent once for all of them."""
    wishes: dict[tuple, Marked] = {}
    for one in placed:
        mark = one.mark
        wish = (mark.action, mark.amount, mark.scope)
        old = wishes.get(wish)
        if old is not None and not bool((old.keys.any(1) & one.keys.any(1)).any()):
            wishes[wish] = replace(old, keys=old.keys | one.keys)
        else:
            wishes[wish if old is None else (*wish, len(wishes))] = one
    return list(wishes.values())


def _one(
    model: Any, net: Any, marks: list[Mark], text: str | None, inputs: Any, document: Any, profile: Profile | None
) -> list[Marked]:
    placed: list[Marked] = []
    on_text = [mark for mark in marks if isinstance(mark.where, Quote | Span)]
    if on_text:
        if text is None:
            raise MarkError(f"the mark {on_text[0]} is on words: pass text=, the text that the model reads")
        offsets = _offsets(model, [text], inputs)[0]
        keys = on_tokens(on_text, text, offsets, document=document)
        behind = _behind(offsets, document)
        placed += [_marked(mark, some, _roles(net), profile, behind) for mark, some in zip(on_text, keys, strict=True)]
    for mark in marks:
        if isinstance(mark.where, Slots):
            placed.append(_marked(mark, on_slots(mark.where), ANY, profile))
        elif isinstance(mark.where, Box):
            placed.append(_marked(mark, _patches(mark.where, net, inputs), OWN, profile))
        elif isinstance(mark.where, Time):
            placed.append(_marked(mark, _frames(mark.where, net), SOURCE, profile))
    return placed


def _behind(offsets: Sequence[tuple[int, int]], document: tuple[int, int] | None) -> int | None:
    """The first token that begins after the document, or the last of all; None where no document was named."""
    if document is None:
        return None
    later = [i for i, (start, end) in enumerate(offsets) if start >= document[1] and end > start]
    return later[0] if later else len(offsets) - 1


def _roles(net: Any) -> frozenset[str]:
    """The reads whose keys are the tokens of the text."""
    pair = is_foreign(net) and net.config.is_encoder_decoder
    return SOURCE if pair else OWN


def _offsets(model: Any, texts: list[str], inputs: Any) -> list[list[tuple[int, int]]]:
    """The characters of every token of every text."""
    if inputs is None and isinstance(model, Loaded) and model.tokenizer is not None:
        inputs = model.tokenizer(texts, padding=len(texts) > 1)
    encodings = getattr(inputs, "encodings", None)
    if not encodings:
        raise MarkError("marks on words need inputs=, what a fast tokenizer made of the text (or a model from load)")
    if len(encodings) != len(texts):
        raise MarkError(f"inputs hold {len(encodings)} texts, and text {len(texts)}")
    offsets = [list(encoding.offsets) for encoding in encodings]
    if any(end > len(some) for some, found in zip(texts, offsets, strict=True) for _, end in found):
        raise MarkError("inputs were made of another text: pass text= as the tokenizer was given it")
    return offsets


def _patches(box: Box, net: Any, inputs: Any) -> Tensor:
    config = getattr(net, "config", None)
    config = getattr(config, "vision_config", config)
    size, patch = getattr(config, "image_size", None), getattr(config, "patch_size", None)
    if not isinstance(patch, int) or not isinstance(size, int):
        raise MarkError(f"{type(net).__name__} has no patches: a mark on a box is for models that look at pictures")
    pixels = None if inputs is None else inputs.get("pixel_values") if hasattr(inputs, "get") else inputs
    height, width = pixels.shape[-2:] if pixels is not None else (size, size)
    first = 1 + getattr(config, "num_register_tokens", 0)  # the class token and its like stand first
    return patch_mask(box, height // patch, width // patch, before=first)


def _frames(time: Time, net: Any) -> Tensor:
    frames = getattr(getattr(net, "config", None), "max_source_positions", None)
    if frames is None:
        raise MarkError(f"{type(net).__name__} has no frames: a mark on a time is for models that listen")
    return time_mask(time.start, time.end, frames, 30.0 / frames)  # Whisper hears 30 seconds at a time


# ---------------------------------------------------------------------------------------------- one question, twice


@dataclass
class Steered:
    """One question, asked without the marks and with them, and the guard rails."""

    before: Look
    after: Look
    marks: tuple[Mark, ...]
    guard: Guard
    bent: list[int]
    text: str | None = None  # what the marks count their characters in, where that is not what the model read

    def as_data(self) -> dict[str, Any]:
        """Answers, marks, guard rails, and what moved, as plain data."""
        view = self.after.evidence.moved
        row = view.map.row(0) if view is not None else np.zeros(0)
        order = [int(i) for i in np.argsort(-np.abs(row))[:12] if row[i] != 0]
        words = self.after.evidence.text.words
        return {
            "version": 1,
            "model": self.after.evidence.model,
            "question": self.after.evidence.question,
            "before": self.before.heard.answer,
            "after": self.after.heard.answer,
            "marks": [mark.to_data() for mark in self.marks],
            "reads bent": self.bent,
            "guard": asdict(self.guard),
            "moved": [{"word": i, "text": words[i], "share": round(float(row[i]), 6)} for i in order],
        }


def ask_steered(
    model: Any,
    text: str,
    marks: Any,
    *,
    question: str | None = None,
    generate: int = 32,
    gate: float | None = None,
    profile: Profile | None = None,
    progress: Progress | None = None,
) -> Steered:
    """Ask a language model about a text without and with the marks, and compare: answers, maps, guard rails.

    Marks count their characters in `text`. With `gate` (0 to 1) the steered model can only choose tokens that the
    unsteered one gives at least so many times its favourite's probability. Raises MarkError for marks that do not fit
    the text, InputError and ModelError as `look` does.
    """
    loaded = model if isinstance(model, Loaded) else load(model, progress=progress)
    found = as_marks(marks)
    if loaded.kind != "causal" or loaded.tokenizer is None:
        raise ModelError(f"{loaded.name} does not answer: take a language model, or steer a call of yours with `steer`")
    if not found:
        raise MarkError("there are no marks: mark some words of the text")
    on_tokens(found, text, [(i, i + 1) for i in range(len(text))])  # refuse bad marks before the model runs
    before = look(loaded, text, question=question, generate=generate, progress=progress)
    return steer_again(before, found, text=text, gate=gate, profile=profile, generate=generate, progress=progress)


def steer_again(
    before: Look,
    marks: tuple[Mark, ...],
    *,
    text: str | None = None,
    gate: float | None = None,
    profile: Profile | None = None,
    generate: int = 32,
    progress: Progress | None = None,
) -> Steered:
    """The steered half of `ask_steered`, against an unsteered look that was taken already.

    Marks count their characters in `text`, what `before` was taken of; by default the text as the model was given it.
    Raises ModelError where the steered model says nothing at all.
    """
    heard, rails, rule = _answer(before, marks, text, gate, profile, generate, progress)
    if not heard.answer.strip():
        raise ModelError(f"so steered, {before.loaded.name} says nothing: mark more gently, or fewer layers")
    keys = _keys(before, marks, text)
    after = see(before.loaded, heard, _selection(heard), before.evidence.question)
    seen = after.evidence
    seen.marks = [marked_words(mark, some, before) for mark, some in zip(marks, keys, strict=True)]
    seen.before, seen.guard = before.evidence, asdict(rails)
    seen.moved = moved(before.evidence, seen)
    return Steered(before, after, marks, rails, rule.bent, text)


def _keys(seen: Look, marks: Sequence[Mark], text: str | None) -> list[Tensor]:
    heard = seen.heard
    if text is None:
        text = heard.text[slice(*heard.document)]
    return on_prompt(marks, text, heard.text, heard.offsets, heard.document)


def _selection(heard: Heard) -> Selection:
    return Selection.of([Layer(path, steps) for path, steps in heard.own.items()])


def _answer(
    before: Look,
    marks: Sequence[Mark],
    text: str | None,
    gate: float | None,
    profile: Profile | None,
    generate: int,
    progress: Progress | None = None,
) -> tuple[Heard, Guard, Rule]:
    """What the steered model answers, and how far that is from the model's own."""
    loaded, own = before.loaded, before.heard
    keys = _keys(before, marks, text)
    beside, behind = Beside(loaded.model, gate=gate), _behind(own.offsets, own.document)
    rule = Rule(
        [_marked(mark, some, OWN, profile, behind) for mark, some in zip(marks, keys, strict=True)],
        reads_of(loaded.model),
    )
    document = own.text[slice(*own.document)] if text is None else text
    with bending(loaded.model, rule):
        heard = hear_answer(
            replace(loaded, processors=(beside,)),
            document,
            before.evidence.question,
            generate=generate,
            progress=progress,
        )
    marked = torch.stack(keys).any(0).numpy()
    rows = len(heard.answer_ids)
    asked = Queries(len(own.offsets) - 1, np.zeros(rows, int), 1)
    shares = share_on(before.selection, before.queries, marked), share_on(_selection(heard), asked, marked)
    rails = guard(torch.stack(beside.steered), torch.stack(beside.plain), heard.answer_ids, own.answer_ids, mass=shares)
    unused = [str(mark) for mark, count in zip(marks, rule.bent, strict=True) if not count]
    rails.warnings.extend(f"the mark {mark} bent no read: look at its scope" for mark in unused)
    return heard, rails, rule


def marked_words(mark: Mark, keys: Tensor, seen: Look) -> MarkedWords:
    """A mark as runs of words of the text that was looked at."""
    of = torch.from_numpy(np.asarray(seen.keys.word))
    words = torch.zeros(len(seen.evidence.text), dtype=torch.bool)
    words[of[keys & (of >= 0)]] = True
    label = mark.action
    if mark.amount is not None:
        label += f" {100 * mark.amount:g} %" if mark.action == "share" else f" ×{mark.amount:g}"
    scope = "" if mark.scope == type(mark.scope)() else str(mark.scope)
    return MarkedWords(runs(words), mark.action, label, scope, mark.author, mark.reason, mark.date)


def dose_curve(
    seen: Steered,
    amounts: Sequence[float],
    *,
    generate: int = 32,
    profile: Profile | None = None,
    each: Callable[[dict[str, Any]], None] | None = None,
) -> list[dict[str, Any]]:
    """The answer at several strengths: for each amount the answer and its guard rails.

    Marks that boost, damp or share take the amount; mutes stay as they are. Raises InputError without such a mark,
    MarkError for an amount that the action cannot have.
    """
    if all(mark.action == "mute" for mark in seen.marks):
        raise InputError("mute has no strength: a dose curve needs a mark that boosts, damps or shares")
    rows = []
    for amount in amounts:
        marks = tuple(mark if mark.action == "mute" else replace(mark, amount=amount) for mark in seen.marks)
        heard, rails, _ = _answer(seen.before, marks, seen.text, None, profile, generate)
        row = {"amount": amount, "answer": heard.answer, **asdict(rails)}
        rows.append(row)
        if each is not None:
            each(row)
    return rows
