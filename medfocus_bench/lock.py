"""The lock of a run: one process at a time writes to a folder or file."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from medfocus_bench.errors import InputError
from medfocus_bench.storage import read_regular, write_atomic


@contextmanager
def exclusive(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock of a file or folder within the block: one process at a time writes there.

    The system lets go of the lock when its process ends, however that happens. The lock is a hidden file
    beside `path`, with one that names its holder; both go when the block ends. Where this process can write
    neither to `path` nor beside it there is no lock: a complete run can still be read. Raises InputError
    where another process holds it, unless it is to `wait` for that.
    """
    from filelock import FileLock, Timeout

    if path.exists() and not (os.access(path, os.W_OK) or os.access(path.parent, os.W_OK)):
        yield
        return

    path.parent.mkdir(parents=True, exist_ok=True)
    lock_file = path.with_name(f".{path.name}.lock")
    lock = FileLock(lock_file, timeout=-1 if wait else 0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(
            f"{path}: {_holder(path)} writes to it; wait until that ends (--wait), or give another --out"
        ) from None
    try:
        since = datetime.now(UTC).isoformat(" ", "minutes")
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
        write_atomic(_holder_file(path), json.dumps(holder))
        yield
    finally:
        _holder_file(path).unlink(missing_ok=True)
        lock_file.unlink(missing_ok=True)
        lock.release()


def _holder_file(path: Path) -> Path:
    return path.with_name(f".{path.name}.holder")


def _holder(path: Path) -> str:
    """The process that holds the lock of `path`, as messages name it."""
    try:
        holder = json.loads(read_regular(_holder_file(path), 1000))
        return f"process {holder['pid']} on {holder['host']}, since {holder['since']},"
    except (OSError, InputError, ValueError, TypeError, KeyError):  # it has only just begun, or ended
        return "another process"
