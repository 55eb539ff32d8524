"""An explanation, or an evidence region, over its image."""

from __future__ import annotations

from typing import Final, Protocol, Self

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from medfocus_bench.drawing.colours import colour_scale
from medfocus_bench.geometry import FloatArray, Frame, UInt8Image, explains

_TOP_QUANTILE: Final = 0.998
"""The value that gets the brightest colour: a few outlying pixels shall not hide the rest of a map."""

_BOX_COLOUR: Final = (255, 214, 64)
_REGION_COLOUR: Final = (64, 224, 208)
"""Of the evidence region: apart from the yellow of reported boxes and from the scale of maps."""


class Explained(Protocol):
    """The parts of an attribution that are drawn over an image."""

    @property
    def saliency(self) -> npt.NDArray[np.generic] | None: ...

    @property
    def boxes(self) -> FloatArray | None: ...

    def in_model_frame(self, frame: Frame) -> Self: ...


def fit(width: int, height: int, within: tuple[int, int]) -> tuple[int, int]:
    """The largest size of a picture within a width and a height, its aspect kept."""
    scale = min(within[0] / width, within[1] / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def overlay(
    image: UInt8Image,
    attribution: Explained,
    size: tuple[int, int],
    model_size: int,
    at_hand: Image.Image | None = None,
) -> Image.Image | None:
    """Draw an explanation over its image (height, width) at a size in pixels; None for an empty one.

    The part of a map that is padding is cut away; the rest is scaled from its lowest to its highest value.
    `at_hand`: the `plain` picture of that size, where it was made already.
    """
    height, width = image.shape[:2]
    picture = plain(image, size) if at_hand is None else at_hand.copy()
    frame = Frame(width, height, model_size)
    framed = attribution.in_model_frame(frame)
    if framed.saliency is not None:
        values = _content(framed.saliency, frame)
        return None if values is None else _coloured(picture, values)
    if attribution.boxes is None or len(attribution.boxes) == 0:
        return None
    scale = np.array([size[0] / width, size[1] / height] * 2)
    _outline(picture, attribution.boxes * scale)
    return picture


def plain(image: UInt8Image, size: tuple[int, int]) -> Image.Image:
    """A picture at a size in pixels, RGB."""
    return Image.fromarray(image).resize(size, Image.Resampling.LANCZOS).convert("RGB")


def dash_boxes(picture: Image.Image, boxes: FloatArray) -> None:
    """Outline boxes with dashes, dark below light, so that they show on any ground."""
    draw = ImageDraw.Draw(picture)
    for x1, y1, x2, y2 in np.round(boxes).astype(int).tolist():
        right, bottom = max(x1, x2 - 1), max(y1, y2 - 1)
        draw.rectangle((x1, y1, right, bottom), outline=(0, 0, 0), width=1)
        for start in range(x1, right + 1, 9):
            end = min(start + 5, right)
            draw.line((start, y1, end, y1), fill=_REGION_COLOUR, width=2)
            draw.line((start, bottom, end, bottom), fill=_REGION_COLOUR, width=2)
        for start in range(y1, bottom + 1, 9):
            end = min(start + 5, bottom)
            draw.line((x1, start, x1, end), fill=_REGION_COLOUR, width=2)
            draw.line((right, start, right, end), fill=_REGION_COLOUR, width=2)


def _content(saliency: npt.NDArray[np.generic], frame: Frame) -> npt.NDArray[np.float64] | None:
    """The values over the image in [0, 1]; None for a map that explains nothing."""
    if not explains(saliency):
        return None
    values = frame.content_of(saliency).astype(np.float64)
    if not explains(values):
        return None
    low, high = values.min(), np.quantile(values, _TOP_QUANTILE)
    high = high if high > low else values.max()
    return np.asarray(np.clip((values - low) / (high - low), 0, 1))


def _coloured(picture: Image.Image, values: npt.NDArray[np.float64]) -> Image.Image:
    enlarged = Image.fromarray(values.astype(np.float32)).resize(picture.size, Image.Resampling.BILINEAR)
    levels = np.clip(np.round(np.asarray(enlarged) * 255), 0, 255).astype(np.uint8)
    colours, opacity = np.split(colour_scale().astype(np.float32), [3], axis=1)
    mixed = np.asarray(picture, dtype=np.float32)
    mixed *= (1 - opacity)[levels]
    mixed += (colours * opacity + np.float32(0.5))[levels]  # the half rounds
    return Image.fromarray(mixed.astype(np.uint8))


def _outline(picture: Image.Image, boxes: npt.NDArray[np.float64]) -> None:
    draw = ImageDraw.Draw(picture)
    stroke = max(2, round(max(picture.size) / 130))
    for x1, y1, x2, y2 in np.round(boxes).astype(int).tolist():
        # Edges are half-open, and drawn ends are not; a thin box still has an outline.
        inner = (x1, y1, max(x1, x2 - 1), max(y1, y2 - 1))
        draw.rectangle(inner, outline=(0, 0, 0), width=stroke + 2)
        draw.rectangle(inner, outline=_BOX_COLOUR, width=stroke)
