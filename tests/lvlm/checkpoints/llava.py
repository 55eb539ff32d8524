"""LLaVA 1.5, LLaVA-NeXT and LLaVA-OneVision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import (
    CLIPImageProcessorPil,
    GenerationConfig,
    LlamaTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessorPil,
    LlavaProcessor,
    SiglipImageProcessorPil,
)

from medfocus_bench.lvlm.families.llava_onevision import LlavaOnevisionBaseView
from tests.lvlm.checkpoints.parts import (
    PATCH,
    SIDE,
    TEXT,
    VISION,
    built,
    byte_level,
    chatml,
    ids_of,
    qwen_tokenizer,
    saved,
    sentence_pieces,
)

_LLAVA_SPECIAL = ["<s>", "<pad>", "</s>", "<image>"]
_LLAVA_TEMPLATE = (
    "<s>{% for message in messages %}{{ message['role'] | upper }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% if message['role'] == 'assistant' %}</s>{% else %} {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
_LLAVA_NEXT_TEMPLATE = (
    "<s>{% for message in messages %}{% if message['role'] == 'user' %}[INST] {% endif %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n{% else %}"
    "{{ part['text'] }}{% endif %}{% endfor %}"
    "{% if message['role'] == 'user' %} [/INST]{% else %}</s>{% endif %}{% endfor %}"
)
_CUT = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
_TILES = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]


def save_llava(
    folder: Path,
    *,
    text: str = "llama",
    tower: str = "clip_vision_model",
    tokenizer: Any = None,
    side: int = SIDE,
    **options: Any,
) -> Path:
    """LLaVA 1.5, perhaps with another decoder, vision tower or tokenizer; `options` go to its config."""
    tokenizer = tokenizer or byte_level(_LLAVA_SPECIAL, ["USER:", "ASSISTANT:"])
    pictures: Any = CLIPImageProcessorPil(**_CUT)
    if tower == "siglip_vision_model":
        pictures = SiglipImageProcessorPil(size={"height": side, "width": side})
    config = LlavaConfig(**_llava_parts(tokenizer, text, tower, side), image_seq_length=64, **options)
    processor = LlavaProcessor(
        pictures,
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        chat_template=_LLAVA_TEMPLATE,
        num_additional_image_tokens=int(tower == "clip_vision_model"),
    )
    generation = GenerationConfig(**ids_of(tokenizer))
    return saved(folder, built(LlavaForConditionalGeneration, config, generation), processor)


def save_llava_next(folder: Path, **options: Any) -> Path:
    """LLaVA-NeXT with Mistral as its decoder; `options` go to its config."""
    tokenizer = byte_level(_LLAVA_SPECIAL, ["[INST]", "[/INST]"])
    parts = _llava_parts(tokenizer, "mistral", "clip_vision_model")
    config = LlavaNextConfig(**parts, image_grid_pinpoints=_TILES, **options)
    processor = LlavaNextProcessor(
        LlavaNextImageProcessorPil(**_CUT, image_grid_pinpoints=_TILES),
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        chat_template=_LLAVA_NEXT_TEMPLATE,
        num_additional_image_tokens=1,
    )
    generation = GenerationConfig(**ids_of(tokenizer))
    return saved(folder, built(LlavaNextForConditionalGeneration, config, generation), processor)


def save_llava_onevision(folder: Path) -> Path:
    tokenizer = qwen_tokenizer({"image_token": "<image>", "video_token": "<video>"})
    parts = _llava_parts(tokenizer, "qwen2", "siglip_vision_model")
    video = tokenizer.convert_tokens_to_ids("<video>")
    config = LlavaOnevisionConfig(**parts, video_token_index=video, image_grid_pinpoints=_TILES)
    processor = LlavaOnevisionBaseView(
        LlavaOnevisionImageProcessorPil(size={"height": SIDE, "width": SIDE}, image_grid_pinpoints=_TILES),
        tokenizer,
        chat_template=chatml("<image>"),
    )
    processor.num_image_tokens = (SIDE // PATCH) ** 2
    generation = GenerationConfig(**ids_of(tokenizer))
    return saved(folder, built(LlavaOnevisionForConditionalGeneration, config, generation), processor)


def _llava_parts(tokenizer: Any, text: str, tower: str, side: int = SIDE) -> dict[str, Any]:
    """The part of a config that all LLaVAs have."""
    vision = VISION | {"model_type": tower, "image_size": side}
    if tower == "siglip_vision_model":
        vision |= {"vision_use_head": False}
    return {
        "text_config": {"model_type": text, "vocab_size": len(tokenizer), **TEXT, **ids_of(tokenizer)},
        "vision_config": vision,
        "image_token_index": tokenizer.convert_tokens_to_ids("<image>"),
    }


def llama_tokenizer() -> LlamaTokenizer:
    """LLaMA's, which sets a space before every text and takes it away from what it decodes."""
    return LlamaTokenizer(
        **sentence_pieces(["<unk>", "<s>", "</s>", "<image>", "<pad>"], "\u2581"),
        pad_token="<pad>",
        add_bos_token=True,
        extra_special_tokens={"image_token": "<image>"},
    )
