"""Evidence as plain data: JSON that reads by itself, NPZ for numpy."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from recuerdo.explain.evidence import Evidence, View


def as_data(evidence: Evidence) -> dict[str, Any]:
    """The look as plain lists and numbers.

    `views[v].rows[q]` belongs to query q (0 = all together, 1 + i = query word i): pairs [text word, share], strongest
    first, and the share of each sentence.
    """
    return {
        "version": 1,
        "kind": evidence.kind,
        "model": evidence.model,
        "question": evidence.question,
        "answer": None if evidence.answer is None else _text(evidence.answer),
        "tokens": evidence.tokens,
        "layers": evidence.layers,
        "heads": evidence.heads,
        "selection": evidence.selection,
        "command": evidence.command,
        "words": evidence.text.words,
        "queries": evidence.queries.words,
        "sentences": [evidence.text.sentence(i) for i in range(len(evidence.text.sentences))],
        "views": [_view(evidence, view) for view in evidence.views],
        "sinks": [{"token": s.token, "word": s.word, "share": round(s.share, 6), "why": s.why} for s in evidence.sinks],
    }


def _text(words: Any) -> str:
    return "".join(w + g for w, g in zip(words.words, words.glue, strict=True)).strip()


def _view(evidence: Evidence, view: View) -> dict[str, Any]:
    rows = []
    for q in range(view.map.shape[0]):
        part = slice(view.map.start[q], view.map.start[q + 1])
        order = np.argsort(-np.abs(view.map.value[part]))
        pairs = zip(view.map.index[part][order].tolist(), view.map.value[part][order].tolist(), strict=True)
        sentences = [round(float(s), 4) for s in evidence.sentences(view.name, q)] if not view.map.signed else []
        rows.append({"words": [[i, round(x, 6)] for i, x in pairs], "sentences": sentences})
    return {"name": view.name, "label": view.label, "note": view.note, "floor": view.map.floor, "rows": rows}


def write_json(evidence: Evidence, path: Path) -> None:
    """One JSON object."""
    path.write_text(json.dumps(as_data(evidence), ensure_ascii=False), encoding="utf-8")


def write_npz(evidence: Evidence, path: Path) -> None:
    """Arrays: words, queries, and view.<name> [queries + 1, words] with row 0 = all queries together."""
    arrays: dict[str, Any] = {
        "words": np.array(evidence.text.words),
        "queries": np.array(evidence.queries.words),
        "sentences": np.array(evidence.text.sentences),
        "sinks": np.array([s.token for s in evidence.sinks], dtype=np.int64),
    }
    for view in evidence.views:
        arrays[f"view.{view.name}"] = view.map.dense()
    if evidence.map is not None:
        arrays["map.overview"] = evidence.map.overview
        for name in ("start", "index", "value"):
            arrays[f"map.cells.{name}"] = getattr(evidence.map.cells, name)
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)
