"""Two processes make the step that one would make; a checkpoint of either is taken up by the other."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from recuerdo.errors import InputError
from recuerdo.train.checkpoint import load_checkpoint
from recuerdo.train.device import Part, World, world
from recuerdo.workbench.recipe import load_recipe
from recuerdo.workbench.runfolder import read_card, read_events
from recuerdo.workbench.running import Step, train

HERE = Path(__file__).parent
RECIPE = """
task = "tiny:Tiny"
[data]
size = 13
[model]
name = "net"
[train]
steps = 12
lr = 0.05
every = 4
average = 0.9
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(HERE)
    path = tmp_path / "points.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def together(recipe, folder):
    """Train in two processes."""
    room = {"PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1", "TORCH_DISTRIBUTED_DEBUG": "OFF"}
    words = ["--standalone", "--nproc-per-node", "2", "-m", "recuerdo", "train", recipe, "--out", folder, "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *map(str, words)],
        env=os.environ | room, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stderr[:4000]}\n…\n{done.stderr[-1000:]}"
    return [json.loads(line) for line in done.stdout.splitlines()]


def close(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.allclose(tensor, other[name], atol=2e-6), name


def test_two_processes_make_the_steps_of_one(recipe, tmp_path):
    events = together(recipe, tmp_path / "two")
    alone = [event for event in train(load_recipe(recipe), tmp_path / "one") if isinstance(event, Step)]
    steps = [event for event in events if event["event"] == "step"]  # each is told once, by the first process
    assert [step["number"] for step in steps] == list(range(1, 13))
    assert [step["loss"] for step in steps] == pytest.approx([event.loss for event in alone], abs=1e-5)
    assert [step["norm"] for step in steps] == pytest.approx([event.norm for event in alone], abs=1e-5)
    for file in ("last.safetensors", "best.safetensors"):
        one, two = (load_checkpoint(tmp_path / side / file)[0] for side in ("one", "two"))
        # A buffer that counts calls counts those of one process; the models' results are the same.
        close(one, two)
    assert (read_card(tmp_path / "two")["processes"], read_card(tmp_path / "one")["processes"]) == (2, 1)


def test_one_process_goes_on_with_two_and_the_other_way_round(recipe, tmp_path):
    found = load_recipe(recipe)
    whole = [event.loss for event in train(found, tmp_path / "whole") if isinstance(event, Step)]
    run = train(found, tmp_path / "broken")
    for event in run:
        if isinstance(event, Step) and event.number == 6:
            break
    run.close()
    told = together(recipe, tmp_path / "broken")
    assert (told[0]["event"], told[0]["number"]) == ("started", 6)
    losses = [event["loss"] for event in read_events(tmp_path / "broken") if event["event"] == "step"]
    assert losses == pytest.approx(whole, abs=1e-5)
    close(*(load_checkpoint(tmp_path / side / "last.safetensors")[0] for side in ("whole", "broken")))
    *_, last = train(found, tmp_path / "broken")
    assert last.number == 12  # and one process reads what two have written


def test_a_batch_smaller_than_the_world_has_idle_processes():
    class One:
        def __len__(self):
            return 3

        def split(self, n):
            return [self]

        def to(self, device):
            return self

    batch = One()
    assert World(rank=0, size=2).part(batch) == [Part(batch, 1.0)]
    assert World(rank=1, size=2).part(batch) == [Part(None, 0.0)]
    assert World().part(batch) == [Part(batch, 1.0)]


def test_alone_nothing_is_sent():
    alone = World()
    p = nn.Parameter(torch.zeros(2))
    alone.add([p])
    alone.same(nn.Linear(1, 1))
    assert p.grad is None
    assert alone.total({"a": 1.0}) == {"a": 1.0}
    assert alone.tell({"x": 1}) == {"x": 1}
    assert alone.first


def test_devices():
    with world("cpu") as here:
        assert here == World(torch.device("cpu"))
    with pytest.raises(InputError, match=r"there is no device 'quantum' here .*: choose auto or cpu"), world("quantum"):
        pass
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="there is no device 'cuda' here"), world("cuda"):
            pass
