"""The folders of a run that one call writes to, and those beside them that hold records of the same run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from medfocus_bench.errors import InputError
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

    def open(self, settings: Mapping[str, RunSettings], stack: ExitStack) -> dict[str, Collection[str]]:
        """Lock the folders of methods until the stack ends; by method, the samples that other folders hold.

        Whoever writes to the run as a whole locks its shards, too; a shard goes beside other shards only. All
        take the locks in the same order, so that two that wait never wait for each other.
        """
        if self.shard is not None:
            check_count(self.out, self.shard)
        return {name: self._open(name, settings[name], stack) for name in sorted(settings)}

    def _open(self, name: str, wanted: RunSettings, stack: ExitStack) -> Collection[str]:
        if self.shard is None:
            stack.enter_context(exclusive(self.out / name, wait=self.wait))
            shards = Shards.of(self.out)
            others = shards.of_method(name) if shards else []
            for other in others:
                stack.enter_context(exclusive(other, wait=self.wait))
        else:
            others = [self.out / name]
            while not self._lock_shard(name, stack):
                pass
        for folder in (self.folder / name, *others):
            check_settings(folder, wanted)
        read_failures(self.folder / name)  # an unsound file is said now, and not after hours of work
        return read_records(others).sample_ids

    def _lock_shard(self, name: str, stack: ExitStack) -> bool:
        """Lock the folder of a shard; False if somebody just began to write to the run as a whole."""
        check_free(self.out / name, wait=self.wait)
        with ExitStack() as attempt:
            attempt.enter_context(exclusive(self.folder / name, wait=self.wait))
            try:
                check_free(self.out / name)
            except InputError:
                if not self.wait:
                    raise
                return False
            stack.enter_context(attempt.pop_all())
        return True
