"""Sentence encoders of Hugging Face: texts become unit vectors whose products say how alike they are.

Sentence-BERT (Reimers & Gurevych 2019): the mean of a text's token vectors, or the first token's, as the model's own
pooling file says; then length 1.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from recuerdo.bridge.catalogue import resolve
from recuerdo.bridge.convert import Progress
from recuerdo.bridge.run import load, quiet
from recuerdo.errors import ModelError

BATCH = 32
PROBE = "Attention can pull a distant episode from the past."


class SentenceEncoder:
    """A loaded encoder: `encode` gives [n, width] float32 rows of length 1; what is longer than `limit` tokens is cut.

    `name` is a catalogue name, a local folder or a hub id. Raises ModelError for what is no encoder, and what `load`
    raises.
    """

    def __init__(self, name: str | Path = "minilm", *, progress: Progress | None = None):
        loaded = load(name, progress=progress)
        if loaded.kind != "encoder":
            raise ModelError(f"{name} is a {loaded.kind} model: sentences need an encoder, such as minilm")
        folder = resolve(name)
        pooling, told = _json(folder / "1_Pooling/config.json"), _json(folder / "sentence_bert_config.json")
        self.name, self.model, self.tokenizer = str(name), loaded.model, loaded.tokenizer
        self.first = bool(pooling.get("pooling_mode_cls_token", False))
        self.width = int(loaded.model.config.hidden_size)
        self.limit = min(int(told.get("max_seq_length") or 512), loaded.limit or 512)

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], *, step: Callable[[int, int], None] | None = None) -> np.ndarray:
        """Texts -> [n, width]; `step(done, all)` is called now and then. Texts of like length go together."""
        found = np.zeros((len(texts), self.width), np.float32)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(order), BATCH):
            some = order[start : start + BATCH]
            with quiet():
                told = self.tokenizer(
                    [texts[i] for i in some], padding=True, truncation=True, max_length=self.limit, return_tensors="pt"
                )
                hidden = self.model(**told).last_hidden_state
            mask = told["attention_mask"][..., None].to(hidden.dtype)
            pooled = hidden[:, 0] if self.first else (hidden * mask).sum(1) / mask.sum(1).clamp_min(1)
            found[some] = functional.normalize(pooled.float(), dim=-1).numpy()
            if step is not None:
                step(start + len(some), len(order))
        return found

    def tokens(self, text: str) -> int:
        """How many tokens a text has, special ones not counted."""
        with quiet():
            return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def probe(self) -> np.ndarray:
        """The vector of one fixed sentence, [width]: by it a memory knows its encoder again."""
        return self.encode([PROBE])[0]


def _json(path: Path) -> dict[str, Any]:
    """What a configuration file says; nothing where it is missing or is none."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}
