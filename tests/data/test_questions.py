"""Questions with known answers: generated twins of the two formats, and files that are something else."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recuerdo.data.questions import Asked, Evidence, Paragraph, conversations, paragraphs
from recuerdo.errors import InputError

WORDS = st.text("abc é.", min_size=1, max_size=12)


def written(folder, data):
    file = folder / "twin.json"
    file.write_text(json.dumps(data), encoding="utf-8")
    return file


def test_the_paragraphs_of_squad(tmp_path):
    asked = {"id": "1", "question": "Who?", "answers": [{"text": "Ada", "answer_start": 0}, {"text": "Ada L."}]}
    data = {"version": "1.1", "data": [{"paragraphs": []}, {"paragraphs": [{"context": "Ada L. is.", "qas": [asked]}]}]}
    assert paragraphs(written(tmp_path, data)) == [Paragraph(1, "Ada L. is.", (Asked("Who?", ("Ada", "Ada L.")),))]


def test_a_conversation_in_the_order_of_its_sessions(tmp_path):
    sessions = {f"session_{n}": [{"speaker": "Bob", "dia_id": f"D{n}:1", "text": f"It is {n}."}] for n in (10, 2, 1)}
    sessions["session_2"].append({"speaker": "Ada", "dia_id": "D2:2", "text": None, "blip_caption": "a red boat"})
    told = {"speaker_a": "Ada", "speaker_b": "Bob", "session_2_date_time": "1:56 pm on 8 May, 2023", **sessions}
    qa = [
        {"question": "What?", "answer": 2, "evidence": ["D2:1; D2:2", "D10:1"], "category": 1},
        {"question": "Lost?", "answer": "", "evidence": ["D:11:26"], "category": 4},
        {"question": "None?", "adversarial_answer": "x", "evidence": [], "category": 5},
    ]
    (found,) = conversations(written(tmp_path, [{"conversation": told, "qa": qa, "sample_id": "conv-1"}]))
    assert [turn.id for turn in found.turns] == ["D1:1", "D2:1", "D2:2", "D10:1"]
    assert found.turns[1].text == "Bob: It is 2."
    assert found.turns[2].text == "Ada:  [a red boat]"
    assert [turn.date for turn in found.turns] == ["", *["1:56 pm on 8 May, 2023"] * 2, ""]
    assert found.asked == (Evidence("What?", frozenset({"D2:1", "D2:2", "D10:1"}), 1),)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(WORDS, min_size=1, max_size=4), min_size=1, max_size=5), st.data())
def test_a_generated_twin_comes_back(tmp_path_factory, said, draw):
    told = {
        f"session_{n}": [{"speaker": "Ada", "dia_id": f"D{n}:{k}", "text": text} for k, text in enumerate(some, 1)]
        for n, some in enumerate(said, 1)
    }
    ids = [turn["dia_id"] for some in told.values() for turn in some]
    named = draw.draw(st.lists(st.sampled_from(ids), min_size=1, unique=True))
    qa = [{"question": "?", "answer": "", "evidence": [draw.draw(st.sampled_from([" ", "; "])).join(named)]}]
    data = [{"conversation": told, "qa": [one | {"category": 3} for one in qa]}]
    (found,) = conversations(written(tmp_path_factory.mktemp("twin"), data))
    assert [turn.text for turn in found.turns] == [f"Ada: {text}" for some in said for text in some]
    assert found.asked == (Evidence("?", frozenset(named), 3),)


@pytest.mark.parametrize(
    ("read", "data", "told"),
    [
        (paragraphs, {"data": [{"paragraphs": [{"context": "x"}]}]}, "twin.json is not in the format of SQuAD 1.1"),
        (paragraphs, [1], "twin.json is not in the format of SQuAD 1.1"),
        (conversations, {"conversation": 1}, "twin.json is not in the format of locomo10.json"),
        (conversations, [{"conversation": {"session_1": [{}]}, "qa": []}], "not in the format of locomo10.json"),
        (conversations, [{"conversation": {"session_1": 3}, "qa": []}], "not in the format of locomo10.json"),
    ],
)
def test_another_file_is_refused(tmp_path, read, data, told):
    with pytest.raises(InputError) as error:
        read(written(tmp_path, data))
    assert told in str(error.value)


def test_a_file_that_is_not_there_or_no_json(tmp_path):
    with pytest.raises(InputError) as error:
        conversations(tmp_path / "nowhere.json")
    assert "nowhere.json cannot be read" in str(error.value)
    (tmp_path / "bad.json").write_bytes(b"\xff{")
    with pytest.raises(InputError) as error:
        paragraphs(tmp_path / "bad.json")
    assert "bad.json is not JSON in UTF-8" in str(error.value)
