"""Files from the web, and the folder where what was fetched lives.

Patiently: again when the network failed, never when the answer was no. Certificates are checked, proxies come from the
environment, a login goes to no other host, and no server can make a file larger than it was promised to be.
"""

import hashlib
import http.client
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar
from urllib.parse import unquote, urlsplit

from recuerdo.errors import FetchError

TRIES = 3
PAUSE = 0.5  # seconds before the second try, four times that before the third
QUIET = 20.0  # seconds without a byte after which a try has failed
PATIENCE = 3600.0  # seconds that one try may last in all: a server that drips must not hold us forever
CHUNK = 1 << 18
Done = TypeVar("Done")
Progress = Callable[[str, int, int], None]


class Passing(Exception):
    """A try failed in a way that may pass: the network, not the answer. It never leaves this room."""


def cache_folder() -> Path:
    """Where fetched things live: RECUERDO_CACHE, else the platform's own folder for caches."""
    if chosen := os.environ.get("RECUERDO_CACHE"):
        return Path(os.path.expanduser(chosen)).absolute()
    if chosen := os.environ.get("XDG_CACHE_HOME"):
        return Path(chosen) / "recuerdo"
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "recuerdo" / "cache"
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "recuerdo"


def patiently(work: Callable[[], Done], what: str) -> Done:
    """Do `work`, again after a pause when the network failed, TRIES times in all; then FetchError."""
    attempt = 0
    while True:
        attempt += 1
        try:
            return work()
        except Passing as error:
            if attempt == TRIES:
                raise FetchError(
                    f"{what} could not be fetched in {TRIES} tries: {error}. Check the connection and try again."
                ) from error
        time.sleep(PAUSE * 4 ** (attempt - 1))


def open_url(url: str, login: str | None = None, *, accept: str = "*/*", quiet: float | None = None) -> Any:
    """An open answer. Passing for what may pass, FileNotFoundError where there is nothing, FetchError for a refusal."""
    headers = {"Accept": accept, "Accept-Encoding": "identity", "User-Agent": "recuerdo"}
    request = urllib.request.Request(url, headers=headers)
    if login:
        request.add_unredirected_header("Authorization", login)  # a redirect may lead to a host that must not see it
    # Proxies come from the environment, as everywhere in Python.
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=_certificates()))
    host = urlsplit(url).netloc or urlsplit(url).path
    try:
        return opener.open(request, timeout=quiet or QUIET)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code >= 500 or error.code in (408, 429):
            raise Passing(f"{host} answers {error.code}") from error
        if error.code in (404, 410):
            raise FileNotFoundError(url) from error
        raise FetchError(f"{host} refuses with {error.code}; check the login in the address of the index.") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise FetchError(
                f"The certificate of {host} is not trusted here; set SSL_CERT_FILE to your organisation's certificates."
            ) from error
        if isinstance(reason, FileNotFoundError):
            raise FileNotFoundError(url) from error
        raise Passing(f"{host}: {reason or type(error).__name__}") from error


def _certificates() -> ssl.SSLContext:
    context = ssl.create_default_context()  # honours SSL_CERT_FILE and SSL_CERT_DIR by itself
    known = ssl.get_default_verify_paths()
    if not (known.cafile or known.capath):  # as in Python's own installer for macOS: it comes without any
        with suppress(ImportError):
            import certifi

            context.load_verify_locations(certifi.where())
    if bundle := os.environ.get("REQUESTS_CA_BUNDLE"):
        try:
            context.load_verify_locations(**({"capath": bundle} if os.path.isdir(bundle) else {"cafile": bundle}))
        except OSError as error:
            raise FetchError("REQUESTS_CA_BUNDLE names no file of certificates; correct it or unset it.") from error
    return context


def read(response: IO[bytes], amount: int) -> bytes:
    """So many bytes of an open answer, or what is left. Passing where the connection breaks."""
    try:
        return response.read(amount)
    except (OSError, http.client.HTTPException) as error:
        raise Passing(f"the connection broke ({error or type(error).__name__})") from error


def stream(
    url: str, to: Path, *, limit: int, exact: bool, login: str | None = None, progress: Progress | None = None
) -> str:
    """Write the body at `url` to `to`, on the disk when this returns, and return its sha256.

    It has `limit` bytes at most, and where `exact` not fewer. Passing and FetchError as `open_url`, FileNotFoundError
    where there is nothing.
    """
    name = unquote(PurePosixPath(urlsplit(url).path).name)
    digest, got, until = hashlib.sha256(), 0, time.monotonic() + PATIENCE
    with open_url(url, login) as response, to.open("wb") as file:
        stated = limit if exact else int(response.headers.get("Content-Length") or 0)
        while chunk := read(response, CHUNK):
            got += len(chunk)
            if got > limit:
                raise FetchError(
                    f"{name} has more than the {limit:,} bytes that it should have. Nothing was kept; "
                    "a proxy or the server may have changed it."
                )
            if time.monotonic() > until:
                raise Passing(f"it took longer than {PATIENCE:.0f} s")
            file.write(chunk)
            digest.update(chunk)
            if progress:
                progress(f"downloading {name}", got, max(stated, got))
        if got < stated:
            raise Passing(f"it ended after {got:,} of {stated:,} bytes")
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()
