"""Parquet files of strangers: read within bounds, a row at a time.

A few kilobytes of Parquet can stand for gigabytes: a dictionary holds a text once that every row repeats, and
a run of equal numbers packs to nothing. The footer is checked before a page is read. Texts and
pictures are read as dictionaries, as they are stored, and measured before a row is made of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from medfocus_bench.data.columns import schema_problem
from medfocus_bench.data.labels import in_words, label_names, schema_in_words
from medfocus_bench.data.pixels import MAX_FILE_BYTES
from medfocus_bench.errors import BenchmarkError, first_line
from medfocus_bench.storage import check_fetched

MAX_ROWS: Final = 1_000_000
MAX_TEXT: Final = 20_000
"""Characters of a text in a cell."""

MAX_LIST: Final = 500
"""Boxes of a row, and whatever else a cell lists."""

MAX_GROUP_BYTES: Final = 256 * 2**20
"""Of a row group without its pictures, unpacked."""

MAX_UNPACKED_BYTES: Final = 2**30
MAX_TIMES_UNPACKED: Final = 1000
"""Texts and pictures of all rows together: so many bytes, or so many times those of the file."""

MAX_VALUES: Final = 4_000_000
MAX_VALUES_PER_BYTE: Final = 50
"""Values of all columns together: so many, or so many for each byte of the file."""

_BATCH_ROWS: Final = 128
_TOGETHER_BYTES: Final = 64 * 2**20
"""The rows of a batch that unpacks to less are made at once, which is faster than one by one."""

_PICTURE: Final = "image.bytes"
_UNREADABLE: Final = (pa.ArrowException, OSError, ValueError, OverflowError)
"""Errors of Arrow for a damaged file; the last two for values that Python cannot hold (bad UTF-8)."""


def check_parquet(path: Path) -> int:
    """The number of rows that a file states.

    Raises BenchmarkError for one whose columns no benchmark has, or that is larger than any is read.
    """
    if not path.is_file():
        raise BenchmarkError(f"{path}: is not a regular file")
    try:
        with pq.ParquetFile(path) as file:
            schema, metadata = file.schema_arrow, file.metadata
            problem = _size_problem(metadata, path.stat().st_size)
    except _UNREADABLE as error:
        check_fetched(path)
        raise BenchmarkError(f"{path}: cannot be read as Parquet: {first_line(error)}") from None
    problem = problem or schema_problem(schema_in_words(schema, label_names(schema)))
    if problem is not None:
        raise BenchmarkError(f"{path}: {problem}")
    return int(metadata.num_rows)


def group_starts(path: Path) -> list[int]:
    """The number of the first row of every row group of a checked file."""
    try:
        with pq.ParquetFile(path) as file:
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    except _UNREADABLE as error:
        raise BenchmarkError(f"{path}: cannot be read as Parquet: {first_line(error)}") from None
    return [0, *accumulate(sizes)][:-1]


def parquet_rows(
    path: Path, columns: Sequence[str] | None = None, *, start: int = 0
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a checked file with their numbers, as they are made; labels come as words.

    `start`, the first row of a row group, is where reading begins. Raises BenchmarkError where the file
    breaks off, or has a cell or more in all than is read.
    """
    number = start
    most = max(MAX_UNPACKED_BYTES, MAX_TIMES_UNPACKED * path.stat().st_size)
    unpacked = 0
    wanted = None if columns is None else list(columns)
    starts = group_starts(path) if start else [0]
    groups = [group for group, first in enumerate(starts) if first >= start] if start else None
    try:
        with pq.ParquetFile(path, read_dictionary=_texts(path), pre_buffer=False, buffer_size=2**16) as file:
            names = label_names(file.schema_arrow)
            for batch in file.iter_batches(
                batch_size=_BATCH_ROWS, row_groups=groups, columns=wanted, use_threads=False
            ):
                size = sum(map(_checked, batch.columns, batch.schema.names))
                unpacked += size
                if unpacked > most:
                    raise _TooLargeError(f"its texts and pictures unpack to more than {most:,} bytes")
                together, rows = (_BATCH_ROWS, _plain(batch)) if size < _TOGETHER_BYTES else (1, batch)
                for first in range(0, rows.num_rows, together):
                    for row in rows.slice(first, together).to_pylist():
                        yield number, in_words(row, names)
                        number += 1
    except _TooLargeError as error:
        raise BenchmarkError(f"{path}: {error} (rows {number} to {number + _BATCH_ROWS})") from None
    except _UNREADABLE as error:
        raise BenchmarkError(f"{path}: breaks off at row {number}: {first_line(error)}") from None


