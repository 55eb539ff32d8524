"""The folders of a run that one call writes to, and those beside them that hold records of the same run."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from medfocus_bench.lock import check_free, exclusive
from medfocus_bench.runs.records import read_failures, read_records
from medfocus_bench.runs.settings import RunSettings, check_settings
from medfocus_bench.runs.shards import Shard, Shards, check_count


@dataclass(frozen=True, slots=True)
class Places:
    """Where the methods of a run have their records: in `out`, and in the shards in it."""

    out: Path
    shard: Shard | None
    wait: bool

    @property
    def folder(self) -> Path:
        """That of this call."""
        return self.out if self.shard is None else self.shard.folder(self.out)

    def open(self, name: str, wanted: RunSettings, stack: ExitStack) -> Collection[str]:
        """Lock the folder of a method until the stack ends; the samples that other folders of it hold.

        Whoever writes to the run as a whole locks its shards, too; a shard goes beside other shards only.
        """
        if self.shard is not None:
            check_count(self.out, self.shard)
        folder = self.folder / name
        stack.enter_context(exclusive(folder, wait=self.wait))
        check_settings(folder, wanted)
        read_failures(folder)  # an unsound file is said now, and not by `pack` after hours of work
        if self.shard is None:
            shards = Shards.of(self.out)
            others = shards.of_method(name) if shards else []
            for other in others:
                stack.enter_context(exclusive(other, wait=self.wait))
        else:
            others = [self.out / name]
            check_free(others[0], wait=self.wait)
        for other in others:
            check_settings(other, wanted)
        return read_records(others).sample_ids
