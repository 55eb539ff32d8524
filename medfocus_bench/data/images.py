"""Decoding the images of a benchmark."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from medfocus_bench.errors import BenchmarkError


def decode_grey(data: bytes, *, place: str) -> npt.NDArray[np.float32]:
    """A PNG (8 or 16 bit) or JPEG as grey values in [0, 1]: (height, width).

    16-bit images are scaled by their own range. Raises BenchmarkError that starts with `place`.
    """
    try:
        with Image.open(BytesIO(data), formats=("PNG", "JPEG")) as image:
            if image.mode.startswith("I"):
                deep = np.asarray(image, dtype=np.float32)
                low, high = float(deep.min()), float(deep.max())
                return (deep - low) / np.float32(max(high - low, 1.0))
            return np.asarray(image.convert("L"), dtype=np.float32) / np.float32(255)
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise BenchmarkError(f"{place}: the image cannot be decoded: {error}") from None
