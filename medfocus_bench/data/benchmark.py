"""A benchmark folder: Parquet files with the columns of `columns.SCHEMA`.

A file is one split of one config, named `<split>.parquet` or `<split>-00000-of-00001.parquet`, in any folder
below the root; any other name is an error. In a file named after a mode every row has that mode. The config
of a row is its source. `benchmark.json` holds the name, the version and the fingerprint; without it the name
is that of the folder and the version is "unversioned". A dataset repository (see `data.hub`) names a config
to open by default, whose folder is the benchmark.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np

from medfocus_bench.data.columns import SCHEMA, is_line
from medfocus_bench.data.derived import DERIVED_SPLITS, Derived
from medfocus_bench.data.manifest import (
    MANIFEST_NAME,
    NOT_ATTACHED,
    Attachment,
    Manifest,
    read_manifest,
)
from medfocus_bench.data.parquet import MAX_ROWS, check_parquet, parquet_rows
from medfocus_bench.data.sample import Sample, sample_of
from medfocus_bench.data.stored import StoredFile, StoredRow
from medfocus_bench.errors import BenchmarkError, InputError

UNVERSIONED: Final = "unversioned"
SPLITS: Final = ("direct", "reasoning", "dev")

MAX_FILES: Final = 10_000

_WITH_FLOATS = ("boxes", "anatomy")
_UNCOUNTED = ("image", *(name for name in SCHEMA.names if name.startswith("log_odds_")))
_SHARD = re.compile(r"^(?P<split>.+?)(-\d+-of-\d+)?\.parquet$")


@dataclass(frozen=True, slots=True, repr=False)
class Benchmark:
    """The samples of a benchmark, or of a part of it, with the identity of the whole.

    `attachment` says where the pictures lie that it refers to, and whether it holds what is licensed.
    `derived` makes the splits of `data.derived`, which are samples of the benchmark only where they are asked
    for by name.

    >>> import medfocus_bench as mb
    >>> mb.load_benchmark("phantom", split="dev").splits
    ('dev',)
    """

    name: str
    version: str
    fingerprint: str
    folder: Path
    samples: tuple[Sample, ...]
    attachment: Attachment = NOT_ATTACHED
    derived: Derived = field(default_factory=Derived)

    def __repr__(self) -> str:
        return (
            f"Benchmark({self.name} {self.version} ({self.fingerprint[:12]}): "
            f"{len(self.samples):,} samples in {self.covers})"
        )

    @property
    def configs(self) -> tuple[str, ...]:
        return tuple(sorted({sample.source for sample in self.samples}))

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(sorted({sample.split for sample in self.samples}))

    @property
    def known_splits(self) -> tuple[str, ...]:
        """Those of `splits`, and those that can be derived."""
        return (*self.splits, *(s for s in DERIVED_SPLITS if s not in self.splits and self.derived.of(s)))

    @property
    def known_samples(self) -> tuple[Sample, ...]:
        """Those of `samples`, and those of all splits that can be derived."""
        return self.select(self.configs, self.known_splits).samples

    @property
    def covers(self) -> str:
        """Configs and splits, for messages."""
        return f"{', '.join(self.configs)} / {', '.join(self.splits)}"

    def part(self, configs: Sequence[str], splits: Sequence[str]) -> Benchmark:
        """As `select`, for names that a user gave; no `configs` mean all.

        Raises InputError for an unknown one.
        """
        held = self.splits if set(splits) <= set(self.splits) else self.known_splits
        for kind, names, known in (("config", configs, self.configs), ("split", splits, held)):
            for name in names:
                if name not in known:
                    raise InputError(
                        f"no {kind} {name!r} in {self.name} {self.version}, only {', '.join(known)}"
                    )
        return self.select(configs or self.configs, splits)

    def select(self, configs: Sequence[str], splits: Sequence[str]) -> Benchmark:
        """The part of the benchmark in these configs and splits, under the same identity."""
        asked = [name for name in DERIVED_SPLITS if name in splits and name not in self.splits]
        samples = (*self.samples, *(sample for name in asked for sample in self.derived.of(name)))
        return replace(self, samples=tuple(s for s in samples if s.source in configs and s.split in splits))

    def of_lvlms(self, lvlms: Sequence[str]) -> Benchmark:
        """The part of the benchmark that was put to these LVLMs. Raises InputError for one that it lacks."""
        held = sorted({sample.lvlm for sample in self.samples})
        for lvlm in lvlms:
            if lvlm not in held:
                raise InputError(
                    f"no samples of the LVLM {lvlm!r} in {self.covers}, only of {', '.join(held)}"
                )
        return replace(self, samples=tuple(s for s in self.samples if s.lvlm in lvlms))

    def reference(self) -> dict[str, Any]:
        """The reference to this benchmark in a submission."""
        return {
            "dataset": self.name,
            "version": self.version,
            "fingerprint": self.fingerprint,
            "configs": list(self.configs),
            "splits": list(self.splits),
        }

    def ungrounded(self, sample_ids: Collection[str]) -> dict[str, str]:
        """The group of each row of these ids that is not grounded, and so not a sample."""
        return {
            row["sample_id"]: row["group"]
            for path in _parquet_files(self.folder)
            for _, row in parquet_rows(path, ["sample_id", "group"])
            if row["sample_id"] in sample_ids and row["group"] not in (None, "grounded")
        }

    def all_rows(self) -> Iterator[Sample]:
        """Every row of the folder, whatever its `group`: also those that the causal filter did not keep.

        Read again from the files. Raises BenchmarkError for a row that is not one.
        """
        return (sample for sample, _ in _read_samples(self.folder, self.attachment.root))


def read_benchmark(folder: str | Path) -> Benchmark:
    """The benchmark in `folder`, every row checked, its fingerprint computed and held against the manifest.

    Raises BenchmarkError that names the file and the sample at fault.
    """
    root = _default_config(Path(folder))
    manifest = read_manifest(root)
    samples: list[Sample] = []
    digests: list[bytes] = []
    seen: set[str] = set()
    for sample, row in _read_samples(root, manifest.attachment.root if manifest else None):
        if sample.sample_id in seen:
            raise BenchmarkError(f"{root}: the sample {sample.sample_id} stands twice")
        seen.add(sample.sample_id)
        samples.append(sample)
        digests.append(row_digest(row, sample.split))
    if not samples:
        raise BenchmarkError(f"{root}: its Parquet files hold no rows")
    _check_shared_regions(root, samples)
    fingerprint = fingerprint_of(digests)
    manifest = manifest or Manifest(_name_of(root), UNVERSIONED, fingerprint)
    _check_fingerprint(root, manifest, fingerprint)
    grounded = tuple(sample for sample in samples if sample.group == "grounded")
    if not grounded:
        raise BenchmarkError(f"{root}: no row is grounded, so there is nothing to score")
    return Benchmark(
        manifest.name, manifest.version, fingerprint, root, grounded, manifest.attachment, Derived(grounded)
    )


def read_rows(folder: str | Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every row of the Parquet files below `folder`: where it stands (for messages), its split, its columns.

    Only the names and types of the columns are checked; labels come as words. Raises BenchmarkError.
    """
    for path, number, row in _numbered_rows(Path(folder)):
        yield place_of(path, number, row), _split_of(path), row


