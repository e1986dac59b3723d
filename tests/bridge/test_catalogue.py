"""The catalogue's facts, the cache that stays whole, and what `resolve` makes of a name; then the four real models."""

import ast
import dataclasses
import errno
import hashlib
import json
import os
import shutil
import sys
import time
import wave
import zipfile
from pathlib import Path

import numpy as np
import pytest

from recuerdo.bridge import cache, catalogue, convert, fetch, hub
from recuerdo.errors import FetchError, InputError, ModelError

WHEEL = "tiny_model-1.0-py3-none-any.whl"
SPEECH = Path("/usr/share/pocketsphinx/test/data/librivox")  # Debian's pocketsphinx-testdata
OURS = [Path(module.__file__) for module in (cache, catalogue, fetch, hub)]


# --- the entries ----------------------------------------------------------------------------------------------------


def test_the_entries_are_complete() -> None:
    entries = catalogue.catalogue()
    assert list(entries) == ["smollm2", "minilm", "whisper", "dinov2"]
    for name, entry in entries.items():
        assert entry.name == name
        assert entry.kind in ("encoder", "causal", "speech", "vision")
        assert entry.hub.count("/") == 1
        assert entry.wheel.startswith(f"{entry.project.replace('-', '_')}-{entry.version}-")
        assert len(bytes.fromhex(entry.sha256)) == 32
        assert entry.converter in convert.VERSIONS
        assert all((entry.title, entry.about, entry.licence, entry.notice))
        assert any(".dist-info/" in member for member in entry.members)
        assert not any(member.endswith((".py", ".bin.index")) for member in entry.members)
        with pytest.raises(dataclasses.FrozenInstanceError):
            entry.name = "other"  # type: ignore[misc]
    assert "not the publisher's file" in entries["smollm2"].notice


