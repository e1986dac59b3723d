"""The translators that come with the package: both ways, with maps that hold on sentences a person can check."""

from importlib.resources import files

import pytest

from recuerdo.workbench.running import predict

PAIRS = {
    "A small black dog runs on the beach.": {"dog": "chien", "black": "noir", "small": "petit", "beach.": "plage."},
    "A woman in a red dress sits at the table with a white cat.": {"dress": "robe", "red": "rouge", "cat.": "chat"},
}


@pytest.mark.parametrize("text", PAIRS)
def test_english_to_french_shows_which_word_is_which(text):
    told = predict("translate-en-fr", text=text)
    for english, french in PAIRS[text].items():
        row = told.weights[told.words.index(french)]
        assert row.index(max(row)) == told.source.index(english), french


def test_and_back():
    there = predict("translate-en-fr", text="A small black dog runs on the beach.")
    back = predict("translate-fr-en", text=" ".join(there.words))
    assert {"small", "black", "dog", "beach."} <= set(back.words)


def test_a_muted_word_is_not_said():
    told = predict("translate-en-fr", text="A small black dog runs on the beach.", mute=("black",))
    assert "noir" in told.before.words
    assert "noir" not in told.words
    column = told.source.index("black")
    assert all(row[column] == 0 for row in told.weights)


def test_marks_of_the_printer_say_the_same_as_those_of_a_keyboard():
    plain, printed = (
        predict("translate-fr-en", text=text) for text in ('Il dit "oui" - et dort.', "Il dit “oui” – et dort.")
    )
    assert printed == plain
    assert not plain.strange
    muted = predict("translate-fr-en", text="Il dit “oui” – et dort.", mute=("“oui”",))
    assert all(row[2] == 0 for row in muted.weights)


def test_what_it_cannot_read_is_told():
    told = predict("translate-fr-en", text="Le chat 😀 dort , Привет !")
    assert told.strange == ("😀", "Привет")
    assert told.as_json()["strange"] == ["😀", "Привет"]
    for shown in (told.text(), told.html()):
        assert "it hardly knows the letters of 😀, Привет: what it says there is made up" in shown


def test_they_are_small():
    home = files("recuerdo") / "recipes" / "trained"
    sizes = [
        len(file.read_bytes()) for name in ("translate-fr-en", "translate-en-fr") for file in (home / name).iterdir()
    ]
    assert sum(sizes) < 16e6
