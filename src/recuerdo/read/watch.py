"""Observe the reads of a model, `with watch(model) as seen:`, or bend them, `with bending(model, rule):`.

Every read has an address: the path of the module that made it, `decoder.layers.3.cross`; a step, `…@17`, when the same
module reads several times (generation steps, recurrence, hops); and a head, `…:5`. The model is watched through
torch's own module hooks and is left exactly as it was.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch import Tensor, nn

from recuerdo.errors import AddressError, NothingHeard
from recuerdo.read.remix import Bend
from recuerdo.read.trace import Cache, Reading

Rule = Callable[["Address", Reading], Sequence[Bend]]

_benders: ContextVar[tuple[Callable[[Reading], Sequence[Bend]], ...]] = ContextVar("benders", default=())
_listeners: ContextVar[tuple[Callable[[Reading], None], ...]] = ContextVar("listeners", default=())


def wishes(reading: Reading) -> list[Bend]:
    """The bends that whoever bends the model wants for this reading."""
    return [bend for ask in _benders.get() for bend in ask(reading)]


def hear(reading: Reading) -> Reading:
    """Hand a reading to whoever watches, and on."""
    for listen in _listeners.get():
        listen(reading)
    return reading


def watched() -> bool:
    """Whether somebody watches: then keys that were read stay as they are, for a reading looks into them later."""
    return bool(_listeners.get())


class Address(NamedTuple):
    """`path@step:head`, such as `decoder.layers.3.cross@17:5`; step and head are optional."""

    path: str
    step: int | None = None
    head: int | None = None

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Raises AddressError for text that is no address."""
        match = re.fullmatch(r"([^@:]*)(?:@(\d+))?(?::(\d+))?", text)
        if match is None:
            raise AddressError(f"{text!r} is no address: write path, path@step, path:head or path@step:head")
        path, step, head = match.groups()
        return cls(path, None if step is None else int(step), None if head is None else int(head))

    def __str__(self) -> str:
        step = "" if self.step is None else f"@{self.step}"
        return self.path + step + ("" if self.head is None else f":{self.head}")


class Seen(Mapping[str, Reading]):
    """What was read while a model was watched: a mapping from address to Reading.

    `seen["layers.0.attn"]` is the only read of that module, or, with several steps, the first of them;
    `seen["layers.0.attn@3"]` the one of step 3. `seen.steps(path)` lists them. A growing key cache is kept once: the
    readings of earlier steps become views of the last one's keys and values. Readings hold references: changing a key
    tensor in place afterwards changes what they tell.
    """

    def __init__(self, *, append_only: bool = False) -> None:
        self._append_only = append_only
        self._reads: dict[str, list[Reading]] = {}
        self._caches: dict[str, Cache] = {}
        self.silent: list[str] = []  # attention modules that ran and were not heard

    @property
    def paths(self) -> list[str]:
        """The modules that read, in the order of their first read."""
        return list(self._reads)

    def steps(self, path: str) -> list[Reading]:
        """All reads of one module, in order. Raises AddressError with the nearest names."""
        if path not in self._reads:
            known = ", ".join(self.paths[:4]) + (", …" if len(self.paths) > 4 else "")
            raise AddressError(f"nothing was read at {path!r}: there is {known or 'nothing'}")
        return self._reads[path]

    def __getitem__(self, address: str) -> Reading:
        path, step, head = Address.parse(address)
        reads = self.steps(path)
        if step is not None and step >= len(reads):
            raise AddressError(f"{path} has no step {step}: it read {len(reads)} times")
        reading = reads[step or 0]
        if head is not None and head >= reading.shape[1]:
            raise AddressError(f"{path} has no head {head}: it has heads 0 to {reading.shape[1] - 1}")
        return reading

    def __iter__(self) -> Iterator[str]:
        for path, reads in self._reads.items():
            for step in range(len(reads)):
                yield str(Address(path, step if len(reads) > 1 else None))

    def __len__(self) -> int:
        return sum(len(reads) for reads in self._reads.values())

    def __contains__(self, address: object) -> bool:
        try:
            self[str(address)]
        except AddressError:
            return False
        return True

    def add(self, path: str, reading: Reading) -> None:
        """Keep a reading under the next step of a path."""
        reads = self._reads.setdefault(path, [])
        reading.address = str(Address(path, len(reads)))
        cache = self._caches.get(path)
        # Where the keys only grew, every step looks into the newest tensors: T steps would else keep T copies.
        sampled = self._append_only
        if (
            cache is not None
            and _grew(cache.key, reading.pairing.key, sampled)
            and _grew(cache.value, reading.value, sampled)
        ):
            cache.key, cache.value = reading.pairing.key, reading.value
            reading.look_into(cache)
            if len(reads) == 1:
                reads[0].look_into(cache)
        elif not reads and not reading.pairing.key.requires_grad:
            self._caches[path] = Cache(reading.pairing.key, reading.value)
        reads.append(reading)


