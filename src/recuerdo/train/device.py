"""Where a run computes: which device, and with how many processes.

Under `torchrun --nproc-per-node N -m recuerdo train RECIPE` each of N processes takes its part of every batch, and the
gradients are added up with the parts' weights: that is the gradient of the whole batch, so each process makes the step
that a single one would make. Only the first process checks and writes.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from recuerdo.errors import InputError

T = TypeVar("T")
CPU = torch.device("cpu")


class Batch(Protocol):
    """What a task's batch can do. Its length is the number of items that its loss is the mean of."""

    def __len__(self) -> int: ...

    def split(self, n: int) -> list[Self]:
        """The batch as at most n batches."""
        ...

    def to(self, device: torch.device) -> Self:
        """The batch on another device."""
        ...


@dataclass(frozen=True)
class Part(Generic[T]):
    """An item of a batch that counts `weight` in the batch's mean; one that counts 0 is not looked at."""

    item: T
    weight: float


@dataclass(frozen=True)
class World:
    """The processes of a run; alone by default."""

    device: torch.device = CPU
    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that checks and writes."""
        return self.rank == 0

    def part(self, batch: Batch) -> list[Part[Any]]:
        """What this process takes of a batch."""
        if self.size == 1:
            return [Part(self._here(batch), 1.0)]
        parts = batch.split(self.size)
        total = sum(len(part) for part in parts)
        if self.rank >= len(parts):
            return [Part(None, 0.0)]
        own = parts[self.rank]
        return [Part(self._here(own), len(own) / total)]

    def _here(self, batch: Batch) -> Batch:
        return batch if self.device.type == "cpu" else batch.to(self.device)

    def add(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add up the gradients of all processes. What has no gradient in any of them has none afterwards."""
        if self.size == 1:
            return
        learned = list(parameters)
        there = torch.tensor([float(p.grad is not None) for p in learned], device=self.device)
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in learned]
        flat = torch.cat([there, *(grad.flatten().float() for grad in grads)])
        torch.distributed.all_reduce(flat)
        has = flat[: len(learned)].tolist()
        at = len(learned)
        for p, grad, count in zip(learned, grads, has, strict=True):
            if count:
                p.grad = flat[at : at + grad.numel()].view_as(grad).to(grad.dtype)
            at += grad.numel()

    def total(self, parts: Mapping[str, float]) -> dict[str, float]:
        """Numbers by name, added up over all processes."""
        if self.size == 1:
            return dict(parts)
        found: dict[str, float] = {}
        for told in self._gathered(dict(parts)):
            for name, value in told.items():
                found[name] = found.get(name, 0.0) + value
        return found

    def tell(self, data: T) -> T:
        """What the first process says (JSON-able), in all of them."""
        return data if self.size == 1 else self._gathered(data if self.first else None)[0]

    def same(self, model: nn.Module) -> None:
        """Give all processes the parameters and buffers of the first."""
        if self.size > 1:
            for tensor in model.state_dict().values():
                if isinstance(tensor, Tensor):
                    torch.distributed.broadcast(tensor, 0)

    def _gathered(self, data: Any) -> list[Any]:
        """Of every process its data. As JSON: torch's own way for objects unpickles what comes over the wire."""
        own = torch.frombuffer(bytearray(json.dumps(data).encode()), dtype=torch.uint8).to(self.device)
        lengths = [torch.zeros(1, dtype=torch.int64, device=self.device) for _ in range(self.size)]
        torch.distributed.all_gather(lengths, torch.tensor([len(own)], device=self.device))
        longest = max(int(length) for length in lengths)
        texts = [torch.zeros(longest, dtype=torch.uint8, device=self.device) for _ in range(self.size)]
        torch.distributed.all_gather(texts, nn.functional.pad(own, (0, longest - len(own))))
        pairs = zip(texts, lengths, strict=True)
        return [json.loads(bytes(text[: int(length)].tolist())) for text, length in pairs]


@contextmanager
def world(device: str = "auto") -> Iterator[World]:
    """The world of this process: that of `torchrun`, or alone. Inside the block the processes are connected.

    `device` is auto (CUDA where there is one, else the CPU) or a name of torch's, such as cpu, cuda:1 or mps.

    Raises InputError for a device that is not there.
    """
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    found = _device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if size == 1:
        yield World(found)
        return
    ours = not torch.distributed.is_initialized()
    if ours:
        torch.distributed.init_process_group("nccl" if found.type == "cuda" else "gloo")
    try:
        yield World(found, rank, size)
        torch.distributed.barrier()  # nobody takes the connection away from one who still writes
    finally:
        if ours:
            torch.distributed.destroy_process_group()


def _device(name: str, local: int) -> torch.device:
    if name == "auto":
        return torch.device(f"cuda:{local}" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        why = str(error).strip().splitlines()[0]
        raise InputError(f"there is no device {name!r} here ({why}): choose auto or cpu") from None
    return torch.device(f"cuda:{local}") if name == "cuda" else device
