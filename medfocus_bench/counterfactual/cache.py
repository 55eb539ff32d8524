"""Drawn pictures on disk, by what they were drawn of."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from medfocus_bench.geometry import UInt8Image
from medfocus_bench.storage import write_atomic

_CHECKSUM: Final = "sha256 of the pixels"


def content_key(**parts: Any) -> str:
    """A name for what a picture depends on: 64 hex digits.

    Arrays count with their type, shape and values; everything else as JSON.
    """
    return sha256(json.dumps(_described(parts), sort_keys=True).encode()).hexdigest()


def _described(part: Any) -> Any:
    if isinstance(part, np.ndarray):
        return [part.dtype.str, part.shape, _checksum(part)]
    if isinstance(part, Mapping):
        return {name: _described(value) for name, value in part.items()}
    if isinstance(part, list | tuple):
        return [_described(item) for item in part]
    return part


def _checksum(pixels: npt.NDArray[Any]) -> str:
    return sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


@dataclass(frozen=True, slots=True)
class PictureCache:
    """Grey pictures in a folder, one PNG each, by a key of `content_key`.

    Written to another name and moved, so that a stopped run leaves no half of a picture and two processes may
    share a folder. Each file holds a checksum of its pixels; one that does not fit is as good as absent.
    """

    folder: Path

    def get(self, key: str, shape: tuple[int, int]) -> UInt8Image | None:
        """The picture of a key; None where it is missing, damaged or not of this shape (height, width)."""
        try:
            with Image.open(self._path(key), formats=("PNG",)) as image:
                # The size is what the header says: nothing is decoded that was not expected.
                if image.mode != "L" or image.size != shape[::-1]:
                    return None
                pixels = np.asarray(image)
                stated = image.info.get(_CHECKSUM)
        except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError):
            return None
        return pixels if stated == _checksum(pixels) else None

    def put(self, key: str, picture: UInt8Image) -> None:
        """Keep a picture (height, width)."""
        note = PngInfo()
        note.add_text(_CHECKSUM, _checksum(picture))
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "PNG", pnginfo=note)
        write_atomic(self._path(key), file.getvalue())

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.png"
