"""Alignments of words out of reads of pieces, against links by hand."""

import os
from pathlib import Path

import pytest
import torch

from recuerdo.data.subwords import LEAST, Subwords
from recuerdo.data.wording import Worded
from recuerdo.errors import InputError
from recuerdo.tasks.aligned import Gold, error_rates, hansards, judged, links_of, of_words, owning
from recuerdo.tasks.translate import Translate

DATA = Path(os.environ.get("RECUERDO_DATA", Path(__file__).resolve().parents[3] / "shared/data")) / "word_alignment"


SOURCE = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])  # pieces 0, 1 of a word, 2 of one, the end
TARGET = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]])


def test_links_of_pieces():
    weights = torch.tensor([[0.3, 0.3, 0.4, 0.0], [0.0, 0.0, 0.9, 0.1], [0.1, 0.0, 0.2, 0.7], [0.0, 0.0, 0.0, 1.0]])
    assert links_of(weights, SOURCE, TARGET) == {(0, 0), (1, 1)}
    weights[1] = torch.tensor([0.0, 0.0, 0.2, 0.8])  # reads the end most: no link
    assert links_of(weights, SOURCE, TARGET) == {(0, 0)}
    both = SOURCE.clone()
    both[1, 1] = both[0, 1] = both[2, 0] = 1  # two words that are written as one have its links
    assert links_of(weights, both, TARGET) == {(0, 0), (1, 0)}


def maps_of(cut, shift):
    """Maps that read the same place, and the one `shift` further on."""

    def maps(source, target):
        s, t = source.shape[1], target.shape[1]
        place = torch.arange(t)
        return {
            "usual": torch.eye(max(s, t))[:t, :s][None],
            "raw": torch.nn.functional.one_hot((place + shift).clamp(max=s - 1), s)[None].float(),
        }

    return maps


def test_what_a_word_reads_is_a_sum_and_sums_to_one():
    weights = torch.rand(4, 4).softmax(-1)
    table = of_words(weights, SOURCE, TARGET)
    torch.testing.assert_close(table.sum(-1), torch.ones(2))
    torch.testing.assert_close(table[0], torch.stack([weights[0, :2].sum(), weights[0, 2], weights[0, 3]]))
    torch.testing.assert_close(table[1, 2], weights[1:3, 3].mean())


def test_error_rates_and_the_choice():
    cut = Subwords.learn(["a b c d e"] * 9, LEAST + 20)
    links = frozenset((i, i) for i in range(5))
    told = Worded.by_blanks("a b c d e")
    gold = [Gold(told, told, links, links)] * 120
    assert len(cut.encode(["a b c d e"])[0]) == 6  # a piece for each word
    rates = error_rates(maps_of(cut, 1), gold[:3], cut)
    assert rates["usual"] == pytest.approx(0)
    assert rates["raw"] == pytest.approx(100)
    assert rates["diagonal"] == pytest.approx(0)
    told = dict(judged(maps_of(cut, 1), gold, cut))
    assert told["AER, the usual map (usual)"] == pytest.approx(0)
    assert told["AER, raw (raw)"] == pytest.approx(100)
    assert told["AER, chosen on 100 pairs (usual)"] == pytest.approx(0)
    a, c = Worded.by_blanks("a b"), Worded.by_blanks("c d")
    one = Gold(a, c, frozenset({(0, 1)}), frozenset({(0, 1), (1, 0)}))
    assert one.turned() == Gold(c, a, frozenset({(1, 0)}), frozenset({(1, 0), (0, 1)}))


def test_what_has_no_gold(tmp_path, monkeypatch):
    task = Translate(target="de")
    with pytest.raises(InputError, match="the gold alignments are of English and French, not of en and de"):
        task.evidence(None, "test")
    monkeypatch.delenv("RECUERDO_DATA", raising=False)
    with pytest.raises(InputError, match="set RECUERDO_DATA to the folder that holds word_alignment/"):
        Translate().evidence(None, "test")
    (tmp_path / "enfr.src-tgt").write_text("a ||| b\n")
    (tmp_path / "enfr.gold").write_text("1-1\n1-1\n")
    with pytest.raises(InputError, match="has 1 pairs and 2 alignments"):
        hansards(tmp_path, tokenised=False)


@pytest.mark.data
def test_hansards():
    if not (DATA / "enfr.gold").is_file():
        pytest.skip(f"needs the gold alignments in {DATA}: set RECUERDO_DATA to the folder that holds word_alignment/")
    gold = hansards(DATA, tokenised=True)
    assert len(gold) == 447
    cut = Subwords.learn([one.source.text for one in gold], LEAST + 100)
    assert any("d&apos; un" in one.target.text for one in gold)
    for one in hansards(DATA, tokenised=False):
        owned = owning(cut, one.target)
        assert (owned.sum(0) >= 1).all()  # each word has a piece, and each piece has a word
        assert (owned.sum(1) >= 1).all()
    rates = error_rates(lambda source, target: {}, gold, cut)
    assert rates["diagonal"] == pytest.approx(54, abs=1)  # as our notes have it
