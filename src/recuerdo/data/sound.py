"""Sound from files: one channel, at the rate that is asked for, and only as much of it as is asked for.

libsndfile decodes (WAV, FLAC, Ogg, MP3 …). A file of many hours costs no more than the seconds that are taken of it.
"""

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recuerdo.errors import InputError

CHANNELS = 64  # at most


@dataclass(frozen=True)
class Sound:
    """`samples` [n] float32 from -1 to 1, `rate` of them a second, from `start` on; the file holds `whole` seconds."""

    samples: np.ndarray
    rate: int
    start: float
    whole: float

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.samples) / self.rate


def sound(path: str | Path, *, rate: int, start: float = 0.0, seconds: float = 30.0) -> Sound:
    """So many seconds of a file from `start` on, the mean of its channels, at `rate` samples a second.

    Raises InputError for a file that cannot be read, and why; for a start behind its end; for nothing to take.
    """
    library = _library()
    if not (start >= 0 and seconds > 0):
        raise InputError(f"a part of a sound starts at 0 or later and is longer than 0: not {start} and {seconds}")
    try:
        with library.SoundFile(path) as told:
            own, whole = int(told.samplerate), told.frames / told.samplerate
            if told.channels > CHANNELS:
                raise InputError(f"{path} has {told.channels} channels, more than {CHANNELS}: mix it down first")
            if start >= whole:
                raise InputError(f"{path} is {whole:.1f} s long and has nothing from {start:.1f} s on: start earlier")
            told.seek(int(start * own))
            read = told.read(int(np.ceil(seconds * own)), dtype="float32", always_2d=True).mean(1)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"there is no sound {path}") from None
    except Exception as error:  # noqa: BLE001  libsndfile raises its own kinds
        missing = not Path(path).exists()
        fact = "there is no such file" if missing else (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{path} is no sound that can be read ({fact}): give a WAV, FLAC, Ogg or MP3 file") from None
    if not len(read):
        raise InputError(f"{path} is cut short: nothing can be heard from {start:.1f} s on")
    if not np.isfinite(read).all():
        raise InputError(f"{path} holds values that are no numbers: write it again as 16-bit WAV")
    return Sound(resampled(read, own, rate), rate, start, whole)


def resampled(samples: np.ndarray, own: int, rate: int) -> np.ndarray:
    """The same sound at another rate, band-limited: its Fourier coefficients, cut off or filled up with zeros. A border
    of reflected samples keeps beginning and end apart."""
    if own == rate or not len(samples):
        return samples.astype(np.float32)
    unit = own // math.gcd(own, rate)  # so many samples are a whole number of them at the new rate, too
    border = unit * max(1, own // 50 // unit)
    border = border if border < len(samples) else 0
    more = -(len(samples) + 2 * border) % unit
    wide = np.pad(samples.astype(np.float64), border, mode="reflect")
    wide = np.pad(wide, (0, more), mode="edge")
    count = max(1, len(wide) * rate // own)
    told, new = np.fft.rfft(wide), np.zeros(count // 2 + 1, complex)
    shared = min(len(told), len(new))
    new[:shared] = told[:shared]
    first, length = border * rate // own, max(1, round(len(samples) * rate / own))
    return (np.fft.irfft(new, count) * (count / len(wide)))[first : first + length].astype(np.float32)


def wav(samples: np.ndarray, rate: int) -> bytes:
    """A WAV file of one channel and 16 bits."""
    out = io.BytesIO()
    _library().write(out, samples, rate, format="WAV", subtype="PCM_16")
    return out.getvalue()


def _library() -> Any:
    try:
        import soundfile
    except ImportError:
        raise InputError("sound needs soundfile: pip install 'recuerdo[audio]'") from None
    return soundfile
