"""The lock of a run: one process at a time writes to a folder or file.

The lock is a hidden file beside it, on which the system keeps a lock (flock) until its process ends, however
that happens. A file system without flock has the file alone: it is left behind where a process is killed,
and stands in nobody's way on the same host, where it shows that the process has ended.
"""

from __future__ import annotations

import json
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from medfocus_bench.errors import InputError, Notice
from medfocus_bench.storage import read_regular, write_atomic

if TYPE_CHECKING:
    from filelock import FileLock

_ENDED: Final = ("Z", "X")
"""States of a process that has ended, and whose parent has not looked yet."""
_POLL_SECONDS: Final = 0.2
_PROBE_SECONDS: Final = 2.0
"""How long `check_free` waits for another one that only looks, too."""


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that a lock names; `started` tells it from a later one of the same number, where known."""

    pid: int
    host: str
    since: str
    started: int | None = None

    @classmethod
    def this_process(cls) -> Holder:
        since = datetime.now(UTC).isoformat(" ", "minutes")
        return cls(os.getpid(), socket.gethostname(), since, _state_and_start(os.getpid())[1])

    @property
    def runs(self) -> bool | None:
        """Whether it still runs; None for one of another host, which cannot be asked from here."""
        if self.host != socket.gethostname():
            return None
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):
            return False
        except PermissionError:  # it is there, and somebody else's
            pass
        state, started = _state_and_start(self.pid)
        if state in _ENDED:
            return False
        return None in (self.started, started) or self.started == started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


@contextmanager
def exclusive(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock of a file or folder within the block: one process at a time writes there.

    A file beside that of the lock names the holder; both go when the block ends. Where this process can write
    neither to `path` nor beside it there is no lock: a complete run can still be read. Raises InputError
    where another process holds it, unless it is to `wait` for that, which a Notice says once.
    """
    if path.exists() and not (os.access(path, os.W_OK) or os.access(path.parent, os.W_OK)):
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = _acquired(path, wait=wait)
    try:
        write_atomic(_holder_file(path), json.dumps(asdict(Holder.this_process())))
        yield
    finally:
        _holder_file(path).unlink(missing_ok=True)
        _lock_file(path).unlink(missing_ok=True)
        lock.release()


def check_free(path: Path, *, wait: bool = False) -> None:
    """Raises InputError where another process holds the lock of `path`, unless it is to `wait` for that."""
    if _lock_file(path).exists() and os.access(path.parent, os.W_OK):
        lock = _acquired(path, wait=wait, patience=_PROBE_SECONDS)
        _lock_file(path).unlink(missing_ok=True)
        lock.release()


def read_holder(path: Path) -> Holder | None:
    """The process that last took the lock of `path` and has not let go of it; it may have ended since.

    None where there is no such process, or where it has not yet said who it is. The lock itself is not
    touched.
    """
    try:
        holder = Holder(**json.loads(read_regular(_holder_file(path), 1000)))
    except (OSError, InputError, ValueError, TypeError):  # it has only just begun, or ended
        return None
    sound = isinstance(holder.pid, int) and holder.pid > 0
    return holder if sound and all(isinstance(text, str) for text in (holder.host, holder.since)) else None


def _acquired(path: Path, *, wait: bool, patience: float = 0.0) -> FileLock:
    from filelock import FileLock, Timeout

    lock = FileLock(_lock_file(path), poll_interval=_POLL_SECONDS)
    try:
        with warnings.catch_warnings():
            # Of a file system without flock, where a file stands in for it: nothing that a user can change.
            warnings.filterwarnings("ignore", "flock not supported")
            lock.acquire(timeout=patience)
    except Timeout:
        if not wait:
            raise InputError(_refusal(path, lock)) from None
        warnings.warn(Notice(f"{path}: waits for {_named(path)} to end"), stacklevel=4)
        lock.acquire(timeout=-1)
    return lock


def _lock_file(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _holder_file(path: Path) -> Path:
    return path.with_name(f".{path.name}.holder")


def _refusal(path: Path, lock: FileLock) -> str:
    """Who holds the lock of `path`, and the way out."""
    from filelock import SoftFileLock

    holder = read_holder(path)
    way_out = "wait until that ends (`attribute --wait` does), or give another --out"
    if isinstance(lock, SoftFileLock) and holder is not None and holder.runs is None:
        return (
            f"{path}: {holder}, writes to it, unless it was killed: its file system keeps no locks, and "
            f"another host cannot be asked; {way_out}, or delete {_lock_file(path)} if it has ended"
        )
    return f"{path}: {_named(path)} writes to it; {way_out}"


def _named(path: Path) -> str:
    """The process that holds the lock of `path`; one that is known to have ended holds nothing."""
    holder = read_holder(path)
    return "another process" if holder is None or holder.runs is False else f"{holder},"


def _state_and_start(pid: int) -> tuple[str, int | None]:
    """The state of a process, a letter, and when it started, in ticks since the system did.

    Empty and None where the system does not say.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2]
        return fields.split()[0], int(fields.split()[19])
    except (OSError, ValueError, IndexError):
        return "", None
