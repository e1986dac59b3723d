"""What translating costs: a training step against plain torch, and decoding against CTranslate2 and without kept keys.

python benchmarks/translate.py                    all of it; some minutes on one core
python benchmarks/translate.py --quick            fewer rounds, under 50 s
python benchmarks/translate.py training decoding  only these sections

One thread, CPU seconds, interleaved. What is trained is a Transformer of 4 + 4 layers, 128 wide, over 4,000 pieces, with
the parameters that it starts with: what a step costs does not depend on them. What speaks is the translator that is in
the package, from French to English, 3 + 3 layers, 192 wide, over 6,000 pieces: when a line ends does depend on that.
Sentences are those of Multi30k in the data folder; without it, made-up ones. CTranslate2 is
compared with where it is installed (pip install 'recuerdo[export]'), and Joey NMT 2.3 where it can be imported; what it
pins is old, so beside what is here, and then with PYTHONPATH=peers:

pip install --no-deps --target peers joeynmt importlib_metadata lazy_importer zipp tensorboard subword_nmt
"""

import gzip
import importlib.util
import math
import os
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

from measure import ROOT, Report, arguments, interleaved, median, ratio

import torch  # isort: skip  (after measure has set the wait policy)
from torch import Tensor, nn
from torch.nn import functional

from recuerdo.data.parallel import Bilingual, aligned, batch, padded
from recuerdo.data.subwords import END, LEAST, PAD, Subwords
from recuerdo.models.transformer import Transformer
from recuerdo.nn.decoding import beam, greedy
from recuerdo.nn.places import sinusoids
from recuerdo.nn.saying import loss_of_saying
from recuerdo.workbench.running import open_run

PIECES, LONGEST = 4000, 80
SIZES = {"width": 128, "heads": 4, "inner": 256, "layers": 4, "dropout": 0.3}


class Plain(nn.Module):
    """The same network as people write it with torch's own layers."""

    def __init__(self):
        super().__init__()
        self.piece = nn.Embedding(PIECES, 128, padding_idx=PAD)
        nn.init.normal_(self.piece.weight, 0, 128**-0.5)
        self.body = nn.Transformer(128, 4, 4, 4, 256, 0.3, batch_first=True, norm_first=True)
        self.drop = nn.Dropout(0.3)

    def forward(self, source: Tensor, told: Tensor) -> Tensor:
        x, y = (
            self.drop(self.piece(z) * math.sqrt(128) + sinusoids(0, z.shape[1], 128, self.piece.weight))
            for z in (source, told)
        )
        gone, later = source == PAD, nn.Transformer.generate_square_subsequent_mask(told.shape[1])
        mixed = self.body(
            x, y, tgt_mask=later, src_key_padding_mask=gone, memory_key_padding_mask=gone, tgt_is_causal=True
        )
        return functional.linear(mixed, self.piece.weight)


def pairs(count: int) -> tuple[list[tuple[list[int], list[int]]], Subwords | None]:
    """So many pairs of pieces, and the subwords that they are of; made-up ones where there is no data."""
    folder = _multi30k()
    if (folder / "train.lc.norm.tok.en.gz").is_file():
        told = aligned(folder / "train.lc.norm.tok.en.gz", folder / "train.lc.norm.tok.fr.gz")
        cut = Subwords.learn([side for pair in told for side in pair], PIECES)
        some = told[:count]
        return list(zip(cut.encode([a for a, _ in some]), cut.encode([b for _, b in some]), strict=True)), cut
    print("translate: no Multi30k in the data folder, so pieces are made up", file=sys.stderr)
    draw = torch.Generator().manual_seed(0)
    sizes = torch.randint(8, 30, (count, 2), generator=draw).tolist()
    rows = [[torch.randint(LEAST, PIECES, (n,), generator=draw).tolist() + [2] for n in size] for size in sizes]
    return [(a, b) for a, b in rows], None


def _multi30k() -> Path:
    return Path(os.environ.get("RECUERDO_DATA", ROOT.parent / "shared/data")) / "multi30k"


