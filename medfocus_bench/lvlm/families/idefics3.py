"""Idefics3."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import Idefics3ImageProcessorPil, Idefics3Processor

from medfocus_bench.lvlm.families import Family
from medfocus_bench.lvlm.processors import load_processor


class Idefics3(Family):
    """The processor squashes any picture to a square; blocks of patches make one token each.

    Image splitting, which would add crops of the picture as further images, is off.
    """

    model_type = "idefics3"
    image_options: ClassVar[dict[str, Any]] = {"do_image_splitting": False}

    def processor(self, source: str | Path, origin: dict[str, Any]) -> Any:
        return load_processor(Idefics3Processor, Idefics3ImageProcessorPil, source, origin)

    def decoder(self, model: Any) -> Any:
        return model.base_model.text_model

    def grid(self, model: Any, inputs: Any) -> tuple[int, int]:
        block = model.config.vision_config.patch_size * model.config.scale_factor
        height, width = inputs["pixel_values"].shape[-2:]
        return height // block, width // block

    def pixel_values(self, model: Any, inputs: Any) -> torch.Tensor:
        pixel_values: torch.Tensor = inputs["pixel_values"][0, 0]
        return pixel_values

    def image_inputs(self, model: Any, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        # A picture of nothing but zeros, which is mid-grey, would pass for padding and be left out.
        blank = (pixel_values == 0).all(dim=(1, 2, 3), keepdim=True)
        return {"pixel_values": (pixel_values + blank * 1e-6)[:, None]}
