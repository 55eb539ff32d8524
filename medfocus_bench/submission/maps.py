"""The store of maps: a file that grows map by map, and the safetensors file that a submission makes of it.

Every map on disk, of a run or of a submission, is written by `RawMaps.append`, in the type of `as_stored`.
"""

from __future__ import annotations

import hashlib
import json
import os
import weakref
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from medfocus_bench.attribution.attribution import plain_array
from medfocus_bench.errors import InputError, SubmissionError
from medfocus_bench.geometry import MapFrame
from medfocus_bench.storage import LFS_ADVICE, is_lfs_pointer, naming, open_part, open_regular
from medfocus_bench.submission.schema import MAX_MAP_SIDE, Strict

MAPS_NAME: Final = "maps.safetensors"

StoredType = Literal["uint8", "float16", "float32"]

DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "U8": np.dtype(np.uint8),
    "F16": np.dtype(np.float16),
    "F32": np.dtype(np.float32),
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}

MAX_HEADER_BYTES: Final = 16 * 2**20
"""About 100,000 maps; the header of the phantom track's is 0.2 MiB."""

_MAX_FORMAT: Final = 16
_SPARE_BYTES: Final = 4096
_SPARE_BYTES_A_MAP: Final = 16
_BLOCK: Final = 2**20

_SMALLEST, _LARGEST = 2.0**-100, 2.0**120
"""A largest value between the two leaves float32 all its digits, and room for sums."""

_FLAT: Final = 0.25
"""A map whose values differ by less of the largest has too few levels in float16, which has 2,048 to it."""


class MapFileError(SubmissionError):
    """The map file cannot be used at all; the message is one sentence that starts with the file."""


@dataclass(frozen=True, slots=True)
class _Stored:
    """A map as the header states it; `start` counts from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int


class MapReader:
    """Maps of one safetensors file by key, each read when asked for.

    The file is opened once: the maps read are the ones hashed, even if another file takes its place. The
    library reads a path, not a descriptor, so the header is parsed here, and the tests compare the two.
    Raises MapFileError for anything but a regular file, for a header that is malformed or holds more than
    maps, and for a file that changes while it is read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            file = open_part(path)
        except InputError as problem:
            raise MapFileError(str(problem)) from None
        weakref.finalize(self, file.close)
        self._descriptor = file.fileno()
        status = os.fstat(self._descriptor)
        self._size, self._changed = status.st_size, status.st_mtime_ns
        self._maps = self._read_header()
        self.keys = frozenset(self._maps)

    def problem(self, key: str) -> str | None:
        """The problem of the map at `key` by its header alone; None for a valid one."""
        stored = self._maps[key]
        if stored.dtype not in DTYPES:
            return f"has the type {stored.dtype[:100]}; maps are {', '.join(DTYPES)}"
        if len(stored.shape) != 2:
            return f"has {len(stored.shape)} dimensions; a map has 2"
        if max(stored.shape) > MAX_MAP_SIDE:
            rows, columns = stored.shape
            return f"is {rows} x {columns}; at most {MAX_MAP_SIDE} pixels a side are read"
        return None

    def read(self, key: str) -> npt.NDArray[np.generic]:
        """The map at `key`, which has no problem: 2-D; uint8, float16 or float32."""
        stored = self._maps[key]
        data = self._bytes(stored.start, stored.size)
        self._check_unchanged()
        dtype = DTYPES[stored.dtype]
        return np.frombuffer(data, dtype.newbyteorder("<")).reshape(stored.shape).astype(dtype)

    def sha256(self) -> str:
        """That of the whole file, 64 hex digits."""
        digest = hashlib.sha256()
        for start in range(0, self._size, _BLOCK):
            digest.update(self._bytes(start, min(_BLOCK, self._size - start)))
        self._check_unchanged()
        return digest.hexdigest()

    def _bytes(self, start: int, size: int) -> bytes:
        found = bytearray()
        while len(found) < size:
            try:
                more = os.pread(self._descriptor, size - len(found), start + len(found))
            except OSError as error:
                raise MapFileError(f"{self.path}: cannot be read: {error.strerror}") from None
            if not more:
                raise self._was_changed()
            found += more
        return bytes(found)

    def _check_unchanged(self) -> None:
        status = os.fstat(self._descriptor)
        if (status.st_size, status.st_mtime_ns) != (self._size, self._changed):
            raise self._was_changed()

    def _was_changed(self) -> MapFileError:
        return MapFileError(f"{self.path}: was changed while it was read; run the command again")

    def _read_header(self) -> dict[str, _Stored]:
        claimed = int.from_bytes(self._bytes(0, 8), "little") if self._size >= 8 else 0
        if self._size < 8 or claimed > self._size - 8:
            if is_lfs_pointer(self._bytes(0, min(self._size, _SPARE_BYTES))):
                raise MapFileError(f"{self.path}: {LFS_ADVICE}")
            raise MapFileError(f"{self.path}: its header is longer than the file ({self._size:,} bytes)")
        if claimed > MAX_HEADER_BYTES:
            raise MapFileError(
                f"{self.path}: its header claims {claimed:,} bytes; {MAX_HEADER_BYTES:,} at most"
            )
        try:
            header = json.loads(self._bytes(8, claimed).decode("utf-8"), object_pairs_hook=_once)
            maps = _stored_maps(header, 8 + claimed, self._size)
        except RecursionError:
            raise MapFileError(f"{self.path}: not a sound safetensors file: nested too deeply") from None
        except ValueError as error:
            reason = str(error)[:300]
            raise MapFileError(f"{self.path}: not a sound safetensors file: {reason}") from None
        _check_nothing_else(self.path, header, claimed, len(maps))
        return maps


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice in its header")
    return value


