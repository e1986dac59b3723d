"""Pairs of lines: what is no pair is told by its line, and each pair comes once a round in a batch of its length."""

import gzip
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recuerdo.data.parallel import Bilingual, Source, aligned, batch, buckets, lines, parted, rounds, table
from recuerdo.errors import InputError


def written(path, text, **more):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_two_files_line_by_line(tmp_path):
    a = written(tmp_path / "a.en", "one\r\n\r\nthree  \nfour\n")
    b = tmp_path / "a.fr.gz"
    b.write_bytes(gzip.compress(b"un\ndeux\ntrois\n \n"))
    assert lines(a) == ["one", "", "three  ", "four"]
    assert aligned(a, b) == [("one", "un"), ("three", "trois")]  # a side that says nothing makes no pair


def test_a_table(tmp_path):
    path = written(tmp_path / "t.tsv", "\ufeffGo.\tVa !\tCC\n\nHi.\tSalut !\tCC\n")
    assert table(path, 0, 1) == [("Go.", "Va !"), ("Hi.", "Salut !")]
    assert table(path, 1, 0)[0] == ("Va !", "Go.")
    with pytest.raises(InputError, match=r"line 1 of .*t.tsv has 3 columns, not 4"):
        table(path, 0, 3)


def test_what_cannot_be_read_says_where(tmp_path):
    one, two = written(tmp_path / "one", "a\nb\n"), written(tmp_path / "two", "a\nb\nc\n")
    with pytest.raises(InputError, match="one has 2 lines and .*two has 3: line by line they must say the same"):
        aligned(one, two)
    latin = written(tmp_path / "latin", "a\nb\né\n".encode("latin-1"))
    with pytest.raises(InputError, match="latin is not UTF-8 in line 3: save it as UTF-8"):
        lines(latin)
    with pytest.raises(InputError, match="nowhere cannot be read"):
        lines(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"broken.gz cannot be read"):
        lines(written(tmp_path / "broken.gz", gzip.compress(b"a\n" * 1000)[:20]))
    with pytest.raises(InputError, match="there is no pair of lines in"):
        aligned(written(tmp_path / "empty", "\n"), written(tmp_path / "full", "a\n"))
    assert lines(written(tmp_path / "nothing", "")) == []


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=60),
    pieces=st.integers(1, 100),
    seed=st.integers(0, 9),
)
def test_a_round_has_each_pair_once_in_batches_that_fit(sizes, pieces, seed):
    pairs = [([3] * a, [4] * b) for a, b in sizes]
    groups = buckets(pairs, pieces, np.random.default_rng(seed))
    assert sorted(i for group in groups for i in group) == list(range(len(pairs)))
    for group in groups:
        made = batch([pairs[i] for i in group])
        assert len(group) == 1 or max(made.source.numel(), made.target.numel()) <= pieces
        assert len(made) == sum(len(pairs[i][1]) for i in group)


def test_a_batch_depends_on_seed_and_number_alone():
    pairs = [([3 + i] * (1 + i % 7), [5] * (1 + i % 5)) for i in range(50)]
    first = list(islice(rounds(pairs, 30, seed=1), 40))
    for start in (0, 1, 11, 17, 30):
        later = list(islice(rounds(pairs, 30, seed=1, start=start), 5))
        for a, b in zip(first[start:], later, strict=False):
            assert torch.equal(a.source, b.source)
            assert torch.equal(a.target, b.target)
    other = list(islice(rounds(pairs, 30, seed=2), 40))
    assert any(a.source.shape != b.source.shape for a, b in zip(first, other, strict=True))


def test_what_was_told_before_each_piece_and_parts_of_a_batch():
    made = batch([([5, 6, 2], [7, 8, 9, 2]), ([5, 2], [7, 2])])
    assert made.told.tolist() == [[1, 7, 8, 9], [1, 7, 0, 0]]
    assert len(made) == 6
    first, second = made.split(2)
    assert (first.source.shape, second.source.shape, second.target.shape) == ((1, 3), (1, 2), (1, 2))
    assert len(made.split(5)) == 2
    assert isinstance(made.to(torch.device("cpu")), Bilingual)


PAIRS = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("stuvwxyz")), min_size=1, max_size=40)


@given(PAIRS)
def test_parts_of_a_table_share_no_line(pairs):
    parts = {name: parted(pairs, name) for name in ("train", "valid", "test")}
    held = parts["valid"] + parts["test"]
    assert not {a for a, _ in parts["train"]} & {a for a, _ in held}
    assert not {b for _, b in parts["train"]} & {b for _, b in held}
    assert not {a for a, _ in parts["valid"]} & {a for a, _ in parts["test"]}
    assert all(pair in pairs for part in parts.values() for pair in part)


def test_a_table_without_parts_has_them_the_same_from_either_side(tmp_path):
    path = tmp_path / "all.tsv"
    path.write_text("".join(f"line {i // 2}\tligne {i}\n" for i in range(2000)), encoding="utf-8")
    parts = {name: Source((str(path),), name).pairs() for name in ("train", "valid", "test")}
    assert sum(map(len, parts.values())) == 2000
    assert 4 <= len(parts["valid"]) <= 30
    assert 4 <= len(parts["test"]) <= 30
    for name, pairs in parts.items():
        assert Source((str(path),), name, turned=True).pairs() == [(b, a) for a, b in pairs]
    assert len(Source((str(path),)).pairs()) == 2000


def test_links_are_rows_that_sum_to_one_where_they_are_known():
    some = batch([([5, 6, 7, 2], [8, 9, 2]), ([5, 2], [9, 2])], [[(0, 1), (2, 1)], [(0, 0)]])
    assert some.links.shape == (2, 2, 4)
    assert some.links[0].tolist() == [[0, 0, 0, 0], [0.5, 0, 0.5, 0]]
    assert some.links[1].tolist() == [[1, 0, 0, 0], [0, 0, 0, 0]]
    one, two = some.split(2)
    assert torch.equal(one.links, some.links[:1])
    assert two.links.tolist() == [[[1, 0]]]
    assert batch([([5, 2], [9, 2])]).links is None
