"""`recuerdo steer`, `truth` and `profile`: answers before and after, one clear line for every wrong input, light help."""

import io
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import recuerdo
from recuerdo.bridge import run
from recuerdo.cli.app import main
from recuerdo.explain.render.data import from_data
from recuerdo.steer import Feedback, Journal, Mark, Profile, boost, marks_as_data, mute
from recuerdo.steer.profiles import load_profile

SOURCE = str(Path(recuerdo.__file__).parents[1])
TEXT = "The lamp is red. The [b]door[/b] is green."
QUESTION = "What colour?"
VERBS = ("steer", "truth", "profile")


def decoder(folder: Path) -> Path:
    """A language model of two layers over bytes."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    names = ["</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    inner = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", pad_token="</s>").save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(names), hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=200, bos_token_id=0, eos_token_id=0, pad_token_id=0, initializer_range=0.3,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    return decoder(tmp_path_factory.mktemp("steered") / "tiny")


@pytest.fixture(scope="session")
def encoder(tmp_path_factory, tiny) -> Path:
    from transformers import AutoTokenizer, BertConfig, BertModel

    folder = tmp_path_factory.mktemp("encoder") / "encoder"
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=160, **sizes)).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("RECUERDO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setenv("COLUMNS", "160")
    return tmp_path / "home"


@pytest.fixture
def inside(capfd, monkeypatch):
    """The command in this process: exit code and both streams."""

    def called(*arguments: object, stdin: bytes | None = None) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["recuerdo", *map(str, arguments)])
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        return (left.value.code or 0, *capfd.readouterr())

    return called


@pytest.fixture
def steered(inside, tiny):
    """`recuerdo steer` of the tiny model; fails unless all went well."""

    def called(*arguments: object, text: str = TEXT, question: str | None = QUESTION) -> str:
        asked = [] if question is None else ["-q", question]
        code, out, err = inside("steer", "-m", tiny, "-t", text, *asked, "-n", 3, *arguments)
        assert code == 0, err
        return out

    return called


def one_line(code: int, out: str, err: str, *words: str) -> None:
    assert code == 2, (out, err)
    assert out == ""
    assert err.startswith("recuerdo: ")
    assert err.count("\n") == 1, err
    for word in words:
        assert word in err


# ---------------------------------------------------------------------------------------------------------------- help


@pytest.mark.skipif(os.name == "nt", reason="the time of a child is not told there")
@pytest.mark.parametrize("verb", VERBS)
def test_help_is_light(verb):
    """No torch, and there at once (CPU time, the best of three)."""
    import resource

    code = f"""
import sys
sys.argv = ["recuerdo", "{verb}", "--help"]
from recuerdo.cli.app import main
try:
    main()
finally:
    print([m for m in ("torch", "transformers", "numpy") if m in sys.modules], file=sys.stderr)
