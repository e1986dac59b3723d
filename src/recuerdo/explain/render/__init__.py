"""Evidence for the terminal, as a page, as a picture, as data."""

from pathlib import Path

from recuerdo.explain.evidence import Evidence
from recuerdo.explain.page import page
from recuerdo.explain.render.data import as_arrays, as_data
from recuerdo.explain.render.picture import drawn
from recuerdo.explain.render.terminal import show
from recuerdo.explain.render.written import written

__all__ = ["as_data", "page", "show", "write"]


def write(evidence: Evidence, path: Path) -> None:
    """Write a look to a .html, .svg, .png, .json or .npz file. Raises InputError for any other kind."""
    written(
        path,
        page=lambda: page(evidence),
        data=lambda: as_data(evidence),
        arrays=lambda: as_arrays(evidence),
        drawn=lambda: drawn(evidence),
    )
