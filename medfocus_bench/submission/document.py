"""From the bytes of `submission.json` to a checked document, with every problem found on the way."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from medfocus_bench.data.columns import LINE_PATTERN
from medfocus_bench.data.files import open_part
from medfocus_bench.errors import InputError, SubmissionError
from medfocus_bench.submission.schema import (
    URL_PATTERN,
    AttributionEntry,
    BenchmarkRef,
    MapFile,
    SubmissionDocument,
)

DOCUMENT_NAME = "submission.json"
MAX_DOCUMENT_BYTES = 64 * 2**20
MAX_KEYS = 1000
"""Keys of one object: as many as the schema allows anywhere, held before anything is made of them."""
MAX_PROBLEMS = 10_000
"""After so many the rest of the attributions is not looked at."""

Model = TypeVar("Model", bound=BaseModel)


class DocumentError(SubmissionError):
    """A document that cannot be read, or an attribution that breaks the format; starts with the file."""


def read_document(path: Path) -> tuple[bytes, Any]:
    """The bytes of a submission document and the JSON value in them.

    Raises DocumentError for anything but a regular file of at most `MAX_DOCUMENT_BYTES` with one JSON
    value in UTF-8: no duplicate keys, no NaN or Infinity, no absurd nesting or number of keys.
    """
    data = read_regular_file(path)
    try:
        return data, json.loads(data.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise DocumentError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise DocumentError(f"{path}: not valid JSON at {place}: {error.msg}") from None
    except RecursionError:
        raise DocumentError(f"{path}: nested too deeply to be a submission") from None
    except ValueError as error:
        raise DocumentError(f"{path}: {error}") from None


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """The sound parts of a document, so that they can be checked further, and the problems of the others.

    `document` is without its attributions, and None if any of the rest is wrong. `attributions` holds the
    sound ones by their place in the list; it is `complete` if that is all of them. A problem is a sentence
    with its JSON pointer and sample_id.
    """

    document: SubmissionDocument | None
    benchmark: BenchmarkRef | None
    maps: MapFile | None
    attributions: dict[int, AttributionEntry]
    complete: bool
    problems: list[str]


def parse_document(value: Any, name: str) -> ParsedDocument:
    """The typed document and all problems; one attribution at a time, since each can have many."""
    parts = value if isinstance(value, dict) else {}
    listed = parts.get("attributions")
    entries: list[Any] | None = listed if isinstance(listed, list) else None
    head = value if entries is None else {**parts, "attributions": []}
    document, problems = _parse(SubmissionDocument, head, (), value, name)
    attributions: dict[int, AttributionEntry] = {}
    for index, entry in enumerate(entries or ()):
        parsed, found = _parse(AttributionEntry, entry, ("attributions", index), value, name)
        if parsed is not None:
            attributions[index] = parsed
        problems += found
        if len(problems) > MAX_PROBLEMS:
            problems.append(f"{name}: more than {MAX_PROBLEMS:,} problems; the rest is not listed")
            break
    benchmark, _ = _parse(BenchmarkRef, parts.get("benchmark"), (), value, name)
    maps, _ = _parse(MapFile, parts.get("maps"), (), value, name)
    complete = entries is not None and len(attributions) == len(entries)
    return ParsedDocument(document, benchmark, maps, attributions, complete, problems)


def parse_attribution(entry: Any, name: str) -> AttributionEntry:
    """One attribution of a document in the making. Raises DocumentError for one that breaks the format."""
    parsed, problems = _parse(AttributionEntry, entry, (), entry, name)
    if parsed is None:
        raise DocumentError(problems)
    return parsed


def place(value: Any, location: Iterable[int | str], name: str) -> str:
    """`file: /json/pointer (sample_id)` of a location inside the raw document."""
    steps = tuple(location)
    pointer = "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)
    where = f"{name}: {pointer[:200] or '/'}"
    if len(steps) >= 2 and steps[0] == "attributions" and isinstance(steps[1], int):
        entry = value["attributions"][steps[1]]
        sample_id = entry.get("sample_id") if isinstance(entry, dict) else None
        if isinstance(sample_id, str) and len(sample_id) <= 200 and sample_id.isprintable():
            where += f" ({sample_id})"
    return where


def _parse(
    model: type[Model], part: Any, at: tuple[int | str, ...], value: Any, name: str
) -> tuple[Model | None, list[str]]:
    """`part` of the document `value`, which stands there `at` a location: typed, or what is wrong with it."""
    try:
        return model.model_validate(part), []
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
    messages: dict[str, list[str]] = {}
    for detail in details:
        steps = _real_steps(value, (*at, *detail["loc"]), missing=detail["type"] == "missing")
        messages.setdefault(place(value, steps, name), []).append(_plain(detail["msg"]))
    return None, [f"{where}: {', or '.join(dict.fromkeys(said))}" for where, said in messages.items()]


def _plain(message: str) -> str:
    for long, short in (
        ("Input should be", "should be"),
        ("Field required", "is required"),
        ("Extra inputs are not permitted", "is not a key of the format; remove it"),
        (f"String should match pattern '{LINE_PATTERN}'", "should have no line breaks or control characters"),
        (f"String should match pattern '{URL_PATTERN}'", "should be http:// or https:// and a host, no user"),
    ):
        message = message.replace(long, short)
    return message


def _real_steps(value: Any, location: Iterable[int | str], *, missing: bool) -> Iterator[int | str]:
    """The steps of an error location that stand in the document; the validator adds names of its own.

    The last step of what is `missing` is the key that should be there.
    """
    for step in location:
        in_object = isinstance(value, dict) and step in value
        in_list = isinstance(value, list) and isinstance(step, int) and step < len(value)
        if in_object or in_list:
            value = value[step]
            yield step
        elif missing:
            yield step


def read_regular_file(path: Path) -> bytes:
    """Raises DocumentError for a link, a special file, and one of more than `MAX_DOCUMENT_BYTES`."""
    try:
        file = open_part(path)
    except InputError as problem:
        raise DocumentError(str(problem)) from None
    with file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_DOCUMENT_BYTES:
            raise DocumentError(
                f"{path}: is {size:,} bytes; at most {MAX_DOCUMENT_BYTES:,} are read "
                "(maps belong into the safetensors file)"
            )
        return file.read(MAX_DOCUMENT_BYTES)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_KEYS:
        raise ValueError(f"an object has {len(pairs):,} keys; at most {MAX_KEYS:,} are read")
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:100]!r} stands twice in one object")
    return value


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number of JSON; leave the value out instead")
