"""SmolLM2-135M-Instruct from GGUF (Q4_1, Q8_0 and F32 tensors) to a Transformers folder with float32 weights.

The numbers equal what Transformers' own GGUF loading gives, bit for bit. The tokenizer follows the file's own kind
("smollm"): digits stand alone, then byte-level pairs, as in the publisher's tokenizer.
"""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recuerdo.bridge.convert.weights import mapped, save_json, save_weights

NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
F32, Q4_1, Q8_0 = 0, 3, 8
BLOCK = 32  # numbers per quantised block
Q4_1_BYTES, Q8_0_BYTES = 2 + 2 + BLOCK // 2, 2 + BLOCK
CONTROL = 3  # the token type of special tokens
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
TOP_NAMES = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}


class Gguf(NamedTuple):
    """What a GGUF file holds: its facts by name, and per tensor (shape, kind, bytes)."""

    facts: dict[str, Any]
    tensors: dict[str, tuple[tuple[int, ...], int, np.ndarray]]


def convert(source: Path, target: Path, progress: Callable[[str, int, int], None]) -> None:
    """Read the one .gguf file in `source`, write weights, configuration and tokenizer to `target`."""
    (path,) = source.glob("*.gguf")
    progress("reading GGUF", 0, 3)
    gguf = read_gguf(path)
    progress("unpacking 4-bit weights to float32", 1, 3)
    save_weights(to_state_dict(gguf), target)
    progress("writing the tokenizer", 2, 3)
    _save_config(gguf.facts, target)
    _save_tokenizer(gguf.facts, target)
    progress("converted", 3, 3)


def read_gguf(path: Path) -> Gguf:
    """The facts and the still quantised tensors of a GGUF file of version 2 or 3. Raises ValueError for another."""
    data = mapped(path)
    at = 0

    def number(code: str) -> Any:
        nonlocal at
        (value,) = struct.unpack_from("<" + code, data, at)
        at += struct.calcsize("<" + code)
        return value

    def string() -> str:
        nonlocal at
        size = number("Q")
        at += size
        return bytes(data[at - size : at]).decode()

    def value(kind: int) -> Any:
        if kind == STRING:
            return string()
        if kind == ARRAY:
            inner, count = number("I"), number("Q")
            return [value(inner) for _ in range(count)]
        return number(NUMBERS[kind])

    magic, version, tensor_count, fact_count = number("4s"), number("I"), number("Q"), number("Q")
    if magic != b"GGUF" or version not in (2, 3):
        raise ValueError(f"{path.name} is not a GGUF file of version 2 or 3")
    facts = {string(): value(number("I")) for _ in range(fact_count)}
    places = {}
    for _ in range(tensor_count):
        name = string()
        shape = tuple(number("Q") for _ in range(number("I")))[::-1]  # the file counts from the fastest axis
        places[name] = (shape, number("I"), number("Q"))
    step = facts.get("general.alignment", 32)
    start = -(-at // step) * step
    tensors = {name: (shape, kind, _bytes(data, start + at, shape, kind)) for name, (shape, kind, at) in places.items()}
    return Gguf(facts, tensors)


def to_state_dict(gguf: Gguf) -> dict[str, np.ndarray]:
    """The tensors as float32 under Transformers' names for a Llama. Raises KeyError for one that a Llama has not."""
    heads = {"attn_q": gguf.facts["llama.attention.head_count"], "attn_k": gguf.facts["llama.attention.head_count_kv"]}
    state = {}
    for name, (shape, kind, raw) in gguf.tensors.items():
        array = dequantise(raw, kind).reshape(shape)
        if name in TOP_NAMES:
            state[TOP_NAMES[name]] = array
            continue
        _, layer, part, _ = name.split(".")  # "blk.0.attn_q.weight"
        if part in heads:
            array = _unpermute(array, heads[part])
        state[f"model.layers.{layer}.{LAYER_NAMES[part]}.weight"] = array
    return state


def dequantise(raw: np.ndarray, kind: int) -> np.ndarray:
    """Float32 numbers from the bytes of a tensor of this kind. Raises ValueError for a kind not read here."""
    if kind == F32:
        return raw.view("<f4")
    if kind == Q8_0:
        blocks = raw.reshape(-1, Q8_0_BYTES)
        return blocks[:, 2:].view(np.int8).astype(np.float32) * _halves(blocks[:, :2])
    if kind == Q4_1:
        blocks = raw.reshape(-1, Q4_1_BYTES)
        packed = blocks[:, 4:]
        nibbles = np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.float32)
        return nibbles * _halves(blocks[:, :2]) + _halves(blocks[:, 2:4])
    raise ValueError(f"tensor kind {kind} is not read here, only F32, Q4_1 and Q8_0")


