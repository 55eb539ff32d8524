"""LLaVA-OneVision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoConfig, LlavaOnevisionImageProcessorPil, LlavaOnevisionProcessor

from medfocus_bench.lvlm.families.llava_next import LlavaNext, base_tokens
from medfocus_bench.lvlm.processors import BaseViewPixels, BaseViewText, load_processor


class LlavaOnevision(LlavaNext):
    """As LLaVA-NeXT, the base view alone, here mostly from a SigLIP tower."""

    model_type = "llava_onevision"

    def processor(self, source: str | Path, origin: dict[str, Any]) -> Any:
        processor = load_processor(LlavaOnevisionBaseView, LlavaOnevisionBaseViewPil, source, origin)
        processor.num_image_tokens = base_tokens(AutoConfig.from_pretrained(source, **origin))
        return processor


class LlavaOnevisionBaseView(BaseViewText, LlavaOnevisionProcessor):  # type: ignore[misc]
    """Of a picture the base view; without the video part, the only one that needs torchvision."""

    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None, **_: Any
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)


class LlavaOnevisionBaseViewPil(BaseViewPixels, LlavaOnevisionImageProcessorPil):  # type: ignore[misc]
    """Of a picture the base view, resized with PIL."""
