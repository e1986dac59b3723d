"""Evidence for the terminal, as a page, as a picture, as data."""

from pathlib import Path

from recuerdo.errors import InputError
from recuerdo.explain import KINDS
from recuerdo.explain.evidence import Evidence
from recuerdo.explain.page import page
from recuerdo.explain.render.data import as_data, write_json, write_npz
from recuerdo.explain.render.picture import write_picture
from recuerdo.explain.render.terminal import show

__all__ = ["as_data", "page", "show", "write"]


def write(evidence: Evidence, path: Path) -> None:
    """Write a look to a .html, .svg, .png, .json or .npz file. Raises InputError for any other kind."""
    kind = path.suffix.lower()
    try:
        if kind == ".html":
            path.write_text(page(evidence), encoding="utf-8")
        elif kind in (".svg", ".png"):
            write_picture(evidence, path)
        elif kind == ".json":
            write_json(evidence, path)
        elif kind == ".npz":
            write_npz(evidence, path)
        else:
            raise InputError(f"{path} has no kind that can be written: name it {', '.join(KINDS[:-1])} or {KINDS[-1]}")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error
