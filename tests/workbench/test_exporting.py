"""What is exported says the same in CTranslate2, in float32 word for word."""

import json
import random

import pytest

from recuerdo.data.subwords import LEAST, Subwords
from recuerdo.errors import InputError, RunError
from recuerdo.workbench.exporting import export
from recuerdo.workbench.recipe import resolve
from recuerdo.workbench.running import open_run, train

WORDS = {"red": "rot", "blue": "blau", "house": "haus", "tree": "baum", "sees": "sieht", "old": "alt", "dog": "hund"}


def lines(count, seed):
    draw = random.Random(seed)
    return [" ".join(draw.choices(list(WORDS), k=draw.randint(2, 6))) for _ in range(count)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    for name, count in (("train", 300), ("valid", 5)):
        told = lines(count, name)
        (folder / f"{name}.en").write_text("\n".join(told), encoding="utf-8")
        said = (" ".join(WORDS[word] for word in line.split()) for line in told)
        (folder / f"{name}.de").write_text("\n".join(said), encoding="utf-8")
    files = {name: [f"{name}.en", f"{name}.de"] for name in ("train", "valid")}
    content = {
        "task": "translate",
        "data": {"data": "files", "folder": str(folder), "pieces": LEAST + 40, "tokens": 300, **files},
        "model": {"name": "transformer", "width": 32, "heads": 2, "inner": 64, "layers": 2, "dropout": 0.0},
        "train": {"steps": 300, "lr": 4e-3},
    }
    for _ in train(resolve("made", content), folder / "run", seed=0):
        pass
    return folder / "run"


def said(folder, texts):
    """What CTranslate2 says, piece for piece the likeliest."""
    import ctranslate2

    subwords = (folder / "subwords.json").read_text(encoding="utf-8")
    cut, pieces = Subwords(subwords), json.loads(subwords)["model"]["vocab"]
    names = {number: name for name, number in pieces.items()}
    engine = ctranslate2.Translator(str(folder), device="cpu", intra_threads=1)
    source = [[names[i] for i in ids[:-1]] for ids in cut.encode(texts)]
    told = engine.translate_batch(source, beam_size=1, max_decoding_length=60)
    return [cut.decode([pieces[name] for name in one.hypotheses[0]]) for one in told]


def test_it_says_the_same_word_for_word(run, tmp_path):
    folder = export(run, tmp_path / "out")
    opened, texts = open_run(run), lines(60, "other")
    ours = opened.task.say(opened.model, texts)
    theirs = said(folder, texts)
    ended = [i for i, text in enumerate(ours) if len(text.split()) < 20]  # others are cut off, at another length
    assert len(ended) > 50
    assert [theirs[i] for i in ended] == [ours[i] for i in ended]
    assert len(set(ours)) > 30


def test_in_eight_bits_it_says_nearly_the_same_and_is_smaller(run, tmp_path):
    whole, small = export(run, tmp_path / "whole"), export(run, tmp_path / "small", kind="int8")
    texts = lines(60, "other")
    same = [a == b for a, b in zip(said(whole, texts), said(small, texts), strict=True)]
    assert sum(same) >= 45
    assert (small / "model.bin").stat().st_size < (whole / "model.bin").stat().st_size


def test_what_cannot_be_exported(run, tmp_path):
    with pytest.raises(RunError, match="is there already: name a folder that is not"):
        export(run, tmp_path)
    with pytest.raises(InputError, match="there is no type 'int4' of numbers: choose float32"):
        export(run, tmp_path / "out", kind="int4")
    with pytest.raises(InputError, match="babi-reader is a Reader: only a Transformer that translates is exported"):
        export("babi-reader", tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        export(run, tmp_path / "file" / "out")
    assert not (tmp_path / "out").exists()


def test_the_door(run, tmp_path):
    from typer.testing import CliRunner

    from recuerdo.cli.app import app

    done = CliRunner().invoke(app, ["export", str(run), "--out", str(tmp_path / "a"), "--type", "int8", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["bytes"] == sum(file.stat().st_size for file in (tmp_path / "a").iterdir())
    done = CliRunner().invoke(app, ["export", str(run), "--out", str(tmp_path / "b")])
    assert "MB for CTranslate2, numbers as float32" in done.stdout
