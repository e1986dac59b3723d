"""Subwords: the pieces that a model of text reads and writes, learned by byte-pair encoding (Sennrich et al. 2016).

They are made of bytes, so no text is unknown, and what is encoded is decoded to the same text, but for the Unicode form
(NFC) and white space, of which one blank stays between words.
"""

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

from recuerdo.errors import InputError

PAD, BEGIN, END = 0, 1, 2
SPECIAL = ("<pad>", "<s>", "</s>")
BYTES = 256
TORN = "\N{REPLACEMENT CHARACTER}"  # what bytes are shown as that are no letter
AT_ONCE = 5000  # lines that are cut
LEAST = len(SPECIAL) + BYTES


class Subwords:
    """The pieces of a text; `told` is all there is to them, as the JSON of Hugging Face's `tokenizers`.

    The pieces 0, 1 and 2 are padding, begin and end; no text has them in it, whatever it says.
    """

    def __init__(self, told: str):
        """Raises InputError for what is no such JSON."""
        self.told = told
        try:
            there = json.loads(told)["model"]["vocab"]
            fits = [there[name] for name in SPECIAL] == [PAD, BEGIN, END]
        except (ValueError, KeyError, TypeError):
            fits = False
        if not fits:
            raise InputError("these are no subwords: pass what `Subwords.told` of others holds")

    @classmethod
    def learn(cls, lines: Iterable[str], size: int, *, tokenised: bool = False) -> "Subwords":
        """So many pieces, of what is frequent in these lines. Of `tokenised` text a piece may be all that stands
        between two blanks, as `d&apos;`; otherwise punctuation is apart from letters.

        Raises InputError for fewer pieces than bytes.
        """
        from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

        if size < LEAST:
            raise InputError(f"subwords are {LEAST} pieces or more (the bytes, and three marks), not {size}")
        made = Tokenizer(models.BPE())
        made.normalizer = normalizers.NFC()
        made.pre_tokenizer = (
            pre_tokenizers.Sequence(
                [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)]
            )
            if tokenised
            else pre_tokenizers.ByteLevel(add_prefix_space=True)
        )
        made.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = trainers.BpeTrainer(
            vocab_size=size, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
        )
        made.train_from_iterator((" ".join(line.split()) for line in lines), trainer)
        # As marks they would be found in texts, too: as plain pieces nothing leads to them.
        plain = json.loads(made.to_str())
        plain["added_tokens"] = []
        return cls(json.dumps(plain, ensure_ascii=False, sort_keys=True))

    def __len__(self) -> int:
        return self._pieces.get_vocab_size()

    def names(self) -> list[str]:
        """What each piece is called, by its number: its bytes as letters, as `tokenizers` writes them."""
        there = json.loads(self.told)["model"]["vocab"]
        return sorted(there, key=there.__getitem__)

    def encode(self, lines: Sequence[str]) -> list[list[int]]:
        """The pieces of each line, and the end. Raises InputError for half letters, which bytes that are not UTF-8
        become."""
        found: list[list[int]] = []
        for first in range(0, len(lines), AT_ONCE):  # all that `tokenizers` knows of each piece takes 100 times its id
            some = [_line(line) for line in lines[first : first + AT_ONCE]]
            found += [[*one.ids, END] for one in self._pieces.encode_batch(some, add_special_tokens=False)]
        return found

    def decode(self, ids: Sequence[int]) -> str:
        """The text of pieces, as far as the end. Bytes that make no letter become �, TORN."""
        ids = list(ids)
        ids = ids[: ids.index(END)] if END in ids else ids
        return self._pieces.decode([i for i in ids if i > END], skip_special_tokens=False).strip()

    def ends(self, line: str) -> list[int]:
        """Where the last letter of each piece of `encode` stands in a line without needless blanks, -1 for the end."""
        return [*(end - 1 for _, end in self._pieces.encode(line, add_special_tokens=False).offsets), -1]

    def strange(self, line: str) -> set[str]:
        """The letters of a line that fall apart into bytes: what these were learned from had them hardly or never."""
        line, found = _line(line), set[str]()
        there = self._pieces.encode(line, add_special_tokens=False)
        for piece, (first, last) in zip(there.ids, there.offsets, strict=True):
            if TORN in self._pieces.decode([piece], skip_special_tokens=False):
                found |= {letter for letter in line[first:last] if not letter.isascii()}
        return found

    @cached_property
    def _pieces(self) -> Any:
        from tokenizers import Tokenizer

        return Tokenizer.from_str(self.told)


def _line(text: str) -> str:
    """One blank between words, and nothing that UTF-8 cannot write down."""
    text = " ".join(text.split())
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError("the text is not UTF-8: convert it, such as with iconv -f LATIN1 -t UTF-8") from None
    return text