def _grew(old: Tensor, new: Tensor, sampled: bool) -> bool:
    """Whether `new` starts with `old` along the keys; `sampled`: judged by shape and 16 whole keys only."""
    n = old.shape[2]
    if old.shape[:2] != new.shape[:2] or old.shape[3] != new.shape[3] or not 0 < n <= new.shape[2]:
        return False
    if old.data_ptr() == new.data_ptr() and old.stride() == new.stride():
        return True
    if not sampled:
        return torch.equal(old, new[:, :, :n])
    at = torch.linspace(0, n - 1, min(n, 16)).long()
    return torch.equal(old[:, :, at], new[:, :, at])


@contextmanager
def _places(model: nn.Module) -> Iterator[tuple[list[str], list[str]]]:
    """Inside the block: the modules that are running now, innermost last, and the attention modules that ran."""
    running: list[str] = []
    ran: list[str] = []
    handles = []

    def enter(name: str):
        def hook(module: nn.Module, args: object) -> None:
            running.append(name)
            ran.append(name) if "attention" in type(module).__name__.lower() else None

        return hook

    def leave(module: nn.Module, args: object, output: object) -> None:
        running.pop()

    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(enter(name)))
        handles.append(module.register_forward_hook(leave, always_call=True))
    try:
        yield running, ran
    finally:
        for handle in handles:
            handle.remove()


def _unheard(model: nn.Module, what: str) -> NothingHeard:
    return NothingHeard(
        f"{type(model).__name__} was {what} and none of its attention was heard: run it inside the block, and "
        "let its attention call recuerdo.read (Hugging Face models: an attention that goes through "
        "Transformers' attention interface)"
    )


@contextmanager
def watch(
    model: nn.Module, *, each: Callable[[str, Reading], None] | None = None, append_only: bool = False
) -> Iterator[Seen]:
    """Observe every read that the model makes inside the block.

    Yields a Seen; `each(path, reading)` is called as the reads come by, for a progress bar. `append_only` promises that
    a growing cache never changes its older keys, which spares comparing them all. Raises NothingHeard at the
    end of the block when none of the model's attention came by (it does not use `recuerdo.read`; for Hugging Face
    models see `recuerdo.bridge`).
    """
    seen = Seen(append_only=append_only)
    with _places(model) as (running, ran):

        def listen(reading: Reading) -> None:
            if running:
                seen.add(running[-1], reading)
                if each is not None:
                    each(running[-1], reading)

        token = _listeners.set((*_listeners.get(), listen))
        try:
            yield seen
            heard = seen.paths
            seen.silent = [n for n in dict.fromkeys(ran) if not any(p == n or p.startswith(f"{n}.") for p in heard)]
            if not heard:
                raise _unheard(model, "watched")
        finally:
            _listeners.reset(token)


@contextmanager
def bending(model: nn.Module, rule: Rule) -> Iterator[None]:
    """Bend the reads that the model makes inside the block: `rule(address, reading)` says how, () = leave it.

    The address has the module's path and the step (how often the module has read in this block). Who watches hears
    the bent reads. Leaving the block restores the model. Raises NothingHeard as `watch` does, and what `bend` raises.
    """
    steps: dict[str, int] = {}
    with _places(model) as (running, _):

        def ask(reading: Reading) -> Sequence[Bend]:
            if not running:
                return ()
            path = running[-1]
            step = steps.setdefault(path, 0)
            steps[path] += 1
            return rule(Address(path, step), reading)

        token = _benders.set((*_benders.get(), ask))
        try:
            yield
            if not steps:
                raise _unheard(model, "steered")
        finally:
            _benders.reset(token)


@contextmanager
def apart() -> Iterator[None]:
    """Inside the block nobody watches and nobody bends: for a look at what the model would do by itself."""
    heard, bent = _listeners.set(()), _benders.set(())
    try:
        yield
    finally:
        _listeners.reset(heard)
        _benders.reset(bent)
