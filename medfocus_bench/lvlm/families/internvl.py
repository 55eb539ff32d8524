"""InternVL 3, in the form that transformers loads (`-hf`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from transformers import GotOcr2ImageProcessorPil, InternVLProcessor

from medfocus_bench.lvlm.families import BoxConvention, Family
from medfocus_bench.lvlm.processors import load_processor


class InternVL(Family):
    """The processor squashes any picture to a square; blocks of patches make one token each, row by row.

    Cropping to patches, which would add tiles of the enlarged picture, is off.
    """

    model_type = "internvl"
    boxes: BoxConvention = "thousandths_xy"
    markup = ("<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>")
    image_options: ClassVar[dict[str, Any]] = {"crop_to_patches": False}

    def processor(self, source: str | Path, origin: dict[str, Any]) -> Any:
        return load_processor(InternVLOfImages, GotOcr2ImageProcessorPil, source, origin)

    def grid(self, model: Any, inputs: Any) -> tuple[int, int]:
        merged = model.config.downsample_ratio
        sides = zip(inputs["pixel_values"].shape[-2:], model.config.vision_config.patch_size, strict=True)
        rows, columns = (int(side // patch * merged) for side, patch in sides)
        return rows, columns


class InternVLOfImages(InternVLProcessor):  # type: ignore[misc]
    """The InternVL processor without its video part, the only one that needs torchvision."""

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        image_seq_length: int = 256,
        chat_template: Any = None,
        **_: Any,
    ) -> None:
        super().__init__(image_processor, tokenizer, None, image_seq_length, chat_template)
