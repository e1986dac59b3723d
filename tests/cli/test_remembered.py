"""The memory of the tour: it finds, it obeys a hand, and it forgets to the last byte."""

import io
import re

import pytest
from rich.console import Console

from recuerdo.bridge.catalogue import get
from recuerdo.cli.remembered import NAME, QUESTION, remembered


@pytest.mark.models
def test_the_scene(tmp_path, monkeypatch):
    get("minilm")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    out = io.StringIO()
    remembered(Console(file=out, width=120))
    told = out.getvalue()
    assert QUESTION in told
    first, second = re.findall(r"([\d.]+) % █+ +#(\d+) lighthouse.md\n +(.+)\n", told)
    assert first[1] == second[1]
    assert float(first[0]) > 50
    assert (NAME in first[2], "Tomas Brandt" in second[2]) == (True, True)
    assert re.search(r"stood [1-9]\d* times", told)
    assert "now it stands there 0 times" in told
    assert list(tmp_path.iterdir()) == []
