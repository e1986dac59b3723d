"""A steered look in every form: marks, the look before, what moved, guard rails and trust say the same in each."""

import base64
import gzip
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from recuerdo.errors import InputError
from recuerdo.explain.compare import moved, share_on
from recuerdo.explain.evidence import Evidence, MarkedWords, Trusted, View
from recuerdo.explain.page import page, page_data
from recuerdo.explain.render import as_data, show, write
from recuerdo.explain.render.data import from_data
from recuerdo.explain.rows import Layer, Selection
from recuerdo.explain.sparse import Sparse
from recuerdo.explain.views import Queries
from recuerdo.explain.words import cut
from recuerdo.read import read

TEXT = "The lamp was red. Now the [bold]lamp[/bold] is green.\n\nNobody <saw> it!"
HOSTILE = "</script>\x1b[2J[red]$5\u2028"
MARKS = [
    MarkedWords([(0, 4), (6, 8)], "boost", "boost ×4", "layers 10, 11", "Ada", "the newer fact", "2026-11-30"),
    MarkedWords([(5, 6)], "share", "share 30 %"),
    MarkedWords([(9, 10)], "mute", HOSTILE, HOSTILE, HOSTILE, HOSTILE),
]
GUARD = {"kl": 1.25, "plausible": 0.75, "fluency": (3.0, 2.5), "mass": (0.0625, 0.5), "warnings": [f"gently {HOSTILE}"]}
TRUST = [
    Trusted("lift", "what it adds", "keys", "comprehensiveness", 71.0, 60.0, 80.0, "better than chance"),
    Trusted("raw", "raw", "input", "sufficiency", None, None, None, "too little to tell"),
]


def look(answer: str = "It is green.", seed: int = 0) -> Evidence:
    rng, text, said = np.random.default_rng(seed), cut(TEXT), cut(answer)
    dense = rng.random((2, 1 + len(said), len(text))).astype(np.float32) ** 2
    dense /= dense.sum(-1, keepdims=True)
    views = [View("lift", "what it adds", "a note", Sparse.of(dense[0], 1e-3)),
             View("raw", "raw", "weights", Sparse.of(dense[1], 1e-3))]  # fmt: skip
    return Evidence("answer", "What colour?", "a model", 40, 2, 3, "mean", text, views, "What colour?", said)


@pytest.fixture
def steered() -> Evidence:
    before, after = look("It was red, I think.", seed=1), look()
    return replace(
        after,
        marks=MARKS,
        before=before,
        moved=moved(before, after),
        guard=GUARD,
        trust=TRUST,
        command="recuerdo steer",
    )


def told(evidence: Evidence, width: int = 400) -> str:
    stream = io.StringIO()
    show(evidence, Console(file=stream, width=width, highlight=False, emoji=False))
    return stream.getvalue()


# --------------------------------------------------------------------------------------------------------- what moved


def test_what_moved_is_the_difference_of_the_raw_views(steered):
    row = steered.moved.map.row(0)
    want = steered.view("raw").map.row(0) - steered.before.view("raw").map.row(0)
    assert steered.moved.map.signed
    assert steered.moved.map.shape == (1, len(steered.text))
    big = np.abs(want) > 0.01
    assert np.allclose(row[big], want[big], atol=1e-6)
    assert (row < 0).any()
    assert (row > 0).any()


def test_what_moved_is_seen_in_the_same_text():
    other = look()
    other.text = cut("Another text.")
    with pytest.raises(InputError) as caught:
        moved(look(), other)
    assert str(caught.value) == "the two looks are over different texts: what moved is seen in the same text"


