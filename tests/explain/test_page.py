"""The page as Python writes it: the data inside say what the evidence says, and nothing in them can break out."""

import base64
import gzip
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from recuerdo.explain.evidence import Atlas, Evidence, View
from recuerdo.explain.page import page, page_data
from recuerdo.explain.sinks import Sink
from recuerdo.explain.sparse import Sparse
from recuerdo.explain.tokenmap import TokenMap
from recuerdo.explain.words import cut

HOSTILE = "</script><img src=x onerror=alert(1)>"
MAIL = 2_000_000  # bytes that a page may have


def unpacked(packed: dict) -> np.ndarray:
    """As docs/page-format.md tells it."""
    kinds = {"u8": "<u1", "u16": "<u2", "u32": "<u4", "f32": "<f4"}
    raw = np.frombuffer(gzip.decompress(base64.b64decode(packed["data"])), kinds[packed["dtype"]])
    array = raw.reshape(packed["shape"])
    if "max" not in packed:
        return array
    return array / float(np.iinfo(array.dtype).max) * packed["max"]


def sparse_of(told: dict) -> Sparse:
    value = unpacked({k: v for k, v in told["value"].items() if k != "max"}).astype(np.float64)
    value = (value - 32768) / 32767 if told["signed"] else value / 65535
    shape = told["rows"], told["cols"]
    start, index = unpacked(told["start"]).astype(int), unpacked(told["index"]).astype(int)
    return Sparse(shape, start, index, value * told["value"]["max"], told["floor"], told["signed"])


def views(rng: np.random.Generator, queries: int, words: int, cells: int) -> list[View]:
    """Three views, one of them signed, with so many cells in a row."""
    made = []
    for name, signed in (("first", False), ("second", False), ("signed", True)):
        dense = np.zeros((1 + queries, words), np.float32)
        for row in dense:
            row[rng.choice(words, min(cells, words), replace=False)] = rng.random(min(cells, words)) ** 4
        dense = dense / dense.sum(1, keepdims=True) - (0.01 * (dense > 0) if signed else 0)
        made.append(View(name, name.title(), f"a note on {name}", Sparse.of(dense, 1e-4, signed=signed)))
    return made


def evidence(
    text: str = "One two three. Four five six!\n\nSeven.", answer: str | None = "Yes, two.", **changed
) -> Evidence:
    rng = np.random.default_rng(0)
    words, queries = cut(text), None if answer is None else cut(answer)
    count = len(words) if queries is None else len(queries)
    tokens = ["<s>", *words.words]
    weights = np.tril(rng.random((len(tokens), len(tokens))).astype(np.float32))
    weights /= weights.sum(1, keepdims=True)
    shape = (1 + count, 2, 3)
    atlas = Atlas(rng.random(shape), rng.integers(0, len(words), (*shape, 4)), rng.random((*shape, 4)))
    parts = {
        "kind": "text" if queries is None else "answer",
        "title": "How many?",
        "model": "a model",
        "tokens": len(tokens),
        "layers": 2,
        "heads": 3,
        "selection": "mean over all layers and heads",
        "text": words,
        "views": views(rng, count, len(words), 5),
        "question": None if queries is None else "How many?",
        "answer": queries,
        "atlas": atlas,
        "sinks": [Sink(0, "<s>", 0.5, "the first token: every later query sees it")],
        "map": TokenMap(tokens, tokens, weights, Sparse.of(weights, 2e-4), "mean"),
        "command": "recuerdo look --text …",
    }
    return Evidence(**parts | changed)


