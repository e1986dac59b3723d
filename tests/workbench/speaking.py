"""Speech whose word times are known: espeak-ng tells them as it speaks."""

import ctypes
from functools import cache

import numpy as np
import pytest

RETRIEVAL, WORD, RATE_OF_SPEECH, UTF8 = 1, 1, 1, 1


class _Id(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int), ("identifier", ctypes.c_uint), ("text_position", ctypes.c_int),
        ("length", ctypes.c_int), ("audio_position", ctypes.c_int), ("sample", ctypes.c_int),
        ("user", ctypes.c_void_p), ("id", _Id),
    )  # fmt: skip


_Heard = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@cache
def _engine():
    try:
        engine = ctypes.CDLL("libespeak-ng.so.1")
    except OSError:
        return None, 0
    return engine, engine.espeak_Initialize(RETRIEVAL, 0, None, 0)


def speak(text: str, *, speed: int = 150) -> tuple[np.ndarray, int, list[float]]:
    """Samples, how many of them a second, and when each word of the text begins."""
    engine, rate = _engine()
    if engine is None:
        pytest.skip("needs espeak-ng, whose word times are known: apt-get install espeak-ng")
    wave, starts = [], []

    def hear(samples, count, events):
        if count > 0:
            wave.append(np.ctypeslib.as_array(samples, (count,)).copy())
        i = 0
        while events[i].type:
            if events[i].type == WORD:
                starts.append(events[i].audio_position / 1000)
            i += 1
        return 0

    kept = _Heard(hear)
    engine.espeak_SetSynthCallback(kept)
    engine.espeak_SetVoiceByName(b"en-us")
    engine.espeak_SetParameter(RATE_OF_SPEECH, speed, 0)
    told = text.encode()
    engine.espeak_Synth(told, len(told) + 1, 0, 1, 0, UTF8, None, None)
    engine.espeak_Synchronize()
    return np.concatenate(wave).astype(np.float32) / 32768, rate, starts