def test_the_share_on_keys_is_a_mean_over_rows_heads_and_layers():
    import torch

    draw = torch.Generator().manual_seed(0)
    reads = [read(*torch.randn(3, 1, 2, 7, 4, generator=draw).unbind(0)) for _ in range(3)]
    keys = np.array([0, 1, 0, 0, 1, 0, 0], bool)
    selection = Selection.of([Layer(f"layers.{i}", [one]) for i, one in enumerate(reads)])
    asked = Queries(3, np.array([0, -1, 0, 1]), 2)  # rows 3, 5 and 6; row 4 belongs to no word
    weights = np.stack([one.weights[:, :][0].numpy() for one in reads])
    want = weights[:, :, [3, 5, 6]][..., keys].sum(-1).mean()
    assert share_on(selection, asked, keys) == pytest.approx(float(want), abs=1e-6)
    assert share_on(selection, asked, np.zeros(7, bool)) == 0
    assert share_on(selection, asked, np.ones(7, bool)) == pytest.approx(1, abs=1e-6)


# ------------------------------------------------------------------------------------------------------------ the page


def signed(packed: dict) -> np.ndarray:
    """A signed map, as docs/page-format.md tells it."""
    raw = np.frombuffer(gzip.decompress(base64.b64decode(packed["value"]["data"])), "<u2").astype(float)
    return (raw - 32768) / 32767 * packed["value"]["max"]


def test_the_data_of_the_page(steered):
    data = json.loads(json.dumps(page_data(steered), allow_nan=False))
    assert [mark["words"] for mark in data["marks"]] == [[[0, 4], [6, 8]], [[5, 6]], [[9, 10]]]
    assert data["marks"][0] == {
        "words": [[0, 4], [6, 8]], "action": "boost", "label": "boost ×4", "scope": "layers 10, 11", "author": "Ada",
        "reason": "the newer fact", "date": "2026-11-30",
    }  # fmt: skip
    assert data["guard"] == {"kl": 1.25, "plausible": 0.75, "fluency": [3.0, 2.5], "mass": [0.0625, 0.5],
                             "warnings": GUARD["warnings"]}  # fmt: skip
    assert data["before"]["answer"]["words"] == steered.before.answer.words
    assert [v["name"] for v in data["before"]["views"]] == ["lift", "raw"]
    assert data["before"]["views"][0]["map"]["rows"] == 1 + len(steered.before.answer)
    assert data["moved"]["map"]["signed"]
    assert np.allclose(signed(data["moved"]["map"]), steered.moved.map.value, atol=1e-4)
    trust = data["trust"]
    assert (trust["score"], trust["low"], trust["high"], trust["verdict"]) == (71, 60, 80, "better than chance")
    assert trust["note"].startswith(
        "comprehensiveness: its words' keys were taken out of every read; 0 = a random order"
    )
    assert [(m["name"], m["removal"], m["score"]) for m in trust["methods"]] == [
        ("lift", "keys", 71),
        ("raw", "input", None),
    ]


def test_trust_is_that_of_the_view_that_is_shown(steered):
    steered.views.reverse()
    trust = page_data(steered)["trust"]
    assert (trust["score"], trust["verdict"]) == (None, "too little to tell")
    assert trust["note"].startswith("sufficiency: its words were replaced; ")


def test_a_look_that_was_not_steered_has_none_of_it():
    data = page_data(look())
    assert {name: data[name] for name in ("marks", "before", "moved", "guard", "trust")} == {
        "marks": [], "before": None, "moved": None, "guard": None, "trust": None,
    }  # fmt: skip


def test_hostile_marks_cannot_leave_the_page(steered):
    html = page(steered)
    assert html.count("</script>") == page(look()).count("</script>")
    assert "\u2028" not in html.split('id="recuerdo-data">')[1].split("</script>")[0]


# ------------------------------------------------------------------------------------------------------------ as data


