"""Radiographs in DICOM: which files are read, within which bounds, and their stored values.

`dicom_levels` makes of the stored values what a viewer shows. Needs the extra `[dicom]`.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader, BytesIO, FileIO
from os import fstat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from medfocus_bench.data.pixels import MAX_FILE_BYTES, PictureError, bands, check_levels, check_size
from medfocus_bench.errors import first_line
from medfocus_bench.geometry import UInt8Image

if TYPE_CHECKING:
    from pydicom import Dataset

_DEFLATED: Final = "1.2.840.10008.1.2.1.99"
_RLE: Final = "1.2.840.10008.1.2.5"
_PLAIN: Final = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", _DEFLATED)
_JPEG: Final = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70, 80, 81))
_JPEG_2000: Final = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (90, 91))
"""Uncompressed (or all of the file deflated), run lengths, JPEG (with JPEG-LS), JPEG 2000."""

_START_OF_FRAME: Final = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})

_PREAMBLE: Final = 128
_RLE_HEADER: Final = 64
RLE_PADDING: Final = 256
"""Bytes by which a segment of run lengths may unpack to more than the picture: encoders fill up."""

_SPACINGS: Final = ("PixelAspectRatio", "PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
_NOT_SQUARE: Final = 0.01
"""Share by which the sides of a pixel may differ: rounding of the numbers that state them."""


def dicom_size(path: Path) -> tuple[int, int]:
    """Width and height that a DICOM file states; its pixels are not read."""
    with _errors_named(path):
        return _checked_size(_dataset(path, pixels=False), path)


def decode_dicom(path: Path) -> UInt8Image:
    """A DICOM radiograph as levels of 0 to 255, as it is meant to be shown: (height, width).

    Raises PictureError that names the file: no pixels, several frames, pixels that are not square, a transfer
    syntax that is not read, compressed data of another size than the header's, nothing to be seen, damage of
    any kind. Warns of few levels (`check_levels`).
    """
    with _errors_named(path):
        from medfocus_bench.data.dicom_levels import shown

        dataset = _dataset(path, pixels=True)
        width, height = _checked_size(dataset, path)
        if "PixelData" not in dataset:
            raise PictureError(f"{path}: has no pixels; fetch the file again")
        _check_compressed(dataset, path, width, height)
        levels = _colour(dataset) if dataset.SamplesPerPixel == 3 else shown(dataset, _stored(dataset))
        if levels.shape != (height, width):
            raise PictureError(f"{path}: its pixels are {levels.shape}, its header says {width} x {height}")
    check_levels(levels, place=str(path))
    return levels


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
        raise PictureError(f"{path}: the image cannot be decoded: {first_line(error)}") from None


def _dataset(path: Path, *, pixels: bool) -> Dataset:
    from pydicom import dcmread
    from pydicom.filereader import read_file_meta_info

    syntax = read_file_meta_info(path).get("TransferSyntaxUID")
    if syntax not in (*_PLAIN, _RLE, *_JPEG, *_JPEG_2000):
        named = getattr(syntax, "name", "no transfer syntax")
        raise PictureError(f"{path}: its pixels are stored as {named}, which is not read; convert it first")
    with _inflated(path) if syntax == _DEFLATED else _Clamped(FileIO(path)) as file:
        return dcmread(file, stop_before_pixels=not pixels)


class _Clamped(BufferedReader):
    """A file that is asked for no more than it holds: memory for what a tag claims is set aside first."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            return super().read()
        return super().read(min(size, max(0, fstat(self.fileno()).st_size - self.tell())))


