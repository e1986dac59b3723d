"""Data sets come whole or not at all, from a server of our own here, and are found where recipes look."""

import errno
import gzip
import hashlib
import io
import json
import os
import sys
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from recuerdo.cli.app import app
from recuerdo.data import sources, web
from recuerdo.data.sources import DataSet, File, data_folder, data_sets, fetch
from recuerdo.errors import FetchError, InputError

sys.path.insert(0, str(Path(__file__).parents[1] / "bridge"))
from servers import Site, serving

DATA = Path(os.environ.get("RECUERDO_DATA", Path(__file__).resolve().parents[3] / "shared/data"))
ONE, TWO = b"Go.\tVa !\n" * 50, b"a line\n" * 40


@pytest.fixture
def site(tmp_path, monkeypatch):
    for name, value in (("PAUSE", 0.01), ("QUIET", 5.0)):
        monkeypatch.setattr(web, name, value)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("RECUERDO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RECUERDO_DATA", raising=False)
    with contextmanager(serving)() as site:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("small/a.txt", ONE)
            archive.writestr("_about.txt", b"who made it")
        site.pages |= {"/a.zip": packed.getvalue(), "/b.txt": TWO, "/c.gz": gzip.compress(TWO)}
        facts = [
            File(name, f"{site.url}/{at}", len(text), hashlib.sha256(text).hexdigest(), member)
            for name, at, text, member in (
                ("a.tsv.gz", "a.zip", ONE, "small/a.txt"),
                ("b.gz", "b.txt", TWO, ""),
                ("c.gz", "c.gz", TWO, ""),
            )
        ]
        monkeypatch.setattr(
            sources, "_SETS", (DataSet("small", "three files", "CC0", "https://example.org", tuple(facts)),)
        )
        yield site


def test_a_data_set_is_fetched_once_and_found(site: Site, tmp_path: Path):
    (tmp_path / "cache/data/small").mkdir(parents=True)
    assert data_folder("small") is None  # an empty folder is none
    said = []
    folder = fetch("small", progress=lambda what, done, total: said.append((what, done, total)))
    assert folder == tmp_path / "cache/data/small" == data_folder("small")
    assert {path.name: gzip.decompress(path.read_bytes()) for path in folder.iterdir()} == {
        "a.tsv.gz": ONE,
        "b.gz": TWO,
        "c.gz": TWO,
    }
    assert said[-1][0] == "downloading c.gz"
    asked = len(site.asked)
    assert fetch("small") == folder
    assert len(site.asked) == asked
    (folder / "b.gz").write_bytes(b"torn")
    (folder / "c.gz").write_bytes(gzip.compress(ONE))
    fetch("small")
    assert [path for _, path, _ in site.asked[asked:]] == ["/b.txt", "/c.gz"]


def test_a_file_known_by_its_packed_form_is_kept_as_it_came(site: Site, monkeypatch: pytest.MonkeyPatch):
    packed = gzip.compress(TWO, compresslevel=1, mtime=7)
    site.pages["/d.gz"] = packed
    known = File("d.gz", f"{site.url}/d.gz", len(TWO), hashlib.sha256(packed).hexdigest(), packed=True)
    monkeypatch.setattr(sources, "_SETS", (DataSet("sealed", "one file", "MIT", "https://example.org", (known,)),))
    path = fetch("sealed") / "d.gz"
    assert path.read_bytes() == packed
    asked = len(site.asked)
    fetch("sealed")
    assert len(site.asked) == asked
    path.write_bytes(gzip.compress(TWO))  # the same text, packed by another
    fetch("sealed")
    assert path.read_bytes() == packed
    site.pages["/d.gz"] = gzip.compress(TWO)
    path.unlink()
    with pytest.raises(FetchError, match="is not the file that recuerdo knows"):
        fetch("sealed")


def test_where_it_is_put(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert fetch("small", tmp_path / "there") == tmp_path / "there/small"
    monkeypatch.setenv("RECUERDO_DATA", str(tmp_path / "mine"))
    (tmp_path / "mine/other").mkdir(parents=True)
    assert data_folder("other") == tmp_path / "mine/other"
    assert fetch("small") == tmp_path / "mine/small" == data_folder("small")


@pytest.mark.parametrize("body", [b"", TWO[:-1], TWO + b"x", b"x" * len(TWO)])
def test_another_text_is_refused_and_nothing_is_kept(site: Site, tmp_path: Path, body: bytes):
    site.pages["/b.txt"] = body
    with pytest.raises(FetchError, match=r"is not the file that recuerdo knows. Nothing was kept; get b.gz from https"):
        fetch("small")
    assert [path.name for path in (tmp_path / "cache/data/small").iterdir()] == ["a.tsv.gz"]


@pytest.mark.parametrize("body", [b"no zip", b"PK\x03\x04" + bytes(50), gzip.compress(bytes(1 << 24))])
def test_what_cannot_be_unpacked_is_refused(site: Site, body: bytes):
    for path in ("/a.zip", "/c.gz"):
        before, site.pages[path] = site.pages[path], body
        with pytest.raises(FetchError, match="is not the file that recuerdo knows"):
            fetch("small")
        site.pages[path] = before


def test_more_than_was_promised_is_not_read(site: Site):
    site.pages["/b.txt"] = bytes(1 << 20)
    with pytest.raises(FetchError, match=r"b.txt has more than the [\d,]+ bytes that it should have. Nothing was kept"):
        fetch("small")


def test_what_is_gone_and_what_cannot_be_written(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    del site.pages["/c.gz"]
    with pytest.raises(
        FetchError, match=r"c.gz is no longer at http.*: get it from https://example.org and put it into"
    ):
        fetch("small")
    with pytest.raises(InputError, match="there is no data set 'wmt' to fetch: choose small"):
        fetch("wmt")
    (tmp_path / "file").write_text("")
    with pytest.raises(FetchError, match="cannot be written .*: name another folder with --to"):
        fetch("small", tmp_path / "file")

    def full(*_args, **_more):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(FetchError, match="the disk with .* is full: small needs"):
        fetch("small", tmp_path / "full")
    assert not list((tmp_path / "full/small").iterdir())


def test_the_command(site: Site, tmp_path: Path):
    run = CliRunner().invoke
    assert json.loads(run(app, ["data", "ls", "--json"]).stdout)[0]["folder"] is None
    told = json.loads(run(app, ["data", "get", "small", "--to", str(tmp_path), "--json"]).stdout)
    assert told == {"name": "small", "folder": str(tmp_path / "small")}
    run(app, ["data", "get", "small"])
    shown = run(app, ["data", "ls"]).stdout
    assert "small" in shown
    assert "yes" in shown


@pytest.mark.data
def test_the_files_that_are_known():
    """What stands here for Multi30k and Tatoeba is what recipes are trained on."""
    if not (DATA / "tatoeba").is_dir():
        pytest.skip(f"needs the data in {DATA}: set RECUERDO_DATA to the folder that holds tatoeba/ and multi30k/")
    for one in data_sets().values():
        for file in one.files:
            assert file.url.startswith("https://")
            if one.name != "fashion-mnist":  # not in this folder
                assert sources._is(gzip.decompress((DATA / one.name / file.name).read_bytes()), file), file.name
