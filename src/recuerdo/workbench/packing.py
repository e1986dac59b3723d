"""A trained model as a small folder to pass on: its parameters at the best check, its recipe, its card, no more.

The folder is a run like any other: `recuerdo predict` and `recuerdo evaluate` take it, but training cannot go on there.
"""

from pathlib import Path

import torch

from recuerdo.errors import InputError, RunError
from recuerdo.train.checkpoint import load_checkpoint, replace_file, save_checkpoint
from recuerdo.workbench.runfolder import read_card, write_json
from recuerdo.workbench.running import open_run

TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def pack(run: str | Path, folder: str | Path, *, kind: str = "float32", about: str = "", licence: str = "") -> Path:
    """Write the model of a run into a folder that is not there yet; `about` and `licence` stand on its card.

    `kind`: the type of its numbers, "float32", "float16" or "bfloat16"; a model that is opened has float32 again. Where
    that is another type than before, the card's results are left out, for they were of other numbers: `recuerdo
    evaluate` finds those of the folder. Raises InputError for a type that there is not and for numbers that it cannot
    hold; RunError for a folder that is there or cannot be written, and as `open_run`.
    """
    if kind not in TYPES:
        raise InputError(f"there is no type {kind!r} of numbers: choose {', '.join(TYPES)}")
    trained, folder = open_run(run), Path(folder)  # opened, so that what is passed on works
    if folder.exists():
        raise RunError(f"{folder} is there already: name a folder that is not")
    tensors, numbers = load_checkpoint(trained.folder / "best.safetensors")
    small = {name: t.to(TYPES[kind]) if t.is_floating_point() else t for name, t in tensors.items()}
    for name, tensor in small.items():
        if bool(tensors[name].isfinite().all()) and not bool(tensor.isfinite().all()):
            raise InputError(f"{name} holds numbers that {kind} cannot: choose another type")
    # By the recipe beside the card, which has every choice and the seed: its name may mean something else by now.
    card = read_card(trained.folder) | {"numbers": kind, "command": "recuerdo train recipe.toml"}
    card |= {name: value for name, value in (("about", about), ("licence", licence)) if value}
    if any(small[name].dtype != tensors[name].dtype for name in small):
        for name in ("results", "evidence", "tested"):
            card.pop(name, None)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise RunError(f"{folder} cannot be made: {error.strerror or error}") from None
    save_checkpoint(folder / "best.safetensors", small, numbers)
    write_json(folder / "card.json", card)
    replace_file(folder / "recipe.toml", (trained.folder / "recipe.toml").read_bytes())
    return folder
