"""Idefics3 and SmolVLM2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import (
    GenerationConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessorPil,
)

from tests.lvlm.checkpoints.parts import (
    PATCH,
    SIDE,
    TEXT,
    VISION,
    built,
    byte_level,
    ids_of,
    saved,
)

_IDEFICS3_SPECIAL = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<fake_token_around_image>",
    "<image>",
    "<global-img>",
]
_IDEFICS3_TEMPLATE = (
    "<|begin_of_text|>{% for message in messages %}{{ message['role'] | capitalize }}:"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %}"
    " {{ part['text'] }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)


def save_idefics3(folder: Path) -> Path:
    return _save_idefics3(folder, Idefics3ForConditionalGeneration, Idefics3Config, Idefics3ImageProcessorPil)


def save_smolvlm(folder: Path) -> Path:
    return _save_idefics3(folder, SmolVLMForConditionalGeneration, SmolVLMConfig, SmolVLMImageProcessorPil)


def _save_idefics3(folder: Path, kind: Any, settings: Any, pictures: Any) -> Path:
    tokenizer = byte_level(_IDEFICS3_SPECIAL, ["User:", "Assistant:"])
    blocks = SIDE // PATCH // 2
    processor = Idefics3Processor(
        image_processor=pictures(size={"longest_edge": SIDE}, max_image_size={"longest_edge": SIDE}),
        tokenizer=tokenizer,
        image_seq_len=blocks**2,
        chat_template=_IDEFICS3_TEMPLATE,
    )
    ids = ids_of(tokenizer)
    config = settings(
        text_config={"model_type": "llama", "vocab_size": len(tokenizer), **TEXT, **ids},
        vision_config=VISION,
        scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    return saved(folder, built(kind, config, GenerationConfig(**ids)), processor)
