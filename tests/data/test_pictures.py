"""Pictures of every kind that people have come out right, or end in one line; none takes more memory than it may."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from recuerdo.data.pictures import colours, grey, png
from recuerdo.errors import InputError


@pytest.fixture
def ramp():
    """Red goes down, green goes across."""
    down, across = np.mgrid[0:20, 0:30]
    return np.stack([down * 12, across * 8, np.full_like(down, 40)], -1).astype(np.uint8)


def test_colours_and_grey_of_plain_files(tmp_path, ramp):
    Image.fromarray(ramp).save(tmp_path / "a.png")
    Image.fromarray(ramp).save(tmp_path / "a.jpg", quality=95)
    assert torch.equal(colours(tmp_path / "a.png"), torch.from_numpy(ramp).permute(2, 0, 1))
    assert (colours(tmp_path / "a.jpg").float() - colours(tmp_path / "a.png").float()).abs().mean() < 4
    wanted = ramp @ np.array([0.299, 0.587, 0.114])
    assert np.abs(grey(tmp_path / "a.png").numpy() - wanted).max() <= 1
    for pixels in (colours(tmp_path / "a.png"), grey(tmp_path / "a.png")):
        (tmp_path / "b.png").write_bytes(png(pixels))
        assert torch.equal((colours if pixels.dim() == 3 else grey)(tmp_path / "b.png"), pixels)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr"])
def test_modes(tmp_path, ramp, mode):
    file = tmp_path / ("a.tif" if mode in ("CMYK", "YCbCr", "LAB") else "a.bmp" if mode == "1" else "a.png")
    Image.fromarray(ramp).convert(mode).save(file)
    assert colours(file).shape == (3, 20, 30)
    light = grey(file)
    assert light.dtype == torch.uint8
    assert light[-1].float().mean() > light[0].float().mean()


def test_colours_that_cannot_be_turned_into_ours_are_one_line(tmp_path):
    Image.new("LAB", (3, 3)).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match="is no picture that can be read"):
        grey(tmp_path / "a.tif")


def test_16_bits_and_floats(tmp_path):
    deep = (np.arange(600).reshape(20, 30) * 100).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "a.png")
    Image.fromarray(deep).save(tmp_path / "a.tif")
    Image.fromarray(deep.astype(np.float32) - 500).save(tmp_path / "f.tif")
    for name in ("a.png", "a.tif"):
        assert np.abs(grey(tmp_path / name).numpy() - deep / 257).max() <= 1
    spread = grey(tmp_path / "f.tif").float()
    assert (spread.min(), spread.max()) == (0, 255)
    odd = deep.astype(np.float32)
    odd[0, 0], odd[0, 1] = np.nan, np.inf
    Image.fromarray(odd).save(tmp_path / "n.tif")
    assert grey(tmp_path / "n.tif").shape == (20, 30)


def test_what_is_transparent_shows_white(tmp_path, ramp):
    with_alpha = np.dstack([ramp, np.zeros((20, 30), np.uint8)])
    with_alpha[:, 15:, 3] = 255
    Image.fromarray(with_alpha).save(tmp_path / "a.png")
    found = colours(tmp_path / "a.png").permute(1, 2, 0).numpy()
    assert (found[:, :15] == 255).all()
    assert (found[:, 15:] == ramp[:, 15:]).all()


def test_the_camera_is_turned_back_and_broken_metadata_says_nothing(tmp_path, ramp):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(ramp).save(tmp_path / "a.jpg", exif=exif, quality=95)
    assert colours(tmp_path / "a.jpg").shape == (3, 30, 20)
    Image.fromarray(ramp).save(tmp_path / "b.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\x99" * 30)
    assert colours(tmp_path / "b.jpg").shape == (3, 20, 30)


def test_of_an_animation_the_first_frame(tmp_path):
    frames = [Image.new("L", (9, 7), shade) for shade in (200, 10, 90)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (grey(tmp_path / "a.gif") == 200).all()


def test_one_pixel(tmp_path):
    Image.new("L", (1, 1), 77).save(tmp_path / "a.png")
    assert grey(tmp_path / "a.png").tolist() == [[77]]


def promised(wide, high):
    """A PNG of some bytes that promises so many pixels."""
    chunks = b""
    head = struct.pack(">IIBBBBB", wide, high, 8, 0, 0, 0, 0)
    for kind, body in ((b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")):
        chunks += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return b"\x89PNG\r\n\x1a\n" + chunks


def test_what_cannot_be_read_is_one_line(tmp_path, ramp):
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3)).astype(np.uint8)).save(whole, "PNG")
    for content, words in (
        (b"", "is no picture that can be read"),
        (b"GIF89a", "is no picture that can be read"),
        (b"no picture at all", "is no picture that can be read"),
        (whole.getvalue()[:5000], "is no picture that can be read"),
        (promised(20_000, 10_000), "has far more than 100 million pixels: make it smaller first"),
        (promised(12_000, 10_000), "has 12000 x 10000, more than 100 million pixels: make it smaller first"),
        (promised(2**31 - 1, 2**31 - 1), "more than 100 million|can be read"),
        (promised(500, 500), "is no picture that can be read"),
    ):
        (tmp_path / "x.png").write_bytes(content)
        for read in (colours, grey):
            with pytest.raises(InputError, match=words):
                read(tmp_path / "x.png")
    with pytest.raises(InputError, match="there is no picture"):
        grey(tmp_path / "none.png")
    with pytest.raises(InputError, match="is no picture that can be read"):
        grey(tmp_path)


def test_a_huge_promise_takes_no_memory(tmp_path):
    (tmp_path / "x.png").write_bytes(promised(60_000, 60_000))
    script = (
        "import resource, sys\n"
        "from recuerdo.data.pictures import grey\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    grey(sys.argv[1])\nexcept Exception as error:\n    print(type(error).__name__)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "x.png"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert done[0] == "InputError"
    assert int(done[1]) < 50_000  # kB


def test_without_pillow_the_way_out_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(InputError, match="pip install 'recuerdo\\[pictures\\]'"):
        grey(tmp_path / "a.png")
