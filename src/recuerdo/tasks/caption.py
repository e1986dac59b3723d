"""Caption: say what is on a picture, and show for each word which part of the picture it came from."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recuerdo.data.captioned import PARTS, Captioned, Pictures, captioned, split_of
from recuerdo.data.parallel import padded
from recuerdo.data.pictures import colours, resized
from recuerdo.data.scenes import SIDE, Group, Scenes, claim, describe, facts, scenes, spoken_of
from recuerdo.data.sources import data_folder
from recuerdo.data.subwords import Subwords
from recuerdo.data.wording import Worded
from recuerdo.errors import InputError
from recuerdo.metrics.texts import caption_scores
from recuerdo.models.captioner import Captioner
from recuerdo.nn.decoding import Line, beam, greedy
from recuerdo.nn.grid import STRIDE, within
from recuerdo.read import bending
from recuerdo.read import mute as mute_cells
from recuerdo.tasks.aligned import of_words, owning
from recuerdo.tasks.boxed import Marked, boxes_of, cells_of, pointed_at
from recuerdo.tasks.captioned import Seen
from recuerdo.tasks.marking import box, regions
from recuerdo.tasks.scened import follows, held, judged, pointed, share

MODELS = {"captioner": Captioner}
SOURCES = ("scenes", "flickr8k", "files")
FOLLOWED = 200  # scenes whose groups are boxed one after the other
WRITTEN = 20000  # captions of which the pieces of scenes are learned
AT_ONCE = 100  # pictures that are judged together
See = Callable[[Sequence[Tensor], int], Tensor]  # pictures [3, h, w], cells a side -> [n, cells, cells, features]
Model = Any  # a Captioner, or what has its loss and alignments, and is a Speaker


@dataclass
class Caption:
    """The pictures and what is said of them.

    `data`: "scenes" (shapes with colours, counts, places and relations, drawn without end: `recuerdo.data.scenes`),
    "flickr8k" (captions.txt and images/ in flickr8k_1000/ of the data folder, or in `folder`), or "files" of one's own:
    `captions`, in one of the forms of `recuerdo.data.captioned`, and the pictures in `folder`. `sees`: the vision model
    that turns pictures into cells and stays as it is, "" = the captioner's own convolutions over `side` x `side`
    pixels; whoever composes a run puts that model's cells here, as `see`. `cells`: down and across, of a vision model,
    and `features`: how wide they are, 0 = ask it. `pieces` subwords, learned from the captions; `batch` pictures,
    a caption each; a caption has at most `said` pieces. `boxes`: how much it counts that the words for a thing look at
    its box, where boxes are known, as in scenes (0: nobody tells); of photos a person draws them, in the file `marks`
    (`recuerdo.tasks.boxed`). `marked`: so large a share of scenes is captioned as
    if a person had muted all but the box of one group, by a sentence about that. `smoothing`, `beam` and `alpha` as in
    `recuerdo.tasks.translate`; `subwords`: those to use instead of learned ones.

    Raises InputError for what cannot be.
    """

    data: str = "scenes"
    captions: str = ""
    folder: str = ""
    sees: str = ""
    side: int = SIDE
    cells: int = 8
    features: int = 0
    pieces: int = 400
    batch: int = 64
    said: int = 40
    boxes: float = 0.0
    marks: str = ""
    marked: float = 0.0
    smoothing: float = 0.0
    beam: int = 3
    alpha: float = 1.0
    subwords: str = field(default="", repr=False)
    see: See | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.data not in SOURCES:
            raise InputError(f"there is no source of captions {self.data!r}: choose {', '.join(SOURCES)}")
        if min(self.batch, self.said, self.beam, self.cells) < 1 or self.side < 8 or not 0 <= self.smoothing < 1:
            raise InputError("batch, said, beam and cells are 1 or more, side 8 or more, smoothing from 0 to below 1")
        if self.boxes < 0 or (self.boxes and self.data != "scenes" and not self.marks):
            raise InputError("boxes is 0 or more, and 0 for photos on which nobody drew: marks names the file of boxes")
        if self.marks and self.data == "scenes":
            raise InputError("marks are boxes on photos: where things lie on scenes is known")
        if not 0 <= self.marked <= 1 or (self.marked and self.data != "scenes"):
            raise InputError("marked is a share of scenes, 0 to 1, and 0 for photos")
        if self.data == "files" and not (self.subwords or (self.captions and self.folder)):
            raise InputError('pictures of your own are named: captions = "captions.csv" and folder = "images"')
        if self.data == "scenes" and (self.side != SIDE or self.sees):
            raise InputError(f"scenes are read from their {SIDE} x {SIDE} pixels: leave side and sees away")

    def model(self, name: str, **arguments) -> nn.Module:
        """The model of a name, as large as the pieces and the cells ask. Raises InputError for a name that is not in
        MODELS."""
        if name not in MODELS:
            raise InputError(f"there is no model {name!r} for captions: choose {', '.join(MODELS)}")
        return MODELS[name](len(self._cut), self._features, **arguments)

    def carries(self) -> dict[str, Any]:
        """The subwords and the width of cells: with them a trained model is opened where the data is not."""
        return {"subwords": self._cut.told} | ({"features": self._features} if self.sees else {})

    def batches(self, *, seed: int, start: int = 0) -> Iterator[Pictures]:
        """Batches without end; which pictures and captions come at a step depends on the seed and the step alone."""
        if self.data == "scenes":
            for step in count(start):
                yield self._drawn(random.Random(f"{seed} {step}"))
        # A round over all pairs of picture and caption, then the next in another order.
        there = self._there("train")
        pairs = [(i, low(caption)) for i, one in enumerate(there) for caption in one.captions]
        each, turn, every = max(1, len(pairs) // self.batch), -1, pairs
        for step in count(start):
            if step // each != turn:
                turn, every = step // each, list(pairs)
                random.Random(f"{seed} round {turn}").shuffle(every)
            some = every[step % each * self.batch :][: self.batch]
            pictures = self._seen("train")[[i for i, _ in some]]
            target, boxes = padded(self._ids([caption for _, caption in some])), None
            if self.boxes:
                told = [(there[i], caption) for i, caption in some]
                boxes = cells_of(told, self._cut, self._marked, self._grid(pictures), target.shape)
            yield Pictures(pictures, target, boxes)

    def loss(self, model: Model, batch: Pictures) -> dict[str, Tensor]:
        """What each piece of a caption costs given those before it, and what the looks cost."""
        told = {"smoothing": self.smoothing} | ({} if batch.boxes is None else {"boxes": batch.boxes})
        if batch.out is None:
            parts = model.loss(batch.pictures, batch.told, batch.target, **told)
        elif model.attention == "none":
            raise InputError("this captioner has no attention, so nothing can be muted: set data.marked = 0")
        else:
            muted = mute_cells(batch.out)
            with bending(model, lambda *_: (muted,)):
                parts = model.loss(batch.pictures, batch.told, batch.target, **told)
        return parts | ({"boxes": self.boxes * parts["boxes"]} if "boxes" in parts else {})

    @torch.no_grad()
    def check(self, model: Model, split: str) -> dict[str, float]:
        """Of scenes, in percent: `error`, captions with a fact that is false or that no grammar knows, and the facts of
        each kind that are true, on combinations of count, colour and shape that training never saw; the test also
        tells of pairs of colour and shape that it never saw in any number.

        Of photos: `error` = 100 - CIDEr-D, of which 100 is what tables call 1.0; and BLEU-1 to -4, METEOR's exact and
        stem matches, ROUGE-L, against all captions of people. The test says them by beam search, beside the captions
        of the training picture that is most alike.
        """
        if self.data == "scenes":
            made = held(split)
            found = judged(self.say(model, made.pixels), made.groups)
            if split == "test":
                made = held("new")
                found |= {
                    f"new pairs: {name}": x for name, x in judged(self.say(model, made.pixels), made.groups).items()
                }
            return found
        there = self._there(split)
        said = self.say(model, self._seen(split), wide=self.beam if split == "test" else 1)
        right = [list(map(low, one.captions)) for one in there]
        found = caption_scores(said, right)
        out = {"error": 100 - found["CIDEr"], **found}
        if split == "test":
            alike = [low(self._there("train")[i].captions[0]) for i in self._nearest(split)]
            out |= {f"nearest picture's {name}": score for name, score in caption_scores(alike, right).items()}
        return out

    @torch.no_grad()
    def say(self, model: Model, pictures: Tensor, *, wide: int = 1) -> list[str]:
        """Captions, in the order of the pictures [n, …]."""
        found: list[str] = []
        for some in pictures.split(AT_ONCE):
            found += [self._cut.decode(line.pieces) for line in self._lines(model, some, wide)]
        return found

    @torch.no_grad()
    def evidence(self, model: Model, split: str) -> dict[str, float]:
        """Of scenes, in percent: how often what a word (count, colour or shape) read most lies in the box of the thing
        that it names; what the boxes cover of the picture stands beside. And, with all muted but the box of one group,
        how often the caption is about this group and no other, and how often it is true as well: that a thing is left
        of itself is about it, and false. Of photos, where `marks` has boxes: how often what a marked word read most is
        in one of them. Raises InputError for photos whose boxes nobody drew.
        """
        if self.data != "scenes" and not self.marks:
            raise InputError("nobody drew boxes on these photos: marks names a file of them, and scenes have their own")
        if model.attention == "none":
            raise InputError("this captioner has no attention: there is nothing to compare")
        if self.marks:
            photos = self._seen(split).split(AT_ONCE)
            seen = [found for some in photos for found in self._captions(model, some, wide=self.beam)]
            return pointed_at(seen, self._there(split), self._marked)
        made = held(split)
        each = [found for some in made.pixels.split(AT_ONCE) for found in self._captions(model, some)]
        return pointed(each, made.groups) | self._followed(model, made)

    @torch.no_grad()
    def predict(
        self,
        model: Model,
        image: str | Tensor,
        *,
        only: Sequence[str] = (),
        boost: Sequence[str] = (),
        mute: Sequence[str] = (),
    ) -> Seen:
        """The caption of a picture of any size, a file or [3, height, width] uint8, and what each of its words read.

        Marks are boxes "left, top, right, bottom" in shares of the picture: `only` these parts are read, `mute`d parts
        never, `boost`ed ones more. The caption without the marks is then in `before`. Raises InputError for a picture
        that cannot be read, for boxes that hold nothing, and for marks where the model has no attention.
        """
        picture = image if isinstance(image, Tensor) else colours(image)
        cells = self._ready([picture]).to(next(model.parameters()).device)
        (plain,) = self._captions(model, cells, picture, wide=self.beam)
        if not (only or boost or mute):
            return plain
        if model.attention == "none":
            raise InputError("this captioner has no attention: marks cannot reach it")
        rule, marks = regions(plain.grid, only=only, boosted=boost, muted=mute)
        with bending(model, rule):
            (steered,) = self._captions(model, cells, picture, wide=self.beam)
        return steered.marked(marks, plain)

    # ------------------------------------------------------------------------------------------------ what is behind it

    def _drawn(self, draw: random.Random) -> Pictures:
        """A batch of scenes, each with a true sentence and, where they count, the boxes of what that names, and with
        what is muted to have only one group said."""
        made, out, meant = scenes("train", self.batch, draw), [], []
        rows, columns = self._grid(made.pixels)
        for groups in made.groups:
            marked = self.marked > 0 and draw.random() < self.marked
            meant.append((draw.choice(groups),) if marked else groups)
            out.append(~self._cells(meant[-1][0]) if marked else torch.zeros(rows * columns, dtype=torch.bool))
        said = [describe(groups, draw) for groups in meant]
        target = padded(self._ids(said))
        muted = torch.stack(out) if self.marked else None
        if not self.boxes:
            return Pictures(made.pixels, target, out=muted)
        boxes = torch.zeros(*target.shape, rows * columns, dtype=torch.bool)
        for i, (line, groups) in enumerate(zip(said, meant, strict=True)):
            ends, cells = self._cut.ends(line), {one.what: self._cells(one) for one in groups}
            for (start, end), what in spoken_of(line):
                for piece, last in enumerate(ends[: self.said - 1]):
                    if start <= last < end:
                        boxes[i, piece] = cells[what]
        return Pictures(made.pixels, target, boxes, muted)

    def _cells(self, group: Group) -> Tensor:
        """The cells of a group's box: [cells] bool."""
        return within(box(share(group.box)), SIDE // STRIDE, SIDE // STRIDE)

    def _ids(self, said: Sequence[str]) -> list[list[int]]:
        """The pieces of captions, of a long one the first, and the end."""
        return [[*row[:-1][: self.said - 1], row[-1]] for row in self._cut.encode(said)]

    def _lines(self, model: Model, pictures: Tensor, wide: int) -> list[Line]:
        pictures = pictures.to(next(model.parameters()).device)
        if wide == 1:
            return greedy(model, pictures, longest=self.said)
        return [lines[0] for lines in beam(model, pictures, longest=self.said, width=wide, alpha=self.alpha)]

    def _captions(self, model: Model, pictures: Tensor, picture: Tensor | None = None, *, wide: int = 1) -> list[Seen]:
        """What is said of some pictures, with the maps of all words."""
        said = [self._cut.decode(line.pieces) for line in self._lines(model, pictures, wide)]
        ids = self._cut.encode(said)
        maps = model.alignments(pictures, padded(ids).to(pictures.device)).get("saying")
        found = []
        for i, line in enumerate(said):
            told, grid = Worded.by_blanks(line), self._grid(pictures)
            rows: list[list[float]] = []
            if maps is not None and told.words:
                own = owning(self._cut, told)
                cells = torch.eye(maps.shape[2])
                rows = of_words(maps[i, : len(ids[i])].cpu().float(), cells, own).tolist()
            shown = pictures[i] if picture is None else picture
            found.append(Seen(shown, grid, tuple(told.words), tuple(map(tuple, rows))))
        return found

    def _followed(self, model: Model, made: Scenes) -> dict[str, float]:
        """In percent: how often a caption is about one group and no other when all but its box is muted, and true."""
        about, true = [], []
        for pixels, groups in zip(made.pixels[:FOLLOWED, None], made.groups, strict=False):
            for group in groups:
                rule, _ = regions(self._grid(pixels), only=[share(group.box)])
                with bending(model, rule):
                    (line,) = self.say(model, pixels)
                about.append(follows(line, group))
                true.append(about[-1] and all(map(all, facts(claim(line), [group]).values())))
        return {
            "captions that follow the box": 100 * sum(about) / len(about),
            "and are true": 100 * sum(true) / len(true),
        }

    def _grid(self, pictures: Tensor) -> tuple[int, int]:
        """Rows and columns of cells."""
        if self.sees:
            return int(pictures.shape[1]), int(pictures.shape[2])
        return -(-pictures.shape[2] // STRIDE), -(-pictures.shape[3] // STRIDE)

    def _ready(self, pictures: Sequence[Tensor]) -> Tensor:
        """Pictures [3, height, width] as the model takes them."""
        if self.sees:
            return self._eyes()(pictures, self.cells)
        return torch.stack([resized(one, self.side, self.side) for one in pictures])

    @property
    def _features(self) -> int:
        """How wide given cells are; 0 where pictures are read from their pixels."""
        if self.features or not self.sees:
            return self.features
        return self._eyes()([torch.zeros(3, 16, 16, dtype=torch.uint8)], self.cells).shape[-1]

    def _eyes(self) -> See:
        if self.see is None:
            raise InputError(f"{self.sees} looks at pictures for this task, and was not put into it: set `see`")
        return self.see

    def _there(self, split: str) -> list[Captioned]:
        if self.data == "files":
            file, folder = self.captions, self.folder
        else:
            here = Path(self.folder) if self.folder else data_folder("flickr8k_1000")
            if here is None:
                raise InputError(
                    "the photos of Flickr8k are needed and not here: set RECUERDO_DATA to the folder that holds "
                    "flickr8k_1000/, with captions.txt and images/"
                )
            file, folder = str(here / "captions.txt"), str(here / "images")
        return split_of(captioned(file, folder), split)

    def _seen(self, split: str) -> Tensor:
        """The pictures of a split as the model takes them, kept for the next time."""
        if split not in self._kept:
            there, found = self._there(split), []
            for first in range(0, len(there), AT_ONCE // 4):
                found.append(self._ready([colours(one.path) for one in there[first : first + AT_ONCE // 4]]))
            self._kept[split] = torch.cat(found)
        return self._kept[split]

    def _nearest(self, split: str) -> list[int]:
        """For each picture of a split the training picture whose mean cell is most like its own."""
        train, own = (
            nn.functional.normalize(self._seen(name).float().flatten(1, -2).mean(1), dim=-1)
            if self.sees
            else nn.functional.normalize(self._seen(name).float().flatten(1), dim=-1)
            for name in ("train", split)
        )
        return (own @ train.T).argmax(1).tolist()

    @cached_property
    def _marked(self) -> Marked:
        """What a person drew on the photos."""
        names = {one.path.name for split in PARTS for one in self._there(split)}
        if strange := sorted((told := boxes_of(self.marks)).keys() - names):
            raise InputError(f"{self.marks} has boxes on pictures without a caption, such as {strange[0]}")
        return told

    @cached_property
    def _kept(self) -> dict[str, Tensor]:
        return {}

    @cached_property
    def _cut(self) -> Subwords:
        if self.subwords:
            return Subwords(self.subwords)
        if self.data == "scenes":
            return _pieces_of_scenes(self.pieces)
        return Subwords.learn([low(c) for one in self._there("train") for c in one.captions], self.pieces)


def low(caption: str) -> str:
    """A caption in lower case, without the mark at its end: as the papers score."""
    return caption.lower().strip().removesuffix(".").strip()


@lru_cache(2)
def _pieces_of_scenes(size: int) -> Subwords:
    draw = random.Random("pieces")
    return Subwords.learn([describe(groups, draw) for groups in scenes("train", WRITTEN // 10, draw).groups * 10], size)
