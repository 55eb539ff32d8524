"""The cells of a benchmark row that are read from its Parquet file only when a sample is asked for them."""

from __future__ import annotations

import atexit
import weakref
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, Final

from medfocus_bench.data.images import decode_uint8, picture_at, read_picture
from medfocus_bench.data.parquet import group_starts, parquet_rows
from medfocus_bench.data.pixels import PictureError
from medfocus_bench.errors import BenchmarkError, UnavailableError
from medfocus_bench.geometry import UInt8Image

TEXTS: Final[tuple[str, ...]] = ("question", "response")
PICTURE: Final[tuple[str, ...]] = ("image", "image_ref")
"""Columns that are read together."""

_MOST_OPEN: Final = 4
"""Cursors that keep their file open, with the rows that were decoded last."""

Cells = dict[str, Any]
_State = tuple[Path, int, int, int] | None


class StoredFile:
    """A Parquet file of the benchmark in `folder`; `root` is that of the user's own copies of pictures.

    Reading is sequential: samples that are taken in the order of the file cost one pass over it, as a batch
    of rows is decoded at a time. A sample elsewhere costs the row group that holds it.
    """

    def __init__(self, path: Path, folder: Path, root: Path | None) -> None:
        self.path, self.folder, self.root = path, folder, root
        self._state = _state(path)
        self._cursors = {columns: _Cursor(path, columns) for columns in (TEXTS, PICTURE)}

    def __reduce__(self) -> tuple[Any, ...]:
        return _same_file, (self.path, self.folder, self.root, self._state)

    @property
    def origin(self) -> Hashable:
        """The file and its state when the benchmark was loaded, with the root of copies; None if unknown."""
        return self._state and (self._state, self.root)

    def cells(self, number: int, columns: tuple[str, ...], sample_id: str) -> Cells:
        """The cells of a row. Raises BenchmarkError for a file that is damaged, or has changed."""
        cells = self._cursors[columns].row(number)
        if cells is None or cells["sample_id"] != sample_id:
            raise BenchmarkError(
                f"{self.path}: row {number} is not {sample_id} any more; the file has changed, so load the "
                "benchmark again"
            )
        return cells


@lru_cache(maxsize=16)
def _same_file(path: Path, folder: Path, root: Path | None, state: _State) -> StoredFile:
    """One object for a file in a process, however often samples are sent to it: they are read in one pass.

    `state`: of the file when the benchmark was loaded; another one is another file.
    """
    return StoredFile(path, folder, root)


class _Cursor:
    """The row of some columns that was read last, with the rows that follow it."""

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        self._path, self._columns = path, columns
        self._starts: list[int] = []
        self._rows: Iterator[tuple[int, Cells]] = iter(())
        self._number = -1
        self._cells: Cells | None = None
        self._lock = Lock()

    def row(self, number: int) -> Cells | None:
        with self._lock:
            if number != self._number:
                rows = self._rows_before(number)
                self._number = -1  # reading may fail
                self._cells = next((cells for found, cells in rows if found == number), None)
                self._number = number
            cells = self._cells
        _OPEN.used(self)
        return cells

    def close(self) -> None:
        """Let go of the file and of its decoded rows; the next row opens it again."""
        with self._lock:
            self._rows, self._number, self._cells = iter(()), -1, None

    def _rows_before(self, number: int) -> Iterator[tuple[int, Cells]]:
        """Rows on the way to `number`: those that follow the last one, or those of its row group."""
        self._starts = self._starts or group_starts(self._path)
        last, wanted = (bisect_right(self._starts, row) for row in (self._number, number))
        if not 0 <= self._number < number or wanted > last + 1:
            start = self._starts[wanted - 1] if wanted else 0
            self._rows = parquet_rows(self._path, ["sample_id", *self._columns], start=start)
        return self._rows


class _OpenCursors:
    """The cursors that were used last; every other one is closed."""

    def __init__(self) -> None:
        self._cursors: OrderedDict[int, weakref.ref[_Cursor]] = OrderedDict()
        self._lock = Lock()

    def used(self, cursor: _Cursor) -> None:
        with self._lock:
            self._cursors[id(cursor)] = weakref.ref(cursor)
            self._cursors.move_to_end(id(cursor))
            full = len(self._cursors) > _MOST_OPEN
            oldest = self._cursors.popitem(last=False)[1]() if full else None
        if oldest is not None:
            oldest.close()

    def close(self) -> None:
        """Close all: a file that is half read when the interpreter ends finds its modules gone."""
        with self._lock:
            cursors = [reference() for reference in self._cursors.values()]
            self._cursors.clear()
        for cursor in cursors:
            if cursor is not None:
                cursor.close()


class _LastPicture:
    """The picture that was decoded last: the samples of a picture follow each other in a run."""

    def __init__(self) -> None:
        self._held: tuple[Any, UInt8Image] | None = None

    def get(self, key: Any, decode: Callable[[], UInt8Image]) -> UInt8Image:
        """A copy of the picture that `key` stands for; None stands for no picture."""
        held = self._held  # once: another thread may change it
        if held is None or key is None or held[0] != key:
            held = self._held = key, decode()
        return held[1].copy()


def _state(path: Path) -> _State:
    """Path, size, time of change and number of a file; None where reading it will say what is wrong."""
    try:
        about = path.stat()
    except OSError:
        return None
    return path, about.st_size, about.st_mtime_ns, about.st_ino


_LAST_PICTURE: Final = _LastPicture()
_OPEN: Final = _OpenCursors()
atexit.register(_OPEN.close)


@dataclass(frozen=True, slots=True, eq=False)
class StoredRow:
    """The place of the question, the response and the picture of a sample."""

    file: StoredFile
    number: int

    @property
    def origin(self) -> Hashable:
        return self.file.origin

    def texts(self, sample_id: str) -> tuple[str | None, str | None]:
        """Question and response; None where the row has none."""
        cells = self.file.cells(self.number, TEXTS, sample_id)
        return cells.get("question") or None, cells.get("response") or None

    def picture(self, sample_id: str, size: tuple[int, int]) -> UInt8Image:
        """The picture, embedded or from the user's own copies, of `size` (width, height).

        Raises PictureError that names the sample or the file, also for a picture of another size, and
        UnavailableError where it is missing.
        """
        cells, root = self.file.cells(self.number, PICTURE, sample_id), self.file.root
        data, ref = (cells.get("image") or {}).get("bytes"), cells.get("image_ref")
        if data is not None:
            place = sample_id
            image = _LAST_PICTURE.get(data, lambda: decode_uint8(data, place=sample_id))
        elif ref is not None and root is not None:
            path = picture_at(root, ref)
            place = str(path)
            image = _LAST_PICTURE.get(_state(path), lambda: read_picture(path))
        else:
            raise UnavailableError(f"{self.file.folder}: {sample_id} has no picture, {self._way_out(ref)}")
        if image.shape[::-1] != size:
            raise PictureError(
                f"{place}: is {image.shape[1]} x {image.shape[0]} pixels, but {sample_id} is of "
                f"{size[0]} x {size[1]}; it is another picture"
            )
        return image

    def _way_out(self, ref: str | None) -> str:
        if ref is not None:
            return (
                f"only a pointer to {ref} in copies of your own; join them with `medfocus-bench data attach "
                f"{self.file.folder} --root COPIES --out DIR`"
            )
        return (
            "which is needed here; put it into the column image (write_benchmark takes a picture), or into a "
            "file below the root that benchmark.json names, with its path in the column image_ref"
        )
