"""Checks of a submission folder beyond the format: names, sizes, texts, coverage.

The folder is untrusted. Its files are listed and measured before any is opened; only `submission.json` and
the map file that it names are read, as data.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.leaderboard.result import NULL_RESULT
from medfocus_bench.leaderboard.review.unicode_safety import (
    MAX_MARKS,
    SPACING,
    mixed_word,
    skeleton,
    stacked_marks,
    texts_in,
    unseen,
    unseen_in_token,
)
from medfocus_bench.submission.document import DOCUMENT_NAME, ParsedDocument
from medfocus_bench.submission.reader import Inspection, inspect_submission
from medfocus_bench.submission.schema import MAP_FILE_PATTERN, SubmissionDocument

SUBMISSIONS: Final = "submissions"
"""The folder of a repository that holds a folder for each submission."""

UNRANKED_SPLITS: Final = frozenset({"dev"})
"""Splits for tuning, which are not ranked."""

MAX_DOCUMENT_BYTES: Final = 16 * 2**20
MAX_MAPS_BYTES: Final = 32 * 2**20
"""A repository keeps every version of every file: 64 x 64 in float16 for 2,000 samples is 16 MiB."""

MAX_FILES: Final = 2
MAX_LISTED: Final = 20

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_MAPS: Final = re.compile(MAP_FILE_PATTERN)
_CLAIMS: Final = ("official", "verified")
_OWN: Final = "MedFocus"
_OWN_METHODS: Final = ("medfocus", "medfocus-plus")
"""The folders of the reference submissions that are called so."""

_DEVICES: Final = re.compile(r"con|prn|aux|nul|com[0-9]|lpt[0-9]")
"""Names that Windows keeps for devices: a folder called so cannot be checked out there."""


@dataclass(frozen=True, slots=True)
class Checked:
    """Every problem of a submission, a sentence each, and the submission as it was read for them.

    `inspection` is None where nothing was opened.
    """

    problems: tuple[str, ...]
    inspection: Inspection | None = None


def check_submission(folder: Path, benchmark: Benchmark, titles: Mapping[str, str] | None = None) -> Checked:
    """Hold the submission in `folder` against the format and against what the leaderboard asks beyond it.

    `titles`: the names of the folders beside it, each with what its method is called.
    """
    neighbours = {name: title for name, title in (titles or {}).items() if name != folder.name}
    problems = [*_name_problems(folder, neighbours)]
    unsafe = list(_listing_problems(folder))
    if unsafe:
        return Checked((*problems, *unsafe))  # what is too large, or not a file, is not opened
    inspection = inspect_submission(folder, benchmark)
    problems += inspection.validated(benchmark)
    parsed, document = inspection.parsed, folder / DOCUMENT_NAME
    if parsed is None:
        return Checked(tuple(problems))
    if parsed.document is not None:
        problems += _document_problems(parsed.document, folder, neighbours)
    problems += _entry_problems(parsed, document)
    declared = parsed.maps.file if parsed.maps is not None else None
    problems += [
        f"{path}: not part of the submission; {DOCUMENT_NAME} names the one map file that may be there"
        for path in sorted(folder.iterdir())
        if path.name not in (DOCUMENT_NAME, declared)
    ]
    return Checked(tuple(problems), inspection)


def check_place(folder: Path) -> list[str]:
    """Check that a folder lies where a pull request adds it."""
    if folder.resolve().parent.name == SUBMISSIONS:
        return []
    return [f"{folder}: stands elsewhere; a pull request adds {SUBMISSIONS}/<name>, so move it there"]


def titles_beside(submissions: Path) -> dict[str, str]:
    """The folders of submissions, each for want of more called by its name."""
    if not submissions.is_dir():
        return {}
    return {path.name: path.name for path in sorted(submissions.iterdir()) if path.is_dir()}


def comparable(title: str) -> str:
    """A title without what a reader overlooks: case, spaces, hyphens, marks, letters that look alike.

    A plus stays: Grad-CAM++ is not Grad-CAM.
    """
    return "".join(c for c in skeleton(title) if c.isalnum() or c == "+")


def _name_problems(folder: Path, neighbours: Mapping[str, str]) -> Iterator[str]:
    name = folder.name
    if not _NAME.fullmatch(name):
        yield (
            f"{folder}: the name of the folder is that of the method: lower-case letters, digits and "
            "hyphens, at most 64, no hyphen first"
        )
    if _DEVICES.fullmatch(name):
        yield f"{folder}: Windows keeps the name {name} for a device, and has no such folder; take another"
    if name.startswith(NULL_RESULT):
        yield f"{folder}: names that start with {NULL_RESULT} are those of the null controls; take another"
    for other in sorted(neighbours):
        if other.casefold() == name.casefold():
            yield f"{folder}: differs from the folder {other} in case only; take another name"


def _listing_problems(folder: Path) -> Iterator[str]:
    """Anything but a few regular files of bounded size, found without opening any."""
    if folder.is_symlink():
        yield f"{folder}: is a symbolic link; put the folder itself there"
        return
    if not folder.is_dir():
        yield f"{folder}: not a folder; give submissions/<name> with a {DOCUMENT_NAME} in it"
        return
    names: list[str] = []
    with os.scandir(folder) as listing:
        for item in listing:
            names.append(item.name)
            if len(names) > MAX_LISTED:
                yield f"{folder}: holds more than {MAX_LISTED} files; a submission has at most {MAX_FILES}"
                return
    if DOCUMENT_NAME not in names:
        yield f"{folder}: holds no {DOCUMENT_NAME}"
    for name in sorted(names):
        path = folder / name
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            yield f"{path}: is a symbolic link; put the file itself there"
        elif not stat.S_ISREG(status.st_mode):
            yield f"{path}: is not a regular file; a submission is {DOCUMENT_NAME} and one map file"
        elif name != DOCUMENT_NAME and not _MAPS.fullmatch(name):
            yield f"{path}: is not part of a submission, which is {DOCUMENT_NAME} and one .safetensors file"
        else:
            limit = MAX_DOCUMENT_BYTES if name == DOCUMENT_NAME else MAX_MAPS_BYTES
            if status.st_size > limit:
                remedy = (
                    "leave token scores out"
                    if name == DOCUMENT_NAME
                    else "store maps of 64 x 64, as `pack` does"
                )
                yield f"{path}: is {status.st_size:,} bytes, at most {limit:,} are taken; {remedy}"


def _document_problems(
    document: SubmissionDocument, folder: Path, neighbours: Mapping[str, str]
) -> Iterator[str]:
    name, method = str(folder / DOCUMENT_NAME), document.method
    if method.name != folder.name:
        yield f"{name}: /method/name: is {method.name!r}, the folder is {folder.name!r}; give both one name"
    if method.family == "null":
        yield f"{name}: /method/family: null is the family of the null controls; take another"
    for split in sorted(UNRANKED_SPLITS.intersection(document.benchmark.splits)):
        yield f"{name}: /benchmark/splits: {split} is for tuning, not for the ranking; leave it out"
    for other, title in sorted(neighbours.items()):
        if comparable(title) == comparable(method.title) or comparable(other) == comparable(method.title):
            yield f"{name}: /method/display_name: {method.title!r} is what {other} is called; take another"
    yield from (
        f"{name}: /method/display_name: {problem}" for problem in _reserved(method.title, folder.name)
    )
    if not any(c.isalnum() for c in method.title):
        yield f"{name}: /method/display_name: {method.title!a} has no letter or digit; give a name"
    for pointer, text in _texts(document):
        found = unseen(text, SPACING)
        if found:
            yield f"{name}: {pointer}: holds the unseen character {found!a}; remove it"
    names = {"/method/display_name": method.title}
    names |= {f"/submitters/{n}/name": submitter.name for n, submitter in enumerate(document.submitters)}
    for pointer, text in names.items():
        letter = stacked_marks(text)
        if letter:
            yield f"{name}: {pointer}: a letter has over {MAX_MARKS} marks, {letter[:9]!a}; leave some out"
        word = mixed_word(text)
        if word:
            yield (
                f"{name}: {pointer}: {word!a} mixes letters of two scripts that look alike; write a word "
                "in one of them, or part it with a hyphen"
            )


def _reserved(title: str, folder: str) -> Iterator[str]:
    """Claims in a title that only the repository can make."""
    words = {comparable(word) for word in re.split(r"[\W_]+", title)}
    for word in _CLAIMS:
        if comparable(word) in words:
            yield f"{title!r} has the word {word}, which the leaderboard alone gives; leave it out"
    if comparable(_OWN) in comparable(title) and folder not in _OWN_METHODS:
        yield f"{title!r} is named like the method of this repository, {_OWN}; give it a name of its own"


def _texts(document: SubmissionDocument) -> Iterator[tuple[str, str]]:
    """Every text that is not held against the benchmark, with a pointer; those of a list have the list's."""
    method = document.method
    for name in ("display_name", "version", "licence", "description"):
        yield f"/method/{name}", getattr(method, name) or ""
    for key, value in method.hyperparameters.items():
        for text in (key, *texts_in(value)):
            yield f"/method/hyperparameters/{key}", text
    for number, submitter in enumerate(document.submitters):
        for name in ("name", "affiliation"):
            yield f"/submitters/{number}/{name}", getattr(submitter, name) or ""


def _entry_problems(parsed: ParsedDocument, document: Path) -> Iterator[str]:
    """The texts of attributions, one problem of a kind for each."""
    for index, entry in parsed.attributions.items():
        where, whose = f"{document}: /attributions/{index}", f"({entry.sample_id})"
        found = next((c for token in entry.tokens or () if (c := unseen_in_token(token.text))), None)
        if found:
            yield f"{where}/tokens {whose}: a token holds the unseen character {found!a}; remove it"
        found = next((c for name in entry.concepts or () if (c := unseen(name))), None)
        if found:
            yield f"{where}/concepts {whose}: a name holds the unseen character {found!a}; remove it"
