"""One look from words to evidence: load a model, let it read, turn its reads into maps."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from recuerdo.bridge.run import Heard, Loaded, hear_answer, hear_gradients, hear_pair, hear_text, load
from recuerdo.errors import InputError, ModelError
from recuerdo.explain.evidence import Evidence
from recuerdo.explain.flow import gradient_view, rollout_view, value_view
from recuerdo.explain.rows import Layer, Selection
from recuerdo.explain.tokenmap import TokenMap, token_map
from recuerdo.explain.views import BEYOND, Keys, Queries, Views, make_views
from recuerdo.explain.words import Words, cut, words_of_tokens
from recuerdo.read import Address

__all__ = ["Look", "load", "look"]

Progress = Callable[[str, int, int], None]
VIEWS = ("lift", "aside", "raw", "value", "rollout", "gradient")


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
    view: str | None = None,
    map_cells: int = 200_000,
    progress: Progress | None = None,
) -> Look:
    """Let a model read a text and see what it looked at.

    `model` is a name of the catalogue, a model folder, a hub id, or what `load` returned. With `question` (or
    `generate`) a language model answers, and the map shows what its answer read; an encoder-decoder shows what each
    target word read, its own target or the given one; else the text reads itself. `layer` and `head` narrow the map;
    `view` comes first: lift, aside, raw, or one that is made on request: value, rollout, gradient (docs/look.md);
    `map_cells` is how many cells the zoomable token map keeps at most (0 = no such map).
    `progress(what, done, total)` is called along the way.

    Raises InputError for text that cannot be used, ModelError and FetchError for models that cannot.
    """
    if not text.strip():
        raise InputError("there is nothing to read: the text is empty")
    if view is not None and view not in VIEWS:
        raise InputError(f"there is no view {view!r}: choose {', '.join(VIEWS[:-1])} or {VIEWS[-1]}")
    loaded = model if isinstance(model, Loaded) else load(model, progress=progress)
    _check_place(loaded, layer, head)
    heard = _hear(loaded, text, question, target, generate, progress)
    reads = heard.cross if loaded.kind == "pair" else heard.own
    if not reads:
        raise ModelError(f"{loaded.name} has no cross-attention that could be heard")
    layers = [Layer(path, steps) for path, steps in reads.items()]
    wanted = _Wanted(Selection.of(layers, layer, head), view, len(layers), map_cells, progress)
    if loaded.kind == "pair":
        return _alignment(loaded, heard, wanted)
    if heard.answer:
        return _answer(loaded, heard, question, wanted)
    if question is not None:
        raise ModelError(f"{loaded.name} answered with nothing: ask another question, or generate more tokens")
    return _text(loaded, heard, wanted)


@dataclass(frozen=True)
class _Wanted:
    """What a look is made of."""

    selection: Selection
    view: str | None
    all_layers: int
    cells: int
    progress: Progress | None

    def map(self, rows: list[str], cols: list[str]) -> TokenMap | None:
        if not self.cells:
            return None
        return token_map(self.selection, rows, cols, cells=self.cells, progress=_step(self.progress, "mapping"))


def _check_place(loaded: Loaded, layer: int | None, head: int | None) -> None:
    """Refuse a layer or head that does not exist before the model runs, as far as its configuration tells."""
    config = loaded.model.config
    layers, heads = getattr(config, "num_hidden_layers", None), getattr(config, "num_attention_heads", None)
    if layer is not None and layers is not None and not -layers <= layer < layers:
        raise InputError(f"there is no layer {layer}: {loaded.name} has layers 0 to {layers - 1}")
    if head is not None and heads is not None and not 0 <= head < heads:
        raise InputError(f"there is no head {head}: {loaded.name} has heads 0 to {heads - 1}")


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


def _views(
    wanted: _Wanted, loaded: Loaded, heard: Heard, queries: Queries, keys: Keys, *, others: str, beyond: float
) -> Views:
    """The views that are always made, and the one that was asked for on top of them."""
    selection = wanted.selection
    step = _step(wanted.progress, "comparing")
    made = make_views(selection, queries, keys, others=others, beyond=beyond, progress=step)
    if wanted.view == "value":
        extra = value_view(selection, queries, keys)
    elif wanted.view == "rollout":
        extra = rollout_view(selection, queries, keys, progress=_step(wanted.progress, "following"))
    elif wanted.view == "gradient":
        reads = hear_gradients(loaded, heard, progress=wanted.progress)
        chosen = {layer.address for layer in selection.layers}
        extra = gradient_view(selection, queries, keys, [r for r in reads if Address.parse(r.address).path in chosen])
    else:
        first = [v for v in made.views if v.name == wanted.view]
        return replace(made, views=first + [v for v in made.views if v not in first])
    return replace(made, views=[extra, *made.views])


def _answer(loaded: Loaded, heard: Heard, question: str | None, wanted: _Wanted) -> Look:
    """The rows that produced the answer's tokens: each token was chosen by the row before it."""
    text, of = _document(heard)
    answer = cut(heard.answer)
    prompt = len(heard.offsets)
    queries = Queries(prompt - 1, words_of_tokens(answer, heard.answer_offsets, heard.answer), len(answer))
    keys = Keys(heard.tokens[:prompt], heard.special, of, len(text))
    others = "the later words of the text and the question"
    views = _views(wanted, loaded, heard, queries, keys, others=others, beyond=BEYOND)
    tokens = heard.tokens[: min(len(heard.tokens), wanted.selection.layers[0].queries)]
    evidence = Evidence(
        kind="answer",
        title=question or _title(heard.answer),
        question=question,
        text=text,
        answer=answer,
        map=wanted.map(tokens, tokens),
        **_facts(loaded, wanted, views, len(heard.tokens)),
    )
    return Look(evidence, heard, wanted.selection)


