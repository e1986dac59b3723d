"""Whisper tiny.en from CTranslate2 (float16) to a Transformers folder with float32 weights.

CTranslate2 keeps the query, key and value matrices of a layer as one; here they are taken apart again. Keys have no
bias in Whisper: the file holds zeros for it.
"""

import json
import shutil
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recuerdo.bridge.convert.weights import mapped, save_json, save_weights

KINDS = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}
HEAD = 64  # every Whisper has heads of this width
END, START = "<|endoftext|>", "<|startoftranscript|>"
SOUND = {
    "feature_extractor_type": "WhisperFeatureExtractor",
    "processor_class": "WhisperProcessor",
    "feature_size": 80,
    "sampling_rate": 16000,
    "hop_length": 160,
    "n_fft": 400,
    "chunk_length": 30,
    "padding_value": 0.0,
    "padding_side": "right",
    "return_attention_mask": False,
}
TOKENIZER = {
    "tokenizer_class": "WhisperTokenizer",
    "processor_class": "WhisperProcessor",
    "bos_token": END,
    "eos_token": END,
    "unk_token": END,
    "pad_token": END,
    "model_max_length": 1024,
    "clean_up_tokenization_spaces": False,
    "add_prefix_space": False,
}


def convert(source: Path, target: Path, progress: Callable[[str, int, int], None]) -> None:
    """Read model.bin, config.json and tokenizer.json in `source`, write weights, tokenizer and settings to `target`."""
    progress("reading CTranslate2", 0, 3)
    tensors = read_ctranslate2(source / "model.bin")
    progress("taking the attention matrices apart", 1, 3)
    state = to_state_dict(tensors)
    save_weights(state, target)
    progress("writing settings and the tokenizer", 2, 3)
    hints = json.loads((source / "config.json").read_text(encoding="utf-8"))
    special = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    ids: dict[str, int] = {token["content"]: token["id"] for token in special}
    tokens = {f"{name}_token_id": ids[START] for name in ("bos", "decoder_start")}
    tokens |= {f"{name}_token_id": ids[END] for name in ("eos", "pad")}
    save_json(_config(state, tokens), target / "config.json")
    save_json(_generation(hints, ids, tokens), target / "generation_config.json")
    save_json(SOUND, target / "preprocessor_config.json")
    save_json(TOKENIZER, target / "tokenizer_config.json")
    shutil.copyfile(source / "tokenizer.json", target / "tokenizer.json")
    progress("converted", 3, 3)


