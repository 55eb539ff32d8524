"""Qwen2.5-VL."""

from __future__ import annotations

from medfocus_bench.lvlm.families.qwen import QwenVL
from medfocus_bench.lvlm.processors import Qwen2_5_VLImageProcessor


class Qwen2_5_VL(QwenVL):  # noqa: N801
    """Boxes are in pixels of the picture that the processor made."""

    model_type = "qwen2_5_vl"
    kind = Qwen2_5_VLImageProcessor
