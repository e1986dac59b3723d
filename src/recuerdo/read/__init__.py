"""The atom: let a query read keys and values; be watched; be bent.

The room and its one verb share a name: `recuerdo.read(query, key, value)` works, and so does `recuerdo.read.softmax`.
"""

import sys
from types import ModuleType

from recuerdo.read.bend import bend
from recuerdo.read.choose import read
from recuerdo.read.mask import Alibi, Mask, Relative, allow, causal, lengths, window
from recuerdo.read.merge import Part, merge
from recuerdo.read.normalise import (
    Entmax,
    Hard,
    Linear,
    Monotonic,
    Sigmoid,
    Softmax,
    StickBreaking,
    TopKSoftmax,
    entmax15,
    hard,
    linear,
    monotonic,
    sigmoid,
    softmax,
    sparsemax,
    stick_breaking,
)
from recuerdo.read.plain import plain_read
from recuerdo.read.remix import Bend, Odds, Share, mute
from recuerdo.read.score import (
    Additive,
    Bilinear,
    Cosine,
    LocationAware,
    Product,
    Sharper,
    SoftCapped,
    SquaredDistance,
    dot,
    scaled_dot,
)
from recuerdo.read.summary import Summary, Top
from recuerdo.read.trace import Reading, Weights
from recuerdo.read.watch import Address, Seen, apart, bending, watch

__all__ = [
    "Additive", "Address", "Alibi", "Bend", "Bilinear", "Cosine", "Entmax", "Hard", "Linear", "LocationAware", "Mask",
    "Monotonic", "Odds", "Part", "Product", "Reading", "Relative", "Seen", "Share", "Sharper", "Sigmoid", "SoftCapped",
    "Softmax", "SquaredDistance", "StickBreaking", "Summary", "Top", "TopKSoftmax", "Weights", "allow", "apart",
    "bend", "bending", "causal", "dot", "entmax15", "hard", "lengths", "linear", "merge", "monotonic", "mute",
    "plain_read", "read", "scaled_dot", "sigmoid", "softmax", "sparsemax", "stick_breaking", "watch", "window",
]  # fmt: skip


class _Callable(ModuleType):
    """Importing this package sets `recuerdo.read` to the module, which would hide the function of that name."""

    def __call__(self, *tensors, **rules) -> Reading:
        return read(*tensors, **rules)


sys.modules[__name__].__class__ = _Callable
