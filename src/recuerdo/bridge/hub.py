"""A model from the Hugging Face hub: only safetensors, JSON and tokenizer files, never pickles, never code.

huggingface_hub does the fetching; this file decides what is taken, how long a silent hub is waited for, and checks
what arrived.
"""

import json
import os
import re
import shutil
import threading
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from recuerdo.bridge.cache import FULL, file_sha256
from recuerdo.bridge.convert import Progress
from recuerdo.data.web import Passing, open_url
from recuerdo.errors import FetchError, ModelError

WAIT = 4.0  # seconds in which the hub must have answered, else it counts as out of reach
PLAIN = (".json", ".txt", ".model", ".spm", ".jinja")  # settings and tokenizers; .model and .spm are SentencePiece
OFF = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")  # read now, not when the library is imported
WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")


class HubModel(NamedTuple):
    """The files of a hub model that recuerdo takes: their revision, and each path with the sha256 the hub states."""

    revision: str
    files: dict[str, str | None]


def hub_endpoint() -> str:
    """The hub's address: HF_ENDPOINT or the public one."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def hub_model(hub_id: str) -> HubModel:
    """Ask the hub for the safetensors, JSON and tokenizer files of `owner/name`; never for pickles or code.

    Raises FetchError within about five seconds when the hub is switched off or silent, ModelError when the model is
    not one we can take.
    """
    endpoint = hub_endpoint()
    if any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in OFF):
        raise FetchError("The hub is switched off by HF_HUB_OFFLINE; unset it to fetch from there.")
    if urlsplit(endpoint).scheme not in ("http", "https"):
        raise FetchError("HF_ENDPOINT is no http or https address; correct it or unset it.")
    if not _answers(f"{endpoint}/api/models/{hub_id}"):
        host = urlsplit(endpoint).hostname
        raise FetchError(f"The hub {host} does not answer; check the connection, or set HF_ENDPOINT to a mirror.")
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        info = HfApi(endpoint=endpoint).model_info(hub_id, files_metadata=True, timeout=WAIT)
    except GatedRepoError as error:
        raise ModelError(f"{hub_id} is gated: accept its terms on the hub and log in with `hf auth login`.") from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"The hub has no model {hub_id}; check the spelling, or log in with `hf auth login` if it is private."
        ) from error
    except Exception as error:
        # The library lets its HTTP client's own errors through, and that client changes between its releases.
        raise FetchError(f"The hub does not tell about {hub_id} ({type(error).__name__}). Try again later.") from error
    files = {f.rfilename: f.lfs.sha256 if f.lfs else None for f in info.siblings or [] if _taken(f.rfilename)}
    if not any(path.endswith(".safetensors") for path in files) or "config.json" not in files:
        raise ModelError(
            f"{hub_id} has no safetensors weights with a config.json, and recuerdo loads no others; choose another."
        )
    return HubModel(str(info.sha), files)


def fetch_hub(hub_id: str, to: Path, *, progress: Progress) -> str:
    """Download the files of `hub_model(hub_id)` into the folder `to`, check them, and return the revision.

    Raises FetchError and ModelError as `hub_model` does, FetchError for a file whose sha256 is not the stated one,
    OSError when `to` is full.
    """
    from_hub = hub_model(hub_id)
    from huggingface_hub import hf_hub_download

    for path, sha256 in from_hub.files.items():
        bar = _bar(progress, f"downloading {path}")
        try:
            hf_hub_download(
                hub_id, path, revision=from_hub.revision, local_dir=to, endpoint=hub_endpoint(), tqdm_class=bar
            )
        except Exception as error:  # as above
            if isinstance(error, OSError) and error.errno in FULL:
                raise
            raise FetchError(f"{path} of {hub_id} did not arrive ({type(error).__name__}). Try again later.") from error
        _check(to / path, sha256, f"{path} of {hub_id}")
    shutil.rmtree(to / ".cache", ignore_errors=True)  # the library's notes about a download in progress
    return from_hub.revision


def _check(file: Path, sha256: str | None, what: str) -> None:
    if sha256 and (got := file_sha256(file)) != sha256:
        file.resolve().unlink()  # in the hub's cache the name is a link, and the bytes would be trusted later
        file.unlink(missing_ok=True)
        raise FetchError(
            f"{what} is not what the hub states (sha256 {got[:12]}…, expected {sha256[:12]}…). "
            "Nothing was kept; try again later."
        )


def _taken(path: str) -> bool:
    if path in ("1_Pooling/config.json", "LICENSE", "README.md") or WEIGHTS.fullmatch(path):
        return True
    return "/" not in path and path.endswith(PLAIN)


def _answers(url: str) -> bool:
    """Whether anything speaks HTTP at `url`, known within WAIT seconds."""
    heard: list[bool] = []

    def ask() -> None:
        try:
            open_url(url, quiet=WAIT).close()
        except Passing:
            return
        except (FetchError, FileNotFoundError):
            pass  # a refusal is an answer too
        heard.append(True)

    # A name that does not resolve can hang far longer than any socket's timeout: the asking has a thread of its own.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(WAIT)
    return bool(heard)


def _bar(progress: Progress, message: str) -> Any:
    """A class that huggingface_hub takes for its progress bar and that only tells `progress`."""
    from tqdm import tqdm

    class Bar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            options.pop("name", None)
            super().__init__(*args, **{**options, "disable": False})

        def display(self, *args: Any, **options: Any) -> None:
            progress(message, int(self.n), int(self.total or 0))

    return Bar


def hub_folder(hub_id: str, *, progress: Progress) -> Path:
    """A model's folder in huggingface_hub's own cache: fetched when the hub answers, else taken as it is there.

    Raises ModelError when the model is not on the hub, not on this machine while the hub is silent, or has no
    safetensors weights; FetchError when it does not arrive.
    """
    try:
        found = hub_model(hub_id)
    except FetchError as error:
        return _on_this_machine(hub_id, error)
    from huggingface_hub import snapshot_download, try_to_load_from_cache

    bar, endpoint, files = _bar(progress, f"downloading {hub_id}"), hub_endpoint(), list(found.files)
    new = [path for path in files if not try_to_load_from_cache(hub_id, path, revision=found.revision)]
    try:
        folder = Path(snapshot_download(hub_id, allow_patterns=files, endpoint=endpoint, tqdm_class=bar))
    except Exception as error:  # as above
        raise FetchError(f"{hub_id} did not arrive from the hub ({type(error).__name__}). Try again later.") from error
    for path in new:
        _check(folder / path, found.files[path], f"{path} of {hub_id}")
    return folder


def _on_this_machine(hub_id: str, silent: FetchError) -> Path:
    """The folder in the hub's cache of a model that was fetched before, by whatever program."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(hub_id, "config.json")
    if not isinstance(config, str):
        raise ModelError(f"{hub_id} is not on this machine. {silent} Or hand over a local model folder.") from silent
    folder = Path(config).parent
    index = folder / "model.safetensors.index.json"
    parts = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values() if index.is_file() else ()
    if not all((folder / part).is_file() for part in parts or ("model.safetensors",)):
        raise ModelError(f"{hub_id} is on this machine without all of its safetensors weights. {silent}") from silent
    return folder
