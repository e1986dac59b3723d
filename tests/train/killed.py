"""python killed.py RECIPE FOLDER KILLS SEED: train once in peace, and once killed (kill -9) and taken up again.

Prints JSON: how many kills there were, and whether losses, checks and checkpoints are the same bit for bit. The kills
come at random moments: half of them by the clock, half of them inside the writing of a checkpoint. Torch is imported
once; each run is a fork of this process.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from recuerdo.train.checkpoint import load_checkpoint
from recuerdo.workbench.recipe import load_recipe
from recuerdo.workbench.runfolder import read_events
from recuerdo.workbench.running import train


def forked(recipe, folder, die_in_write=0):
    """A process that trains; killed in so manieth call that changes the disk."""
    child = os.fork()
    if child:
        return child
    calls = 0

    def mortal(call):
        def called(*arguments, **named):
            nonlocal calls
            calls += 1
            if calls == die_in_write:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **named)

        return called

    if die_in_write:
        os.fsync, Path.replace = mortal(os.fsync), mortal(Path.replace)
    try:
        for _ in train(recipe, folder):
            pass
        os._exit(0)
    except BaseException as error:  # noqa: BLE001
        print(repr(error), file=sys.stderr)
        os._exit(1)


def learned(folder):
    events = [
        {k: v for k, v in e.items() if k not in ("seconds", "cpu_seconds", "folder", "path")}
        for e in read_events(folder)
    ]
    return [e for e in events if e["event"] in ("step", "checked")]


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def main(name, folder, kills, seed):
    torch.set_num_threads(1)
    draw, recipe = random.Random(seed), load_recipe(name)
    whole, broken = folder / "whole", folder / "broken"
    start = time.monotonic()
    assert os.waitpid(forked(recipe, whole), 0)[1] == 0
    took = time.monotonic() - start
    killed, ended = 0, False
    while not ended:
        in_write = draw.randint(1, 14) if killed < kills and killed % 2 else 0
        child = forked(recipe, broken, in_write)
        if killed < kills and not in_write:
            time.sleep(draw.uniform(0, took / 4))  # short beside the whole: a run in peace may have been a slow one
            os.kill(child, signal.SIGKILL)
        code = os.waitpid(child, 0)[1]
        assert code in (0, signal.SIGKILL), code
        killed += code == signal.SIGKILL
        ended = code == 0
    files = ("last.safetensors", "best.safetensors")
    pairs = [(load_checkpoint(whole / file), load_checkpoint(broken / file)) for file in files]
    told = {
        "killed": killed,
        "steps": len(learned(whole)),
        "losses": learned(whole) == learned(broken),
        "last": same(pairs[0][0][0], pairs[0][1][0]),
        "best": same(pairs[1][0][0], pairs[1][1][0]),
        "left": sorted(p.name for p in broken.iterdir()),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
