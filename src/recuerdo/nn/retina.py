"""Glimpses: squares cut out of pictures around a place, sharp in the middle and coarse around; nothing else is touched.

Places are (down, across), from -1 at the middle of the first pixel to 1 at that of the last.
"""

import torch
from torch import Tensor
from torch.nn import functional

WHITE = 255.0
SMALL = 90 * 90  # pixels of a picture


def retina(ground: "Ground", place: Tensor, size: int, scales: int) -> Tensor:
    """What glimpses at places [b, 2] take: [b, scales * size * size], from 0 to 1. The squares of each scale are twice
    as wide as the ones before, and averaged down to `size` x `size` numbers; `ground` cuts the widest.

    Places are whole pixels, so a number has no gradient by its place. Where `place` asks for one, it gets the slope of
    the picture there: half the difference between the next number and the one before, down and across. `ground` must
    cut a number more on each side of the widest square then. The numbers taken are the same.
    """
    widest = ground.cut(ground.middle(place)).float() / WHITE
    edge = int(place.requires_grad)
    off = ground.pixels(place) if edge else place  # from here on only its gradient counts
    found = []
    for scale in range(scales):
        each = 2**scale
        wide = (size + 2 * edge) * each
        first = ground.wide // 2 - wide // 2
        square = widest[:, None, first : first + wide, first : first + wide]
        cells = (functional.avg_pool2d(square, each) if scale else square)[:, 0]
        if edge:
            down = (cells[:, 2:, 1:-1] - cells[:, :-2, 1:-1]) / (2 * each)
            across = (cells[:, 1:-1, 2:] - cells[:, 1:-1, :-2]) / (2 * each)
            nothing = (off - off.detach())[:, :, None, None]  # 0, with a gradient
            cells = cells[:, 1:-1, 1:-1] + down * nothing[:, 0] + across * nothing[:, 1]
        found.append(cells.flatten(1))
    return torch.cat(found, 1)


class Ground:
    """Pictures [b, height, width] from which squares, `wide` pixels each, are cut; around a picture all is 0.

    What is outside of the squares is not touched. Only a picture that is small, or narrower than a square, gets a
    border of zeros first: that costs less than to mind its edges in each cut.
    """

    def __init__(self, pictures: Tensor, wide: int):
        self.sides, self.wide = pictures.shape[1:], wide
        self.row = torch.arange(len(pictures), device=pictures.device)
        small = self.sides.numel() <= SMALL or min(self.sides) < wide
        self.border = wide if small else 0
        if self.border:
            pictures = functional.pad(pictures, (self.border,) * 4)
        self.squares = pictures.unfold(1, wide, 1).unfold(2, wide, 1)  # a view of all of them, [b, y, x, wide, wide]

    def middle(self, place: Tensor) -> Tensor:
        """The pixels, (down, across), at places [b, 2] from -1 to 1."""
        return self.pixels(place.detach()).round().long()

    def pixels(self, place: Tensor) -> Tensor:
        """The same, not rounded."""
        last = place.new_tensor([side - 1 for side in self.sides], dtype=torch.float32)
        return 0.5 * (place.float() + 1) * last

    def cut(self, middle: Tensor) -> Tensor:
        """The square around each pixel [b, 2]: [b, wide, wide]."""
        first = middle - self.wide // 2
        if self.border:
            first = first + self.border
            return self.squares[self.row, first[:, 0], first[:, 1]]
        nearest = torch.stack([first[:, i].clamp(0, self.sides[i] - self.wide) for i in (0, 1)], 1)
        square = functional.pad(self.squares[self.row, nearest[:, 0], nearest[:, 1]], (0, 1, 0, 1))
        # Where the square stuck out, it is moved back, and what comes in is that last row or column of zeros.
        at = (first - nearest)[:, :, None] + torch.arange(self.wide, device=first.device)
        down, across = at.where((at >= 0) & (at < self.wide), self.wide).unbind(1)
        rows = square.gather(1, down[:, :, None].expand(-1, -1, self.wide + 1))
        return rows.gather(2, across[:, None].expand(-1, self.wide, -1))
