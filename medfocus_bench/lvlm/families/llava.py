"""LLaVA 1.5, and later models of the same type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, CLIPImageProcessorPil, LlavaProcessor, SiglipImageProcessorPil

from medfocus_bench.errors import InputError
from medfocus_bench.lvlm.families import Family
from medfocus_bench.lvlm.processors import load_processor

_PICTURES = {"clip_vision_model": CLIPImageProcessorPil, "siglip_vision_model": SiglipImageProcessorPil}


class Llava(Family):
    """One token for each patch of a square picture, from a CLIP tower or a SigLIP one.

    CLIP's processor scales the shorter side and cuts the ends off the longer one: it is given squares. How
    many tokens a picture has follows from the model's config, whatever the processor's files say or lack.
    """

    model_type = "llava"
    padded = True

    def processor(self, source: str | Path, origin: dict[str, Any]) -> Any:
        config = AutoConfig.from_pretrained(source, **origin)
        tower = config.vision_config.model_type
        if tower not in _PICTURES:
            raise InputError(f"there are LLaVAs of {' and '.join(_PICTURES)} here, and none of {tower}")
        processor = load_processor(LlavaProcessor, _PICTURES[tower], source, origin)
        processor.patch_size = config.vision_config.patch_size
        processor.vision_feature_select_strategy = "full"
        processor.num_additional_image_tokens = class_tokens(config)
        return processor

    def image_positions(self, model: Any, ids: torch.Tensor) -> torch.Tensor:
        return super().image_positions(model, ids)[class_tokens(model.config) :]

    def grid(self, model: Any, inputs: Any) -> tuple[int, int]:
        patch = model.config.vision_config.patch_size
        height, width = inputs["pixel_values"].shape[-2:]
        return height // patch, width // patch


def class_tokens(config: Any) -> int:
    """How many class tokens a model takes from its vision tower, before the tokens of patches."""
    has_one = config.vision_config.model_type == "clip_vision_model"
    return int(has_one and config.vision_feature_select_strategy == "full")
