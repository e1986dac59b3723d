"""A memory of texts: what is kept, what is not kept twice, what a question finds, and what a person's hand does to it."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from recuerdo.bridge.sentences import SentenceEncoder
from recuerdo.cli.app import app
from recuerdo.data.chains import world
from recuerdo.errors import InputError, ModelError, RecuerdoError
from recuerdo.store.embedded import Embedded
from recuerdo.store.record import Rows, Where
from recuerdo.workbench.passages import passages, sentences_of
from recuerdo.workbench.remembering import Memory, Said

sys.path.insert(0, str(Path(__file__).parent))
from places import TOWN


@pytest.fixture
def memory(tmp_path, encoder):
    with Memory(tmp_path / "notes.db", encoder=str(encoder)) as made:
        yield made


# ------------------------------------------------------------------------------------------------------------- passages


def test_passages_are_whole_sentences_that_overlap_within_a_paragraph():
    text = "One is here. Two is here. Three is here. Four is here.\n\nFive is apart."
    assert passages(text, most=8) == [
        "One is here. Two is here.",
        "Two is here. Three is here.",
        "Three is here. Four is here.",
        "Five is apart.",
    ]
    assert passages(text, most=100) == ["One is here. Two is here. Three is here. Four is here.", "Five is apart."]
    assert passages(text, most=8, overlap=0)[:2] == ["One is here. Two is here.", "Three is here. Four is here."]
    assert passages("a " * 25, most=10) == ["a " * 9 + "a", "a " * 9 + "a", "a a a a a"]
    assert passages(" \n ") == []


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=400), st.integers(1, 30), st.integers(0, 3))
def test_no_word_of_a_text_is_left_out(text, most, overlap):
    found = passages(text, most=most, overlap=overlap)
    there = [c for part in passages(text, most=most, overlap=0) for c in part if not c.isspace()]
    assert sorted(set(there)) == sorted({c for sentence in sentences_of(text) for c in sentence if not c.isspace()})
    assert {c for part in found for c in part if not c.isspace()} == set(there)


# ------------------------------------------------------------------------------------------------------------- encoder


def test_vectors_do_not_depend_on_the_company(encoder):
    made = SentenceEncoder(encoder)
    texts = ["Ada leads it .", "The library closes at six . " * 4, "Bob"] * 15
    together = made.encode(texts)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    alone = np.concatenate([made.encode([text]) for text in texts[:3]])
    np.testing.assert_allclose(together[:3], alone, atol=1e-5)
    np.testing.assert_array_equal(together[:3], together[42:])
    assert made.encode([]).shape == (0, 32)
    assert np.isfinite(made.encode(["", "word " * 500])).all()


def test_a_language_model_is_no_encoder(tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 9,
    }
    LlamaForCausalLM(LlamaConfig(**sizes)).save_pretrained(tmp_path / "llama")
    with pytest.raises(ModelError):
        SentenceEncoder(tmp_path / "llama")


# ------------------------------------------------------------------------------------------------------------ remember


def test_what_was_said_is_found_again(memory):
    told = memory.remember(TOWN, source="town.txt", tags=["town"], author="Ada", when=1000.0)
    assert len(told.ids) == 2
    asked = memory.ask("Who has the key?")
    best = asked.hops[0][0]
    assert (best.record.id, best.sentence, best.source) == (told.ids[1], "Bob has the key.", "town.txt")
    assert (best.record.author, best.record.time) == ("Ada", 1000.0)
    assert sum(one.weight for one in asked.hops[0]) == pytest.approx(asked.covered, abs=1e-6)
    assert asked.looked == asked.addressed == 2
    assert memory.ask("Who has the key?", where=Where(author="Bob")).hops == ((),)
    assert len(memory.ask("Who has the key?", hops=2, words=0).hops) == 2
    assert json.loads(json.dumps(asked.as_json()))["hops"][0][0]["tags"] == ["town"]


def test_a_hop_does_not_read_again_what_the_one_before_read_most(memory):
    memory.remember(TOWN)
    first, second = memory.ask("Who has the key?", hops=2).hops
    assert first[0].record.id not in [one.record.id for one in second]
    assert sum(one.weight for one in second) == pytest.approx(1, abs=1e-5)
    assert memory.ask("Who has the key?", hops=3).hops[2] == ()  # there are two rows


@pytest.mark.models
def test_the_second_hop_finds_what_shares_no_name_with_the_question(tmp_path):
    """Names and chains of the test split, which the trained next question has never seen."""
    told = world("test", 0, 3)
    with _real(tmp_path) as memory:
        memory.remember_all([Said(fact, source=str(n)) for n, fact in enumerate(told.facts)])
        long = [q for q in told.questions if len(q.facts) == 2]
        assert len(long) > 4

        def found(**how):
            shown = [[int(e.source) for hop in memory.ask(q.text, **how).hops for e in hop] for q in long]
            return sum(set(q.facts) <= set(some) for q, some in zip(long, shown, strict=True)) / len(long)

        assert found(top=3, hops=2) > found(top=6) + 0.3


@pytest.mark.models
def test_what_says_where_to_look_next_belongs_to_an_encoder(tmp_path, encoder):
    with Memory(tmp_path / "notes.db", encoder=str(encoder), further="follow-minilm") as memory:
        memory.remember(TOWN)
        with pytest.raises(InputError, match="says nothing about where to look next with the encoder"):
            memory.ask("Who has the key?", hops=2)
    with _real(tmp_path) as memory:
        memory.named = "babi-reader"
        with pytest.raises(InputError, match="babi-reader says nothing about where to look next"):
            _ = memory.further


def _real(folder):
    try:
        return Memory(folder / "real.db", encoder="minilm")
    except ModelError as error:
        pytest.skip(f"minilm is not here and cannot be fetched: {error}")


def test_nothing_is_kept_twice_and_nothing_is_dropped(memory):
    first = memory.remember(TOWN, source="town.txt")
    assert memory.remember(TOWN, source="town.txt").ids == ()
    assert memory.remember(TOWN, source="town.txt").known == 2
    again = memory.remember(TOWN, source="copy.txt")
    assert again.same == dict(zip(again.ids, first.ids, strict=True))
    said = memory.remember("Bob has the key."), memory.remember("Bob has the key.")  # twice said is said twice
    assert said[1].same == {said[1].ids[0]: said[0].ids[0]}
    best = memory.ask("Who has the key?", top=2).hops[0]
    assert {best[0].record.id, *best[0].also} == {said[0].ids[0], said[1].ids[0]}
    assert {best[1].record.id, *best[1].also} == {first.ids[1], again.ids[1]}


def test_covered_is_what_is_shown(memory):
    memory.remember(TOWN)
    for top in (1, 2):
        asked = memory.ask("Who ?", words=0, top=top)
        assert asked.covered == pytest.approx(sum(one.weight for one in asked.hops[0]), abs=1e-6)
    assert memory.ask("Who ?", words=0, top=1).covered < 0.999


def test_a_source_may_be_longer_than_a_tag(memory):
    path = "/".join(["a long folder"] * 40) + "/no\tes\n.txt "
    told = memory.remember(TOWN, source=path)
    assert memory.remember(TOWN, source=path).known == len(told.ids) == 2
    assert memory.remember(TOWN, source="x" + path).known == 0
    source = memory.ask("Who has the key?").hops[0][0].source
    assert source.startswith("…")
    assert source.endswith("/no?es?.txt")


def test_a_run_that_was_stopped_goes_on(memory, monkeypatch):
    from recuerdo.workbench import remembering

    monkeypatch.setattr(remembering, "TOGETHER", 1)
    append, calls = memory.store.append, []

    def stopped(rows):
        if calls:
            raise KeyboardInterrupt
        calls.append(rows)
        return append(rows)

    monkeypatch.setattr(memory.store, "append", stopped)
    with pytest.raises(KeyboardInterrupt):
        memory.remember(TOWN, source="town.txt")
    monkeypatch.setattr(memory.store, "append", append)
    told = memory.remember(TOWN, source="town.txt")
    assert (len(told.ids), told.known) == (1, 1)


# ---------------------------------------------------------------------------------------------------------------- hand


def test_a_correction_is_answered_from_at_once_and_keeps_the_old(memory):
    row = memory.remember(TOWN, tags=["town"]).ids[1]
    assert memory.correct(row, "Carl has the key.", author="Ada", reason="new times") == 2
    best = memory.ask("Who has the key?").hops[0][0]
    assert (best.record.id, best.record.text, best.record.version) == (row, "Carl has the key.", 2)
    assert [one.text for one in memory.store.history(row)][0].endswith("Bob has the key.")
    assert memory.store.ids(Where(tags=("town",))).tolist() == [0, 1]
    assert memory.remember("Carl has the key.").same
    assert not memory.remember("The library closes at six. Bob has the key.").same


def test_hands_change_what_is_read(memory):
    ids = memory.remember(TOWN).ids
    before = memory.ask("Who ?", words=0).hops[0]
    memory.pin([ids[0]], author="Ada", reason="look here")
    after = memory.ask("Who ?", words=0).hops[0]
    odds = [{one.record.id: one.weight for one in hop} for hop in (before, after)]
    ratio = (odds[1][ids[0]] / odds[1][ids[1]]) / (odds[0][ids[0]] / odds[0][ids[1]])
    assert ratio == pytest.approx(np.exp(4.0), rel=1e-3)
    memory.mute([ids[0]])
    assert [one.record.id for one in memory.ask("Who ?").hops[0]] == [ids[1]]
    memory.boost([ids[0]], 0)
    assert len(memory.ask("Who ?").hops[0]) == 2
    memory.forget([ids[1]])
    assert [one.record.id for one in memory.ask("Who ?").hops[0]] == [ids[0]]


def test_what_cannot_be(memory, encoder, tmp_path):
    for wrong, words in (
        (lambda: memory.remember(" \n"), "there is no word to remember"),
        (lambda: memory.ask("  "), "a question has at least one word"),
        (lambda: memory.correct(0, ""), "there is no word to remember"),
        (lambda: memory.remember("a", tags=["from:here"]), "are the memory's own"),
        (lambda: memory.forget([5]), "row 5 .* is not there"),
    ):
        with pytest.raises(InputError, match=words):
            wrong()
    with pytest.raises(InputError, match="was made with the encoder .*words, not minilm: leave it away"):
        Memory(memory.name, encoder="minilm")
    with Embedded(tmp_path / "other keys.db", width=32) as other:
        other.append(Rows(np.eye(32)))
    with pytest.raises(InputError, match="holds keys that .*words did not make: they are not a memory of texts"):
        Memory(tmp_path / "other keys.db", encoder=str(encoder))
    memory.store.note("probe", np.eye(32, dtype=np.float32)[0].tobytes().hex())
    with pytest.raises(InputError, match="which gives other vectors now: use the files that it was made with"):
        Memory(memory.name)
    with pytest.raises(RecuerdoError):
        Memory(tmp_path / "other.db", encoder="no-such-encoder")
    assert not (tmp_path / "other.db").exists()


# ----------------------------------------------------------------------------------------------------------------- doors


@pytest.fixture
def run(tmp_path, monkeypatch, encoder):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RECUERDO_MEMORY", raising=False)

    def call(*words, stdin=None):
        return CliRunner().invoke(app, list(map(str, words)), input=stdin)

    return call


def test_the_verbs_of_a_memory(run, tmp_path, encoder):
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "town.txt").write_text(TOWN, encoding="utf-8")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    told = run("remember", folder, "--encoder", encoder, "--tag", "town", "--author", "Ada")
    assert told.exit_code == 0, told.output
    assert "town.txt: 2 passages kept" in told.output
    assert "0 passages kept; 2 were there" in run("remember", folder).output
    assert "1 passages kept" in run("remember", "-", stdin="Ada leads it.").output
    told = run("ask", "Who has the key?")
    assert "The library closes at six. ▸Bob has the key.◂" in told.output
    assert "#1" in told.output
    assert "3 of 3 rows were looked at" in told.output
    assert json.loads(run("ask", "Who has the key?", "--tag", "town", "--json").output)["addressed"] == 2
    assert "version 2 now" in run("correct", "1", "Carl has the key.", "--reason", "moved").output
    assert "Carl" in run("ask", "Who has the key?").output
    told = run("memories", "history", "1").output
    assert "version 1" in told
    assert "correct    moved" in told
    assert len(json.loads(run("memories", "history", "1", "--json").output)["versions"]) == 2
    assert "#0 pinned" in run("pin", "0").output
    assert "#0 muted" in run("mute", "0").output
    assert json.loads(run("memories", "ls", "--json").output)[0]["bias"] is None
    assert "boosted by 0" in run("boost", "0", "--by", "0").output
    assert "3 rows in memory.db" in run("memories", "ls").output
    assert "encoder" in run("memories", "stats").output
    assert run("forget", "1", stdin="n\n").exit_code == 1
    assert "1 rows in 2 versions were erased" in run("forget", "1", stdin="y\n").output
    assert json.loads(run("forget", "--tag", "town", "--yes", "--json").output)["rows"] == 1
    assert run("memories", "check").output == "memory.db is well\n"
    assert "were made again" in run("memories", "rebuild").output
    assert not any(b"Carl" in file.read_bytes() for file in tmp_path.glob("memory.db*"))


def test_a_question_goes_by_the_index_where_there_is_one(run, encoder):
    run("remember", "-", "--encoder", encoder, stdin=TOWN)
    draw = np.random.default_rng(0)
    with Embedded("memory.db") as store:
        keys = draw.standard_normal((30, store.width))[draw.integers(0, 30, 21_000)]
        keys += 0.3 * draw.standard_normal(keys.shape)
        store.append(Rows(keys / np.linalg.norm(keys, axis=1, keepdims=True), ["far away"] * len(keys)))
    told = run("ask", "Who has the key?", "--approximate")
    assert "21002 of 21002 rows were looked at" in told.output
    assert "all rows were read in spite of --approximate: few rows, a filter, or no index" in told.stderr
    assert "21,002 rows of memory.db lie in" in run("memories", "index").output
    assert json.loads(run("memories", "index", "--cells", "100", "--json").output)["rows"] == 21_002
    told = run("ask", "Who has the key?", "--approximate")
    assert "these hold at least" in told.output
    assert "in spite of" not in told.stderr
    assert "▸Bob has the key.◂" in told.output
    near, exact = (json.loads(run("ask", "Who?", "--json", *more).output) for more in (["--approximate"], []))
    assert near["looked"] < near["addressed"] == exact["looked"]
    assert near["covered"] <= exact["covered"]
    assert run("memories", "check").output == "memory.db is well\n"


def test_who_forgets_is_told_what_says_the_same(run, encoder):
    run("remember", "-", "--encoder", encoder, stdin="Bob has the key.")
    run("remember", "-", stdin="Bob has the key.")
    assert "other rows say the same word for word, and stay: #1" in run("forget", "0", "--yes").output
    assert json.loads(run("forget", "1", "--yes", "--json").output)["same"] == []


def test_a_terminal_obeys_no_text(run, encoder):
    run("remember", "-", "--encoder", encoder, stdin="Bob has \x1b[31mthe key.")
    for words in (["ask", "Who?"], ["memories", "ls"], ["memories", "history", "0"]):
        told = run(*words).output
        assert "�[31mthe key." in told
        assert "\x1b" not in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["ask", "Who?"], "there is no memory memory.db: make one with `recuerdo remember FILE"),
        (["remember", "nowhere.txt"], "there is no file nowhere.txt"),
        (["remember", "empty"], "there is no file of a kind that can be read in empty: .txt, .md, .html"),
        (["remember", "a.png"], "a.png is of a kind that cannot be read: give .txt, .md"),
        (["remember", "latin.txt"], "latin.txt is not UTF-8 (byte 0): save it as UTF-8"),
        (["forget"], "say what to forget: numbers of rows, or --tag"),
        (["forget", "1", "--tag", "a"], "say what to forget: numbers of rows, or --tag"),
        (["mute", "3"], "there is no memory memory.db"),
        (["memories", "ls"], "there is no memory memory.db"),
        (["memories", "index"], "there is no memory memory.db"),
    ],
)
def test_errors_of_the_verbs(run, tmp_path, words, told):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.png").write_bytes(b"%PNG")
    (tmp_path / "latin.txt").write_bytes("Über".encode("latin-1"))
    got = run(*words)
    assert isinstance(got.exception, RecuerdoError), got.output
    assert told in str(got.exception)


@pytest.mark.models
def test_meaning_is_found_without_a_shared_word(tmp_path):
    from recuerdo.bridge.catalogue import get

    get("minilm")
    with Memory(tmp_path / "notes.db") as memory:
        memory.remember(TOWN + "\n\nOur cat sleeps on the sofa all day long.")
        best = memory.ask("Which pet rests on the couch?", words=0).hops[0][0]
        assert best.sentence == "Our cat sleeps on the sofa all day long."
        assert best.weight > 0.9
