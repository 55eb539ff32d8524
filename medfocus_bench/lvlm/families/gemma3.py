"""Gemma 3 and MedGemma."""

from __future__ import annotations

from math import isqrt
from pathlib import Path
from typing import Any, ClassVar

from transformers import Gemma3ImageProcessorPil, Gemma3Processor

from medfocus_bench.lvlm.families import BoxConvention, Family
from medfocus_bench.lvlm.processors import load_processor


class Gemma3(Family):
    """The processor squashes any picture to a square; the tokens are a square grid over it.

    Pan-and-scan, which would add crops of the picture as further images, is off.
    """

    model_type = "gemma3"
    type_ids = "token_type_ids"
    boxes: BoxConvention = "thousandths_yx"
    image_options: ClassVar[dict[str, Any]] = {"do_pan_and_scan": False}

    def processor(self, source: str | Path, origin: dict[str, Any]) -> Any:
        return load_processor(Gemma3Processor, Gemma3ImageProcessorPil, source, origin)

    def grid(self, model: Any, inputs: Any) -> tuple[int, int]:
        side = isqrt(model.config.mm_tokens_per_image)
        return side, side
