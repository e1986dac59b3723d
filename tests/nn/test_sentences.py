"""Sentences as sums of weighed word vectors, and answers that are words."""

import pytest
import torch

from recuerdo.errors import InputError
from recuerdo.nn.sentences import Answers, Sentences, all_ones, position_weights


def test_position_weights_are_those_of_the_paper():
    """l_kj = (1 - j/J) - (k/d)(1 - 2j/J), up to the factor 2 and the half steps of their code."""
    J, d = 5, 4
    weights = position_weights(J, d)
    middle = [
        [2 * ((k - 0.5) / d - 0.5) * ((j - 0.5) / J - 0.5) + 0.5 for k in range(1, d + 1)] for j in range(1, J + 1)
    ]
    torch.testing.assert_close(weights, 2 * torch.tensor(middle))


def test_words_beyond_the_positions_count_like_the_last_one():
    encode = Sentences(5, 8, tables=2, longest=12)
    line = torch.tensor([[2, 3] * 7])
    more = (encode.words[2] + encode.words[3]) * encode.places[-1]
    torch.testing.assert_close(encode(line), encode(line[:, :12]) + more.view(1, 2, 8))


def test_a_bag_has_no_order_and_position_weights_have():
    one, other = torch.tensor([[1, 2, 3, 0]]), torch.tensor([[3, 2, 1, 0]])
    bag, ordered = Sentences(5, 6, weights=all_ones), Sentences(5, 6)
    torch.testing.assert_close(bag(one), bag(other))
    torch.testing.assert_close(bag(one)[0, 0], bag.words[1:4].sum(0))
    assert not torch.allclose(ordered(one), ordered(other))
    assert torch.equal(ordered(one), ordered(one[:, :3]))  # padding counts nothing


def test_an_answer_that_is_a_word_has_its_vector():
    answers = Answers(3, 4, [2, 0, 1])
    words, found = torch.randn(5, 4), torch.randn(2, 4)
    expected = torch.stack([words[2], answers.own[1], words[1]])
    torch.testing.assert_close(answers(found, words), found @ expected.T)
    free = Answers(3, 4)
    torch.testing.assert_close(free(found, words), found @ free.own.T)
    with pytest.raises(InputError, match="2 answer_words for 3 answers: give each its word, or 0"):
        Answers(3, 4, [1, 2])
