"""Pictures of a benchmark: their size from the header, and their grey values, as a viewer shows them.

PNG (8 or 16 bit), JPEG, and DICOM where the extra `[dicom]` is installed. The claims of a header are
checked before anything is decoded, so that a small file cannot ask for much memory.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageChops, ImageOps, UnidentifiedImageError

from medfocus_bench.data.pixels import (
    MAX_FILE_BYTES,
    PictureError,
    bands,
    by_own_range,
    check_levels,
    check_size,
)
from medfocus_bench.geometry import UInt8Image

MAX_CHUNKS: Final = 100_000
"""Parts of a PNG. An encoder makes one of every few thousand bytes."""

_FORMATS = ("PNG", "JPEG")
_UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    IndexError,
    struct.error,
    Image.DecompressionBombError,
)
_MAGIC = (b"\x89PNG", b"\xff\xd8\xff")
_PREAMBLE = 128
"""Bytes of anything before the `DICM` of a DICOM file."""

_LOW_BYTES: Final = {"LA;16B": "RGBA", "RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}
"""How 16-bit colours are unpacked by the library, which keeps the high byte; and how it keeps the low one.

For grey with alpha it keeps all four bytes, in the places of red to alpha.
"""

_SIDEWAYS: Final = range(5, 9)
"""EXIF orientations that swap width and height."""

_LUMA: Final = np.array([299, 587, 114], dtype=np.uint32)
"""Thousandths of red, green and blue (ITU-R 601-2), as the library weighs 8 bits."""


def header_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a PNG or JPEG as it is shown, from its header; None where it cannot be read."""
    try:
        with _opened(BytesIO(data), place="the picture") as image:
            return _shown_size(image)
    except PictureError:
        return None


def decode_levels(data: bytes, *, place: str) -> UInt8Image:
    """A PNG (8 or 16 bit) or JPEG in whole levels of 0 to 255, as it is shown: (height, width).

    Turned as its EXIF data say; 16 bits by the picture's own range (`pixels.own_range`), colours by their
    luma, what is transparent on black. Raises PictureError that starts with `place`.
    """
    with _opened(BytesIO(data), place=place) as image:
        check_size(*image.size, place=place, depth=_depth(image))
        orientation = _orientation(image)
        if image.mode == "I;16":
            levels = by_own_range(np.asarray(image, dtype=np.uint16))
        elif _raw_mode(image) in _LOW_BYTES:
            levels = _deep_colours(data, image)
        else:
            levels = _eight_bits(image)
    return _upright(levels, orientation)


def decode_uint8(data: bytes, *, place: str) -> UInt8Image:
    """As `decode_levels`, for a picture that somebody is to look at: a blank one is a PictureError.

    One of few levels is a PictureWarning: see `check_levels`.
    """
    levels = decode_levels(data, place=place)
    check_levels(levels, place=place)
    return levels


def picture_at(root: Path, ref: str) -> Path:
    """The file that a reference of a table names below the root.

    The folders of the root itself may be links: they are the user's. Raises PictureError for a reference that
    leads out of the root, and for a link further down that leads out of its collection.
    """
    parts = PurePosixPath(ref)
    if not ref or "\\" in ref or "\0" in ref or parts.is_absolute() or ".." in parts.parts:
        raise PictureError(f"{ascii(ref)[:200]}: is not a path below {root}")
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
    """Width and height of a PNG, JPEG or DICOM file as it is shown, from its header alone.

    Raises PictureError that names the file.
    """
    if _is_dicom(path):
        from medfocus_bench.data.dicom import dicom_size

        return dicom_size(path)
    with path.open("rb") as file, _opened(file, place=str(path)) as image:
        return _shown_size(image)


def read_picture(path: Path) -> UInt8Image:
    """A PNG, JPEG or DICOM file as an LVLM is given pictures: (height, width), levels of 0 to 255.

    Raises PictureError that names the file, also for a blank picture; warns of few levels (`check_levels`).
    """
    if _is_dicom(path):
        from medfocus_bench.data.dicom import decode_dicom

        return decode_dicom(path)
    try:
        return decode_uint8(path.read_bytes(), place=str(path))
    except OSError as error:
        raise PictureError(f"{path}: cannot be read: {error.strerror}") from None


def _is_dicom(path: Path) -> bool:
    """Whether a file is a DICOM or another picture, by its content. Raises PictureError if it is neither."""
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
        return True
    if not head.startswith(_MAGIC):
        raise PictureError(f"{path}: is not a PNG, JPEG or DICOM picture")
    return False


