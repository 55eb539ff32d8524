"""The guard of a pull request: trusted code over untrusted data.

Two trees are given: `base`, the repository as it is, whose code runs; and `head`, the files of the pull
request, which are only ever read as data. Nothing in `head` is imported, executed or followed.
"""

from __future__ import annotations

import filecmp
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from medfocus_bench.errors import InputError, SubmissionError
from medfocus_bench.leaderboard.review.checks import SUBMISSIONS
from medfocus_bench.storage import read_regular
from medfocus_bench.submission.document import DOCUMENT_NAME

MAX_CHANGES_BYTES: Final = 4 * 2**20
MAX_CHANGES: Final = 50
"""Paths of a pull request that are looked at one by one; a submission has two."""

_MAX_ENTRIES: Final = 100_000
_AUTHOR: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,38}(\[bot\])?")
_STATUS: Final = re.compile(r"[AMDTUX]|[RC]\d{0,3}")


@dataclass(frozen=True, slots=True)
class Change:
    """A path that a pull request adds (A), modifies (M), deletes (D) or turns into another kind (T)."""

    status: str
    path: str


def read_changes(path: Path) -> list[Change]:
    """The changes in a file that `git diff --name-status -z` wrote. Raises InputError.

    A rename is a deletion and an addition.
    """
    try:
        data = read_regular(path, MAX_CHANGES_BYTES)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    words = data.decode("utf-8", errors="surrogateescape").split("\0")
    if words.pop() != "":
        raise InputError(f"{path}: not a list of `git diff --name-status -z`, which ends with a NUL")
    changes: list[Change] = []
    remaining = iter(words)
    for status in remaining:
        names = [next(remaining, "") for _ in range(2 if status[:1] in ("R", "C") else 1)]
        if not _STATUS.fullmatch(status) or "" in names:
            raise InputError(f"{path}: not a list of `git diff --name-status -z`: {status[:40]!r}")
        if status[0] == "R":
            changes.append(Change("D", names[0]))
        changes.append(Change("A" if len(names) == 2 else status, names[-1]))
    return changes


def compared_trees(base: Path, head: Path) -> list[Change]:
    """The changes between the `submissions` folders of two trees, for use without git."""
    before, after = _files(base), _files(head)
    changes = []
    for name in sorted(before.keys() | after.keys()):
        if name not in after:
            changes.append(Change("D", name))
        elif name not in before:
            changes.append(Change("A", name))
        elif stat.S_IFMT(before[name].st_mode) != stat.S_IFMT(after[name].st_mode):
            changes.append(Change("T", name))
        elif not _same_content(base / name, head / name, before[name], after[name]):
            changes.append(Change("M", name))
    return changes


@dataclass(frozen=True, slots=True)
class Target:
    """The submission that a pull request adds or changes.

    `beside`: the folder of submissions that it joins. `before`: its document there; None for a new one.
    """

    folder: Path
    beside: Path
    before: Path | None


def changed_submission(base: Path, head: Path, changes: Sequence[Change], author: str) -> Target:
    """The one submission that a pull request of the account `author` adds or changes.

    Raises SubmissionError with every problem of what it changes, or InputError for arguments that do not
    describe a pull request.
    """
    if not _AUTHOR.fullmatch(author):
        raise InputError(f"--author {author[:60]!r}: is not the name of an account")
    if not changes:
        raise InputError("the pull request changes nothing; add submissions/<name>")
    problems, names = _outside(changes)
    if len(names) > 1:
        several = ", ".join(_shown(name) for name in sorted(names))
        problems.append(
            f"{SUBMISSIONS}: the pull request changes {len(names)} folders ({several}); change one, your own"
        )
    if problems:
        raise SubmissionError(problems)
    name = names.pop()
    folder = head / SUBMISSIONS / name
    if not _is_plain_folder(head / SUBMISSIONS):
        raise SubmissionError(f"{SUBMISSIONS}: not a plain folder in the pull request")
    if not os.path.lexists(folder):
        raise SubmissionError(
            f"{SUBMISSIONS}/{name}: is removed; ask for that in an issue, where it is logged"
        )
    old = base / SUBMISSIONS / name / DOCUMENT_NAME
    return Target(folder, base / SUBMISSIONS, old if old.is_file() else None)


def _outside(changes: Sequence[Change]) -> tuple[list[str], set[str]]:
    """Problems of the paths alone, and the names of the folders that are touched."""
    problems: list[str] = []
    names: set[str] = set()
    for change in changes[:MAX_CHANGES]:
        parts = PurePosixPath(change.path).parts
        shown = _shown(change.path)
        if len(parts) != 3 or parts[0] != SUBMISSIONS or ".." in parts:
            problems.append(f"{shown}: lies outside submissions/<name>/; {_why(parts)}")
            continue
        names.add(parts[1])
        if change.status == "D" and parts[2] == DOCUMENT_NAME:
            problems.append(f"{shown}: is removed; ask for that in an issue, where it is logged")
        elif change.status in ("T", "U", "X"):
            problems.append(f"{shown}: not a regular file any more; a submission is plain files")
    if len(changes) > MAX_CHANGES:
        problems.append(f"the pull request changes {len(changes):,} files; a submission is two")
    return problems, names


def _shown(path: str) -> str:
    return ascii(path[:200])[1:-1]


def _why(parts: Sequence[str]) -> str:
    if parts[:2] == ("leaderboard", "results"):
        return "results are recomputed from the maps and boxes, never taken from a pull request"
    if len(parts) > 3 and parts[0] == SUBMISSIONS:
        return "a submission has no folders inside"
    return "a pull request with a submission changes nothing else"


def _is_plain_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _files(root: Path) -> dict[str, os.stat_result]:
    """Every file below `submissions` by its path from the root; links are not followed."""
    found: dict[str, os.stat_result] = {}
    for folder, folders, names in os.walk(root / SUBMISSIONS, followlinks=False):
        for path in (Path(folder) / name for name in (*folders, *names)):
            if path.is_dir() and not path.is_symlink():
                continue
            found[path.relative_to(root).as_posix()] = path.lstat()
            if len(found) > _MAX_ENTRIES:
                raise InputError(f"{root}: holds more than {_MAX_ENTRIES:,} files")
    return found


def _same_content(old: Path, new: Path, before: os.stat_result, after: os.stat_result) -> bool:
    if before.st_size != after.st_size:
        return False
    if stat.S_ISLNK(before.st_mode):
        return old.readlink() == new.readlink()
    return stat.S_ISREG(before.st_mode) and filecmp.cmp(old, new, shallow=False)
