"""A run in its folder: what is written, going on after any end, several seeds, and what cannot be."""

import json
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

from recuerdo.data.simulate import as_text, simulate
from recuerdo.errors import InputError, RunError
from recuerdo.train import Checked, Saved, Step, load_checkpoint
from recuerdo.workbench import runfolder
from recuerdo.workbench.recipe import load_recipe
from recuerdo.workbench.runfolder import find_run, read_card, read_events, seeds_of, summary
from recuerdo.workbench.running import Finished, Started, as_data, evaluate, open_run, predict, train

TINY = Path(__file__).parents[1] / "train"
TEXT = """
about = "points and their classes"
task = "tiny:Tiny"
[model]
name = "net"
dropout = 0.2
noise = 0.1
[train]
steps = 30
lr = 0.05
every = 10
average = 0.8
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(TINY)
    path = tmp_path / "points.toml"
    path.write_text(TEXT, encoding="utf-8")
    return lambda *changes: load_recipe(path, changes)


def losses(events):
    return [(e.number, e.loss, e.norm) for e in events if isinstance(e, Step)]


def checks(events):
    return [(e.number, e.numbers) for e in events if isinstance(e, Checked)]


def stopped(run, after):
    """The events of a run that somebody leaves after an event."""
    events = []
    for event in run:
        events.append(event)
        if after(event):
            break
    run.close()
    return events


# ------------------------------------------------------------------------------------------------------------ the folder


def test_a_run_tells_what_happens_and_leaves_a_folder(recipe, tmp_path):
    folder = tmp_path / "deep/run"
    events = list(train(recipe(), folder, seed=4))
    assert events[0] == Started(folder, 0, 30, 101, 4)
    assert [event.number for event in events if isinstance(event, Step)] == list(range(1, 31))
    assert [event.number for event in events if isinstance(event, Saved)] == [10, 20, 30]
    best, numbers = min(checks(events), key=lambda check: check[1]["loss"])
    assert isinstance(events[-1], Finished)
    assert (events[-1].best, events[-1].numbers) == (best, numbers)
    card = read_card(folder)
    assert card | {"recipe": "points", "seed": 4, "steps": 30, "finished": True, "parameters": 101} == card
    assert card["best"] == {"number": best, "numbers": numbers}
    assert card["training_loss"] == pytest.approx(sum(loss for _, loss, _ in losses(events)[-10:]) / 10)
    assert card["torch"] == torch.__version__
    told = list(read_events(folder))
    assert [e["event"] for e in told] == [as_data(e)["event"] for e in events]
    assert [e["loss"] for e in told if e["event"] == "step"] == [loss for _, loss, _ in losses(events)]
    assert load_recipe(folder).train["seed"] == 4
    assert load_recipe(folder).name == "points"
    names = {".lock", "best.safetensors", "card.json", "events.jsonl", "last.safetensors", "recipe.toml"}
    assert {path.name for path in folder.iterdir()} - {".lock"} == names - {".lock"}


def test_the_best_is_the_average_at_the_best_check(recipe, tmp_path):
    """Measured again, it gives the numbers of that check; the last parameters give others."""
    list(train(recipe(), tmp_path / "run"))
    best = read_card(tmp_path / "run")["best"]["numbers"]
    assert evaluate(tmp_path / "run", "valid") == pytest.approx(best)
    assert evaluate(tmp_path / "run", "valid", which="last") != pytest.approx(best)
    assert not open_run(tmp_path / "run").model.training


def test_a_check_changes_nothing(recipe, tmp_path):
    often = list(train(recipe("train.every=1"), tmp_path / "often"))
    once = list(train(recipe("train.every=0"), tmp_path / "once"))
    assert losses(often) == losses(once)


def test_seeds_differ_and_repeat(recipe, tmp_path):
    runs = [losses(train(recipe("train.steps=3"), tmp_path / str(i), seed=seed)) for i, seed in enumerate([1, 1, 2])]
    assert runs[0] == runs[1] != runs[2]


# ------------------------------------------------------------------------------------------------------------- going on


@pytest.mark.parametrize("kind", [Started, Step, Checked, Saved])
@pytest.mark.parametrize("number", [0, 7, 10, 20])
def test_a_run_that_was_left_goes_on_bit_for_bit(recipe, tmp_path, kind, number):
    whole = list(train(recipe(), tmp_path / "whole"))
    first = stopped(train(recipe(), tmp_path / "run"), lambda e: isinstance(e, kind) and e.number == number)
    second = list(train(recipe(), tmp_path / "run"))
    assert second[0].number == first[-1].number if not isinstance(first[-1], Finished) else 30
    assert losses(first) + losses(second) == losses(whole)
    assert dict(checks(first) + checks(second)) == dict(checks(whole))
    for file in ("last.safetensors", "best.safetensors"):
        one, other = (load_checkpoint(tmp_path / side / file)[0] for side in ("whole", "run"))
        assert all(torch.equal(one[name], other[name]) for name in one)
    told = [[e for e in read_events(tmp_path / side) if e["event"] == "step"] for side in ("whole", "run")]
    assert told[0] == told[1]


def test_kill_9_at_random_moments_changes_nothing(recipe, tmp_path):
    """In other processes: by the clock, and inside the writing of checkpoints."""
    words = [TINY / "killed.py", tmp_path / "points.toml", tmp_path / "runs", 8, 5]
    done = subprocess.run(
        [sys.executable, *map(str, words)], env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["killed"] >= 5
    assert told | {"steps": 30 + 3, "losses": True, "last": True, "best": True} == told
    assert set(told["left"]) - {".lock"} == {
        "best.safetensors", "card.json", "events.jsonl", "last.safetensors", "recipe.toml"
    }  # fmt: skip


def test_a_finished_run_is_finished(recipe, tmp_path):
    whole = list(train(recipe(), tmp_path / "run"))
    again = list(train(recipe(), tmp_path / "run"))
    assert [type(event) for event in again] == [Started, Finished]
    assert (again[1].best, again[1].numbers) == (whole[-1].best, whole[-1].numbers)


def test_ctrl_c_inside_the_loss_saves_the_last_whole_step(recipe, tmp_path, monkeypatch):
    import tiny

    calls = 0
    real = tiny.Tiny.loss

    def loss(self, model, batch):
        nonlocal calls
        calls += 1
        if calls == 8:
            raise KeyboardInterrupt
        return real(self, model, batch)

    whole = losses(train(recipe(), tmp_path / "whole"))
    monkeypatch.setattr(tiny.Tiny, "loss", loss)
    with pytest.raises(KeyboardInterrupt):
        list(train(recipe(), tmp_path / "run"))
    assert load_checkpoint(tmp_path / "run/last.safetensors")[1]["number"] == 7
    # The buffer that counts calls has seen one more: what a forward pass leaves is not undone.
    assert losses(train(recipe(), tmp_path / "run")) == whole[7:]


def test_a_loss_that_is_no_number_leaves_the_checkpoint(recipe, tmp_path):
    with pytest.raises(InputError, match="the loss of step 25 is nan: lower .*; step 20 is saved in .*run"):
        list(train(recipe("data.fail_at=25"), tmp_path / "run"))
    tensors, told = load_checkpoint(tmp_path / "run/last.safetensors")
    assert told["number"] == 20
    assert all(bool(t.isfinite().all()) for t in tensors.values())
    assert evaluate(tmp_path / "run")["error"] < 100


def test_a_full_disk_stops_the_run_and_leaves_the_checkpoint(recipe, tmp_path, monkeypatch):
    run = train(recipe(), tmp_path / "run")
    stopped_at = next(e for e in run if isinstance(e, Saved))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="is full: make room and go on; what was saved before is still there"):
        list(run)
    monkeypatch.undo()
    monkeypatch.syspath_prepend(TINY)
    assert stopped_at.number == 10
    again = list(train(recipe(), tmp_path / "run"))
    assert (again[0].number, again[-1].number) == (10, 30)


def test_a_disk_that_is_full_of_events(recipe, tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    run = train(recipe(), tmp_path / "run")
    for event in run:
        if isinstance(event, Saved):
            inner = run.gi_frame.f_locals["run"]
            inner.log.close()
            inner.log = open("/dev/full", "w")  # noqa: SIM115
            break
    with pytest.raises(RunError, match="the disk with .*run is full: make room and go on"):
        list(run)
    assert list(train(recipe(), tmp_path / "run"))[0].number == 10


def test_a_line_that_was_cut_off_is_dropped(recipe, tmp_path):
    stopped(train(recipe(), tmp_path / "run"), lambda e: isinstance(e, Saved))
    with (tmp_path / "run/events.jsonl").open("a") as file:
        file.write('{"event": "step", "number": 11, "loss": 0.1}\n{"event": "st')
    list(train(recipe(), tmp_path / "run"))
    assert [e["number"] for e in read_events(tmp_path / "run") if e["event"] == "step"] == list(range(1, 31))


# -------------------------------------------------------------------------------------------------------------- phases


def test_phases_run_one_after_the_other(recipe, tmp_path, monkeypatch):
    import tiny

    seen = []
    real = tiny.Tiny.loss
    monkeypatch.setattr(
        tiny.Tiny, "loss", lambda self, model, batch: seen.append(model.linear) or real(self, model, batch)
    )
    phased = "train.phase=[{steps=12, lr=0.5, shape='constant', warmup=0, set={linear=true}}, {steps=18}]"
    whole = list(train(recipe(phased), tmp_path / "whole"))
    assert seen == [True] * 12 + [False] * 18
    steps = [event for event in whole if isinstance(event, Step)]
    assert [step.number for step in steps] == list(range(1, 31))
    assert {step.rate for step in steps[:12]} == {0.5}
    assert max(step.rate for step in steps[12:]) == 0.05
    assert {step.steps for step in steps} == {30}
    assert [n for n, _ in checks(whole)] == [10, 12, 22, 30]
    assert whole[-1].best > 12, "the best of the last phase is the model that is used"
    for at in (5, 12, 13):
        folder = tmp_path / str(at)
        first = stopped(train(recipe(phased), folder), lambda e, at=at: isinstance(e, Step) and e.number == at)
        assert losses(first) + losses(train(recipe(phased), folder)) == losses(whole)


def test_patience_ends_a_phase(recipe, tmp_path):
    run = recipe("train.phase=[{lr=1e-12, patience=2}, {steps=5}]", "train.every=3", "train.average=0.0")
    events = list(train(run, tmp_path / "run"))
    assert events[-1].number < 30
    assert events[-1].number - 5 in [n for n, _ in checks(events)]


def test_an_attribute_that_is_not_there(recipe, tmp_path):
    with pytest.raises(InputError, match="net has no attribute 'liner' that a phase could set: did you mean 'linear'?"):
        list(train(recipe("train.phase=[{set={liner=true}}]"), tmp_path / "run"))


# -------------------------------------------------------------------------------------------------------- several seeds


def test_the_best_of_seeds_and_their_mean_are_told_apart(recipe, tmp_path):
    for seed in (0, 2, 10):
        list(train(recipe("train.steps=10"), tmp_path / f"seed-{seed}", seed=seed))
    folders = seeds_of(tmp_path)
    assert [folder.name for folder in folders] == ["seed-0", "seed-2", "seed-10"]
    assert "test" not in summary(tmp_path)
    tested = [evaluate(folder)["error"] for folder in folders]
    told = summary(tmp_path)
    valid = [read_card(folder)["best"]["numbers"]["loss"] for folder in folders]
    best = valid.index(min(valid))
    assert told["best_by_validation"]["seed"] == [0, 2, 10][best]
    assert told["best_by_validation"]["test"]["error"] == tested[best]
    mean = sum(tested) / 3
    assert told["test"]["error"]["mean"] == pytest.approx(mean)
    assert told["test"]["error"]["sd"] == pytest.approx((sum((x - mean) ** 2 for x in tested) / 2) ** 0.5)
    assert told["seeds"] == [0, 2, 10]
    losses = [read_card(folder)["training_loss"] for folder in folders]
    assert told["best_by_training_loss"]["seed"] == [0, 2, 10][losses.index(min(losses))]
    assert find_run(tmp_path) == folders[best]
    assert open_run(tmp_path).folder == folders[best]


def test_one_seed_has_no_spread(recipe, tmp_path):
    with pytest.raises(RunError, match="holds no run of a seed that was checked: train with --seeds 0-9"):
        summary(tmp_path)
    list(train(recipe("train.steps=2"), tmp_path / "seed-1"))
    assert json.loads(json.dumps(summary(tmp_path)))["valid"]["loss"]["sd"] is None


# ------------------------------------------------------------------------------------------- evaluate, truth and predict


def test_the_card_counts_the_looks_at_the_test(recipe, tmp_path):
    list(train(recipe(), tmp_path / "run"))
    assert "tested" not in read_card(tmp_path / "run")
    numbers = [evaluate(tmp_path / "run") for _ in range(2)]
    evaluate(tmp_path / "run", "valid")
    assert numbers[0] == numbers[1] != evaluate(tmp_path / "run", which="last")
    card = read_card(tmp_path / "run")
    assert card["tested"] == 3
    assert card["results"]["test"] == numbers[0]
    assert evaluate(tmp_path / "run", truth=True) == {"hit": 100.0}
    assert read_card(tmp_path / "run")["evidence"] == {"test": {"hit": 100.0}}


def test_numbers_of_other_parameters_are_forgotten(recipe, tmp_path):
    stopped(train(recipe(), tmp_path / "run"), lambda e: isinstance(e, Saved))
    evaluate(tmp_path / "run")
    list(train(recipe(), tmp_path / "run"))
    card = read_card(tmp_path / "run")
    assert "results" not in card
    assert card["tested"] == 1, "that the test was looked at stays"


def test_predict_asks_the_task(recipe, tmp_path, monkeypatch):
    import tiny

    list(train(recipe(), tmp_path / "run"))
    assert predict(tmp_path / "run", question="why", boost=("a",)).text() == "why  1 0"
    with pytest.raises(InputError, match="predict does not know 'colour': it knows boost, mute, question, story"):
        predict(tmp_path / "run", question="why", colour="red")
    with pytest.raises(InputError, match="predict needs question: give --question"):
        predict(tmp_path / "run")
    monkeypatch.delattr(tiny.Tiny, "predict")
    monkeypatch.delattr(tiny.Tiny, "evidence")
    with pytest.raises(InputError, match="the task tiny:Tiny has nothing to predict: `recuerdo evaluate` says"):
        predict(tmp_path / "run")
    with pytest.raises(InputError, match="has no evidence to compare with: leave --truth away"):
        evaluate(tmp_path / "run", truth=True)
    with pytest.raises(InputError, match="there is no split 'train': choose test or valid"):
        evaluate(tmp_path / "run", "train")


def test_a_run_answers_where_its_stories_are_not(tmp_path, monkeypatch):
    """The words that it knows are on its card; questions of its own need no bAbI. What is measured needs it."""
    stories = tmp_path / "data/babi/en-1k/qa1_told_train.txt"
    stories.parent.mkdir(parents=True)
    stories.write_text(as_text(simulate(1, 0, 20)), encoding="utf-8")
    monkeypatch.setenv("RECUERDO_DATA", str(tmp_path / "data"))
    told = ['data.size="1k"', "data.tasks=[1]", "train.steps=2", "model.width=16"]
    list(train(load_recipe("babi-1k-reader", [*told, "data.again=[]", "data.same=[]"]), tmp_path / "run"))
    shutil.rmtree(tmp_path / "data")
    monkeypatch.delenv("RECUERDO_DATA")
    where = " ".join(simulate(1, 0, 1)[0].questions[0].words)
    answered = predict(tmp_path / "run", story="Zork went to the kitchen.", question=where)
    assert answered.unknown[0] == "zork"
    with pytest.raises(InputError, match="bAbI is needed"):
        evaluate(tmp_path / "run")


# ------------------------------------------------------------------------------------------------------------- refused


def test_a_model_that_comes_with_recuerdo(recipe, tmp_path, monkeypatch):
    """It is found by name, and nothing is written beside it."""
    list(train(recipe("train.steps=2"), tmp_path / "box/trained/points"))
    monkeypatch.setattr(runfolder, "files", lambda package: tmp_path / "box")
    card = read_card(tmp_path / "box/trained/points")
    assert evaluate("points")["error"] > 0
    assert read_card(tmp_path / "box/trained/points") == card
    with pytest.raises(
        RunError, match="point is no folder of a run: .* make one with `recuerdo train`, or one of points"
    ):
        evaluate("point")


def test_numbers_that_are_none_are_null_in_json(recipe, tmp_path, monkeypatch):
    import tiny

    monkeypatch.setattr(tiny.Tiny, "check", lambda *_: {"loss": 1.0, "other": float("nan"), "far": float("inf")})
    events = list(train(recipe("train.steps=2"), tmp_path / "run"))
    assert as_data(events[3])["numbers"] == {"loss": 1.0, "other": None, "far": None}
    assert "NaN" not in (tmp_path / "run/events.jsonl").read_text() + (tmp_path / "run/card.json").read_text()


def test_a_folder_of_another_run(recipe, tmp_path):
    list(train(recipe("train.steps=2"), tmp_path / "run"))
    with pytest.raises(
        RunError, match=r"holds another run \(train.steps, train.seed\): go on with it by `recuerdo train "
    ):
        list(train(recipe(), tmp_path / "run", seed=1))
    list(train(recipe("train.steps=2", "about='new words'", "train.device=cpu"), tmp_path / "run"))


def test_a_trained_model_is_not_trained_over(recipe, tmp_path):
    run = tmp_path / "run"
    list(train(recipe("train.steps=2"), run))
    best = (run / "best.safetensors").read_bytes()
    (run / "last.safetensors").unlink()
    with pytest.raises(RunError, match=r"holds another run \(train.seed\)"):
        list(train(recipe("train.steps=2"), run, seed=1))
    log = (run / "events.jsonl").read_bytes()
    (run / "events.jsonl").unlink()  # as it is exported
    with pytest.raises(RunError, match="holds a trained model with nothing to go on from: name another folder with"):
        list(train(recipe("train.steps=2"), run))
    assert (run / "best.safetensors").read_bytes() == best
    (run / "events.jsonl").write_bytes(log)
    list(train(recipe("train.steps=2"), run))
    assert (run / "last.safetensors").exists()


def test_a_folder_of_something_else(recipe, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/thesis.tex").touch()
    with pytest.raises(
        RunError, match=r"is not empty and no folder of a run \(thesis.tex\): name another one with --out"
    ):
        list(train(recipe(), tmp_path / "run"))
    with pytest.raises(RunError, match="is no folder of a run: it has no recipe.toml; make one with `recuerdo train`"):
        evaluate(tmp_path / "run")
    (tmp_path / "run/recipe.toml").write_bytes(b"\xff")
    (tmp_path / "run/last.safetensors").touch()
    with pytest.raises(RunError, match="recipe.toml cannot be read .*: name another folder with --out"):
        list(train(recipe(), tmp_path / "run"))
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="file cannot be written .*: name another folder with --out"):
        list(train(recipe(), tmp_path / "file"))


def test_a_folder_in_which_nothing_was_learned_is_free(recipe, tmp_path):
    """So a mistake in a recipe can be put right, under the same name."""
    with pytest.raises(InputError, match=r"\[model\] of points does not fit net"):
        list(train(recipe("model.width='x'"), tmp_path / "run"))
    assert not (tmp_path / "run/recipe.toml").exists()
    stopped(train(recipe("model.width=3"), tmp_path / "run"), lambda event: isinstance(event, Started))
    list(train(recipe("train.steps=2"), tmp_path / "run"))
    assert [e["number"] for e in read_events(tmp_path / "run")] == [0, 1, 2, 2, 2, 2]


def test_a_run_that_never_began_leaves_no_folder(tmp_path, recipe):
    folder = tmp_path / "run"
    with pytest.raises(InputError):
        list(train(recipe("model.width='x'"), folder))
    assert not folder.exists()
    folder.mkdir()
    with pytest.raises(InputError):
        list(train(recipe("model.width='x'"), folder))
    assert folder.exists()  # it was somebody's before


def test_two_processes_in_one_folder(recipe, tmp_path):
    run = train(recipe(), tmp_path / "run")
    next(run)
    with pytest.raises(RunError, match="another process trains in .*: wait for it, or name another folder with --out"):
        next(train(recipe(), tmp_path / "run"))
    run.close()
    next(train(recipe(), tmp_path / "run")).number  # noqa: B018


def test_damaged_files_are_named(recipe, tmp_path):
    list(train(recipe(), tmp_path / "run"))
    (tmp_path / "run/card.json").write_text("{")
    with pytest.raises(RunError, match="card.json is damaged: delete it, and it is written again"):
        evaluate(tmp_path / "run")
    (tmp_path / "run/events.jsonl").write_text("{\n")
    with pytest.raises(RunError, match="events.jsonl is damaged: move it away, and the run goes on without it"):
        list(train(recipe(), tmp_path / "run"))


def test_tensorboard(recipe, tmp_path, monkeypatch):
    """Its package is not ours: what is handed to it is looked at, and that it is missing is said before any step."""
    told = []

    class Writer:
        def __init__(self, folder, purge_step):
            told.append(Path(folder).name)
            assert purge_step == 1

        def add_scalar(self, name, value, number):
            told.append((name, number))

        def close(self):
            told.append("closed")

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Writer))
    list(train(recipe("train.steps=2", "train.tensorboard=true"), tmp_path / "run"))
    assert told == [
        "tensorboard", ("loss", 1), ("rate", 1), ("loss", 2), ("rate", 2), ("valid/loss", 2), ("valid/error", 2), "closed"
    ]  # fmt: skip
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match="TensorBoard is not installed: pip install tensorboard, or train without it"):
        list(train(recipe("train.tensorboard=true"), tmp_path / "other"))
