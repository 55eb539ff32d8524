"""The records of a run: JSON lines, beside a raw file with the maps.

A record is one line, written after its map. An interrupted run or a power loss may leave a broken tail in
either file: the next run cuts it off. Damage anywhere else is an error that names the line.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Generic, Self, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.errors import InputError
from medfocus_bench.storage import naming, open_regular, write_atomic
from medfocus_bench.submission.entry import to_attribution
from medfocus_bench.submission.maps import MapPlace, RawMaps
from medfocus_bench.submission.schema import AttributionEntry, Finite, Strict

FAILURES_NAME = "failures.jsonl"

MAX_LINE_BYTES: Final = 16 * 2**20
MAX_LINES: Final = 1_000_000

_AGAIN: Final = "delete that line, and run `attribute` again to make that record anew"


class Record(Strict):
    """One line: the entry of a submission, the place of its map, and what a submission leaves out.

    `question` and `response` are the ones that were explained, where the benchmark has no response.
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
    """A line of a file: its number, from 1, its content, and the byte where it ends."""

    number: int
    content: _Content
    end: int


@dataclass(frozen=True, slots=True)
class RecordFiles:
    """The two files of one method, LVLM and split."""

    lines: Path
    maps: Path

    @classmethod
    def of(cls, folder: Path, lvlm: str, split: str) -> RecordFiles:
        name = f"{re.sub(r'[^A-Za-z0-9_@-]', '_', lvlm)}-{split}"
        return cls(folder / f"{name}.jsonl", folder / f"{name}.maps")

    @classmethod
    def all_of(cls, folder: Path) -> list[RecordFiles]:
        """All of them in the folder of one method."""
        found = sorted(path for path in folder.glob("*.jsonl") if path.name != FAILURES_NAME)
        return [cls(path, path.with_suffix(".maps")) for path in found]

    def read(self) -> list[Record]:
        """The complete records in their order, without a broken tail.

        Raises InputError that names the line for any other broken record, and for one whose map lies beyond
        the raw file or over the map of another.
        """
        return [line.content for line in self._sound()]

    def attribution(self, record: Record) -> Attribution:
        """The attribution of a record with its map. Raises InputError for a map that was changed."""
        found = to_attribution(
            record.entry,
            None if record.map is None else self._map(record, record.map),
            "model" if record.map is None else record.map.frame,
        )
        return replace(found, diagnostics=record.diagnostics, intervals=record.intervals)

    def cut(self) -> list[Record]:
        """As `read`, with every checksum compared; cuts the broken tail off both files."""
        sound = self._sound()
        damaged = RawMaps(self.maps).damaged([line.content.map for line in sound if line.content.map])
        while sound and damaged and sound[-1].content.map is damaged[-1]:
            sound.pop()
            damaged.pop()
        for line in sound:
            if any(line.content.map is place for place in damaged):
                raise InputError(self._changed(line.number, line.content.entry.sample_id))
        if self.lines.exists():
            _truncate(self.lines, sound[-1].end if sound else 0)
        if self.maps.exists():
            _truncate(self.maps, max((line.content.map.end for line in sound if line.content.map), default=0))
        return [line.content for line in sound]

    def _sound(self) -> list[_Line[Record]]:
        """The lines with complete records and maps."""
        lines = _lines(self.lines, Record, "record of an attribution")
        available = RawMaps(self.maps).size()
        while lines and lines[-1].content.map is not None and lines[-1].content.map.end > available:
            lines.pop()
        places = sorted(
            (line.content.map.offset, line.content.map.end, line.number)
            for line in lines
            if line.content.map is not None and line.content.map.end > line.content.map.offset
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

    def _changed(self, number: int, sample_id: str) -> str:
        return (
            f"{self.lines}: line {number} ({sample_id}): its map in {self.maps.name} is not what was written "
            f"(its checksum is another one); {_AGAIN}"
        )

    def _map(self, record: Record, place: MapPlace) -> npt.NDArray[np.generic]:
        try:
            return RawMaps(self.maps).read(place)
        except ValueError:
            numbers = (line.number for line in self._sound() if line.content == record)
            raise InputError(self._changed(next(numbers, 0), record.entry.sample_id)) from None


@dataclass(frozen=True, slots=True)
class RunRecords:
    """The records of one method, of one or more runs, by sample; read like a `Submission`."""

    _records: Mapping[str, tuple[RecordFiles, Record]] = field(repr=False)

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, sample_id: str) -> bool:
        return sample_id in self._records

    def __iter__(self) -> Iterator[Attribution]:
        """All attributions, each read when its turn comes."""
        return (files.attribution(record) for files, record in self._records.values())

    @property
    def sample_ids(self) -> Collection[str]:
        """Those of the samples that have a record."""
        return self._records.keys()

    def record(self, sample_id: str) -> Record | None:
        """The record of one sample; None where the runs have none."""
        return self._records[sample_id][1] if sample_id in self._records else None

    def attribution(self, sample_id: str) -> Attribution | None:
        """The attribution of one sample; None where the runs have none."""
        if sample_id not in self._records:
            return None
        files, record = self._records[sample_id]
        return files.attribution(record)


