"""Real sentences as vectors, for benchmarks: encoded once, in parts, into the cache folder; then read from there.

python benchmarks/sentences.py 61000    encode so many (5 minutes of a core); a run that was stopped is taken up again

Sentences are English and from the data folder (RECUERDO_DATA): captions (Multi30k), everyday sentences (Tatoeba),
abstracts (SciTLDR) and Wikipedia (XQuAD), each once, in one drawn order. The encoder is MiniLM, as in a memory of texts.
"""

import gzip
import hashlib
import json
import os
import re
import sys
from pathlib import Path

import numpy as np

from recuerdo.bridge.cache import cache_folder

DATA = Path(os.environ.get("RECUERDO_DATA", Path(__file__).resolve().parents[2] / "shared/data"))
PART, REAL, ASKED, D = 2000, 60_000, 1000, 384  # encoded at once; sentences that are kept, and that ask


def lines(file: Path) -> list[str]:
    return gzip.decompress(file.read_bytes()).decode().splitlines()


def texts(data: Path) -> list[str]:
    """The sentences of the data folder, drawn once; none where the folder is not there."""
    found: list[str] = []
    for name in ("train", "val", "test_2016_flickr"):
        if (file := data / f"multi30k/{name}.en.gz").exists():
            found += lines(file)
    if (file := data / "tatoeba/fra_eng.tsv.gz").exists():
        found += [line.split("\t")[0] for line in lines(file)]
    for name in ("train", "dev", "test"):
        if (file := data / f"scitldr/{name}.jsonl").exists():
            told = file.read_text(encoding="utf-8").splitlines()
            found += [sentence for line in told for sentence in json.loads(line)["source"]]
    if (file := data / "xquad/xquad.en.json").exists():
        for page in json.loads(file.read_text(encoding="utf-8"))["data"]:
            for one in page["paragraphs"]:
                found += re.split(r"(?<=[.!?])\s+", one["context"])
    unique = sorted({" ".join(text.split()) for text in found} - {""})
    order = np.random.default_rng(0).permutation(len(unique))
    return [unique[i] for i in order[: REAL + ASKED]]


def embeddings(n: int, *, encode: bool = True) -> np.ndarray:
    """The vectors of the first n sentences, [n, 384] float32; fewer where there are fewer. What is missing is encoded,
    or left out where not `encode`."""
    some = texts(DATA)
    folder = cache_folder() / "embeddings" / hashlib.sha256("\n".join(some).encode()).hexdigest()[:16]
    parts, encoder = [], None
    for first in range(0, min(n, len(some)), PART):
        file = folder / f"minilm-{first:06d}.npy"
        if not file.exists():
            if not encode:
                break
            from recuerdo.bridge.sentences import SentenceEncoder

            encoder = encoder or SentenceEncoder("minilm")
            folder.mkdir(parents=True, exist_ok=True)
            half = file.with_suffix(".part.npy")
            np.save(half, encoder.encode(some[first : first + PART]))
            half.replace(file)
            print(f"{first + PART:,} sentences encoded", file=sys.stderr, flush=True)
        parts.append(np.load(file, allow_pickle=False))
    return np.concatenate(parts)[:n] if parts else np.empty((0, D), np.float32)


def extended(real: np.ndarray, first: int, n: int) -> np.ndarray:
    """Rows from `first` on, [n, 384]: the real ones, and behind them near copies of these: two of them drawn and mixed, the
    first at least as much as the second, a little noise (length 0.2), and length 1."""
    draw = np.random.default_rng(first)
    one, two = (real[draw.integers(0, len(real), n)] for _ in range(2))
    share = draw.uniform(0, 0.5, (n, 1)).astype(np.float32)
    rows = (1 - share) * one + share * two + 0.2 / D**0.5 * draw.standard_normal((n, D), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    there = real[first : first + n]
    rows[: len(there)] = there
    return rows


def clustered(first: int, n: int) -> np.ndarray:
    """Where there are no sentences: unit vectors around 1,000 centres."""
    draw = np.random.default_rng(first)
    centres = np.random.default_rng(0).standard_normal((1000, D), dtype=np.float32)
    rows = centres[draw.integers(0, 1000, n)] + 0.7 * draw.standard_normal((n, D), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


if __name__ == "__main__":
    print(embeddings(int(sys.argv[1])).shape)
