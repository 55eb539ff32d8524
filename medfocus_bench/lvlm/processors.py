"""Processors that the pinned environment needs and transformers lacks."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from PIL import Image
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


def remember_picture(image_processor: Any) -> None:
    """Makes an image processor keep what it made of the last single picture.

    The same picture is read again with another prompt by some methods, and is then not preprocessed anew.
    """
    plain = image_processor.preprocess
    held: dict[bytes, Any] = {}

    def preprocess(images: Any, *args: Any, **options: Any) -> Any:
        picture = images
        while isinstance(picture, list) and len(picture) == 1:
            picture = picture[0]
        if not isinstance(picture, Image.Image):
            return plain(images, *args, **options)
        about = repr((picture.size, picture.mode, args, sorted(options.items(), key=lambda item: item[0])))
        key = blake2b(picture.tobytes() + about.encode()).digest()
        if key not in held:
            held.clear()
            held[key] = plain(images, *args, **options)
        # A copy: processors take out what they need.
        return type(held[key])(dict(held[key]))

    image_processor.preprocess = preprocess
