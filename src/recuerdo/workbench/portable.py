"""Hand a Transformer that translates to any runtime that reads ONNX: a browser, a phone, another language.

One graph: a source and what was said of its translation -> what may come next, and what the last word said read of the
source, head for head. It keeps no keys, so each step hears all that was said again; CTranslate2 (`exporting`) is the
engine for speed.
"""

import io
import logging
import math
import warnings
from contextlib import redirect_stdout
from pathlib import Path

import torch
from torch import Tensor, nn

from recuerdo.data.subwords import BEGIN, PAD
from recuerdo.errors import InputError, RunError
from recuerdo.models.transformer import Layer, Transformer
from recuerdo.nn.attention import MultiHead
from recuerdo.nn.places import sinusoids
from recuerdo.workbench.exporting import NEVER, PLACES
from recuerdo.workbench.running import open_run

NAME = "model.onnx"


def export_onnx(run: str | Path, folder: str | Path) -> Path:
    """Write the model of a run as `model.onnx` into a folder that is not there yet, with its subwords beside it.

    Inputs `source` [b, s] and `told` [b, t] (int64; 0 is padding, told begins with 1) of up to 1,024 pieces each; all
    lines of a batch were told as much. Outputs `logits` [b, v] of the next piece, and `weights` [b, layers, heads, s]:
    what the last piece told read of the source, to say it. Raises InputError for a run that is no Transformer that
    translates, and where what writes ONNX is not installed; RunError for a folder that is there or cannot be written.
    """
    trained, folder = open_run(run), Path(folder)
    model, subwords = trained.model, getattr(trained.task, "subwords", "")
    if not isinstance(model, Transformer) or not subwords:
        raise InputError(f"{run} is a {type(model).__name__}: only a Transformer that translates is written as ONNX")
    if folder.exists():
        raise RunError(f"{folder} is there already: name a folder that is not")
    written = _written(_Next(model).eval())
    try:
        folder.mkdir(parents=True)
        (folder / NAME).write_bytes(written)
        (folder / "subwords.json").write_text(subwords, encoding="utf-8")
    except OSError as error:
        raise RunError(f"{folder} cannot be written: {error}") from error
    return folder


def _written(model: nn.Module) -> bytes:
    """The graph, for any number and length of lines."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise InputError("what writes ONNX is not installed: pip install 'recuerdo[onnx]'") from None
    b, s, t = (torch.export.Dim(name) for name in ("batch", "source_pieces", "told_pieces"))
    some = torch.full((2, 7), BEGIN), torch.full((2, 4), BEGIN)
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # advice on what it would do for other models
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                model, some, input_names=["source", "told"], output_names=["logits", "weights"],
                dynamic_shapes={"source": {0: b, 1: s}, "told": {0: b, 1: t}}, dynamo=True, verbose=False,
            )  # fmt: skip
    finally:
        logging.disable(before)
    if program is None:
        raise RunError("torch gave no ONNX program")
    return program.model_proto.SerializeToString()


class _Next(nn.Module):
    """What a Transformer says next, in plain products: no rule, no cache, nothing that an exporter cannot follow."""

    places: Tensor
    never: Tensor

    def __init__(self, model: Transformer):
        super().__init__()
        self.model = model
        self.register_buffer("places", sinusoids(0, PLACES, model.width, model.table).float())
        never = torch.zeros(len(model.table))
        never[[PAD, BEGIN]] = NEVER
        self.register_buffer("never", never)

    def forward(self, source: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
        """Pieces [b, s] and [b, t] -> logits [b, v], weights [b, layers, heads, s]."""
        there = (source != PAD)[:, None, None]
        x = self._placed(source)
        for layer in self._layers(self.model.encoder):
            y = layer.norm_own(x)
            x = layer(x + _read(layer.own, y, y, there)[0])
        read = self.model.norm_source(x)
        at = torch.arange(told.shape[1], device=told.device)
        before = (at[:, None] >= at)[None, None]
        x, maps = self._placed(told), []
        for layer in self._layers(self.model.decoder):
            y = layer.norm_own(x)
            x = x + _read(layer.own, y, y, before)[0]
            mixed, weights = _read(layer.cross, layer.norm_cross(x), read, there)
            x = layer(x + mixed)
            maps.append(weights[:, :, -1])
        return self.model.say(self.model.norm_told(x[:, -1])) + self.never, torch.stack(maps, 1)

    def _placed(self, pieces: Tensor) -> Tensor:
        return self.model.piece(pieces) * math.sqrt(self.model.width) + self.places[: pieces.shape[1]]

    @staticmethod
    def _layers(side: nn.ModuleList) -> list[Layer]:
        return [layer for layer in side if isinstance(layer, Layer)]


def _read(look: MultiHead, x: Tensor, there: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
    """What rows [b, q, width] read of others [b, k, width] where it is allowed, and how much of each."""
    query = look.query(x).unflatten(2, (look.heads, -1)).transpose(1, 2)
    key, value = (part.transpose(1, 2) for part in look.pair(there).unflatten(2, (2, look.heads, -1)).unbind(2))
    scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])
    weights = scores.masked_fill(~allowed, NEVER).softmax(-1)
    return look.out((weights @ value).transpose(1, 2).flatten(2)), weights
