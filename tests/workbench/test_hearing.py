"""Looks at sound: words are when they were said, watching changes no transcript, and any file ends in a result or a line."""

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from recuerdo.bridge.attention import watch
from recuerdo.bridge.listening import RATE, _features, _tokenizer, hear_sound
from recuerdo.bridge.run import Loaded
from recuerdo.cli.app import app
from recuerdo.data.sound import resampled
from recuerdo.errors import InputError, ModelError
from recuerdo.explain.render.timed import timeline_as_data, timeline_as_text, write_timeline
from recuerdo.workbench.hearing import listen
from tests.bridge.families import build
from tests.bridge.test_real_models import real
from tests.workbench.speaking import speak

SENTENCES = (
    "The old man walked slowly to the river and looked at the water.",
    "Nobody knows why the train was late this morning.",
    "We will meet at the library tomorrow after lunch.",
    "I will send you the report before the end of the week.",
    "He opened the window and looked out at the garden.",
    "Please bring me a glass of cold water and some bread.",
)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    samples, rate, starts = speak(SENTENCES[0])
    path = tmp_path_factory.mktemp("sound") / "a.wav"
    soundfile.write(path, samples, rate)
    return path, starts


def bare(word):
    return word.strip(".,!?").lower()


def test_words_are_when_they_were_said(tmp_path):
    """espeak-ng says when each of its words begins; a sentence that Whisper mishears is left out, and must be alone."""
    whisper, off, heard = real("whisper"), [], 0
    for number, sentence in enumerate(SENTENCES):
        samples, rate, starts = speak(sentence, speed=140 + 10 * (number % 2))
        soundfile.write(tmp_path / "a.wav", samples, rate)
        seen = listen(whisper, tmp_path / "a.wav")
        if [bare(word.text) for word in seen.words] != [bare(word) for word in sentence.split()]:
            continue
        if len(starts) == len(seen.words):
            heard += 1
            off += [abs(word.start - start) for word, start in zip(seen.words, starts, strict=True)]
    assert heard >= 5
    assert np.median(off) < 0.15
    assert np.percentile(off, 95) < 0.4


def test_watching_changes_no_transcript(spoken):
    path, _ = spoken
    whisper, (samples, rate) = real("whisper"), soundfile.read(path, dtype="float32")
    features = _features(whisper.model, resampled(samples, rate, RATE))
    with torch.no_grad():
        alone = whisper.model.generate(features, max_new_tokens=60)
        with watch(whisper.model):
            watched = whisper.model.generate(features, max_new_tokens=60)
    assert torch.equal(alone, watched)
    assert listen(whisper, path).text == SENTENCES[0]


def test_reads_are_those_of_eager_attention(spoken):
    path, _ = spoken
    whisper, (samples, rate) = real("whisper"), soundfile.read(path, dtype="float32")
    samples = resampled(samples, rate, RATE)
    heard = hear_sound(whisper, samples)
    assert heard.heads == [(1, 0), (2, 0), (2, 5), (3, 0), (3, 1), (3, 2), (3, 3), (3, 4)]
    model, features = whisper.model, _features(whisper.model, samples)
    with torch.no_grad():
        ids = [i for i in model.generate(features, max_new_tokens=60)[0].tolist() if i < model.config.eos_token_id]
        before = model.config._attn_implementation
        model.set_attn_implementation("eager")
        told = torch.tensor([[50257, 50362, *ids]])
        cross = model(input_features=features, decoder_input_ids=told, output_attentions=True).cross_attentions
        model.set_attn_implementation(before)
    for (layer, head), weights in zip(heard.heads, heard.weights, strict=True):
        torch.testing.assert_close(weights, cross[layer][0, head, 1:, : weights.shape[1]], atol=1e-5, rtol=0)