@contextmanager
def _opened(file: BinaryIO, *, place: str) -> Iterator[Image.Image]:
    """A PNG or JPEG whose header is read and whose size is checked.

    Every failure within is a PictureError that starts with `place`; what the library warns of is not said.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            late = _late_exif(file)
            with Image.open(file, formats=_FORMATS) as image:
                check_size(*image.size, place=place)
                if late is not None:
                    image.info.setdefault("exif", late)
                yield image
    except PictureError:
        raise
    except UnidentifiedImageError:
        raise PictureError(f"{place}: is not a PNG or JPEG picture, or a damaged one") from None
    except _UNREADABLE as error:
        raise PictureError(f"{place}: the image cannot be decoded: {error}") from None


def _late_exif(file: BinaryIO) -> bytes | None:
    """The EXIF data of a PNG that has them behind its pixels, where the library only finds them by decoding.

    Raises ValueError for a PNG of too many chunks, which the library reads one after the other.
    """
    found = None
    if file.read(8) == b"\x89PNG\r\n\x1a\n":
        for _ in range(MAX_CHUNKS):
            head = file.read(8)
            if len(head) < 8 or head[4:] == b"IEND":
                break
            length = int.from_bytes(head[:4], "big")
            if head[4:] == b"eXIf":
                found = b"Exif\0\0" + file.read(length)
                length = 0
            file.seek(length + 4, 1)
        else:
            raise ValueError(f"it has more than {MAX_CHUNKS:,} chunks")
    file.seek(0)
    return found


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8. Damaged EXIF data are ignored, as viewers do."""
    try:
        # Of the base class: that of a PNG without EXIF data decodes all of it.
        found = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
    except Exception:  # whatever its parsers stumble over
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _shown_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    return (height, width) if _orientation(image) in _SIDEWAYS else (width, height)


def _upright(levels: UInt8Image, orientation: int) -> UInt8Image:
    if orientation == 1:
        return levels
    picture, exif = Image.fromarray(levels), Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    picture.info["exif"] = exif.tobytes()
    return np.asarray(ImageOps.exif_transpose(picture))


def _raw_mode(image: Image.Image) -> object:
    """How the pixels of a PNG are stored, in the library's words; None for other files."""
    tiles: Sequence[Any] = getattr(image, "tile", ())
    return tiles[0].args if image.format == "PNG" and len(tiles) == 1 else None


def _depth(image: Image.Image) -> int:
    """Bytes a pixel that the library holds while a picture is decoded."""
    raw = _raw_mode(image)
    if raw in _LOW_BYTES:
        return 4 if raw == "LA;16B" else 8
    return {"1": 1, "L": 1, "P": 1, "I;16": 2}.get(image.mode, 4)


def _eight_bits(image: Image.Image) -> UInt8Image:
    """Band by band: a whole copy in every step would take several times what the picture does."""
    levels = np.empty(image.size[::-1], dtype=np.uint8)
    for rows, crop in _crops(image, levels):
        clear = crop.mode == "PA" or ("transparency" in crop.info and crop.mode not in ("LA", "RGBA"))
        part = crop.convert("RGBA") if clear else crop
        grey = part.convert("L")
        levels[rows] = _on_black(grey, part.getchannel("A")) if part.mode in ("LA", "RGBA") else grey
    return levels


def _crops(image: Image.Image, levels: npt.NDArray[Any]) -> Iterator[tuple[slice, Image.Image]]:
    """The image in bands, with the rows of the array of its shape that each belongs to."""
    for rows in bands(levels):
        yield rows, image.crop((0, rows.start, image.width, min(rows.stop, image.height)))


def _on_black(grey: Image.Image, alpha: Image.Image) -> UInt8Image:
    opaque = alpha.getextrema() == (255, 255)
    return np.asarray(grey if opaque else ImageChops.multiply(grey, alpha))


def _deep_colours(data: bytes, image: Image.Image) -> UInt8Image:
    """Levels of a PNG with 16 bits a channel and more than one, from its high and its low bytes.

    The library keeps one byte of each channel, so what it decodes twice is put together.
    """
    raw = _raw_mode(image)
    assert isinstance(raw, str)
    grey = np.empty(image.size[::-1], dtype=np.uint16)
    with Image.open(BytesIO(data), formats=("PNG",)) as other:
        other.tile = [tile._replace(args=_LOW_BYTES[raw]) for tile in other.tile]
        if raw == "LA;16B":
            for rows, part in _crops(other, grey):
                both = np.asarray(part).astype(np.uint16)
                grey[rows] = both[..., 0] << 8 | both[..., 1]
        else:
            for (rows, upper), (_, lower) in zip(_crops(image, grey), _crops(other, grey), strict=True):
                high, low = (np.asarray(part, dtype=np.uint32)[..., :3] for part in (upper, lower))
                grey[rows] = (high << 8 | low) @ _LUMA // 1000
        if raw == "RGB;16B":
            return by_own_range(grey)
        alpha = other.getchannel("B") if raw == "LA;16B" else image.getchannel("A")
    seen = np.asarray(alpha) > 0
    return _on_black(Image.fromarray(by_own_range(grey, seen)), alpha)
