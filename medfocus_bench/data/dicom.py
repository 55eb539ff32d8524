"""Radiographs in DICOM: the stored values as they are meant to be shown.

The order is that of the standard (PS3.4, N.2): stored values, modality transform (rescale), values of
interest (lookup table or window), and last the inversion of MONOCHROME1. Needs the extra `[dicom]`.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from medfocus_bench.data.images import PictureError, by_own_range, check_size, in_levels

if TYPE_CHECKING:
    from pydicom import Dataset

_PLAIN: Final = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")
_JPEG: Final = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70, 80, 81))
_JPEG_2000: Final = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (90, 91))
"""Uncompressed, JPEG (with JPEG-LS), JPEG 2000. A deflated file could unpack to any size: none is read."""

_START_OF_FRAME: Final = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})

FloatImage = npt.NDArray[np.float32]


def dicom_size(path: Path) -> tuple[int, int]:
    """Width and height that a DICOM file states; its pixels are not read."""
    with _errors_named(path):
        return _checked_size(_dataset(path, pixels=False), path)


def decode_dicom(path: Path) -> npt.NDArray[np.uint8]:
    """A DICOM radiograph as levels of 0 to 255, as it is meant to be shown: (height, width).

    Raises PictureError that names the file: no pixels, several frames, a transfer syntax that is not read,
    compressed data of another size than the header's, damage of any kind.
    """
    with _errors_named(path):
        dataset = _dataset(path, pixels=True)
        width, height = _checked_size(dataset, path)
        if "PixelData" not in dataset:
            raise PictureError(f"{path}: has no pixels; fetch the file again")
        _check_compressed(dataset, path, width, height)
        grey = _colour_as_grey(dataset) if dataset.SamplesPerPixel == 3 else _shown(dataset)
        if grey.shape != (height, width):
            raise PictureError(f"{path}: its pixels are {grey.shape}, its header says {width} x {height}")
        return in_levels(grey)


@contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    """Every failure within as a PictureError. pydicom and its decoders raise whatever they stumble over."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd values of tags that are not looked at
            yield
    except PictureError:
        raise
    except ImportError:
        raise PictureError(
            f"{path}: is a DICOM file; reading it needs `pip install 'medfocus-bench[dicom]'`"
        ) from None
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise PictureError(f"{path}: the image cannot be decoded: {reason}") from None


def _dataset(path: Path, *, pixels: bool) -> Dataset:
    from pydicom import dcmread
    from pydicom.filereader import read_file_meta_info

    syntax = read_file_meta_info(path).get("TransferSyntaxUID")
    if syntax not in (*_PLAIN, *_JPEG, *_JPEG_2000):
        named = getattr(syntax, "name", "no transfer syntax")
        raise PictureError(f"{path}: its pixels are stored as {named}, which is not read; convert it first")
    return dcmread(path, stop_before_pixels=not pixels)


def _checked_size(dataset: Dataset, path: Path) -> tuple[int, int]:
    if "Rows" not in dataset or "Columns" not in dataset:
        raise PictureError(f"{path}: states no size; is it a picture?")
    width, height = int(dataset.Columns), int(dataset.Rows)
    check_size(width, height, place=str(path))
    if int(dataset.get("NumberOfFrames") or 1) != 1:
        raise PictureError(f"{path}: has {dataset.NumberOfFrames} frames; a radiograph has one")
    if dataset.get("SamplesPerPixel") not in (1, 3) or dataset.get("BitsAllocated") not in (8, 16, 32):
        raise PictureError(f"{path}: is no picture of 8, 16 or 32 bits with one or three samples a pixel")
    if dataset.SamplesPerPixel == 3 and dataset.BitsAllocated != 8:
        raise PictureError(f"{path}: is a colour picture of {dataset.BitsAllocated} bits; only 8 are read")
    if dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
        raise PictureError(f"{path}: is a picture in palette colours, which are not read")
    return width, height