def training(report: Report, quick: bool) -> None:
    """A step with its optimiser, on one batch of about 3,000 pieces on either side."""
    told, _ = pairs(29_000)
    middle = sorted(told, key=lambda pair: len(pair[0]) + len(pair[1]))[14_000:14_130]
    some = batch(middle)
    pieces = len(some) + int((some.source != PAD).sum())
    rounds = 3 if quick else 9
    torch.manual_seed(0)
    variants = {
        "plain torch, float32": _step(Plain(), some, _loss_of_plain, "float32"),
        "plain torch, bfloat16": _step(Plain(), some, _loss_of_plain, "bfloat16"),
        "ours, float32": _step(Transformer(PIECES, **SIZES), some, _loss, "float32"),
        "ours, bfloat16": _step(Transformer(PIECES, **SIZES), some, _loss, "bfloat16"),
    }
    joey = importlib.util.find_spec("joeynmt") is not None
    if joey:
        variants["Joey NMT, float32"] = _joey(some, "float32")
        variants["Joey NMT, bfloat16"] = _joey(some, "bfloat16")
    else:
        print("translate: Joey NMT cannot be imported and is left out", file=sys.stderr)
    times = interleaved(variants, rounds)
    how = f"CPU s, median of {rounds}, {pieces} pieces of both sides"
    for name, spent in times.items():
        report.add(f"training: {name}", pieces / median(spent), "pieces/s", how=how)
    for name, base in (
        ("ours, bfloat16", "plain torch, float32"),
        ("ours, float32", "plain torch, float32"),
        ("ours, bfloat16", "plain torch, bfloat16"),
    ):
        report.add(f"{name}, against {base}", 1 / ratio(times, name, base), "x", against=base, how=how)
    for name, base, target in (
        ("ours, bfloat16", "Joey NMT, float32", ">= 1.5"),
        ("ours, bfloat16", "Joey NMT, bfloat16", ""),
        ("ours, float32", "Joey NMT, float32", ""),
    ):
        if joey:
            gain = 1 / ratio(times, name, base)
            report.add(f"{name}, against {base}", gain, "x", target=target, against=base, how=how)


def _joey(some: Bilingual, precision: str):
    """A step of Joey NMT's own Transformer and loss, of the same sizes, on the same pairs."""
    from joeynmt.model import build_model
    from joeynmt.vocabulary import Vocabulary

    names = {"unk": "<unk>", "pad": "<pad>", "bos": "<s>", "eos": "</s>"}
    marks = {f"{name}_token": token for name, token in names.items()}
    marks |= {f"{name}_id": number for number, name in enumerate(names)}
    words = Vocabulary([f"w{i}" for i in range(PIECES - 3)], SimpleNamespace(**marks, sep_token=None, lang_tags=[]))
    side = {
        "type": "transformer",
        "num_layers": 4,
        "num_heads": 4,
        "embeddings": {"embedding_dim": 128, "scale": True, "dropout": 0.3},
        "hidden_size": 128,
        "ff_size": 256,
        "dropout": 0.3,
        "layer_norm": "pre",
    }
    told = {"encoder": side, "decoder": side, "tied_embeddings": True, "tied_softmax": True}
    model = build_model(told, words, words)
    model.loss_function = ("crossentropy", 0.1)
    # Its unknown piece stands before ours.
    source, before, target = (side + 1 for side in (some.source, some.told, some.target))
    given = {
        "src": source,
        "src_mask": (source != PAD + 1)[:, None],
        "src_length": (source != PAD + 1).sum(1),
        "trg_input": before,
        "trg": target,
        "trg_mask": (target != PAD + 1)[:, None],
    }

    def loss(model, some: Bilingual) -> Tensor:
        return model(return_type="loss", **given)[0] / len(some)

    return _step(model, some, loss, precision)


def _loss(model: Transformer, some: Bilingual) -> Tensor:
    wanted = some.target[some.target != PAD]
    return loss_of_saying(model.hear(some.source, some.told), model.table, wanted, smoothing=0.1)


def _loss_of_plain(model: Plain, some: Bilingual) -> Tensor:
    logits = model(some.source, some.told).float()
    return functional.cross_entropy(logits.flatten(0, 1), some.target.flatten(), ignore_index=PAD, label_smoothing=0.1)


def _step(model, some, loss, precision):
    rule = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True, foreach=False)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            told = loss(model, some)
        told.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        rule.step()
        rule.zero_grad()

    return step


