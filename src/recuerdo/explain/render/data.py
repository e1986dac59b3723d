"""Evidence as plain data: JSON that reads by itself, NPZ for numpy."""

from dataclasses import asdict
from typing import Any

import numpy as np

from recuerdo.errors import InputError
from recuerdo.explain.evidence import Evidence, MarkedWords, Trusted, View
from recuerdo.explain.sinks import Sink
from recuerdo.explain.sparse import Sparse
from recuerdo.explain.words import Words


def as_data(evidence: Evidence) -> dict[str, Any]:
    """The look as plain lists and numbers.

    `views[v].rows[q]` belongs to query q (0 = all together, 1 + i = query word i): pairs [text word, share], strongest
    first, and the share of each sentence.
    """
    return {
        "version": 1,
        "kind": evidence.kind,
        "title": evidence.title,
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
        "text": _cut(evidence.text),
        "answer_text": None if evidence.answer is None else _cut(evidence.answer),
        "sentences": [evidence.text.sentence(i) for i in range(len(evidence.text.sentences))],
        "views": [_view(evidence, view) for view in evidence.views],
        "sinks": [
            {"token": s.token, "word": s.word, "share": round(s.share, 6), "why": s.why, "heads": s.heads}
            for s in evidence.sinks
        ],
        "marks": [asdict(mark) for mark in evidence.marks],
        "guard": evidence.guard,
        "before": None if evidence.before is None else as_data(evidence.before),
        "moved": None if evidence.moved is None else _view(evidence, evidence.moved),
        "trust": [asdict(trusted) for trusted in evidence.trust],
    }


def _text(words: Any) -> str:
    return "".join(w + g for w, g in zip(words.words, words.glue, strict=True)).strip()


def _cut(words: Words) -> dict[str, Any]:
    return {"glue": words.glue, "sentences": words.sentences, "paragraphs": words.paragraphs}


def from_data(data: Any, source: str = "this") -> Evidence:
    """The look that `as_data` gave, without its token map and atlas. Raises InputError for anything else."""
    try:
        text = _words(data["words"], data["text"])
        answer = None if data["answer_text"] is None else _words(data["queries"], data["answer_text"])
        return Evidence(
            **{name: data[name] for name in ("kind", "title", "model", "tokens", "layers", "heads", "selection")},
            question=data["question"],
            text=text,
            answer=answer,
            views=[_read_view(view, len(text)) for view in data["views"]],
            sinks=[Sink(**sink) for sink in data["sinks"]],
            command=data["command"],
            marks=[MarkedWords(**m | {"words": [tuple(run) for run in m["words"]]}) for m in data.get("marks", [])],
            guard=data.get("guard"),
            before=None if data.get("before") is None else from_data(data["before"], source),
            moved=None if data.get("moved") is None else _read_view(data["moved"], len(text)),
            trust=[Trusted(**trusted) for trusted in data.get("trust", [])],
        )
    except (KeyError, TypeError, ValueError, IndexError):
        raise InputError(f"{source} is not a look: write one with `recuerdo look … --out FILE.json`") from None


def _words(words: list[str], cut: dict[str, Any]) -> Words:
    ends = np.cumsum([len(w) + len(g) for w, g in zip(words, cut["glue"], strict=True)])
    spans = [(int(e) - len(g) - len(w), int(e) - len(g)) for e, w, g in zip(ends, words, cut["glue"], strict=True)]
    return Words(list(words), list(cut["glue"]), list(cut["sentences"]), list(cut["paragraphs"]), spans)


def _read_view(view: dict[str, Any], columns: int) -> View:
    dense = np.zeros((len(view["rows"]), columns), np.float32)
    for row, pairs in zip(dense, view["rows"], strict=True):
        for word, share in pairs["words"]:
            row[word] = share
    signed = bool(view.get("signed", False))
    return View(view["name"], view["label"], view["note"], Sparse.of(dense, view["floor"], signed=signed))


def _view(evidence: Evidence, view: View) -> dict[str, Any]:
    rows = []
    for q in range(view.map.shape[0]):
        part = slice(view.map.start[q], view.map.start[q + 1])
        order = np.argsort(-np.abs(view.map.value[part]))
        pairs = zip(view.map.index[part][order].tolist(), view.map.value[part][order].tolist(), strict=True)
        sentences = [round(float(s), 4) for s in evidence.sentences(view.name, q)] if not view.map.signed else []
        rows.append({"words": [[i, round(x, 6)] for i, x in pairs], "sentences": sentences})
    return {
        "name": view.name,
        "label": view.label,
        "note": view.note,
        "floor": view.map.floor,
        "signed": view.map.signed,
        "rows": rows,
    }


def as_arrays(evidence: Evidence) -> dict[str, Any]:
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
    return arrays
