"""The tiny LVLMs before training: real transformers classes, processors and chat templates, from config."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessorPil,
    Gemma3Processor,
    GemmaTokenizer,
    GenerationConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen2VLImageProcessorPil,
)

from medfocus_bench.lvlm.processors import Qwen2_5_VLImageProcessor
from medfocus_bench.phantom.training.corpus import corpus

Family = Literal["qwen", "gemma"]

FAMILIES: Final[tuple[Family, Family]] = ("qwen", "gemma")

SIDE: Final = 224
PATCH: Final = 14
GRID: Final = 8
"""Image tokens a side: 16 patches, two by two merged."""

_WIDTH, _LAYERS, _HEADS, _KV_HEADS = 128, 4, 4, 2
_VISION_WIDTH, _VISION_LAYERS, _VISION_HEADS = 96, 4, 4

_DECODER: Final = {
    "hidden_size": _WIDTH,
    "intermediate_size": 2 * _WIDTH,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": _HEADS,
    "num_key_value_heads": _KV_HEADS,
    "max_position_embeddings": 4096,
}

_QWEN_SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
_QWEN_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_GEMMA_SPECIAL = [
    "<pad>",
    "<eos>",
    "<bos>",
    "<unk>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<start_of_image>",
    "<end_of_image>",
    "<image_soft_token>",
]
_GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<start_of_turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<start_of_image>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


@dataclass(frozen=True, slots=True)
class Untrained:
    """A model with random weights, its processor, and the ids that close an image and a turn."""

    family: Family
    model: Any
    processor: Any
    image_end: int
    turn_end: int
    image_token: int


def untrained(family: Family, seed: int) -> Untrained:
    """A tiny model of the family; the seed decides its weights."""
    torch.manual_seed(seed)
    return _qwen() if family == "qwen" else _gemma()


def _qwen() -> Untrained:
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.NFC()
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trained.train_from_iterator(
        corpus() + ["system", "user", "assistant"] * 50,
        trainers.BpeTrainer(
            vocab_size=640,
            special_tokens=_QWEN_SPECIAL,
            initial_alphabet=sorted(alphabet),
            show_progress=False,
        ),
    )
    vocabulary = json.loads(trained.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary["vocab"],
        merges=[tuple(merge) for merge in vocabulary["merges"]],
        unk_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        bos_token=None,
        extra_special_tokens=[t for t in _QWEN_SPECIAL if t not in ("<|im_end|>", "<|endoftext|>")],
    )
    token = tokenizer.convert_tokens_to_ids
    side = SIDE * SIDE
    processor = Qwen2_5_VLImageProcessor(
        image_processor=Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=side),
        tokenizer=tokenizer,
        chat_template=_QWEN_TEMPLATE,
    )
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            **_DECODER,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 6, 6]},
            "bos_token_id": token("<|endoftext|>"),
            "eos_token_id": token("<|im_end|>"),
            "pad_token_id": token("<|endoftext|>"),
        },
        vision_config={
            "depth": _VISION_LAYERS,
            "hidden_size": _VISION_WIDTH,
            "intermediate_size": 2 * _VISION_WIDTH,
            "num_heads": _VISION_HEADS,
            "patch_size": PATCH,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [1, 3],
            "out_hidden_size": _WIDTH,
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=False,
    )
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        bos_token_id=token("<|endoftext|>"),
        eos_token_id=[token("<|im_end|>"), token("<|endoftext|>")],
        pad_token_id=token("<|endoftext|>"),
    )
    return Untrained(
        "qwen", model, processor, token("<|vision_end|>"), token("<|im_end|>"), token("<|image_pad|>")
    )


def _gemma() -> Untrained:
    trained = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    trained.normalizer = normalizers.Replace(" ", "\u2581")
    # Gemma's own tokenizer splits nothing; merges learnt within words never reach across them.
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\u2581", "merged_with_next"), pre_tokenizers.Punctuation()]
    )
    trained.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    special = [*_GEMMA_SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), "\n"]
    trained.train_from_iterator(
        corpus() + ["user", "model"] * 50,
        trainers.BpeTrainer(vocab_size=760, special_tokens=special, show_progress=False),
    )
    vocabulary = json.loads(trained.to_str())["model"]
    tokenizer = GemmaTokenizer(
        vocab=vocabulary["vocab"],
        merges=[tuple(merge) for merge in vocabulary["merges"]],
        extra_special_tokens={
            "image_token": "<image_soft_token>",
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
        },
    )
    tokenizer.add_special_tokens(
        {"extra_special_tokens": ["<start_of_turn>", "<end_of_turn>"]}, replace_extra_special_tokens=False
    )
    token = tokenizer.convert_tokens_to_ids
    processor = Gemma3Processor(
        image_processor=Gemma3ImageProcessorPil(
            size={"height": SIDE, "width": SIDE}, image_seq_length=GRID * GRID
        ),
        tokenizer=tokenizer,
        chat_template=_GEMMA_TEMPLATE,
        image_seq_length=GRID * GRID,
    )
    config = Gemma3Config(
        text_config={
            "vocab_size": len(tokenizer),
            **_DECODER,
            "head_dim": _WIDTH // _HEADS,
            "query_pre_attn_scalar": _WIDTH // _HEADS,
            "sliding_window": 512,
            "layer_types": ["sliding_attention"] * (_LAYERS - 1) + ["full_attention"],
            "pad_token_id": 0,
            "eos_token_id": 1,
            "bos_token_id": 2,
        },
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": _VISION_WIDTH,
            "intermediate_size": 3 * _VISION_WIDTH,
            "num_hidden_layers": _VISION_LAYERS,
            "num_attention_heads": _VISION_HEADS,
            "image_size": SIDE,
            "patch_size": PATCH,
            "vision_use_head": False,
        },
        mm_tokens_per_image=GRID * GRID,
        boi_token_index=token("<start_of_image>"),
        eoi_token_index=token("<end_of_image>"),
        image_token_index=token("<image_soft_token>"),
    )
    model = Gemma3ForConditionalGeneration(config)
    # Built from config the projector is all zero: the image would have no effect.
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=0.1)
    model.generation_config = GenerationConfig(
        bos_token_id=2, eos_token_id=[1, token("<end_of_turn>")], pad_token_id=0
    )
    return Untrained(
        "gemma",
        model,
        processor,
        token("<end_of_image>"),
        token("<end_of_turn>"),
        token("<image_soft_token>"),
    )
