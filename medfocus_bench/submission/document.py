"""Parse and check `submission.json`; every problem is reported, not only the first."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from medfocus_bench.data.columns import LINE_PATTERN
from medfocus_bench.errors import InputError, SubmissionError
from medfocus_bench.storage import open_part
from medfocus_bench.submission.raw import RawDocument, raw_document
from medfocus_bench.submission.schema import (
    URL_PATTERN,
    AttributionEntry,
    BenchmarkRef,
    MapFile,
    SubmissionDocument,
)

DOCUMENT_NAME = "submission.json"
MAX_DOCUMENT_BYTES = 64 * 2**20
MAX_PROBLEMS = 10_000
"""After so many the rest of the attributions is skipped."""

_LISTED = "attributions"

Model = TypeVar("Model", bound=BaseModel)


class DocumentError(SubmissionError):
    """A document that cannot be read, or an attribution that breaks the format; starts with the file."""


def read_document(path: Path) -> RawDocument:
    """A submission document as it stands in the file.

    Raises DocumentError for anything but a regular file of at most `MAX_DOCUMENT_BYTES` with one JSON value
    in UTF-8: no duplicate keys, no NaN or Infinity, no absurd nesting or number of keys or values.
    """
    data = read_regular_file(path)
    try:
        return raw_document(data)
    except UnicodeDecodeError as error:
        raise DocumentError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise DocumentError(f"{path}: not valid JSON at {place}: {error.msg}") from None
    except RecursionError:
        raise DocumentError(f"{path}: nested too deeply to be a submission") from None
    except ValueError as error:
        raise DocumentError(f"{path}: {error}") from None


class Entries(Mapping[int, AttributionEntry]):
    """The valid attributions of a document by their index in its list, decoded on access.

    `ids` are their sample_ids.
    """

    def __init__(self, raw: RawDocument, ids: Mapping[int, str]) -> None:
        self._raw, self.ids = raw, ids

    def __getitem__(self, index: int) -> AttributionEntry:
        if index not in self.ids:
            raise KeyError(index)
        return AttributionEntry.model_validate(self._raw.attribution(index))

    def __iter__(self) -> Iterator[int]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """The valid parts of a document, for further checks, and the problems of the others.

    `document` is without its attributions, and None if anything else is invalid. `attributions` are the
    valid ones, `mapped` the indices of those with a map, `complete` whether all are valid. Each problem is a
    sentence with its JSON pointer and sample_id.
    """

    document: SubmissionDocument | None
    benchmark: BenchmarkRef | None
    maps: MapFile | None
    attributions: Entries
    mapped: frozenset[int]
    complete: bool
    problems: list[str]

    def at(self, name: str, index: int, *rest: int | str) -> str:
        """The location of a valid attribution, or of a part of it, in the file `name`."""
        return json_pointer((_LISTED, index, *rest), name, self.attributions.ids[index])


def parse_document(raw: RawDocument, name: str) -> ParsedDocument:
    """The typed document and all problems; one attribution at a time, since each can have many."""
    document, problems = parse_head(raw.head, name)
    ids: dict[int, str] = {}
    mapped: set[int] = set()
    for index, entry in enumerate(raw.attributions()):
        parsed, found = _parse(AttributionEntry, entry, (_LISTED, index), name)
        if parsed is not None:
            ids[index] = parsed.sample_id
            mapped.update([index] if parsed.map else [])
        problems += found
        if len(problems) > MAX_PROBLEMS:
            problems.append(f"{name}: more than {MAX_PROBLEMS:,} problems; the rest is not listed")
            break
    parts = raw.head if isinstance(raw.head, dict) else {}
    benchmark, _ = _parse(BenchmarkRef, parts.get("benchmark"), (), name)
    maps, _ = _parse(MapFile, parts.get("maps"), (), name)
    complete = raw.has_list and len(ids) == len(raw)
    entries = Entries(raw, ids)
    return ParsedDocument(document, benchmark, maps, entries, frozenset(mapped), complete, problems)


def parse_head(head: Any, name: str) -> tuple[SubmissionDocument | None, list[str]]:
    """The typed document without its attributions, or its problems."""
    return _parse(SubmissionDocument, head, (), name)


def parse_attribution(entry: Any, name: str) -> AttributionEntry:
    """One attribution of a document in the making. Raises DocumentError for one that breaks the format."""
    parsed, problems = _parse(AttributionEntry, entry, (), name)
    if parsed is None:
        raise DocumentError(problems)
    return parsed


def json_pointer(location: Iterable[int | str], name: str, sample_id: object = None) -> str:
    """`file: /json/pointer (sample_id)` of a location in a document; the sample_id where it can be shown."""
    pointer = "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in location)
    where = f"{name}: {pointer[:200] or '/'}"
    if isinstance(sample_id, str) and len(sample_id) <= 200 and sample_id.isprintable():
        where += f" ({sample_id})"
    return where


def _parse(
    model: type[Model], part: Any, at: tuple[int | str, ...], name: str
) -> tuple[Model | None, list[str]]:
    """Validate `part` of a document, which stands `at` a location: the typed value, or its problems."""
    try:
        return model.model_validate(part), []
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
    sample_id = part.get("sample_id") if at[:1] == (_LISTED,) and isinstance(part, dict) else None
    messages: dict[str, list[str]] = {}
    for detail in details:
        steps = (*at, *_real_steps(part, detail["loc"], missing=detail["type"] == "missing"))
        messages.setdefault(json_pointer(steps, name, sample_id), []).append(_plain(detail["msg"]))
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
    """The steps of an error location without the validator's own, such as the name of a union's branch.

    If `missing`, the last step is the absent key.
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
