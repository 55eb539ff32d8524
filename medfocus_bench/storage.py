"""Files that are read within bounds, files and folders that are there whole or not at all, and their hash."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from medfocus_bench.errors import InputError

LFS_ADVICE: Final = "is still a pointer of Git LFS, not the file itself; fetch it with `git lfs pull`"
_LFS_HEAD: Final = b"version https://git-lfs.github.com/spec/"
_LFS_BYTES: Final = 1024
"""A pointer is shorter, says its specification."""


def is_lfs_pointer(content: bytes) -> bool:
    """Whether a file with this content only stands for one that Git LFS has not fetched."""
    return content.startswith(_LFS_HEAD) and len(content) < _LFS_BYTES


def check_fetched(path: Path) -> None:
    """Raises InputError where the file at `path`, or one in the folder there, is a pointer of Git LFS.

    For readers that stumbled over a file: it says better than they can why.
    """
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if file.is_file() and file.stat().st_size < _LFS_BYTES and is_lfs_pointer(file.read_bytes()):
            raise InputError(f"{file}: {LFS_ADVICE}")


def file_sha256(path: Path) -> str:
    """The sha256 of a file's content, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_regular(path: Path, *, follow: bool = True) -> BinaryIO:
    """A regular file, or what a link to one leads to if that is to be followed, for reading.

    Raises InputError that names a pipe, a socket, a device or a folder, which might never end, and
    FileNotFoundError and its like as `open` does.
    """
    links = 0 if follow else os.O_NOFOLLOW
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | links | getattr(os, "O_CLOEXEC", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise InputError(f"{path}: is not a regular file")
    return os.fdopen(handle, "rb")


def open_part(path: Path) -> BinaryIO:
    """A file of a stranger's folder, for reading. Raises InputError for a link or a device."""
    try:
        return open_regular(path, follow=False)
    except OSError as error:
        if path.is_symlink():
            raise InputError(f"{path}: is a symbolic link; put the file itself there") from None
        if path.exists() and not path.is_file():  # a socket cannot even be opened
            raise InputError(f"{path}: is not a regular file") from None
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def read_regular(path: Path, at_most: int) -> bytes:
    """The content of a file of at most so many bytes. Raises InputError for more, else as `open_regular`."""
    with open_regular(path) as file:
        data = read_at_most(file, at_most + 1)
    if len(data) > at_most:
        raise InputError(f"{path}: is larger than {at_most:,} bytes, the most that is read of such a file")
    return data


class Readable(Protocol):
    """A file, packed or not."""

    def read(self, size: int, /) -> bytes: ...


def read_at_most(file: Readable, count: int) -> bytes:
    """The first bytes of a file, in steps: `read` would set the memory for all of them aside at once."""
    parts: list[bytes] = []
    while count > 0 and (part := file.read(min(count, 2**20))):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Within, an error of the system that names no file, as that of a full disk, names this one."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def write_atomic(path: Path, content: str | bytes) -> None:
    """Writes a file (text as UTF-8) and its folder: whoever reads it meets the old content or the new.

    Several processes may write the same file; one of them is the last.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with naming(path):
            partial.write_bytes(content.encode() if isinstance(content, str) else content)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(out: Path) -> Iterator[Path]:
    """An empty folder beside `out`, which takes its place when the block ends.

    The old content goes only then. If the block raises, `out` is as it was, and the work is removed.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        work.chmod(0o755)
        yield work
        replace_folder(work, out)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def replace_folder(work: Path, out: Path) -> None:
    """Moves a folder to the place of another one beside it, or to a place where nothing is.

    If it cannot be moved, the other one is put back.
    """
    if not out.exists():
        work.rename(out)
        return
    retired = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        out.rename(retired / "old")
        try:
            work.rename(out)
        except BaseException:
            (retired / "old").rename(out)
            raise
    finally:
        shutil.rmtree(retired)


def records_beside(out: Path) -> Path:
    """Where the records of a build go unless it is told."""
    return out.with_name(out.name + ".work")
