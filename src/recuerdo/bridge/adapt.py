"""Train foreign models: through low-rank adapters (LoRA, by `peft`) or as a whole; save what was learned.

An adapter adds a product of two narrow matrices to a linear layer (Hu et al. 2021, arXiv 2106.09685). While it is
trained the weights of the model stand still; at the end it is added into them: what is saved is a model like any other,
which needs neither peft nor us.
"""

import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from recuerdo.bridge.run import Loaded, quiet
from recuerdo.errors import InputError, ModelError

METHODS = ("lora", "full")
LINEAR = ("Linear", "Conv1D")  # Conv1D: what GPT-2 calls a linear layer
FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG)


def check_method(method: str) -> None:
    """Refuse a method that does not exist, or whose library is not installed, before any work is done.

    Raises InputError and ModelError.
    """
    if method not in METHODS:
        raise InputError(f"there is no method {method!r}: choose {' or '.join(METHODS)}")
    if method == "lora":
        with quiet():
            try:
                import peft  # noqa: F401
            except ImportError:
                raise ModelError(
                    "LoRA needs the package peft: pip install 'recuerdo[teach]', or choose the method full"
                ) from None


@contextmanager
def training(
    model: Any, method: str, *, reads: Iterable[str], rank: int = 8, seed: int = 0
) -> Iterator[list[nn.Parameter]]:
    """Inside the block the parameters that it yields can be trained, and no others.

    `method` "lora": adapters of this `rank` at every linear layer inside the modules `reads` (paths of attention
    modules, as `watch` gives them); "full": all parameters. The addresses of the reads stay the same. At the end the
    adapters are added into the weights. Left by an exception, adapters are taken away and the model is what it was;
    of "full" what was learned so far remains.

    Raises InputError and ModelError as `check_method` does, and ModelError where a read has no linear layer.
    """
    check_method(method)
    frozen = {name: p.requires_grad for name, p in model.named_parameters()}
    if method == "full":
        learned = list(model.parameters())
        for parameter in learned:
            parameter.requires_grad_(True)
        try:
            yield learned
        finally:
            _restore(model, frozen)
        return
    names = _linears(model, reads)
    import peft

    # With as much weight as rank, steps are as large whatever the rank.
    config = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=names, lora_dropout=0.0, bias="none")
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapted = peft.PeftModel(model, config)
    try:
        yield [parameter for parameter in model.parameters() if parameter.requires_grad]
    except BaseException:
        with quiet():
            adapted.unload()
        raise
    else:
        with quiet():
            adapted.merge_and_unload(safe_merge=True)
    finally:
        _forget(model)
        _restore(model, frozen)


def _linears(model: nn.Module, reads: Iterable[str]) -> list[str]:
    """The linear layers inside the modules that read."""
    paths = tuple(f"{path}." for path in reads)
    names = [name for name, m in model.named_modules() if type(m).__name__ in LINEAR and name.startswith(paths)]
    if not names:
        raise ModelError(
            f"the attention of {type(model).__name__} holds no linear layer that LoRA could adapt: "
            "choose the method full"
        )
    return names


def _forget(model: Any) -> None:
    """Take away what peft leaves on a model that it has unloaded."""
    for name in ("peft_config", "active_adapter"):
        vars(model).pop(name, None)
    if hasattr(model, "_hf_peft_config_loaded"):
        model._hf_peft_config_loaded = False


def _restore(model: nn.Module, frozen: Mapping[str, bool]) -> None:
    for name, parameter in model.named_parameters():
        parameter.grad = None
        parameter.requires_grad_(frozen.get(name, True))


# -------------------------------------------------------------------------------------------------------------- saving


def check_folder(folder: str | os.PathLike[str]) -> Path:
    """Refuse a folder that a model could not be saved to, before any work is done. Raises InputError."""
    path = Path(folder).expanduser()
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file: name a folder that is not there yet")
    if path.is_dir() and any(path.iterdir()):
        raise InputError(f"the folder {path} is not empty, and nothing is overwritten: name another one")
    if not path.absolute().parent.is_dir():
        raise InputError(f"there is no folder {path.absolute().parent} to make {path.name} in: make it first")
    return path


def save(loaded: Loaded, folder: str | os.PathLike[str], card: Mapping[str, Any] | None = None) -> Path:
    """Write a model with its tokenizer, as safetensors, to a new or empty folder: whole or not at all.

    `load(folder)` and `--model folder` read it again, so does Transformers. `card` goes to teaching.json beside it.
    Raises InputError for a folder that cannot be used, ModelError when it cannot be written.
    """
    path = check_folder(folder)
    new = path.absolute().with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}")
    try:
        with quiet():
            loaded.model.save_pretrained(new)
            if loaded.tokenizer is not None:
                loaded.tokenizer.save_pretrained(new)
        if card is not None:
            (new / "teaching.json").write_text(json.dumps(card, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        if path.is_dir():
            path.rmdir()  # empty: Windows renames onto nothing that is there
        new.rename(path)
    except Exception as error:
        _tell_of_disk(path, error)
        raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return path


def _tell_of_disk(path: Path, error: Exception) -> None:
    """Raise ModelError where the disk is to blame. safetensors hands errors of the disk on as words only."""
    said = str(error)
    number = getattr(error, "errno", None)
    if number in FULL or any(os.strerror(n) in said for n in FULL):
        raise ModelError(
            f"the disk with {path} is full, and nothing was saved: make room, or name a folder on another disk"
        ) from error
    if isinstance(error, OSError) or type(error).__name__ == "SafetensorError":
        why = getattr(error, "strerror", None) or said
        raise ModelError(f"{path} cannot be written ({why}): name another folder") from error
