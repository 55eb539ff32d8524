"""From the bytes of `submission.json` to a checked document, with every problem found on the way."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from medfocus_bench.errors import MedFocusError
from medfocus_bench.submission.schema import SubmissionDocument

MAX_DOCUMENT_BYTES = 64 * 2**20
DOCUMENT_NAME = "submission.json"


class DocumentError(MedFocusError):
    """The document cannot be read at all; the message is one sentence that starts with the file."""


def read_document(path: Path) -> tuple[bytes, Any]:
    """The bytes of a submission document and the JSON value in them.

    Raises DocumentError for anything but a regular file of at most `MAX_DOCUMENT_BYTES` with one JSON
    value in UTF-8: no duplicate keys, no NaN or Infinity, no absurd nesting.
    """
    data = _read_regular_file(path)
    try:
        return data, json.loads(
            data.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant
        )
    except UnicodeDecodeError as error:
        raise DocumentError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise DocumentError(f"{path}: not valid JSON at {place}: {error.msg}") from None
    except RecursionError:
        raise DocumentError(f"{path}: nested too deeply to be a submission") from None
    except ValueError as error:
        raise DocumentError(f"{path}: {error}") from None


def parse_document(value: Any, name: str) -> tuple[SubmissionDocument | None, list[str]]:
    """The typed document, or None and all problems, each with its JSON pointer and sample_id."""
    try:
        return SubmissionDocument.model_validate(value), []
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False)
        return None, [_sentence(value, detail["loc"], detail["msg"], name) for detail in details]


def place(value: Any, location: Iterable[int | str], name: str) -> str:
    """`file: /json/pointer (sample_id)` of a location inside the raw document."""
    steps = _real_steps(value, location)
    pointer = "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)
    where = f"{name}: {pointer[:200] or '/'}"
    if len(steps) >= 2 and steps[0] == "attributions" and isinstance(steps[1], int):
        entry = value["attributions"][steps[1]]
        sample_id = entry.get("sample_id") if isinstance(entry, dict) else None
        if isinstance(sample_id, str) and len(sample_id) <= 200 and sample_id.isprintable():
            where += f" ({sample_id})"
    return where


def _sentence(value: Any, location: Iterable[int | str], message: str, name: str) -> str:
    for long, short in (("Input should be", "should be"), ("Field required", "is required")):
        message = message.replace(long, short)
    message = message.replace("Extra inputs are not permitted", "is not a key of the format; remove it")
    return f"{place(value, location, name)}: {message}"


def _real_steps(value: Any, location: Iterable[int | str]) -> list[int | str]:
    """The steps of an error location that exist in the document; the validator adds names of its own."""
    steps: list[int | str] = []
    pending = list(location)
    for position, step in enumerate(pending):
        in_object = isinstance(value, dict) and isinstance(step, str) and step in value
        in_list = isinstance(value, list) and isinstance(step, int) and step < len(value)
        if in_object or in_list:
            value = value[step]
        elif not (isinstance(value, dict) and position == len(pending) - 1):
            continue
        steps.append(step)
    return steps


def _read_regular_file(path: Path) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if path.is_symlink():
            raise DocumentError(f"{path}: is a symbolic link; put the file itself there") from None
        raise DocumentError(f"{path}: cannot be read: {error.strerror}") from None
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise DocumentError(f"{path}: is not a regular file")
        if status.st_size > MAX_DOCUMENT_BYTES:
            raise DocumentError(
                f"{path}: is {status.st_size:,} bytes; at most {MAX_DOCUMENT_BYTES:,} are read "
                "(maps belong into the safetensors file)"
            )
        return file.read(MAX_DOCUMENT_BYTES + 1)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:100]!r} stands twice in one object")
    return value


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number of JSON; leave the value out instead")
