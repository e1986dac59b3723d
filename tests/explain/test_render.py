"""One look in every form: terminal, page, picture, data. All say the same, and words stay words in each."""

import io
import json
import re
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from rich.console import Console

from recuerdo.errors import InputError
from recuerdo.explain.evidence import Evidence, View
from recuerdo.explain.render import as_data, show, write
from recuerdo.explain.sinks import Sink
from recuerdo.explain.sparse import Sparse
from recuerdo.explain.tokenmap import TokenMap
from recuerdo.explain.words import cut

TEXT = "Elena lit the lamp. The [bold]red[/bold] ship paid $5 & left.\n\nNobody <saw> it!"
ANSWER = "It was Elena."


def shares(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    dense = rng.random((rows, columns)).astype(np.float32) ** 3
    return dense / dense.sum(1, keepdims=True)


def evidence(kind: str = "answer", text: str = TEXT, answer: str = ANSWER, **changed) -> Evidence:
    rng = np.random.default_rng(3)
    words = cut(text)
    target = None if kind == "text" else cut(answer)
    rows = 1 + len(words if target is None else target)
    tokens = ["<s>", *words.words]
    weights = np.tril(shares(rng, len(tokens), len(tokens)))
    parts = {
        "kind": kind,
        "title": "Who lit it?",
        "model": "a model [v2]",
        "tokens": 31,
        "layers": 2,
        "heads": 3,
        "selection": "mean over all layers and heads",
        "text": words,
        "views": [
            View("main", "the main one", "what [it] is", Sparse.of(shares(rng, rows, len(words)), 0.01)),
            View("signed", "signed", "up and down", Sparse.of(shares(rng, rows, len(words)) - 0.1, 0.02, signed=True)),
        ],
        "question": "Who lit [the] lamp?" if kind == "answer" else None,
        "answer": target,
        "sinks": [Sink(0, "<s>", 0.4, "the first token: every later query sees it"), Sink(3, "[the]", 0.1, "special")],
        "map": TokenMap(tokens, tokens, weights, Sparse.of(weights, 0.01), "mean"),
        "command": "recuerdo look",
    }
    return Evidence(**parts | changed)


KINDS = ("answer", "text", "alignment")


# ------------------------------------------------------------------------------------------------------------ evidence


def test_the_first_view_is_the_default_and_others_have_names():
    told = evidence()
    assert told.view() is told.view("main") is told.views[0]
    assert told.view("signed") is told.views[1]
    with pytest.raises(InputError, match="^there is no view 'nope' here: choose main, signed$"):
        told.view("nope")


def test_what_can_be_chosen_are_the_words_of_the_answer_or_of_the_text():
    assert evidence().queries.words == cut(ANSWER).words
    assert evidence("text").queries.words == cut(TEXT).words


@pytest.mark.parametrize("kind", KINDS)
def test_shares_of_sentences_are_sums_of_shares_of_words(kind):
    told = evidence(kind)
    for query in range(told.views[0].map.shape[0]):
        row = told.view().map.row(query)
        edges = [*told.text.sentences, len(told.text)]
        sums = np.array([row[a:b].sum() for a, b in zip(edges, edges[1:], strict=False)])
        np.testing.assert_allclose(told.sentences(query=query), sums / sums.sum(), atol=1e-6)


def test_sentences_of_nothing_read_are_nothing():
    told = evidence(views=[View("main", "", "", Sparse.of(np.zeros((5, len(cut(TEXT))), np.float32), 0.01))])
    assert not told.sentences().any()


# ---------------------------------------------------------------------------------------------------------------- data


@pytest.mark.parametrize("kind", KINDS)
def test_data_say_the_same_as_the_views(kind):
    told = evidence(kind)
    data = json.loads(json.dumps(as_data(told), allow_nan=False))
    assert data["version"] == 1
    for name in ("kind", "model", "question", "tokens", "layers", "heads", "selection", "command"):
        assert data[name] == getattr(told, name)
    assert data["words"] == told.text.words
    assert data["queries"] == told.queries.words
    assert data["answer"] == (None if kind == "text" else ANSWER)
    assert data["sentences"] == ["Elena lit the lamp.", "The [bold]red[/bold] ship paid $5 & left.", "Nobody <saw> it!"]
    assert [v["name"] for v in data["views"]] == ["main", "signed"]
    for said, view in zip(data["views"], told.views, strict=True):
        assert (said["label"], said["note"], said["floor"]) == (view.label, view.note, view.map.floor)
        assert len(said["rows"]) == 1 + len(told.queries)
        for query, row in enumerate(said["rows"]):
            written = np.zeros(len(told.text))
            written[[i for i, _ in row["words"]]] = [x for _, x in row["words"]]
            np.testing.assert_allclose(written, view.map.row(query), atol=1e-6)
            sizes = [abs(x) for _, x in row["words"]]
            assert sizes == sorted(sizes, reverse=True), "strongest first"
            if not view.map.signed:
                np.testing.assert_allclose(row["sentences"], told.sentences(view.name, query), atol=1e-4)
    assert data["sinks"][0] == {"token": 0, "word": "<s>", "share": 0.4, "why": told.sinks[0].why, "heads": 0}


def test_json_file(tmp_path):
    told = evidence(text="Ünïcode 火山 🙂. Ja.")
    write(told, tmp_path / "look.json")
    assert json.loads((tmp_path / "look.json").read_text(encoding="utf-8")) == json.loads(json.dumps(as_data(told)))


@pytest.mark.parametrize("kind", KINDS)
def test_npz_file(kind, tmp_path):
    told = evidence(kind)
    write(told, tmp_path / "look.npz")
    with np.load(tmp_path / "look.npz", allow_pickle=False) as arrays:
        assert arrays["words"].tolist() == told.text.words
        assert arrays["queries"].tolist() == told.queries.words
        assert arrays["sentences"].tolist() == told.text.sentences
        assert arrays["sinks"].tolist() == [0, 3]
        for view in told.views:
            np.testing.assert_array_equal(arrays[f"view.{view.name}"], view.map.dense())
        np.testing.assert_array_equal(arrays["map.overview"], told.map.overview)
        np.testing.assert_array_equal(arrays["map.cells.value"], told.map.cells.value)


# --------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name", ["look.html", "look.svg", "look.png", "look.json", "look.npz", "LOOK.HTML", "a b ü.Svg"]
)
def test_every_kind_of_file_is_written(name, kind, tmp_path):
    write(evidence(kind), tmp_path / name)
    start = (tmp_path / name).read_bytes()[:400].lstrip().lower()
    begins = {"html": b"<!doctype html>", "svg": b"<?xml", "png": b"\x89png", "json": b"{", "npz": b"pk"}
    assert start.startswith(begins[name.rsplit(".", 1)[1].lower()])


