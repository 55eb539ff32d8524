"""PaliGemma and PaliGemma 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from transformers import PaliGemmaProcessor, SiglipImageProcessorPil

from medfocus_bench.errors import InputError
from medfocus_bench.lvlm.families import Assumption, BoxConvention, Family
from medfocus_bench.lvlm.processors import load_processor

_ONE_QUESTION = "PaliGemma holds no conversation: it answers one question about a picture"


class PaliGemma(Family):
    """No chat: the image tokens, the question and a newline, which all attend to each other (type 0).

    The response (type 1) is causal. The processor squashes any picture to a square and puts the start token
    between the image and the question.
    """

    model_type = "paligemma"
    type_ids = "token_type_ids"
    response_type = 1
    boxes: BoxConvention = "thousandths_yx"
    lacks: ClassVar[Mapping[Assumption, str]] = {"conversation": _ONE_QUESTION}

    def processor(self, source: str | Path, origin: dict[str, Any]) -> Any:
        return load_processor(PaliGemmaProcessor, SiglipImageProcessorPil, source, origin)

    def prompt(self, processor: Any, messages: Sequence[dict[str, Any]]) -> str:
        if len(messages) != 1:
            raise InputError(_ONE_QUESTION)
        parts = messages[0]["content"]
        return "".join(part.get("text", processor.image_token) for part in parts)

    def grid(self, model: Any, inputs: Any) -> tuple[int, int]:
        vision = model.config.vision_config
        side = vision.image_size // vision.patch_size
        return side, side