def _numbered_rows(root: Path) -> Iterator[tuple[Path, int, dict[str, Any]]]:
    files = _parquet_files(root)
    _check_no_benchmark_below(root)
    if not files:
        raise BenchmarkError(f"{root}: holds no Parquet file; a benchmark folder has <split>.parquet files")
    for path in files:
        _split_of(path)
    rows = 0
    for path in files:
        rows += check_parquet(path)
        if rows > MAX_ROWS:
            raise BenchmarkError(f"{root}: has over {MAX_ROWS:,} rows, the most that are read")
        for number, row in parquet_rows(path):
            yield path, number, row


def _read_samples(root: Path, pictures: Path | None) -> Iterator[tuple[Sample, dict[str, Any]]]:
    """Every row as a sample, with its columns; `pictures` is the root of the user's own copies."""
    file = StoredFile(Path(), root, None)
    for path, number, row in _numbered_rows(root):
        if file.path != path:
            file = StoredFile(path, root, pictures)
        try:
            yield sample_of(row, _split_of(path), StoredRow(file, number)), row
        except (ValueError, TypeError) as error:
            raise BenchmarkError(f"{place_of(path, number, row)}: {error}") from None


def place_of(path: Path, number: int, row: Mapping[str, Any]) -> str:
    """Where a row stands, for messages."""
    return f"{path}: row {number} ({str(row.get('sample_id'))[:200]})"


