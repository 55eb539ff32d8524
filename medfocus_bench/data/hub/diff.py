"""Differences between two versions of a benchmark, sample by sample."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from medfocus_bench.data.benchmark import read_rows
from medfocus_bench.data.columns import SCHEMA
from medfocus_bench.data.hub.repository import hub_name
from medfocus_bench.data.resolve import installed_benchmarks, is_folder, locate
from medfocus_bench.errors import BenchmarkError

_NOT_COMPARED: Final = ("sample_id", *(name for name in SCHEMA.names if name.startswith("log_odds_")))
"""Log-odds are not compared, as they do not count for the fingerprint: their last digits vary."""


@dataclass(frozen=True, slots=True)
class BenchmarkDifference:
    """Ids of added, removed and changed samples; for changed ones the columns that differ."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: Mapping[str, tuple[str, ...]]
    unchanged: int

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that changed in any sample."""
        return tuple(sorted({column for columns in self.changed.values() for column in columns}))

    def __str__(self) -> str:
        """Part of a sentence: how many samples differ, and in what."""
        changed = f"{len(self.changed)} changed" + (f" ({', '.join(self.columns)})" if self.changed else "")
        return f"samples: {len(self.added)} added, {len(self.removed)} removed, {changed}"


def difference(before: str | Path, after: str | Path) -> BenchmarkDifference:
    """Compare two benchmarks: folders (also of pointers, or repositories) or names.

    All rows count, grounded or not; a row whose split changed has changed. Raises BenchmarkError.
    """
    old, new = _contents(before), _contents(after)
    both = [name for name in old if name in new]
    changed = {name: _changed(old[name], new[name]) for name in both}
    return BenchmarkDifference(
        added=tuple(sorted(new.keys() - old.keys())),
        removed=tuple(sorted(old.keys() - new.keys())),
        changed={name: columns for name, columns in sorted(changed.items()) if columns},
        unchanged=sum(not columns for columns in changed.values()),
    )


def _contents(folder_or_name: str | Path) -> dict[str, dict[str, Any]]:
    contents: dict[str, dict[str, Any]] = {}
    for place, split, row in read_rows(_folder(folder_or_name)):
        name = str(row["sample_id"])
        if name in contents:
            raise BenchmarkError(f"{place}: the sample stands twice")
        contents[name] = {
            column: _comparable(column, value)
            for column, value in row.items()
            if value is not None and column not in _NOT_COMPARED
        } | {"split": split}
    return contents


def _folder(folder_or_name: str | Path) -> Path:
    text = str(folder_or_name)
    folder = locate(text)
    if folder in installed_benchmarks().values() and not is_folder(text) and hub_name(text) is not None:
        # The embedded track stands in for the Hub's elsewhere; compared with itself it would say "same".
        raise BenchmarkError(
            f"{text[:200]}: the Hub cannot be reached; compare when it can, or give a folder"
        )
    return folder


def _comparable(column: str, value: Any) -> Any:
    if column == "image":
        return hashlib.sha256(value.get("bytes") or b"").hexdigest()
    return value


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(sorted(column for column in old.keys() | new.keys() if old.get(column) != new.get(column)))
