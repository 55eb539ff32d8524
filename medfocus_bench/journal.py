"""Journals: what a long run has measured so far, a line of JSON a sample, so that it can be stopped any time.

The first line says what the rest was measured of; nothing else is ever added to the file. A run that was
killed may leave a last line half written: the next one cuts it off, and makes that sample again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from medfocus_bench.errors import InputError
from medfocus_bench.storage import naming, read_regular

MAX_BYTES: Final = 2**30

Record = Mapping[str, Any]


class Journal:
    """The records of a file by their `sample_id`, and a way to add more; hold the lock of the file meanwhile.

    `head`: whatever decides the records. Raises InputError where the file is of another head, and for a line
    that cannot be read.
    """

    def __init__(self, path: Path, head: Record) -> None:
        self.path, self._head = path, dict(head)
        if path.exists():
            with naming(path), path.open("r+b") as file:
                file.truncate(file.read().rfind(b"\n") + 1)
        self.records = read_journal(path, head)
        self._begun = path.exists() and path.stat().st_size > 0

    def add(self, records: Iterable[Record]) -> None:
        """Append records."""
        lines = [] if self._begun else [self._head]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with naming(self.path), self.path.open("a", encoding="utf-8") as file:
            for record in (*lines, *records):
                file.write(json.dumps(record) + "\n")
                if "sample_id" in record:
                    self.records[record["sample_id"]] = dict(record)
        self._begun = True


def read_journal(path: Path, head: Record) -> dict[str, dict[str, Any]]:
    """The records of a file, which another process may be writing; empty where there is none.

    Raises as `Journal`.
    """
    try:
        *lines, _ = read_regular(path, MAX_BYTES).split(b"\n")
    except FileNotFoundError:
        return {}
    found: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            if number > 1:
                found[record["sample_id"]] = record
        except (ValueError, TypeError, KeyError, RecursionError):
            raise InputError(f"{path}: line {number} cannot be read; delete the file to begin anew") from None
        if number == 1 and record != json.loads(json.dumps(dict(head))):
            raise InputError(f"{path}: {_difference(record, head)}; name another place, or delete the file")
    return found


def _difference(found: Any, wanted: Record) -> str:
    """How the head of a file differs from the one that is wanted."""
    if not isinstance(found, dict):
        return "does not say what it was measured of"
    other = [name for name in wanted if found.get(name) != wanted[name]]
    if not other:
        return "was made by another version"
    name = other[0]
    return f"was measured with another {name} ({found.get(name)}, not {wanted[name]})"
