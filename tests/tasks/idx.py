"""Made-up digits as the four files of MNIST."""

import gzip
import struct


def write_idx(folder, name, pixels, labels):
    """The pictures [n, 28, 28] and labels [n] of "train" or "t10k", uint8, in LeCun's format."""
    for kind, told in (("images-idx3", pixels), ("labels-idx1", labels)):
        head = bytes([0, 0, 8, told.ndim]) + struct.pack(f">{told.ndim}I", *told.shape)
        (folder / f"{name}-{kind}-ubyte.gz").write_bytes(gzip.compress(head + told.tobytes()))
