"""What is exported says the same in CTranslate2, in float32 word for word."""

import json
import random

import pytest
from typer.testing import CliRunner

from recuerdo.cli.app import app
from recuerdo.data.subwords import LEAST, Subwords
from recuerdo.errors import InputError, RunError
from recuerdo.train.checkpoint import load_checkpoint
from recuerdo.workbench import packing
from recuerdo.workbench.exporting import export
from recuerdo.workbench.packing import pack
from recuerdo.workbench.recipe import load_recipe, resolve
from recuerdo.workbench.running import evaluate, open_run, train

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
    done = CliRunner().invoke(app, ["export", str(run), "--out", str(tmp_path / "a"), "--type", "int8", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["bytes"] == sum(file.stat().st_size for file in (tmp_path / "a").iterdir())
    done = CliRunner().invoke(app, ["export", str(run), "--out", str(tmp_path / "b")])
    assert "MB, for CTranslate2, numbers as float32" in done.stdout


def test_a_run_to_pass_on_is_small_and_says_the_same(run, tmp_path):
    small = pack(run, tmp_path / "small", kind="float16", about="a toy", licence="CC0")
    assert {path.name for path in small.iterdir()} == {"best.safetensors", "card.json", "recipe.toml"}
    assert 1.9 * (small / "best.safetensors").stat().st_size < (run / "best.safetensors").stat().st_size
    card = json.loads((small / "card.json").read_text())
    assert (card["about"], card["licence"], card["numbers"]) == ("a toy", "CC0", "float16")
    assert card["command"] == "recuerdo train recipe.toml"
    assert load_recipe(small / "recipe.toml").plain() == load_recipe(run / "recipe.toml").plain()
    one, two = open_run(run), open_run(small)
    texts = lines(40, "other")
    assert two.model.table.dtype == one.model.table.dtype
    same = sum(a == b for a, b in zip(one.task.say(one.model, texts), two.task.say(two.model, texts), strict=True))
    assert same >= 36
    with pytest.raises(RunError, match="there is no checkpoint .*last.safetensors"):
        open_run(small, "last")


def test_scores_come_with_their_signatures(run):
    shown = CliRunner().invoke(app, ["evaluate", str(run), "--split", "valid"]).stdout
    assert "BLEU: nrefs:1|case:mixed|eff:no|tok:13a" in shown
    assert "chrF: nrefs:1|" in shown
    assert json.loads((run / "card.json").read_text())["judged_by"]["BLEU"] in shown


def test_results_stay_only_with_the_numbers_that_they_are_of(run, tmp_path):
    evaluate(run, "valid")
    assert "results" in json.loads((pack(run, tmp_path / "same") / "card.json").read_text())
    other = pack(run, tmp_path / "other", kind="bfloat16")
    assert "results" not in json.loads((other / "card.json").read_text())
    assert evaluate(other, "valid")["BLEU"] > 20
    assert "results" in json.loads((other / "card.json").read_text())


def test_what_cannot_be_packed(run, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="there is no type 'int8' of numbers: choose float32, float16, bfloat16"):
        pack(run, tmp_path / "x", kind="int8")
    with pytest.raises(RunError, match="is there already: name a folder that is not"):
        pack(run, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be made"):
        pack(run, tmp_path / "file/x")
    tensors, numbers = load_checkpoint(run / "best.safetensors")
    large = {name: tensor * 1e6 for name, tensor in tensors.items()}
    monkeypatch.setattr(packing, "load_checkpoint", lambda _: (large, numbers))
    with pytest.raises(InputError, match="holds numbers that float16 cannot: choose another type"):
        pack(run, tmp_path / "x", kind="float16")


def test_the_command_packs(run, tmp_path):
    told = CliRunner().invoke(app, ["export", str(run), "--to", "run", "--out", str(tmp_path / "s"), "--json"])
    assert json.loads(told.stdout)["bytes"] > 1000
    with pytest.raises(InputError, match="there is no form 'tflite' to export to: choose ctranslate2, onnx or run"):
        CliRunner().invoke(app, ["export", str(run), "--to", "tflite", "--out", "x"], catch_exceptions=False)
