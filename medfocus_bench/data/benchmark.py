"""A benchmark folder: Parquet files with the columns of `columns.SCHEMA`.

A file is one split of one config, named `<split>.parquet` or `<split>-00000-of-00001.parquet`, in any
folder below the root; a name that is no split puts each row into the split of its mode. The config of a row
is its source. `benchmark.json` holds the name, the version and the fingerprint; without it the folder's
name counts and the version is "unversioned".
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from medfocus_bench.data.columns import SCHEMA, Sample, is_line, sample_of, schema_problem
from medfocus_bench.errors import BenchmarkError

MANIFEST_NAME: Final = "benchmark.json"
UNVERSIONED: Final = "unversioned"
SPLITS: Final = ("direct", "reasoning", "dev")

_BATCH_ROWS = 128
_MAX_ROWS = 5_000_000
_MAX_MANIFEST_BYTES = 2**16
_UNREADABLE = (pa.ArrowException, OSError, ValueError, OverflowError)
"""What Arrow raises for a damaged file; the last two for values that Python cannot hold (bad UTF-8)."""
_SHARD = re.compile(r"^(?P<split>.+?)(-\d+-of-\d+)?\.parquet$")


@dataclass(frozen=True, slots=True)
class Benchmark:
    """The samples of a benchmark, or of a part of it, with the identity of the whole."""

    name: str
    version: str
    fingerprint: str
    folder: Path
    samples: tuple[Sample, ...]

    @property
    def configs(self) -> tuple[str, ...]:
        return tuple(sorted({sample.source for sample in self.samples}))

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(sorted({sample.split for sample in self.samples}))

    def select(self, configs: Sequence[str], splits: Sequence[str]) -> Benchmark:
        """The part of the benchmark in these configs and splits, under the same identity."""
        kept = tuple(s for s in self.samples if s.source in configs and s.split in splits)
        return replace(self, samples=kept)

    def reference(self) -> dict[str, Any]:
        """What a submission quotes of the benchmark that it explains."""
        return {
            "dataset": self.name,
            "version": self.version,
            "fingerprint": self.fingerprint,
            "configs": list(self.configs),
            "splits": list(self.splits),
        }

    def images(self) -> Iterator[tuple[Sample, bytes | None]]:
        """Each sample with its encoded image (None where the benchmark holds none), read as it goes."""
        wanted = {sample.sample_id: sample for sample in self.samples}
        for path in _parquet_files(self.folder):
            if "image" not in pq.read_schema(path).names:
                continue
            for _, row in _rows(path, ["sample_id", "image"]):
                sample = wanted.get(row["sample_id"])
                if sample is not None:
                    yield sample, (row["image"] or {}).get("bytes")


def load_benchmark(folder: str | Path) -> Benchmark:
    """The benchmark in `folder`, every row checked, its fingerprint computed and held against the manifest.

    Raises BenchmarkError that names the file and the sample at fault.
    """
    root = Path(folder)
    samples: list[Sample] = []
    digests: list[bytes] = []
    files = _parquet_files(root)
    if not files:
        raise BenchmarkError(f"{root}: holds no Parquet file; a benchmark folder has <split>.parquet files")
    for path in files:
        _check_columns(path)
        for number, row in _rows(path):
            split = _split_of(path, row)
            try:
                samples.append(sample_of(row, split))
            except (ValueError, TypeError) as error:
                name = str(row["sample_id"])[:200]
                raise BenchmarkError(f"{path}: row {number} ({name}): {error}") from None
            digests.append(_row_digest(row, split))
    if not samples:
        raise BenchmarkError(f"{root}: its Parquet files hold no rows")
    _check_unique(root, samples)
    fingerprint = hashlib.sha256(b"".join(sorted(digests))).hexdigest()
    name, version = _identity(root, fingerprint)
    return Benchmark(name, version, fingerprint, root, tuple(samples))


def write_benchmark(
    folder: str | Path, splits: Mapping[str, Iterable[Mapping[str, Any]]], *, name: str, version: str
) -> Benchmark:
    """Writes rows (columns of `SCHEMA`, missing ones null) as `<split>.parquet` files with a manifest."""
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        with pq.ParquetWriter(root / f"{split}.parquet", SCHEMA, compression="zstd") as writer:
            for batch in _chunks(rows, _BATCH_ROWS):
                writer.write_table(pa.Table.from_pylist(batch, schema=SCHEMA))
    manifest = root / MANIFEST_NAME
    manifest.unlink(missing_ok=True)
    written = load_benchmark(root)
    identity = {"name": name, "version": version, "fingerprint": written.fingerprint}
    manifest.write_text(json.dumps(identity, indent=2) + "\n", encoding="utf-8")
    return replace(written, name=name, version=version)


def _chunks(rows: Iterable[Mapping[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(dict(row))
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _parquet_files(root: Path) -> list[Path]:
    try:
        is_folder = root.is_dir()
    except OSError:
        is_folder = False
    if not is_folder:
        raise BenchmarkError(f"{root}: is no folder; give that of a benchmark, with <split>.parquet files")
    return sorted(root.rglob("*.parquet"))


def _check_columns(path: Path) -> None:
    if not path.is_file():
        raise BenchmarkError(f"{path}: is not a regular file")
    try:
        with pq.ParquetFile(path) as file:
            rows, schema = file.metadata.num_rows, file.schema_arrow
    except _UNREADABLE as error:
        raise BenchmarkError(f"{path}: cannot be read as Parquet: {_first_line(error)}") from None
    if rows > _MAX_ROWS:
        raise BenchmarkError(f"{path}: has {rows:,} rows; at most {_MAX_ROWS:,} are read")
    problem = schema_problem(schema)
    if problem is not None:
        raise BenchmarkError(f"{path}: {problem}")


def _rows(path: Path, columns: list[str] | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a file with their numbers, a small batch in memory at a time."""
    number = 0
    try:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=2**16) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=columns, use_threads=False):
                for row in batch.to_pylist():
                    yield number, row
                    number += 1
    except _UNREADABLE as error:
        raise BenchmarkError(f"{path}: breaks off at row {number}: {_first_line(error)}") from None


