"""Shards: a part of a run's samples, for clusters that start one command many times."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from zlib import crc32

from medfocus_bench.data.sample import Sample
from medfocus_bench.errors import InputError

SLURM: Final = "slurm"
MOST: Final = 100_000
_WRITTEN = re.compile(r"(\d{1,6})/(\d{1,6})")
_FOLDER = re.compile(r"shard-\d+-of-\d+")


@dataclass(frozen=True, slots=True)
class Shard:
    """The shard `number`, from 1, of `count`. All samples of a picture are in the same one."""

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

    def folder(self, out: Path) -> Path:
        """Where the records of the shard go: shards never write to the same files."""
        return out / f"shard-{self.number}-of-{self.count}"


def shard_folders(run: Path) -> list[Path]:
    """The folders of the shards in that of a run; none for a run that was not split."""
    if not run.is_dir():
        return []
    return sorted(path for path in run.iterdir() if _FOLDER.fullmatch(path.name) and path.is_dir())
