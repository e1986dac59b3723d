"""The states of a language model at each token: the keys of a memory inside it.

The key of a token is two unit vectors beside each other. `own` is its last state, which the model makes the next token
of: tokens with like ones are followed by like tokens, whatever the words. `context` is the sum of early states, its own
and those before it, each step back counting less: the drifting context of Howard & Kahana (2002,
doi:10.1006/jmps.2001.1388), by which the very words are found again. Both are taken from a centre, the mean of such
states, without which all of them point much the same way.
"""

import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from recuerdo.errors import InputError, ModelError


@dataclass(frozen=True)
class KeyRule:
    """How keys are made: the context sums a token's state before layer `layer` and `reach` older ones, each `fading`
    times as much as the next. Raises InputError for numbers that make no key."""

    layer: int = 1
    fading: float = 0.8
    reach: int = 12

    def __post_init__(self) -> None:
        if self.layer < 0 or self.reach < 1 or not 0 < self.fading <= 1:
            raise InputError(
                f"a key is made of a layer from 0, a fading above 0 and at most 1 and a reach from 1, not of {self}"
            )

    def as_text(self) -> str:
        """JSON, to be kept beside the keys."""
        return json.dumps(asdict(self))

    @classmethod
    def of_text(cls, text: str) -> Self:
        """The rule that `as_text` wrote down."""
        return cls(**json.loads(text))

    def keys(self, states: "States", centre: Tensor) -> Tensor:
        """The keys [r, 2 d] of the last r tokens, float32; the centre is [2, d], of own states and of early ones."""
        own = functional.normalize(states.own.float() - centre[0], dim=-1)
        early = functional.normalize(states.early.float() - centre[1], dim=-1)
        rows, there = len(own), len(early)
        context = early[there - rows :].clone()
        for back in range(1, min(self.reach, there - 1) + 1):
            first = max(0, back - (there - rows))  # rows before it have nothing so far back
            context[first:] += self.fading**back * early[there - rows + first - back : there - back]
        return torch.cat([own, functional.normalize(context, dim=-1)], -1)


@dataclass(frozen=True, eq=False)
class States:
    """What was heard of one call: `own` [r, d], the last states of those tokens that logits were made for, and `early`
    [n, d], n >= r: the early states of its tokens, after those of the tokens before it as far as they are known."""

    own: Tensor
    early: Tensor

    def mean(self) -> Tensor:
        """Their centre, [2, d]."""
        return torch.stack([self.own.float().mean(0), self.early.float().mean(0)])


class Listener:
    """Hears the states of a model's calls; a sequence may go on from a cache that was filled while it listened."""

    def __init__(self, model: Any, rule: KeyRule):
        self.model, self.rule = model, rule
        layers = layers_of(model)
        if rule.layer >= len(layers):
            raise InputError(f"there is no layer {rule.layer}: this model has layers 0 to {len(layers) - 1}")
        self._layer, self._head = layers[rule.layer], model.get_output_embeddings()
        self._signature = inspect.signature(model.forward)
        self._own: Tensor | None = None
        self._early: Tensor | None = None
        self._before: Tensor | None = None  # the last states of the sequence that was heard last
        self._length = 0  # and how long it was

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Inside the block what goes into the layer and into the output is kept for `heard`."""
        handles = [
            module.register_forward_pre_hook(self._keep, with_kwargs=True) for module in (self._layer, self._head)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._own = self._early = self._before = None

    @contextmanager
    def another_sequence(self) -> Iterator[None]:
        """Inside the block the model runs another sequence; afterwards the one before can go on."""
        before, length = self._before, self._length
        try:
            yield
        finally:
            self._before, self._length = before, length

    def _keep(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        heard: Tensor = args[0] if args else kwargs["hidden_states" if module is self._layer else "input"]
        if module is self._head:
            self._own = heard.detach()
        else:
            self._early = heard.detach()

    def given(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, int]:
        """The tokens [q] of a call that begins and how many its cache holds. Raises InputError where it cannot be
        followed."""
        told = self._signature.bind_partial(*args, **kwargs).arguments
        told = told | {name: x for own in [told.get("kwargs")] if isinstance(own, dict) for name, x in own.items()}
        ids, mask, cache = told.get("input_ids"), told.get("attention_mask"), told.get("cache")
        cache = told.get("past_key_values") if cache is None else cache
        if ids is None:
            raise InputError("a memory goes by tokens: give the model input_ids, not inputs_embeds")
        if ids.dim() != 2 or ids.shape[0] != 1:
            raise InputError(
                f"a memory follows one sequence at a time, not a batch of {ids.shape[0]}: give them in turn"
            )
        if told.get("labels") is not None:
            raise InputError("a loss of labels would be without the memory: ask memory.read for the nats of a text")
        if isinstance(mask, Tensor) and mask.dim() == 2 and not bool(mask.bool().all()):
            raise InputError("a memory follows sequences without padding: leave the padding out")
        past = 0 if cache is None else int(cache.get_seq_length())
        if past not in (0, self._length):
            raise InputError(
                f"the cache holds {past} tokens, and the memory followed {self._length} of this sequence: begin it "
                "inside the block, and go on from its end"
            )
        return ids[0], past

    def heard(self, tokens: Tensor, past: int) -> States:
        """The states of the call that has just run. Raises ModelError where they were not heard."""
        own, early = self._own, self._early
        self._own = self._early = None
        if own is None or early is None or early.shape[:2] != (1, len(tokens)) or own.dim() != 3:
            raise ModelError(
                f"the states of {type(self.model).__name__} were not heard: it runs its layers another way"
            )
        before = self._before if past and self._before is not None else early[0, :0]
        together = torch.cat([before, early[0]])
        self._before = together[-self.rule.reach :].clone()
        self._length = past + len(tokens)
        return States(own[0], together)


def layers_of(model: Any) -> nn.ModuleList:
    """The layers of a decoder. Raises ModelError for a model that shows none."""
    count = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise ModelError(f"the layers of {type(model).__name__} cannot be found: it is no decoder with a list of layers")
