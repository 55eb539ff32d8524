"""Writing a benchmark folder: rows as Python has them, checked cell by cell."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from medfocus_bench.data.benchmark import Benchmark, place_of, read_benchmark
from medfocus_bench.data.columns import SCHEMA
from medfocus_bench.data.manifest import MANIFEST_NAME, NOT_ATTACHED, Attachment, write_manifest
from medfocus_bench.errors import BenchmarkError, InputError
from medfocus_bench.storage import atomic_folder

_BATCH_ROWS: Final = 128
_UNFIT = (pa.ArrowException, TypeError, ValueError, OverflowError)
"""Errors of Arrow for a value that its column cannot hold."""


def write_benchmark(
    folder: str | Path,
    splits: Mapping[str, Iterable[Mapping[str, Any]]],
    *,
    name: str,
    version: str,
    attachment: Attachment = NOT_ATTACHED,
    overwrite: bool = False,
) -> Benchmark:
    """Write rows (columns of `SCHEMA`, missing ones null) as `<split>.parquet` files with a manifest.

    `image` is a picture of PIL (stored as PNG), the bytes of a PNG or JPEG file, or a struct of `bytes` and
    `path`; boxes may be arrays. The folder is there whole or not at all. `attachment` goes into the manifest;
    the fingerprint does not depend on it.

    Raises InputError where something is in the folder already, unless it is a benchmark and `overwrite` is
    given, and BenchmarkError that names the row and the column at fault.

    >>> import medfocus_bench as mb
    >>> columns = ("sample_id", "source", "index", "patient_id", "width", "height", "finding", "lvlm", "mode")
    >>> sample = mb.load_benchmark("phantom", split="dev").samples[0]
    >>> row = {name: getattr(sample, name) for name in columns} | {"boxes": sample.boxes}
    >>> mb.write_benchmark("own", {"dev": [row]}, name="own", version="1").samples
    (Sample(...),)
    """
    root = Path(folder)
    check_vacant(root, overwrite=overwrite)
    with atomic_folder(root) as work:
        try:
            for split, rows in splits.items():
                write_rows(work / f"{split}.parquet", rows)
            fingerprint = read_benchmark(work).fingerprint
            write_manifest(work, name, version, fingerprint, attachment)
        except BenchmarkError as error:  # it names the folder that is made beside the one that was given
            raise BenchmarkError([line.replace(str(work), str(root)) for line in error.problems]) from None
    return read_benchmark(root)


def check_vacant(out: Path, *, overwrite: bool = False) -> None:
    """Raise InputError where `out` holds something that a benchmark may not take the place of."""
    if not out.exists():
        return
    if not out.is_dir() or (any(out.iterdir()) and not overwrite):
        raise InputError(
            f"{out}: is there already; name another folder, or replace a benchmark with --overwrite, in "
            "Python overwrite=True"
        )
    strange = [path for path in out.rglob("*") if path.is_file() and not _is_ours(path)]
    if strange:
        raise InputError(f"{strange[0]}: is not part of a benchmark, so {out} is not replaced; name another")


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows (columns of `SCHEMA`, missing ones null) as one Parquet file. As `write_benchmark`."""
    # A large dictionary page stores a picture once, however many rows of a batch share it.
    settings = {"compression": "zstd", "dictionary_pagesize_limit": 2**26}
    with pq.ParquetWriter(path, SCHEMA, **settings) as writer:
        plain, start = _plain(path, rows), 0
        while batch := list(islice(plain, _BATCH_ROWS)):
            try:
                table = pa.Table.from_pylist(batch, schema=SCHEMA)
            except _UNFIT:
                raise _unfit(path, start, batch) from None
            writer.write_table(table)
            start += len(batch)


def _is_ours(path: Path) -> bool:
    return path.suffix == ".parquet" or path.name in (MANIFEST_NAME, "groups.json", "README.md")


def _plain(path: Path, rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows with what Arrow takes for pictures and arrays."""
    for number, row in enumerate(rows):
        strange = [column for column in row if column not in SCHEMA.names]
        if strange:
            raise BenchmarkError(
                f"{place_of(path, number, row)}: column {strange[0]}: a benchmark has none of that name; "
                f"there are {', '.join(SCHEMA.names)}"
            )
        plain = {
            column: value.tolist() if isinstance(value, np.ndarray) else value
            for column, value in row.items()
        }
        if "image" in plain:
            try:
                plain["image"] = _encoded(plain["image"])
            except (OSError, ValueError) as error:
                raise BenchmarkError(
                    f"{place_of(path, number, row)}: column image: cannot be stored as PNG ({error}); "
                    "convert it to L or RGB"
                ) from None
        yield plain


def _encoded(value: Any) -> Any:
    """A picture as the column holds it; Arrow refuses anything else."""
    if isinstance(value, bytes):
        return {"bytes": value, "path": None}
    if not isinstance(value, Image.Image):
        return value
    file = io.BytesIO()
    value.save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def _unfit(path: Path, start: int, batch: list[dict[str, Any]]) -> BenchmarkError:
    """Which cell of a batch its column cannot hold."""
    for number, row in enumerate(batch, start=start):
        for column in SCHEMA:
            try:
                pa.array([row.get(column.name)], type=column.type)
            except _UNFIT:
                value = row[column.name]
                return BenchmarkError(
                    f"{place_of(path, number, row)}: column {column.name}: {type(value).__name__} "
                    f"{repr(value)[:80]} is not a {_wanted(column)}"
                )
    return BenchmarkError(f"{path}: rows {start} to {start + len(batch) - 1} cannot be stored")


def _wanted(column: pa.Field) -> str:
    """The expected content of a cell, in the words of Python."""
    if column.name == "image":
        return "picture; give one of PIL, or the bytes of a PNG or JPEG file"
    if column.name == "boxes":
        return "list of [x1, y1, x2, y2]"
    if column.name == "anatomy":
        return "list of {concept, box}"
    if pa.types.is_string(column.type):
        return "text"
    return "whole number" if pa.types.is_integer(column.type) else "number"
