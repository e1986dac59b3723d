"""The files that memories are exported to: JSONL, or Parquet by pyarrow (`pip install 'recuerdo[parquet]'`).

The first line says what it is: {"recuerdo memory": 1, "width": …, "value_width": …, "vectors": …, "rows": …,
"facts": …}; in Parquet it is the metadata `recuerdo` of the schema. Then lines, each of them flat:

    a version of a row   id, version, text, tags, author, time, written, bias, and with vectors key and value
    a thing by hand      what, id, amount, author, reason, time

Rows come by rising ids, each with all its versions, oldest first; then what hands did, oldest first. In JSONL minus
infinity is "-inf", and vectors are base64 of little-endian float32.
"""

import base64
import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from recuerdo.errors import InputError, StoreError
from recuerdo.store.record import Hand, Record

KINDS = (".jsonl", ".parquet")
KNOWN_AS, VERSION = "recuerdo memory", 1
TOGETHER = 1024  # lines of Parquet that are written or read in one go
VECTORS = ("key", "value")


@dataclass(frozen=True)
class Header:
    """What an export says of itself: widths of keys and values, whether it has them, how many rows, and facts."""

    width: int
    value_width: int
    vectors: bool
    rows: int
    facts: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """The first line."""
        return {KNOWN_AS: VERSION, **vars(self)}

    @classmethod
    def of(cls, told: Any, path: Path) -> "Header":
        """What a first line says. Raises InputError for one that is none, or of a later version."""
        if not isinstance(told, dict) or KNOWN_AS not in told:
            raise InputError(f"{path} is no export of a memory: keep its texts with `recuerdo remember {path}`")
        if told[KNOWN_AS] != VERSION:
            raise InputError(
                f"{path} is of version {str(told[KNOWN_AS])[:20]}, and this recuerdo knows {VERSION}: use a newer one"
            )
        numbers, facts = [told.get(name) for name in ("width", "value_width", "rows")], told.get("facts")
        if not all(type(x) is int and 0 <= x < 2**31 for x in numbers) or not isinstance(facts, dict):
            raise InputError(f"the first line of {path} is damaged: export the memory again")
        facts = {str(name): str(value) for name, value in facts.items()}
        return cls(told["width"], told["value_width"], bool(told.get("vectors")), told["rows"], facts)


def write(path: Path, header: Header, lines: Iterable[Record | Hand]) -> None:
    """An export in a file of its own, which has its name when it is whole. Raises InputError for another ending."""
    if path.suffix not in KINDS:
        raise InputError(f"{path} would be of a kind that is not known: give a name that ends in .jsonl or .parquet")
    half = path.with_name(f"{path.name}.part")
    try:
        if path.suffix == ".parquet":
            _write_parquet(half, header, (_line(one, header.vectors) for one in lines))
        else:
            with open(half, "w", encoding="utf-8") as file:
                file.write(json.dumps(header.as_json(), ensure_ascii=False) + "\n")
                for one in lines:
                    told = {name: _said(value) for name, value in _line(one, header.vectors).items()}
                    file.write(json.dumps(told, ensure_ascii=False, allow_nan=False) + "\n")
        with open(half, "rb") as file:
            os.fsync(file.fileno())
        half.replace(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror}): look at its folder and its disk") from None
    finally:
        half.unlink(missing_ok=True)


