"""The map file of a submission: safetensors, read one map at a time."""

from __future__ import annotations

import hashlib
import json
import os
import weakref
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from medfocus_bench.attribution.attribution import unmasked
from medfocus_bench.errors import InputError, SubmissionError
from medfocus_bench.storage import LFS_ADVICE, is_lfs_pointer, open_part
from medfocus_bench.submission.schema import MAX_MAP_SIDE

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

    The file is opened once: what was hashed is what is read, even if another file takes its place meanwhile.
    The library reads a path, not a descriptor, so that the header is read here; the tests hold both readings
    against each other. Raises MapFileError for a file that is no regular one, whose header cannot be trusted
    or holds more than maps, and for one that is changed while it is read.
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
        """What is wrong with the map at `key`, without reading it; None if nothing is."""
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
        raise ValueError("its header is no object")
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
    """Nothing would read what else a map file held, and a repository would keep it for ever."""
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


class MapWriter:
    """Writes maps to a safetensors file as they come, in constant memory.

    The library's own writer holds every tensor at once; this one spools the values to `path.data` and puts
    the header in front when it is finished.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: dict[str, dict[str, Any]] = {}
        self._spool_path = path.with_name(path.name + ".data")
        self._spool: BinaryIO = self._spool_path.open("xb")
        self._offset = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, key: str, saliency: npt.NDArray[np.generic]) -> None:
        """Appends one 2-D map, in the type that `as_stored` gives it.

        Raises ValueError that starts with the key, and appends nothing, for what cannot be stored so.
        """
        try:
            array = as_stored(saliency)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None
        data = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()
        end = self._offset + len(data)
        self._entries[key] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [self._offset, end],
        }
        self._spool.write(data)
        self._offset = end

    def close(self) -> None:
        """Lets go of the spool; for one that is not finished."""
        self._spool.close()

    def finish(self) -> str:
        """Writes the file and returns its sha256."""
        self._spool.close()
        header = json.dumps(self._entries, separators=(",", ":")).encode()
        header += b" " * (-len(header) % 8)
        digest = hashlib.sha256()
        with self.path.open("xb") as file, self._spool_path.open("rb") as spool:
            for block in (len(header).to_bytes(8, "little"), header, *iter(lambda: spool.read(2**20), b"")):
                file.write(block)
                digest.update(block)
            file.flush()
            os.fsync(file.fileno())
        self._spool_path.unlink()
        return digest.hexdigest()


def as_stored(saliency: npt.ArrayLike) -> npt.NDArray[np.generic]:
    """A map in a type that a submission holds: uint8, float16 and float32 as they are, others as float32.

    Values whose size float32 cannot hold, or holds with fewer digits, are divided by the largest of them
    first: they neither overflow nor vanish, and the ranking stays. Raises ValueError for a map that no
    submission can hold.
    """
    array = unmasked(saliency, "a map")
    if array.ndim != 2 or max(array.shape) > MAX_MAP_SIDE:
        raise ValueError(f"a map is 2-D with at most {MAX_MAP_SIDE} pixels a side, not {array.shape}")
    if array.dtype in _NAMES:
        return array
    if array.dtype.kind not in "biuf":
        raise ValueError(f"a map holds real numbers, not {array.dtype}")
    wide = array if array.dtype.kind == "f" else array.astype(np.float64)
    largest = np.abs(wide[np.isfinite(wide)]).max(initial=0.0)
    scaled = largest > 0 and not _SMALLEST <= largest <= _LARGEST
    return (wide / largest if scaled else wide).astype(np.float32)
