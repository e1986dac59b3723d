"""The encoder that goes both ways is torch's own two-way cell on packed words, gradients and all."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from recuerdo.nn.recurrent import BothWays


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_as_torch_with_packed_words(kind):
    torch.manual_seed(0)
    ours, theirs = BothWays(kind, 5, 7), kind(5, 7, batch_first=True, bidirectional=True)
    for name, value in theirs.named_parameters():
        way = ours.back if name.endswith("_reverse") else ours.ahead
        value.data.copy_(getattr(way, name.removesuffix("_reverse")))
    sizes = torch.tensor([4, 1, 6, 3])
    there = torch.arange(6) < sizes[:, None]
    words = torch.randn(4, 6, 5, requires_grad=True)
    packed, last = theirs(pack_padded_sequence(words, sizes, batch_first=True, enforce_sorted=False))
    wanted, _ = pad_packed_sequence(packed, batch_first=True, total_length=6)
    last = (last[0] if isinstance(last, tuple) else last).transpose(0, 1).flatten(1)
    states, thought = ours(words, there)
    torch.testing.assert_close(states[there], wanted[there])
    torch.testing.assert_close(thought, last)
    for out, more in ((states, thought), (wanted, last)):
        (out[there].square().sum() + more.sin().sum()).backward(retain_graph=True)
        found, words.grad = words.grad, None
        if out is states:
            first = found
    torch.testing.assert_close(first, found)
    torch.testing.assert_close(ours.back.weight_hh_l0.grad, theirs.weight_hh_l0_reverse.grad)


def test_padding_changes_nothing():
    torch.manual_seed(1)
    ours, words = BothWays(nn.GRU, 3, 4), torch.randn(2, 5, 3)
    there = torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    states, thought = ours(words, there)
    alone, short = ours(words[1:, :2], there[1:, :2])
    torch.testing.assert_close(states[1:, :2], alone)
    torch.testing.assert_close(thought[1:], short)