"""
    took = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        environment = os.environ | {"PYTHONPATH": SOURCE, "COLUMNS": "200"}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert (done.returncode, done.stderr.strip()) == (0, "[]")
        assert "Examples" in done.stdout
    assert min(took) < 0.5, took


# --------------------------------------------------------------------------------------------------------------- steer


def test_a_person_sees_before_after_marks_and_rails(steered):
    out = steered("--boost", "[b]door[/b]", "--by", 8, "--mute", "red", "--reason", "because")
    for part in (QUESTION, "before", "after", "boost ×8  [b]door[/b]", "mute  red", "read of the marked part",
                 "nats a step", "plausible tokens", "what moved, points of share"):  # fmt: skip
        assert part in out


def test_json_is_the_object_and_nothing_else(steered, tiny):
    data = json.loads(
        steered("--share", "door", "--give", 0.2, "--damp", "lamp", "--by", 5, "--author", "Ada", "--json")
    )
    loaded = run.load(tiny)
    marks = [Mark.from_data(mark) for mark in data["marks"]]
    assert [(m.where.quote, m.action, m.amount) for m in marks] == [("lamp", "damp", 0.2), ("door", "share", 0.2)]
    assert all(m.author == "Ada" and m.date for m in marks)
    asked = recuerdo.ask_steered(loaded, TEXT, marks, question=QUESTION, generate=3)
    assert data == json.loads(json.dumps(asked.as_data()))


def test_a_text_file_or_a_pipe(inside, tiny, tmp_path):
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    options = ["-m", tiny, "-n", 2, "--mute", "red", "--json"]
    first = inside("steer", "-f", tmp_path / "a.txt", *options)
    second = inside("steer", *options, stdin=TEXT.encode())
    assert first[0] == second[0] == 0
    one, two = (json.loads(said[1]) for said in (first, second))
    assert one["after"] == two["after"]
    assert one["guard"] == two["guard"]


def wanted(out: str) -> list[dict]:
    return [{k: v for k, v in mark.items() if k != "date"} for mark in json.loads(out)["marks"]]


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        (["--mute", "is#2"], {"kind": "quote", "quote": "is", "occurrence": 2}),
        (["--mute", "is", "--every"], {"kind": "quote", "quote": "is", "every": True}),
        (["--mute", "lamp is"], {"kind": "quote", "quote": "lamp is"}),
    ],
)
def test_which_of_the_same_words(steered, arguments, where):
    assert wanted(steered(*arguments, "--json")) == [{"where": where, "action": "mute"}]


@pytest.mark.parametrize(
    ("told", "layers"),
    [("0", [0]), ("0-1", [0, 1]), ("0,-1", [-1, 0]), ("-2", [-2]), (" 1 , 0 ", [0, 1]), ("1-1", [1])],
)
def test_layers(steered, told, layers):
    assert wanted(steered("--mute", "lamp", f"--layers={told}", "--json"))[0]["scope"] == {"layers": layers}


@pytest.mark.parametrize("told", ["", "x", "1-", "3-1", "1;2", "1,,2", "1.5", "0-x"])
def test_layers_that_are_none(inside, tiny, told):
    one_line(*inside("steer", "-m", tiny, "-t", TEXT, "--mute", "lamp", f"--layers={told}"),
             f"{told!r} are no layers: write them like 10-23 or 4,8,-1")  # fmt: skip


def test_markup_is_taken_out_of_the_text(steered):
    data = json.loads(steered("--markup", "--json", text="The *lamp* is (red:0). The door is (green:1.5)."))
    assert [(m["action"], m.get("amount")) for m in data["marks"]] == [("boost", 4.0), ("mute", None), ("boost", 1.5)]
    assert [m["where"]["quote"] for m in data["marks"]] == ["lamp", "red", "green"]


def test_marks_from_a_file(steered, tmp_path):
    (tmp_path / "m.json").write_text(json.dumps(marks_as_data([boost("lamp", 3, reason="r"), mute("red")])))
    assert wanted(steered("--marks", tmp_path / "m.json", "--damp", "green", "--json")) == [
        {"where": {"kind": "quote", "quote": "green"}, "action": "damp", "amount": 0.25},
        {"where": {"kind": "quote", "quote": "lamp"}, "action": "boost", "amount": 3.0, "reason": "r"},
        {"where": {"kind": "quote", "quote": "red"}, "action": "mute"},
    ]


def test_kept_marks_are_in_the_journal(steered, home):
    out = steered("--boost", "door", "--keep", "--answer", "green", "--reason", "it is", "--author", "Ada")
    (kept,) = Journal()
    assert (home / "feedback.jsonl").is_file()
    assert f"kept as {kept.id}: `recuerdo marks show {kept.id}`" in out
    assert (kept.text, kept.question, kept.answer, kept.author, kept.reason) == (
        TEXT,
        QUESTION,
        "green",
        "Ada",
        "it is",
    )
    assert kept.marks[0].where.quote == "door"
    assert kept.after["mass"] > kept.before["mass"]
    assert kept.after["kl"] > 0


def test_another_journal(steered, home, tmp_path):
    data = json.loads(steered("--boost", "door", "--keep", "--journal", tmp_path / "j.jsonl", "--json"))
    (kept,) = Journal(tmp_path / "j.jsonl")
    assert data["kept"] == kept.id
    assert kept.answer is None
    assert not home.exists()


def test_nothing_is_kept_unasked(steered, home):
    steered("--boost", "door")
    assert not home.exists()


def test_the_dose_curve(steered):
    data = json.loads(steered("--boost", "door", "--dose", "2,4,16", "--json"))
    assert [row["amount"] for row in data["dose"]] == [2.0, 4.0, 16.0]
    masses = [row["mass"][1] for row in data["dose"]]
    assert masses == sorted(masses)
    assert data["dose"][1]["answer"] == data["after"]  # --by is 4
    table = steered("--boost", "door", "--dose", "2,16")
    lines = [re.split(r" {2,}", line.strip()) for line in table.splitlines()]
    start = next(i for i, line in enumerate(lines) if line[:2] == ["strength", "marked"])
    assert [line[0] for line in lines[start + 1 : start + 3]] == ["2", "16"]
    assert lines[start + 1][1] == f"{100 * masses[0]:.1f} %"


@pytest.mark.parametrize("kind", [".html", ".json", ".svg", ".png", ".npz"])
def test_files(steered, tmp_path, kind):
    file = tmp_path / f"out{kind}"
    out = steered("--mute", "red", "--boost", "door", "--out", file)
    assert out.startswith(f"wrote {file} (")
    if kind == ".json":
        seen = from_data(json.loads(file.read_text(encoding="utf-8")))
        assert [mark.action for mark in seen.marks] == ["boost", "mute"]
        assert seen.before.answer is not None
        assert seen.moved.map.signed
        assert seen.command.startswith("recuerdo steer -m ")
    elif kind == ".html":
        inner = file.read_text(encoding="utf-8").split('id="recuerdo-data">')[1].split("</script>")[0]
        data = json.loads(inner)
        assert [mark["label"] for mark in data["marks"]] == ["boost ×4", "mute"]
        assert data["before"]["answer"] is not None
        assert data["guard"]["mass"][1] >= 0
    elif kind == ".svg":
        assert ET.parse(file).getroot().tag.endswith("svg")
    else:
        assert file.read_bytes()[:4] in (b"\x89PNG", b"PK\x03\x04")


def test_json_beside_a_file(inside, tiny, tmp_path):
    code, out, err = inside(
        "steer", "-m", tiny, "-t", TEXT, "--mute", "red", "-n", 2, "--json", "-o", tmp_path / "x.html"
    )
    assert code == 0
    assert json.loads(out)["guard"]
    assert "wrote" in err


def test_a_profile_from_a_file_or_by_name(steered, tmp_path):
    profile = Profile("mine", "tiny", ((0, 0), (1, 1)), "boost", 8.0, (16.0, 4.0), queries="after")
    file = profile.save(tmp_path)
    by_file = json.loads(steered("--mute", "door", "--profile", file, "--json"))
    profile.save()
    by_name = json.loads(steered("--mute", "door", "--profile", "mine", "--json"))
    assert by_file["marks"][0]["scope"] == {"head_set": "mine"}
    assert by_file["marks"][0]["action"] == "boost"
    assert by_file["reads bent"] == [6]
    assert by_file["guard"] == by_name["guard"]
    assert by_file["guard"]["mass"][1] > by_file["guard"]["mass"][0]


def test_a_gate(steered):
    data = json.loads(steered("--share", "door", "--give", 0.9, "--gate", 1, "--json"))
    assert data["guard"]["plausible"] == 1


WRONG = {
    "no marks": ([], ["nothing is marked: pass --boost, --damp, --share or --mute", "--marks"]),
    "not there": (["--mute", "blue"], ["'blue' is not in the text"]),
    "other case": (["--mute", "the Lamp"], ["'the Lamp' is not in the text: did you mean 'The lamp', at character 0?"]),
    "twice there": (["--mute", "is"], ["'is' stands 2 times in the text"]),
    "no third": (["--mute", "is#3"], ["'is' stands 2 times in the text: there is no occurrence 3"]),
    "number 0": (["--mute", "is#0"], ["the occurrence is 0: it counts from 1"]),
    "blank": (["--mute", " "], ["the quote is empty: quote the words to mark"]),
    "overlap": (["--mute", "lamp is", "--boost", "lamp"], ["two marks lie on one another"]),
    "part of a word": (["--mute", "la", "--boost", "amp"], ["two marks lie on one another"]),
    "too weak": (["--boost", "lamp", "--by", 0.5], ["boost needs a factor above 1, not 0.5"]),
    "by zero": (["--damp", "lamp", "--by", 0], ["damp needs a factor between 0 and 1"]),
    "negative": (["--damp", "lamp", "--by", -4], ["damp needs a factor between 0 and 1, not -0.25"]),
    "nan": (["--boost", "lamp", "--by", "nan"], ["the amount of boost is nan: give a finite number"]),
    "infinite": (["--boost", "lamp", "--by", "inf"], ["the amount of boost is inf"]),
    "share": (["--share", "lamp", "--give", 30], ["a share is between 0 and 1, not 30"]),
    "layer": (["--mute", "lamp", "--layers", "7"], ["there is no layer 7: this model has layers 0 to 1"]),
    "layers": (["--mute", "lamp", "--layers", "0-1000000000000"], ["layers are more than 10,000: name fewer"]),
    "profile": (["--mute", "lamp", "--profile", "nosuch"], ["there is no profile 'nosuch': there is smollm2-facts"]),
    "profile of another": (["--mute", "lamp", "--profile", "smollm2-facts"], ["there is no", "this model has"]),
    "gate": (["--mute", "lamp", "--gate", 2], ["the gate is a part of the favourite's probability", "not 2"]),
    "dose": (["--boost", "lamp", "--dose", "2;4"], ["'2;4' are no strengths: write them like 2,4,8,16"]),
    "dose of nothing": (["--mute", "lamp", "--dose", "2"], ["mute has no strength: a dose curve needs a mark"]),
    "dose too weak": (["--boost", "lamp", "--dose", "0.5"], ["boost needs a factor above 1, not 0.5"]),
    "kind": (["--mute", "lamp", "--out", "x.pdf"], ["x.pdf has no kind that can be written"]),
    "no file": (["--marks", "none.json"], ["marks cannot be read from 'none.json'"]),
    "question": (["--mute", "lamp", "-q", " "], ["--question is empty"]),
    "answer unkept": (["--mute", "lamp", "--answer", "red"], ["--answer is for feedback that is kept: add --keep"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_line(case, inside, tiny, home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, words = WRONG[case]
    one_line(*inside("steer", "-m", tiny, "-t", TEXT, "-n", 2, *arguments), *words)
    assert not home.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "m.json are not JSON"),
        ("[]", "nothing is marked"),
        ("[3]", "mark 1 of 1: a mark is an object with"),
        ('[{"where": "lamp", "action": "love"}]', "mark 1 of 1: there is no such action"),
        ('[{"where": "lamp", "action": "boost", "amount": NaN}]', "the amount of boost is nan"),
        ('[{"where": {"kind": "span", "start": -1, "end": 2}, "action": "mute"}]', "the start is -1: it counts from 0"),
        ('[{"where": {"kind": "span", "start": 0, "end": 999}, "action": "mute"}]', "it was made on another text"),
        ('[{"where": {"kind": "span", "start": 0, "end": 3, "quote": "Red"}, "action": "mute"}]', "not 'Red': the mark was"),
        ("[" + '{"where": "lamp", "action": "mute"},' * 20_000 + "3]", "20,001 marks: at most 10,000 at once"),
    ],
)  # fmt: skip
def test_hostile_files_of_marks(content, words, inside, tiny, tmp_path):
    (tmp_path / "m.json").write_text(content, encoding="utf-8")
    one_line(*inside("steer", "-m", tiny, "-t", TEXT, "--marks", tmp_path / "m.json"), words)


def test_models_that_cannot(inside, encoder):
    one_line(*inside("steer", "-m", encoder, "-t", TEXT, "--mute", "red"), "does not answer: take a language model")
    one_line(*inside("steer", "-m", "smolm2", "-t", TEXT, "--mute", "red"), "Did you mean smollm2?")


# --------------------------------------------------------------------------------------------------------------- truth


def test_truth_of_an_encoder(inside, encoder, tmp_path):
    options = ["-m", encoder, "-t", TEXT, "--methods", "lift,raw", "--units", "sentences"]
    code, out, err = inside("truth", *options, "--gold", "red")
    assert code == 0, err
    for part in ("taken out of every read: truth score, 0 = chance", "needed", "verdict", "gold"):
        assert part in out
    code, out, err = inside("truth", *options, "--removal", "both", "--json", "-o", tmp_path / "x.json")
    assert code == 0, err
    data = json.loads(out)
    assert "wrote" in err
    seen = from_data(json.loads((tmp_path / "x.json").read_text(encoding="utf-8")))
    assert {t.view for t in seen.trust} == {"lift", "raw"}
    assert {t.removal for t in seen.trust} == {"keys", "input"}
    assert data["answer"] == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--methods", "nope"], ["there is no method 'nope': choose lift, aside"]),
        (["--methods", "raw,"], ["there is no method ''"]),
        (["--removal", "all"], ["there is no removal 'all'"]),
        (["--units", "letters"], ["letters"]),
        (["--gold", "blue", "--methods", "raw"], ["blue"]),
        (["--out", "x.doc"], ["x.doc has no kind"]),
        (["-q", "Who?"], ["cannot answer"]),
        (["-q", ""], ["--question is empty"]),
    ],
)
def test_wrong_truths(arguments, words, inside, encoder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one_line(*inside("truth", "-m", encoder, "-t", "The lamp is red.", *arguments), *words)


# ------------------------------------------------------------------------------------------------------------- profile


@pytest.fixture
def lessons(tmp_path) -> Path:
    journal = Journal(tmp_path / "lessons.jsonl")
    for name, colour in (("ada", "red"), ("bob", "blue"), ("eve", "grey")):
        journal.add(
            Feedback((boost(f"{name} is {colour}", 4),), f"{name} was old. {name} is {colour}.", f"{name}?", colour)
        )
    return journal.path if hasattr(journal, "path") else tmp_path / "lessons.jsonl"


def test_a_profile_is_learned_kept_and_used(inside, tiny, lessons, home):
    options = ["profile", "mine", "-m", tiny, "--journal", lessons, "--steps", 4]
    code, out, err = inside(*options)
    assert code == 0, err
    learned = load_profile("mine")
    assert str(home / "profiles" / "mine.json") in out
    assert f"{len(learned.heads)} heads" in out
    assert "wanted answers, learned from, steered: " in out
    assert "use it: recuerdo steer … --profile mine" in out
    assert learned.note == "learned by `recuerdo profile mine`"
    code, out, err = inside("steer", "-m", tiny, "-t", TEXT, "-n", 2, "--mute", "red", "--profile", "mine", "--json")
    assert code == 0, err
    assert json.loads(out)["marks"][0]["scope"] == {"head_set": "mine"}


def test_a_profile_as_json_in_a_folder(inside, tiny, lessons, tmp_path, home):
    code, out, err = inside("profile", "mine", "-m", tiny, "--journal", lessons, "--steps", 2, "--all-queries", "--seed",
                            3, "--out", tmp_path / "there", "--json")  # fmt: skip
    assert code == 0, err
    data = json.loads(out)
    assert data.pop("file") == str(tmp_path / "there" / "mine.json")
    assert data == json.loads((tmp_path / "there" / "mine.json").read_text(encoding="utf-8"))
    assert data["queries"] == "all"
    assert not home.exists()


def test_wrong_profiles(inside, tiny, lessons, tmp_path):
    none = "no feedback has marks and a wanted answer: keep some with `recuerdo steer … --keep --answer`"
    one_line(*inside("profile", "mine", "-m", tiny), none)
    options = ["-m", tiny, "--journal", lessons, "--steps", 1]
    one_line(*inside("profile", "my facts", *options), "the name of a profile is 1 to 80 letters")
    (tmp_path / "file").write_text("")
    one_line(*inside("profile", "mine", *options, "--out", tmp_path / "file"), "file is a file: --out names a folder")
    one_line(*inside("profile", "mine", "-m", "nosuch", "--journal", lessons), "no model 'nosuch'")
    (tmp_path / "bad.jsonl").write_text("{}\n")
    code, out, err = inside("profile", "mine", "-m", tiny, "--journal", tmp_path / "bad.jsonl")
    assert (code, out) == (2, "")
    assert "Traceback" not in err