def test_a_file_that_is_there_is_written_anew(tmp_path):
    (tmp_path / "look.json").write_text("x" * 100_000)
    write(evidence(), tmp_path / "look.json")
    json.loads((tmp_path / "look.json").read_text())


@pytest.mark.parametrize("name", ["look.pdf", "look", "look.html.gz", "html"])
def test_a_kind_that_cannot_be_written(name, tmp_path):
    path = tmp_path / name
    with pytest.raises(InputError) as caught:
        write(evidence(), path)
    assert str(caught.value) == f"{path} has no kind that can be written: name it .html, .svg, .png, .json or .npz"
    assert not path.exists()


@pytest.mark.parametrize("suffix", [".html", ".svg", ".png", ".json", ".npz"])
@pytest.mark.parametrize("place", ["a folder that is not there", "a file for a folder", "a folder of that name"])
def test_a_place_that_cannot_be_written(suffix, place, tmp_path):
    if place == "a folder of that name":
        path = tmp_path / f"look{suffix}"
        path.mkdir()
    else:
        path = tmp_path / "x" / f"look{suffix}"
        if place == "a file for a folder":
            (tmp_path / "x").write_text("")
    with pytest.raises(InputError) as caught:
        write(evidence(), path)
    assert str(caught.value).startswith(f"{path} cannot be written: ")
    assert str(caught.value).split(": ", 1)[1] in ("No such file or directory", "Not a directory", "Is a directory")


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_pictures_without_matplotlib(suffix, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"^pictures need matplotlib: pip install 'recuerdo\[png\]'$"):
        write(evidence(), tmp_path / f"look{suffix}")