def _inflated(path: Path) -> BytesIO:
    """The file as if it were not deflated, unpacked to no more than a file that is not may have.

    Raises PictureError beyond that: a library that unpacks it whole has no bound.
    """
    from pydicom.filebase import DicomBytesIO
    from pydicom.filereader import read_file_meta_info, read_preamble
    from pydicom.filewriter import write_file_meta_info
    from pydicom.uid import ExplicitVRLittleEndian

    with path.open("rb") as file:
        read_preamble(file, force=False)
        (group_length,) = struct.unpack("<8xI", file.read(12))
        file.seek(group_length, 1)
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        content = unpacker.decompress(file.read(), MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise PictureError(f"{path}: unpacks to more than {MAX_FILE_BYTES // 2**20} MiB")
    meta = read_file_meta_info(path)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    head = DicomBytesIO()
    write_file_meta_info(head, meta, enforce_standard=False)
    return BytesIO(bytes(_PREAMBLE) + b"DICM" + head.getvalue() + content)


def _checked_size(dataset: Dataset, path: Path) -> tuple[int, int]:
    if "Rows" not in dataset or "Columns" not in dataset:
        raise PictureError(f"{path}: states no size; is it a picture?")
    width, height = int(dataset.Columns), int(dataset.Rows)
    check_size(width, height, place=str(path))
    if int(dataset.get("NumberOfFrames") or 1) != 1:
        raise PictureError(f"{path}: has {dataset.NumberOfFrames} frames; a radiograph has one")
    if dataset.get("SamplesPerPixel") not in (1, 3) or dataset.get("BitsAllocated") not in (8, 16, 32):
        raise PictureError(f"{path}: is not a picture of 8, 16 or 32 bits with one or three samples a pixel")
    if dataset.SamplesPerPixel == 3 and dataset.BitsAllocated != 8:
        raise PictureError(f"{path}: is a colour picture of {dataset.BitsAllocated} bits; only 8 are read")
    if dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
        raise PictureError(f"{path}: is a picture in palette colours, which are not read")
    _check_square(dataset, path)
    return width, height


def _check_square(dataset: Dataset, path: Path) -> None:
    """A viewer stretches pixels that are not square; boxes that were drawn on either would be misplaced."""
    for name in _SPACINGS:
        sides = _pair(dataset.get(name))
        if sides is not None and abs(sides[0] / sides[1] - 1) > _NOT_SQUARE:
            raise PictureError(
                f"{path}: its pixels are not square ({name} {sides[0]:g} to {sides[1]:g}); resample the "
                "picture to square pixels, and the boxes with it"
            )


def _pair(value: Any) -> tuple[float, float] | None:
    """Two positive numbers, or None: what else a header says here is let be."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        return None
    try:
        first, second = float(value[0]), float(value[1])
    except (TypeError, ValueError):
        return None
    return (first, second) if 0 < first < float("inf") and 0 < second < float("inf") else None


def _check_compressed(dataset: Dataset, path: Path, width: int, height: int) -> None:
    """Compressed data carry a size of their own: a decoder allocates that, whatever the header says."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax in _PLAIN:
        return
    from pydicom.encaps import generate_frames

    frame = next(iter(generate_frames(dataset.PixelData, number_of_frames=1)))
    if syntax == _RLE:
        _check_run_lengths(frame, path, width * height)
        return
    size = _jpeg_2000_size(frame) if syntax in _JPEG_2000 else _jpeg_size(frame)
    if size != (width, height):
        raise PictureError(f"{path}: its compressed data are of {size}, its header says {width} x {height}")


def _check_run_lengths(frame: bytes, path: Path, pixels: int) -> None:
    """Raise PictureError for a segment that unpacks to more bytes than the picture has pixels (PS3.5, G)."""
    count, *starts = struct.unpack_from("<16I", frame)
    if not 1 <= count <= 15:
        raise ValueError(f"its run lengths are of {count} segments")
    ends = [*starts[1:count], len(frame)]
    for start, end in zip(starts[:count], ends, strict=True):
        if not _RLE_HEADER <= start <= end <= len(frame):
            raise ValueError("its segments of run lengths are damaged")
        if _unpacked_length(frame[start:end], pixels + RLE_PADDING) > pixels + RLE_PADDING:
            raise PictureError(
                f"{path}: its compressed data are of more than the {pixels:,} pixels of its header"
            )


def _unpacked_length(segment: bytes, limit: int) -> int:
    """Bytes that a segment unpacks to; counted no further than beyond `limit`."""
    length = place = 0
    while place < len(segment) and length <= limit:
        head = segment[place]
        if head < 128:
            length, place = length + head + 1, place + head + 2
        elif head > 128:
            length, place = length + 257 - head, place + 2
        else:
            place += 1
    return length


def _jpeg_2000_size(frame: bytes) -> tuple[int, int]:
    """The size in the SIZ marker of a codestream, which may lie within JP2 boxes."""
    start = frame.find(b"\xff\x4f\xff\x51")
    if start < 0:
        raise ValueError("it lacks a JPEG 2000 codestream")
    right, bottom, left, top = struct.unpack_from(">IIII", frame, start + 8)
    return right - left, bottom - top


def _jpeg_size(frame: bytes) -> tuple[int, int]:
    """The size in the first start-of-frame marker."""
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
    raise ValueError("it lacks a JPEG picture")


def _colour(dataset: Dataset) -> UInt8Image:
    """A photograph of a radiograph, as it happens, by its luma; pydicom gives RGB."""
    from PIL import Image
    from pydicom.pixels.utils import pixel_array

    colour = pixel_array(dataset)
    levels = np.empty(colour.shape[:2], dtype=np.uint8)
    for rows in bands(levels):
        levels[rows] = np.asarray(Image.fromarray(colour[rows].astype(np.uint8)).convert("L"))
    return levels


def _stored(dataset: Dataset) -> npt.NDArray[Any]:
    """The stored values (height, width), without what lies beside them in the bits of a pixel."""
    from pydicom.pixels.utils import pixel_array

    if dataset.file_meta.TransferSyntaxUID in (*_JPEG, *_JPEG_2000):
        return pixel_array(dataset)  # a codec's values have no place among bits
    cells = pixel_array(dataset, correct_unused_bits=False)
    allocated = 8 * cells.itemsize
    bits = int(dataset.get("BitsStored") or allocated)
    high = int(dataset.get("HighBit") or bits - 1)
    if not 1 <= bits <= allocated or not bits - 1 <= high < allocated:
        raise ValueError(f"{bits} bits up to bit {high} do not fit into {allocated}")
    if _lies_low(cells, bits, high):
        high = bits - 1
    if bits == allocated:
        return cells
    # To the left, what is above is lost; to the right, what is below, and the sign comes along.
    return (cells << (allocated - 1 - high)) >> (allocated - bits)


def _lies_low(cells: npt.NDArray[Any], bits: int, high: int) -> bool:
    """Whether values lie in the lowest bits, although the header has them higher.

    Files say `HighBit` 15 of 12 bits either way. Where all bits above the value's are unused (or the sign's)
    and the bits below where it should begin are not, the header is wrong.
    """
    below = high + 1 - bits
    if below == 0:
        return False
    lowest, highest = (
        (0, (1 << bits) - 1) if cells.dtype.kind == "u" else (-(1 << bits - 1), (1 << bits - 1) - 1)
    )
    fits = lowest <= int(cells.min()) and int(cells.max()) <= highest
    return fits and bool((cells & ((1 << below) - 1)).any())
