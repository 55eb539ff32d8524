"""The images of a benchmark: their size and their grey values."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from medfocus_bench.errors import BenchmarkError

_FORMATS = ("PNG", "JPEG")
_UNREADABLE = (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError)


def header_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that the header of a PNG or JPEG states; None where it cannot be read."""
    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as image:
            return image.size
    except _UNREADABLE:
        return None


def decode_grey(data: bytes, *, place: str) -> npt.NDArray[np.float32]:
    """A PNG (8 or 16 bit) or JPEG as grey values in [0, 1]: (height, width).

    16-bit images are scaled by their own range. Raises BenchmarkError that starts with `place`.
    """
    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as image:
            if image.mode.startswith("I"):
                deep = np.asarray(image, dtype=np.float32)
                low, high = float(deep.min()), float(deep.max())
                return (deep - low) / np.float32(max(high - low, 1.0))
            return np.asarray(image.convert("L"), dtype=np.float32) / np.float32(255)
    except _UNREADABLE as error:
        raise BenchmarkError(f"{place}: the image cannot be decoded: {error}") from None


def decode_uint8(data: bytes, *, place: str) -> npt.NDArray[np.uint8]:
    """As `decode_grey`, in whole levels of 0 to 255, as an LVLM is given pictures: (height, width)."""
    return np.round(decode_grey(data, place=place) * 255).astype(np.uint8)
