"""Which reads of a model are hops over the sentences of a story, and whether they are at the supporting facts."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from recuerdo.data.stories import Stories
from recuerdo.errors import InputError
from recuerdo.read import Address, Linear, Reading, Seen, watch

HOPS = ("hops.", "look", "recall.hops.")  # what models call the reads that are over the sentences of a story
LEAST = 1e-6  # a share of reading that counts as none


def heard(model: nn.Module, stories: Stories) -> tuple[Tensor, Tensor]:
    """What the model says, and what each question reads of the sentences at each hop, mean over heads: [hops, b, q, s].

    Both have their gradients. Raises InputError where there is no hop.
    """
    with watch(model) as seen:
        logits = model(stories)
    maps = list(over_sentences(seen, stories).values())
    if not maps:
        raise InputError(f"{type(model).__name__} does not read sentences: it has no evidence to compare")
    return logits, torch.stack(maps)


def reads_sentences(address: str, reading: Reading, stories: Stories) -> bool:
    """Whether a read is a hop over the sentences of these stories: not over words, nor over the slots of a memory."""
    (b, s), q = stories.sentence.shape, stories.question.shape[1]
    n, _, rows, keys = reading.shape
    return address.startswith(HOPS) and keys == s and ((n == b and rows >= q) or (n == b * q and rows == 1))


def over_sentences(seen: Seen, stories: Stories) -> dict[str, Tensor]:
    """The hops over the sentences: address -> [b, q, s], mean over the heads, the questions' rows only.

    Of a linear read, whose weights are no shares, it is each weight's part in the sum of their sizes. Heads of one
    step that read with other normalisers (`look.nearest@2`, `look.softmax@2`) are one hop.
    """
    (b, s), q = stories.sentence.shape, stories.question.shape[1]
    found: dict[str, list[Tensor]] = {}
    for address in seen:
        reading = seen[address]
        if not reads_sentences(address, reading, stories):
            continue
        weights = reading.weights[:, :]
        own_memory = reading.shape[0] == b * q and reading.shape[2] == 1  # each question has keys of its own
        if isinstance(reading.pairing.normalise, Linear):  # no shares: their part in what was added up, either way
            weights = weights.abs() / weights.abs().sum(-1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
        weights = weights.view(b, q, -1, s).transpose(1, 2) if own_memory else weights[:, :, -q:]
        path, step, _ = Address.parse(address)
        hop = address if step is None else f"{path.rpartition('.')[0]}@{step}"
        found.setdefault(hop, []).append(weights)
    return {hop: torch.cat(parts, 1).mean(1) for hop, parts in found.items()}


def off_the_facts(maps: Tensor, stories: Stories) -> Tensor:
    """How far what the questions read is from their supporting facts: a loss, 0 where all hops together read these and
    nothing else, in equal shares. Mean over the questions that have facts; maps [hops, b, q, s].
    """
    asked = stories.facts.any(-1)
    read, facts = maps.sum(0)[asked], stories.facts[asked].to(maps.dtype)
    if not len(facts):
        return maps.sum() * 0
    wanted = facts / facts.sum(-1, keepdim=True)
    share = read / read.sum(-1, keepdim=True).clamp_min(LEAST)
    return functional.kl_div(share.clamp_min(LEAST).log(), wanted, reduction="batchmean")
