"""A checkpoint: one safetensors file, written whole or not at all. No pickle is ever read or written.

Its header carries JSON: the version of the format, the versions of recuerdo and torch, numbers, and the sha256 of the
tensors. The names of tensors begin with what they are: `model.` (parameters and buffers), `optimiser.`, `average.`.
"""

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recuerdo.errors import RunError

FORMAT = 1
FULL = tuple(getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG") if hasattr(errno, name))


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> Path:
    """Write tensors and numbers (JSON-able). A process that is killed here leaves the file that was there before.

    Raises RunError when the disk is full or cannot be written, or a parameter is not finite; nothing is changed then.
    """
    from safetensors.torch import save

    from recuerdo import __version__

    # A copy of each: tied parameters share memory, which the format cannot.
    own = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    for name, tensor in own.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise RunError(f"{name} is not finite, so {path} was not written: what was saved before is still there")
    told = {
        "format": FORMAT,
        "recuerdo": __version__,
        "torch": torch.__version__,
        "numbers": dict(numbers),
        "sha256": _digest(own),
    }
    replace_file(path, save(own, {"recuerdo": json.dumps(told)}))
    return path


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the numbers of a checkpoint. Raises RunError when there is none, or it is damaged or newer."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            told = json.loads((file.metadata() or {})["recuerdo"])
        version, numbers, promised = told["format"], dict(told["numbers"]), told["sha256"]
    except FileNotFoundError:
        raise RunError(f"there is no checkpoint {path}: train first") from None
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(f"{path} is damaged or no checkpoint ({error}): {_way_out(path)}") from None
    if version != FORMAT:
        raise RunError(f"{path} has format {version}, and this recuerdo reads {FORMAT}: update recuerdo")
    if _digest(tensors) != promised:
        raise RunError(f"{path} is damaged (its sha256 is another): {_way_out(path)}")
    return tensors, numbers


def load_model(model: nn.Module, tensors: Mapping[str, Tensor], where: Path) -> None:
    """Put the parameters and buffers of a checkpoint into a model. Raises RunError when they are of another model."""
    found = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    own = model.state_dict()
    missing, strange = sorted(own.keys() - found.keys()), sorted(found.keys() - own.keys())
    for name in [*missing, *strange]:
        has = "does not hold" if name in own else "holds"
        raise RunError(f"{where} {has} {name}: it is of another model, so use the recipe beside it")
    for name, tensor in found.items():
        if tensor.shape != own[name].shape:
            shapes = f"{list(tensor.shape)} there, {list(own[name].shape)} in the model"
            raise RunError(f"{name} of {where} has another shape ({shapes}): use the recipe and the data it is of")
    model.load_state_dict(found)


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of a model, under the names that they have in a checkpoint."""
    return {f"model.{name}": t for name, t in model.state_dict().items() if isinstance(t, Tensor)}


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, and return when it is on the disk. Raises RunError."""
    draft = path.with_name(f"{path.name}.part")
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        if os.name != "nt":  # the new name is safe when the folder is
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise RunError(disk_words(path, error)) from error


def disk_words(path: Path, error: OSError) -> str:
    """What to say of a file that could not be written."""
    if error.errno in FULL:
        return f"the disk with {path.parent} is full: make room and go on; what was saved before is still there"
    return f"{path} cannot be written ({error.strerror or error}): name another folder with --out"


def _way_out(path: Path) -> str:
    last, best = path.with_name("last.safetensors"), path.with_name("best.safetensors")
    if path == best and last.exists():
        return f"`recuerdo evaluate {path.parent} --last` asks {last.name}; delete both to train again from the start"
    beside = f"; {best.name} beside it is another one" if path == last and best.exists() else ""
    return f"delete it to train again from the start{beside}"


def _digest(tensors: Mapping[str, Tensor]) -> str:
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        total.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        total.update(tensor.reshape(-1).contiguous().view(torch.uint8).numpy().data)
    return total.hexdigest()
