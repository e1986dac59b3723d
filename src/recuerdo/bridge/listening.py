"""Run Whisper over sound and keep what each token of its transcript read of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recuerdo.bridge.attention import watch
from recuerdo.bridge.reads import is_cross
from recuerdo.bridge.run import Loaded, pieces_of, quiet
from recuerdo.errors import ModelError

RATE = 16_000
STEP = 0.02  # seconds of a state of the encoder
LONGEST = 30.0  # seconds that are heard at once
SILENT = 1e-4
FAINT = 10**-3.5  # of the loudest step's power: 35 dB below it
TOKENS = 220  # of a transcript


@dataclass(frozen=True)
class HeardSound:
    """`pieces` of the transcript with the end mark behind them (the last is ""), what each read when it was said,
    `weights` [heads, pieces, steps of 20 ms], the heads as (layer, head); the sound as the model hears it, `mel`
    [bands, frames of 10 ms] from 0 to 1; and in which steps there is sound at all, `loud` [steps]."""

    pieces: list[str]
    weights: Tensor
    heads: list[tuple[int, int]]
    mel: np.ndarray
    loud: np.ndarray


def hear_sound(
    loaded: Loaded, samples: np.ndarray, *, progress: Callable[[str, int, int], None] | None = None
) -> HeardSound:
    """Let Whisper write down sound, [n] at 16,000 a second and up to 30 s, and read its transcript once more, watched.

    The heads are those that the model's own configuration names as following the sound, else all of the upper half of
    the layers. Of silence nothing is written down. Raises ModelError for a model that does not listen.
    """
    if loaded.kind != "speech":
        raise ModelError(f"{loaded.name} does not listen to sound: choose whisper")
    model, tokenizer = loaded.model, _tokenizer(loaded)
    samples = samples[: int(LONGEST * RATE)]
    steps = max(1, int(np.ceil(len(samples) / (RATE * STEP))))
    features = _features(model, samples)
    mel = features[0, :, : 2 * steps].numpy()
    mel = (mel - mel.min()) / max(1e-9, float(mel.max() - mel.min()))
    heads = _heads(model)
    if not np.abs(samples).max(initial=0.0) > SILENT:
        return HeardSound([""], torch.zeros(len(heads), 1, steps), heads, mel, np.zeros(steps, bool))
    told = progress or (lambda *_: None)
    with torch.no_grad(), quiet():
        told("listening", 0, 2)
        begin = _begin(model, features)
        said = model.generate(features, max_new_tokens=TOKENS)[0].tolist()
        ids = [i for i in said if i < model.config.eos_token_id]  # Whisper's marks stand behind the end
        told("listening", 1, 2)
        with watch(model) as seen:
            model(input_features=features, decoder_input_ids=torch.tensor([[*begin, *ids]]))
        told("listening", 2, 2)
    cross = [seen.steps(path)[0] for path in seen.paths if is_cross(path)]
    rows = slice(len(begin) - 1, len(begin) + len(ids))  # the row that says a piece stands before it
    weights = torch.stack([cross[layer].weights[rows, 0:steps][0, head] for layer, head in heads])
    pieces, _ = pieces_of(tokenizer, ids)
    return HeardSound([*pieces, ""], weights, heads, mel, _loud(samples, steps))


def _loud(samples: np.ndarray, steps: int) -> np.ndarray:
    """The steps whose sound is not far below that of the loudest, [steps] bool."""
    size = int(RATE * STEP)
    power = np.pad(samples, (0, steps * size - len(samples))).reshape(steps, size).astype(np.float64)
    power = np.square(power).mean(1)
    return power > FAINT * power.max()


def _features(model: Any, samples: np.ndarray) -> Tensor:
    from transformers import WhisperFeatureExtractor

    extract = WhisperFeatureExtractor(feature_size=model.config.num_mel_bins)
    return extract(samples, sampling_rate=RATE, return_tensors="pt").input_features


def _begin(model: Any, features: Tensor) -> list[int]:
    """What stands before a transcript: start, language and task where there are several, and: no time marks."""
    told, begin = model.generation_config, [model.config.decoder_start_token_id]
    if getattr(told, "is_multilingual", False):
        begin += [int(model.detect_language(input_features=features)[0]), told.task_to_id["transcribe"]]
    return [*begin, told.no_timestamps_token_id]


def _heads(model: Any) -> list[tuple[int, int]]:
    named = getattr(model.generation_config, "alignment_heads", None)
    if named:
        return [(int(layer), int(head)) for layer, head in named]
    layers, heads = model.config.decoder_layers, model.config.decoder_attention_heads
    return [(layer, head) for layer in range(layers // 2, layers) for head in range(heads)]


def _tokenizer(loaded: Loaded) -> Any:
    if loaded.tokenizer is not None:
        return loaded.tokenizer
    from transformers import AutoTokenizer

    try:
        with quiet():
            return AutoTokenizer.from_pretrained(loaded.folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{loaded.name} has no usable tokenizer: {(str(error) or 'none').splitlines()[0]}") from error
