"""Qwen3-VL, dense and with experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from medfocus_bench.lvlm.families import Assumption, BoxConvention
from medfocus_bench.lvlm.families.qwen import QwenVL
from medfocus_bench.lvlm.processors import Qwen3VLPictureProcessor


class Qwen3VL(QwenVL):
    """Deepstack: what blocks of the vision tower saw is added to the outputs of the decoder's first blocks.

    Three of them in the published models, each feature at the image token that shows the same place (Meng et
    al. 2024, "DeepStack"). So the picture enters several times: with the embeddings, and after each of these
    blocks. LRP collects the relevance of every entry. The state that a block hands on holds what entered up
    to it, so Grad-CAM and lenses at one of the first blocks see a part of the picture's features; the middle
    block, their default, sees all. Rollout and propagated attention spread the features that enter later
    over blocks which these never passed.

    Boxes are thousandths (x, y, x, y). The "Thinking" checkpoints have no switch: their template opens a
    thought, which is part of the response.
    """

    model_type = "qwen3_vl"
    kind = Qwen3VLPictureProcessor
    pixels = (4 * 32 * 32, 1280 * 32 * 32)
    boxes: BoxConvention = "thousandths_xy"
    injected = "deepstack_visual_embeds"


class Qwen3VLMoe(Qwen3VL):
    """Blocks choose experts, for which LRP has no rule."""

    model_type = "qwen3_vl_moe"
    lacks: ClassVar[Mapping[Assumption, str]] = {
        "dense": "its blocks choose experts, and the rules for relevance are those of dense blocks"
    }
