"""Run a Hugging Face model over a person's words and keep what it read, with the way back from tokens to characters."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from recuerdo.bridge.attention import watch
from recuerdo.bridge.catalogue import catalogue, resolve
from recuerdo.bridge.convert import Progress
from recuerdo.bridge.marian import marian_tokenizer
from recuerdo.bridge.reads import MEMORY, is_cross
from recuerdo.errors import InputError, ModelError
from recuerdo.read import Reading, Seen

Step = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Loaded:
    """A model with its tokenizer: kind is causal, encoder, pair (encoder-decoder), speech or vision."""

    name: str
    kind: str
    model: Any
    tokenizer: Any
    limit: int | None  # tokens at most
    processors: tuple[Any, ...] = ()  # Transformers' logits processors that every answer goes through
    folder: Path | None = None  # where it was loaded from


@dataclass
class Heard:
    """What a model was given and what it read: characters, tokens and Readings.

    `text` is all that stood before the model; `document` and `question` are characters in it. Answer tokens follow the
    input tokens. `own` maps module paths to the reads of self-attention, `cross` to those of cross-attention.
    """

    text: str
    tokens: list[str]
    offsets: list[tuple[int, int]]
    special: list[bool]
    document: tuple[int, int]
    own: dict[str, list[Reading]]
    cross: dict[str, list[Reading]] = field(default_factory=dict)
    question: tuple[int, int] | None = None
    answer: str = ""
    answer_tokens: list[str] = field(default_factory=list)
    answer_offsets: list[tuple[int, int]] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    answer_ids: list[int] = field(default_factory=list)


@contextmanager
def quiet() -> Iterator[None]:
    """Transformers prints advice through its logger and warnings; a person who looks did not ask for it."""
    from transformers.utils import logging as theirs

    before = theirs.get_verbosity()
    bars = theirs.is_progress_bar_enabled()
    theirs.set_verbosity_error()
    theirs.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            theirs.set_verbosity(before)
            if bars:
                theirs.enable_progress_bar()


def load(name_or_path: str | Path, *, progress: Progress | None = None) -> Loaded:
    """Load a model of the catalogue (fetched when missing), a local folder, or a hub id; in float32, for reading only.

    Raises ModelError when it cannot be found or is of no kind that can be looked into, FetchError when it cannot be
    fetched.
    """
    folder = resolve(name_or_path, progress=progress)
    with quiet():
        from safetensors import SafetensorError
        from transformers import AutoConfig, AutoTokenizer

        try:
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
            kind, cls = _kind(config)
            model = cls.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False, use_safetensors=True)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise ModelError(f"{name_or_path} cannot be loaded: {_first_line(error)}") from error
        tokenizer = None
        if kind in ("causal", "encoder", "pair"):
            try:
                marian = config.model_type == "marian" and not (Path(folder) / "tokenizer.json").exists()
                whose = marian_tokenizer if marian else partial(AutoTokenizer.from_pretrained, trust_remote_code=False)
                tokenizer = whose(folder)
            except (OSError, ValueError, KeyError) as error:
                raise ModelError(f"{name_or_path} has no usable tokenizer: {_first_line(error)}") from error
            if not (marian or tokenizer.is_fast):
                raise ModelError(f"{name_or_path} has no tokenizer.json: convert its tokenizer to a fast one first")
    entry = catalogue().get(str(name_or_path))
    limit = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    name = entry.title if entry else Path(folder).name
    return Loaded(name, kind, model.eval(), tokenizer, limit, folder=Path(folder))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _kind(config: Any) -> tuple[str, Any]:
    """The kind of a model and the class that loads it, from what its configuration says it is."""
    import transformers as tf

    names = " ".join(config.architectures or [])
    if config.model_type == "whisper":
        return "speech", tf.WhisperForConditionalGeneration
    if config.is_encoder_decoder:
        return "pair", tf.AutoModelForSeq2SeqLM
    if "ForCausalLM" in names or "LMHead" in names:
        return "causal", tf.AutoModelForCausalLM
    if getattr(config, "image_size", None) is not None:
        return "vision", tf.AutoModel
    return "encoder", tf.AutoModel


# --------------------------------------------------------------------------------------------- what stands before it


def encode(loaded: Loaded, text: str, *, special: bool, room: int = 0, document: tuple[int, int] | None = None) -> Any:
    """Tokens with their characters. Raises InputError when they are more than the model can take.

    `room` is left for what is generated; `document` is the part of the text that a person could shorten.
    """
    with quiet():
        encoded = loaded.tokenizer(
            text, return_offsets_mapping=True, return_special_tokens_mask=True, add_special_tokens=special
        )
    count = len(encoded["input_ids"])
    if count == 0:
        raise InputError("there is nothing to read: the text is empty")
    if loaded.limit is not None and count + room > loaded.limit:
        start, end = document or (0, len(text))
        own = sum(1 for a, b in encoded["offset_mapping"] if start <= a < b <= end)
        more = f" and {room} to generate" if room else ""
        fits = int((end - start) * (loaded.limit - room - (count - own)) / max(own, 1) * 0.95)
        advice = f"Shorten the text to about {fits} characters" if fits > 0 else "Generate fewer"
        raise InputError(
            f"too long for {loaded.name}: {count} tokens{more}, and it takes {loaded.limit}. {advice}, "
            "or choose a model that takes more"
        )
    return encoded


def _names(loaded: Loaded, ids: list[int]) -> list[str]:
    return [loaded.tokenizer.decode([i], clean_up_tokenization_spaces=False) for i in ids]


def prompt_of(
    loaded: Loaded, document: str, question: str | None, lead: str = ""
) -> tuple[str, tuple[int, int], tuple[int, int] | None, bool]:
    """The text before the model, where document and question are in it, and whether special tokens are to be added.

    With `lead` an answer begins with these words.
    """
    if question is None:
        return document, (0, len(document)), None, True
    both = f"{document}\n\n{question}"
    if loaded.tokenizer.chat_template:
        chat = [{"role": "user", "content": both}]
        with quiet():
            text = loaded.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) + lead
    else:
        text = f"{document}\n\nQuestion: {question}\nAnswer:" + (f" {lead}" if lead else "")
    start = text.find(document)
    if start < 0:  # a template may strip what it is given
        document = document.strip()
        start = text.find(document)
    asked = text.find(question, start + len(document))
    if start < 0 or asked < 0:
        raise ModelError(f"the chat template of {loaded.name} changes the text, so its words cannot be found again")
    return text, (start, start + len(document)), (asked, asked + len(question)), not loaded.tokenizer.chat_template


class _Counter:
    """Counts reads as they are heard, for a progress bar, and keeps of them what a look needs."""

    def __init__(self, progress: Step | None, total: int):
        self.done, self.total, self.progress = 0, total, progress

    def __call__(self, path: str, reading: Reading) -> None:
        if not reading.mixed.requires_grad:
            reading.let_go_of_mixed()  # a look needs the weights only
        self.done += 1
        if self.progress is not None:
            self.progress("reading" if reading.shape[2] > 1 else "answering", self.done, max(self.total, self.done))


def _layers(loaded: Loaded) -> int:
    return getattr(loaded.model.config, "num_hidden_layers", 1)


def hear_answer(
    loaded: Loaded,
    document: str,
    question: str | None,
    *,
    lead: str = "",
    generate: int = 32,
    progress: Step | None = None,
) -> Heard:
    """Let a causal model continue a document, or answer a question about it (greedy), and keep every read.

    An answer goes on from `lead`, which is no part of it.
    """
    text, place, asked, special = prompt_of(loaded, document, question, lead)
    encoded = encode(loaded, text, special=special, room=generate, document=place)
    ids = torch.tensor([encoded["input_ids"]])
    counter = _Counter(progress, _layers(loaded) * max(generate, 1))
    model, tokenizer = loaded.model, loaded.tokenizer
    with torch.no_grad(), quiet(), watch(model, each=counter) as seen:
        if generate:
            pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
            out = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=generate,
                do_sample=False,
                pad_token_id=pad,
                logits_processor=list(loaded.processors),
            )[0, ids.shape[1] :].tolist()
        else:
            model.base_model(ids, use_cache=False)  # without the head: its logits are vocabulary x length
            out = []
    while out and out[-1] in tokenizer.all_special_ids:
        out.pop()
    pieces, offsets = pieces_of(tokenizer, out)
    return Heard(
        text=text,
        tokens=_names(loaded, encoded["input_ids"]) + pieces,
        offsets=encoded["offset_mapping"],
        special=[i in tokenizer.all_special_ids for i in encoded["input_ids"]],
        document=place,
        question=asked,
        own=_split(seen)[0],
        answer="".join(pieces),
        answer_tokens=pieces,
        answer_offsets=offsets,
        silent=seen.silent,
        ids=encoded["input_ids"],
        answer_ids=out,
    )


def pieces_of(tokenizer: Any, ids: list[int]) -> tuple[list[str], list[tuple[int, int]]]:
    """Generated tokens as pieces of one string and their characters in it (a piece of a letter is an empty piece)."""
    pieces, offsets, done = [], [], ""
    for i in range(len(ids)):
        now = tokenizer.decode(ids[: i + 1], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        if now.endswith("�") and i + 1 < len(ids):
            now = done  # half a letter: it comes with the token that completes it
        pieces.append(now[len(done) :])
        offsets.append((len(done), len(now)))
        done = now
    return pieces, offsets


def hear_text(loaded: Loaded, document: str, *, progress: Step | None = None) -> Heard:
    """Let a model read a text by itself (an encoder, or a causal model without generating)."""
    if loaded.kind == "causal":
        return hear_answer(loaded, document, None, generate=0, progress=progress)
    encoded = encode(loaded, document, special=True)
    counter = _Counter(progress, _layers(loaded))
    with torch.no_grad(), quiet(), watch(loaded.model, each=counter) as seen:
        loaded.model(input_ids=torch.tensor([encoded["input_ids"]]))
    return Heard(
        text=document,
        tokens=_names(loaded, encoded["input_ids"]),
        offsets=encoded["offset_mapping"],
        special=[bool(s) for s in encoded["special_tokens_mask"]],
        document=(0, len(document)),
        own=_split(seen)[0],
        silent=seen.silent,
        ids=encoded["input_ids"],
    )


def hear_pair(
    loaded: Loaded, source: str, target: str | None, *, generate: int = 64, progress: Step | None = None
) -> Heard:
    """Let an encoder-decoder read a source and write a target: the given one (forced), or its own (greedy)."""
    encoded = encode(loaded, source, special=True)
    ids = torch.tensor([encoded["input_ids"]])
    model, tokenizer = loaded.model, loaded.tokenizer
    with torch.no_grad(), quiet():
        if target is None:
            out = model.generate(ids, max_new_tokens=generate, do_sample=False, num_beams=1)[0].tolist()
            out = out[1:] if out and out[0] == model.config.decoder_start_token_id else out
        else:
            out = tokenizer(text_target=target)["input_ids"]
        while out and out[-1] in tokenizer.all_special_ids:
            out.pop()
        if not out:
            raise InputError("there is no target to align: pass --target, or a source that the model can translate")
        start = model.config.decoder_start_token_id
        begin = start if start is not None else model.generation_config.decoder_start_token_id
        with watch(model, each=_Counter(progress, 3 * _layers(loaded))) as seen:
            model(input_ids=ids, decoder_input_ids=torch.tensor([[begin, *out[:-1]]]))
    pieces, offsets = pieces_of(tokenizer, out)
    own, cross = _split(seen)
    return Heard(
        text=source,
        tokens=_names(loaded, encoded["input_ids"]),
        offsets=encoded["offset_mapping"],
        special=[bool(s) for s in encoded["special_tokens_mask"]],
        document=(0, len(source)),
        own=own,
        cross=cross,
        answer="".join(pieces),
        answer_tokens=pieces,
        answer_offsets=offsets,
        silent=seen.silent,
    )


def _split(seen: Seen) -> tuple[dict[str, list[Reading]], dict[str, list[Reading]]]:
    """Reads of self- and of cross-attention, by what their modules are called in Transformers."""
    own, cross = {}, {}
    for path in (path for path in seen.paths if path != MEMORY):
        (cross if is_cross(path) else own)[path] = seen.steps(path)
    return own, cross


def hear_again(loaded: Loaded, heard: Heard) -> Heard:
    """The same words once more, with the answer that was heard forced: what a changed model reads while it says it.

    Raises ModelError for an encoder-decoder.
    """
    if loaded.kind not in ("causal", "encoder") or not heard.ids:
        raise ModelError(
            f"{loaded.name} cannot be made to say the same again: that works for encoders and language models"
        )
    ids = torch.tensor([heard.ids])
    with torch.no_grad(), quiet(), watch(loaded.model) as seen:
        if loaded.kind == "encoder":
            loaded.model(input_ids=ids)
        else:
            cache = loaded.model(ids, use_cache=True, logits_to_keep=1).cache
            if len(heard.answer_ids) > 1:
                loaded.model(torch.tensor([heard.answer_ids[:-1]]), cache=cache, use_cache=True)
    return replace(heard, own=_split(seen)[0])


def hear_gradients(loaded: Loaded, heard: Heard, *, progress: Step | None = None) -> list[Reading]:
    """One pass over what was heard with the answer behind it, and back from the answer's log-probability.

    Returns the reads of self-attention in order; each `mixed` holds its gradient. Activations of the whole pass are
    kept meanwhile. Raises ModelError for a model that gave no answer.
    """
    if loaded.kind != "causal" or not heard.answer_ids:
        raise ModelError(
            f"{loaded.name} gave no answer here, so there is nothing to take a gradient of: ask a question"
        )
    model = loaded.model
    ids = torch.tensor([heard.ids + heard.answer_ids])
    counter = _Counter(progress, _layers(loaded))

    def keep(path: str, reading: Reading) -> None:
        reading.mixed.retain_grad()
        counter(path, reading)

    learned = [p for p in model.parameters() if p.requires_grad]
    for parameter in learned:
        parameter.requires_grad_(False)  # gradients of the reads only
    try:
        with torch.enable_grad(), quiet(), watch(model, each=keep) as seen:
            given = model.get_input_embeddings()(ids).detach().requires_grad_()
            logits = model(inputs_embeds=given, use_cache=False, logits_to_keep=len(heard.answer_ids) + 1).logits
            chances = torch.log_softmax(logits[0, :-1].float(), -1)
            chances.gather(-1, ids[0, len(heard.ids) :, None]).sum().backward()
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)
    own, _ = _split(seen)
    return [steps[0] for steps in own.values()]
