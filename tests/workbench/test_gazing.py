"""Looks at pictures: the maps are those of eager attention, patches lie where they say, and everything can be written."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from recuerdo.bridge.run import Loaded
from recuerdo.bridge.seeing import PictureEncoder, _ready, hear_picture
from recuerdo.cli.app import app
from recuerdo.errors import InputError, ModelError
from recuerdo.explain.gaze import gaze
from recuerdo.explain.render.gazed import gaze_as_data, gaze_as_text, write_gaze
from recuerdo.workbench.gazing import look_at
from tests.bridge.families import build
from tests.bridge.test_real_models import real

KINDS = ["vit", "clip vision", "dinov2"]


def loaded(name):
    return Loaded(name, "vision", build(name).eval(), None, None)


@pytest.fixture
def photo(tmp_path):
    """Wider than high; its lower right corner is light."""
    pixels = np.zeros((60, 90, 3), np.uint8)
    pixels[30:, 60:] = 240
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def eager(model, pixels, **more):
    """Weights of every layer, [layers][heads, n, n], by the model's own eager attention."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    with torch.no_grad():
        found = [w[0].double().numpy() for w in model(pixel_values=pixels, output_attentions=True, **more).attentions]
    model.set_attn_implementation(before)
    return found


def rolled(weights):
    flow = np.eye(weights[0].shape[-1])
    for layer in weights:
        flow = (0.5 * layer.mean(0) + 0.5 * np.eye(len(flow))) @ flow
    return flow[0]


@pytest.mark.parametrize("name", KINDS)
def test_maps_are_those_of_eager_attention(name, photo):
    told = loaded(name)
    seen = look_at(told, photo, patches=24)
    assert seen.grid == (4, 6)  # the picture's own shape
    more = {} if name == "dinov2" else {"interpolate_pos_encoding": True}
    weights = eager(told.model, _ready(seen.picture, (32, 48), None), **more)
    for one, row in zip(seen.maps, (weights[-1].mean(0)[0], rolled(weights)), strict=True):
        assert np.abs(one.shares - row[1:].reshape(4, 6) / row[1:].sum()).max() < 1e-5
        assert one.aside == pytest.approx(row[0], abs=1e-5)
        assert one.shares.sum() == pytest.approx(1.0)
    for head, one in enumerate(seen.heads):
        row = weights[-1][head, 0, 1:]
        assert np.abs(one.shares - row.reshape(4, 6) / row.sum()).max() < 1e-5
    first = look_at(told, photo, patches=24, layer=0, head=2, view="rollout")
    assert [one.name for one in first.maps] == ["rollout", "raw"]
    row = weights[0][2, 0, 1:]
    assert np.abs(first.maps[1].shares - row.reshape(4, 6) / row.sum()).max() < 1e-5
    assert np.array_equal(
        look_at(told, photo, patches=24, layer=-2).maps[0].shares,
        look_at(told, photo, patches=24, layer=0).maps[0].shares,
    )


def test_dinov2_itself_equals_eager(photo):
    told = real("dinov2")
    seen = look_at(told, photo, patches=150)
    height, width = (14 * side for side in seen.grid)
    weights = eager(told.model, _ready(seen.picture, (height, width), told.folder))
    for one, row in zip(seen.maps, (weights[-1].mean(0)[0], rolled(weights)), strict=True):
        assert np.abs(one.shares - row[1:].reshape(seen.grid) / row[1:].sum()).max() < 1e-5


@pytest.mark.parametrize("name", KINDS)
def test_cells_are_the_last_layer_as_it_stands(name):
    told = loaded(name)
    size, patch = told.model.config.image_size, told.model.config.patch_size
    side = 6 if name == "dinov2" else size // patch
    pictures = [torch.randint(0, 256, (3, *shape)).byte() for shape in ((40, 70), (64, 64))]
    cells = PictureEncoder(told)(pictures, side // 2)
    assert cells.shape == (2, side // 2, side // 2, told.model.config.hidden_size)
    assert cells.dtype == torch.float16
    ready = torch.cat([_ready(one, (side * patch, side * patch), None) for one in pictures])
    with torch.no_grad():
        more = {} if name == "dinov2" else {"interpolate_pos_encoding": True}
        states = told.model(pixel_values=ready, **more).last_hidden_state[:, -side * side :]
    wanted = states.view(2, side // 2, 2, side // 2, 2, -1).mean((2, 4))
    assert torch.allclose(cells.float(), wanted, rtol=1e-3, atol=2e-3)  # float16


def test_cells_that_cannot_be():
    with pytest.raises(InputError, match="a picture is cut into 1 cell a side or more, not 0"):
        PictureEncoder(loaded("vit"))([], 0)
    with pytest.raises(ModelError, match="reads no pictures: choose dinov2, or another vision transformer"):
        PictureEncoder(replace(loaded("vit"), kind="encoder"))


def test_without_a_class_token_all_patches_are_asked():
    told = loaded("dinov2")
    heard = hear_picture(told, torch.randint(0, 255, (3, 32, 32), dtype=torch.uint8), patches=16)
    assert heard.first == 1
    reads = heard.reads
    maps, heads = gaze(reads, (1, 17), 0)  # as if all 17 tokens were patches
    whole = [reading.weights[:, :][0].double().numpy() for reading in reads.values()]
    assert np.abs(maps[0].shares[0] - whole[-1].mean(0).mean(0)).max() < 1e-6
    assert maps[0].aside == pytest.approx(0.0)
    assert "the patches, on average" in heads[0].note


def test_a_patch_is_where_it_says(photo):
    """What changes in one box of the picture changes what is seen of its patch first, and `box` is that box."""
    told = loaded("dinov2")
    seen = look_at(told, photo, patches=24)
    assert seen.box(0, 0) == (0, 0, 15, 15)
    assert seen.box(3, 5) == (45, 75, 60, 90)
    ready = [_ready(picture, (32, 48), None) for picture in (seen.picture, seen.picture.clone())]
    changed = seen.picture.clone()
    changed[:, 15:30, 30:45] = 200
    off = (_ready(changed, (32, 48), None) - ready[0]).abs().sum((0, 1))
    at = off.view(4, 8, 6, 8).sum((1, 3))
    assert divmod(int(at.argmax()), 6) == (1, 2)
    assert at[1, 2] > 0.7 * at.sum()


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1), (33, 17)])
@pytest.mark.parametrize("name", KINDS)
def test_any_size(tmp_path, name, size):
    Image.new("RGB", size, (10, 200, 30)).save(tmp_path / "x.png")
    seen = look_at(loaded(name), tmp_path / "x.png", patches=12)
    assert seen.maps[0].shares.size <= 24
    assert np.isfinite(seen.maps[0].shares).all()


