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
from medfocus_bench.submission.document import DOCUMENT_NAME
from medfocus_bench.submission.schema import MethodMetadata


@dataclass(frozen=True, slots=True)
class Run:
    """One method's attributions as a run left them; `evaluate` takes it."""

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
    """The records of a run; `method` may be left out where it holds one only. Raises InputError."""
    (found,) = method_folders([folder], method)
    return Run(found, read_settings(found), read_records([found]))


def is_run(folder: Path) -> bool:
    """Whether the folder belongs to a run, or to one method in it; never that of a submission."""
    if not is_folder(str(folder)) or os.path.lexists(folder / DOCUMENT_NAME):
        return False
    inside = [folder, *folder.iterdir()]
    return any((place / SETTINGS_NAME).is_file() for place in inside)


def method_folders(runs: Sequence[Path], method: str | None) -> list[Path]:
    """The folder of the method in each run; a run may be given as that folder itself."""
    found: list[Path] = []
    for run in runs:
        inside = [run, *sorted(run.iterdir())] if run.is_dir() else []
        folders = {folder.name: folder for folder in inside if (folder / SETTINGS_NAME).is_file()}
        if not folders:
            raise InputError(f"{run}: holds no records; give the folder that `attribute` wrote")
        wanted = [method, f"null-{method}"] if method else sorted(folders)
        named = [name for name in wanted if name in folders]
        if not named:
            raise InputError(f"{run}: holds no records of {method!r}, only of {', '.join(sorted(folders))}")
        if len(named) > 1 and not method:
            raise InputError(f"{run}: holds {', '.join(named)}; choose one with --method")
        found.append(folders[named[0]])
    return found


def common_settings(folders: Sequence[Path]) -> RunSettings:
    """The settings of all folders together. Raises InputError where they differ in what decides a record."""
    settings = read_settings(folders[0])
    for folder in folders[1:]:
        check_settings(folder, settings)
        parts = settings.parts | read_settings(folder).parts
        settings = settings.model_copy(update={"parts": parts})
    return settings
