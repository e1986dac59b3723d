"""A look as one self-contained page: the built viewer from `web/` with the data inside (docs/page-format.md)."""

import base64
import gzip
import json
from dataclasses import asdict
from importlib.resources import files
from typing import Any

import numpy as np

from recuerdo.errors import InputError
from recuerdo.explain.evidence import Evidence, View
from recuerdo.explain.sparse import Sparse
from recuerdo.explain.words import Words

VERSION = 1
LARGEST = 1_950_000  # bytes: pages are sent by mail
_KINDS = {"u8": "<u1", "u16": "<u2", "u32": "<u4", "f32": "<f4"}
_SLOT = '<script type="application/json" id="recuerdo-data">null</script>'


def page(evidence: Evidence) -> str:
    """The page as HTML. Cells of the maps are left out, smallest first, until it has fewer than 2 MB."""
    template = files("recuerdo.explain").joinpath("static/page.html").read_text(encoding="utf-8")
    if _SLOT not in template:
        raise InputError("the page template is damaged: install recuerdo again")
    cells = len(evidence.map.cells.value) if evidence.map is not None else 0
    lit = max((len(view.map.value) for view in evidence.views), default=0)
    while True:
        data = json.dumps(page_data(evidence, cells=cells, lit=lit), ensure_ascii=False, separators=(",", ":"))
        # Nothing in the data can end the element it stands in, and a broken letter cannot stop the page from opening.
        data = data.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
        data = data.encode(errors="replace").decode()
        before, after = template.split(_SLOT)
        html = f"{before}{_SLOT.replace('null', data)}{after}"
        size = len(html.encode())
        if size <= LARGEST or max(cells, lit) < 1000:
            return html
        shrink = min(0.9, (LARGEST / size) ** 1.5)
        cells, lit = (int(cells * shrink), lit) if cells > lit else (cells, int(lit * shrink))


def page_data(evidence: Evidence, *, cells: int | None = None, lit: int | None = None) -> dict[str, Any]:
    """The object inside the page, with at most so many cells in the map and so many `lit` words in each view."""
    return {
        "version": VERSION,
        "kind": evidence.kind,
        "title": evidence.title,
        "question": evidence.question,
        "model": evidence.model,
        "tokens": evidence.tokens,
        "layers": evidence.layers,
        "heads": evidence.heads,
        "selection": evidence.selection,
        "command": evidence.command,
        "text": _words(evidence.text),
        "answer": None if evidence.answer is None else _words(evidence.answer),
        "views": [_view(v, lit) for v in evidence.views],
        "atlas": _atlas(evidence),
        "sinks": [{"word": s.word, "token": s.token, "share": round(s.share, 5), "why": s.why} for s in evidence.sinks],
        "map": _map(evidence, cells),
        "marks": [asdict(mark) for mark in evidence.marks],
        "before": _before(evidence, lit),
        "moved": None if evidence.moved is None else _view(evidence.moved, lit),
        "guard": evidence.guard,
        "trust": _trust(evidence),
    }


def _view(view: View, lit: int | None) -> dict[str, Any]:
    cells = _sparse(view.map if lit is None else view.map.at_most(lit))
    return {"name": view.name, "label": view.label, "note": view.note, "map": cells}


def _before(evidence: Evidence, lit: int | None) -> dict[str, Any] | None:
    before = evidence.before
    if before is None:
        return None
    answer = None if before.answer is None else _words(before.answer)
    return {"answer": answer, "views": [_view(v, lit) for v in before.views]}


def _trust(evidence: Evidence) -> dict[str, Any] | None:
    """The score of the default view, and those of every view and method."""
    if not evidence.trust:
        return None
    first = next((t for t in evidence.trust if t.view == evidence.view().name), evidence.trust[0])
    how = "its words' keys were taken out of every read" if first.removal == "keys" else "its words were replaced"
    note = f"{first.measure}: {how}; 0 = a random order of words, 100 = the best order found"
    methods = [{"name" if k == "view" else k: v for k, v in asdict(t).items()} for t in evidence.trust]
    return {
        "score": first.score,
        "low": first.low,
        "high": first.high,
        "verdict": first.verdict,
        "note": note,
        "methods": methods,
    }


def _words(words: Words) -> dict[str, Any]:
    return {
        "words": words.words,
        "glue": words.glue,
        "sentences": words.sentences,
        "paragraphs": words.paragraphs,
    }


def _packed(array: np.ndarray, kind: str, largest: float | None = None) -> dict[str, Any]:
    array = np.ascontiguousarray(array, dtype=_KINDS[kind])
    packed = {
        "dtype": kind,
        "shape": list(array.shape),
        "data": base64.b64encode(gzip.compress(array.tobytes(), 9, mtime=0)).decode(),
    }
    return packed if largest is None else packed | {"max": largest}


def _scaled(array: np.ndarray, bits: int) -> tuple[np.ndarray, float]:
    largest = float(array.max(initial=0.0)) or 1.0
    return np.rint(np.clip(array / largest, 0, 1) * (2**bits - 1)), largest


def _sparse(sparse: Sparse) -> dict[str, Any]:
    if sparse.signed:
        largest = float(np.abs(sparse.value).max(initial=0.0)) or 1.0
        value = np.rint(sparse.value / largest * 32767) + 32768
    else:
        value, largest = _scaled(sparse.value, 16)
    return {
        "rows": sparse.shape[0],
        "cols": sparse.shape[1],
        "start": _packed(sparse.start, "u32"),
        "index": _packed(sparse.index, "u16" if sparse.shape[1] <= 2**16 else "u32"),
        "value": _packed(value, "u16", largest),
        "floor": sparse.floor,
        "signed": sparse.signed,
    }


def _atlas(evidence: Evidence) -> dict[str, Any] | None:
    atlas = evidence.atlas
    if atlas is None:
        return None
    peak, largest = _scaled(atlas.peak, 8)
    value, most = _scaled(atlas.value, 8)
    return {
        "peak": _packed(peak, "u8", largest),
        "index": _packed(atlas.index, "u16"),
        "value": _packed(value, "u8", most),
    }


def _map(evidence: Evidence, cells: int | None) -> dict[str, Any] | None:
    if evidence.map is None:
        return None
    overview, largest = _scaled(evidence.map.overview, 8)
    same = evidence.map.cols == evidence.map.rows
    return {
        "rows": evidence.map.rows,
        "cols": None if same else evidence.map.cols,
        "overview": _packed(overview, "u8", largest),
        "cells": _sparse(evidence.map.cells if cells is None else evidence.map.cells.at_most(cells)),
        "label": evidence.map.label,
        "causal": evidence.map.causal,
    }