@torch.no_grad()
def decoding(report: Report, quick: bool) -> None:
    """Greedy and beam search of whole batches and of one line, with the translator that is in the package."""
    trained = open_run("translate-fr-en")
    model, cut = trained.model.eval(), Subwords(trained.task.subwords)
    rows = sorted(cut.encode(lines(400 if quick else 1000)), key=len)
    sets = {size: [rows[i : i + size] for i in range(0, len(rows), size)] for size in (100, 1)}
    sets[1] = sets[1][:: 25 if quick else 10]
    engine = _engine(model, cut)
    rounds = 3 if quick else 5
    for name, size, width in (
        ("greedy, batches of 100", 100, 1),
        ("beam of 5, batches of 100", 100, 5),
        ("greedy, one line at a time", 1, 1),
    ):
        parts = sets[size][1 : 2 if quick and width > 1 else None] if size > 1 else sets[size]
        variants = {"ours": lambda parts=parts, width=width: [_say(model, part, width) for part in parts]}
        if engine is not None:
            variants["CTranslate2"] = lambda parts=parts, width=width: [engine(part, width) for part in parts]
        times = interleaved(variants, rounds)
        count, how = sum(map(len, parts)), f"CPU s, median of {rounds}, {sum(map(len, parts))} lines"
        report.add(f"{name}: ours", count / median(times["ours"]), "lines/s", how=how)
        if engine is not None:
            aim = {"greedy, one line at a time": 0.3}.get(name, 0.6)
            value = ratio(times, "CTranslate2", "ours")
            report.add(
                f"{name}, ours against CTranslate2 float32", value, "x", target=f">= {aim}", ok=value >= aim, how=how
            )
            same = [
                a == b for part in parts for a, b in zip(_say(model, part, width), engine(part, width), strict=True)
            ]
            report.add(f"{name}: the same pieces as CTranslate2", sum(same) / len(same), "of lines", how=how)
    parts = sets[100][1:2] if quick else sets[100]
    variants = {
        "ours": lambda: [_say(model, part, 1) for part in parts],
        "anew": lambda: [_anew(model, padded(part)) for part in parts],
    }
    rounds = 3 if quick else 1
    value, count = ratio(interleaved(variants, rounds), "anew", "ours"), sum(map(len, parts))
    report.add(
        f"greedy, against all anew for each piece, {count} lines",
        value,
        "x",
        target="" if quick else ">= 14",
        ok=None if quick else value >= 14,
        how=f"CPU s, median of {rounds}; what counts is how long the longest line of a batch goes on",
    )


def lines(count: int) -> list[str]:
    """French captions of the test set of Multi30k; without it, one sentence again and again, cut here and there."""
    path = _multi30k() / "test_2016_flickr.fr.gz"
    if path.is_file():
        return gzip.decompress(path.read_bytes()).decode().splitlines()[:count]
    print("translate: no Multi30k in the data folder, so one sentence is cut here and there", file=sys.stderr)
    sentence = "Un homme avec un chapeau orange regarde quelque chose dans la rue près de la gare"
    return [" ".join(sentence.split()[: 4 + i % 13]) for i in range(count)]


def _say(model: Transformer, rows: list[list[int]], width: int) -> list[list[int]]:
    if width == 1:
        return [line.pieces for line in greedy(model, padded(rows), longest=LONGEST)]
    return [some[0].pieces for some in beam(model, padded(rows), longest=LONGEST, width=width)]


def _anew(model: Transformer, source: Tensor) -> Tensor:
    """Greedy as it is written without kept keys: source and all that was said are gone through for every piece."""
    told, ended = torch.full((len(source), 1), 1), torch.zeros(len(source), dtype=torch.bool)
    while told.shape[1] <= LONGEST and not ended.all():
        logits = model(source, told).unflatten(0, told.shape)[:, -1]
        logits[:, :2] = -torch.inf
        told = torch.cat([told, logits.argmax(-1, keepdim=True)], 1)
        ended |= told[:, -1] == END
    return told


def _engine(model: Transformer, cut: Subwords):
    """The same model in CTranslate2, on one thread; None where that is not installed."""
    if importlib.util.find_spec("ctranslate2") is None:
        print("translate: CTranslate2 is not compared with: pip install 'recuerdo[export]'", file=sys.stderr)
        return None
    import ctranslate2

    from recuerdo.workbench.exporting import write

    with tempfile.TemporaryDirectory() as folder:
        write(model, cut.told, Path(folder) / "engine")
        engine = ctranslate2.Translator(str(Path(folder) / "engine"), device="cpu", inter_threads=1, intra_threads=1)
    names = cut.names()
    numbers = {name: i for i, name in enumerate(names)}

    def said(rows: list[list[int]], width: int) -> list[list[int]]:
        source = [[names[i] for i in row[:-1]] for row in rows]
        found = engine.translate_batch(source, beam_size=width, max_decoding_length=LONGEST, max_batch_size=len(rows))
        return [[numbers[name] for name in one.hypotheses[0]] for one in found]

    return said


SECTIONS = {"training": training, "decoding": decoding}

if __name__ == "__main__":
    options = arguments(__doc__)
    torch.set_num_threads(1)
    for section in options.sections or SECTIONS:
        SECTIONS[section](Report(options.json), options.quick)
