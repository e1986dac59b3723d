"""A plain LSTM (Hochreiter & Schmidhuber 1997): the baseline without a memory."""

from torch import Tensor, nn

from recuerdo.errors import InputError


class LSTM(nn.Module):
    """Sequences [b, t, input_width] -> [b, t, output_width]."""

    def __init__(self, input_width: int, output_width: int, *, hidden: int = 256, layers: int = 1):
        """Raises InputError for sizes below 1."""
        super().__init__()
        if min(input_width, output_width, hidden, layers) < 1:
            raise InputError(f"an LSTM needs sizes of 1 or more, not hidden={hidden}, layers={layers}")
        self.recurrent = nn.LSTM(input_width, hidden, layers, batch_first=True)
        self.output = nn.Linear(hidden, output_width)

    def forward(self, x: Tensor) -> Tensor:
        """Steps [b, t, input_width] -> [b, t, output_width]."""
        return self.output(self.recurrent(x)[0])
