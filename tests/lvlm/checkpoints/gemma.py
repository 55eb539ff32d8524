"""Gemma 3 and PaliGemma."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    Gemma3ForConditionalGeneration,
    GemmaTokenizer,
    GenerationConfig,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    SiglipImageProcessorPil,
)

from medfocus_bench.phantom.training.checkpoints import untrained
from tests.lvlm.checkpoints.parts import (
    PATCH,
    SIDE,
    TEXT,
    VISION,
    WIDTH,
    built,
    saved,
    sentence_pieces,
)


def save_gemma(folder: Path, *, vocabulary: int | None = None, projector: float = 0.1) -> Path:
    """The phantom track's Gemma 3, with another vocabulary; `projector` scales the image's way in."""
    parts = untrained("gemma", 0)
    config = parts.model.config
    config.text_config.vocab_size = vocabulary or config.text_config.vocab_size
    model = built(Gemma3ForConditionalGeneration, config, parts.model.generation_config)
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=projector)
    return saved(folder, model, parts.processor)


def save_paligemma(folder: Path) -> Path:
    tokenizer = GemmaTokenizer(
        **sentence_pieces(["<pad>", "<eos>", "<bos>", "<unk>", "<image>"], "\n"),
        extra_special_tokens={"image_token": "<image>"},
    )
    image_processor = SiglipImageProcessorPil(
        size={"height": SIDE, "width": SIDE}, image_seq_length=(SIDE // PATCH) ** 2
    )
    processor = PaliGemmaProcessor(image_processor=image_processor, tokenizer=tokenizer)
    ids = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    config = PaliGemmaConfig(
        text_config=TEXT
        | {"model_type": "gemma", "vocab_size": len(tokenizer), "head_dim": WIDTH // 4}
        | ids,
        vision_config=VISION
        | {"model_type": "siglip_vision_model", "projection_dim": WIDTH, "vision_use_head": False},
        projection_dim=WIDTH,
        tie_word_embeddings=False,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    return saved(folder, built(PaliGemmaForConditionalGeneration, config, GenerationConfig(**ids)), processor)
