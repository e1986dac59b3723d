"""Run a vision model of Hugging Face over a picture and keep what it read, with the way back from patches to pixels."""

import inspect
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from recuerdo.bridge.attention import watch
from recuerdo.bridge.run import Loaded, load, quiet
from recuerdo.errors import InputError, ModelError
from recuerdo.read import Reading

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, where the model's folder says nothing
WHITE = 255.0
Pair = tuple[int, int]
FINE = 16  # patches a side from which one is a cell by itself
PATCHES = 784  # that a picture is cut into, about
FREE = ("dinov2", "dinov2_with_registers")  # kinds that take pictures of any size by themselves


@dataclass(frozen=True)
class HeardPicture:
    """What a vision model read of a picture: `reads` by module path; the patches as a `grid` (rows, columns), row by
    row behind `first` other tokens (a class token, registers). The picture was stretched onto the grid: patch (i, j) is
    its i-th of so many equal strips down, and its j-th across."""

    reads: dict[str, Reading]
    grid: tuple[int, int]
    first: int


def hear_picture(
    loaded: Loaded,
    pixels: Tensor,
    *,
    patches: int = PATCHES,
    progress: Callable[[str, int, int], None] | None = None,
) -> HeardPicture:
    """Let a vision model read a picture [3, height, width] uint8, cut into about so many patches of equal shape where
    the model takes any size, else into those that it was made for.

    Raises ModelError for a model that does not look at pictures or whose tokens are no patches, InputError for another
    shape and for no patches.
    """
    if loaded.kind != "vision":
        raise ModelError(f"{loaded.name} reads no pictures: choose dinov2, or another vision transformer")
    if pixels.dim() != 3 or len(pixels) != 3 or not pixels.numel():
        raise InputError(f"a picture is [3, height, width], not {tuple(pixels.shape)}")
    if patches < 1:
        raise InputError(f"a picture is cut into 1 patch or more, not {patches}")
    model = loaded.model
    height, width = pixels.shape[1:]
    grid, side, more = _grid(model, height, width, patches)
    told = _ready(pixels, (grid[0] * side[0], grid[1] * side[1]), loaded.folder)
    layers = getattr(model.config, "num_hidden_layers", 0)

    def count(path: str, reading: Reading) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress("looking", done, layers)

    done = 0
    with torch.no_grad(), quiet(), watch(model, each=count) as seen:
        model(pixel_values=told, **more)
    reads = {path: seen.steps(path)[0] for path in seen.paths}
    tokens = next(iter(reads.values())).shape[3]
    first = tokens - grid[0] * grid[1]
    if first < 0 or any(reading.shape[2:] != (tokens, tokens) for reading in reads.values()):
        raise ModelError(f"{loaded.name} does not read its {grid[0]} x {grid[1]} patches as they are: there is no map")
    return HeardPicture(reads, grid, first)


class PictureEncoder:
    """Pictures -> the cells of a vision model's last layer, as it stands: nothing of it learns.

    `name` as in `load`, or what that returned. Raises ModelError for a model that looks at no pictures,
    FetchError for one that cannot be had.
    """

    def __init__(self, name: str | Path | Loaded):
        self.loaded = name if isinstance(name, Loaded) else load(name)
        if self.loaded.kind != "vision":
            raise ModelError(f"{self.loaded.name} reads no pictures: choose dinov2, or another vision transformer")

    @torch.no_grad()
    def __call__(self, pictures: Sequence[Tensor], cells: int) -> Tensor:
        """Pictures [3, height, width] uint8 of any sizes -> [n, cells, cells, width], float16 on the processor.

        Each is stretched onto a square of patches, `cells` of them a side, or twice as many where that is below 16, of
        which four are one cell then: patches of so small a picture would say little. Raises InputError for no cells.
        """
        if cells < 1:
            raise InputError(f"a picture is cut into 1 cell a side or more, not {cells}")
        grid, side, more = _grid(self.loaded.model, 1, 1, (cells if cells >= FINE else 2 * cells) ** 2)
        fine = grid[0] // cells
        if grid != (fine * cells, fine * cells) or not fine:
            there = f"{grid[0]} x {grid[1]} patches"
            raise InputError(f"{self.loaded.name} cuts pictures into {there}: {cells} cells a side do not divide that")
        size = (grid[0] * side[0], grid[1] * side[1])
        found = []
        for one in pictures:
            with quiet():
                states = self.loaded.model(pixel_values=_ready(one, size, self.loaded.folder), **more).last_hidden_state
            patches = states[0, states.shape[1] - grid[0] * grid[1] :].view(*grid, -1)
            found.append(functional.avg_pool2d(patches.permute(2, 0, 1), fine).permute(1, 2, 0).half())
        return torch.stack(found)


def _grid(model: Any, height: int, width: int, patches: int) -> tuple[Pair, Pair, dict[str, bool]]:
    """Rows and columns of patches, the pixels of one (down, across), and what else the model must be told."""
    patch, size = (_pair(getattr(model.config, name)) for name in ("patch_size", "image_size"))
    more = {"interpolate_pos_encoding": True} if _takes(model, "interpolate_pos_encoding") else {}
    if not more and model.config.model_type not in FREE:
        return (size[0] // patch[0], size[1] // patch[1]), patch, {}
    # As many as asked for, in the shape of the picture; a narrow picture has one row or column at least.
    rows = max(1, round(math.sqrt(patches * height / width)))
    columns = max(1, round(patches / rows))
    return (min(rows, patches), min(columns, patches)), patch, more


def _takes(model: Any, name: str) -> bool:
    return name in inspect.signature(model.forward).parameters


def _pair(size: Any) -> Pair:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _ready(pixels: Tensor, size: tuple[int, int], folder: Path | None) -> Tensor:
    """The picture as the model wants it: [1, 3, height, width], scaled and centred as its folder says."""
    mean, deviation = MEAN, DEVIATION
    told = None if folder is None else folder / "preprocessor_config.json"
    if told is not None and told.is_file():
        try:
            said = json.loads(told.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ModelError(f"{told} is no JSON ({error}): fetch the model again") from None
        mean, deviation = said.get("image_mean") or mean, said.get("image_std") or deviation
    picture = functional.interpolate(pixels[None].float(), size, mode="bicubic", antialias=True).clamp(0, WHITE)
    of_channel = torch.tensor([mean, deviation])[:, None, :, None, None]
    return (picture / WHITE - of_channel[0]) / of_channel[1]
