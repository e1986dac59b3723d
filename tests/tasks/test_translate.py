"""Translating: a made-up language is learned in a minute's part, and every way in ends in a translation or one error."""

import gzip
import os
import random
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch

from recuerdo.data.subwords import LEAST
from recuerdo.data.wording import Worded
from recuerdo.errors import InputError
from recuerdo.metrics.texts import bleu, chrf
from recuerdo.nn.decoding import Drawn
from recuerdo.tasks.aligned import owning
from recuerdo.tasks.paired import linked
from recuerdo.tasks.spoken import streamed
from recuerdo.tasks.translate import Translate
from recuerdo.tasks.translated import Translated
from recuerdo.train.fit import Step, fit
from recuerdo.train.optimise import Pace

WORDS = {"red": "rot", "blue": "blau", "house": "haus", "tree": "baum", "sees": "sieht", "old": "alt", "dog": "hund"}
DATA = Path(os.environ.get("RECUERDO_DATA", Path(__file__).resolve().parents[3] / "shared/data")) / "multi30k"
TEXT = "old dog sees red tree"
SMALL = {"width": 32, "heads": 2, "inner": 64, "layers": 1, "dropout": 0.0}


def written(folder, name, pairs):
    for side, language in enumerate(("en", "de")):
        (folder / f"{name}.{language}").write_text("".join(f"{pair[side]}\n" for pair in pairs), encoding="utf-8")
    return f"{name}.en", f"{name}.de"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A language of other words."""
    path, draw = tmp_path_factory.mktemp("made"), random.Random(0)
    pairs = []
    for _ in range(460):
        words = draw.choices(list(WORDS), k=draw.randint(2, 6))
        pairs.append((" ".join(words), " ".join(WORDS[word] for word in words)))
    for name, some in (("train", pairs[:400]), ("valid", pairs[400:430]), ("test", pairs[430:])):
        written(path, name, some)
    return path


@pytest.fixture(scope="module")
def task(folder):
    files = {name: (f"{name}.en", f"{name}.de") for name in ("train", "valid", "test")}
    return Translate(data="files", folder=str(folder), pieces=LEAST + 40, tokens=400, beam=3, **files)


@pytest.fixture(scope="module")
def learned(task):
    torch.manual_seed(0)
    model = task.model("transformer", **SMALL)
    pace = Pace(steps=300, lr=4e-3, warmup=0.1, average=0.9)
    events = fit(lambda b: task.loss(model, b), model.parameters(), ([b] for b in task.batches(seed=0)), pace)
    losses = [event.loss for event in events if isinstance(event, Step)]
    assert losses[-1] < 0.6 * losses[0]
    return model.eval()


def test_it_is_learned_said_and_judged(task, learned):
    found = task.check(learned, "valid")
    assert found["BLEU"] > 60
    assert found["error"] == pytest.approx(100 - found["BLEU"])
    assert next(iter(found)) == "error"
    assert found["chrF"] > 60
    assert task.check(learned, "test")["BLEU"] > 60
    (said,) = task.say(learned, [TEXT])
    assert said.split()[:2] == ["alt", "hund"]
    assert task.say(learned, ["", TEXT, "  "]) == ["", said, ""]


def test_what_each_word_read(task, learned):
    told = task.predict(learned, "old dog  sees red tree")
    (said,) = task.say(learned, [TEXT], wide=3)
    assert told.source == tuple(TEXT.split())
    assert told.words == tuple(said.split())
    weights = torch.tensor(told.weights)
    assert weights.shape == (len(told.words), 5)
    assert (weights >= 0).all()
    assert (weights.sum(1) <= 1 + 1e-5).all()
    assert told.others[0][0] == said
    assert len(told.others) == 3
    data = told.as_json()
    assert data["translation"] == said
    assert len(data["weights"]) == len(told.words)
    shown = told.text().splitlines()
    assert shown[0] == said
    assert shown[-1].split()[0] == told.words[-1]
    page = told.html()
    assert page.count("<tr>") == 1 + len(told.words)
    assert "<script" not in page


def test_a_line_is_translated_the_same_alone_and_among_others_also_where_it_is_cut_off(task):
    torch.manual_seed(1)
    model = task.model("transformer", **SMALL).eval()  # has learned nothing, and does not end
    texts = ["old", "old dog sees red tree", "red house red tree blue dog old house"]
    for wide in (1, 3):
        together = task.say(model, texts, wide=wide)
        assert together == [task.say(model, [text], wide=wide)[0] for text in texts]


def test_without_attention_it_says_so(task):
    model = task.model("seq2seq", width=8, hidden=8, attention="none").eval()
    told = task.predict(model, TEXT)
    assert told.weights == ()
    assert "no attention" in told.text()
    assert "no attention" in told.html()


def test_any_text_is_translated_or_refused(task, learned):
    for text in ("中文 😀", "a" * 150, "<s> </s>", "\x00 ?", "ﷺ " * 20, "old <b>dog</b>"):
        told = task.predict(learned, text)
        assert "<b>" not in told.html()
        assert torch.tensor(told.weights).isfinite().all()
    with pytest.raises(InputError, match="there is nothing to translate"):
        task.predict(learned, " \n ")
    with pytest.raises(InputError, match="pieces, and this model learned from up to 100: give it in sentences"):
        task.predict(learned, "dog " * 100_000)


def test_a_line_of_a_hundred_thousand_words_stops_no_check(task, learned, folder):
    written(folder, "long", [(TEXT, "alt hund sieht rot baum"), ("dog " * 100_000, "hund " * 100_000)])
    long = replace(task, valid=("long.en", "long.de"))
    with torch.no_grad():
        assert 0 < long._mean_loss(learned, "valid") < 100


def test_to_say_nothing_is_not_to_have_no_attention():
    nothing = Translated(("a",), (), ())
    for shown in (nothing.text(), nothing.html()):
        assert "It said nothing." in shown
        assert "no attention" not in shown


def test_a_model_carries_its_subwords(task, learned):
    away = Translate(data="files", folder="/nowhere", beam=3, **task.carries())
    model = away.model("transformer", **SMALL)
    model.load_state_dict(learned.state_dict())
    assert away.predict(model.eval(), TEXT) == task.predict(learned, TEXT)


def test_long_pairs_are_left_out_of_training_only(task, folder):
    short = Translate(
        data="files", folder=str(folder), pieces=LEAST + 40, longest=4, train=task.train, valid=task.valid
    )
    assert max(int((b.target > 0).sum(1).max()) for b, _ in zip(short.batches(seed=0), range(9), strict=False)) <= 4
    with pytest.raises(InputError, match="no pair has 1 pieces or fewer on both sides: raise longest"):
        next(Translate(data="files", folder=str(folder), longest=1, train=task.train, valid=task.valid).batches(seed=0))


def test_both_directions_are_heard_first(task):
    """Then the pairs as they are, batch for batch; and each batch depends on seed and number alone."""
    own, both = (Translate(**{**vars_of(task), "guided": 0.1, "both": n}) for n in (0, 6))
    plain, found = (list(islice(one.batches(seed=3), 9)) for one in (own, both))
    for start in (0, 4, 6, 8):
        assert same(next(both.batches(seed=3, start=start)), found[start])
    assert all(map(same, plain[6:], found[6:]))
    links = {one: some for b in islice(own.batches(seed=3), 60) for one, some in told_by(b)}
    turned = {(b, a): some for (a, b), some in links.items()}
    heard = [one for b in found[:6] for one in told_by(b)]
    assert 0.3 < sum(one in turned for one, _ in heard) / len(heard) < 0.7
    for one, some in heard:
        assert one in turned or one in links
        its = links.get(one) or {(j, i) for i, j in turned[one]}
        assert some == its


def same(one, other):
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("source", "target", "links"))


def told_by(batch):
    """The pairs of a batch, and which of their pieces go together."""
    for source, target, links in zip(batch.source.tolist(), batch.target.tolist(), batch.links, strict=True):
        told = {(int(i), int(j)) for j, i in links.nonzero()}
        yield (tuple(filter(None, source)), tuple(filter(None, target))), told


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"data": "wmt"}, "there is no source of pairs 'wmt': choose multi30k, tatoeba, files, or some with"),
        ({"data": "multi30k+ted"}, "there is no source of pairs 'ted'"),
        ({"data": "tatoeba"}, "tatoeba has English and French as they are written: form = \"raw\", not 'tokenised'"),
        ({"data": "tatoeba", "form": "raw", "target": "de"}, "not 'raw' from en to de"),
        ({"form": "lower"}, "there is no form 'lower' of the text: choose tokenised or raw"),
        ({"beam": 0}, "tokens, longest and beam are 1 or more"),
        ({"both": -1}, "both is 0 or more"),
        ({"smoothing": 1.0}, "smoothing is from 0 to below 1"),
        ({"data": "files"}, "files of your own are named"),
    ],
)
def test_what_cannot_be(more, words):
    with pytest.raises(InputError, match=words):
        Translate(**more)


def test_other_errors(task, monkeypatch, tmp_path):
    monkeypatch.delenv("RECUERDO_DATA", raising=False)
    monkeypatch.setenv("RECUERDO_CACHE", str(tmp_path))
    with pytest.raises(
        InputError,
        match="fetch it with `recuerdo data get multi30k`, or set RECUERDO_DATA to the folder that holds multi30k/",
    ):
        Translate().carries()
    with pytest.raises(InputError, match=r"set RECUERDO_DATA to the folder that holds tatoeba/"):
        Translate(data="tatoeba", form="raw").carries()
    with pytest.raises(InputError, match="there is no model 'gpt' for translating: choose transformer"):
        task.model("gpt")
    with pytest.raises(InputError, match="there is no split 'train' of the pairs"):
        task.check(task.model("transformer", **SMALL), "train")
    only = Translate(data="files", folder=task.folder, train=task.train, valid=task.valid, pieces=LEAST)
    with pytest.raises(InputError, match=r"test = \[\] names no pairs"):
        only.check(only.model("transformer", **SMALL), "test")


def test_scores_are_those_of_sacrebleu_with_its_signature():
    said, right = ["the cat sat on the mat today ."], ["the cat sat on the mat ."]
    found = bleu(said, right)
    assert 60 < found.score < 80
    assert "tok:13a" in found.signature
    assert "tok:none" in bleu(said, right, tokenised=True).signature
    assert bleu(right, right).score == pytest.approx(100)
    assert chrf(right, right).score == pytest.approx(100)
    assert "nrefs:1" in chrf(said, right).signature
    with pytest.raises(Exception, match="one for one"):
        bleu(said, [])


@pytest.mark.data
def test_multi30k():
    if not (DATA / "train.en.gz").is_file():
        pytest.skip(f"needs Multi30k in {DATA}: set RECUERDO_DATA to the folder that holds multi30k/")
    task = Translate(folder=str(DATA))
    pairs = [task._pairs(split) for split in ("train", "valid", "test")]
    assert [len(some) for some in pairs] == [29000, 1014, 1000]
    turned = Translate(source="fr", target="en", folder=str(DATA.parent))._pairs("valid")
    assert turned[0] == pairs[1][0][::-1]
    assert pairs[1][0] == (
        "a group of men are loading cotton onto a truck",
        "un groupe d&apos; hommes chargent du coton dans un camion",
    )


@pytest.mark.data
def test_tatoeba_beside_multi30k():
    if not (DATA.parent / "tatoeba/fra_eng.tsv.gz").is_file():
        pytest.skip(f"needs tatoeba/ in {DATA.parent}: set RECUERDO_DATA to the folder that holds it")
    task = Translate(data="multi30k+tatoeba", form="raw", source="fr", target="en", folder=str(DATA.parent))
    sizes = {split: [len(source.pairs()) for source in task._sources(split)] for split in ("train", "valid", "test")}
    assert sizes == {"train": [29000, 164562], "valid": [1014, 1098], "test": [1000, 1177]}
    pair = task._pairs("train")[-1]
    assert "impossible to get" in pair[1]
    assert "impossible d'obtenir" in pair[0]


def test_sources_are_judged_together_and_each(folder, learned, task, tmp_path):
    """A table and two files: what both say is one list, and each has a score of its own."""
    (tmp_path / "tatoeba").mkdir()
    lines = "".join(f"{' '.join([a] * n)}\t{' '.join([b] * n)}\n" for a, b in WORDS.items() for n in range(1, 60))
    (tmp_path / "tatoeba/fra_eng.tsv.gz").write_bytes(gzip.compress(lines.encode()))
    files = {name: tuple(str(folder / f"{name}.{side}") for side in ("en", "de")) for name in ("valid", "test")}
    both = Translate(data="tatoeba+files", form="raw", folder=str(tmp_path), beam=2, **files, **task.carries())
    found = both.check(learned, "valid")
    assert list(found) == ["error", "BLEU", "chrF", "loss", "BLEU tatoeba", "BLEU files"]
    alone = Translate(data="files", **files, **task.carries()).check(learned, "valid")
    assert found["BLEU files"] == pytest.approx(alone["BLEU"])
    assert found["BLEU tatoeba"] != pytest.approx(found["BLEU files"])


def test_what_is_muted_is_not_read_and_says_nothing(task, learned):
    """Another word of as many pieces in its place changes nothing but the rounding."""
    told = task.predict(learned, TEXT, mute=["red"])
    assert told.before == task.predict(learned, TEXT)
    assert [row[3] for row in told.weights] == [0.0] * len(told.words)
    size = {word: len(task._cut.encode([word])[0]) for word in WORDS}
    word = next(word for word in WORDS if word not in TEXT and size[word] == size["red"])
    other = task.predict(learned, TEXT.replace("red", word), mute=[word])
    assert other.words == told.words
    assert [text for text, _ in other.others] == [text for text, _ in told.others]
    torch.testing.assert_close(torch.tensor(other.weights), torch.tensor(told.weights), atol=1e-5, rtol=1e-4)
    assert "rot" in told.before.words
    assert "unsteered: " + " ".join(told.before.words) in told.text()
    assert "steered: mute: red" in told.html()
    assert told.as_json()["unsteered"]["words"] == list(told.before.words)
    assert task.predict(learned, TEXT) == told.before  # leaving the marks leaves the model as it was


def test_what_is_boosted_is_read_more(task, learned):
    plain = task.predict(learned, TEXT)
    told = task.predict(learned, TEXT, boost=["Dog sees"])
    share = [sum(row[1] + row[2] for row in one.weights) / len(one.words) for one in (plain, told)]
    assert share[1] > share[0]
    torch.manual_seed(0)
    for attention in ("additive", "general", "location"):
        model = task.model("seq2seq", width=8, hidden=8, attention=attention).eval()
        told = task.predict(model, TEXT, boost=["dog"], mute=["tree."])
        assert [row[4] for row in told.weights] == [0.0] * len(told.words)


@pytest.mark.parametrize(
    ("marks", "words"),
    [
        ({"mute": ["cat"]}, "the text has no words 'cat': give some as they stand there"),
        ({"mute": ["dog old"]}, "the text has no words 'dog old'"),
        ({"mute": [" "]}, "the text has no words ' '"),
        ({"mute": ["dog"], "boost": ["old dog"]}, "'dog' is marked twice"),
        ({"mute": [TEXT]}, "all words are muted: leave one to be read"),
    ],
)
def test_marks_that_cannot_be(task, learned, marks, words):
    with pytest.raises(InputError, match=words):
        task.predict(learned, TEXT, **marks)


def test_marks_need_attention(task):
    model = task.model("seq2seq", width=8, hidden=8, attention="none").eval()
    with pytest.raises(InputError, match="has no attention: boost and mute cannot reach it"):
        task.predict(model, TEXT, mute=["dog"])


def test_long_texts_are_said_in_parts(task, learned):
    short = Translate(data="files", longest=8, beam=3, **task.carries())
    sentences = ["old dog sees tree.", "red house sees dog.", "blue tree."]
    text = " ".join(sentences)
    parts = short._parts(text)
    assert all(len(part) <= 8 for part in parts)
    pieces = [i for part in parts for i in part[:-1]]
    assert pieces == [i for sentence in sentences for i in task._cut.encode([sentence])[0][:-1]]
    assert short._parts("") == []
    assert short._parts("red dog") == task._cut.encode(["red dog"])
    long = "x" * 5000
    assert all(len(part) <= 8 for part in short._parts(long))
    assert short._cut.decode([i for part in short._parts(long) for i in part[:-1]]) == long
    said = task.say(learned, ["old dog", "dog " * 100_000, "", "\x00", "中文 " * 500])
    assert said[0] == task.say(learned, ["old dog"])[0]
    assert len(said[1].split()) > 1000
    assert said[2] == ""


def test_lines_come_in_their_order(task, learned, monkeypatch):
    monkeypatch.setattr("recuerdo.tasks.translate.LINES", 2)
    texts = ["old dog", "", "red tree", "blue house sees tree", "dog"]
    came = []
    said = task.say_lines(learned, (came.append(text) or text for text in texts))
    first = next(said)
    assert came == texts[:2]  # as they come, not all at first
    assert [first, *said] == task.say(learned, texts, wide=3)


def test_lengths_are_parted(task, learned):
    rows = task.by_length(learned, "test")
    pairs = task._pairs("test")
    assert sum(row["pairs"] for row in rows) == len(pairs)
    for row in rows:
        some = [(a, b) for a, b in pairs if row["from"] <= len(a.split()) <= (row["to"] or 10**9)]
        assert len(some) == row["pairs"] > 0
        said = task.say(learned, [a for a, _ in some], wide=task.beam)
        assert row["BLEU"] == pytest.approx(bleu(said, [b for _, b in some], tokenised=False).score, abs=0.5)
    long = Translate(**{**vars_of(task), "subwords": task._cut.told})
    monkey = [("dog " * 21, "chien " * 21), ("old dog", "vieux chien")]
    object.__setattr__(long, "_pairs", lambda split: monkey)
    assert [(row["from"], row["to"], row["pairs"]) for row in long.by_length(learned, "test")] == [
        (1, 5, 1),
        (21, 0, 1),
    ]


def test_drawn_and_streamed(task, learned):
    said = task.say(learned, ["the old dog sees"])[0]
    parts = list(task.stream(learned, "the old dog sees"))
    assert "".join(parts) == said
    assert len(parts) > 2
    drawn = task.draw(learned, "the old dog sees", count=4, choose=Drawn(seed=1))
    assert drawn == task.draw(learned, "the old dog sees", count=4, choose=Drawn(seed=1))
    assert [score for _, score in drawn] == sorted((score for _, score in drawn), reverse=True)
    assert [text for text, _ in task.draw(learned, "the old dog sees", count=2, choose=Drawn(1e-4))] == [said] * 2
    with pytest.raises(InputError, match="lines are drawn 1 to 1000 times, not 0"):
        task.draw(learned, "old", count=0, choose=Drawn())
    for ask in (task.stream, lambda *told: task.draw(*told, count=1, choose=Drawn())):
        with pytest.raises(InputError, match="there is nothing to translate"):
            ask(learned, " ")


def test_half_letters_wait_until_they_are_whole(task, monkeypatch):
    (pieces,) = task._cut.encode(["é 中"])
    monkeypatch.setattr("recuerdo.tasks.spoken.stream", lambda *_, **__: iter(pieces[:-1]))
    parts = list(streamed(None, task._cut, [3, 2], longest=9))
    assert "".join(parts) == "é 中"
    assert not any("\N{REPLACEMENT CHARACTER}" in part for part in parts)


def test_guided_it_shows_what_goes_together(task, folder):
    """A head that is told which words go together reads them; one that is not told does so less."""
    found = {}
    for guided in (0.0, 0.5):
        own = Translate(**{**vars_of(task), "guided": guided})
        torch.manual_seed(0)
        model = own.model("transformer", **{**SMALL, "layers": 2}, head=0)
        parts = own.loss(model, next(iter(own.batches(seed=0))))
        assert list(parts) == (["piece", "aligned"] if guided else ["piece"])
        pace = Pace(steps=120, lr=4e-3, warmup=0.1)
        for _ in fit(
            lambda b, own=own, model=model: own.loss(model, b),
            model.parameters(),
            ([b] for b in own.batches(seed=0)),
            pace,
        ):
            pass
        told = own.predict(model.eval(), TEXT)
        pairs = [
            (told.source.index(a), j)
            for a, b in WORDS.items()
            for j, word in enumerate(told.words)
            if word == b and a in told.source
        ]
        found[guided] = sum(told.weights[j][i] for i, j in pairs) / max(1, len(pairs))
        assert len(pairs) >= 2
    assert found[0.5] > 0.6
    assert found[0.5] > found[0.0]


def test_a_dictionary_says_where_a_word_must_look(task, tmp_path):
    """What the pairs say is overruled: "hund" is to read "house" wherever that is there."""
    path = tmp_path / "words.tsv"
    path.write_text("house\thund\n", encoding="utf-8")
    own = Translate(**{**vars_of(task), "guided": 0.5, "dictionary": str(path)})
    kept = linked(own._sources("train"), own._cut.told)
    told = linked(own._sources("train"), own._cut.told, own.dictionary)
    moved = 0
    for (a, b), before, after in zip(own._pairs("train"), kept, told, strict=True):
        if not ("house" in a and "hund" in b):
            assert before == after
            continue
        source, target = (owning(own._cut, Worded.by_blanks(side)) for side in (a, b))
        words = {(int(source[i].argmax()), int(target[j].argmax())) for i, j in after}
        for i, j in words:
            if b.split()[j] == "hund":
                assert a.split()[i] == "house"
                moved += 1
    assert moved > 20
    for links in (kept, told):
        assert len(links) == 400
    assert next(own.batches(seed=0)).links is not None
    with pytest.raises(InputError, match="a dictionary says where words look while attention is guided: set guided"):
        Translate(dictionary="words.tsv")


def vars_of(task):
    return {
        name: getattr(task, name) for name in ("data", "folder", "pieces", "tokens", "beam", "train", "valid", "test")
    }


def test_a_model_without_attention_is_not_guided(task):
    own = Translate(**{**vars_of(task), "guided": 0.1})
    with pytest.raises(InputError, match="no attention that could be guided"):
        own.loss(own.model("seq2seq", width=8, hidden=8, attention="none"), next(iter(own.batches(seed=0))))
    with pytest.raises(InputError, match="guided is the weight of a loss, 0 or more, not -1"):
        Translate(guided=-1)