def _split_of(path: Path, row: Mapping[str, Any]) -> str:
    match = _SHARD.match(path.name)
    stem = match["split"] if match else path.stem
    return stem if stem in SPLITS else str(row["mode"])


def _row_digest(row: Mapping[str, Any], split: str) -> bytes:
    """sha256 of the canonical form of a row: its split and its non-null columns, the image by content."""
    content = {key: value for key, value in row.items() if value is not None and key != "image"}
    image = row.get("image")
    if image and image.get("bytes"):
        content["image"] = hashlib.sha256(image["bytes"]).hexdigest()
    text = json.dumps([split, content], sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).digest()


def _check_unique(root: Path, samples: Sequence[Sample]) -> None:
    seen: set[str] = set()
    for sample in samples:
        if sample.sample_id in seen:
            raise BenchmarkError(f"{root}: the sample {sample.sample_id} stands twice")
        seen.add(sample.sample_id)


def _identity(root: Path, fingerprint: str) -> tuple[str, str]:
    manifest = root / MANIFEST_NAME
    if not manifest.exists():
        folder = root.resolve().name
        if not is_line(folder):
            raise BenchmarkError(f"{root}: give the folder a plain name, or add a {MANIFEST_NAME}")
        return folder, UNVERSIONED
    if not manifest.is_file():
        raise BenchmarkError(f"{manifest}: is not a regular file")
    try:
        with manifest.open("rb") as file:
            value = json.loads(file.read(_MAX_MANIFEST_BYTES))
        name, version, claimed = (value[key] for key in ("name", "version", "fingerprint"))
    except (ValueError, KeyError, TypeError, OSError, RecursionError):
        name = version = claimed = None
    if not (is_line(name) and is_line(version) and is_line(claimed)):
        raise BenchmarkError(f"{manifest}: needs a name, a version and a fingerprint, each a short text")
    if claimed != fingerprint:
        raise BenchmarkError(
            f"{root}: its content ({fingerprint[:12]}) is not that of its manifest ({claimed[:12]}); "
            "fetch the benchmark again, or remove the manifest of one that you changed"
        )
    return name, version


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
