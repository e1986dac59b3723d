"""Every recipe that comes with recuerdo, shortened: it survives kill -9 bit for bit, and learns too fast without harm."""

import json
import os
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest

from recuerdo.errors import InputError
from recuerdo.train import load_checkpoint
from recuerdo.workbench.recipe import load_recipe, resolve, task_class
from recuerdo.workbench.running import train
from recuerdo.workbench.shelf import recipes

pytestmark = pytest.mark.slow


FEW = {"batch": 4, "tokens": 400}  # of a batch: the fewer, the wilder its gradients, and 20 seeds take minutes


def shortened(name, steps, every, times=1.0, few=()):
    """The recipe with so many steps in each of its phases, its rates so many times as high, and batches of so `few`."""
    recipe = load_recipe(name)
    content = recipe.plain()
    there = [f.name for f in fields(task_class(recipe.task))]
    content["data"] |= {key: count for key, count in dict(few).items() if key in there}
    told = content["train"] = {**content["train"], "every": every, "steps": steps}
    told["lr"] = recipe.phases[-1].pace.lr * times
    if "phase" in told:
        told["phase"] = [
            {**phase, "steps": steps, **({"lr": phase["lr"] * times} if "lr" in phase else {})}
            for phase in told["phase"]
        ]
    return replace(resolve(name, content), name=name)


@pytest.mark.parametrize("name", recipes())
def test_kill_9_changes_nothing(name, tmp_path):
    path = tmp_path / "short.toml"
    path.write_text(shortened(name, 12, 5).as_toml(), encoding="utf-8")
    words = [sys.executable, Path(__file__).with_name("killed.py"), path, tmp_path / "runs", "5", "3"]
    done = subprocess.run(
        list(map(str, words)), env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        timeout=1800, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["killed"] >= 2
    assert told | {"losses": True, "last": True, "best": True} == told


@pytest.mark.parametrize("name", recipes())
def test_ten_times_the_rate_never_writes_what_is_no_number(name, tmp_path):
    """It may fail to learn, and may stop with one clear line; what was saved can be taken up."""
    for seed in range(20):
        try:
            for _ in train(shortened(name, 200, 100, times=10.0, few=FEW), tmp_path / str(seed), seed=seed):
                pass
        except InputError as error:
            assert "lower the learning rate" in str(error)  # noqa: PT017
        for file in (tmp_path / str(seed)).glob("*.safetensors"):
            tensors, _ = load_checkpoint(file)
            assert all(bool(t.isfinite().all()) for t in tensors.values() if t.is_floating_point()), file
