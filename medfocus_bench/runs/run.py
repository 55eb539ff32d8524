"""The records of one method in a run's folder, or in those of several runs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.data.resolve import is_folder
from medfocus_bench.errors import InputError
from medfocus_bench.runs.records import RunRecords, read_records
from medfocus_bench.runs.settings import SETTINGS_NAME, RunSettings, check_settings, read_settings
from medfocus_bench.runs.shards import Shards, method_places
from medfocus_bench.submission.document import DOCUMENT_NAME
from medfocus_bench.submission.schema import MethodMetadata


@dataclass(frozen=True, slots=True)
class Run:
    """One method's attributions as a run left them; `evaluate` takes it.

    `folder`: that of the method, or of the run where shards hold the records.
    """

    folder: Path
    settings: RunSettings
    records: RunRecords

    def __iter__(self) -> Iterator[Attribution]:
        return iter(self.records)

    @property
    def metadata(self) -> MethodMetadata:
        return self.settings.method

    @property
    def fingerprint(self) -> str:
        """Of the benchmark that was explained."""
        return self.settings.benchmark.fingerprint


def open_run(folder: Path, method: str | None = None) -> Run:
    """The records of a run, those of all its shards together; `method` may be left out where it has one only.

    Raises InputError, also for shards that are missing.
    """
    found = method_folders([folder], method)
    return Run(found[0] if len(found) == 1 else folder, common_settings(found), read_records(found))


def is_run(folder: Path) -> bool:
    """Whether the folder belongs to a run, or to one method in it; never that of a submission."""
    if not is_folder(str(folder)) or os.path.lexists(folder / DOCUMENT_NAME):
        return False
    return bool(methods_inside(folder))


def method_folders(runs: Sequence[Path], method: str | None, *, partial: bool = False) -> list[Path]:
    """The folders of the method in each run and in its shards; a run may be given as that folder itself.

    Raises InputError for a run without records of it, and for one that lacks shards, unless it is `partial`.
    """
    found: list[Path] = []
    for run in runs:
        inside = methods_inside(run)
        if not inside:
            raise InputError(f"{run}: holds no records; give the folder that `attribute` wrote")
        wanted = [method, f"null-{method}"] if method else sorted(inside)
        named = [name for name in wanted if name in inside]
        if not named:
            raise InputError(f"{run}: holds no records of {method!r}, only of {', '.join(sorted(inside))}")
        if len(named) > 1 and not method:
            raise InputError(f"{run}: holds {', '.join(named)}; choose one with --method")
        if run not in inside[named[0]]:
            method_places(run, named[0], partial=partial)  # says which shards are missing
        found += inside[named[0]]
    return found


def methods_inside(run: Path) -> dict[str, list[Path]]:
    """The folders with records in a run and its shards, by method."""
    shards = Shards.of(run)
    above = [run, *(shards.folders.values() if shards else ())]
    places = [run, *(path for place in above if place.is_dir() for path in sorted(place.iterdir()))]
    found: dict[str, list[Path]] = {}
    for place in places:
        if (place / SETTINGS_NAME).is_file():
            found.setdefault(place.name, []).append(place)
    return found


def common_settings(folders: Sequence[Path]) -> RunSettings:
    """The settings of all folders together. Raises InputError where they differ in what decides a record."""
    settings = read_settings(folders[0])
    for folder in folders[1:]:
        check_settings(folder, settings)
        parts = settings.parts | read_settings(folder).parts
        settings = settings.model_copy(update={"parts": parts})
    return settings
