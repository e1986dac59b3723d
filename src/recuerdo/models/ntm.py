"""The neural Turing machine (Graves et al. 2014): a controller with heads that move over a memory.

Every head finds its place by likeness to a key, mixes it with the place it had, moves it a little around the ring of
slots, and sharpens it. All heads look for their places at once; then the last one writes, and the others read what is
there now.

Watched, its reads are `read@step:head` and its writes `write@step`, over the slots.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recuerdo.errors import InputError
from recuerdo.memory.addressing import content, gate, overwrite, sharpen, shift, strength
from recuerdo.memory.head import ReadHead, WriteHead

EMPTY = 1e-3  # what an empty slot holds; constant, which learns fastest (Collier & Beel 2018)


class NTM(nn.Module):
    """Sequences [b, t, input_width] -> [b, t, output_width]; every sequence starts with an empty memory."""

    def __init__(
        self,
        input_width: int,
        output_width: int,
        *,
        hidden: int = 100,
        memory: tuple[int, int, int] = (128, 20, 1),
        shifts: int = 3,
        feedback: bool = True,
    ):
        """`memory` is (slots, width, read heads); a head moves by at most `shifts // 2` slots a step.

        Without `feedback` the controller does not hear what was read; only the output does. Raises InputError for
        sizes below 1 and an even number of shifts.
        """
        super().__init__()
        slots, width, reads = memory
        if min(input_width, output_width, hidden, slots, width, reads) < 1:
            raise InputError(f"an NTM needs sizes of 1 or more, not hidden={hidden}, memory={tuple(memory)}")
        if shifts < 1 or shifts % 2 == 0 or shifts > slots:
            raise InputError(
                f"shifts are an odd number, so that one of them is to stay, and at most the slots: not {shifts}"
            )
        self.slots, self.width, self.reads, self.feedback = slots, width, reads, feedback
        heads = reads + 1
        # For every head: key, strength, gate, power, kernel; for the last also what is erased and written.
        self._sizes = [heads * width, heads, heads, heads, heads * shifts, width, width]
        self.controller = nn.LSTM(input_width + (reads * width if feedback else 0), hidden, batch_first=True)
        self.interface = nn.Linear(hidden, sum(self._sizes))
        self.read, self.write = ReadHead(), WriteHead()
        self.output = nn.Linear(hidden + reads * width, output_width)

    def forward(self, x: Tensor) -> Tensor:
        """Steps [b, t, input_width] -> [b, t, output_width]. Also under autocast all is done in the parameters' type:
        a memory that is written a hundred times has no digits to lose."""
        with torch.autocast(x.device.type, enabled=False):
            return self._forward(x.to(self.output.weight.dtype))

    def _forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        memory = x.new_full((batch, self.slots, self.width), EMPTY)
        places = F.one_hot(torch.zeros(batch, self.reads + 1, dtype=torch.long, device=x.device), self.slots).to(
            x.dtype
        )
        hidden = None if self.feedback else self.controller(x)[0]
        orders = None if hidden is None else self._orders(hidden)
        read, past, told, mixed = x.new_zeros(batch, self.reads * self.width), None, [], []
        for step in range(x.shape[1]):
            if orders is None or hidden is None:
                now, past = self.controller(torch.cat([x[:, step], read], -1)[:, None], past)
                order = [part[:, 0] for part in self._orders(now)]
            else:
                now, order = hidden[:, step : step + 1], [part[:, step] for part in orders]
            memory, places, read = self._step(order, memory, places)
            told.append(now)
            mixed.append(read)
        return self.output(torch.cat([torch.cat(told, 1), torch.stack(mixed, 1)], -1))

    def _orders(self, hidden: Tensor) -> list[Tensor]:
        """What the controller says, [b, t, hidden] -> key [b, t, h, w], strength, share, power [b, t, h], kernel
        [b, t, h, s], erase and value [b, t, w]."""
        key, sharp, share, power, kernel, erase, value = self.interface(hidden).split(self._sizes, -1)
        heads = self.reads + 1
        return [
            key.unflatten(-1, (heads, self.width)),
            strength(sharp),
            share.sigmoid(),
            strength(power),
            kernel.unflatten(-1, (heads, -1)).softmax(-1),
            erase.sigmoid(),
            value,
        ]

    def _step(self, order: list[Tensor], memory: Tensor, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Find the places, write, read: memory [b, n, w], places [b, h, n], what was read [b, reads * w]."""
        key, sharpness, share, power, kernel, erase, value = order
        found = gate(content(memory, key, sharpness), places, share)
        places = sharpen(shift(found, kernel), power)
        written = self.write(places[:, -1:], memory)
        memory = overwrite(memory, written[:, 0], erase, value)
        reads, mixed = self.read(places[:, :-1], memory)
        return memory, torch.cat([reads, written], 1), mixed.flatten(1)
