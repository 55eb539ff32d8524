"""The Qwen-VL line."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import load_file, save_file
from transformers import (
    GenerationConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
)

from medfocus_bench.lvlm.families.qwen import QwenVL
from medfocus_bench.lvlm.processors import Qwen2VLPictureProcessor, Qwen3VLPictureProcessor
from medfocus_bench.phantom import PHANTOM_LVLMS
from medfocus_bench.phantom.training.checkpoints import untrained
from tests.lvlm.checkpoints.parts import (
    LAYERS,
    TEXT,
    WIDTH,
    built,
    saved,
)


def save_qwen(folder: Path) -> Path:
    """The phantom track's Qwen2.5-VL at half its width and depth."""
    parts = untrained("qwen", 0)
    config = parts.model.config
    text, vision = config.text_config, config.vision_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = WIDTH, 2 * WIDTH, 2
    text.layer_types = text.layer_types[:2]
    text.rope_parameters = {**text.rope_parameters, "mrope_section": [2, 3, 3]}
    vision.hidden_size, vision.intermediate_size, vision.depth, vision.num_heads = 32, 64, 2, 2
    vision.out_hidden_size, vision.fullatt_block_indexes = WIDTH, [1]
    model = built(Qwen2_5_VLForConditionalGeneration, config, parts.model.generation_config)
    return saved(folder, model, parts.processor)


def save_qwen2_vl(folder: Path) -> Path:
    """Qwen2-VL, with a seed by which some darkened patch makes "Yes." less likely."""
    vision = {"embed_dim": 32, "hidden_size": WIDTH, "depth": 2, "num_heads": 2, "mlp_ratio": 2}
    parts = _qwen_parts(2, [2, 3, 3], vision)
    processor = Qwen2VLPictureProcessor(
        Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=224 * 224), parts.tokenizer, parts.template
    )
    config = Qwen2VLConfig(**parts.config)
    model = built(Qwen2VLForConditionalGeneration, config, parts.generation, seed=2)
    return saved(folder, model, processor)


def save_qwen3_vl(folder: Path, *, seed: int = 0, deepstack: Sequence[int] = (0, 1)) -> Path:
    """Qwen3-VL: two features of the picture enter after the first blocks, of three."""
    return _save_qwen3_vl(folder, Qwen3VLForConditionalGeneration, Qwen3VLConfig, seed, deepstack)


def save_qwen3_vl_moe(folder: Path) -> Path:
    """The same with four experts a block, two of which see a token."""
    experts = {"moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2}
    kind = Qwen3VLMoeForConditionalGeneration
    return _save_qwen3_vl(folder, kind, Qwen3VLMoeConfig, 0, (0, 1), **experts)


def _save_qwen3_vl(
    folder: Path, kind: Any, settings: Any, seed: int, deepstack: Sequence[int], **text: Any
) -> Path:
    vision = {"hidden_size": 32, "out_hidden_size": WIDTH, "depth": 3, "num_heads": 2}
    vision |= {"intermediate_size": 64, "patch_size": 16, "num_position_embeddings": 64}
    parts = _qwen_parts(
        LAYERS, [4, 2, 2], vision | {"deepstack_visual_indexes": list(deepstack)}, mrope_interleaved=True
    )
    half = [0.5, 0.5, 0.5]
    size = {"shortest_edge": 64 * 64, "longest_edge": 224 * 224}
    pictures = Qwen2VLImageProcessorPil(size=size, patch_size=16, image_mean=half, image_std=half)
    processor = Qwen3VLPictureProcessor(pictures, parts.tokenizer, parts.template)
    parts.config["text_config"] |= {"head_dim": WIDTH // 4, **text}
    model = built(kind, settings(**parts.config), parts.generation, seed=seed)
    return saved(folder, model, processor)


class _QwenParts(NamedTuple):
    tokenizer: Any
    template: str
    config: dict[str, Any]
    generation: GenerationConfig


def _qwen_parts(layers: int, sections: list[int], vision: dict[str, Any], **rope: Any) -> _QwenParts:
    """The common part of the tiny checkpoints of the Qwen-VL line, weights untied."""
    parts = untrained("qwen", 0)
    tokenizer = parts.processor.tokenizer
    marks = {"extra_special_tokens": list(QwenVL.markup)}
    tokenizer.add_special_tokens(marks, replace_extra_special_tokens=False)
    rope |= {"rope_type": "default", "rope_theta": 1e4, "mrope_section": sections}
    text = TEXT | {"vocab_size": len(tokenizer), "num_hidden_layers": layers, "rope_parameters": rope}
    ends = ("bos_token_id", "eos_token_id", "pad_token_id")
    text |= {name: getattr(parts.model.config.text_config, name) for name in ends}
    text |= {"max_position_embeddings": 4096}
    ids = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    config = {name: getattr(parts.model.config, name) for name in ids}
    config |= {"text_config": text, "vision_config": vision, "tie_word_embeddings": False}
    return _QwenParts(tokenizer, parts.processor.chat_template, config, parts.model.generation_config)


def save_overflowing(folder: Path) -> Path:
    """The phantom track's Qwen2.5-VL with hidden states beyond float16's range; other types answer as before.

    All that the blocks add to the residual stream is larger by a factor that every norm takes out again.
    """
    shutil.copytree(PHANTOM_LVLMS["phantom_qwen"], folder)
    weights = load_file(folder / "model.safetensors")
    for name, values in weights.items():
        if name == "model.embed_tokens.weight" or name.endswith(("merger.mlp.2.weight", "merger.mlp.2.bias")):
            weights[name] = values * 2.0**13
        if name.startswith("model.layers.") and name.endswith(("o_proj.weight", "down_proj.weight")):
            weights[name] = values * 2.0**13
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
