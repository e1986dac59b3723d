"""What recurrent networks that attend have in common: an encoder that goes both ways, and a read of what it says."""

import torch
from torch import Tensor, nn

from recuerdo.read import LocationAware, Reading, allow, read
from recuerdo.read.score import Score


class Align(nn.Module):
    """Rows [b, q, hidden] read the source: a module by itself, so that the read has an address."""

    def __init__(self, score: Score):
        super().__init__()
        self.score = score

    def forward(self, rows: Tensor, keys: Tensor, states: Tensor, there: Tensor, previous: Tensor | None) -> Reading:
        """Keys [b, s, hidden] and states [b, s, 2 * hidden] of the source; `previous` [b, s]: the alignment before."""
        score = self.score
        if isinstance(score, LocationAware):
            before = there.new_zeros(there.shape, dtype=rows.dtype) if previous is None else previous
            score = score.after(before[:, None, None])
        mask = allow(there[:, None, None])
        return read(rows[:, None].to(keys.dtype), keys[:, None], states[:, None], mask=mask, score=score)


class BothWays(nn.Module):
    """An encoder that goes through its words from either end, `cell` (nn.GRU or nn.LSTM) each way.

    torch's own two-way cell needs packed words for this, and the gradient of packed words costs the square of their
    number on a processor. Here the way back reads each row's words turned around, padding behind them.
    """

    def __init__(self, cell: type[nn.GRU | nn.LSTM], width: int, hidden: int):
        super().__init__()
        self.ahead, self.back = (cell(width, hidden, batch_first=True) for _ in range(2))

    def forward(self, words: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """Words [b, s, width], of which those `there` [b, s] are no padding, the first of each row among them -> states
        [b, s, 2 * hidden], which say nothing at padding, and where each way ended, [b, 2 * hidden]."""
        place, size = torch.arange(words.shape[1], device=words.device), there.sum(1, keepdim=True)
        turn = torch.where(there, size - 1 - place, place)[..., None]
        ahead, _ = self.ahead(words)
        back, _ = self.back(words.gather(1, turn.expand_as(words)))
        last = (size - 1)[..., None].expand(-1, 1, ahead.shape[2])
        thought = torch.cat([way.gather(1, last)[:, 0] for way in (ahead, back)], -1)
        return torch.cat([ahead, back.gather(1, turn.expand_as(back))], -1), thought
