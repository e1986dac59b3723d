"""Data sets that can be fetched: where each file comes from, and what it must be.

They are kept packed, in the layout that RECUERDO_DATA has: a folder for each set. A file counts as what it should be by
the sha256 of its text, unpacked, whoever packed it.
"""

import errno
import gzip
import hashlib
import os
import uuid
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from recuerdo.data.web import Progress, cache_folder, patiently, stream
from recuerdo.errors import FetchError, InputError

MULTI30K = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1"
FULL = tuple(getattr(errno, name) for name in ("ENOSPC", "EDQUOT") if hasattr(errno, name))


@dataclass(frozen=True)
class File:
    """A file of a data set: its name here, its address, and its text's size in bytes and sha256. `member`: of a zip.
    `packed`: the sha256 is that of the packed file, as it is published, and it is kept as it is."""

    name: str
    url: str
    size: int
    sha256: str
    member: str = ""
    packed: bool = False


@dataclass(frozen=True)
class DataSet:
    """Files of one source, under one licence."""

    name: str
    about: str
    licence: str
    home: str
    files: tuple[File, ...]

    @property
    def size(self) -> int:
        """Bytes of all texts."""
        return sum(file.size for file in self.files)


def _multi30k() -> tuple[File, ...]:
    """The two forms of three languages: as they are written (packed there), and tokenised (not packed)."""
    found = []
    for name, (size, sha256) in _MULTI30K.items():
        at = f"tok/{name}" if ".lc.norm.tok" in name else f"raw/{name}.gz"
        found.append(File(f"{name}.gz", f"{MULTI30K}/{at}", size, sha256))
    return tuple(found)


_MULTI30K = {
    "train.en": (1_801_238, "460a15fbd157e34a7a9957ee388c1ca247fe47af3ef25fb50442af6c274e0fc6"),
    "train.de": (2_110_398, "2c2b73fd2b548fbcde3a875e0a78d6ee94d498bfdee6bd3eae3945779e9ddf72"),
    "train.fr": (2_111_303, "5925a3c18f1587b6b54b87743106e6e8ab93618edb6f65d19eac0621f853a10d"),
    "train.lc.norm.tok.en": (1_837_696, "08925f8e0572bcd5a006702fc5fe20e2d77c6917d4eebd576fc20de6693c2119"),
    "train.lc.norm.tok.de": (2_150_008, "cb5a23529b65ec2061f1dc446192a9c37382b63cc75f81a0be59d34894b3a505"),
    "train.lc.norm.tok.fr": (2_235_588, "8fa41bb718412bcb7c5dfa58603842810a01543eae86a51279f9886b901266e1"),
    "val.en": (63_297, "1f2a23d992769b5b3d209b0a10dd0b77c08cceb1f20dfb97ed0aafa49d107227"),
    "val.de": (75_981, "660e09eb7e1da2f856ea13ee5ad3cf6d36b3d5b0b733c857e94c5747a3dfc660"),
    "val.fr": (73_924, "5304e444d842e962b2dda4d816b70b22a1765b15401642b7ca37a67477e708dc"),
    "val.lc.norm.tok.en": (64_608, "46573ce391ae227f1c72f873392436a20ef18e0a6d518098cfbd70b77c8572ec"),
    "val.lc.norm.tok.de": (77_273, "97232bd273eceb7207f689527386a97e4be2616b18ada47576bdaf96c8ae1f00"),
    "val.lc.norm.tok.fr": (78_242, "b303e301aa21fe7822a846b2b3fb2d5a1121ec807cd5b1d006fb7b2b5507168a"),
    "test_2016_flickr.en": (62_076, "399a4382932c1aadd3ceb9bef1008d388a64c76d4ae4e9d4728c6f4301cac182"),
    "test_2016_flickr.de": (70_649, "4be6b5b3236b79c25475c6bb829800a7ce559e9ba7a1f6c2394fe4d40be46d16"),
    "test_2016_flickr.fr": (72_261, "cb3160d69b002bb638e66cc7612fcd56cb0af82eadc9c142dedc438afb885ef6"),
    "test_2016_flickr.lc.norm.tok.en": (63_307, "5b7f32627cf99eced828311b955dae9800bb52bc8b91cf8b6526829e605b29d2"),
    "test_2016_flickr.lc.norm.tok.de": (71_917, "c6a33d39d48f9f510de147651316cd9d918e09ad0219df734a2f16b6baccacc4"),
    "test_2016_flickr.lc.norm.tok.fr": (76_394, "1463bd5960f9bfe098ec3cd752d3df0c49c84dc646fb518964a29232658cd836"),
}

MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist"
_MNIST = {
    "train-images-idx3-ubyte": (47_040_016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    "train-labels-idx1-ubyte": (60_008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    "t10k-images-idx3-ubyte": (7_840_016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    "t10k-labels-idx1-ubyte": (10_008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
}

# Of these, several projects that fetch them give the same sha256 of the packed files.
FASHION = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion"
_FASHION = {
    "train-images-idx3-ubyte": (47_040_016, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
    "train-labels-idx1-ubyte": (60_008, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
    "t10k-images-idx3-ubyte": (7_840_016, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
    "t10k-labels-idx1-ubyte": (10_008, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
}

_SETS = (
    DataSet(
        name="fashion-mnist",
        about="60,000 + 10,000 pieces of clothing of 10 kinds, 28 x 28 pixels",
        licence="MIT",
        home="https://github.com/zalandoresearch/fashion-mnist",
        files=tuple(File(f"{name}.gz", f"{FASHION}/{name}.gz", *told, packed=True) for name, told in _FASHION.items()),
    ),
    DataSet(
        name="mnist",
        about="60,000 + 10,000 digits written by hand, 28 x 28 pixels",
        licence="CC BY-SA 3.0",
        home="http://yann.lecun.com/exdb/mnist",
        files=tuple(File(f"{name}.gz", f"{MNIST}/{name}.gz", *told) for name, told in _MNIST.items()),
    ),
    DataSet(
        name="multi30k",
        about="29,000 + 1,014 + 1,000 captions of pictures in English, German and French",
        licence="CC BY-SA 4.0",
        home="https://github.com/multi30k/dataset",
        files=_multi30k(),
    ),
    DataSet(
        name="tatoeba",
        about="167,130 pairs of everyday sentences in English and French, of 2019",
        licence="CC BY 2.0 FR, tatoeba.org by way of www.manythings.org/anki",
        home="https://www.manythings.org/anki",
        files=(
            File(
                "fra_eng.tsv.gz",
                "https://d2l-data.s3-accelerate.amazonaws.com/fra-eng.zip",
                11_669_748,
                "0bb85dbaa1c896844649094d7eaf2e34bee34e84fe362b26ce7e8f2e12aae104",
                member="fra-eng/fra.txt",
            ),
        ),
    ),
)


def data_sets() -> dict[str, DataSet]:
    """What can be fetched, by name."""
    return {one.name: one for one in _SETS}


def data_folder(name: str) -> Path | None:
    """The folder of a data set, in RECUERDO_DATA where that is set, else where `fetch` puts it.

    None where it is not there, or has none of the files that it should have; somebody may need some of them only.
    """
    folder, one = _home() / name, data_sets().get(name)
    some = any((folder / file.name).is_file() for file in one.files) if one else True
    return folder if folder.is_dir() and some else None


def fetch(name: str, to: Path | None = None, *, progress: Progress | None = None) -> Path:
    """The folder of a data set whose files are all there; those that are not, or are another text, are downloaded.

    `to`: the folder in which it is a folder; None = RECUERDO_DATA, else the cache. Raises InputError for a name that
    is not in `data_sets`, FetchError for what cannot be had, is not what was promised, or cannot be written.
    """
    if name not in data_sets():
        raise InputError(f"there is no data set {name!r} to fetch: choose {', '.join(data_sets())}")
    one = data_sets()[name]
    folder = (to or _home()) / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in one.files:
            if not _there(folder / file.name, file):
                _fetch(file, folder / file.name, one, progress)
    except OSError as error:
        if error.errno in FULL:
            raise FetchError(f"the disk with {folder} is full: {name} needs {one.size // 10**6:,} MB there") from error
        raise FetchError(
            f"{folder} cannot be written ({error.strerror or error}): name another folder with --to"
        ) from error
    return folder


def _home() -> Path:
    return Path(os.environ.get("RECUERDO_DATA") or cache_folder() / "data")


def _there(path: Path, file: File) -> bool:
    try:
        if not path.is_file():
            return False
        there = path.read_bytes()
        return _is(there if file.packed else gzip.decompress(there), file)
    except (OSError, EOFError, zlib.error):
        return False


def _is(text: bytes, file: File) -> bool:
    return (file.packed or len(text) == file.size) and hashlib.sha256(text).hexdigest() == file.sha256


def _fetch(file: File, path: Path, one: DataSet, progress: Progress | None) -> None:
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        # What comes is packed, or the text itself: no larger than the text, but for a packer's few bytes.
        patiently(
            lambda: stream(file.url, part, limit=file.size + (1 << 16), exact=False, progress=progress), file.name
        )
        text = part.read_bytes() if file.packed else _unpacked(part, file)
        if not _is(text, file):
            raise FetchError(
                f"{file.url} is not the file that recuerdo knows. Nothing was kept; "
                f"get {file.name} from {one.home} and put it into {path.parent}"
            )
        if not file.packed:
            part.write_bytes(gzip.compress(text, mtime=0))
        part.replace(path)
    except FileNotFoundError as error:
        raise FetchError(
            f"{file.name} is no longer at {file.url}: get it from {one.home} and put it into {path.parent}"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _unpacked(part: Path, file: File) -> bytes:
    """The text, of which never more is unpacked than it should have; what cannot be unpacked is no text."""
    with part.open("rb") as packed:
        try:
            if file.member:
                with zipfile.ZipFile(packed) as archive, archive.open(file.member) as member:
                    return member.read(file.size + 1)
            if file.url.endswith(".gz"):
                with gzip.open(packed) as text:
                    return text.read(file.size + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError, RuntimeError, OSError):
            return b""
        return packed.read()
