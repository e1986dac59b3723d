"""One look at sound: decode it, let Whisper write it down, and lay its words on a line of time."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from recuerdo.bridge.listening import LONGEST, RATE, STEP, hear_sound
from recuerdo.bridge.run import Loaded, load
from recuerdo.data.sound import sound, wav
from recuerdo.explain.timeline import Timeline, timeline

Progress = Callable[[str, int, int], None]


def listen(
    model: str | Path | Loaded,
    audio: str | Path,
    *,
    start: float = 0.0,
    progress: Progress | None = None,
) -> Timeline:
    """Let Whisper write down up to 30 s of a sound file from `start` on, and see when each word was said.

    `model` is a name of the catalogue (whisper), a model folder, a hub id, or what `load` returned.

    Raises InputError for sound that cannot be read, ModelError for a model that does not listen, FetchError for one
    that cannot be had.
    """
    told = sound(audio, rate=RATE, start=start, seconds=LONGEST)
    loaded = model if isinstance(model, Loaded) else load(model, progress=progress)
    heard = hear_sound(loaded, told.samples, progress=progress)
    words, shares = timeline(heard.pieces, heard.weights.double().numpy(), STEP, heard.loud)
    note = f"When words were said, by {len(heard.heads)} heads that follow the sound" if words else "No word was heard"
    if told.whole > start + told.seconds + STEP:
        note += f"; heard: {start:.1f} to {start + told.seconds:.1f} s of {told.whole:.1f}"
    return Timeline(
        loaded.name,
        words,
        shares,
        STEP,
        np.ascontiguousarray(heard.mel),
        note=note,
        start=start,
        whole=told.whole,
        wav=wav(told.samples, RATE),
    )