def read_ctranslate2(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a CTranslate2 model.bin of version 4 to 6. Raises ValueError for another file."""
    data = mapped(path)
    at = 0

    def number(code: str) -> Any:
        nonlocal at
        (value,) = struct.unpack_from("<" + code, data, at)
        at += struct.calcsize("<" + code)
        return value

    def take(size: int) -> memoryview:
        nonlocal at
        at += size
        if at > len(data):
            raise ValueError(f"{path.name} ends before its tensors do, at {len(data)} bytes")
        return data[at - size : at]

    def string() -> str:
        return bytes(take(number("H"))).rstrip(b"\0").decode()

    version, model = number("I"), string()
    if not 4 <= version <= 6 or model != "WhisperSpec":
        raise ValueError(f"{path.name} is not a Whisper of CTranslate2 version 4 to 6")
    number("I")  # the model's own revision
    tensors = {}
    for _ in range(number("I")):
        name = string()
        shape = [number("I") for _ in range(number("B"))]
        kind, size = KINDS[number("B")], number("I")
        tensors[name] = np.frombuffer(take(size), kind).reshape(shape)
    return tensors


def to_state_dict(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors as float32 under the names of WhisperForConditionalGeneration."""
    state: dict[str, np.ndarray] = {"model.decoder.embed_tokens.weight": _float(tensors["decoder/embeddings/weight"])}
    for conv in ("conv1", "conv2"):
        _linear(state, f"model.encoder.{conv}", tensors, f"encoder/{conv}")
    for side in ("encoder", "decoder"):
        state[f"model.{side}.embed_positions.weight"] = _float(tensors[f"{side}/position_encodings/encodings"])
        _norm(state, f"model.{side}.layer_norm", tensors, f"{side}/layer_norm")
        last = "/ffn/layer_norm/gamma"
        for layer in range(sum(name.startswith(side) and name.endswith(last) for name in tensors)):
            _layer(state, f"model.{side}.layers.{layer}", tensors, f"{side}/layer_{layer}")
    return state


def _layer(state: dict[str, np.ndarray], to: str, tensors: dict[str, np.ndarray], name: str) -> None:
    _parts(state, f"{to}.self_attn", tensors, f"{name}/self_attention/linear_0", ("q_proj", "k_proj", "v_proj"))
    _linear(state, f"{to}.self_attn.out_proj", tensors, f"{name}/self_attention/linear_1")
    _norm(state, f"{to}.self_attn_layer_norm", tensors, f"{name}/self_attention/layer_norm")
    _linear(state, f"{to}.fc1", tensors, f"{name}/ffn/linear_0")
    _linear(state, f"{to}.fc2", tensors, f"{name}/ffn/linear_1")
    _norm(state, f"{to}.final_layer_norm", tensors, f"{name}/ffn/layer_norm")
    if f"{name}/attention/linear_0/weight" in tensors:  # only the decoder looks at the sound
        _linear(state, f"{to}.encoder_attn.q_proj", tensors, f"{name}/attention/linear_0")
        _parts(state, f"{to}.encoder_attn", tensors, f"{name}/attention/linear_1", ("k_proj", "v_proj"))
        _linear(state, f"{to}.encoder_attn.out_proj", tensors, f"{name}/attention/linear_2")
        _norm(state, f"{to}.encoder_attn_layer_norm", tensors, f"{name}/attention/layer_norm")


def _float(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32)


def _linear(state: dict[str, np.ndarray], to: str, tensors: dict[str, np.ndarray], name: str) -> None:
    state[f"{to}.weight"], state[f"{to}.bias"] = _float(tensors[f"{name}/weight"]), _float(tensors[f"{name}/bias"])


def _norm(state: dict[str, np.ndarray], to: str, tensors: dict[str, np.ndarray], name: str) -> None:
    state[f"{to}.weight"], state[f"{to}.bias"] = _float(tensors[f"{name}/gamma"]), _float(tensors[f"{name}/beta"])


def _parts(
    state: dict[str, np.ndarray], to: str, tensors: dict[str, np.ndarray], name: str, parts: Sequence[str]
) -> None:
    weights, biases = (np.split(_float(tensors[f"{name}/{what}"]), len(parts)) for what in ("weight", "bias"))
    for part, weight, bias in zip(parts, weights, biases, strict=True):
        state[f"{to}.{part}.weight"] = weight
        if part != "k_proj":
            state[f"{to}.{part}.bias"] = bias
        elif bias.any():
            raise ValueError(f"{name} has a bias for its keys, which Whisper has not")


def _config(state: dict[str, np.ndarray], tokens: dict[str, int]) -> dict[str, Any]:
    vocabulary, width = state["model.decoder.embed_tokens.weight"].shape
    config: dict[str, Any] = {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "is_encoder_decoder": True,
        "vocab_size": vocabulary,
        "d_model": width,
        "num_mel_bins": SOUND["feature_size"],
        "max_source_positions": len(state["model.encoder.embed_positions.weight"]),
        "max_target_positions": len(state["model.decoder.embed_positions.weight"]),
        "activation_function": "gelu",
        "scale_embedding": False,
        "tie_word_embeddings": True,
        "dtype": "float32",
        "torch_dtype": "float32",
        **tokens,
    }
    for side in ("encoder", "decoder"):
        layers = sum(name.startswith(f"model.{side}.layers.") and name.endswith("fc1.bias") for name in state)
        config |= {f"{side}_layers": layers, f"{side}_attention_heads": width // HEAD, f"{side}_ffn_dim": 4 * width}
    return config


def _generation(hints: dict[str, Any], ids: dict[str, int], tokens: dict[str, int]) -> dict[str, Any]:
    return {
        **tokens,
        "alignment_heads": hints["alignment_heads"],  # the heads whose cross-attention follows the sound
        "suppress_tokens": hints["suppress_ids"],
        "begin_suppress_tokens": hints["suppress_ids_begin"],
        "no_timestamps_token_id": ids["<|notimestamps|>"],
        "prev_sot_token_id": ids["<|startofprev|>"],
        "is_multilingual": False,
        "max_initial_timestamp_index": 50,
        "max_length": 448,
        "return_timestamps": False,
    }
