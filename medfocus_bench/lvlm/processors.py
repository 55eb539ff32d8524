"""Processors that the pinned environment needs and transformers lacks."""

from __future__ import annotations

from typing import Any

from transformers import AutoProcessor, Qwen2_5_VLConfig, Qwen2_5_VLProcessor
from transformers.processing_utils import ProcessorMixin
from transformers.utils import is_torchvision_available


class Qwen2_5_VLImageProcessor(Qwen2_5_VLProcessor):  # type: ignore[misc]  # noqa: N801
    """The Qwen2.5-VL processor without its video part, the only one that needs torchvision.

    Loads the same checkpoint folders and treats images and text alike.
    """

    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None, **_: Any
    ) -> None:
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


def register_processors() -> None:
    """Lets `AutoProcessor` load Qwen2.5-VL folders where torchvision is missing."""
    if not is_torchvision_available():
        AutoProcessor.register(Qwen2_5_VLConfig, Qwen2_5_VLImageProcessor, exist_ok=True)