def read_records(folders: Iterable[Path]) -> RunRecords:
    """The records in the folders of one method. Raises InputError for a sample that two of them hold."""
    records: dict[str, tuple[RecordFiles, Record]] = {}
    for folder in dict.fromkeys(folders):
        for files in RecordFiles.all_of(folder):
            for record in files.read():
                key = record.entry.sample_id
                if key in records and records[key][0].lines.parent != folder:
                    raise InputError(
                        f"{key} is both in {records[key][0].lines} and in {files.lines}; give one of the runs"
                    )
                records.setdefault(key, (files, record))
    return RunRecords(records)


class RecordWriter:
    """Appends records to two files, which one process at a time may have open.

    `sample_ids` are those of the samples that the files hold.
    """

    def __init__(self, files: RecordFiles) -> None:
        self.files = files
        self.sample_ids = {record.entry.sample_id for record in files.cut()}
        self._lines: BinaryIO | None = None
        self._maps = RawMaps(files.maps)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with ExitStack() as stack:  # which closes the second one, too, if the first cannot be written out
            stack.callback(self._maps.close)
            if self._lines is not None:
                stack.enter_context(naming(self.files.lines))
                stack.callback(self._lines.close)

    def add(
        self, entry: AttributionEntry, attribution: Attribution, *, asked: tuple[str, str] | None = None
    ) -> None:
        """Append an attribution with its entry; figures that are not finite are left out.

        `asked`: the question and the response, where the benchmark does not hold what was explained.
        """
        if self._lines is None:
            self.files.lines.parent.mkdir(parents=True, exist_ok=True)
            self._lines = self.files.lines.open("ab")
        place = None
        if attribution.saliency is not None:
            place = self._maps.append(attribution.saliency, attribution.frame)
        question, response = asked or (None, None)
        record = Record(
            entry=entry,
            map=place,
            diagnostics=finite(attribution.diagnostics),
            intervals=dict(attribution.intervals),
            question=question,
            response=response,
        )
        with naming(self.files.lines):
            self._lines.write(record.model_dump_json(exclude_none=True).encode() + b"\n")
            self._lines.flush()
        self.sample_ids.add(entry.sample_id)


def finite(diagnostics: Mapping[str, float]) -> dict[str, float]:
    """The figures that are finite, as files hold them."""
    return {name: float(value) for name, value in diagnostics.items() if np.isfinite(value)}


def holds_records(folder: Path) -> bool:
    """Whether anything has been recorded in the folder of a method."""
    return any(files.lines.stat().st_size > 0 for files in RecordFiles.all_of(folder))


def read_failures(folder: Path) -> list[Failure]:
    """The failures on record, without a broken last line.

    Raises InputError that names any other broken line.
    """
    return [line.content for line in _lines(folder / FAILURES_NAME, Failure, "record of a failure")]


def forget_failures(folder: Path, sample_ids: Collection[str]) -> None:
    """Remove the failures of samples that are tried again, and a broken last line."""
    path = folder / FAILURES_NAME
    failures = _lines(path, Failure, "record of a failure")
    others = [line.content for line in failures if line.content.sample_id not in sample_ids]
    end = failures[-1].end if failures else 0
    if path.exists() and (len(others) < len(failures) or path.stat().st_size > end):
        write_atomic(path, "".join(failure.model_dump_json() + "\n" for failure in others))


def add_failure(folder: Path, failure: Failure) -> None:
    """Put a failure on record."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FAILURES_NAME
    with naming(path), path.open("a", encoding="utf-8") as file:
        file.write(failure.model_dump_json() + "\n")


def _lines(path: Path, model: type[_Content], kind: str) -> list[_Line[_Content]]:
    """The complete lines of a file, which may be missing, without a broken last one.

    Raises InputError that names any other line that is not a `kind`, and for a file beyond the bounds.
    """
    if not path.exists():
        return []
    found: list[_Line[_Content]] = []
    broken, end = 0, 0
    for number, line in enumerate(_raw_lines(path), start=1):
        if broken:
            raise InputError(f"{path}: line {broken} is not a {kind}; {_AGAIN}")
        end += len(line)
        if not line.endswith(b"\n"):
            break
        try:
            found.append(_Line(number, model.model_validate_json(line), end))
        except ValidationError:
            broken = number
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
            raise InputError(f"{path}: has more than {MAX_LINES:,} lines, more than any run writes")


def _truncate(path: Path, size: int) -> None:
    if path.stat().st_size > size:
        with path.open("r+b") as file:
            file.truncate(size)
