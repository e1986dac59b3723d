"""One look at a picture: decode it, let a vision model read it, turn its reads into maps over the patches."""

from collections.abc import Callable
from pathlib import Path

from recuerdo.bridge.run import Loaded, load
from recuerdo.bridge.seeing import PATCHES, hear_picture
from recuerdo.data.pictures import colours
from recuerdo.explain.gaze import Gaze, gaze

Progress = Callable[[str, int, int], None]


def look_at(
    model: str | Path | Loaded,
    image: str | Path,
    *,
    layer: int | None = None,
    head: int | None = None,
    view: str = "raw",
    patches: int = PATCHES,
    progress: Progress | None = None,
) -> Gaze:
    """Let a vision model look at a picture file and see which patches it read.

    `model` is a name of the catalogue (dinov2), a model folder, a hub id, or what `load` returned. `layer` (None: the
    last), `head` (None: the mean over them), `view` ("raw" or "rollout", the one to show first), and about so many
    `patches` where the model takes any size.

    Raises InputError for a picture that cannot be read and for what cannot be, ModelError for a model that looks at no
    pictures, FetchError for one that cannot be had.
    """
    pixels = colours(image)
    loaded = model if isinstance(model, Loaded) else load(model, progress=progress)
    heard = hear_picture(loaded, pixels, patches=patches, progress=progress)
    maps, heads = gaze(heard.reads, heard.grid, heard.first, layer=layer, head=head, view=view)
    return Gaze(loaded.name, pixels, maps, heads)
