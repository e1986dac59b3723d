"""Marian translators (Helsinki-NLP's OPUS models) come without a fast tokenizer: theirs, with where each piece stands.

Their text is cut by SentencePiece, whose own report says which bytes each piece was; ids are those of the model's
vocabulary. `pip install 'recuerdo[marian]'`.
"""

from pathlib import Path
from typing import Any

from recuerdo.errors import ModelError

FILES = ("source.spm", "target.spm", "vocab.json")


def marian_tokenizer(folder: str | Path) -> "MarianPieces":
    """The tokenizer of a Marian folder. Raises ModelError without SentencePiece, or without its files."""
    if missing := [name for name in FILES if not (Path(folder) / name).exists()]:
        raise ModelError(f"{folder} is a Marian model without {' and '.join(missing)}: fetch them, they belong to it")
    try:
        import google.protobuf  # noqa: F401  # the report of where pieces stand comes in it
        import sentencepiece  # noqa: F401
    except ImportError:
        raise ModelError(
            "a Marian model cuts its text by SentencePiece, which is not installed: pip install 'recuerdo[marian]'"
        ) from None
    from transformers import MarianTokenizer

    return MarianPieces(MarianTokenizer.from_pretrained(folder, trust_remote_code=False))


class MarianPieces:
    """What a fast tokenizer does for a look, over a MarianTokenizer, of which all else is its own."""

    chat_template = None

    def __init__(self, own: Any):
        self.own = own

    def __getattr__(self, name: str) -> Any:
        return getattr(self.own, name)

    def __call__(
        self, text: str | None = None, *, text_target: str | None = None, add_special_tokens: bool = True, **_: Any
    ) -> dict[str, list[Any]]:
        """`input_ids`, `offset_mapping` (characters of the text; an end token has none) and `special_tokens_mask`."""
        own, told = self.own, text if text is not None else text_target or ""
        cut = own.spm_source if text is not None else own.spm_target
        known = own.encoder if text is not None or not own.separate_vocabs else own.target_encoder
        code, rest = own.remove_language_code(told)  # ">>fr<< ...": which language is wanted
        ahead = sum(map(len, code))
        ids, spans = [known.get(one, known[own.unk_token]) for one in code], [(0, ahead) for _ in code]
        raw, unknown = rest.encode(), known[own.unk_token]
        for piece in cut.encode(rest, return_type="proto").pieces:
            first, last = (ahead + len(raw[:at].decode(errors="ignore")) for at in (piece.begin, piece.end))
            while first < last and told[first].isspace():
                first += 1
            ids.append(known.get(piece.piece, unknown))
            spans.append((first, last))
        special = [1] * len(code) + [0] * (len(ids) - len(code))
        if add_special_tokens:
            ids, spans, special = [*ids, own.eos_token_id], [*spans, (0, 0)], [*special, 1]
        return {"input_ids": ids, "offset_mapping": spans, "special_tokens_mask": special}