def _text(loaded: Loaded, heard: Heard, wanted: _Wanted) -> Look:
    text, of = _document(heard)
    queries = Queries(0, of, len(text))
    keys = Keys(heard.tokens, heard.special, of, len(text))
    views = _views(wanted, loaded, heard, queries, keys, others="the other words", beyond=BEYOND)
    evidence = Evidence(
        kind="text",
        title=_title(heard.text),
        text=text,
        map=wanted.map(heard.tokens, heard.tokens),
        **_facts(loaded, wanted, views, len(heard.tokens)),
    )
    return Look(evidence, heard, wanted.selection)


def _alignment(loaded: Loaded, heard: Heard, wanted: _Wanted) -> Look:
    """Cross-attention: the row that produced a target token, over the source."""
    text, of = _document(heard)
    answer = cut(heard.answer)
    queries = Queries(0, words_of_tokens(answer, heard.answer_offsets, heard.answer), len(answer))
    keys = Keys(heard.tokens, heard.special, of, len(text))
    # The field's picture is the weights themselves: here they come first.
    asked = wanted if wanted.view else replace(wanted, view="aside")
    views = _views(asked, loaded, heard, queries, keys, others="the target words", beyond=1.0)
    evidence = Evidence(
        kind="alignment",
        title=_title(heard.answer),
        text=text,
        answer=answer,
        map=wanted.map(heard.answer_tokens, heard.tokens),
        **_facts(loaded, wanted, views, len(heard.tokens) + len(heard.answer_tokens)),
    )
    return Look(evidence, heard, wanted.selection)


def _facts(loaded: Loaded, wanted: _Wanted, views: Views, tokens: int) -> dict[str, Any]:
    return {
        "model": loaded.name,
        "tokens": tokens,
        "layers": wanted.all_layers,
        "heads": wanted.selection.layers[0].heads,
        "selection": wanted.selection.words,
        "views": views.views,
        "atlas": views.atlas,
        "sinks": views.sinks,
    }


def _step(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(what, done, total)
