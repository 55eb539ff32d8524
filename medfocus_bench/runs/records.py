"""Attributions on disk as they are made: JSON lines, beside a raw file that holds the maps.

A record is one line, written when its map is in the raw file already. What a stopped run or a power loss
leaves unsound at the end of either file is cut off by the next run; anywhere else it is an error that names
the line.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Annotated, BinaryIO, Final, Generic, Literal, Self, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError

from medfocus_bench.attribution.attribution import Attribution, Cost
from medfocus_bench.errors import InputError
from medfocus_bench.geometry import MapFrame
from medfocus_bench.storage import naming, open_regular, write_atomic
from medfocus_bench.submission.schema import MAX_MAP_SIDE, AttributionEntry, Finite, Strict

FAILURES_NAME = "failures.jsonl"

MAX_LINE_BYTES: Final = 16 * 2**20
MAX_LINES: Final = 1_000_000

_AGAIN: Final = "delete that line, and run `attribute` again, which makes what it held anew"


class MapPlace(Strict):
    """Where a map lies in the raw file: little-endian, row after row.

    `crc32` is that of its type, shape and values; None in runs of earlier versions. `frame` is what it
    covers, as in a submission.
    """

    offset: Annotated[int, Field(ge=0)]
    shape: Annotated[list[Annotated[int, Field(ge=0, le=MAX_MAP_SIDE)]], Field(min_length=2, max_length=2)]
    dtype: Literal["uint8", "float16", "float32"]
    crc32: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    frame: MapFrame = "model"

    def holds(self, data: bytes) -> bool:
        """Whether these are the values that were written, as far as that is known."""
        return self.crc32 is None or self.crc32 == _checksum(self.dtype, self.shape, data)

    @property
    def end(self) -> int:
        return self.offset + self.shape[0] * self.shape[1] * np.dtype(self.dtype).itemsize


class Record(Strict):
    """One line: the attribution as a submission states it, its map, and what the method says of itself.

    `intervals`: those of the scores of concepts, which a submission does not hold. `question` and `response`
    stand here where the benchmark has no response: they are the ones that were explained.
    """

    entry: AttributionEntry
    map: MapPlace | None = None
    diagnostics: dict[str, Finite] = Field(default_factory=dict)
    intervals: dict[str, tuple[Finite, Finite]] = Field(default_factory=dict)
    question: str | None = None
    response: str | None = None


class Failure(Strict):
    """A sample that a method could not explain, and why."""

    sample_id: str
    lvlm: str
    split: str
    reason: str


_Content = TypeVar("_Content", Record, Failure)


@dataclass(frozen=True, slots=True)
class _Line(Generic[_Content]):
    """A line of a file: its number, from 1, what it holds, and the place where it ends."""

    number: int
    held: _Content
    end: int


@dataclass(frozen=True, slots=True)
class RecordFiles:
    """The two files of one method, LVLM and split."""

    lines: Path
    maps: Path

    @classmethod
    def of(cls, folder: Path, lvlm: str, split: str) -> RecordFiles:
        name = f"{re.sub(r'[^A-Za-z0-9_-]', '_', lvlm)}-{split}"
        return cls(folder / f"{name}.jsonl", folder / f"{name}.maps")

    @classmethod
    def all_of(cls, folder: Path) -> list[RecordFiles]:
        """Those in the folder of one method of a run."""
        found = sorted(path for path in folder.glob("*.jsonl") if path.name != FAILURES_NAME)
        return [cls(path, path.with_suffix(".maps")) for path in found]

    def read(self) -> list[Record]:
        """The complete records, in the order in which they were made.

        Raises InputError that names the line for one that is none, and for one whose map lies beyond the raw
        file or over that of another; at the end of the files both are what a stopped run leaves.
        """
        return [line.held for line in self._sound()]

    def attribution(self, record: Record) -> Attribution:
        """The attribution of a record, its map read from the raw file.

        Raises InputError where that is not the map that was written.
        """
        entry, cost = record.entry, record.entry.cost
        return Attribution(
            entry.sample_id,
            saliency=None if record.map is None else self._map(record, record.map),
            boxes=None if entry.boxes is None else np.array(entry.boxes, dtype=np.float64).reshape(-1, 4),
            concepts=entry.concepts or {},
            tokens=[(token.text, token.score) for token in entry.tokens or ()],
            cost=Cost(cost.forward_passes, cost.backward_passes, cost.seconds) if cost else Cost(),
            frame="model" if record.map is None else record.map.frame,
        )

    def cut(self) -> list[Record]:
        """As `read`, with each map held against its checksum; cuts off both files behind the last record."""
        sound = self._sound()
        broken = self._broken(sound)
        while sound and broken and sound[-1] is broken[-1]:
            sound.pop()
            broken.pop()
        if broken:
            raise InputError(self._changed(broken[0].number, broken[0].held.entry.sample_id))
        if self.lines.exists():
            _truncate(self.lines, sound[-1].end if sound else 0)
        if self.maps.exists():
            _truncate(self.maps, max((line.held.map.end for line in sound if line.held.map), default=0))
        return [line.held for line in sound]

    def _sound(self) -> list[_Line[Record]]:
        """The complete records, whose maps are all there."""
        lines = _lines(self.lines, Record, "record of an attribution")
        available = 0
        if self.maps.exists():
            with open_regular(self.maps) as file:
                available = file.seek(0, 2)
        while lines and lines[-1].held.map is not None and lines[-1].held.map.end > available:
            lines.pop()
        places = sorted(
            (line.held.map.offset, line.held.map.end, line.number)
            for line in lines
            if line.held.map is not None and line.held.map.end > line.held.map.offset
        )
        for _, end, number in places:
            if end > available:
                raise InputError(
                    f"{self.lines}: line {number}: its map lies beyond the end of {self.maps}; {_AGAIN}"
                )
        for (_, end, number), (offset, _, other) in pairwise(places):
            if offset < end:
                raise InputError(
                    f"{self.lines}: line {max(number, other)}: its map lies over that of line "
                    f"{min(number, other)}; {_AGAIN}"
                )
        return lines

    def _broken(self, lines: Sequence[_Line[Record]]) -> list[_Line[Record]]:
        """Those whose maps are not what was written."""
        if not any(line.held.map for line in lines):
            return []
        with open_regular(self.maps) as file:
            return [
                line
                for line in lines
                if line.held.map is not None
                and line.held.map.crc32 is not None
                and not line.held.map.holds(_data(file, line.held.map))
            ]

    def _changed(self, number: int, sample_id: str) -> str:
        return (
            f"{self.lines}: line {number} ({sample_id}): its map in {self.maps.name} is not what was written "
            f"(its checksum is another one); {_AGAIN}"
        )

    def _map(self, record: Record, place: MapPlace) -> npt.NDArray[np.generic]:
        stored = np.dtype(place.dtype).newbyteorder("<")
        with open_regular(self.maps) as file:
            data = _data(file, place)
        if len(data) != place.end - place.offset or not place.holds(data):
            numbers = (line.number for line in self._sound() if line.held == record)
            raise InputError(self._changed(next(numbers, 0), record.entry.sample_id))
        return np.frombuffer(data, stored).reshape(place.shape).astype(place.dtype)


class RecordWriter:
    """Appends records to two files; `held` are the samples that they hold."""

    def __init__(self, files: RecordFiles) -> None:
        self.files = files
        self.held = {record.entry.sample_id for record in files.cut()}
        self._lines: BinaryIO | None = None
        self._maps: BinaryIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with ExitStack() as stack:  # which closes the second one, too, if the first cannot be written out
            for file, path in ((self._lines, self.files.lines), (self._maps, self.files.maps)):
                if file is not None:
                    stack.enter_context(naming(path))
                    stack.callback(file.close)

    def add(
        self,
        entry: AttributionEntry,
        saliency: npt.NDArray[np.generic] | None,
        diagnostics: Mapping[str, float],
        intervals: Mapping[str, tuple[float, float]] | None = None,
        frame: MapFrame = "model",
        *,
        asked: tuple[str, str] | None = None,
    ) -> None:
        """Appends one attribution; a figure that is not finite is left out of the diagnostics.

        `asked`: the question and the response, where the benchmark does not hold what was explained.
        """
        if self._lines is None or self._maps is None:
            self.files.lines.parent.mkdir(parents=True, exist_ok=True)
            self._lines, self._maps = self.files.lines.open("ab"), self.files.maps.open("ab")
        place = None
        if saliency is not None:
            data = np.ascontiguousarray(saliency, dtype=saliency.dtype.newbyteorder("<")).tobytes()
            with naming(self.files.maps):
                self._maps.write(data)
                self._maps.flush()
                # Where it went in fact, even if another process writes to the same file.
                offset = self._maps.tell() - len(data)
            dtype, shape = saliency.dtype.name, list(saliency.shape)
            checksum = _checksum(dtype, shape, data)
            place = MapPlace.model_validate(
                {"offset": offset, "shape": shape, "dtype": dtype, "crc32": checksum, "frame": frame}
            )
        figures = {name: float(value) for name, value in diagnostics.items() if np.isfinite(value)}
        question, response = asked or (None, None)
        record = Record(
            entry=entry,
            map=place,
            diagnostics=figures,
            intervals=dict(intervals or {}),
            question=question,
            response=response,
        )
        with naming(self.files.lines):
            self._lines.write(record.model_dump_json(exclude_none=True).encode() + b"\n")
            self._lines.flush()
        self.held.add(entry.sample_id)


def holds_records(folder: Path) -> bool:
    """Whether anything has been recorded in the folder of a method."""
    return any(files.lines.stat().st_size > 0 for files in RecordFiles.all_of(folder))


def read_failures(folder: Path) -> list[Failure]:
    """The failures that are on record; a half-written or unsound last line is none.

    Raises InputError that names the line for any other that is none.
    """
    return [line.held for line in _lines(folder / FAILURES_NAME, Failure, "record of a failure")]


def forget_failures(folder: Path, sample_ids: Collection[str]) -> None:
    """Takes the failures of samples that are tried again off the record, and what is unsound at its end."""
    path = folder / FAILURES_NAME
    failures = _lines(path, Failure, "record of a failure")
    kept = [line.held for line in failures if line.held.sample_id not in sample_ids]
    end = failures[-1].end if failures else 0
    if path.exists() and (len(kept) < len(failures) or path.stat().st_size > end):
        write_atomic(path, "".join(failure.model_dump_json() + "\n" for failure in kept))


def add_failure(folder: Path, failure: Failure) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FAILURES_NAME
    with naming(path), path.open("a", encoding="utf-8") as file:
        file.write(failure.model_dump_json() + "\n")


def _lines(path: Path, model: type[_Content], what: str) -> list[_Line[_Content]]:
    """The complete lines of a file that may not be there; an unsound last one is none.

    Raises InputError that names the line for any other that is no `what`, and for what is beyond the bounds.
    """
    if not path.exists():
        return []
    found: list[_Line[_Content]] = []
    unsound, end = 0, 0
    for number, line in enumerate(_raw_lines(path), start=1):
        if unsound:
            raise InputError(f"{path}: line {unsound} is no {what}; {_AGAIN}")
        end += len(line)
        if not line.endswith(b"\n"):
            break
        try:
            found.append(_Line(number, model.model_validate_json(line), end))
        except ValidationError:
            unsound = number
    return found


def _raw_lines(path: Path) -> Iterator[bytes]:
    with open_regular(path) as file:
        for number in range(1, MAX_LINES + 1):
            line = file.readline(MAX_LINE_BYTES + 1)
            if not line:
                return
            if len(line) > MAX_LINE_BYTES:
                raise InputError(f"{path}: line {number} is longer than {MAX_LINE_BYTES:,} bytes; {_AGAIN}")
            yield line
        if file.read(1):
            raise InputError(f"{path}: has more than {MAX_LINES:,} lines, as no run writes")


def _data(file: BinaryIO, place: MapPlace) -> bytes:
    file.seek(place.offset)
    return file.read(place.end - place.offset)


def _checksum(dtype: str, shape: Sequence[int], data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(f"{dtype} {shape[0]} {shape[1]}".encode()))


def _truncate(path: Path, size: int) -> None:
    if path.stat().st_size > size:
        with path.open("r+b") as file:
            file.truncate(size)
