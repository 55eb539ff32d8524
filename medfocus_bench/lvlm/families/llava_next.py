"""LLaVA-NeXT (LLaVA 1.6)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, LlavaNextImageProcessorPil, LlavaNextProcessor

from medfocus_bench.lvlm.families import Family
from medfocus_bench.lvlm.families.llava import class_tokens
from medfocus_bench.lvlm.processors import BaseViewPixels, BaseViewText, load_processor


class LlavaNext(Family):
    """The base view alone: one token for each patch of the whole picture, squashed to a square.

    Tiles of the enlarged picture, which the model has beside it as it is published, are off. After the base
    view stands the token that ends a line of tiles, and lies outside the grid.
    """

    model_type = "llava_next"

    def processor(self, source: str | Path, origin: dict[str, Any]) -> Any:
        processor = load_processor(LlavaNextBaseView, LlavaNextBaseViewPil, source, origin)
        processor.num_image_tokens = base_tokens(AutoConfig.from_pretrained(source, **origin))
        return processor

    def prepare(self, model: Any) -> None:
        # No tile fits into this resolution, the only one to choose from: the model expects the base view.
        model.config.image_grid_pinpoints = [[0, 0]]

    def image_positions(self, model: Any, ids: torch.Tensor) -> torch.Tensor:
        return super().image_positions(model, ids)[class_tokens(model.config) : -1]

    def other_inputs(self, model: Any, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        count, _, _, *size = inputs["pixel_values"].shape
        return {"image_sizes": torch.tensor([size] * count)}

    def grid(self, model: Any, inputs: Any) -> tuple[int, int]:
        patch = model.config.vision_config.patch_size
        height, width = inputs["pixel_values"].shape[-2:]
        return height // patch, width // patch

    def pixel_values(self, model: Any, inputs: Any) -> torch.Tensor:
        pixel_values: torch.Tensor = inputs["pixel_values"][0, 0]
        return pixel_values

    def image_inputs(self, model: Any, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"pixel_values": pixel_values[:, None]}


class LlavaNextBaseView(BaseViewText, LlavaNextProcessor):  # type: ignore[misc]
    """Of a picture the base view."""


class LlavaNextBaseViewPil(BaseViewPixels, LlavaNextImageProcessorPil):  # type: ignore[misc]
    """Of a picture the base view, resized with PIL."""


def base_tokens(config: Any) -> int:
    """How many tokens the base view has, the end of a line included."""
    vision = config.vision_config
    patches: int = (vision.image_size // vision.patch_size) ** 2
    return class_tokens(config) + patches + 1