def test_a_model_of_one_size_sees_the_whole_picture(photo, monkeypatch):
    monkeypatch.setattr("recuerdo.bridge.seeing._takes", lambda model, name: False)
    seen = look_at(loaded("vit"), photo)
    assert seen.grid == (4, 4)
    assert seen.box(3, 3) == (45, 67.5, 60, 90)


def test_scaled_as_the_folder_says(tmp_path):
    pixels = torch.full((3, 8, 8), 255, dtype=torch.uint8)
    torch.testing.assert_close(
        _ready(pixels, (8, 8), tmp_path)[0, :, 0, 0],
        (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225]),
    )
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.5, 1.0]}')
    torch.testing.assert_close(_ready(pixels, (8, 8), tmp_path)[0, :, 0, 0], torch.tensor([2.0, 1.0, 0.5]))
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(ModelError, match="is no JSON"):
        _ready(pixels, (8, 8), tmp_path)


def test_everything_is_written(photo, tmp_path):
    seen = replace(look_at(loaded("dinov2"), photo, patches=24), command="recuerdo look <b>")
    for kind in (".html", ".svg", ".png", ".json", ".npz"):
        write_gaze(seen, tmp_path / f"x{kind}")
        assert (tmp_path / f"x{kind}").stat().st_size > 500
    page = (tmp_path / "x.html").read_text()
    maps = json.loads(re.search(r'id="maps">(.*?)</script>', page)[1])
    assert len(maps) == 2 + 4
    assert np.abs(np.array(maps[0]["shares"]) - seen.maps[0].shares).max() < 1e-4
    data = json.loads((tmp_path / "x.json").read_text())
    assert data == gaze_as_data(seen)
    assert (data["size"], data["grid"], data["kind"]) == ([60, 90], [4, 6], "picture")
    with np.load(tmp_path / "x.npz") as told:
        assert np.array_equal(told["raw"], seen.maps[0].shares)
        assert set(told) == {"raw", "rollout", "head_0", "head_1", "head_2", "head_3"}
    lines = gaze_as_text(seen).splitlines()
    assert all(len(line) == 12 for line in lines[2:6])
    assert lines[-1].startswith("most: rows ")
    with pytest.raises(InputError, match="has no kind that can be written: name it .html, .svg, .png, .json or .npz"):
        write_gaze(seen, tmp_path / "x.txt")
    with pytest.raises(InputError, match="cannot be written"):
        write_gaze(seen, tmp_path / "no" / "x.html")


def test_what_cannot_be(photo, tmp_path):
    told = loaded("vit")
    for more, words in (
        ({"layer": 2}, "there is no layer 2: this model has layers 0 to 1"),
        ({"layer": -3}, "there is no layer -3"),
        ({"head": 4}, "there is no head 4: this model has heads 0 to 3"),
        ({"view": "lift"}, "there is no view 'lift' of a picture: choose raw or rollout"),
        ({"patches": 0}, "a picture is cut into 1 patch or more, not 0"),
    ):
        with pytest.raises(InputError, match=words):
            look_at(told, photo, **more)
    with pytest.raises(InputError, match="there is no picture"):
        look_at(told, tmp_path / "none.png")
    with pytest.raises(InputError, match="a picture is \\[3, height, width\\]"):
        hear_picture(told, torch.zeros(4, 4))
    with pytest.raises(ModelError, match="reads no pictures: choose dinov2"):
        look_at(Loaded("bert", "encoder", build("bert"), None, None), photo)


def test_the_door(photo, tmp_path):
    build("dinov2").save_pretrained(tmp_path / "model")
    asked = ["look", "--model", str(tmp_path / "model"), "--image", str(photo)]
    told = CliRunner().invoke(app, asked)
    assert told.exit_code == 0, told.output
    assert "most: rows" in told.stdout
    data = json.loads(CliRunner().invoke(app, [*asked, "--json", "--layer", "0", "--view", "rollout"]).stdout)
    assert [view["name"] for view in data["views"]] == ["rollout", "raw"]
    assert "layer 0" in data["views"][1]["note"]
    told = CliRunner().invoke(app, [*asked, "--out", str(tmp_path / "x.html")])
    assert "wrote" in told.stdout
    for more, words in (
        (["--text", "a"], "--image stands alone: leave texts, questions, targets and sound away"),
        (["--out", "x.txt"], "x.txt has no kind that can be written"),
    ):
        told = CliRunner().invoke(app, [*asked, *more])
        assert isinstance(told.exception, InputError)
        assert words in str(told.exception)
