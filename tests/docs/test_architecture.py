"""The house as it stands: lengths of files, rooms and their floors, and nothing of one machine in any text."""

import re
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOUSE = ROOT / "src/recuerdo"
SOFT, HARD = 400, 600
LONG: dict[str, str] = {}  # a file of src above the soft limit, and why it is one thing


def lines(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("file", sorted(HOUSE.rglob("*.py")), ids=lambda f: str(f.relative_to(HOUSE)))
def test_a_file_can_be_read_in_one_go(file):
    name, count = str(file.relative_to(HOUSE)), lines(file)
    assert count <= HARD, f"{name} has {count} lines: split it"
    assert count <= SOFT or LONG.get(name), f"{name} has {count} lines: split it, or say in LONG why it is one thing"


def test_no_exception_is_left_over():
    assert not {name for name in LONG if not (HOUSE / name).is_file() or lines(HOUSE / name) <= SOFT}


# --------------------------------------------------------------------------------------------------- rooms and floors


def rooms() -> set[str]:
    """What lies directly in the house: folders and files of Python."""
    folders = {p.name for p in HOUSE.iterdir() if p.is_dir() and any(p.rglob("*.py"))}
    return folders | {p.stem for p in HOUSE.glob("*.py") if p.stem != "__init__"}


def contracts() -> list[dict]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return settings["tool"]["importlinter"]["contracts"]


def named(layers: list[str]) -> list[str]:
    return [room.strip() for layer in layers for room in re.split(r"[|:]", layer)]


def test_every_room_has_its_floor():
    house = next(c for c in contracts() if c["type"] == "layers" and c.get("containers") == ["recuerdo"])
    assert house["exhaustive"] is True
    floors = named(house["layers"])
    assert len(floors) == len(set(floors))
    assert set(floors) == rooms()


def test_every_folder_of_code_is_a_package():
    """A folder without __init__.py is invisible to the machine that checks the imports."""
    for folder in {p.parent for p in HOUSE.rglob("*.py")}:
        assert (folder / "__init__.py").is_file(), f"{folder.relative_to(ROOT)} has no __init__.py"


def test_inside_read_every_file_has_its_place():
    inside = next(c for c in contracts() if c["name"].startswith("Inside read"))
    files = {f"recuerdo.read.{p.stem}" for p in (HOUSE / "read").glob("*.py") if p.stem != "__init__"}
    assert set(named(inside["layers"])) == files


def test_the_drawing_shows_the_rooms():
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    drawing = page.split("## The rooms")[1].split("```")[1]
    drawn = {name for line in drawing.splitlines() for name in re.split(r"\s\|\s", line[:20].strip()) if name}
    assert {name.split()[0] for name in drawn} >= rooms() - {"__main__"}
    table = page.split("## The rooms")[1].split("```")[2]
    assert set(re.findall(r"^\| `(\w+)` \|", table, flags=re.M)) == rooms() - {"__main__"}


# ----------------------------------------------------------------------------------------------- nothing of one machine

BINARY = {".png", ".jpg", ".ico", ".woff2", ".npz", ".gz", ".zip", ".wav", ".safetensors", ".onnx"}
# A path that only one machine has. /tmp, /dev and /etc are everywhere; ~ is somebody's own.
MACHINE = re.compile(r"(?<![\w.:/~-])/(?:work|root|home|Users|mnt|srv|opt|workspace|data)/[\w.-]+")
HOST = re.compile(r"https?://(?:[^\s/@\"'<>`]*@)?([a-z0-9][a-z0-9.-]*)", re.IGNORECASE)
PUBLIC = (
    "127.0.0.1", "localhost", "*.example", "example.*", "host", "mirror", "hub",  # tests talk to themselves
    "www.sqlite.org", "pypi.org", "files.pythonhosted.org", "registry.npmjs.org", "huggingface.co", "github.com", "arxiv.org",
    "doi.org", "www.w3.org", "www.apache.org", "svelte.dev", "docs.pytest.org", "keepachangelog.com", "semver.org",
    "research.facebook.com", "opencollective.com", "tidelift.com", "paulmillr.com", "bford.info", "xkcd.com", "feross.org", "www.patreon.com",
    # Where data sets come from.
    "raw.githubusercontent.com", "www.manythings.org", "d2l-data.s3-accelerate.amazonaws.com",
    "ossci-datasets.s3.amazonaws.com", "yann.lecun.com",
)  # fmt: skip


def texts() -> list[Path]:
    """The text files that are, or would be, committed."""
    asked = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(asked, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout: which files are committed is not known")
    files = [ROOT / name for name in listed if name]
    return [f for f in files if f.is_file() and f.suffix not in BINARY and f != Path(__file__).resolve()]


def test_no_text_names_a_machine():
    found = {}
    for file in texts():
        text = file.read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            if (path := MACHINE.search(line)) is not None:
                found[f"{file.relative_to(ROOT)}:{number}"] = path[0]
    assert not found


def test_no_text_names_a_mirror():
    """Every host is one that anybody can reach, or one that a test makes up."""
    found = {}
    for file in texts():
        for host in HOST.findall(file.read_text(encoding="utf-8", errors="replace")):
            if not any(fnmatch(host.lower().rstrip("."), public) for public in PUBLIC):
                found.setdefault(host, str(file.relative_to(ROOT)))
    assert not found


@pytest.mark.parametrize(
    ("line", "machine"),
    [("see /home/anna/x", True), ('"/work/x/src"', True), ("https://x.example/home/y", False), ("a/root/b", False)],
)
def test_the_search_for_machines_can_fail(line, machine):
    assert bool(MACHINE.search(line)) == machine