@pytest.mark.parametrize("file", sorted(Path(convert.__file__).parent.rglob("*.py")) + OURS, ids=lambda path: path.name)
def test_the_catalogue_is_light(file: Path) -> None:
    """A list of models must not wait for torch; conversions need numpy, nothing needs gguf or onnx."""
    heads = {
        name.partition(".")[0]
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    foreign = {name for name in heads if name not in sys.stdlib_module_names} - {"recuerdo"}
    assert foreign <= ({"numpy"} if file.parent.name == "convert" else set())


# --- the cache ------------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A catalogue with one small model, offered by a folder as index; returns the place of its installed folder."""
    offered = tmp_path / "simple" / "tiny-model"
    offered.mkdir(parents=True)
    with zipfile.ZipFile(offered / WHEEL, "w") as made:
        made.writestr("tiny_model/model/config.json", "{}")
        made.writestr("tiny_model/model/model.safetensors", bytes(1000))
        made.writestr("tiny_model-1.0.dist-info/LICENSE", "free")
    (offered / "index.html").write_text(f'<a href="{WHEEL}">it</a>')
    body = (offered / WHEEL).read_bytes()
    entry = dataclasses.replace(
        catalogue.catalogue()["minilm"],
        name="tiny",
        project="tiny-model",
        wheel=WHEEL,
        sha256=hashlib.sha256(body).hexdigest(),
        size=len(body),
        members=(
            "tiny_model/model/config.json",
            "tiny_model/model/model.safetensors",
            "tiny_model-1.0.dist-info/LICENSE",
        ),
    )
    monkeypatch.setattr(catalogue, "_ENTRIES", (entry,))
    monkeypatch.setenv("RECUERDO_INDEX_URL", (tmp_path / "simple").as_uri())
    monkeypatch.setenv("RECUERDO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "cache" / "models" / "tiny"


def debris(folder: Path) -> list[Path]:
    return list((folder.parent / ".staging").iterdir())


def test_get_then_installed_then_verified(tiny: Path) -> None:
    assert catalogue.installed("tiny") is None
    with pytest.raises(FetchError, match=r"tiny is not in the cache; fetch it with `recuerdo models get tiny`."):
        catalogue.verify("tiny")
    steps: list[str] = []
    assert catalogue.get("tiny", progress=lambda message, *_: steps.append(message)) == tiny
    assert catalogue.installed("tiny") == catalogue.verify("tiny") == catalogue.resolve("tiny") == tiny
    assert f"downloading {WHEEL}" in steps
    assert "tiny: model.safetensors" in steps
    assert (tiny / "licence" / "LICENSE").read_text() == "free"
    assert debris(tiny) == []


def test_what_is_there_is_not_fetched_again(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue.get("tiny")
    monkeypatch.setenv("RECUERDO_INDEX_URL", "https://127.0.0.1:9")  # nobody is there
    assert catalogue.get("tiny") == tiny
    assert catalogue.get("tiny", source="hub") == tiny


def test_an_unknown_source_is_refused(tiny: Path) -> None:
    with pytest.raises(InputError, match=r"source is 'web'; it can be auto, hub, wheel."):
        catalogue.get("tiny", source="web")


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("model.safetensors", b"short", r"model.safetensors has 5 bytes, not 1,000"),
        ("config.json", None, r"config.json is missing"),
        ("source.json", b"{", r"its source.json is missing or unreadable"),
        ("source.json", None, r"its source.json is missing or unreadable"),
    ],
)
def test_damage_is_seen_and_the_way_out_works(tiny: Path, file: str, content: bytes | None, words: str) -> None:
    catalogue.get("tiny")
    (tiny / file).unlink()
    if content is not None:
        (tiny / file).write_bytes(content)
    assert catalogue.installed("tiny") is None
    for call in (catalogue.get, catalogue.verify, catalogue.resolve):
        with pytest.raises(
            FetchError, match=f"tiny in the cache is damaged: {words}. .*`recuerdo models get tiny --ag"
        ):
            call("tiny")
    assert catalogue.get("tiny", again=True) == catalogue.verify("tiny") == tiny
    assert debris(tiny) == []


def test_a_changed_byte_is_seen_by_verify(tiny: Path) -> None:
    catalogue.get("tiny")
    (tiny / "model.safetensors").write_bytes(bytes(999) + b"1")
    assert catalogue.installed("tiny") == tiny  # sizes do not show it
    with pytest.raises(
        FetchError, match=r"model.safetensors is not what was fetched \(its sha256 differs\). Fetch it anew"
    ):
        catalogue.verify("tiny")


def test_an_older_conversion_counts_as_outdated(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue.get("tiny")
    monkeypatch.setitem(convert.VERSIONS, "copy", convert.VERSIONS["copy"] + 1)
    with pytest.raises(FetchError, match=r"damaged: another version of recuerdo converted it. Fetch it anew"):
        catalogue.get("tiny")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("where", ["download", "conversion", "seal"])
def test_a_full_disk(tiny: Path, monkeypatch: pytest.MonkeyPatch, where: str, number: int) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    owner, name = {"download": (fetch, "stream"), "conversion": (shutil, "move"), "seal": (os, "fsync")}[where]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, full)
        with pytest.raises(FetchError) as caught:
            catalogue.get("tiny")
    words = str(caught.value)
    assert words.startswith(f"The disk with {tiny.parent} is full: tiny needs about ")
    assert words.endswith(" MB there. Make room, or set RECUERDO_CACHE to a folder on another disk.")
    assert debris(tiny) == []
    assert not tiny.exists()
    assert catalogue.get("tiny") == tiny


def test_a_full_disk_while_weights_are_written_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors.numpy

    from recuerdo.bridge.convert.weights import save_weights

    def full(*_: object, **__: object) -> None:
        raise safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.numpy, "save_file", full)
    with pytest.raises(OSError, match="os error 28") as caught:
        save_weights({"a": np.zeros(1)}, tmp_path)
    assert caught.value.errno == errno.ENOSPC


