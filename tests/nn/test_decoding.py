"""Greedy and beam search against exhaustive search over a small made-up language."""

import itertools
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from recuerdo.errors import InputError
from recuerdo.nn.decoding import Drawn, beam, greedy, sample, stream

V, END = 5, 2


@dataclass
class So:
    """What was said of each source so far."""

    seed: Tensor
    heard: list[tuple[int, ...]]

    def ways(self, count):
        return self.take(torch.arange(len(self.seed)).repeat_interleave(count))

    def take(self, rows):
        return So(self.seed[rows], [self.heard[i] for i in rows.tolist()])

    def reorder(self, rows):
        assert torch.equal(self.seed[rows], self.seed)
        return self.take(rows)


class Made:
    """Logits that depend on the source (its first number) and on all that was said, and on nothing else."""

    def __init__(self):
        self.rows = 0

    def begin(self, source):
        return So(source[:, 0], [()] * len(source))

    def step(self, pieces, said):
        said.heard = [(*before, piece) for before, piece in zip(said.heard, pieces.tolist(), strict=True)]
        self.rows += len(pieces)
        return torch.stack([self.logits(int(s), h) for s, h in zip(said.seed, said.heard, strict=True)])

    def logits(self, seed, heard):
        draw = torch.Generator().manual_seed(hash((seed, heard)) % 2**31)
        return 2 * torch.randn(V, generator=draw, dtype=torch.float64)

    def log(self, seed, pieces):
        """The log-probability of what was said, over text and the end alone."""
        total = 0.0
        for i, piece in enumerate(pieces):
            logits = self.logits(seed, (1, *pieces[:i]))
            logits[:2] = -torch.inf
            total += float(logits.log_softmax(-1)[piece])
        return total


def everything(made, seed, longest, alpha):
    """All that may be said, best first: (score, pieces without the end)."""
    found = []
    for n in range(longest + 1):
        for text in itertools.product(range(3, V), repeat=n):
            if n < longest:
                found.append((made.log(seed, (*text, END)) / (n + 1) ** alpha, list(text)))
            else:
                found.append((made.log(seed, text) / n**alpha, list(text)))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_wide_beam_finds_the_best_of_all(alpha):
    made, longest = Made(), 4
    source = torch.arange(6)[:, None]
    for seed, lines in enumerate(beam(made, source, longest=longest, width=40, alpha=alpha)):
        score, text = everything(made, seed, longest, alpha)[0]
        assert lines[0].pieces == text
        assert lines[0].score == pytest.approx(score, abs=1e-5)
        assert [line.score for line in lines] == sorted((line.score for line in lines), reverse=True)
        assert len({tuple(line.pieces) + (line.ended,) for line in lines}) == len(lines)


def test_a_narrow_beam_says_what_it_scores_and_one_wide_it_is_greedy():
    made, source = Made(), torch.arange(20)[:, None]
    for seed, (lines, alone) in enumerate(
        zip(beam(made, source, longest=6, width=3), greedy(made, source, longest=6), strict=True)
    ):
        assert len(lines) == 3
        for line in [*lines, alone]:
            pieces = (*line.pieces, END) if line.ended else tuple(line.pieces)
            assert line.score == pytest.approx(made.log(seed, pieces) / len(pieces), abs=1e-5)
            assert not {0, 1, END} & set(line.pieces)
            assert line.ended or len(line.pieces) == 6
        (same,) = beam(made, source[seed : seed + 1], longest=6, width=1)[0]
        assert (same.pieces, same.ended) == (alone.pieces, alone.ended)


def test_a_sentence_is_said_the_same_alone_and_among_others():
    made, source = Made(), torch.arange(30)[:, None]
    together, wide = greedy(made, source, longest=9), beam(made, source, longest=9, width=4)
    for i in range(30):
        (alone,) = greedy(made, source[i : i + 1], longest=9)
        assert alone.pieces == together[i].pieces
        assert [one.pieces for one in beam(made, source[i : i + 1], longest=9, width=4)[0]] == [
            one.pieces for one in wide[i]
        ]


def test_each_sentence_has_a_limit_of_its_own():
    made, source, limits = Made(), torch.arange(20)[:, None], torch.arange(20) % 5 + 1
    for search in (greedy, beam):
        together = search(made, source, longest=limits)
        for i in range(20):
            (alone,) = search(made, source[i : i + 1], longest=int(limits[i]))
            assert alone == together[i]


def test_sentences_that_have_ended_cost_nothing():
    made, source = Made(), torch.arange(40)[:, None]
    lines = greedy(made, source, longest=30)
    longest = max(len(line.pieces) for line in lines) + 1
    assert made.rows < 0.7 * longest * len(source)


def test_nothing_to_say_and_no_beam():
    assert greedy(Made(), torch.empty(0, 1, dtype=torch.long), longest=5) == []
    assert beam(Made(), torch.empty(0, 1, dtype=torch.long), longest=5) == []
    with pytest.raises(InputError, match="a beam is 1 wide or more, not 0"):
        beam(Made(), torch.zeros(1, 1, dtype=torch.long), longest=5, width=0)


def test_what_is_streamed_is_what_is_said():
    made, source = Made(), torch.arange(8)[:, None]
    for seed, line in enumerate(greedy(made, source, longest=9)):
        assert list(stream(made, source[seed : seed + 1], longest=9)) == line.pieces


def test_what_is_drawn_comes_as_often_as_it_is_likely():
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0, -torch.inf]]).repeat(20_000, 1)
    for choose, wanted in (
        (Drawn(seed=1), logits[0].softmax(-1)),
        (Drawn(0.5, seed=1), (2 * logits[0]).softmax(-1)),
        (Drawn(top=2, seed=1), torch.tensor([0, 1.0, 2.0, 0, 0]).exp() * torch.tensor([0, 1, 1, 0, 0])),
        (Drawn(share=0.9, seed=1), logits[0].exp() * torch.tensor([1, 1, 1, 0, 0])),  # the first two hold 0.88
        (Drawn(share=0.8, seed=1), logits[0].exp() * torch.tensor([0, 1, 1, 0, 0])),
    ):
        logs, pieces = choose(logits)
        found = torch.bincount(pieces, minlength=5) / len(pieces)
        torch.testing.assert_close(found, wanted / wanted.sum(), atol=0.015, rtol=0)
        torch.testing.assert_close(logs, logits.log_softmax(-1).gather(1, pieces[:, None])[:, 0])


def test_drawn_lines_are_scored_as_they_are_and_a_seed_draws_them_again():
    made, source = Made(), torch.arange(20)[:, None]
    lines = sample(made, source, longest=6, choose=Drawn(seed=3))
    assert lines == sample(made, source, longest=6, choose=Drawn(seed=3))
    assert lines != sample(made, source, longest=6, choose=Drawn(seed=4))
    assert [line.pieces for line in sample(made, source, longest=6, choose=Drawn(1e-4))] == [
        line.pieces for line in greedy(made, source, longest=6)
    ]
    for seed, line in enumerate(lines):
        pieces = (*line.pieces, END) if line.ended else tuple(line.pieces)
        assert line.score == pytest.approx(made.log(seed, pieces) / len(pieces), abs=1e-5)


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"top": -1}, {"share": 0.0}, {"share": 1.5}], ids=str)
def test_nothing_can_be_drawn(wrong):
    with pytest.raises(InputError, match="nothing can be drawn with temperature"):
        Drawn(**wrong)
