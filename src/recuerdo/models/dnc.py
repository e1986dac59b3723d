"""The differentiable neural computer (Graves et al. 2016), with what makes it train reliably.

A controller (an LSTM, or a layer without a state of its own) reads the input and tells a memory of `slots` rows what to
write and what to look for. It writes to the least used slots or to rows that look alike, and reads by likeness or by
going on from where it was, in the order of writing. The kit: masked keys, de-allocation that erases, sharp links
(Csordas & Schmidhuber 2019), layer norm on what the controller says and dropout on what goes past the memory (Franke et
al. 2018).

Watched, its reads are `memory.read@step:head` and its writes `memory.write@step`, over the slots.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from recuerdo.errors import InputError
from recuerdo.memory.addressing import allocation, content, overwrite, retention, sharpen_order, strength, used
from recuerdo.memory.head import ReadHead, WriteHead
from recuerdo.memory.link import Link, Links, link_named, precede
from recuerdo.nn.sentences import Sentences, StoryBatch

SHARP_KEYS, SHARP_POWERS = 3.0, 2.0  # one plus the softplus of them is 4.0 and 3.1
BY_LIKENESS = 2.0  # of three modes: e^2 to 1 to 1


@dataclass(frozen=True)
class Kit:
    """Which of the means against instability are used.

    `masks`: keys with masks. `deallocation`: what is let go is erased. `sharpening`: sharp links, where order matters.
    `norm`: layer norm on what the controller tells the memory. `bypass`: dropout on the controller's way past the
    memory, so that it must use it. `sharp`: key strengths start at 4 and powers at 3, and heads read by
    likeness first: the first looks are at slots and not at all of them, and go where they must go at once. Else heads
    learn to be in the right place early, by steps that are many in the long sequences that they have never seen.
    """

    masks: bool = True
    deallocation: bool = True
    sharpening: bool = False
    norm: bool = True
    bypass: float = 0.1
    sharp: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.bypass < 1:
            raise InputError(f"bypass is a share from 0 to below 1 that is dropped, not {self.bypass}")


class Orders(NamedTuple):
    """What the controller tells the memory in a step, or in all of them: every field [..., *shape]."""

    read_key: Tensor  # [h, w]
    write_key: Tensor  # [1, w]
    value: Tensor  # [w]
    read_strength: Tensor  # [h]
    write_strength: Tensor  # [1]
    power: Tensor  # [2, h], or [0]: of the links
    erase: Tensor  # [w]
    free: Tensor  # [h]
    allocate: Tensor  # [1]
    gate: Tensor  # [1]
    read_mask: Tensor  # [h, w], or [0]
    write_mask: Tensor  # [1, w], or [0]
    mode: Tensor  # [h, 3]: backward, content, forward

    def steps(self) -> "list[Orders]":
        """Orders [b, t, ...] for all steps -> those of each step, [b, ...]."""
        return [Orders(*step) for step in zip(*(field.unbind(1) for field in self), strict=True)]


@dataclass
class State:
    """The memory in the middle of one sequence."""

    memory: Tensor  # [b, n, w]
    squares: Tensor  # [b, n, w]: memory ** 2, for the next write and the next reads
    usage: Tensor  # [b, n]
    written: Tensor  # [b, n]
    precedence: Tensor  # [b, n]
    reads: Tensor  # [b, h, n]
    links: Links | None

    def take(self, rows: Tensor) -> "State":
        """Some sequences of the batch, [n], each as often as it is named; they go on by themselves."""
        tensors = {name: tensor[rows] for name, tensor in self._tensors().items()}
        return State(**tensors, links=None if self.links is None else self.links.take(rows))

    def beside(self, others: "Sequence[State]") -> "State":
        """These sequences and others as one batch."""
        all_of_them = [state._tensors() for state in (self, *others)]
        tensors = {name: torch.cat([each[name] for each in all_of_them]) for name in all_of_them[0]}
        more = [state.links for state in others if state.links is not None]
        return State(**tensors, links=None if self.links is None else self.links.beside(more))

    def _tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in vars(self).items() if name != "links"}


@dataclass
class Moment:
    """A DNC with feedback in the middle of its sequences: the memory, the controller, and what was read last."""

    state: State
    hidden: Tensor  # [b, hidden]
    cell: Tensor  # [b, hidden]
    read: Tensor  # [b, h * w]

    def take(self, rows: Tensor) -> "Moment":
        """Some sequences of the batch, [n], each as often as it is named; they go on by themselves."""
        return Moment(self.state.take(rows), self.hidden[rows], self.cell[rows], self.read[rows])

    def beside(self, others: "Sequence[Moment]") -> "Moment":
        """These sequences and others as one batch."""
        moments = [self, *others]
        hidden, cell, read = (torch.cat([getattr(m, name) for m in moments]) for name in ("hidden", "cell", "read"))
        return Moment(self.state.beside([m.state for m in others]), hidden, cell, read)


class Memory(nn.Module):
    """The memory of a DNC, told what to do by `Orders`. It has no parameters but those of the norm."""

    def __init__(self, slots: int, width: int, reads: int, *, link: Link | None, kit: Kit):
        super().__init__()
        self.slots, self.width, self.reads = slots, width, reads
        self.link, self.kit = link, kit
        h, w = reads, width
        masks = [(h, w), (1, w)] if kit.masks else [(0,), (0,)]
        # In groups: as they are; strengths; shares; modes. One activation for each group is enough.
        power = (2, h) if kit.sharpening and link is not None else (0,)
        self._shapes = [(h, w), (1, w), (w,), (h,), (1,), power, (w,), (h,), (1,), (1,), *masks, (h, 3)]
        self._sizes = [torch.Size(shape).numel() for shape in self._shapes]
        self.says = sum(self._sizes)
        self._groups = [sum(part) for part in (self._sizes[:3], self._sizes[3:6], self._sizes[6:12], self._sizes[12:])]
        self.norm = nn.LayerNorm(self.says) if kit.norm else nn.Identity()
        self.read, self.write = ReadHead(), WriteHead()

    @torch.no_grad()
    def sharpen_start(self, interface: nn.Linear) -> None:
        """Where heads start, if the kit says `sharp`: by the bias that comes last before what they are told."""
        if not self.kit.sharp:
            return
        bias = self.norm.bias if isinstance(self.norm, nn.LayerNorm) else interface.bias
        strengths = bias[self._groups[0] :][: self._groups[1]]
        strengths[: self.reads + 1], strengths[self.reads + 1 :] = SHARP_KEYS, SHARP_POWERS
        bias[-self._groups[3] :].view(self.reads, 3)[:, 1] = BY_LIKENESS

    def orders(self, said: Tensor) -> Orders:
        """What the controller said, [..., says] -> Orders."""
        plain, strengths, shares, modes = self.norm(said).split(self._groups, -1)
        fields = [
            *plain.split(self._sizes[:3], -1),
            *strength(strengths).split(self._sizes[3:6], -1),
            *shares.sigmoid().split(self._sizes[6:12], -1),
            modes,
        ]
        shaped = [x.unflatten(-1, shape) for x, shape in zip(fields, self._shapes, strict=True)]
        return Orders(*shaped[:-1], mode=shaped[-1].softmax(-1))

    def start(self, batch: int, like: Tensor) -> State:
        """An empty memory for a new sequence."""
        memory = like.new_zeros(batch, self.slots, self.width)
        empty, reads = like.new_zeros(batch, self.slots), like.new_zeros(batch, self.reads, self.slots)
        links = None if self.link is None else self.link.start(empty)
        return State(memory, memory, empty, empty, empty, reads, links)

    def forward(self, orders: Orders, state: State) -> Tensor:
        """One step: `state` becomes the next one; returns what was read, [b, h, w]."""
        masks = (orders.write_mask, orders.read_mask) if self.kit.masks else (None, None)
        retained = retention(state.reads, orders.free)
        state.usage = used(state.usage, state.written, retained)
        found = content(state.memory, orders.write_key, orders.write_strength, masks[0], state.squares)[:, 0]
        place = torch.lerp(found, allocation(state.usage), orders.allocate) * orders.gate
        written = self.write(place[:, None], state.memory)[:, 0]
        erased = retained if self.kit.deallocation else None
        state.memory = overwrite(state.memory, written, orders.erase, orders.value, erased)
        state.squares, state.written = state.memory.square(), written
        weights = content(state.memory, orders.read_key, orders.read_strength, masks[1], state.squares)
        if state.links is not None:
            weights = self._follow(orders, state, weights)
        state.reads, mixed = self.read(weights, state.memory)
        return mixed

    def _follow(self, orders: Orders, state: State, found: Tensor) -> Tensor:
        """Mix what was found with what was written after and before the slots read last: [b, h, n]."""
        links = state.links
        if links is None:
            return found
        links.write(state.written, state.precedence)
        state.precedence = precede(state.precedence, state.written)
        forward, backward = links.follow(state.reads)
        if self.kit.sharpening:
            backward = sharpen_order(backward, orders.power[:, 0])
            forward = sharpen_order(forward, orders.power[:, 1])
        modes = orders.mode[..., None].unbind(2)
        return modes[0] * backward + modes[1] * found + modes[2] * forward


class Feedforward(nn.Module):
    """A controller that remembers nothing by itself: all that it knows of earlier steps is what was read.

    It is called as an LSTM is, and hands its state on as it is.
    """

    def __init__(self, input_width: int, hidden: int):
        super().__init__()
        self.layer, self.norm = nn.Linear(input_width, hidden), nn.LayerNorm(hidden)

    def forward(self, x: Tensor, past: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x [b, t, input_width] -> [b, t, hidden], and the state after the last step, [1, b, hidden] twice."""
        hidden = self.norm(self.layer(x)).tanh()
        last = hidden[:, -1][None]
        return hidden, (last, torch.zeros_like(last) if past is None else past[1])