def test_a_cache_that_cannot_be_written(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RECUERDO_CACHE", str(tmp_path / "file"))
    with pytest.raises(FetchError, match=r"cannot be written \(.*\). Set RECUERDO_CACHE to a folder that can."):
        catalogue.get("tiny")


def test_what_was_there_stays_when_the_last_step_fails(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue.get("tiny")
    rename = Path.rename

    def stuck(self: Path, target: Path) -> Path:
        if self.name == "model":
            raise PermissionError(errno.EACCES, "in use")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", stuck)
    with pytest.raises(FetchError, match=r"cannot be written \(in use\)"):
        catalogue.get("tiny", again=True)
    assert catalogue.verify("tiny") == tiny
    assert debris(tiny) == []


def test_debris_is_swept(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    staging = tiny.parent / ".staging"
    for name in ("tiny-1-abc", "other-1-abc", "other-2-old"):
        (staging / name / "model").mkdir(parents=True)
    os.utime(staging / "other-2-old", (0, time.time() - 2 * cache.STALE))
    catalogue.get("tiny")
    assert debris(tiny) == [staging / "other-1-abc"]  # another model's, perhaps at work


def test_a_process_that_works_too_long(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from filelock import FileLock

    monkeypatch.setattr(cache, "LOCK_WAIT", 0.2)
    (tiny.parent / ".locks").mkdir(parents=True)
    said: list[str] = []
    with (
        FileLock(tiny.parent / ".locks" / "tiny.lock"),
        pytest.raises(
            FetchError, match=r"Another process has been fetching tiny for too long; end it, then try again."
        ),
    ):
        catalogue.get("tiny", progress=lambda message, *_: said.append(message))
    assert said == ["another process is fetching tiny; waiting for it"]


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECUERDO_CACHE", "~/mine")
    assert cache.cache_folder() == Path.home() / "mine"
    monkeypatch.delenv("RECUERDO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache.cache_folder() == Path("/xdg/recuerdo")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache.cache_folder() == Path.home() / ".cache" / "recuerdo"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache.cache_folder() == Path.home() / "Library" / "Caches" / "recuerdo"


# --- resolve --------------------------------------------------------------------------------------------------------


def test_resolve_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    folder = Path("mine") / "model"
    folder.mkdir(parents=True)
    with pytest.raises(
        ModelError, match=r"The folder mine/model holds no config.json; hand over the folder that from_"
    ):
        catalogue.resolve("mine/model")
    (folder / "config.json").write_text("{}")
    assert catalogue.resolve("mine/model") == folder  # a folder that is there wins over a hub id
    assert catalogue.resolve(folder) == folder
    with pytest.raises(ModelError, match=r"config.json is a file; hand over the model's folder"):
        catalogue.resolve("mine/model/config.json")


def test_a_catalogue_name_wins_over_a_folder(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny").mkdir()
    assert catalogue.resolve("tiny") == tiny
    with pytest.raises(ModelError, match=r"holds no config.json"):
        catalogue.resolve("./tiny")


@pytest.mark.parametrize(
    ("text", "near"),
    [("smolm2", "smollm2"), ("MiniLM", "minilm"), ("wisper", "whisper"), ("dino", "dinov2"), ("zzz", None), ("", None)],
)
def test_a_name_that_is_nothing(text: str, near: str | None) -> None:
    with pytest.raises(ModelError) as caught:
        catalogue.resolve(text)
    hint = f" Did you mean {near}?" if near else ""
    assert str(caught.value) == (
        f"There is no model {text!r}.{hint} What works: smollm2, minilm, whisper, dinov2, a local model folder, "
        'or a hub id "owner/name".'
    )


@pytest.mark.parametrize(
    "text", ["/no/such/folder", "./nothing", "a/b/c", "x" * 5000, "nul\0", "~nobody-here", "a b/c"]
)
def test_a_path_that_is_nothing(text: str) -> None:
    with pytest.raises(ModelError, match="There is no model"):
        catalogue.resolve(text)


@pytest.mark.parametrize("call", [catalogue.get, catalogue.installed, catalogue.verify])
def test_a_name_that_the_catalogue_has_not(call: object) -> None:
    with pytest.raises(ModelError, match=r"no model 'smol2'. Did you mean smollm2\? What works: smollm2, .*, dinov2."):
        call("smol2")  # type: ignore[operator]


# --- the real models ------------------------------------------------------------------------------------------------


def real(name: str) -> Path:
    """The model from the person's own cache, fetched once; skips where it is neither there nor to be had."""
    try:
        return catalogue.get(name)
    except FetchError as error:
        pytest.skip(f"{name}: {error}")


@pytest.mark.models
@pytest.mark.parametrize("name", ["smollm2", "minilm", "whisper", "dinov2"])
def test_the_real_folder_says_what_it_is(name: str) -> None:
    folder, entry = real(name), catalogue.catalogue()[name]
    assert catalogue.verify(name) == folder
    source = json.loads((folder / "source.json").read_text(encoding="utf-8"))
    assert (source["name"], source["licence"]) == (name, entry.licence)
    if source["from"] == "wheel":
        assert (source["sha256"], source["about"]) == (entry.sha256, entry.notice)
        assert list((folder / "licence").iterdir())
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        assert abs(size - entry.disk) < 0.01 * entry.disk + 10_000


@pytest.mark.models
def test_smollm2_answers() -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = real("smollm2")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    question = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        ids = model.generate(**prompt, max_new_tokens=20, do_sample=False)
    answer = tokenizer.decode(ids[0][prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    assert "The capital of France is Paris" in answer
    assert tokenizer.tokenize("in 1984") == ["in", "Ġ", "1", "9", "8", "4"]  # digits stand alone


@pytest.mark.models
def test_minilm_knows_what_belongs_together() -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = real("minilm")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder, dtype=torch.float32)
    sentences = ["She lit the match.", "The fire burned in the hearth.", "We bought bread at the market."]
    batch = tokenizer(sentences, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    vectors = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
    fire, market = (vectors[0] @ vectors[1]).item(), (vectors[0] @ vectors[2]).item()
    assert 0.30 < fire < 0.45
    assert -0.05 < market < 0.10


def sound() -> tuple[np.ndarray, str | None]:
    file = SPEECH / "sense_and_sensibility_01_austen_64kb-0930.wav"
    if not file.is_file():  # then a tone: the model runs, but has nothing to write down
        return np.sin(np.arange(32000) * 0.17).astype(np.float32), None
    with wave.open(str(file)) as read:
        samples = np.frombuffer(read.readframes(read.getnframes()), np.int16)
    return samples.astype(np.float32) / 32768, "He might even have been made amiable himself."


@pytest.mark.models
def test_whisper_listens() -> None:
    import torch
    from transformers import AutoProcessor, WhisperForConditionalGeneration

    folder = real("whisper")
    model, loaded = WhisperForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not any(loaded.values()), loaded
    processor = AutoProcessor.from_pretrained(folder)
    samples, text = sound()
    features = processor(samples, sampling_rate=16000, return_tensors="pt").input_features
    with torch.no_grad():
        ids = model.generate(features, max_new_tokens=40)
        seen = model(features, decoder_input_ids=torch.tensor([[50257, 50362]]), output_attentions=True)
    if text:
        assert processor.batch_decode(ids, skip_special_tokens=True)[0].strip() == text
    assert [tuple(cross.shape) for cross in seen.cross_attentions] == [(1, 6, 2, 1500)] * 4
    for cross in seen.cross_attentions:
        torch.testing.assert_close(cross.sum(-1), torch.ones(1, 6, 2))


@pytest.mark.models
def test_dinov2_sees() -> None:
    import torch
    from transformers import AutoModel

    folder = real("dinov2")
    model, loaded = AutoModel.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not any(loaded.values()), loaded
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    assert settings["crop_size"] == {"height": 224, "width": 224}
    assert settings["image_mean"] == [0.485, 0.456, 0.406]
    left, right = torch.zeros(1, 3, 224, 224), torch.zeros(1, 3, 224, 224)
    left[..., :112], right[..., 112:] = 2.0, 2.0
    with torch.no_grad():
        one, other = model(left, output_attentions=True), model(right)
    assert tuple(one.attentions[0].shape) == (1, 6, 257, 257)
    patches = [seen.last_hidden_state[0, 1:].view(16, 16, 384) for seen in (one, other)]
    # What is mirrored in the picture is mirrored in what the model sees: bright looks like bright, on either side.
    same = torch.cosine_similarity(patches[0][:, :4].mean((0, 1)), patches[1][:, 12:].mean((0, 1)), dim=0)
    differ = torch.cosine_similarity(patches[0][:, :4].mean((0, 1)), patches[1][:, :4].mean((0, 1)), dim=0)
    assert same > differ
