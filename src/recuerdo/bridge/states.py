"""The state of a language model at each token, with the fading states before it: the keys of a memory inside it.

The key of a token is two unit vectors beside each other: its own state after some layers, and the sum of the states
before it, each step further back counting less. The second is the drifting context of Howard & Kahana (2002,
doi:10.1006/jmps.2001.1388): it says what the token was about, where the first says how the words next to it run.
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

PROBE = 16  # tokens, whose key says whether a model is the one that wrote a memory


@dataclass(frozen=True)
class KeyRule:
    """How keys are made: the state before layer `layer`; `own` is its share of a product of two keys.

    The rest is the context: `reach` states before it, each `fading` times the next. Raises InputError for numbers that
    make no key.
    """

    layer: int
    own: float = 0.5
    fading: float = 0.9
    reach: int = 16

    def __post_init__(self) -> None:
        if self.layer < 0 or self.reach < 1 or not 0 < self.own <= 1 or not 0 < self.fading <= 1:
            raise InputError(
                "a key is made of a layer from 0, a share of its own state above 0 and at most 1, a fading above 0 and "
                f"at most 1, and a reach of 1 or more, not of {self}"
            )

    def as_text(self) -> str:
        """JSON, to be kept beside the keys."""
        return json.dumps(asdict(self))

    @classmethod
    def of_text(cls, text: str) -> Self:
        """The rule that `as_text` wrote down."""
        return cls(**json.loads(text))

    def keys(self, states: Tensor, before: Tensor) -> Tensor:
        """States [q, d] after `before` [n, d] -> keys [q, 2 d] of length 1, float32. What is farther back than n fades
        into nothing."""
        states, before = states.float(), before.float()[-self.reach :]
        both = functional.normalize(torch.cat([before, states]), dim=-1)
        n, q = len(before), len(states)
        context = torch.zeros_like(states)
        for back in range(1, min(self.reach, n + q - 1) + 1):
            there = both[max(n - back, 0) : n + q - back]
            context[q - len(there) :] += self.fading**back * there
        own = both[n:] * self.own**0.5
        return torch.cat([own, functional.normalize(context, dim=-1) * (1 - self.own) ** 0.5], -1)


@dataclass(eq=False)
class Call:
    """One call of a model: its tokens [q], the keys of their states [q, 2 d], how many tokens a cache held before."""

    tokens: Tensor
    keys: Tensor
    past: int


class Listener:
    """Hears the states of a model's calls; a sequence may go on from a cache that was filled while it listened."""

    def __init__(self, model: Any, rule: KeyRule):
        self.model, self.rule = model, rule
        layers = layers_of(model)
        if rule.layer >= len(layers):
            raise InputError(f"there is no layer {rule.layer}: this model has layers 0 to {len(layers) - 1}")
        self._layer = layers[rule.layer]
        self._signature = inspect.signature(model.forward)
        self._states: Tensor | None = None
        self._before: Tensor | None = None  # the last states of the sequence that was heard last
        self._length = 0  # and how long it was

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Inside the block the layer's input is kept for `heard`."""
        handle = self._layer.register_forward_pre_hook(self._keep, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()
            self._states = self._before = None

    @contextmanager
    def another_sequence(self) -> Iterator[None]:
        """Inside the block the model runs another sequence; afterwards the one before can go on."""
        before, length = self._before, self._length
        try:
            yield
        finally:
            self._before, self._length = before, length

    def _keep(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._states = (args[0] if args else kwargs["hidden_states"]).detach()

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

    def heard(self, tokens: Tensor, past: int) -> Call:
        """The call that has just run. Raises ModelError where the layer was not heard."""
        states, self._states = self._states, None
        if states is None or states.shape[:2] != (1, len(tokens)):
            raise ModelError(f"the layers of {type(self.model).__name__} were not heard: it runs them in another way")
        before = self._before if past and self._before is not None else states.new_zeros(0, states.shape[-1])
        keys = self.rule.keys(states[0], before)
        self._before = torch.cat([before, states[0]])[-self.rule.reach :].clone()
        self._length = past + len(tokens)
        return Call(tokens, keys, past)


def layers_of(model: Any) -> nn.ModuleList:
    """The layers of a decoder. Raises ModelError for a model that shows none."""
    count = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise ModelError(f"the layers of {type(model).__name__} cannot be found: it is no decoder with a list of layers")
