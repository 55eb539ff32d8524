"""Reading annotation tables: bounded, strict, and ordered as the benchmark orders them.

Nothing in a cell is ever run. A number is digits, a box is four numbers in brackets; whatever else stands
there is a reason to skip the question, or to refuse the table where it leaves ranks open.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import re
import zlib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress, islice
from pathlib import Path
from typing import Any, Final

import numpy as np

from medfocus_bench.errors import InputError
from medfocus_bench.geometry import FloatArray
from medfocus_bench.storage import read_at_most
from medfocus_bench.text import tidy

MAX_TABLE_BYTES: Final = 256 * 2**20
MAX_ROWS: Final = 2_000_000
MAX_COORDINATE: Final = 1e6

MISSING: Final = frozenset(
    (
        *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"),
        *("N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
    )
)
"""Cells that pandas reads as missing; a grouping leaves out rows whose key is missing."""

_NUMBER = r"[+-]?(?:\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})(?:[eE][+-]?\d{1,3})?"
_IS_NUMBER = re.compile(_NUMBER)
_IS_INTEGER = re.compile(r"[+-]?\d{1,19}")
_IS_BOX = re.compile(rf"\s*\[\s*({_NUMBER})" + rf"\s*,\s*({_NUMBER})" * 3 + r"\s*\]\s*")
_INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True, slots=True)
class AnnotationRow:
    """One row of a table: its line number and the requested cells."""

    number: int
    cells: tuple[str, ...]


def read_bytes(path: Path) -> bytes:
    """The content of a table, unpacked if its name ends in .gz, never more than `MAX_TABLE_BYTES`.

    Raises InputError that names the file.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = read_at_most(file, MAX_TABLE_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    if len(data) > MAX_TABLE_BYTES:
        raise InputError(
            f"{path}: is larger than {MAX_TABLE_BYTES // 2**20} MiB; this is not an annotation table"
        )
    return data


def read_table(
    path: Path, columns: Sequence[str], *, delimiter: str = ",", header: Sequence[str] | None = None
) -> list[AnnotationRow]:
    """The rows of a delimited table, each with the cells of `columns` in this order.

    `header` names the columns where the table's own first line does not. Bytes that are not UTF-8 do not
    matter in other columns. Raises InputError that names the file and the line for a row with too few or too
    many cells, for a quote that is never closed, and for a table without the columns.

    Cells are in compatibility form (`cell_of`), each on its own: a comma of full width parts no columns.
    """
    text = read_bytes(path).decode("utf-8-sig", "surrogateescape")
    is_plain = text.isascii()
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        found = next(reader, [])
        names = [cell_of(name) for name in header or found]
        positions = _positions(path, names, columns)
        lines = []
        start = reader.line_num + 1
        for row in reader:
            if row and len(row) != len(names):
                raise InputError(
                    f"{path}: line {start} has {len(row)} cells where its header has {len(names)}, so the "
                    "questions cannot be counted; fetch the table again"
                )
            if row:
                cells = [row[position] for position in positions]
                lines.append(AnnotationRow(start, tuple(cells if is_plain else map(cell_of, cells))))
            if len(lines) > MAX_ROWS:
                raise InputError(f"{path}: has more than {MAX_ROWS:,} rows; this is not an annotation table")
            start = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num}: {error}; fetch the table again") from None
    return lines


def first_lines(path: Path, count: int) -> list[list[str]]:
    """The cells of the first lines of a table, for one whose header has to be looked at."""
    text = read_bytes(path).decode("utf-8-sig", "surrogateescape")
    try:
        rows = islice(csv.reader(io.StringIO(text, newline=""), strict=True), count)
        return [[cell_of(cell) for cell in row] for row in rows]
    except csv.Error as error:
        raise InputError(f"{path}: {error}; fetch the table again") from None


def cell_of(written: str) -> str:
    """A cell in Unicode compatibility form, so that invisible differences do not change its key.

    ASCII stays as it is: an index is a rank among the cells as they were published.
    """
    return written if written.isascii() else tidy(written)


def _positions(path: Path, names: Sequence[str], columns: Sequence[str]) -> list[int]:
    lacking = [column for column in columns if names.count(column) != 1]
    if lacking:
        raise InputError(
            f"{path}: needs the column {lacking[0]} exactly once; is it the right table, in UTF-8?"
        )
    return [names.index(column) for column in columns]


