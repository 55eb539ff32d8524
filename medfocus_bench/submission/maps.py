"""The map file of a submission: safetensors, read one map at a time."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from medfocus_bench.errors import SubmissionError
from medfocus_bench.submission.schema import MAX_MAP_SIDE

DTYPES: Final = {"U8": np.dtype(np.uint8), "F16": np.dtype(np.float16), "F32": np.dtype(np.float32)}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}

MAX_HEADER_BYTES = 64 * 2**20
_REMAP_AFTER_BYTES = 16 * 2**20


class MapFileError(SubmissionError):
    """The map file cannot be used at all; the message is one sentence that starts with the file."""


class MapReader:
    """Maps of one safetensors file by key, each read when asked for.

    The file is memory-mapped; the mapping is renewed every few megabytes, so that the memory in use does
    not grow with what has been read. Raises MapFileError for a file whose header cannot be trusted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = self._open()
        self._read = 0
        self.keys = frozenset(self._handle.keys())

    def _open(self) -> Any:
        _check_header(self.path)
        try:
            return safe_open(self.path, framework="numpy")
        except (SafetensorError, OSError) as error:
            raise MapFileError(f"{self.path}: not a sound safetensors file: {str(error)[:300]}") from None

    def problem(self, key: str) -> str | None:
        """What is wrong with the map at `key`, without reading it; None if nothing is."""
        tensor = self._handle.get_slice(key)
        shape, dtype = tensor.get_shape(), tensor.get_dtype()
        if dtype not in DTYPES:
            return f"has the type {dtype}; maps are {', '.join(DTYPES)}"
        if len(shape) != 2:
            return f"has {len(shape)} dimensions; a map has 2"
        if max(shape) > MAX_MAP_SIDE:
            return f"is {shape[0]} x {shape[1]}; at most {MAX_MAP_SIDE} pixels a side are read"
        return None

    def read(self, key: str) -> npt.NDArray[np.generic]:
        """The map at `key`: 2-D; uint8, float16 or float32."""
        if self._read > _REMAP_AFTER_BYTES:
            self._handle, self._read = self._open(), 0
        array: npt.NDArray[np.generic] = self._handle.get_tensor(key)
        self._read += array.nbytes
        return array


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
        """Appends one 2-D map; float64 and integers other than uint8 are stored as float32.

        Raises ValueError that starts with the key, and appends nothing, for what cannot be stored so.
        """
        array = np.asarray(saliency)
        if array.ndim != 2 or max(array.shape, default=0) > MAX_MAP_SIDE:
            raise ValueError(f"{key}: a map is 2-D with at most {MAX_MAP_SIDE} pixels a side")
        array = _as_stored(key, array)
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


def _as_stored(key: str, array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    if array.dtype in _NAMES:
        return array
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{key}: a map holds real numbers, not {array.dtype}")
    with np.errstate(over="ignore"):
        stored = array.astype(np.float32)
    if not np.array_equal(np.isfinite(stored), np.isfinite(array)):
        raise ValueError(f"{key}: the map has numbers beyond float32; scale it first")
    return stored


def _check_header(path: Path) -> None:
    """The length that the file claims for its header is within the file and within bounds."""
    if path.is_symlink():
        raise MapFileError(f"{path}: is a symbolic link; put the file itself there")
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise MapFileError(f"{path}: is not a regular file")
        with path.open("rb") as file:
            claimed = int.from_bytes(file.read(8), "little")
    except OSError as error:
        raise MapFileError(f"{path}: cannot be read: {error.strerror}") from None
    if status.st_size < 8 or claimed > status.st_size - 8:
        raise MapFileError(f"{path}: its header is longer than the file ({status.st_size:,} bytes)")
    if claimed > MAX_HEADER_BYTES:
        raise MapFileError(f"{path}: its header claims {claimed:,} bytes; {MAX_HEADER_BYTES:,} at most")