class _TooLargeError(Exception):
    """Decoded content exceeds the bounds; not one of the errors of Arrow."""


def _texts(path: Path) -> list[str]:
    """The columns that are read as dictionaries: those of texts and of pictures."""
    with pq.ParquetFile(path) as file:
        leaves = [file.schema.column(number) for number in range(len(file.schema))]
    return [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]


def _plain(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch with each dictionary of a column as the values that it stands for."""
    columns = [
        column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _size_problem(metadata: Any, file_bytes: int) -> str | None:
    """The bound that the footer of a file exceeds, as a sentence, or None."""
    if metadata.num_rows > MAX_ROWS:
        return f"has {metadata.num_rows:,} rows; at most {MAX_ROWS:,} are read"
    most = max(MAX_VALUES, MAX_VALUES_PER_BYTE * file_bytes)
    values = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        unpacked = 0
        for place in range(group.num_columns):
            column = group.column(place)
            values += column.num_values
            unpacked += 0 if column.path_in_schema == _PICTURE else column.total_uncompressed_size
            if column.num_values > 4 * MAX_LIST * group.num_rows:
                return (
                    f"its column {column.path_in_schema[:100]} has {column.num_values:,} values in "
                    f"{group.num_rows:,} rows; at most {MAX_LIST:,} boxes a row are read"
                )
        if unpacked > MAX_GROUP_BYTES:
            return (
                f"its row group {number} unpacks to {unpacked:,} bytes; at most {MAX_GROUP_BYTES:,} are "
                "read at a time, so write it in more row groups"
            )
    if values > most:
        return f"its {file_bytes:,} bytes stand for {values:,} values; at most {most:,} are read"
    return None


def _checked(array: pa.Array, name: str) -> int:
    """The bytes of texts and pictures in an array, repeated ones counted as often as they stand there.

    Raises _TooLargeError for a cell that is larger than any is read.
    """
    kind = array.type
    if pa.types.is_dictionary(kind):
        _checked(array.dictionary, name)
        lengths = pc.binary_length(array.dictionary) if _has_bytes(kind.value_type) else None
        return 0 if lengths is None else _total(lengths.take(array.indices))
    if pa.types.is_struct(kind):
        return sum(_checked(part, name) for part in array.flatten())
    if pa.types.is_fixed_size_list(kind):
        return _checked(array.flatten(), name)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        longest = pc.max(pc.list_value_length(array)).as_py() or 0
        if longest > MAX_LIST:
            raise _TooLargeError(f"{name} lists {longest:,} in one row; at most {MAX_LIST:,} are read")
        return _checked(array.flatten(), name)
    if not _has_bytes(kind):
        return 0
    lengths = pc.binary_length(array)
    longest = pc.max(lengths).as_py() or 0
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        if longest > MAX_TEXT and (pc.max(pc.utf8_length(array)).as_py() or 0) > MAX_TEXT:
            raise _TooLargeError(f"{name} holds a text of over {MAX_TEXT:,} characters")
    elif longest > MAX_FILE_BYTES:
        raise _TooLargeError(f"{name} holds {longest:,} bytes; at most {MAX_FILE_BYTES:,} are read")
    return _total(lengths)


def _has_bytes(kind: pa.DataType) -> bool:
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return any(test(kind) for test in tests)


def _total(lengths: pa.Array) -> int:
    return int(pc.sum(lengths).as_py() or 0)
