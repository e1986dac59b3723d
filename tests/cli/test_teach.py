"""`recuerdo teach`: the loop from a kept mark to a model that attends there by itself; one clear line for what cannot be."""

import json
import re
import sys

import pytest
import typer
from typer.testing import CliRunner

from recuerdo.cli import marks, steer, teach
from recuerdo.errors import FetchError, InputError, JournalError, MarkError, ModelError
from recuerdo.steer import Feedback, Journal, boost

app = typer.Typer()
app.command(name="steer")(steer.steer)
app.command(name="teach", epilog=teach.EXAMPLES)(teach.teach)
app.add_typer(marks.app, name="marks")
TOLD = (
    (
        "Boris works as a physicist now. In the past Boris worked as a chef.",
        "What does Boris work as now?",
        "physicist",
    ),
    ("Today Tessa plays hockey; years ago Tessa played golf.", "Which sport does Tessa play now?", "hockey"),
)


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def said(*arguments: object) -> str:
    done = run(*arguments)
    if done.exception is not None:
        raise done.exception
    return done.stdout


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("RECUERDO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


@pytest.fixture
def small(tmp_path_factory):
    """A language model of one layer over letters."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("small") / "small"
    letters = ["</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>").save_pretrained(path)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    LlamaForCausalLM(
        LlamaConfig(vocab_size=len(letters), max_position_embeddings=200, **sizes, **ends)
    ).save_pretrained(path)
    return path


@pytest.fixture
def kept(home):
    journal = Journal()
    for name in ("ada", "bob"):
        journal.add(Feedback(marks=(boost(name, 8),), text=f"it was {name}.", question="who?", answer=name))
    return journal


# ------------------------------------------------------------------------------------------------------------- the loop


@pytest.mark.slow  # a minute; the verbs are tested on small models here, and docs/teach.md teaches this one
@pytest.mark.models
def test_one_loop_from_a_kept_mark_to_a_model_that_looks_there_by_itself(home, monkeypatch):
    """Steer and keep, list, export, teach; then the model in the folder reads the marked words more, unsteered."""
    import torch

    from recuerdo.bridge import load, watch
    from recuerdo.bridge.run import hear_answer
    from recuerdo.steer.placing import on_tokens
    from recuerdo.workbench import steering

    try:
        model = load("smollm2")
    except FetchError as error:
        pytest.skip(f"smollm2 is not here and cannot be fetched: {error}")
    monkeypatch.setattr(steering, "load", lambda name, **_: model)  # once, not once for each question
    for text, question, answer in TOLD:
        marked = re.split(r"[.;]", text)[0]
        shown = said(
            "steer", "-t", text, "-q", question, "--boost", marked, "--by", 8, "-n", 6, "--keep", "--answer", answer
        )
        assert "kept as" in shown
    listed = json.loads(said("marks", "ls", "--json"))["feedback"]
    assert [entry["answer"] for entry in listed] == ["physicist", "hockey"]
    said("marks", "export", home / "ours.jsonl")
    folder = home / "taught"
    numbers = json.loads(
        said("teach", "--journal", home / "ours.jsonl", "--steps", 8, "--lr", 4e-3, "--out", folder, "--json")
    )
    assert numbers["feedback"] == [entry["id"] for entry in listed]

    def looks(loaded, entry):
        """What the tokens behind the text give to the marked words, and the chance of the wanted answer."""
        heard = hear_answer(loaded, entry.text, entry.question, generate=1)
        keys = torch.stack(on_tokens(entry.marks, heard.text, heard.offsets, document=heard.document)).any(0)
        wanted = loaded.tokenizer(entry.answer, add_special_tokens=False)["input_ids"]
        given = torch.tensor([heard.ids + wanted])
        with torch.no_grad(), watch(loaded.model) as seen:
            logs = loaded.model(given).logits[0, len(heard.ids) - 1 : -1].log_softmax(-1)
        keys = torch.nn.functional.pad(keys, (0, len(wanted)))
        mass = torch.stack(
            [reading.log_mass(keys).exp()[0, :, len(heard.ids) - 1 :].mean() for reading in seen.values()]
        )
        return float(mass.mean()), float(logs.gather(-1, given[0, len(heard.ids) :, None]).sum())

    taught = load(folder)
    for entry in Journal():
        before, after = looks(model, entry), looks(taught, entry)
        assert after[0] > 1.3 * before[0], (before, after)
        assert after[1] > before[1] + 1, (before, after)
    assert numbers["after"]["answer_mass"] > 1.3 * numbers["before"]["answer_mass"]
    assert numbers["after"]["damage"] < 0.2


# ---------------------------------------------------------------------------------------------------------- what is shown


def test_the_table_shows_before_steered_and_taught(kept, small, home):
    shown = said("teach", "-m", small, "--steps", 2, "--check", 0.5, "--out", home / "new")
    assert re.search(r"before\s+steered\s+taught", shown)
    for line in (
        "1 taught",
        "1 held out",
        "marked words, read by the answer",
        "answers that hold the wanted one",
        "elsewhere",
    ):
        assert line in shown
    assert re.search(r"marked words, read behind the text(\s+\d+\.\d %){3}", shown)
    assert "wrote" in shown
    assert (home / "new/model.safetensors").is_file()


def test_json_is_the_object_and_nothing_else(kept, small):
    data = json.loads(
        said("teach", "-m", small, "--method", "full", "--steps", 1, "--layers", "-1", "--seed", 3, "--json")
    )
    assert (data["version"], data["folder"], data["held_before"]) == (1, None, None)
    assert data["lesson"] | {"method": "full", "steps": 1, "layers": [0], "seed": 3} == data["lesson"]
    assert data["feedback"] == [entry.id for entry in kept]


def test_only_some_of_the_feedback(kept, small):
    name = kept.entries()[1].id
    data = json.loads(said("teach", "-m", small, "--steps", 1, "--only", name[:6], "--only", name, "--json"))
    assert data["feedback"] == [name]


def test_a_damaged_journal_is_taught_when_told_to(kept, small):
    with kept.path.open("ab") as file:
        file.write(b'{"version":1,"text":7}\n')
    with pytest.raises(JournalError, match="--skip-damaged"):
        said("teach", "-m", small, "--steps", 1)
    assert len(json.loads(said("teach", "-m", small, "--steps", 1, "--skip-damaged", "--json"))["feedback"]) == 2


def test_help_has_examples():
    shown = run("teach", "--help").output
    assert "Examples" in shown
    for option in ("--journal", "--method", "--steps", "--out", "--check", "--json"):
        assert option in shown


# --------------------------------------------------------------------------------------------------------------- refused


def test_an_empty_journal(home):
    with pytest.raises(JournalError, match="no feedback is kept in .* yet: keep some with `recuerdo steer --keep`"):
        said("teach")


def test_marks_that_do_not_fit_their_text(home):
    path = home / "wrong.jsonl"
    entry = Feedback(marks=(boost("zoe", 8),), text="it was ada.")
    path.write_text(json.dumps(entry.to_data()) + "\n")
    with pytest.raises(MarkError, match=f"feedback {entry.id}: 'zoe' is not in the text"):
        said("teach", "--journal", path)


def test_a_folder_that_holds_something(kept):
    with pytest.raises(InputError, match="is not empty, and nothing is overwritten: name another one"):
        said("teach", "--out", kept.path.parent)


def test_peft_is_missing(kept, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ModelError, match=r"pip install 'recuerdo\[teach\]'"):
        said("teach")


def test_layers_and_ids_that_are_none(kept):
    with pytest.raises(InputError, match="'x' are no layers: write them like 10-23 or 4,8,-1"):
        said("teach", "--layers", "x")
    with pytest.raises(JournalError, match="holds no feedback 'zz'"):
        said("teach", "--only", "zz")