def _stored_maps(header: Any, start: int, end: int) -> dict[str, _Stored]:
    """The maps of a header, which fill the file from `start` to `end` without a hole or an overlap.

    Raises ValueError for anything else.
    """
    if not isinstance(header, dict):
        raise ValueError("its header is not an object")
    maps: dict[str, _Stored] = {}
    for key, entry in header.items():
        if key != "__metadata__":
            maps[key] = _stored_map(key[:200], entry, start, end)
    reached = start
    for key, stored in sorted(maps.items(), key=lambda item: (item[1].start, item[1].size)):
        if stored.start != reached:
            raise ValueError(f"the bytes of {key[:200]!r} do not begin where those before them end")
        reached += stored.size
    if reached != end:
        raise ValueError(f"its maps end at byte {reached:,}, the file at byte {end:,}")
    return maps


def _stored_map(key: str, entry: Any, start: int, end: int) -> _Stored:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{key!r} needs dtype, shape and data_offsets, and nothing else")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
        raise ValueError(f"{key!r} has a dtype, shape or data_offsets of another type")
    first, last = offsets
    if not first <= last <= end - start:
        raise ValueError(f"the data_offsets of {key!r} lie outside of the file")
    # A map that is too large has problems of its own, and too many sides are never multiplied.
    if dtype in DTYPES and len(shape) == 2 and prod(shape) * DTYPES[dtype].itemsize != last - first:
        raise ValueError(f"the data_offsets of {key!r} do not fit its shape")
    return _Stored(dtype, tuple(shape), start + first, last - first)


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def _check_nothing_else(path: Path, header: dict[str, Any], claimed: int, maps: int) -> None:
    """Refuse other content: nothing reads it, and a repository would keep it for ever."""
    metadata = header.get("__metadata__")
    if metadata is not None:
        known = isinstance(metadata, dict) and metadata.keys() <= {"format"}
        if not known or not all(isinstance(v, str) and len(v) <= _MAX_FORMAT for v in metadata.values()):
            raise MapFileError(
                f'{path}: has metadata other than {{"format": ...}}, which nothing reads; leave it out'
            )
    spare = claimed - len(json.dumps(header, separators=(",", ":")))
    if spare > _SPARE_BYTES + _SPARE_BYTES_A_MAP * maps:
        raise MapFileError(f"{path}: its header holds {spare:,} bytes of blanks; write it with safetensors")


