"""Attributions on disk as they are made: JSON lines, beside a raw file that holds the maps.

A record is one line, written when its map is in the raw file already. What a stopped run leaves half-written
at the end of either file is cut off by the next one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, BinaryIO, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError

from medfocus_bench.data.files import write_whole
from medfocus_bench.errors import InputError
from medfocus_bench.submission.attribution import Attribution, Cost
from medfocus_bench.submission.schema import MAX_MAP_SIDE, AttributionEntry, Finite, Strict

FAILURES_NAME = "failures.jsonl"

_STORED = ("uint8", "float16", "float32")


class MapPlace(Strict):
    """Where a map lies in the raw file: little-endian, row after row."""

    offset: Annotated[int, Field(ge=0)]
    shape: Annotated[list[Annotated[int, Field(ge=0, le=MAX_MAP_SIDE)]], Field(min_length=2, max_length=2)]
    dtype: Literal["uint8", "float16", "float32"]

    @property
    def end(self) -> int:
        return self.offset + self.shape[0] * self.shape[1] * np.dtype(self.dtype).itemsize


class Record(Strict):
    """One line: the attribution as a submission states it, its map, and what the method says of itself.

    `intervals`: those of the scores of concepts, which a submission does not hold.
    """

    entry: AttributionEntry
    map: MapPlace | None = None
    diagnostics: dict[str, Finite] = Field(default_factory=dict)
    intervals: dict[str, tuple[Finite, Finite]] = Field(default_factory=dict)


class Failure(Strict):
    """A sample that a method could not explain, and why."""

    sample_id: str
    lvlm: str
    split: str
    reason: str


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

        Raises InputError that names the line for one that is none.
        """
        return [record for record, _ in self._sound()]

    def attribution(self, record: Record) -> Attribution:
        """The attribution of a record, its map read from the raw file."""
        entry, cost = record.entry, record.entry.cost
        return Attribution(
            entry.sample_id,
            saliency=None if record.map is None else self._map(record.map),
            boxes=None if entry.boxes is None else np.array(entry.boxes, dtype=np.float64).reshape(-1, 4),
            concepts=entry.concepts or {},
            tokens=[(token.text, token.score) for token in entry.tokens or ()],
            cost=Cost(cost.forward_passes, cost.backward_passes, cost.seconds) if cost else Cost(),
        )

    def cut(self) -> list[Record]:
        """As `read`; also cuts off both files behind the last complete record."""
        sound = self._sound()
        if self.lines.exists():
            _truncate(self.lines, sound[-1][1] if sound else 0)
        if self.maps.exists():
            _truncate(self.maps, max((r.map.end for r, _ in sound if r.map is not None), default=0))
        return [record for record, _ in sound]

    def _sound(self) -> list[tuple[Record, int]]:
        """The complete records, each with the place where its line ends."""
        if not self.lines.exists():
            return []
        available = self.maps.stat().st_size if self.maps.exists() else 0
        found: list[tuple[Record, int]] = []
        end = 0
        with self.lines.open("rb") as file:
            for number, line in enumerate(file, start=1):
                end += len(line)
                if not line.endswith(b"\n"):
                    break
                try:
                    record = Record.model_validate_json(line)
                except ValidationError:
                    raise InputError(f"{self.lines}: line {number} is no record of an attribution") from None
                if record.map is not None and record.map.end > available:
                    break
                found.append((record, end))
        return found

    def _map(self, place: MapPlace) -> npt.NDArray[np.generic]:
        stored = np.dtype(place.dtype).newbyteorder("<")
        rows, columns = place.shape
        with self.maps.open("rb") as file:
            file.seek(place.offset)
            data = file.read(place.end - place.offset)
        return np.frombuffer(data, stored).reshape(rows, columns).astype(place.dtype)


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
        for file in (self._lines, self._maps):
            if file is not None:
                file.close()

    def add(
        self,
        entry: AttributionEntry,
        saliency: npt.NDArray[np.generic] | None,
        diagnostics: Mapping[str, float],
        intervals: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        """Appends one attribution; a figure that is not finite is left out of the diagnostics."""
        if self._lines is None or self._maps is None:
            self.files.lines.parent.mkdir(parents=True, exist_ok=True)
            self._lines, self._maps = self.files.lines.open("ab"), self.files.maps.open("ab")
        place = None
        if saliency is not None:
            data = np.ascontiguousarray(saliency, dtype=saliency.dtype.newbyteorder("<")).tobytes()
            self._maps.write(data)
            self._maps.flush()
            # Where it went in fact, even if another process writes to the same file.
            offset = self._maps.tell() - len(data)
            place = MapPlace.model_validate(
                {"offset": offset, "shape": list(saliency.shape), "dtype": saliency.dtype.name}
            )
        figures = {name: float(value) for name, value in diagnostics.items() if np.isfinite(value)}
        record = Record(entry=entry, map=place, diagnostics=figures, intervals=dict(intervals or {}))
        self._lines.write(record.model_dump_json(exclude_none=True).encode() + b"\n")
        self._lines.flush()
        self.held.add(entry.sample_id)


def holds_records(folder: Path) -> bool:
    """Whether anything has been recorded in the folder of a method."""
    return any(files.lines.stat().st_size > 0 for files in RecordFiles.all_of(folder))


def as_stored(saliency: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """A map in a type that a submission holds: uint8, float16, float32 as they are, others scaled to float32.

    Divided by their largest magnitude first, so that values beyond float32 neither overflow nor vanish and
    the ranking stays. Raises ValueError for a map that no submission can hold.
    """
    array = np.asarray(saliency)
    if array.ndim != 2 or max(array.shape) > MAX_MAP_SIDE:
        raise ValueError(f"a map is 2-D with at most {MAX_MAP_SIDE} pixels a side, not {array.shape}")
    if array.dtype.name in _STORED:
        return array
    if array.dtype.kind not in "biuf":
        raise ValueError(f"a map holds real numbers, not {array.dtype}")
    exact = array.astype(np.float64)
    largest = np.abs(exact[np.isfinite(exact)]).max(initial=0.0)
    return (exact / largest if largest > 0 else exact).astype(np.float32)


def read_failures(folder: Path) -> list[Failure]:
    """The failures that are on record; a half-written last line is none."""
    path = folder / FAILURES_NAME
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    return [Failure.model_validate_json(line) for line in lines if line.endswith(b"\n")]


def forget_failures(folder: Path, sample_ids: Collection[str]) -> None:
    """Takes the failures of samples that are tried again off the record."""
    failures = read_failures(folder)
    kept = [failure for failure in failures if failure.sample_id not in sample_ids]
    if len(kept) == len(failures):
        return
    path = folder / FAILURES_NAME
    write_whole(path, "".join(failure.model_dump_json() + "\n" for failure in kept))


def add_failure(folder: Path, failure: Failure) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    line: dict[str, Any] = failure.model_dump()
    with (folder / FAILURES_NAME).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _truncate(path: Path, size: int) -> None:
    if path.stat().st_size > size:
        with path.open("r+b") as file:
            file.truncate(size)
