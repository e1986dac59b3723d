"""Hand a trained model to an engine that serves it: a Transformer that translates, to CTranslate2.

CTranslate2 (OpenNMT) runs such models several times as fast as torch, in 8 bits too. It shows one head of one layer at
most: to see and to steer, the run itself is there.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recuerdo.data.subwords import BEGIN, END, PAD, SPECIAL, Subwords
from recuerdo.errors import InputError, RunError
from recuerdo.models.transformer import Layer, Transformer
from recuerdo.nn.attention import MultiHead
from recuerdo.nn.places import sinusoids
from recuerdo.workbench.running import open_run

PLACES = 1024  # so many pieces a line may have: there the engine has a table
NEVER = -1e9  # added to the logits of padding and begin, which are never said
TYPES = ("float32", "float16", "int8", "int8_float32", "int16")


def export(run: str | Path, folder: str | Path, *, kind: str = "float32") -> Path:
    """Write the model of a run for CTranslate2 into a folder that is not there yet, with its subwords beside it.

    `kind` is the type of its numbers: "float32", "float16", "int8", "int8_float32" or "int16". Lines have at most 1,024
    pieces. Raises InputError for a run that is no Transformer that translates, for a type that there is not, and where
    CTranslate2 is not installed; RunError for a folder that is there or cannot be written.
    """
    trained, folder = open_run(run), Path(folder)
    model, subwords = trained.model, getattr(trained.task, "subwords", "")
    if not isinstance(model, Transformer) or not subwords:
        raise InputError(f"{run} is a {type(model).__name__}: only a Transformer that translates is exported")
    return write(model, subwords, folder, kind=kind)


def write(model: Transformer, subwords: str, folder: Path, *, kind: str = "float32") -> Path:
    """The same for a model and its subwords (`Subwords.told`)."""
    if kind not in TYPES:
        raise InputError(f"there is no type {kind!r} of numbers: choose {', '.join(TYPES)}")
    if folder.exists():
        raise RunError(f"{folder} is there already: name a folder that is not")
    spec = _spec(model, Subwords(subwords).names())
    try:
        folder.mkdir(parents=True)
        spec.validate()
        spec.optimize(quantization=None if kind == "float32" else kind)
        spec.save(str(folder))
        (folder / "subwords.json").write_text(subwords, encoding="utf-8")
    except OSError as error:
        raise RunError(f"{folder} cannot be written: {error}") from error
    return folder


def _spec(model: Transformer, names: list[str]) -> Any:
    """The model as CTranslate2 describes it."""
    try:
        from ctranslate2 import specs
    except ImportError:
        raise InputError("CTranslate2 is not installed: pip install 'recuerdo[export]'") from None
    encoder, decoder = ([x for x in side if isinstance(x, Layer)] for side in (model.encoder, model.decoder))
    spec: Any = specs.TransformerSpec.from_config(len(encoder), encoder[0].own.heads, pre_norm=True)
    table = _numbers(model.table)
    places = _numbers(sinusoids(0, PLACES, model.width, model.table))
    for side, embeddings in ((spec.encoder, spec.encoder.embeddings[0]), (spec.decoder, spec.decoder.embeddings)):
        embeddings.weight, side.position_encodings.encodings = table, places
        side.scale_embeddings = True
    _norm(spec.encoder.layer_norm, model.norm_source)
    _norm(spec.decoder.layer_norm, model.norm_told)
    spec.decoder.projection.weight = table
    never = np.zeros(len(table), np.float32)
    never[[PAD, BEGIN]] = NEVER
    spec.decoder.projection.bias = never
    for told, layer in zip((*spec.encoder.layer, *spec.decoder.layer), (*encoder, *decoder), strict=True):
        _heads(told.self_attention, layer.own, layer.norm_own)
        if hasattr(layer, "cross"):
            _heads(told.attention, layer.cross, layer.norm_cross)
        _norm(told.ffn.layer_norm, layer.norm_think)
        _linear(told.ffn.linear_0, layer.think[0])
        _linear(told.ffn.linear_1, layer.think[-1])
    spec.register_source_vocabulary(names)
    spec.register_target_vocabulary(names)
    spec.config.bos_token = spec.config.decoder_start_token = SPECIAL[BEGIN]
    spec.config.eos_token, spec.config.unk_token = SPECIAL[END], SPECIAL[PAD]
    spec.config.add_source_eos = True
    return spec


def _heads(told: Any, look: MultiHead, norm: nn.LayerNorm) -> None:
    """A look: in CTranslate2 queries, keys and values of one's own side are one product, else two."""
    own = [(look.query.weight, look.query.bias), (look.pair.weight, look.pair.bias)]
    products = own if len(told.linear) == 3 else [tuple(torch.cat(parts) for parts in zip(*own, strict=True))]
    for linear, (weight, bias) in zip(told.linear, [*products, (look.out.weight, look.out.bias)], strict=True):
        linear.weight, linear.bias = _numbers(weight), _numbers(bias)
    _norm(told.layer_norm, norm)


def _linear(told: Any, layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        told.weight, told.bias = _numbers(layer.weight), _numbers(layer.bias)


def _norm(told: Any, norm: nn.LayerNorm) -> None:
    told.gamma, told.beta = _numbers(norm.weight), _numbers(norm.bias)


def _numbers(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()