class MapPlace(Strict):
    """The place of a map in the file of a `RawMaps`: little-endian, row after row.

    `crc32` is that of its type, shape and values; None in runs of earlier versions.
    """

    offset: Annotated[int, Field(ge=0)]
    shape: Annotated[list[Annotated[int, Field(ge=0, le=MAX_MAP_SIDE)]], Field(min_length=2, max_length=2)]
    dtype: StoredType
    crc32: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    frame: MapFrame = "model"

    def holds(self, data: bytes) -> bool:
        """Whether `data` has the size and, where known, the checksum of the map."""
        complete = len(data) == self.end - self.offset
        return complete and self.crc32 in (None, _checksum(self.dtype, self.shape, data))

    @property
    def end(self) -> int:
        return self.offset + self.shape[0] * self.shape[1] * np.dtype(self.dtype).itemsize


class RawMaps:
    """A file of maps, one behind the other, that is opened when the first is appended."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None

    def append(
        self, saliency: npt.ArrayLike, frame: MapFrame = "model", stored: StoredType | None = None
    ) -> MapPlace:
        """Append one 2-D map in the type that `as_stored` gives it; it is on disk when this returns.

        Raises ValueError, and appends nothing, for a map that cannot be stored.
        """
        array = as_stored(saliency, stored)
        data = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()
        with naming(self.path):
            if self._file is None:
                self._file = self.path.open("ab")
            self._file.write(data)
            self._file.flush()
            offset = self._file.tell() - len(data)
        dtype, shape = array.dtype.name, list(array.shape)
        checksum = _checksum(dtype, shape, data)
        return MapPlace.model_validate(
            {"offset": offset, "shape": shape, "dtype": dtype, "crc32": checksum, "frame": frame}
        )

    def read(self, place: MapPlace) -> npt.NDArray[np.generic]:
        """The map at a place. Raises ValueError where the file does not hold what was written there."""
        with open_regular(self.path) as file:
            data = _data(file, place)
        if not place.holds(data):
            raise ValueError(f"the map at byte {place.offset:,} is not what was written")
        return (
            np.frombuffer(data, np.dtype(place.dtype).newbyteorder("<"))
            .reshape(place.shape)
            .astype(place.dtype)
        )

    def damaged(self, places: Sequence[MapPlace]) -> list[MapPlace]:
        """The places where the file no longer holds the map that was written."""
        if not places:
            return []
        with open_regular(self.path) as file:
            return [place for place in places if not place.holds(_data(file, place))]

    def size(self) -> int:
        """Size of the file in bytes; 0 if it does not exist."""
        if not self.path.exists():
            return 0
        with open_regular(self.path) as file:
            return file.seek(0, os.SEEK_END)

    def close(self) -> None:
        if self._file is not None:
            with naming(self.path):
                self._file.close()


def _data(file: BinaryIO, place: MapPlace) -> bytes:
    file.seek(place.offset)
    return file.read(place.end - place.offset)


def _checksum(dtype: str, shape: Sequence[int], data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(f"{dtype} {shape[0]} {shape[1]}".encode()))


class MapWriter:
    """Writes maps to a safetensors file as they come, in constant memory.

    The library's own writer holds every tensor at once; this one appends the values to `path.data` and puts
    the header in front when it is finished.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._places: dict[str, MapPlace] = {}
        self._raw = RawMaps(path.with_name(path.name + ".data"))
        if self._raw.path.exists():
            raise FileExistsError(f"{self._raw.path}: exists already")

    def __len__(self) -> int:
        return len(self._places)

    def add(self, key: str, saliency: npt.ArrayLike, stored: StoredType | None = None) -> None:
        """Append one 2-D map. Raises ValueError that starts with the key, as `RawMaps.append`."""
        try:
            self._places[key] = self._raw.append(saliency, stored=stored)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None

    def close(self) -> None:
        """Close the file of a writer that is not finished."""
        self._raw.close()

    def finish(self) -> str:
        """Write the file and return its sha256."""
        self._raw.close()
        header = json.dumps(
            {
                key: {
                    "dtype": _NAMES[np.dtype(place.dtype)],
                    "shape": place.shape,
                    "data_offsets": [place.offset, place.end],
                }
                for key, place in self._places.items()
            },
            separators=(",", ":"),
        ).encode()
        header += b" " * (-len(header) % 8)
        digest = hashlib.sha256()
        with self.path.open("xb") as file:
            for block in (len(header).to_bytes(8, "little"), header, *self._values()):
                file.write(block)
                digest.update(block)
            file.flush()
            os.fsync(file.fileno())
        self._raw.path.unlink(missing_ok=True)
        return digest.hexdigest()

    def _values(self) -> Iterator[bytes]:
        if self._places:
            with self._raw.path.open("rb") as file:
                yield from iter(lambda: file.read(_BLOCK), b"")


