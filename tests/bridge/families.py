"""Tiny random models of every family that the bridge promises, each with its inputs."""

import torch
import transformers as tf

COMMON = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "pad_token_id": 0,
}
GROUPED = COMMON | {"num_key_value_heads": 2}
PAIR = {
    "vocab_size": 99,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "pad_token_id": 0,
    "decoder_start_token_id": 0,
    "eos_token_id": 2,
    "forced_eos_token_id": None,
}
IMAGE = {k: v for k, v in COMMON.items() if k not in ("vocab_size", "pad_token_id")} | {
    "image_size": 32,
    "patch_size": 8,
}
GEMMA = GROUPED | {"head_dim": 8}
WHISPER = PAIR | {"num_mel_bins": 8, "max_source_positions": 20, "bos_token_id": 1, "decoder_start_token_id": 1,
                  "suppress_tokens": None, "begin_suppress_tokens": None}  # fmt: skip
WINDOW = {"sliding_window": 6}

CAUSAL = {
    "gpt2": lambda: tf.GPT2LMHeadModel(
        tf.GPT2Config(vocab_size=99, n_embd=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2)
    ),
    "llama": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**GROUPED)),
    "qwen2": lambda: tf.Qwen2ForCausalLM(tf.Qwen2Config(**GROUPED)),
    "qwen3": lambda: tf.Qwen3ForCausalLM(tf.Qwen3Config(**GEMMA)),
    "mistral": lambda: tf.MistralForCausalLM(tf.MistralConfig(**GROUPED, sliding_window=None)),
    "mistral, window": lambda: tf.MistralForCausalLM(tf.MistralConfig(**GROUPED, **WINDOW)),
    "gemma": lambda: tf.GemmaForCausalLM(tf.GemmaConfig(**GEMMA)),
    "gemma2": lambda: tf.Gemma2ForCausalLM(tf.Gemma2Config(**GEMMA, **WINDOW, query_pre_attn_scalar=8)),
    "gemma3": lambda: tf.Gemma3ForCausalLM(tf.Gemma3TextConfig(**GEMMA, **WINDOW, query_pre_attn_scalar=8)),
    "gpt-neox": lambda: tf.GPTNeoXForCausalLM(tf.GPTNeoXConfig(**COMMON)),
    "gpt-j": lambda: tf.GPTJForCausalLM(
        tf.GPTJConfig(vocab_size=99, n_embd=32, n_layer=2, n_head=4, rotary_dim=4, bos_token_id=1, eos_token_id=2)
    ),
}
ENCODERS = {
    "bert": lambda: tf.BertModel(tf.BertConfig(**COMMON)),
    "distilbert": lambda: tf.DistilBertModel(
        tf.DistilBertConfig(vocab_size=99, dim=32, n_layers=2, n_heads=4, hidden_dim=64)
    ),
    "roberta": lambda: tf.RobertaModel(tf.RobertaConfig(**COMMON)),
    "clip text": lambda: tf.CLIPTextModel(tf.CLIPTextConfig(**COMMON, max_position_embeddings=40, eos_token_id=98)),
}
PAIRS = {
    "t5": lambda: tf.T5ForConditionalGeneration(
        tf.T5Config(vocab_size=99, d_model=32, num_layers=2, num_heads=4, d_kv=8, d_ff=64, decoder_start_token_id=0)
    ),
    "bart": lambda: tf.BartForConditionalGeneration(tf.BartConfig(**PAIR)),
    "marian": lambda: tf.MarianMTModel(tf.MarianConfig(**PAIR)),
}
PIXELS = {
    "vit": lambda: tf.ViTModel(tf.ViTConfig(**IMAGE)),
    "dinov2": lambda: tf.Dinov2Model(tf.Dinov2Config(**{k: v for k, v in IMAGE.items() if k != "intermediate_size"})),
    "clip vision": lambda: tf.CLIPVisionModel(tf.CLIPVisionConfig(**IMAGE)),
}
SOUND = {"whisper": lambda: tf.WhisperForConditionalGeneration(tf.WhisperConfig(**WHISPER))}
FAMILIES = CAUSAL | ENCODERS | PAIRS | PIXELS | SOUND


def build(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    model = FAMILIES[name]().eval()
    with torch.no_grad():  # sharper than the initial weights, so that errors in the attention show in the outputs
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4.0)
    return model


def tokens(rows: int = 2, length: int = 12) -> torch.Tensor:
    return torch.randint(3, 90, (rows, length), generator=torch.Generator().manual_seed(0))


def padded(side: str = "right") -> dict[str, torch.Tensor]:
    ids, mask = tokens(), torch.ones(2, 12, dtype=torch.long)
    hole = slice(8, 12) if side == "right" else slice(0, 4)
    ids[1, hole], mask[1, hole] = 0, 0
    return {"input_ids": ids, "attention_mask": mask}


def inputs(name: str, pad: bool = False) -> dict[str, torch.Tensor]:
    if name in PIXELS:
        return {"pixel_values": torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))}
    if name in SOUND:
        features = torch.randn(2, 8, 40, generator=torch.Generator().manual_seed(0))
        return {"input_features": features, "decoder_input_ids": tokens()[:, :7]}
    text = padded() if pad else {"input_ids": tokens()}
    return text | ({"decoder_input_ids": tokens()[:, :7]} if name in PAIRS else {})
