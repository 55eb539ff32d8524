"""The JSON of `submission.json`, decoded one attribution at a time.

A document of 60 MB takes gigabytes as Python objects. So one pass checks its syntax and keeps only where each
attribution begins and ends.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from json import JSONDecodeError
from typing import Any, Final, NoReturn

MAX_KEYS: Final = 1000
"""Limit for the keys of one object: the most that the schema allows anywhere."""

MAX_VALUES: Final = 4_000_000
"""Limit for the values of a document, counted by commas and brackets: 64 MiB of token scores."""

_BLANKS: Final = re.compile(r"[ \t\n\r]*")
_LISTED: Final = "attributions"


@dataclass(frozen=True, slots=True)
class RawDocument:
    """The bytes of a document with valid syntax, and its value without the attributions.

    `head` has an empty list in their place; a document without that list is all head.
    """

    data: bytes
    head: Any
    has_list: bool
    _starts: array[int]
    _ends: array[int]

    def __len__(self) -> int:
        return len(self._starts)

    def attribution(self, index: int) -> Any:
        """The JSON value of one attribution."""
        return _decoded(self.data, self._starts[index], self._ends[index])

    def attributions(self) -> Iterator[Any]:
        return (self.attribution(index) for index in range(len(self)))


def raw_document(data: bytes) -> RawDocument:
    """The document in UTF-8 bytes of JSON.

    Raises ValueError (among others JSONDecodeError and UnicodeDecodeError) for anything but one JSON value:
    no duplicate keys, no NaN or Infinity, no more keys or values than are read; and RecursionError.
    """
    if sum(data.count(mark) for mark in (b",", b"[", b"{")) > MAX_VALUES:
        raise ValueError(
            f"holds more than {MAX_VALUES:,} values; leave out token scores or boxes, or cover fewer splits"
        )
    data.decode("utf-8")
    if data.startswith(b"\xef\xbb\xbf"):
        raise JSONDecodeError("it starts with a byte-order mark; save it without", "", 0)
    # A byte a character: the marks of JSON are ASCII, so that places in the text are those in the data.
    scan = _Scan(data, data.decode("latin-1"))
    try:
        head, has_list = scan.document()
    except JSONDecodeError as error:
        before = data[data.rfind(b"\n", 0, error.pos) + 1 : error.pos].decode("utf-8", "replace")
        error.colno = len(before) + 1
        raise
    return RawDocument(data, head, has_list, scan.starts, scan.ends)


class _Scan:
    """One pass over a document; `starts` and `ends` are those of its attributions."""

    def __init__(self, data: bytes, text: str) -> None:
        self._data, self._text = data, text
        self._decoder = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_constant)
        self.starts: array[int] = array("q")
        self.ends: array[int] = array("q")

    def document(self) -> tuple[Any, bool]:
        start = self._after_blanks(0)
        is_object = self._text.startswith("{", start)
        head, end, has_list = self._object(start) if is_object else (*self._value(start), False)
        end = self._after_blanks(end)
        if end != len(self._text):
            raise JSONDecodeError("Extra data", self._text, end)
        return head, has_list

    def _object(self, at: int) -> tuple[Any, int, bool]:
        pairs: list[tuple[str, Any]] = []
        has_list = False
        at = self._after_blanks(at + 1)
        while not (self._text.startswith("}", at) and not pairs):
            if not self._text.startswith('"', at):
                raise JSONDecodeError("Expecting property name enclosed in double quotes", self._text, at)
            key, at = self._value(at)
            at = self._after_blanks(at)
            if not self._text.startswith(":", at):
                raise JSONDecodeError("Expecting ':' delimiter", self._text, at)
            at = self._after_blanks(at + 1)
            value: Any = []
            if key == _LISTED and not has_list and self._text.startswith("[", at):
                at, has_list = self._list(at), True
            else:
                value, at = self._value(at)
            pairs.append((key, value))
            at = self._after_blanks(at)
            if self._text.startswith("}", at):
                break
            if not self._text.startswith(",", at):
                raise JSONDecodeError("Expecting ',' delimiter", self._text, at)
            at = self._after_blanks(at + 1)
        return _object(pairs), at + 1, has_list

    def _list(self, at: int) -> int:
        at = self._after_blanks(at + 1)
        if self._text.startswith("]", at):
            return at + 1
        while True:
            _, end = self._decoder.raw_decode(self._text, at)
            self.starts.append(at)
            self.ends.append(end)
            at = self._after_blanks(end)
            if self._text.startswith("]", at):
                return at + 1
            if not self._text.startswith(",", at):
                raise JSONDecodeError("Expecting ',' delimiter", self._text, at)
            at = self._after_blanks(at + 1)

    def _value(self, at: int) -> tuple[Any, int]:
        _, end = self._decoder.raw_decode(self._text, at)
        return _decoded(self._data, at, end), end

    def _after_blanks(self, at: int) -> int:
        found = _BLANKS.match(self._text, at)
        assert found is not None
        return found.end()


def _decoded(data: bytes, start: int, end: int) -> Any:
    text = data[start:end].decode("utf-8")
    return json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)


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
