"""Sound of every kind that people have comes out right, or ends in one line; a long file takes no memory."""

import subprocess
import sys

import numpy as np
import pytest
import soundfile

from recuerdo.data.sound import resampled, sound, wav
from recuerdo.errors import InputError


def tone(seconds, rate, pitch=440.0):
    return 0.5 * np.sin(2 * np.pi * pitch * np.arange(int(seconds * rate)) / rate).astype(np.float32)


@pytest.mark.parametrize(
    ("kind", "channels"), [*((kind, n) for kind in ("wav", "flac", "ogg") for n in (1, 2, 8)), ("mp3", 1), ("mp3", 2)]
)
def test_kinds_and_channels(tmp_path, kind, channels):
    soundfile.write(tmp_path / f"a.{kind}", np.repeat(tone(2, 44_100)[:, None], channels, 1), 44_100)
    told = sound(tmp_path / f"a.{kind}", rate=16_000)
    assert told.seconds == pytest.approx(2, abs=0.1)
    assert told.samples.dtype == np.float32
    middle = told.samples[8000:24_000]
    heard = np.abs(np.fft.rfft(middle)).argmax() * 16_000 / len(middle)
    assert heard == pytest.approx(440, abs=2)
    assert np.abs(middle).max() == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("own", [8000, 11_025, 16_000, 22_050, 48_000])
def test_another_rate_is_the_same_sound(own):
    for seconds in (0.001, 0.5, 1.37):
        new = resampled(tone(seconds, own, 300.0), own, 16_000)
        assert len(new) == pytest.approx(seconds * 16_000, abs=2)
        if seconds > 0.1:
            assert np.abs(new - tone(1.5, 16_000, 300.0)[: len(new)])[200:-200].max() < 0.01
    assert len(resampled(np.zeros(1, np.float32), own, 16_000)) >= 1


def test_what_is_too_high_is_gone():
    assert np.abs(resampled(tone(1, 48_000, 12_000.0), 48_000, 16_000))[500:-500].max() < 0.01


def test_only_a_part_is_taken(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.concatenate([tone(40, 8000, 200.0), tone(5, 8000, 900.0)]), 8000)
    told = sound(tmp_path / "a.wav", rate=8000, start=38, seconds=4)
    assert (told.start, told.whole, told.seconds) == (38, 45, 4)
    assert np.abs(told.samples - np.concatenate([tone(40, 8000, 200.0)[-16_000:], tone(2, 8000, 900.0)])).max() < 1e-3


def test_a_wav_comes_back(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav(tone(1, 16_000), 16_000))
    assert np.abs(sound(tmp_path / "a.wav", rate=16_000).samples - tone(1, 16_000)).max() < 1e-4


def test_what_cannot_be_heard_is_one_line(tmp_path):
    whole = wav(tone(1, 16_000), 16_000)
    for content, words in ((b"", "is no sound"), (b"RIFF", "is no sound"), (b"no sound at all" * 99, "is no sound")):
        (tmp_path / "x.wav").write_bytes(content)
        with pytest.raises(InputError, match=words):
            sound(tmp_path / "x.wav", rate=16_000)
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2])
    assert sound(tmp_path / "cut.wav", rate=16_000).seconds == pytest.approx(0.5, abs=0.01)
    (tmp_path / "head.wav").write_bytes(whole[:44])
    with pytest.raises(InputError, match="nothing"):
        sound(tmp_path / "head.wav", rate=16_000)
    soundfile.write(tmp_path / "n.wav", np.array([0.0, np.nan]), 16_000, subtype="FLOAT")
    with pytest.raises(InputError, match="holds values that are no numbers"):
        sound(tmp_path / "n.wav", rate=16_000)
    with pytest.raises(InputError, match="is no sound that can be read \\(there is no such file\\)"):
        sound(tmp_path / "none.wav", rate=16_000)
    (tmp_path / "a.wav").write_bytes(whole)
    with pytest.raises(InputError, match="has nothing from 2.0 s on: start earlier"):
        sound(tmp_path / "a.wav", rate=16_000, start=2)
    with pytest.raises(InputError, match="starts at 0 or later"):
        sound(tmp_path / "a.wav", rate=16_000, start=-1)
    soundfile.write(tmp_path / "many.wav", np.zeros((10, 65)), 16_000)
    with pytest.raises(InputError, match="has 65 channels, more than 64: mix it down first"):
        sound(tmp_path / "many.wav", rate=16_000)


def test_ten_hours_take_no_memory(tmp_path):
    with soundfile.SoundFile(tmp_path / "long.flac", "w", 8000, 1) as told:
        for _ in range(360):
            told.write(np.zeros(800_000, np.int16))
    script = (
        "import resource, sys\n"
        "from recuerdo.data.sound import sound\n"
        "import soundfile\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(sound(sys.argv[1], rate=16000, start=35000).whole)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "long.flac"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert float(done[0]) == 36_000
    assert int(done[1]) < 60_000  # kB


def test_without_soundfile_the_way_out_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(InputError, match="pip install 'recuerdo\\[audio\\]'"):
        sound(tmp_path / "a.wav", rate=16_000)
