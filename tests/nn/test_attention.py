"""Heads are torch's own MultiheadAttention with our names, whether keys are kept or not."""

import pytest
import torch
from torch import nn

from recuerdo.errors import InputError
from recuerdo.nn.attention import Kept, MultiHead
from recuerdo.read import allow, causal, watch


def whole_of(look, rows, there, mask=None):
    return look.out(look(look.asked(rows), there, mask))


def test_the_same_as_torch():
    torch.manual_seed(0)
    ours, theirs = MultiHead(12, 3), nn.MultiheadAttention(12, 3, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.pair.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.pair.bias]))
        theirs.out_proj.weight.copy_(ours.out.weight)
        theirs.out_proj.bias.copy_(ours.out.bias)
    rows, others = torch.randn(2, 4, 12), torch.randn(2, 7, 12)
    there = torch.tensor([[True] * 7, [True] * 5 + [False] * 2])
    with watch(ours) as seen:
        told = whole_of(ours, rows, ours.keys(others), allow(there[:, None, None]))
    wanted, weights = theirs(rows, others, others, key_padding_mask=~there, average_attn_weights=False)
    torch.testing.assert_close(told, wanted, atol=1e-6, rtol=1e-5)
    (reading,) = seen.values()
    torch.testing.assert_close(reading.weights[:, :], weights, atol=1e-6, rtol=1e-5)


def test_row_by_row_with_kept_keys_is_all_at_once():
    torch.manual_seed(0)
    look, rows = MultiHead(8, 2), torch.randn(3, 6, 8)
    whole = whole_of(look, rows, look.keys(rows), causal)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            kept, each = Kept(), []
            for i in range(6):
                row = rows[:, i : i + 1]
                each.append(whole_of(look, row, look.keys(row, kept)))
        torch.testing.assert_close(torch.cat(each, 1), whole, atol=1e-6, rtol=1e-5)


def test_kept_rows_go_on_as_others_however_often():
    draw, told = torch.Generator().manual_seed(0), torch.zeros(4, 0)
    with torch.no_grad():
        kept = Kept()
        for i in range(40):  # beyond the room that is made at once
            rows = torch.randint(0, len(told), (4 if i < 20 else 3,), generator=draw)
            kept, told = kept.take(rows), told[rows]
            new = torch.arange(len(rows)) + 10.0 * i
            told = torch.cat([told, new[:, None]], 1)
            there = kept.add(new[:, None, None, None, None].expand(-1, 1, 2, 1, 2))
            assert there.shape == (len(rows), i + 1, 2, 1, 2)
            assert torch.equal(there, told[:, :, None, None, None].expand_as(there))


def test_heads_divide_the_width():
    with pytest.raises(InputError, match="5 heads do not divide a width of 12"):
        MultiHead(12, 5)
