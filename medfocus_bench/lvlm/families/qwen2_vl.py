"""Qwen2-VL."""

from __future__ import annotations

from medfocus_bench.lvlm.families import BoxConvention
from medfocus_bench.lvlm.families.qwen import QwenVL
from medfocus_bench.lvlm.processors import Qwen2VLPictureProcessor


class Qwen2VL(QwenVL):
    """Boxes are two points in thousandths: `<|box_start|>(x1,y1),(x2,y2)<|box_end|>`."""

    model_type = "qwen2_vl"
    kind = Qwen2VLPictureProcessor
    boxes: BoxConvention = "thousandths_xy"
