"""Where to look next: the question of the next hop, out of what was asked and what was read.

Over the vectors of a frozen encoder, "Where does the owner of the red kite work?" finds whose the kite is. The next
question should speak of that person and of work, and no longer of the kite. Question plus fact, the usual next question
of memory networks (Sukhbaatar et al. 2015), keeps all of it; these two maps learn what to keep of each, and start as
that sum.
"""

from torch import Tensor, nn
from torch.nn import functional

from recuerdo.errors import InputError


class Follow(nn.Module):
    """query [q, d] and what was read, mixed [q, d] -> the next query [q, d], of length 1.

        normalize(asked(query) + found(mixed))

    Raises InputError for a width below 1.
    """

    def __init__(self, width: int):
        super().__init__()
        if width < 1:
            raise InputError(f"the width of vectors is 1 or more, not {width}")
        self.asked, self.found = nn.Linear(width, width, bias=False), nn.Linear(width, width)
        for layer in (self.asked, self.found):
            nn.init.eye_(layer.weight)
        nn.init.zeros_(self.found.bias)

    def forward(self, query: Tensor, mixed: Tensor) -> Tensor:
        """The next query."""
        return functional.normalize(self.asked(query) + self.found(mixed), dim=-1)