# ------------------------------------------------------------------------------------------------------------ pictures


def words_in(path) -> str:
    """All text in an SVG; raises where it is not well-formed."""
    root = ET.fromstring(path.read_bytes())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    return " ".join("".join(e.itertext()) for e in root.iter("{http://www.w3.org/2000/svg}text"))


@pytest.mark.parametrize("kind", KINDS)
def test_svg_holds_the_words_as_text(kind, tmp_path):
    told = evidence(kind)
    write(told, tmp_path / "look.svg")
    text = words_in(tmp_path / "look.svg")
    for word in told.text.words + (told.queries.words if kind == "alignment" else []):
        assert word in text
    if kind == "answer":
        assert "Who lit [the] lamp?" in text
        assert ANSWER in text
    assert kind == "alignment" or "a model [v2] · the main one: what [it] is" in text


HARD = ["$x$ and $", r"a\$b \alpha", "<b>&amp;</b>", "</svg><script>", "%s {0} ^_", "]]>", "a\u2028b", "'\""]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hard", HARD)
def test_svg_takes_any_word_as_it_is(hard, kind, tmp_path):
    told = evidence(kind, text=f"Well {hard} yes", answer=f"No {hard}")
    write(told, tmp_path / "look.svg")
    text = words_in(tmp_path / "look.svg")
    for word in told.text.words:
        assert word in text


@pytest.mark.parametrize("hard", ["\x1b[31mred", "\x01", "\x08", "\ufffe"])
def test_svg_of_characters_that_xml_does_not_know(hard, tmp_path):
    write(evidence(text=f"Well {hard} yes", answer=f"No {hard}"), tmp_path / "look.svg")
    assert "yes" in words_in(tmp_path / "look.svg")


@pytest.mark.parametrize("suffix", [".svg", ".png"])
@pytest.mark.parametrize("word", ["火山", "🙂", "한국어", "हिन्दी"])
def test_pictures_of_any_script_are_drawn_without_a_warning(word, suffix, tmp_path):
    """Warnings are errors here; on the command line they would be lines that nobody asked for."""
    path = tmp_path / f"look{suffix}"
    write(evidence(text=f"Well {word} yes", answer=f"No {word}"), path)
    assert path.stat().st_size > 1000


def test_svg_is_the_same_every_time(tmp_path):
    for name in ("a.svg", "b.svg", "c.SVG"):
        write(evidence(), tmp_path / name)
    assert len({(tmp_path / name).read_bytes() for name in ("a.svg", "b.svg", "c.SVG")}) == 1


def test_a_picture_of_a_long_text_holds_its_most_read_sentences_in_order(tmp_path):
    text = " ".join(f"Sentence number{i} is here." for i in range(300))
    words = len(cut(text))
    row = np.full((1, words), 1e-3, np.float32)
    for sentence in (7, 120, 290):
        row[0, sentence * 5 : sentence * 5 + 5] = 0.5
    told = evidence(text=text, views=[View("main", "main", "", Sparse.of(np.repeat(row, 5, 0), 1e-4))])
    write(told, tmp_path / "look.svg")
    numbers = [int(n) for n in re.findall(r"number(\d+)", words_in(tmp_path / "look.svg"))]
    assert {7, 120, 290} <= set(numbers)
    assert numbers == sorted(numbers)
    assert len(numbers) < 300
    assert "…" in words_in(tmp_path / "look.svg")


# ------------------------------------------------------------------------------------------------------------ terminal


def printed(told: Evidence, width: int = 200) -> str:
    console = Console(record=True, file=io.StringIO(), width=width, color_system="truecolor", force_terminal=True)
    show(told, console)
    return console.export_text()


