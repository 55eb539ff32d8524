"""Shards: a part of a run's samples, for clusters that start one command many times."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from zlib import crc32

from medfocus_bench.data.sample import Sample
from medfocus_bench.errors import InputError
from medfocus_bench.runs.settings import SETTINGS_NAME
from medfocus_bench.runs.wanted import read_wanted

SLURM: Final = "slurm"
MOST: Final = 100_000
_WRITTEN = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")
_FOLDER = re.compile(r"shard-([0-9]{1,6})-of-([0-9]{1,6})")
_NAMED: Final = 10
"""Missing shards that a message names."""


@dataclass(frozen=True, slots=True)
class Shard:
    """The shard `number`, from 1, of `count`. All samples of a question are in the same one."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str, environment: Mapping[str, str] | None = None) -> Shard:
        """The shard of `3/8`, or that of a task of a Slurm array for `slurm`. Raises InputError."""
        variables = os.environ if environment is None else environment
        if text == SLURM:
            return cls._of_slurm(variables)
        found = _WRITTEN.fullmatch(text)
        number, count = (int(found[1]), int(found[2])) if found else (0, 0)
        if not 1 <= number <= count <= MOST:
            raise InputError(f"--shard {text}: give NUMBER/COUNT, from 1/COUNT to COUNT/COUNT, or {SLURM}")
        return cls(number, count)

    @classmethod
    def _of_slurm(cls, variables: Mapping[str, str]) -> Shard:
        names = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_COUNT")
        try:
            task, first, count = (int(variables[name]) for name in names)
        except (KeyError, ValueError):
            raise InputError(
                f"--shard {SLURM}: {', '.join(names)} are not all set; start it with `sbatch --array=1-COUNT`"
            ) from None
        if not 0 <= task - first < count <= MOST:
            raise InputError(
                f"--shard {SLURM}: task {task} is not one of {count} from {first}; give an array without gaps"
            )
        return cls(task - first + 1, count)

    def __contains__(self, sample: Sample) -> bool:
        return crc32(f"{sample.source} {sample.index}".encode()) % self.count == self.number - 1

    def others(self, those: Collection[Shard]) -> tuple[Shard, ...]:
        """All shards of the same count but `those`."""
        shards = (Shard(number, self.count) for number in range(1, self.count + 1))
        return tuple(shard for shard in shards if shard not in those)

    def folder(self, out: Path) -> Path:
        """Where the records of the shard go: shards never write to the same files."""
        return out / f"shard-{self.number}-of-{self.count}"


@dataclass(frozen=True, slots=True)
class Shards:
    """The shards in the folder of a run, each with its folder by its number."""

    run: Path
    count: int
    folders: Mapping[int, Path]

    @classmethod
    def of(cls, run: Path) -> Shards | None:
        """Those of a run; None for one that was not split. Raises InputError for shards of two counts."""
        inside = sorted(run.iterdir()) if run.is_dir() else []
        found = [(match, path) for path in inside if (match := _FOLDER.fullmatch(path.name))]
        if not found:
            return None
        counts = sorted({int(match[2]) for match, _ in found})
        if len(counts) > 1:
            raise InputError(_two_counts(run, counts))
        return cls(run, counts[0], dict(sorted((int(match[1]), path) for match, path in found)))

    def of_method(self, name: str) -> list[Path]:
        """The folders of a method; that of a shard without samples holds no records."""
        inside = [path / name for path in self.folders.values()]
        return [path for path in inside if path.is_dir()]

    def missing(self, name: str) -> list[int]:
        """The numbers of the shards that hold nothing of a method, though they have samples."""
        begun = {number for number, path in self.folders.items() if _has_begun(path / name)}
        return [number for number in range(1, self.count + 1) if number not in begun]

    def check_complete(self, name: str) -> None:
        """Raises InputError that names the shards that hold nothing of a method."""
        missing = self.missing(name)
        if not missing:
            return
        them = ", ".join(map(str, missing[:_NAMED])) + (", ..." if len(missing) > _NAMED else "")
        raise InputError(
            f"{self.run}: {len(missing)} of {self.count} shards hold nothing of {name}: {them}; make each, "
            f"as with `attribute --shard {missing[0]}/{self.count} --out {self.run}`, or pack with --partial"
        )


def check_count(run: Path, shard: Shard) -> None:
    """Raises InputError where a run was split into another number of shards."""
    found = Shards.of(run)
    if found is not None and found.count != shard.count:
        raise InputError(_two_counts(run, sorted((found.count, shard.count))))


def method_places(run: Path, name: str, *, partial: bool = False) -> list[Path]:
    """The folders with the records of a method: that in the run itself, and those in its shards.

    Raises InputError where shards are missing that nothing stands in for, unless that is to be accepted.
    """
    whole, shards = run / name, Shards.of(run)
    if shards is None or not (found := shards.of_method(name)):
        return [whole]
    if (whole / SETTINGS_NAME).is_file():  # begun or finished without shards
        return [whole, *found]
    if not partial:
        shards.check_complete(name)
    return found


def _has_begun(folder: Path) -> bool:
    """Whether a shard holds something of a method, or has no samples."""
    if (folder / SETTINGS_NAME).is_file():
        return True
    wanted = read_wanted(folder)
    return wanted is not None and not any(part.samples for part in wanted.parts)


def _two_counts(run: Path, counts: Sequence[int]) -> str:
    return (
        f"{run}: holds shards of {counts[0]} and of {counts[1]}, which share samples; split a run into one "
        "number of shards, or give another --out"
    )
