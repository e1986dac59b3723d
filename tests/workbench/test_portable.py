"""What is written as ONNX says and reads the same, in a runtime that knows nothing of torch."""

import sys

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from recuerdo.cli.app import app
from recuerdo.data.subwords import BEGIN, END, LEAST, PAD, Subwords
from recuerdo.errors import InputError, RunError
from recuerdo.models.transformer import Transformer
from recuerdo.read import watch
from recuerdo.workbench import portable
from recuerdo.workbench.portable import export_onnx
from recuerdo.workbench.recipe import resolve
from recuerdo.workbench.running import open_run, train

LINES = ["red house", "old dog sees blue tree", "tree", "the the red"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    for name in ("train", "valid"):
        (folder / f"{name}.tsv").write_text("red house\trotes haus\nold dog sees blue tree\talter hund\n" * 9)
    content = {
        "task": "translate",
        "data": {
            "data": "files", "folder": str(folder), "pieces": LEAST + 20, "tokens": 300,
            "train": ["train.tsv"], "valid": ["valid.tsv"],
        },
        "model": {"name": "transformer", "width": 32, "heads": 2, "inner": 64, "layers": 2, "dropout": 0.1},
        "train": {"steps": 30, "lr": 4e-3},
    }  # fmt: skip
    for _ in train(resolve("made", content), folder / "run", seed=0):
        pass
    return folder / "run"


@pytest.fixture(scope="module")
def exported(run):
    """Written once, by the command: torch takes seconds for it."""
    folder = run.parent / "portable"
    told = CliRunner().invoke(app, ["export", str(run), "--to", "onnx", "--out", str(folder)])
    assert told.exit_code == 0, told.output
    assert {file.name for file in folder.iterdir()} == {"model.onnx", "subwords.json"}
    assert "MB, model.onnx: source and what was told" in told.output
    return folder


@torch.no_grad()
def test_it_says_and_reads_the_same(run, exported):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(exported / "model.onnx"))
    trained = open_run(run)
    model, cut = trained.model.eval(), Subwords((exported / "subwords.json").read_text(encoding="utf-8"))
    rows = cut.encode(LINES)
    source = torch.full((len(rows), max(map(len, rows))), PAD)
    for row, ids in zip(source, rows, strict=True):
        row[: len(ids)] = torch.tensor(ids)
    said, begun = torch.full((len(rows), 1), BEGIN), model.begin(source)
    for _ in range(12):
        logits, weights = session.run(None, {"source": source.numpy(), "told": said.numpy()})
        with watch(model) as seen:
            ours = model.step(said[:, -1], begun)
        ours[:, [PAD, BEGIN]] = -1e9
        keep = [i for i in range(ours.shape[1]) if i not in (PAD, BEGIN)]
        np.testing.assert_allclose(logits[:, keep], ours[:, keep].numpy(), atol=1e-4)
        assert logits[:, [PAD, BEGIN]].max() < -1e8
        for layer in range(2):
            want = seen[f"decoder.{layer}.cross"].weights[:, :].view(weights[:, layer].shape)
            np.testing.assert_allclose(weights[:, layer], want.numpy(), atol=1e-5)
        said = torch.cat([said, torch.from_numpy(logits.argmax(-1))[:, None]], 1)
    ours = [cut.decode([*row[1:].tolist(), END][: [*row[1:].tolist(), END].index(END)]) for row in said]
    assert ours == [line[: len(ours[i])] for i, line in enumerate(trained.task.say(model, LINES))]


def test_what_cannot_be_written(run, exported, tmp_path, monkeypatch):
    with pytest.raises(RunError, match="is there already: name a folder that is not"):
        export_onnx(run, exported)
    with pytest.raises(InputError, match="only a Transformer that translates is written as ONNX"):
        export_onnx("babi-reader", tmp_path / "x")
    told = CliRunner().invoke(app, ["export", str(run), "--to", "onnx", "--type", "int8", "--out", str(tmp_path / "x")])
    assert isinstance(told.exception, InputError)
    assert "ONNX is written in float32, not in int8: leave --type out" in str(told.exception)
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(portable, "_written", lambda model: b"")
    with pytest.raises(RunError, match="cannot be written"):
        export_onnx(run, tmp_path / "file" / "x")
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match="what writes ONNX is not installed: pip install 'recuerdo.onnx.'"):
        export_onnx(run, tmp_path / "x")
    monkeypatch.undo()
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: None)
    with pytest.raises(RunError, match="torch gave no ONNX program"):
        portable._written(portable._Next(Transformer(9, width=8, heads=2, inner=8, layers=1)))