def fingerprint_of(digests: Iterable[bytes]) -> str:
    """The fingerprint of rows, from their digests in any order."""
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()


def _parquet_files(root: Path) -> list[Path]:
    try:
        is_folder = root.is_dir()
    except OSError:
        is_folder = False
    if not is_folder:
        raise BenchmarkError(f"{root}: is not a folder; give that of a benchmark, with <split>.parquet files")
    files = sorted(islice(root.rglob("*.parquet"), MAX_FILES + 1))
    if len(files) > MAX_FILES:
        raise BenchmarkError(f"{root}: holds over {MAX_FILES:,} Parquet files, the most that are read")
    return files


def _check_no_benchmark_below(root: Path) -> None:
    if (root / MANIFEST_NAME).exists():
        return
    below = min((manifest.parent for manifest in root.rglob(MANIFEST_NAME)), default=None)
    if below is not None:
        raise BenchmarkError(f"{root}: is not a benchmark, but a folder in it is; give {below}")


def _split_of(path: Path) -> str:
    """The split that a file holds. Raises BenchmarkError for a name that is not one of `SPLITS`."""
    match = _SHARD.match(path.name)
    split = match["split"] if match else path.stem
    if split not in SPLITS:
        raise BenchmarkError(
            f"{path}: {split[:100]!r} is not a split that this version knows, which are {', '.join(SPLITS)}; "
            "name the file <split>.parquet or <split>-00000-of-00001.parquet, or move it out of the folder"
        )
    return split


def row_digest(row: Mapping[str, Any], split: str) -> bytes:
    """sha256 of the canonical form of a row: its split and its non-null columns, the image by content.

    Log-odds do not count: their last digits are the processor's.
    """
    content = {key: value for key, value in row.items() if value is not None and key not in _UNCOUNTED}
    content |= {key: _as_floats(content[key]) for key in _WITH_FLOATS if key in content}
    image = row.get("image")
    if image and image.get("bytes"):
        content["image"] = hashlib.sha256(image["bytes"]).hexdigest()
    text = json.dumps([split, content], sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).digest()


def _as_floats(value: Any) -> Any:
    """`value` with floats for its integers: 12 and 12.0 are one coordinate, whatever the column's type."""
    if isinstance(value, list):
        return [_as_floats(part) for part in value]
    if isinstance(value, dict):
        return {key: _as_floats(part) for key, part in value.items()}
    return float(value) if isinstance(value, int) else value


def _check_shared_regions(root: Path, samples: Sequence[Sample]) -> None:
    """Samples of one region, whatever their LVLM and mode, state the same region."""
    first_of: dict[tuple[str, int, str], Sample] = {}
    for sample in samples:
        first = first_of.setdefault(sample.region, sample)
        same_size = (first.width, first.height) == (sample.width, sample.height)
        if not (same_size and np.array_equal(first.boxes, sample.boxes)):
            raise BenchmarkError(
                f"{root}: {first.sample_id} and {sample.sample_id} share source, index and evidence, "
                "but not boxes and size; give them the same, or another index"
            )


def _default_config(root: Path) -> Path:
    """The folder of the config that a dataset repository opens by default; `root` itself for a benchmark."""
    manifest = read_manifest(root)
    return root / (manifest.default_config or "") if manifest else root


def _name_of(root: Path) -> str:
    """The name of a benchmark without a manifest."""
    name = root.resolve().name
    if not is_line(name):
        raise BenchmarkError(f"{root}: give the folder a plain name, or add a {MANIFEST_NAME}")
    return name


def _check_fingerprint(root: Path, manifest: Manifest, fingerprint: str) -> None:
    if manifest.fingerprint is None:
        raise BenchmarkError(f"{root / MANIFEST_NAME}: claims no fingerprint; it is that of a benchmark")
    if manifest.fingerprint != fingerprint:
        raise BenchmarkError(
            f"{root}: its content ({fingerprint[:12]}) is not that of its manifest "
            f"({manifest.fingerprint[:12]}); fetch the benchmark again, or remove the manifest of one that "
            "you changed"
        )