def test_json_holds_all_of_it_and_reads_back(steered, tmp_path):
    write(steered, tmp_path / "look.json")
    data = json.loads((tmp_path / "look.json").read_text(encoding="utf-8"))
    again = from_data(data)
    assert again.marks == MARKS
    assert again.trust == TRUST
    assert again.guard == data["guard"] == json.loads(json.dumps(GUARD))
    assert again.before.answer.words == steered.before.answer.words
    assert again.before.before is None
    for name in ("lift", "raw"):
        assert np.allclose(again.view(name).map.dense(), steered.view(name).map.dense(), atol=1e-6)
        assert np.allclose(again.before.view(name).map.dense(), steered.before.view(name).map.dense(), atol=1e-6)
    assert again.moved.map.signed
    assert np.allclose(again.moved.map.dense(), steered.moved.map.dense(), atol=1e-6)
    once = as_data(again)
    assert json.loads(json.dumps(once["marks"] + once["trust"])) == data["marks"] + data["trust"]
    assert told(again) == told(steered)


def test_data_of_older_looks_read_as_unsteered():
    data = as_data(look())
    for name in ("marks", "before", "moved", "guard", "trust"):
        del data[name]
    again = from_data(data)
    assert (again.marks, again.before, again.moved, again.guard, again.trust) == ([], None, None, None, [])


@pytest.mark.parametrize(
    "damage",
    [
        {"marks": [{"words": [[0, 1]]}]},
        {"marks": [{"label": "x"}]},
        {"marks": 3},
        {"trust": [{"view": "raw"}]},
        {"before": {"kind": "answer"}},
        {"moved": {"name": "moved"}},
        {"moved": 1},
    ],
)
def test_damaged_data_are_refused(steered, damage):
    with pytest.raises(InputError) as caught:
        from_data(as_data(steered) | damage, "x.json")
    assert str(caught.value) == "x.json is not a look: write one with `recuerdo look … --out FILE.json`"


@pytest.mark.parametrize("kind", [".html", ".json", ".svg", ".png", ".npz"])
def test_every_kind_of_file_is_written(steered, kind, tmp_path):
    write(steered, tmp_path / f"look{kind}")
    assert (tmp_path / f"look{kind}").stat().st_size > 500


# -------------------------------------------------------------------------------------------------------- the terminal


def test_the_terminal_shows_before_after_marks_and_guard_rails(steered):
    said = told(steered)
    assert "before  It was red, I think.\nafter   It is green.\n" in said
    first, second = ("".join(w + g for w, g in zip(steered.text.words[a:b], steered.text.glue[a:b], strict=True)).strip()
                     for a, b in MARKS[0].words)  # fmt: skip
    assert f"  boost ×4  {first} … {second} (layers 10, 11)\n" in said
    assert "  share 30 %  Now\n" in said
    assert "read of the marked part 6.2 % → 50.0 %" in said
    assert "from its own answer 1.25 nats a step" in said
    assert "plausible tokens 75 %" in said
    assert "fluency 3.00 → 2.50 bits" in said
    assert "  ! gently " in said
    row = steered.moved.map.row(0)
    best = int(np.abs(row).argmax())
    assert f"what moved, points of share: {steered.text.words[best]} {100 * row[best]:+.1f}" in said
    assert "truth (comprehensiveness, keys): 71 [60, 80] · better than chance" in said
    assert "too little to tell" not in said  # that is another view


def test_the_terminal_sends_no_codes_and_no_markup(steered):
    said = told(steered)
    assert "\x1b" not in said
    assert "[red]$5" in said


def test_a_view_without_a_score_says_so(steered):
    steered.views.reverse()
    assert "truth (sufficiency, input): no score · too little to tell" in told(steered)


def test_long_marks_are_cut_short():
    evidence = look()
    evidence.text = cut("word " * 60)
    evidence.views = [View("raw", "raw", "", Sparse.of(np.full((4, 60), 1 / 60, np.float32), 1e-3))]
    evidence.marks = [MarkedWords([(0, 60)], "mute", "mute")]
    line = next(line for line in told(evidence).splitlines() if line.startswith("  mute"))
    assert " … " in line
    assert len(line) < 100


def test_an_unsteered_look_shows_none_of_it():
    said = told(look())
    for word in ("before", "after", "marked", "moved", "truth", "guard"):
        assert word not in said