def _lstm(input_width: int, hidden: int) -> nn.Module:
    return nn.LSTM(input_width, hidden, batch_first=True)


CONTROLLERS: dict[str, Callable[[int, int], nn.Module]] = {"lstm": _lstm, "feedforward": Feedforward}


class DNC(nn.Module):
    """Sequences [b, t, input_width] -> [b, t, output_width]; every sequence starts with an empty memory."""

    def __init__(
        self,
        input_width: int,
        output_width: int,
        *,
        hidden: int = 64,
        memory: tuple[int, int, int] = (64, 16, 1),
        link: Link | str | None = "history",
        kit: Kit | Mapping[str, bool | float] | None = None,
        feedback: bool = True,
        controller: str = "lstm",
    ):
        """`memory` is (slots, width, read heads); `link` a Link, its name, or None; `kit` a Kit, or what differs in it;
        `controller` "lstm" or "feedforward".

        Without `feedback` the controller does not hear what was read; only the output does. Then all steps of the
        controller are worked out at once. Raises InputError for sizes below 1, and for a link, a part of the kit or a
        controller that there is not.
        """
        super().__init__()
        slots, width, reads = memory
        if min(input_width, output_width, hidden, slots, width, reads) < 1:
            raise InputError(f"a DNC needs sizes of 1 or more, not hidden={hidden}, memory={tuple(memory)}")
        if controller not in CONTROLLERS:
            raise InputError(f"there is no controller {controller!r}: choose {' or '.join(CONTROLLERS)}")
        link = link_named(link) if isinstance(link, str) else link
        self.memory = Memory(slots, width, reads, link=link, kit=_kit(kit))
        self.controller = CONTROLLERS[controller](input_width + (reads * width if feedback else 0), hidden)
        self.interface = nn.Linear(hidden, self.memory.says)
        self.memory.sharpen_start(self.interface)
        self.bypass = nn.Dropout(self.memory.kit.bypass)
        self.output = nn.Linear(hidden + reads * width, output_width)
        self.feedback = feedback

    @property
    def slots(self) -> int:
        """How many rows the memory of the next sequence has. No parameter depends on it, so it may be set."""
        return self.memory.slots

    @slots.setter
    def slots(self, slots: int) -> None:
        self.memory.slots = slots

    def forward(self, x: Tensor) -> Tensor:
        """Steps [b, t, input_width] -> [b, t, output_width]. Also under autocast all is done in the parameters' type:
        a memory that is written a hundred times has no digits to lose."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.output.weight.dtype)
            hidden, reads = self._with_feedback(x) if self.feedback else self._at_once(x)
            return self.output(torch.cat([self.bypass(hidden), reads], -1))

    def _at_once(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden, state = self.controller(x)[0], self.memory.start(x.shape[0], x)
        orders = self.memory.orders(self.interface(hidden)).steps()
        return hidden, torch.stack([self.memory(step, state).flatten(1) for step in orders], 1)

    def _with_feedback(self, x: Tensor) -> tuple[Tensor, Tensor]:
        moment, told, reads = self.start(x.shape[0], x), [], []
        for step in x.unbind(1):
            self.step(step, moment)
            told.append(moment.hidden)
            reads.append(moment.read)
        return torch.stack(told, 1), torch.stack(reads, 1)

    def start(self, batch: int, like: Tensor) -> Moment:
        """Sequences in which nothing was heard yet, in the type and place of `like`."""
        state = self.memory.start(batch, like)
        nothing = like.new_zeros(batch, self.interface.in_features)
        return Moment(state, nothing, nothing, like.new_zeros(batch, self.memory.reads * self.memory.width))

    def step(self, x: Tensor, moment: Moment) -> None:
        """Hear x [b, input_width]: `moment` becomes the next one. For a DNC with feedback."""
        past = (moment.hidden[None], moment.cell[None])
        _, (hidden, cell) = self.controller(torch.cat([x, moment.read], -1)[:, None], past)
        moment.hidden, moment.cell = hidden[0], cell[0]
        moment.read = self.memory(self.memory.orders(self.interface(moment.hidden)), moment.state).flatten(1)

    def say(self, moment: Moment) -> Tensor:
        """The output of the last step, [b, output_width]."""
        return self.output(torch.cat([self.bypass(moment.hidden), moment.read], -1))


def _kit(kit: Kit | Mapping[str, bool | float] | None) -> Kit:
    if isinstance(kit, Kit):
        return kit
    known, given = set(Kit.__dataclass_fields__), dict(kit or {})
    if unknown := sorted(set(given) - known):
        raise InputError(f"the kit of a DNC has no {unknown[0]!r}: it has {', '.join(sorted(known))}")
    return Kit(**given)  # pyright: ignore[reportArgumentType]


class StoryDNC(nn.Module):
    """Answers questions about stories that it hears sentence by sentence, with a DNC.

    `memory` is (slots, width, read heads); `link`, `kit` and `controller` are those of `DNC`. The kit against
    instability is on, but for sharp links.

    A story is heard once, and each question is asked of the memory as it was then, so no question is written into a
    story that others are asked about:

        sentence 0, …, sentence before-1, question, blank, …     the answer is said at the last of `think` blanks

    In the blanks it looks again. Sentences are sums of word vectors, weighed by position; the papers feed words, so a
    row of results has to say that its input is sentences.

    Watched, the reads are `dnc.memory.read@step` and the writes `dnc.memory.write@step`, over the slots: step i is
    sentence i, a row for each story, as far as the last question needs; then come the question and the blanks, with a
    row for each question that there is, in the order of the batch.

    `think`: blank steps after the question.

    Raises InputError for think below 0, and what `DNC` raises.
    """

    def __init__(  # noqa: PLR0913 (the sizes of one architecture)
        self,
        vocabulary_size: int,
        answers: int,
        *,
        width: int = 64,
        hidden: int = 128,
        memory: tuple[int, int, int] = (64, 32, 4),
        think: int = 3,
        link: Link | str | None = "history",
        kit: Kit | Mapping[str, bool | float] | None = None,
        controller: str = "lstm",
    ):
        super().__init__()
        if think < 0:
            raise InputError(f"a DNC thinks for 0 or more steps after a question, not {think}")
        self.think = think
        self.encode = Sentences(vocabulary_size, width, longest=16, learned=True, scale=0.4)
        self.dnc = DNC(width + 1, answers, hidden=hidden, memory=memory, link=link, kit=kit, controller=controller)

    def forward(self, stories: StoryBatch) -> Tensor:
        """A batch of stories -> logits of the answers, [b, q, answers]; 0 where there is no question."""
        there = stories.question > 0
        story, question, before = there.nonzero()[:, 0], stories.question[there], stories.before[there]
        logits = self.encode.words.new_zeros(*there.shape, self.dnc.output.out_features)
        if not len(question):
            return logits
        encoded = self.encode(stories.words)[:, 0]
        with torch.autocast(encoded.device.type, enabled=False):  # see DNC.forward
            told = functional.pad(functional.embedding(stories.sentence, encoded), (0, 1))  # last: 1 = question, blank
            asked = functional.pad(functional.embedding(question, encoded), (0, 1), value=1.0)
            moment = self._when_asked(told, story, before)
            for step in (asked, *[functional.pad(torch.zeros_like(asked[:, :-1]), (0, 1), value=1.0)] * self.think):
                self.dnc.step(step, moment)
            return logits.masked_scatter(there[..., None], self.dnc.say(moment).to(logits.dtype))

    def _when_asked(self, told: Tensor, story: Tensor, before: Tensor) -> Moment:
        """Stories told [b, s, d] -> for each question [n] of a `story` the moment after `before` of its sentences."""
        moment, moments, places, most = self.dnc.start(len(told), told), [], [], int(before.max())
        for n in range(most + 1):
            now = (before == n).nonzero()[:, 0]
            if len(now):
                moments.append(moment.take(story[now]))
                places.append(now)
            if n < most:
                self.dnc.step(told[:, n], moment)
        return moments[0].beside(moments[1:]).take(torch.cat(places).argsort())
