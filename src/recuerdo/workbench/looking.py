"""One look from words to evidence: load a model, let it read, turn its reads into maps."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recuerdo.bridge.run import Heard, Loaded, hear_answer, hear_pair, hear_text, load
from recuerdo.errors import InputError, ModelError
from recuerdo.explain.evidence import Evidence
from recuerdo.explain.rows import Layer, Selection
from recuerdo.explain.tokenmap import TokenMap, token_map
from recuerdo.explain.views import Keys, Queries, make_views
from recuerdo.explain.words import Words, cut, words_of_tokens

__all__ = ["Look", "load", "look"]

Progress = Callable[[str, int, int], None]


@dataclass
class Look:
    """A look at one text: the evidence to render, and the reads to ask more of."""

    evidence: Evidence
    heard: Heard
    selection: Selection


def look(
    model: str | Path | Loaded,
    text: str,
    *,
    question: str | None = None,
    target: str | None = None,
    generate: int | None = None,
    layer: int | None = None,
    head: int | None = None,
    map_cells: int = 200_000,
    progress: Progress | None = None,
) -> Look:
    """Let a model read a text and see what it looked at.

    `model` is a name of the catalogue, a model folder, a hub id, or what `load` returned. With `question` (or
    `generate`) a language model answers, and the map shows what its answer read; an encoder-decoder shows what each
    target word read, its own target or the given one; else the text reads itself. `layer` and `head` narrow the map;
    `map_cells` is how many cells the zoomable token map keeps at most (0 = no such map).
    `progress(what, done, total)` is called along the way.

    Raises InputError for text that cannot be used, ModelError and FetchError for models that cannot.
    """
    if not text.strip():
        raise InputError("there is nothing to read: the text is empty")
    loaded = model if isinstance(model, Loaded) else load(model, progress=progress)
    heard = _hear(loaded, text, question, target, generate, progress)
    if loaded.kind == "pair":
        return _alignment(loaded, heard, layer, head, map_cells, progress)
    if heard.answer:
        return _answer(loaded, heard, question, layer, head, map_cells, progress)
    if question is not None:
        raise ModelError(f"{loaded.name} answered with nothing: ask another question, or generate more tokens")
    return _text(loaded, heard, layer, head, map_cells, progress)


def _hear(
    loaded: Loaded, text: str, question: str | None, target: str | None, generate: int | None, progress: Progress | None
) -> Heard:
    if loaded.kind in ("speech", "vision"):
        what = "listens to sound" if loaded.kind == "speech" else "looks at pictures"
        raise ModelError(f"{loaded.name} {what}, and this look is over text: choose minilm, smollm2 or a text model")
    if target is not None and loaded.kind != "pair":
        raise ModelError(f"{loaded.name} has no target side: --target is for encoder-decoders")
    if loaded.kind == "pair":
        if question is not None:
            text = f"question: {question} context: {text}"
        return hear_pair(loaded, text, target, generate=generate or 64, progress=progress)
    if loaded.kind == "encoder":
        if question is not None or generate:
            raise ModelError(f"{loaded.name} cannot answer, it only reads: leave out the question, or choose smollm2")
        return hear_text(loaded, text, progress=progress)
    if question is None and not generate:
        return hear_text(loaded, text, progress=progress)
    return hear_answer(loaded, text, question, generate=32 if generate is None else generate, progress=progress)


def _title(text: str) -> str:
    words = text.split()
    return " ".join(words[:8]) + (" …" if len(words) > 8 else "")


def _document(heard: Heard) -> tuple[Words, np.ndarray]:
    start, end = heard.document
    words = cut(heard.text[start:end])
    return words, words_of_tokens(words, heard.offsets, heard.text, start)


def _layers(reads: dict) -> list[Layer]:
    return [Layer(path, steps) for path, steps in reads.items()]


def _answer(
    loaded: Loaded, heard: Heard, question: str | None, layer: int | None, head: int | None, cells: int,
    progress: Progress | None,
) -> Look:  # fmt: skip
    """The rows that produced the answer's tokens: each token was chosen by the row before it."""
    selection = Selection.of(_layers(heard.own), layer, head)
    text, of = _document(heard)
    answer = cut(heard.answer)
    by_token = words_of_tokens(answer, heard.answer_offsets, heard.answer)
    prompt = len(heard.offsets)
    queries = Queries(prompt - 1, by_token, len(answer))
    keys = Keys(heard.tokens[:prompt], heard.special, of, len(text))
    views = make_views(selection, queries, keys, progress=_step(progress, "comparing"))
    read = min(len(heard.tokens), selection.layers[0].queries)
    the_map = _map(selection, heard.tokens[:read], heard.tokens[:read], cells, progress)
    evidence = Evidence(
        kind="answer",
        title=question or _title(heard.answer),
        question=question,
        model=loaded.name,
        tokens=len(heard.tokens),
        layers=len(heard.own),
        heads=selection.layers[0].heads,
        selection=selection.words,
        text=text,
        answer=answer,
        views=views.views,
        atlas=views.atlas,
        sinks=views.sinks,
        map=the_map,
    )
    return Look(evidence, heard, selection)


def _text(
    loaded: Loaded, heard: Heard, layer: int | None, head: int | None, cells: int, progress: Progress | None
) -> Look:
    selection = Selection.of(_layers(heard.own), layer, head)
    text, of = _document(heard)
    queries = Queries(0, of, len(text))
    keys = Keys(heard.tokens, heard.special, of, len(text))
    views = make_views(selection, queries, keys, others="the other words", progress=_step(progress, "comparing"))
    evidence = Evidence(
        kind="text",
        title=_title(heard.text),
        model=loaded.name,
        tokens=len(heard.tokens),
        layers=len(heard.own),
        heads=selection.layers[0].heads,
        selection=selection.words,
        text=text,
        views=views.views,
        atlas=views.atlas,
        sinks=views.sinks,
        map=_map(selection, heard.tokens, heard.tokens, cells, progress),
    )
    return Look(evidence, heard, selection)


def _alignment(
    loaded: Loaded, heard: Heard, layer: int | None, head: int | None, cells: int, progress: Progress | None
) -> Look:
    """Cross-attention: the row that produced a target token, over the source."""
    if not heard.cross:
        raise ModelError(f"{loaded.name} has no cross-attention that could be heard")
    selection = Selection.of(_layers(heard.cross), layer, head)
    text, of = _document(heard)
    answer = cut(heard.answer)
    queries = Queries(0, words_of_tokens(answer, heard.answer_offsets, heard.answer), len(answer))
    keys = Keys(heard.tokens, heard.special, of, len(text))
    views = make_views(selection, queries, keys, others="the target words", beyond=1.0, progress=_step(progress, "comparing"))
    rows = heard.answer_tokens
    evidence = Evidence(
        kind="alignment",
        title=_title(heard.answer),
        model=loaded.name,
        tokens=len(heard.tokens) + len(rows),
        layers=len(heard.cross),
        heads=selection.layers[0].heads,
        selection=selection.words,
        text=text,
        answer=answer,
        views=[views.views[1], views.views[0], views.views[2]],
        atlas=views.atlas,
        sinks=views.sinks,
        map=_map(selection, rows, heard.tokens, cells, progress),
    )
    return Look(evidence, heard, selection)


def _map(
    selection: Selection, rows: list[str], cols: list[str], cells: int, progress: Progress | None
) -> TokenMap | None:
    return token_map(selection, rows, cols, cells=cells, progress=_step(progress, "mapping")) if cells else None


def _step(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(what, done, total)