def _halves(column: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(column).view("<f2").astype(np.float32)


def _bytes(data: memoryview, start: int, shape: tuple[int, ...], kind: int) -> np.ndarray:
    per_block, size = {F32: (1, 4), Q4_1: (BLOCK, Q4_1_BYTES), Q8_0: (BLOCK, Q8_0_BYTES)}.get(kind, (1, 0))
    length = int(np.prod(shape)) // per_block * size
    if start + length > len(data):
        raise ValueError(f"the file ends before its tensors do, at {len(data)} bytes")
    return np.frombuffer(data[start : start + length], np.uint8)


def _unpermute(weight: np.ndarray, heads: int) -> np.ndarray:
    """GGUF keeps the two halves of each rotary pair side by side, Transformers keeps them half a head apart."""
    return weight.reshape(heads, -1, 2, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def _save_config(facts: dict[str, Any], target: Path) -> None:
    fact = {key.removeprefix("llama."): value for key, value in facts.items()}
    tokens = {
        f"{name}_token_id": facts[f"tokenizer.ggml.{old}_token_id"]
        for name, old in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))
    }
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": fact["vocab_size"],
        "hidden_size": fact["embedding_length"],
        "intermediate_size": fact["feed_forward_length"],
        "num_hidden_layers": fact["block_count"],
        "num_attention_heads": fact["attention.head_count"],
        "num_key_value_heads": fact["attention.head_count_kv"],
        "max_position_embeddings": fact["context_length"],
        "rms_norm_eps": float(f"{fact['attention.layer_norm_rms_epsilon']:.6g}"),
        "rope_theta": fact["rope.freq_base"],
        "hidden_act": "silu",
        "tie_word_embeddings": True,  # the file has no output.weight
        "dtype": "float32",
        "torch_dtype": "float32",
        **tokens,
    }
    save_json(config, target / "config.json")
    save_json(tokens, target / "generation_config.json")


def _save_tokenizer(facts: dict[str, Any], target: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    fact = {key.removeprefix("tokenizer.ggml."): value for key, value in facts.items()}
    if (fact["model"], fact["pre"]) != ("gpt2", "smollm"):
        raise ValueError(f"tokenizer {fact['model']}/{fact['pre']} is not read here, only gpt2/smollm")
    words: list[str] = fact["tokens"]
    first, _, second = zip(*(pair.partition(" ") for pair in fact["merges"]), strict=True)
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, list(zip(first, second, strict=True))))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [word for word, kind in zip(words, fact["token_type"], strict=True) if kind == CONTROL]
    tokenizer.add_special_tokens([AddedToken(word, normalized=False, special=True) for word in special])
    tokenizer.save(str(target / "tokenizer.json"))
    names = (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))
    settings = {
        # The plain class takes tokenizer.json as it stands; a model's own class would rebuild it and lose the digits.
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{name}_token": words[fact[f"{old}_token_id"]] for name, old in names},
        "model_max_length": facts["llama.context_length"],
        "clean_up_tokenization_spaces": False,
        "add_prefix_space": False,
        "chat_template": facts["tokenizer.chat_template"],
    }
    save_json(settings, target / "tokenizer_config.json")
