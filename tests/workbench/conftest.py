"""An encoder of sentences that is quick, and the end of servers that tests started."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import places
import words


@pytest.fixture(scope="session")
def encoder(tmp_path_factory):
    """A folder with an encoder that knows the words of `places.TOWN`."""
    return words.encoder(tmp_path_factory.mktemp("encoder") / "words", f"{places.TOWN} Who ? Carl eight")


@pytest.fixture(scope="session", autouse=True)
def _nothing_stays():
    yield
    places.stop()