def read(path: Path) -> tuple[Header, Iterator[tuple[int, Record | Hand]]]:
    """The header of an export, and its lines with their numbers. A line without its vectors has a key of width 0.

    Raises InputError for what is no export; and for a line that is no row, when it comes to it.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}: give one that `recuerdo memories export` wrote")
    if path.suffix == ".parquet":
        header, lines = _read_parquet(path)
    else:
        told = _jsonl(path)
        header, lines = Header.of(next(told, None), path), told
    return header, (
        (number, _understood(line, header, f"line {number} of {path}")) for number, line in enumerate(lines, 2)
    )


# ------------------------------------------------------------------------------------------------------- lines and back


def _line(one: Record | Hand, vectors: bool) -> dict[str, Any]:
    told = dict(vars(one))
    if isinstance(one, Record):
        told["tags"] = list(one.tags)
        for name in VECTORS:
            if not vectors or told[name] is None:
                del told[name]
    return told


def _said(value: Any) -> Any:
    """A value as JSON knows it."""
    if isinstance(value, np.ndarray):
        return base64.b64encode(value.astype("<f4").tobytes()).decode()
    return "-inf" if value == -math.inf else value


def _understood(line: Any, header: Header, where: str) -> Record | Hand:
    try:
        if not isinstance(line, dict):
            raise ValueError("not an object")
        if line.get("what") is not None:
            if line["what"] not in ("correct", "bias", "undo", "forget"):
                raise ValueError("what hands do is correct, bias, undo or forget")
            amount = None if line.get("amount") is None else _number(line, "amount", lowest=True)
            author, reason = _text(line, "author"), _text(line, "reason")
            return Hand(line["what"], _whole(line, "id"), amount, author, reason, _number(line, "time"))
        tags = line.get("tags") or []
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            raise ValueError("tags are a list of texts")
        key = _vector(line, "key", header.width if header.vectors else 0)
        value = _vector(line, "value", header.value_width if header.vectors else 0)
        return Record(
            _whole(line, "id"),
            _whole(line, "version"),
            key,
            value if len(value) else None,
            _text(line, "text"),
            tuple(tags),
            _text(line, "author"),
            _number(line, "time"),
            _number(line, "written"),
            _number(line, "bias", lowest=True) if line.get("bias") is not None else 0.0,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where} is no row of a memory ({error}): export the memory again") from None


def _whole(line: dict[str, Any], name: str) -> int:
    if type(line[name]) is not int or not 0 <= line[name] < 2**63:
        raise ValueError(f"{name} is a whole number")
    return line[name]


def _number(line: dict[str, Any], name: str, *, lowest: bool = False) -> float:
    """A finite number; or minus infinity where that is allowed."""
    given = line[name]
    if lowest and given in ("-inf", -math.inf):
        return -math.inf
    if type(given) not in (int, float) or not math.isfinite(given):
        raise ValueError(f"{name} is a finite number")
    return float(given)


def _text(line: dict[str, Any], name: str) -> str:
    given = line.get(name)
    if not isinstance(given, str | None):
        raise ValueError(f"{name} is a text")
    given = given or ""
    given.encode()  # a lone surrogate is a ValueError
    return given


def _vector(line: dict[str, Any], name: str, width: int) -> np.ndarray:
    if not width:
        return np.empty(0, np.float32)
    given = line[name]
    data = base64.b64decode(given, validate=True) if isinstance(given, str) else np.array(given, "<f4").tobytes()
    found = np.frombuffer(data, "<f4")
    if found.shape != (width,) or not np.isfinite(found).all():
        raise ValueError(f"{name} has {width} finite numbers")
    return found


def _jsonl(path: Path) -> Iterator[Any]:
    with open(path, encoding="utf-8") as file:
        done = 0
        try:
            for line in file:
                yield json.loads(line)
                done += 1
        except (ValueError, RecursionError):  # no UTF-8, or no JSON
            raise InputError(f"line {done + 1} of {path} is not JSON: export the memory again") from None


# -------------------------------------------------------------------------------------------------------------- Parquet


def _arrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError("Parquet needs pyarrow: pip install 'recuerdo[parquet]', or give a .jsonl file") from None
    return pyarrow


def _write_parquet(path: Path, header: Header, lines: Iterator[dict[str, Any]]) -> None:
    arrow = _arrow()
    words, number, whole = arrow.string(), arrow.float64(), arrow.int64()
    fields = {"what": words, "id": whole, "version": whole, "text": arrow.large_string(), "tags": arrow.list_(words)}
    fields |= {"author": words, "time": number, "written": number, "bias": number, "amount": number, "reason": words}
    for name, width in zip(VECTORS, (header.width, header.value_width), strict=True):
        if header.vectors and width:
            fields[name] = arrow.list_(arrow.float32(), width)
    told = {"recuerdo": json.dumps(header.as_json())}
    schema = arrow.schema(list(fields.items()), metadata=told)
    with arrow.parquet.ParquetWriter(path, schema) as file:
        while some := list(islice(lines, TOGETHER)):
            file.write_batch(arrow.RecordBatch.from_pylist(some, schema=schema))


def _read_parquet(path: Path) -> tuple[Header, Iterator[Any]]:
    arrow = _arrow()
    try:
        file = arrow.parquet.ParquetFile(path)
        told = json.loads((file.schema_arrow.metadata or {}).get(b"recuerdo", b"null"))
    except (arrow.ArrowException, OSError, ValueError):
        raise InputError(f"{path} is no Parquet, or is damaged: export the memory again") from None

    def lines() -> Iterator[Any]:
        try:
            for batch in file.iter_batches(TOGETHER):
                yield from batch.to_pylist()
        except (arrow.ArrowException, OSError, ValueError):
            raise InputError(f"{path} is damaged: export the memory again") from None
        finally:
            file.close()

    return Header.of(told, path), lines()