class Elements(HTMLParser):
    """Every element with its attributes, and what stands in the element of the data."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.data: list[str] = []
        self.inside = False
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag == "script" and dict(attrs).get("id") == "recuerdo-data"

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.data.append(data)


def data_in(html: str) -> dict:
    return json.loads("".join(Elements(html).data))


# -------------------------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("answer", [None, "Yes, two."])
def test_the_object_says_what_the_evidence_says(answer):
    told = evidence(answer=answer)
    data = data_in(page(told))
    assert data == json.loads(json.dumps(page_data(told))), "what the page holds is page_data"
    assert data["version"] == 1
    for name in ("kind", "title", "question", "model", "tokens", "layers", "heads", "selection", "command"):
        assert data[name] == getattr(told, name)
    assert data["text"]["words"] == told.text.words
    assert data["text"]["glue"] == told.text.glue
    assert (data["text"]["sentences"], data["text"]["paragraphs"]) == (told.text.sentences, told.text.paragraphs)
    assert (data["answer"] is None) == (answer is None)
    if told.answer is not None:
        assert data["answer"]["words"] == told.answer.words
        assert data["answer"]["glue"] == told.answer.glue
    assert [(v["name"], v["label"], v["note"]) for v in data["views"]] == [
        (v.name, v.label, v.note) for v in told.views
    ]
    sink = told.sinks[0]
    assert data["sinks"] == [{"word": sink.word, "token": sink.token, "share": sink.share, "why": sink.why}]


def test_maps_round_trip_within_half_a_step():
    told = evidence()
    data = page_data(told)
    pairs = [(v["map"], view.map) for v, view in zip(data["views"], told.views, strict=True)]
    pairs.append((data["map"]["cells"], told.map.cells))
    for packed, kept in pairs:
        got = sparse_of(packed)
        assert (got.shape, got.floor, got.signed) == (kept.shape, kept.floor, kept.signed)
        np.testing.assert_array_equal(got.start, kept.start)
        np.testing.assert_array_equal(got.index, kept.index)
        step = np.abs(kept.value).max() / (32767 if kept.signed else 65535)
        np.testing.assert_allclose(got.value, kept.value, atol=0.51 * step)
    overview = unpacked(data["map"]["overview"])
    np.testing.assert_allclose(overview, told.map.overview, atol=0.51 * told.map.overview.max() / 255)
    assert (data["map"]["rows"], data["map"]["cols"]) == (told.map.rows, None)
    atlas = data["atlas"]
    np.testing.assert_allclose(unpacked(atlas["peak"]), told.atlas.peak, atol=0.51 / 255)
    np.testing.assert_allclose(unpacked(atlas["value"]), told.atlas.value, atol=0.51 / 255)
    np.testing.assert_array_equal(unpacked(atlas["index"]), told.atlas.index)


def test_columns_are_told_when_they_are_not_the_rows():
    told = evidence(kind="alignment")
    weights = np.full((2, 3), 1 / 3, np.float32)
    told.map = TokenMap(["a", "b"], ["x", "y", "z"], weights, Sparse.of(weights, 1e-3), "mean")
    assert page_data(told)["map"]["cols"] == ["x", "y", "z"]


def test_what_is_not_there_is_null():
    data = data_in(page(evidence(answer=None, atlas=None, map=None, sinks=[])))
    assert (data["answer"], data["question"], data["atlas"], data["map"], data["sinks"]) == (None, None, None, None, [])


def test_nothing_read_is_packed_too():
    empty = Sparse.of(np.zeros((3, 9), np.float32), 1e-4)
    data = data_in(page(evidence(answer="Yes two", views=[View("raw", "raw", "", empty)])))
    assert not sparse_of(data["views"][0]["map"]).dense().any()


def test_the_same_evidence_gives_the_same_bytes():
    assert page(evidence()) == page(evidence())


# --------------------------------------------------------------------------------------------------------------- size


def long_evidence(kind: str, cells: int) -> Evidence:
    """7,500 tokens, a text of 3,000 words, 300,000 visible cells of the whole read with nothing regular in them."""
    rng = np.random.default_rng(1)
    n, words = 7_500, 3_000
    text = " ".join(f"word{i}" + ("." if i % 17 == 0 else "") for i in range(words))
    cut_text = cut(text)
    words = len(cut_text)
    each = 300_000 // n
    index = np.sort(rng.integers(0, n, (n, each)), 1).reshape(-1)
    value = rng.random(n * each).astype(np.float32)
    whole = Sparse((n, n), np.arange(n + 1) * each, index, value, 1e-4)
    answer = None if kind == "text" else cut("an answer of six or seven words")
    queries = words if answer is None else len(answer)
    start = np.arange(queries + 2) * cells
    sparse = [
        Sparse((1 + queries, words), start, np.sort(rng.integers(0, words, (1 + queries, cells)), 1).reshape(-1),
               rng.random((1 + queries) * cells).astype(np.float32), 1e-4)
        for _ in range(3)
    ]  # fmt: skip
    shape = (1 + queries, 30, 9)
    atlas = None
    if answer is not None:
        atlas = Atlas(rng.random(shape), rng.integers(0, words, (*shape, 12)), rng.random((*shape, 12)))
    tokens = [f"t{i}" for i in range(n)]
    return Evidence(
        kind=kind, title="long", model="a model", tokens=n, layers=30, heads=9, selection="mean", text=cut_text,
        views=[View(str(i), str(i), "", s) for i, s in enumerate(sparse)], answer=answer, atlas=atlas,
        map=TokenMap(tokens, tokens, rng.random((256, 256)).astype(np.float32), whole, "mean"),
    )  # fmt: skip


def test_an_answer_over_a_long_text_can_be_sent_by_mail():
    told = long_evidence("answer", 2_000)
    html = page(told)
    assert len(html.encode()) < MAIL
    data = data_in(html)
    cells = sparse_of(data["map"]["cells"])
    assert 10_000 < len(cells.value) < len(told.map.cells.value), "the smallest cells of the map make room"
    assert cells.floor > told.map.cells.floor
    left_out = np.sort(told.map.cells.value)[: -len(cells.value)]
    assert left_out.max() < cells.floor, "and the floor says so"
    for packed, view in zip(data["views"], told.views, strict=True):
        assert len(sparse_of(packed["map"]).value) == len(view.map.value), "the views are whole"


def test_a_long_text_that_read_itself_can_be_sent_by_mail():
    """One row per word in each view: a few dozen visible cells in a row already outweigh the token map."""
    told = long_evidence("text", 40)
    html = page(told)
    for packed, view in zip(data_in(html)["views"], told.views, strict=True):
        got, size = sparse_of(packed["map"]), np.sort(np.abs(view.map.value))
        assert (size[: len(size) - len(got.value)] < got.floor).all(), "what was left out is below the floor"
    assert len(html.encode()) < MAIL


# ------------------------------------------------------------------------------------------------------- hostile words


@pytest.mark.parametrize(
    "hostile",
    [
        HOSTILE,
        "<!--<script>",
        "--></script >",
        "]]><svg onload=alert(1)>",
        "a\u2028b\u2029c",
        "\x00null\x00",
        '"}; alert(1); {"',
        "\\u003c/script\\u003e",
        "&lt;b&gt; &quot;",
        "\x1b[31mred",
        "\ufeff\ufffe\uffff",
    ],
)
def test_no_word_can_end_the_element_it_stands_in(hostile):
    calm = Elements(page(evidence()))
    told = evidence(
        text=f"One {hostile} two. {hostile}",
        answer=f"Yes {hostile}",
        title=hostile,
        question=hostile,
        model=hostile,
        command=hostile,
        selection=hostile,
    )
    told.map.rows[0] = hostile
    told.sinks[0] = Sink(0, hostile, 0.5, hostile)
    html = page(told)
    found = Elements(html)
    assert found.tags == calm.tags, "not one element more"
    data = json.loads("".join(found.data))
    assert "".join(found.data).count("<") == 0
    assert not set("\u2028\u2029") & set("".join(found.data))
    assert data["title"] == data["question"] == data["model"] == data["command"] == data["selection"] == hostile
    assert data["text"]["words"] == told.text.words
    assert data["map"]["rows"][0] == data["sinks"][0]["word"] == data["sinks"][0]["why"] == hostile


def test_half_a_letter_does_not_stop_the_page():
    """Arguments that are not UTF-8 reach Python as lone surrogates, and the command stands on the page."""
    html = page(evidence(command="recuerdo look --out \udcff.html", title="\ud800"))
    data_in(html.encode().decode())


# -------------------------------------------------------------------------------------------------------- no network


def test_the_page_fetches_nothing():
    html = page(evidence())
    for tag, attributes in Elements(html).tags:
        for name, value in attributes.items():
            if name in ("src", "href", "srcset", "data", "poster", "action", "formaction", "xlink:href", "background"):
                assert re.match(r"data:|#", value or ""), (tag, name, value)
        assert tag not in ("iframe", "object", "embed", "base")
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?\s*(?:https?:)?//""", html)
    assert not re.findall(r"url\(\s*[\"']?\s*(?:https?:)?//", html)
    assert not re.findall(r"@import\b", html)
    assert not re.findall(r"""\bimport\s*\(\s*["'`]|\bfrom\s*["'`](?:https?:|/|\.)|\bimport\s*["'`]""", html)
    assert not re.findall(
        r"""(?:fetch|importScripts|XMLHttpRequest|WebSocket|EventSource|sendBeacon)\s*\(\s*["'`]""", html
    )
    assert not re.findall(r"sourceMappingURL", html)


def test_the_page_forbids_itself_the_network():
    """Its content security policy allows nothing that is not in the file."""
    policies = [a for tag, a in Elements(page(evidence())).tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    policy = policies[0]["content"]
    assert "default-src 'none'" in policy
    assert "http" not in policy
