"""Pictures of a benchmark: their size from the header, and their grey values.

PNG (8 or 16 bit), JPEG, and DICOM where the extra `[dicom]` is installed. What a header claims is checked
before anything is decoded, so that a small file cannot ask for a large memory.
"""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from medfocus_bench.errors import BenchmarkError

MAX_PIXELS: Final = 80_000_000
"""More than any radiograph has; PIL, too, starts to warn a little above."""

MAX_FILE_BYTES: Final = 256 * 2**20

_FORMATS = ("PNG", "JPEG")
_UNREADABLE = (
    UnidentifiedImageError,
    OSError,
    ValueError,
    SyntaxError,
    IndexError,
    struct.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
_MAGIC = {b"\x89PNG": "picture", b"\xff\xd8\xff": "picture"}
_PREAMBLE = 128
"""Bytes of anything before the `DICM` of a DICOM file."""


class PictureError(BenchmarkError):
    """A picture that is not there, that cannot be read, or that does not fit what is said of it."""


def header_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that the header of a PNG or JPEG states; None where it cannot be read."""
    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as image:
            return image.size
    except _UNREADABLE:
        return None


def decode_grey(data: bytes, *, place: str) -> npt.NDArray[np.float32]:
    """A PNG (8 or 16 bit) or JPEG as grey values in [0, 1]: (height, width).

    16-bit images are scaled by their own range. Raises PictureError that starts with `place`.
    """
    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as image:
            check_size(*image.size, place=place)
            if image.mode.startswith("I"):
                return by_own_range(np.asarray(image, dtype=np.float32))
            return np.asarray(image.convert("L"), dtype=np.float32) / np.float32(255)
    except _UNREADABLE as error:
        raise PictureError(f"{place}: the image cannot be decoded: {error}") from None


def decode_uint8(data: bytes, *, place: str) -> npt.NDArray[np.uint8]:
    """As `decode_grey`, in whole levels of 0 to 255, as an LVLM is given pictures: (height, width)."""
    return in_levels(decode_grey(data, place=place))


def by_own_range(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """`values` from their smallest to their largest as 0 to 1; values that are all equal become 0."""
    low, high = float(values.min()), float(values.max())
    return (values - np.float32(low)) / np.float32(high - low or 1.0)


def in_levels(grey: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Grey values in [0, 1] as whole levels of 0 to 255."""
    return np.round(grey * 255).astype(np.uint8)


def check_size(width: int, height: int, *, place: str) -> None:
    """Raises PictureError for sides that no radiograph has."""
    if min(width, height) < 1 or width * height > MAX_PIXELS:
        raise PictureError(
            f"{place}: claims {width} x {height} pixels; at most {MAX_PIXELS:,} pixels are decoded"
        )


def picture_at(root: Path, ref: str) -> Path:
    """The file that a reference of a table names below the root.

    The folders of the root itself may be links: they are the user's. Raises PictureError for a reference that
    leads out of the root, and for a link further down that leads out of its collection.
    """
    parts = PurePosixPath(ref)
    if not ref or "\\" in ref or "\0" in ref or parts.is_absolute() or ".." in parts.parts:
        raise PictureError(f"{ascii(ref)[:200]}: is no path below {root}")
    path = root / parts
    collection = root.joinpath(*parts.parts[:1]) if len(parts.parts) > 1 else root
    try:
        inside = path.resolve().is_relative_to(collection.resolve())
    except (OSError, RuntimeError) as error:
        raise PictureError(f"{path}: cannot be followed: {error}") from None
    if not inside:
        raise PictureError(f"{path}: is a link that leads out of {collection}; put the picture itself there")
    return path


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height of a PNG, JPEG or DICOM file, from its header alone.

    Raises PictureError that names the file.
    """
    if _kind(path) == "dicom":
        from medfocus_bench.data.dicom import dicom_size

        return dicom_size(path)
    try:
        with Image.open(path, formats=_FORMATS) as image:
            size = image.size
    except _UNREADABLE as error:
        raise PictureError(f"{path}: the image cannot be decoded: {error}") from None
    check_size(*size, place=str(path))
    return size


def read_picture(path: Path) -> npt.NDArray[np.uint8]:
    """A PNG, JPEG or DICOM file as an LVLM is given pictures: (height, width), levels of 0 to 255.

    Raises PictureError that names the file.
    """
    if _kind(path) == "dicom":
        from medfocus_bench.data.dicom import decode_dicom

        return decode_dicom(path)
    try:
        return decode_uint8(path.read_bytes(), place=str(path))
    except OSError as error:
        raise PictureError(f"{path}: cannot be read: {error.strerror}") from None


def _kind(path: Path) -> str:
    """Whether a file is a DICOM or another picture, by its content."""
    try:
        if not path.is_file():
            raise PictureError(f"{path}: is not there")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise PictureError(f"{path}: is larger than {MAX_FILE_BYTES // 2**20} MiB")
        with path.open("rb") as file:
            head = file.read(_PREAMBLE + 4)
    except OSError as error:
        raise PictureError(f"{path}: cannot be read: {error.strerror}") from None
    if head[_PREAMBLE:] == b"DICM":
        return "dicom"
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    raise PictureError(f"{path}: is no PNG, JPEG or DICOM picture")
