"""One look from words to evidence: load a model, let it read, turn its reads into maps."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recuerdo.bridge.run import Heard, Loaded, hear_answer, hear_gradients, hear_pair, hear_text, load
from recuerdo.errors import InputError, ModelError
from recuerdo.explain.evidence import Evidence, View
from recuerdo.explain.flow import gradient_view, rollout_view, value_view
from recuerdo.explain.rows import Layer, Selection
from recuerdo.explain.tokenmap import CELLS, tile, token_map
from recuerdo.explain.views import BEYOND, Keys, Queries, by_all_rows, by_later_rows, make_views
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
    loaded: Loaded
    queries: Queries
    keys: Keys

    def put_first(self, view: str, *, progress: Progress | None = None) -> "Look":
        """Show this view by default; value, rollout and gradient are made when first asked for.

        Raises InputError for a name that is no view, or a view that this look cannot have.
        """
        check_view(view)
        made = {v.name: v for v in self.evidence.views}
        if view not in made:
            made[view] = self._follow(view, progress)
        self.evidence.views = [made[view], *(v for name, v in made.items() if name != view)]
        return self

    def _follow(self, view: str, progress: Progress | None) -> View:
        if view == "value":
            return value_view(self.selection, self.queries, self.keys)
        if view == "rollout":
            return rollout_view(self.selection, self.queries, self.keys, progress=_step(progress, "following"))
        reads = hear_gradients(self.loaded, self.heard, progress=progress)
        chosen = {layer.address for layer in self.selection.layers}
        reads = [r for r in reads if Address.parse(r.address).path in chosen]
        return gradient_view(self.selection, self.queries, self.keys, reads)

    def tile(self, rows: slice, cols: slice) -> np.ndarray:
        """Exact mean weights of any rectangle of the map, [n, m]: tokens that read, tokens that were read."""
        return tile(self.selection, rows, cols, self.selection.layers[0].keys)

    def draw_map(self, *, cells: int = CELLS, progress: Progress | None = None) -> "Look":
        """Add the zoomable map of the whole read, token by token, with at most so many cells."""
        rows, cols = self.heard.tokens, self.heard.tokens
        if self.evidence.kind == "alignment":
            rows = self.heard.answer_tokens
        elif self.evidence.kind == "answer":  # the last token was written and never read again
            rows = cols = rows[: self.selection.layers[0].queries]
        self.evidence.map = token_map(self.selection, rows, cols, cells=cells, progress=_step(progress, "mapping"))
        return self


def check_view(view: str) -> None:
    """Raise InputError for a name that is no view."""
    if view not in VIEWS:
        raise InputError(f"there is no view {view!r}: choose {', '.join(VIEWS[:-1])} or {VIEWS[-1]}")


def look(
    model: str | Path | Loaded,
    text: str,
    *,
    question: str | None = None,
    target: str | None = None,
    generate: int | None = None,
    layer: int | None = None,
    head: int | None = None,
    progress: Progress | None = None,
) -> Look:
    """Let a model read a text and see what it looked at.

    `model` is a name of the catalogue, a model folder, a hub id, or what `load` returned. With `question` (or
    `generate`) a language model answers, and the map shows what its answer read; an encoder-decoder shows what each
    target word read, its own target or the given one; else the text reads itself. `layer` and `head` narrow the map.
    `progress(what, done, total)` is called along the way.

    Raises InputError for text that cannot be used, ModelError and FetchError for models that cannot.
    """
    if not text.strip():
        raise InputError("there is nothing to read: the text is empty")
    loaded = model if isinstance(model, Loaded) else load(model, progress=progress)
    _check_place(loaded, layer, head)
    heard = _hear(loaded, text, question, target, generate, progress)
    reads = heard.cross if loaded.kind == "pair" else heard.own
    if not reads:
        raise ModelError(f"{loaded.name} has no cross-attention that could be heard")
    selection = Selection.of([Layer(path, steps) for path, steps in reads.items()], layer, head)
    if (question is not None or generate) and loaded.kind == "causal" and not heard.answer.strip():
        raise ModelError(f"{loaded.name} answered with nothing: ask another question, or generate more tokens")
    return see(loaded, heard, selection, question, _step(progress, "comparing"))


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


def _not_heard(silent: list[str]) -> str:
    return f" ({len(silent)} module{'' if len(silent) == 1 else 's'} not heard)" if silent else ""


def see(
    loaded: Loaded,
    heard: Heard,
    selection: Selection,
    question: str | None = None,
    step: Callable[[int, int], None] | None = None,
) -> Look:
    """Which rows are asked about, by the kind of look, and their views."""
    text, of = _document(heard)
    answer = cut(heard.answer) if heard.answer else None
    prompt = len(heard.offsets)
    keys = Keys(heard.tokens[:prompt], heard.special, of, len(text))
    others, by, beyond = "the other words", by_later_rows, BEYOND
    if answer is None:
        kind, queries, title = "text", Queries(0, of, len(text)), _title(heard.text)
    else:
        by_token = words_of_tokens(answer, heard.answer_offsets, heard.answer)
        if loaded.kind == "pair":  # row t wrote target token t
            kind, queries, title = "alignment", Queries(0, by_token, len(answer)), _title(heard.answer)
            others, by, beyond = "the target words", by_all_rows, 1.0
        else:  # each token was chosen by the row before it
            kind, queries = "answer", Queries(prompt - 1, by_token, len(answer))
            title, others = question or _title(heard.answer), "the later words of the text and the question"
    made = make_views(selection, queries, keys, others=others, by=by, beyond=beyond, progress=step)
    evidence = Evidence(
        kind=kind,
        title=title,
        question=question,
        model=loaded.name,
        tokens=len(heard.tokens) + (len(heard.answer_tokens) if kind == "alignment" else 0),
        layers=len(heard.cross if kind == "alignment" else heard.own),
        heads=selection.layers[0].heads,
        selection=selection.words + _not_heard(heard.silent),
        text=text,
        answer=answer,
        views=made.views,
        atlas=made.atlas,
        sinks=made.sinks,
    )
    seen = Look(evidence, heard, selection, loaded, queries, keys)
    return seen.put_first("aside") if kind == "alignment" else seen  # there the field's picture is the weights


def _step(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(what, done, total)
