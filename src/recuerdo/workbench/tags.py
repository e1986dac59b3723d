"""The tags that a memory of texts makes for itself, beside those of people."""

import hashlib
from collections.abc import Sequence

from recuerdo.store.contract import Store
from recuerdo.store.record import MOST_TAG, Where

SAME, SOURCE, PART, TEXT, CAME = "same-as:", "from:", "part:", "text:", "came-as:"
OWN = (SAME, SOURCE, PART, TEXT, CAME)


def source_of(tags: Sequence[str]) -> str:
    """Where a row is from; empty where nobody said."""
    return next((tag[len(SOURCE) :] for tag in tags if tag.startswith(SOURCE)), "")


def shown(source: str) -> str:
    """A source as a tag may have it: what cannot be seen is a "?", and of a long path there is the end."""
    seen = "".join(c if c.isprintable() else "?" for c in source).strip() or "?"
    most = MOST_TAG - len(SOURCE)
    return seen if len(seen) <= most else "…" + seen[1 - most :].strip()


def twins(store: Store, ids: Sequence[int]) -> list[int]:
    """Other rows that say word for word what one of these rows says."""
    said = {tag for one in store.get(ids) for tag in one.tags if tag.startswith(TEXT)}
    same = {int(id) for tag in said for id in store.ids(Where(tags=(tag,)))}
    return sorted(same - {*ids})


def own(tags: Sequence[str]) -> list[str]:
    """The tags that people gave."""
    return [tag for tag in tags if not tag.startswith(OWN)]


def mark(source: str, text: str) -> str:
    """A short name of a text from a source, such as a file whose name may be any bytes."""
    return hashlib.sha256(f"{source}\0{text}".encode(errors="surrogatepass")).hexdigest()[:20]
