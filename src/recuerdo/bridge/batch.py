"""Questions with their wanted answers as one batch: what profiles are learned from and answers are scored on."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recuerdo.bridge.run import Loaded, encode, prompt_of, quiet
from recuerdo.errors import ModelError


@dataclass(frozen=True, eq=False)
class Batch:
    """Prompts and answers behind each other, padding on the left, `t` tokens each.

    `ids`, `there` (attention mask) and `said` (tokens of the answer) are [b, t]; `offsets` are the characters of each
    prompt's tokens, which begin at column `first[i]`; `documents` the characters of the document in each of `texts`.
    """

    ids: Tensor
    there: Tensor
    said: Tensor
    texts: list[str]
    documents: list[tuple[int, int]]
    offsets: list[list[tuple[int, int]]]
    first: list[int]

    def columns(self, keys: Sequence[Tensor]) -> Tensor:
        """Tokens of each prompt, bool [n] each, as columns of the batch: bool [b, t]."""
        found = torch.zeros(self.ids.shape, dtype=torch.bool)
        for row, (some, start) in enumerate(zip(keys, self.first, strict=True)):
            found[row, start : start + len(some)] = some
        return found

    def behind(self) -> Tensor:
        """The tokens that begin behind the document, at least the one that chooses the answer's first: bool [b, t]."""
        keys = [
            torch.tensor([*(start >= document[1] and end > start for start, end in offsets[:-1]), True])
            for offsets, document in zip(self.offsets, self.documents, strict=True)
        ]
        columns = self.columns(keys)
        return columns.cummax(-1).values  # the answer, too

    def answer_log_probability(self, model: torch.nn.Module) -> Tensor:
        """The mean log-probability per token of each answer: [b]."""
        keep = int(self.said.sum(-1).max()) + 1
        logits = model(self.ids, attention_mask=self.there, use_cache=False, logits_to_keep=keep).logits[:, :-1]
        said, ids = self.said[:, -keep + 1 :], self.ids[:, -keep + 1 :]
        chances = torch.log_softmax(logits.float(), -1).gather(-1, ids[..., None])[..., 0]
        return (chances * said).sum(-1) / said.sum(-1).clamp_min(1)


def batch_of(loaded: Loaded, items: Sequence[tuple[str, str | None, str]]) -> Batch:
    """Texts with questions and wanted answers, (text, question, answer) each, as one batch for a language model.

    Raises ModelError for a model of another kind, InputError for texts that are too long.
    """
    if loaded.kind != "causal" or loaded.tokenizer is None:
        raise ModelError(f"{loaded.name} does not answer: profiles and lessons are for language models")
    texts, documents, offsets, rows, answers = [], [], [], [], []
    for text, question, answer in items:
        prompt, place, _, special = prompt_of(loaded, text, question)
        with quiet():
            lead = "" if loaded.tokenizer.chat_template and question is not None else " "
            told = loaded.tokenizer(lead + answer.strip(), add_special_tokens=False)["input_ids"]
        encoded = encode(loaded, prompt, special=special, room=len(told), document=place)
        texts.append(prompt)
        documents.append(place)
        offsets.append(list(encoded["offset_mapping"]))
        rows.append(list(encoded["input_ids"]))
        answers.append(list(told))
    width = max(len(row) + len(told) for row, told in zip(rows, answers, strict=True))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    there, said, first = torch.zeros_like(ids), torch.zeros_like(ids), []
    for i, (row, told) in enumerate(zip(rows, answers, strict=True)):
        start = width - len(row) - len(told)
        ids[i, start:] = torch.tensor(row + told)
        there[i, start:] = 1
        said[i, width - len(told) :] = 1
        first.append(start)
    return Batch(ids, there, said, texts, documents, offsets, first)
