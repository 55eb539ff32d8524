"""InternVL 3."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    GenerationConfig,
    GotOcr2ImageProcessorPil,
    InternVLConfig,
    InternVLForConditionalGeneration,
)

from medfocus_bench.lvlm.families.internvl import InternVL, InternVLOfImages
from tests.lvlm.checkpoints.parts import (
    PATCH,
    SIDE,
    TEXT,
    VISION,
    built,
    chatml,
    ids_of,
    qwen_tokenizer,
    saved,
)


def save_internvl(folder: Path) -> Path:
    roles = {"start_image_token": "<img>", "end_image_token": "</img>"}
    roles |= {"context_image_token": "<IMG_CONTEXT>", "video_token": "<video>"}
    tokenizer = qwen_tokenizer(roles, InternVL.markup)
    blocks = (SIDE // PATCH // 2) ** 2
    processor = InternVLOfImages(
        GotOcr2ImageProcessorPil(size={"height": SIDE, "width": SIDE}),
        tokenizer,
        image_seq_length=blocks,
        chat_template=chatml("<IMG_CONTEXT>"),
    )
    config = InternVLConfig(
        text_config={"model_type": "qwen2", "vocab_size": len(tokenizer), **TEXT, **ids_of(tokenizer)},
        vision_config=VISION,
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=blocks,
        tie_word_embeddings=False,
    )
    model = built(InternVLForConditionalGeneration, config, GenerationConfig(**ids_of(tokenizer)))
    drawn = model.model.vision_tower.embeddings
    for weight in (drawn.cls_token, drawn.position_embeddings):  # zero as the library draws them
        torch.nn.init.normal_(weight, std=0.02)
    return saved(folder, model, processor)
