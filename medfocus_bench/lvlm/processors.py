"""Processors of checkpoints, independent of other installed libraries."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoProcessor,
    AutoTokenizer,
    Qwen2_5_VLProcessor,
    Qwen2VLProcessor,
    Qwen3VLProcessor,
)
from transformers.image_utils import SizeDict
from transformers.processing_utils import ProcessorMixin


class _WithoutVideo(ProcessorMixin):  # type: ignore[misc]
    """A processor of the Qwen-VL line without its video part, the only one that needs torchvision.

    Loads the same checkpoint folders and treats images and text alike.
    """

    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None, **_: Any
    ) -> None:
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


class Qwen2VLPictureProcessor(_WithoutVideo, Qwen2VLProcessor):  # type: ignore[misc]
    """Qwen2-VL's, for pictures and text."""


class Qwen2_5_VLImageProcessor(_WithoutVideo, Qwen2_5_VLProcessor):  # type: ignore[misc]  # noqa: N801
    """Qwen2.5-VL's, for pictures and text."""


class Qwen3VLPictureProcessor(_WithoutVideo, Qwen3VLProcessor):  # type: ignore[misc]
    """Qwen3-VL's, for pictures and text: the timestamps of frames are of its video part."""


class BaseViewText:
    """Part of a processor: the text holds the tokens of a picture's base view, and none of its tiles."""

    image_token: str
    num_image_tokens: int

    def replace_image_token(self, image_inputs: Any, image_idx: int, **_: Any) -> str:
        return self.image_token * self.num_image_tokens


class BaseViewPixels:
    """Part of an image processor: the base view, which is the whole picture squashed to a square."""

    resize: Any

    def get_image_patches(self, image: Any, *_: Any, size: tuple[int, int], resample: Any, **__: Any) -> Any:
        return [self.resize(image=image, size=SizeDict(height=size[0], width=size[1]), resample=resample)]


def load_processor(kind: Any, pictures: Any, source: str | Path, origin: dict[str, Any]) -> Any:
    """The processor of a checkpoint: of the class `kind`, with an image processor of the class `pictures`.

    The files of a checkpoint name classes, too: by them `AutoProcessor` loads one folder with torchvision
    alone, another only without it, and resizes a picture by other arithmetic where torchvision is there.
    `pictures` is a class that resizes with PIL (`...ImageProcessorPil`). `origin`: the keywords of
    `from_pretrained` that say which files are read.
    """
    settings, _ = kind.get_processor_dict(source, **origin)
    parts = [pictures.from_pretrained(source, **origin)]
    if "tokenizer" in kind.get_attributes():
        parts.append(AutoTokenizer.from_pretrained(source, **origin))
    processor = kind.from_args_and_dict(parts, settings)
    return _with_template(processor)


def load_any_processor(source: str | Path, origin: dict[str, Any]) -> Any:
    """The processor that a checkpoint's files name; it resizes with PIL if it can."""
    processor = AutoProcessor.from_pretrained(source, **origin)
    processor.image_processor = AutoImageProcessor.from_pretrained(source, backend="pil", **origin)
    return _with_template(processor)


def _with_template(processor: Any) -> Any:
    """Take the chat template of the tokenizer if the processor has none, as in many fine-tunes."""
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is not None and not processor.chat_template:
        processor.chat_template = tokenizer.chat_template
    return processor


def remember_picture(image_processor: Any) -> None:
    """Let an image processor cache its output for the last single picture.

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