def as_stored(saliency: npt.ArrayLike, stored: StoredType | None = None) -> npt.NDArray[np.generic]:
    """A map in a type that files hold: uint8, float16 and float32 unchanged, every other as float32.

    A map of another type whose largest magnitude float32 cannot hold, or holds with fewer digits (beyond
    2**120, or below 2**-100), is divided by that magnitude first: it neither overflows nor vanishes, and its
    ranking stays.

    With `stored` the map is brought to that type, unless it is uint8 or of that type already. For float16 it
    is divided by its largest magnitude, so that small values do not vanish; a map that is nearly flat, which
    float16 would leave too few levels, becomes float32. For uint8 its largest value becomes 255. Signs stay,
    and a higher value is never stored as a lower one.

    Raises ValueError for a map that no file can hold, and for one with values that are negative or not finite
    where uint8 is asked for.
    """
    array = plain_array(saliency, "a map")
    if array.ndim != 2 or max(array.shape) > MAX_MAP_SIDE:
        raise ValueError(f"a map is 2-D with at most {MAX_MAP_SIDE} pixels a side, not {array.shape}")
    if array.dtype in _NAMES and stored in (None, array.dtype.name):
        return array
    if array.dtype.kind not in "biuf":
        raise ValueError(f"a map holds real numbers, not {array.dtype}")
    if array.dtype == np.uint8:
        return array
    wide: npt.NDArray[Any] = array if array.dtype.kind == "f" else array.astype(np.float64)
    if stored in ("float16", "uint8"):
        return _scaled(wide, stored)
    largest = np.abs(wide[np.isfinite(wide)]).max(initial=0.0)
    scaled = largest > 0 and not _SMALLEST <= largest <= _LARGEST
    return (wide / largest if scaled else wide).astype(np.float32)


def _scaled(values: npt.NDArray[np.floating], stored: Literal["uint8", "float16"]) -> npt.NDArray[np.generic]:
    """A map divided by its largest magnitude and rounded to float16 or float32, or to the levels of uint8."""
    known = values[np.isfinite(values)].astype(np.float64)
    largest = np.abs(known).max(initial=0.0)
    shares = values.astype(np.float64) / (largest or 1.0)
    if stored == "uint8":
        if known.size != values.size or known.min(initial=0.0) < 0:
            raise ValueError(
                "a map with negative values, or with some that are not finite, does not fit into uint8; "
                "store float16 or float32"
            )
        return np.asarray(np.rint(255 * shares), dtype=np.uint8)
    flat = known.size > 0 and 0 < known.max() - known.min() < _FLAT * largest
    return np.asarray(shares, dtype=np.float32 if flat else np.float16)