def read_json_list(path: Path) -> list[Any]:
    """The list that a JSON file holds. Raises InputError that names the file."""
    try:
        value = json.loads(read_bytes(path).decode("utf-8-sig"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not JSON: {str(error)[:200]}") from None
    if not isinstance(value, list):
        raise InputError(f"{path}: should hold a list, not {type(value).__name__}")
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a number in JSON")


def find_table(root: Path, places: Sequence[str]) -> Path:
    """The first of `places` below the root that is a file. Raises InputError that names where it belongs."""
    if not root.is_dir():
        raise InputError(f"{root}: is not a folder; give the one that holds your copies of the sources")
    for place in places:
        if (root / place).is_file():
            return root / place
    others = "" if len(places) == 1 else f" (or {', '.join(places[1:])})"
    raise InputError(f"{root / places[0]}: is not there{others}; put the annotation table there")


def number_of(cell: str) -> float:
    """A coordinate or a flag. Raises ValueError for anything but a plain number of moderate size."""
    if not _IS_NUMBER.fullmatch(cell.strip()):
        raise ValueError(f"{_quoted(cell)} is not a number")
    value = float(cell)
    if not abs(value) <= MAX_COORDINATE:
        raise ValueError(f"{_quoted(cell)} is too large a number")
    return value


def box_of(cell: str) -> list[float]:
    """`[x1, y1, x2, y2]` as text. Raises ValueError for anything else."""
    match = _IS_BOX.fullmatch(cell) if len(cell) <= 300 else None
    if match is None:
        raise ValueError(f"{_quoted(cell)} is not a list [x1, y1, x2, y2]")
    return [number_of(part) for part in match.groups()]


def boxes_of(rows: Iterable[Sequence[float]]) -> FloatArray:
    """Boxes of finite numbers, without repetitions: (n, 4).

    Raises ValueError for swapped corners, or if none has an area.
    """
    distinct = list(dict.fromkeys((x1, y1, x2, y2) for x1, y1, x2, y2 in rows))
    covers = False
    for x1, y1, x2, y2 in distinct:  # one by one: a table has many boxes, a question few
        if x2 < x1 or y2 < y1:
            raise ValueError("a box is inside out: it needs x1 <= x2 and y1 <= y2")
        covers |= x2 > x1 and y2 > y1
    if not covers:
        raise ValueError("no box has an area")
    return np.array(distinct, dtype=np.float64)


def _quoted(cell: object) -> str:
    text = ascii(cell)
    return text if len(text) <= 80 else text[:77] + "..."


def is_missing(cell: str) -> bool:
    return cell in MISSING


def _parser(cells: Sequence[str]) -> Callable[[str], Hashable]:
    present = {cell for cell in cells if not is_missing(cell)}
    if all(_IS_INTEGER.fullmatch(cell) and int(cell) in _INT64 for cell in present):
        return int
    if all(_IS_NUMBER.fullmatch(cell) and math.isfinite(float(cell)) for cell in present):
        return float
    return str


def groups_in_order(
    lines: Sequence[AnnotationRow], columns: int, wanted: Sequence[bool]
) -> tuple[Mapping[tuple[Any, ...], list[AnnotationRow]], list[AnnotationRow]]:
    """The wanted lines by their first `columns` cells, in a sorted grouping's order; and those without.

    A column whose every present cell (of all lines) is a whole number compares as numbers, one of other
    numbers likewise; any other as text, by code point. That is how pandas sorts what it read, and how two
    ids are one. A line has no key where one of its cells is missing.
    """
    parsers = [_parser([line.cells[column] for line in lines]) for column in range(columns)]
    groups: dict[tuple[Any, ...], list[AnnotationRow]] = {}
    without_key: list[AnnotationRow] = []
    for line in compress(lines, wanted):
        cells = line.cells[:columns]
        if any(map(is_missing, cells)):
            without_key.append(line)
        else:
            key = tuple(parse(cell) for parse, cell in zip(parsers, cells, strict=True))
            groups.setdefault(key, []).append(line)
    return {key: groups[key] for key in sorted(groups)}, without_key


def place_of(path: Path, lines: Sequence[AnnotationRow]) -> str:
    numbers = ", ".join(str(line.number) for line in lines[:5]) + (", ..." if len(lines) > 5 else "")
    return f"{path}: line {numbers}"