def test_letters_of_several_tokens_are_whole(spoken, monkeypatch):
    whisper = real("whisper")
    said = _tokenizer(whisper)(" né 中文")["input_ids"]
    ids = [i for i in said if i < whisper.model.config.eos_token_id]
    monkeypatch.setattr(whisper.model, "generate", lambda *_, **__: torch.tensor([ids]))
    seen = listen(whisper, spoken[0])
    assert len(ids) > 4
    assert [word.text for word in seen.words] == ["né", "中文"]


def test_silence_says_nothing_and_a_part_of_a_long_file_is_heard(spoken, tmp_path):
    whisper, (samples, rate) = real("whisper"), soundfile.read(spoken[0], dtype="float32")
    soundfile.write(tmp_path / "silent.wav", np.zeros(3 * rate), rate)
    seen = listen(whisper, tmp_path / "silent.wav")
    assert seen.note == "No word was heard"
    assert (seen.text, seen.words, seen.shares.shape) == ("", [], (0, 150))
    for kind in (".html", ".svg", ".png", ".json", ".npz"):
        write_timeline(seen, tmp_path / f"silent{kind}")
    long = np.concatenate([np.zeros(40 * rate, np.float32), samples, np.zeros(5 * rate, np.float32)])
    soundfile.write(tmp_path / "long.wav", long, rate)
    seen = listen(whisper, tmp_path / "long.wav", start=39.0)
    assert seen.text == SENTENCES[0]
    assert "heard: 39.0 to" not in seen.note  # to the end
    assert "heard: 0.0 to 30.0 s of 48." in listen(whisper, tmp_path / "long.wav").note
    data = timeline_as_data(seen)
    assert 39.5 < data["words"][0]["start"] < 40.8


def test_everything_is_written(spoken, tmp_path):
    seen = replace(listen(real("whisper"), spoken[0]), command="recuerdo look")
    assert np.allclose(seen.shares.sum(1), 1)
    starts = [word.start for word in seen.words]
    assert starts == sorted(starts)
    for kind in (".html", ".svg", ".png", ".json", ".npz"):
        write_timeline(seen, tmp_path / f"x{kind}")
        assert (tmp_path / f"x{kind}").stat().st_size > 500
    page = (tmp_path / "x.html").read_text()
    assert page.count("<button") == len(seen.words) == 13
    assert "data:audio/wav;base64,UklGR" in page
    assert json.loads((tmp_path / "x.json").read_text()) == timeline_as_data(seen)
    with np.load(tmp_path / "x.npz") as told:
        assert told["words"].tolist() == [word.text for word in seen.words]
        assert told["start"].tolist() == starts
    assert timeline_as_text(seen).splitlines()[0] == SENTENCES[0]
    with pytest.raises(InputError, match="has no kind that can be written"):
        write_timeline(seen, tmp_path / "x.txt")
    with pytest.raises(InputError, match="cannot be written"):
        write_timeline(seen, tmp_path / "no" / "x.html")


def test_the_door(spoken, tmp_path):
    real("whisper")
    asked = ["look", "--audio", str(spoken[0])]
    assert SENTENCES[0] in CliRunner().invoke(app, asked).stdout
    assert json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout)["text"] == SENTENCES[0]
    assert "wrote" in CliRunner().invoke(app, [*asked, "--out", str(tmp_path / "x.html")]).stdout
    for more, words in (
        (["--text", "a"], "--audio stands alone"),
        (["--layer", "1"], "--audio stands alone"),
        (["--start", "99"], "has nothing from 99.0 s on: start earlier"),
        (["--out", "x.txt"], "x.txt has no kind that can be written"),
        (["--image", "a.png"], "--image stands alone"),
    ):
        told = CliRunner().invoke(app, [*asked, *more])
        assert isinstance(told.exception, InputError)
        assert words in str(told.exception)


def test_who_does_not_listen(spoken):
    with pytest.raises(ModelError, match="does not listen to sound: choose whisper"):
        listen(Loaded("bert", "encoder", build("bert"), None, None), spoken[0])
