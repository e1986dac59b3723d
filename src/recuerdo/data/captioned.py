"""Pictures with captions: folders with a file that says them, in the forms that data sets have.

image,caption                    a table with a head: Flickr8k as it is passed around, and one's own
name.jpg#0<tab>caption           Flickr8k's own token file
name.jpg| 0| caption             Flickr30k's table, with a head
{"images": […], "annotations": […]}      COCO's captions
"""

import csv
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recuerdo.data.parallel import before, lines
from recuerdo.data.subwords import PAD
from recuerdo.errors import InputError

PARTS = {"train": (0.0, 0.8), "valid": (0.8, 0.9), "test": (0.9, 1.0)}


@dataclass(frozen=True)
class Captioned:
    """A picture's file and what people said of it."""

    path: Path
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Pictures:
    """A batch: `pictures` [b, …] and one caption each, `target` [b, t], pieces padded with 0; `boxes` [b, t, cells]
    bool: where what a piece names lies, nothing for a piece that names nothing; `out` [b, cells] bool: what a person
    muted, nothing where the caption is of the whole picture."""

    pictures: Tensor
    target: Tensor
    boxes: Tensor | None = None
    out: Tensor | None = None

    def __len__(self) -> int:
        """The pieces of the captions: the loss is the mean over these."""
        return int((self.target != PAD).sum())

    @property
    def told(self) -> Tensor:
        """What stands before each piece of a caption, [b, t]: begin, then all but the last."""
        return before(self.target)

    def split(self, n: int) -> list["Pictures"]:
        """The batch as at most n batches, without padding that all of their captions have."""
        found = []
        for rows in torch.arange(len(self.target)).chunk(n):
            target = self.target[rows]
            long = int((target != PAD).sum(1).max())
            boxes = None if self.boxes is None else self.boxes[rows, :long]
            out = None if self.out is None else self.out[rows]
            found.append(Pictures(self.pictures[rows], target[:, :long], boxes, out))
        return found

    def to(self, device: torch.device) -> "Pictures":
        """The batch on another device."""
        boxes = None if self.boxes is None else self.boxes.to(device)
        out = None if self.out is None else self.out.to(device)
        return Pictures(self.pictures.to(device), self.target.to(device), boxes, out)


def split_of(told: Sequence[Captioned], split: str) -> list[Captioned]:
    """The pictures of "train" (eight tenths), "valid" or "test" (a tenth each), by a hash of their names: what is added
    later moves no other. Raises InputError for another split, and for one that has no picture."""
    if split not in PARTS:
        raise InputError(f"there is no split {split!r} of the pictures: choose {', '.join(PARTS)}")
    order = sorted(told, key=lambda one: hashlib.blake2b(one.path.name.encode(), digest_size=8).digest())
    first, last = (round(share * len(order)) for share in PARTS[split])
    if first == last:
        raise InputError(f"{len(order)} pictures leave none for {split}: give 10 or more")
    return order[first:last]


@lru_cache(8)
def captioned(file: str, folder: str) -> tuple[Captioned, ...]:
    """The pictures of a captions file, in its order; their files are in `folder`. Raises InputError for a file that has
    none of the forms above, and for pictures that are not there."""
    whole = lines(file)
    pairs = _of_coco(file, "\n".join(whole)) if "".join(whole[:1]).lstrip().startswith("{") else _of_table(file, whole)
    found: dict[str, list[str]] = {}
    for name, caption in pairs:
        if words := " ".join(caption.split()):
            found.setdefault(name.strip(), []).append(words)
    if not found:
        raise InputError(f"there is no picture with a caption in {file}")
    told = tuple(Captioned(Path(folder) / name, tuple(captions)) for name, captions in found.items())
    missing = [one.path for one in told if not one.path.is_file()]
    if missing:
        raise InputError(f"{len(missing)} of the {len(told)} pictures of {file} are not there, such as {missing[0]}")
    return told


def _of_table(file: str, whole: Sequence[str]) -> Iterable[tuple[str, str]]:
    head = whole[0].strip().lower() if whole else ""
    if head.startswith("image_name|"):
        rows = [line.split("|", 2) for line in whole[1:] if line.strip()]
        pairs = [(row[0], row[2]) if len(row) == 3 else None for row in rows]
    elif head.replace('"', "").startswith("image,"):
        reader = csv.reader((f"{line}\n" for line in whole[1:]), strict=True)
        try:
            rows = [row for row in reader if "".join(row).strip()]
        except csv.Error as error:
            raise InputError(
                f"{file} is no CSV near line {reader.line_num + 1} ({error}): a caption that begins with a quotation "
                "mark ends with one, and those inside are doubled"
            ) from None
        pairs = [(row[0], ",".join(row[1:])) if len(row) > 1 else None for row in rows]
    else:
        rows = [line.split("\t", 1) for line in whole if line.strip()]
        pairs = [(row[0].partition("#")[0], row[1]) if len(row) == 2 else None for row in rows]
    if None in pairs:
        number = pairs.index(None) + 1
        raise InputError(
            f"row {number} of {file} has no picture and caption: write image,caption with that as its head, or one of "
            "the forms of Flickr8k, Flickr30k and COCO"
        )
    return [pair for pair in pairs if pair is not None]


def _of_coco(file: str, text: str) -> list[tuple[str, str]]:
    try:
        told: Any = json.loads(text)
        names = {image["id"]: str(image["file_name"]) for image in told["images"]}
        return [(names[one["image_id"]], str(one["caption"])) for one in told["annotations"]]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is no captions file of COCO ({error!r}): it needs images and annotations") from None