def _check_compressed(dataset: Dataset, path: Path, width: int, height: int) -> None:
    """Compressed data carry a size of their own: a decoder allocates that, whatever the header says."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax in _PLAIN:
        return
    from pydicom.encaps import generate_frames

    frame = next(iter(generate_frames(dataset.PixelData, number_of_frames=1)))
    size = _jpeg_2000_size(frame) if syntax in _JPEG_2000 else _jpeg_size(frame)
    if size != (width, height):
        raise PictureError(f"{path}: its compressed data are of {size}, its header says {width} x {height}")


def _jpeg_2000_size(frame: bytes) -> tuple[int, int]:
    """Of a codestream, or of one within JP2 boxes: the SIZ marker that follows the start of it."""
    start = frame.find(b"\xff\x4f\xff\x51")
    if start < 0:
        raise ValueError("there is no JPEG 2000 codestream in it")
    right, bottom, left, top = struct.unpack_from(">IIII", frame, start + 8)
    return right - left, bottom - top


def _jpeg_size(frame: bytes) -> tuple[int, int]:
    """Of the first start-of-frame marker."""
    place = 2
    while place + 9 <= len(frame):
        if frame[place] != 0xFF:
            raise ValueError("its JPEG markers are damaged")
        marker = frame[place + 1]
        if marker == 0xFF:
            place += 1
            continue
        length, _, height, width = struct.unpack_from(">HBHH", frame, place + 2)
        if marker in _START_OF_FRAME:
            return width, height
        place += 2 + length
    raise ValueError("there is no JPEG picture in it")


def _colour_as_grey(dataset: Dataset) -> FloatImage:
    """A photograph of a radiograph, as it happens; pydicom gives RGB."""
    from PIL import Image
    from pydicom.pixels.utils import pixel_array

    colour = pixel_array(dataset)
    grey = Image.fromarray(colour.astype(np.uint8)).convert("L")
    return np.asarray(grey, dtype=np.float32) / np.float32(255)


def _shown(dataset: Dataset) -> FloatImage:
    """Grey values in [0, 1]."""
    from pydicom.pixels.processing import apply_modality_lut
    from pydicom.pixels.utils import pixel_array

    stored = pixel_array(dataset)
    padding = _padding(dataset, stored)
    if dataset.get("ModalityLUTSequence"):
        values = apply_modality_lut(stored, dataset).astype(np.float32)
    else:
        slope, intercept = _number(dataset, "RescaleSlope", 1), _number(dataset, "RescaleIntercept", 0)
        values = stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    grey = _values_of_interest(values, dataset, padding)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        grey = 1 - grey
    if padding is not None:
        grey = np.where(padding, np.float32(0), grey)
    return grey


def _padding(dataset: Dataset, stored: npt.NDArray[Any]) -> npt.NDArray[np.bool_] | None:
    """The pixels that are no part of the picture, which would spoil its range."""
    value = _number(dataset, "PixelPaddingValue", None)
    if value is None:
        return None
    limit = _number(dataset, "PixelPaddingRangeLimit", value)
    padded = (stored >= min(value, limit)) & (stored <= max(value, limit))
    return padded if padded.any() and not padded.all() else None


def _values_of_interest(
    values: FloatImage, dataset: Dataset, padding: npt.NDArray[np.bool_] | None
) -> FloatImage:
    """By the lookup table, else by the (first) window, else by the picture's own range: 0 to 1."""
    tables = dataset.get("VOILUTSequence")
    if tables:
        return _looked_up(values, tables[0])
    centre, width = _number(dataset, "WindowCenter", None), _number(dataset, "WindowWidth", None)
    if centre is not None and width is not None and width > 0:
        return _windowed(values, centre, width, str(dataset.get("VOILUTFunction") or "LINEAR"))
    if padding is None:
        return by_own_range(values)
    return by_own_range(np.where(padding, values[~padding].min(), values))


def _windowed(values: FloatImage, centre: float, width: float, function: str) -> FloatImage:
    """PS3.3, C.11.2.1.2 and C.11.2.1.3."""
    if function == "SIGMOID":
        exponent = np.clip(-4 * (values - np.float32(centre)) / np.float32(width), -80, 80)
        return np.asarray(1 / (1 + np.exp(exponent)), dtype=np.float32)
    if function == "LINEAR" and width > 1:
        centre, width = centre - 0.5, width - 1
    shares = (values - np.float32(centre)) / np.float32(width) + np.float32(0.5)
    return np.asarray(np.clip(shares, 0, 1), dtype=np.float32)


def _looked_up(values: FloatImage, table: Dataset) -> FloatImage:
    """PS3.3, C.11.2.1.1: the first entry holds up to its value, the last from its value on."""
    entries, first, bits = (int(part) for part in table.LUTDescriptor)
    entries, first = entries or 65_536, first - 65_536 if first > 32_767 and values.min() < 0 else first
    data = table.LUTData
    if isinstance(data, bytes):
        data = np.frombuffer(data, dtype="<u2" if len(data) >= 2 * entries else "u1")
    levels = np.asarray(data, dtype=np.float32)[:entries]
    if len(levels) != entries or not 8 <= bits <= 16:
        raise ValueError("its VOI lookup table is damaged")
    positions = np.clip(np.round(values) - first, 0, entries - 1).astype(np.intp)
    return np.asarray(np.clip(levels[positions] / np.float32(2**bits - 1), 0, 1), dtype=np.float32)


def _number(dataset: Dataset, name: str, default: Any) -> Any:
    """The (first) number of a tag; the default where the tag is not there or is empty."""
    value = dataset.get(name)
    if value is None or value == "" or (hasattr(value, "__len__") and len(value) == 0):
        return default
    return float(value[0] if hasattr(value, "__getitem__") and not isinstance(value, str) else value)
