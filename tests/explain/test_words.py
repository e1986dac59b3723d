"""Words, sentences and paragraphs as a person would cut them, and the way from a model's tokens back to them."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recuerdo.explain.words import cut, pool, words_of_tokens

QUICK = settings(max_examples=100, deadline=None, database=None)
PROSE = st.text(st.sampled_from("aZé9 .,!?'’-_\n\t()\"“”。！火山かナ🙂\u0301\u200b\u2028"), max_size=60)
ANY = st.one_of(st.text(max_size=60), PROSE)


def starts(text: str, firsts: list[int]) -> list[str]:
    """The word at which each part starts, with the one after it."""
    words = cut(text).words
    return [" ".join(words[i : i + 2]) for i in firsts]


# ------------------------------------------------------------------------------------------------------------- words


@QUICK
@given(ANY)
@example("_")
@example("\ufeffbom")
@example("a\x00b\x1fc")
def test_words_and_glue_give_back_the_text(text):
    words = cut(text)
    assert "".join(w + g for w, g in zip(words.words, words.glue, strict=True)) == text.lstrip()
    assert [text[a:b] for a, b in words.spans] == words.words
    assert not any(g.strip() for g in words.glue), "what can be seen belongs to a word"
    assert all(w and not any(c.isspace() for c in w) for w in words.words)


@QUICK
@given(ANY)
def test_parts_start_at_words_in_order_and_the_first_at_the_first(text):
    words = cut(text)
    for firsts in (words.sentences, words.paragraphs):
        assert firsts == sorted(set(firsts))
        assert firsts[:1] == ([0] if len(words) else [])
        assert all(0 <= i < len(words) for i in firsts)
    of = words.sentence_of()
    assert of.shape == (len(words),)
    assert sorted(set(of.tolist())) == list(range(len(words.sentences)))
    together = "".join("".join(words.sentence(i).split()) for i in range(len(words.sentences)))
    assert together == "".join(text.split())


@QUICK
@given(ANY)
@example("- one\n- two")
def test_a_new_paragraph_starts_a_new_sentence(text):
    words = cut(text)
    assert set(words.paragraphs) <= set(words.sentences)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("She didn't pay 3.50, did she?", ["She", "didn't", "pay", "3.50", ",", "did", "she", "?"]),
        ("a well-known state-of-the-art", ["a", "well-known", "state-of-the-art"]),
        ("it’s l’été", ["it’s", "l’été"]),
        ("1,000,000 EUR (2024)", ["1,000,000", "EUR", "(", "2024", ")"]),
        ("snake_case = None", ["snake_case", "=", "None"]),
        ("[bold] $5 100%", ["[", "bold", "]", "$", "5", "100", "%"]),
        ("end- -start", ["end", "-", "-", "start"]),
        ("火山は高い", ["火", "山", "は", "高", "い"]),
        ("東京2024年", ["東", "京", "2024", "年"]),
        ("abc火def", ["abc", "火", "def"]),
        ("", []),
        (" \n\t\u3000 ", []),
    ],
)
def test_words_are_what_a_person_reads_as_one(text, words):
    assert cut(text).words == words


@pytest.mark.parametrize("word", ["cafe\u0301", "हिन्दी", "नमस्ते", "ภาษาไทย", "مُحَمَّد"])
def test_marks_that_combine_stay_in_their_word(word):
    assert cut(f"{word} x").words == [word, "x"]


# ----------------------------------------------------------------------------------------- sentences and paragraphs


@pytest.mark.parametrize(
    ("text", "firsts"),
    [
        ("One two. Three four! Five six? Seven", ["One two", "Three four", "Five six", "Seven"]),
        ("It costs 3.50 euros. Cheap, no?", ["It costs", "Cheap ,"]),
        ('He said "Go." Then he left.', ["He said", "Then he"]),
        ("He left (at last.) She stayed.", ["He left", "She stayed"]),
        ("He ran. “Stop!” she cried.", ["He ran", "“ Stop"]),
        ("Version 2.0 is out. 3 bugs remain.", ["Version 2.0", "3 bugs"]),
        ("Title\n\nno capital here", ["Title no", "no capital"]),
        ("Title\r\n\r\nno capital here", ["Title no", "no capital"]),
        ("Il est parti. À bientôt.", ["Il est", "À bientôt"]),
        ("火山。海！空？「はい。」終", ["火 山", "海 ！", "空 ？", "「 は", "終"]),
        ("one line\nand its rest.", ["one line"]),
        ("no end", ["no end"]),
    ],
)
def test_sentences_start_where_a_person_would_say(text, firsts):
    assert starts(text, cut(text).sentences) == firsts


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Он ушёл. Она осталась.", 2),
        ("Έφυγε. Αυτή έμεινε.", 2),
        ("Poszedł. Śpiewał. Łódź czekała.", 3),
        ("ذهب الولد. عاد الولد؟ نعم.", 3),
        ("वह गया। वह आया।", 2),
        ("Wait… Then he came.", 2),
    ],
)
def test_sentences_of_other_scripts_too(text, count):
    assert len(cut(text).sentences) == count


@pytest.mark.parametrize(
    ("text", "firsts"),
    [
        ("One.\n\nTwo.", ["One .", "Two ."]),
        ("One.\n \t\nTwo.", ["One .", "Two ."]),
        ("One.\r\n\r\nTwo.", ["One .", "Two ."]),
        ("Buy:\n- milk\n- bread", ["Buy :", "- milk", "- bread"]),
        ("# Title\n# Next", ["# Title", "# Next"]),
        ("One\ntwo", ["One two"]),
    ],
)
def test_paragraphs_start_where_a_person_would_say(text, firsts):
    assert starts(text, cut(text).paragraphs) == firsts


def test_a_sentence_is_given_as_it_is_written():
    words = cut("Ms Ada  wrote it. (Did she?) Yes.")
    assert [words.sentence(i) for i in range(len(words.sentences))] == ["Ms Ada  wrote it.", "(Did she?)", "Yes."]
    assert words.sentence_of().tolist() == [0] * 5 + [1] * 5 + [2] * 2


# ------------------------------------------------------------------------------------------------- from tokens to words


@st.composite
def tokens_over_a_document(draw):
    """A text, the document in it, and tokens that cut the text anywhere: as byte-level BPE does, spaces and all."""
    before, document, after = draw(PROSE), draw(PROSE), draw(PROSE)
    text = before + document + after
    cuts = draw(st.lists(st.integers(0, len(text)), max_size=20))
    edges = sorted({0, len(text), *cuts})
    offsets = list(zip(edges, edges[1:], strict=False))
    offsets += draw(st.lists(st.sampled_from([(0, 0), (len(text), len(text)), *offsets]), max_size=3))
    return text, len(before), len(before) + len(document), offsets


@QUICK
@given(tokens_over_a_document())
def test_a_token_belongs_to_the_word_of_its_first_visible_character(case):
    text, start, end, offsets = case
    words = cut(text[start:end])
    of = words_of_tokens(words, offsets, text, start)
    assert of.shape == (len(offsets),)
    for (left, right), word in zip(offsets, of.tolist(), strict=True):
        first = next((i for i in range(left, right) if not text[i].isspace()), None)
        if first is None or not start <= first < end:
            assert word == -1
        else:
            a, b = words.spans[word]
            assert word >= 0
            assert a <= first - start < b


def test_byte_level_tokens_carry_the_space_before_them():
    text = "user\nThe cat sat.\nassistant"
    pieces = ["user", "\n", "The", " c", "at", " sat", ".", "\n", "assistant"]
    edges = np.cumsum([0, *map(len, pieces)]).tolist()
    offsets = list(zip(edges, edges[1:], strict=False))
    words = cut(text[5:17])
    assert words.words == ["The", "cat", "sat", "."]
    assert words_of_tokens(words, offsets, text, 5).tolist() == [-1, -1, 0, 1, 1, 2, 3, -1, -1]


def test_the_bytes_of_one_letter_share_its_word():
    text = "a 🙂 b"
    assert words_of_tokens(cut(text), [(0, 1), (1, 3), (2, 3), (2, 3), (3, 5)], text).tolist() == [0, 1, 1, 1, 2]


def test_word_pieces_and_special_tokens():
    text = "Unbelievable, isn't it"  # [CLS] un ##believable , isn ' t it [SEP]
    offsets = [(0, 0), (0, 2), (2, 12), (12, 13), (14, 17), (17, 18), (18, 19), (20, 22), (0, 0)]
    assert words_of_tokens(cut(text), offsets, text).tolist() == [-1, 0, 0, 1, 2, 2, 2, 3, -1]


def test_no_words_no_tokens():
    assert words_of_tokens(cut(""), [(0, 0), (0, 3)], "   ").tolist() == [-1, -1]
    assert words_of_tokens(cut("a"), [], "a").tolist() == []


# -------------------------------------------------------------------------------------------------------------- pool


def pooled(rows: np.ndarray, of: np.ndarray, count: int) -> np.ndarray:
    out = np.zeros((*rows.shape[:-1], count), np.float64)
    for token, group in enumerate(of):
        if group >= 0:
            out[..., group] += rows[..., token]
    return out


@QUICK
@given(st.integers(0, 6), st.lists(st.integers(-1, 5), max_size=12), st.integers(0, 3))
def test_pool_equals_a_plain_loop(heads, of, spare):
    of = np.array(of, dtype=np.int64)
    count = int(of.max(initial=-1)) + 1 + spare
    rows = np.random.default_rng(0).random((heads, 2, len(of))).astype(np.float32)
    got = pool(rows, of, count)
    assert got.shape == (heads, 2, count)
    assert got.dtype == rows.dtype
    np.testing.assert_allclose(got, pooled(rows, of, count), atol=1e-6)


def test_pool_of_many_words_equals_a_plain_loop():
    rng = np.random.default_rng(0)
    of = rng.integers(-1, 2000, 2300)
    rows = rng.random((2, 2300))
    assert (of >= 0).sum() * 2100 >= 2**22, "the case for which no one-hot matrix is made"
    np.testing.assert_allclose(pool(rows, of, 2100), pooled(rows, of, 2100), atol=1e-9)