def test_the_terminal_shows_answer_sentences_words_and_sinks():
    told = evidence()
    lines = printed(told)
    assert "a model [v2] · 31 tokens · 2 layers × 3 heads · mean over all layers and heads" in lines
    assert "Who lit [the] lamp?" in lines
    assert ANSWER in lines
    assert "".join(TEXT.split()) in "".join(lines.split()), "the text itself"
    best = int(np.argmax(told.sentences()))
    assert re.search(rf"{100 * told.sentences()[best]:.0f} %\s+{re.escape(told.text.sentence(best))}", lines)
    order = [told.text.sentence(int(i)) for i in np.argsort(-told.sentences())]
    after = lines[lines.index("most-read sentences") :]
    assert [after.index(sentence) for sentence in order] == sorted(after.index(sentence) for sentence in order)
    row = told.view().map.row(0)
    strongest = int(np.argmax(row))
    assert re.search(rf"{re.escape(told.text.words[strongest])}\s+█+\s+{100 * row[strongest]:.2f} %", lines)
    assert "the main one: what [it] is" in lines
    assert "'<s>' 40.0 %" in lines
    assert "'[the]' 10.0 %" in lines


def test_the_terminal_shows_an_alignment_word_by_word():
    told = evidence("alignment")
    lines = printed(told)
    for i, word in enumerate(told.queries.words):
        row = told.view().map.row(1 + i)
        best = int(np.argmax(row))
        assert re.search(
            rf"(?m)^{re.escape(word)}\s+{re.escape(told.text.words[best])}\s.*{100 * row[best]:.0f} %", lines
        )


def test_a_long_text_is_shown_by_its_sentences_only():
    text = " ".join(f"Sentence number{i} is here." for i in range(200))
    words = len(cut(text))
    row = np.full((1, words), 1e-3, np.float32)
    row[0, 10:15] = 0.5
    lines = printed(evidence(text=text, views=[View("main", "main", "", Sparse.of(np.repeat(row, 5, 0), 1e-4))]))
    assert "Sentence number2 is here." in lines
    assert lines.count("is here.") <= 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "markup",
    [
        "[bold]",
        "[/]",
        "[/bold]",
        "[red]x[/red]",
        "[link=https://x.example]y[/link]",
        "[[",
        "\\[bold]",
        "a\\",
        "[@click=app.bell]b",
    ],
)
def test_the_terminal_never_interprets_markup_in_words(markup, kind):
    told = evidence(kind, text=f"Elena {markup} lit. Then {markup}", answer=f"So {markup}",
                    question=f"Who {markup}?", title=markup, model=f"m{markup}", selection=f"s {markup}",
                    sinks=[Sink(0, markup, 0.4, "why")])  # fmt: skip
    told.views[0] = View("main", "l", f"n {markup}", told.views[0].map)
    lines = printed(told)
    assert f"m{markup} · " in lines
    assert f"Elena {markup} lit. Then {markup}" in lines
    assert kind == "text" or kind == "alignment" or f"So {markup}" in lines
    assert f"l: n {markup}" in lines
    for word in cut(markup).words:
        assert word in lines


def test_the_terminal_leaves_words_between_colons_alone(capsys):
    """`:warning:` is a picture in rich's own language, and a word in ours."""
    show(evidence(text="See :warning: here. And :smile: there.", question="What is :warning:?"))
    out = capsys.readouterr().out
    assert out.count(":warning:") >= 2
    assert ":smile: there." in out


@pytest.mark.parametrize("kind", KINDS)
def test_no_word_reaches_the_terminal_as_a_command(kind, capsys):
    """A document may hold the codes that move a cursor, set a title or clear a screen."""
    codes = "\x1b[2J\x1b]0;owned\x07\x9b31m\x08\r"
    show(evidence(kind, text=f"Elena {codes} lit. Then {codes}", answer=f"So {codes}", question=f"Who {codes}?"))
    out = capsys.readouterr().out
    assert not set("\x1b\x07\x9b\x08\r") & set(out)
    assert "Elena" in out


def test_nothing_read_is_shown_too():
    empty = Sparse.of(np.zeros((9, len(cut(TEXT))), np.float32), 0.01)
    for kind in KINDS:
        assert "a model [v2]" in printed(evidence(kind, views=[View("main", "main", "", empty)], sinks=[]))


@pytest.mark.parametrize("width", [20, 40])
def test_a_narrow_terminal_loses_no_word(width):
    lines = printed(evidence(), width)
    assert "".join(TEXT.split()) in "".join(lines.split())
