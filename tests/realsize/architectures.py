"""The architectures of Qwen2.5-VL and Gemma 3 as published, with random weights and, if asked, fewer blocks.

Widths, heads, vocabularies, grids and windows are the real ones. Depths may be cut; the full-attention blocks
of Qwen's vision tower then keep their share of one in eight, at least the last one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessorPil,
    Gemma3Processor,
    GenerationConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
)

from medfocus_bench.lvlm.processors import Qwen2_5_VLImageProcessor
from tests.realsize.vocabularies import gemma_tokenizer, qwen_tokenizer


@dataclass(frozen=True)
class Architecture:
    """A published model: depths, the text decoder's config and whether its embeddings are tied."""

    family: str
    blocks: int
    vision_blocks: int
    text: dict[str, Any]
    tied: bool

    def config(self, blocks: int, vision_blocks: int) -> Any:
        """The config of the model at these depths."""
        return CONFIGS[self.family](self, blocks, vision_blocks)


def _qwen(size: dict[str, int], blocks: int, tied: bool) -> Architecture:
    return Architecture("qwen2_5_vl", blocks, 32, size | {"rms_norm_eps": 1e-6}, tied)


def _gemma(size: dict[str, int], blocks: int) -> Architecture:
    return Architecture("gemma3", blocks, 27, size | {"vocab_size": 262_208, "sliding_window": 1024}, True)


def _widths(hidden: int, inner: int, heads: int, key_heads: int, **more: int) -> dict[str, int]:
    names = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    return dict(zip(names, (hidden, inner, heads, key_heads), strict=True)) | more


ARCHITECTURES: Final[dict[str, Architecture]] = {
    "qwen2.5-vl-3b": _qwen(_widths(2048, 11008, 16, 2, vocab_size=151_936), 36, True),
    "qwen2.5-vl-7b": _qwen(_widths(3584, 18944, 28, 4, vocab_size=152_064), 28, False),
    "gemma-3-4b": _gemma(_widths(2560, 10240, 8, 4, head_dim=256, query_pre_attn_scalar=256), 34),
    "gemma-3-12b": _gemma(_widths(3840, 15360, 16, 8, head_dim=256, query_pre_attn_scalar=256), 48),
    "gemma-3-27b": _gemma(_widths(5376, 21504, 32, 16, head_dim=128, query_pre_attn_scalar=168), 62),
}


def _qwen_config(of: Architecture, blocks: int, vision_blocks: int) -> Any:
    return Qwen2_5_VLConfig(
        text_config=of.text
        | {
            "num_hidden_layers": blocks,
            "max_position_embeddings": 128_000,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
            "bos_token_id": 151_643,
            "eos_token_id": 151_645,
            "tie_word_embeddings": of.tied,
        },
        vision_config={
            "depth": vision_blocks,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": of.text["hidden_size"],
            "fullatt_block_indexes": [n for n in (7, 15, 23, 31) if n < vision_blocks] or [vision_blocks - 1],
        },
        tie_word_embeddings=of.tied,
    )


def _gemma_config(of: Architecture, blocks: int, vision_blocks: int) -> Any:
    return Gemma3Config(
        text_config=of.text
        | {
            "num_hidden_layers": blocks,
            "max_position_embeddings": 131_072,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        },
        vision_config={
            "num_hidden_layers": vision_blocks,
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_attention_heads": 16,
            "image_size": 896,
            "patch_size": 14,
            "vision_use_head": False,
        },
        mm_tokens_per_image=256,
        image_token_index=262_144,
    )


CONFIGS: Final[dict[str, Callable[[Architecture, int, int], Any]]] = {
    "qwen2_5_vl": _qwen_config,
    "gemma3": _gemma_config,
}

_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}"
    "{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def save(name: str, folder: Path, cache: Path, *, blocks: int, vision_blocks: int) -> Path:
    """Write the checkpoint of an architecture at these depths: bfloat16 weights drawn with the seed 0."""
    of = ARCHITECTURES[name]
    kinds = {"qwen2_5_vl": Qwen2_5_VLForConditionalGeneration, "gemma3": Gemma3ForConditionalGeneration}
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        model: Any = kinds[of.family](of.config(blocks, vision_blocks))
    finally:
        torch.set_default_dtype(torch.float32)
    if of.family == "gemma3":
        # Untrained it is zero, and no picture would have an effect.
        torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=0.02)
    processor = (_qwen_processor if of.family == "qwen2_5_vl" else _gemma_processor)(cache)
    tokenizer = processor.tokenizer
    model.generation_config = GenerationConfig(
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id
    )
    model.save_pretrained(folder, max_shard_size="2GB")
    processor.save_pretrained(folder)
    return folder


def cut(model: Any, decoder: Any, blocks: int, vision_blocks: int) -> None:
    """Take the last blocks off a model, to these depths; the last block of Qwen's vision tower sees all."""
    decoder.layers = decoder.layers[:blocks]
    if model.config.model_type == "qwen2_5_vl":
        vision = model.model.visual
        vision.blocks = vision.blocks[:vision_blocks]
        whole = [n for n in vision.fullatt_block_indexes if n < vision_blocks]
        vision.fullatt_block_indexes = whole or [vision_blocks - 1]
    else:
        tower = model.model.vision_tower
        encoder = getattr(tower, "vision_model", tower).encoder
        encoder.layers = encoder.layers[:vision_blocks]


def _qwen_processor(cache: Path) -> Any:
    return Qwen2_5_VLImageProcessor(
        image_processor=Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=1280 * 28 * 28),
        tokenizer=qwen_tokenizer(cache),
        chat_template=_TEMPLATE,
    )


def _gemma_processor(cache: Path) -> Any:
    tokenizer = gemma_tokenizer(cache)
    pictures = Gemma3ImageProcessorPil(
        size={"height": 896, "width": 896}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    return Gemma3Processor(
        image_processor=pictures,
        tokenizer=tokenizer,
        chat_template=tokenizer.chat_template,
        image_seq_length=256,
    )
