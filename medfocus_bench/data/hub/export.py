"""Writing a publication as the repository that is uploaded.

The same rows give the same bytes (with one version of pyarrow): rows are sorted, writer settings are fixed,
and nothing holds a time, a user or a path.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medfocus_bench.data.hub.card import changelog, render_card
from medfocus_bench.data.hub.croissant import render_croissant
from medfocus_bench.data.hub.layout import (
    CARD_NAME,
    CHANGELOG_NAME,
    CONFIGS,
    CROISSANT_NAME,
    DEFAULT_CONFIG,
    PUBLISHED_SCHEMA,
    ROW_GROUP_ROWS,
    SHARD_BYTES,
    VERSION_PATTERN,
    shard_name,
)
from medfocus_bench.data.hub.publication import Publication, Row, read_publication
from medfocus_bench.data.hub.repository import ConfigInfo, Repository, Shard, SplitInfo
from medfocus_bench.data.labels import in_numbers
from medfocus_bench.data.manifest import MANIFEST_NAME, write_manifest
from medfocus_bench.data.resolve import locate
from medfocus_bench.errors import BenchmarkError, InputError
from medfocus_bench.storage import atomic_folder, file_sha256


def export(
    out: str | Path,
    folder: str | Path = "phantom",
    pointers: Sequence[str | Path] = (),
    *,
    version: str | None = None,
) -> Repository:
    """Writes the dataset repository of a benchmark and of folders of pointers to `out`, which must not exist.

    `folder` is that of the benchmark, or its name.
    The folder appears, complete, when all is written. Raises BenchmarkError for what may not be published
    (see `publication`).
    """
    target = Path(out)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target}: exists and is no empty folder; give a new one")
    if version is not None and not VERSION_PATTERN.fullmatch(version):
        raise InputError(f"version {version[:100]!r} is not major.minor.patch, such as 1.2.0")
    publication = read_publication(locate(folder), pointers, version=version)
    if not VERSION_PATTERN.fullmatch(publication.version):
        raise BenchmarkError(
            f"{folder}: version {publication.version!r} is not major.minor.patch; give another with --version"
        )
    if DEFAULT_CONFIG not in publication.configs:
        raise BenchmarkError(f"{folder}: holds no rows of {DEFAULT_CONFIG}, the default config")
    with atomic_folder(target) as work:
        return write_repository(work, publication)


def write_repository(root: Path, publication: Publication) -> Repository:
    """Writes all files of a repository into `root`, which is made if it is not there."""
    root.mkdir(parents=True, exist_ok=True)
    configs = []
    for name, splits in publication.configs.items():
        (root / name).mkdir()
        written = tuple(_write_split(root, publication, name, split, rows) for split, rows in splits.items())
        configs.append(ConfigInfo(name, publication.fingerprint(name), written))
    repository = Repository(publication.name, publication.version, tuple(configs))
    for config in repository.configs:
        if CONFIGS[config.name].is_open:
            folder = root / config.name  # a benchmark of its own
            write_manifest(folder, repository.name, repository.version, config.fingerprint)
    _write_json(root / MANIFEST_NAME, _manifest(repository))
    (root / CARD_NAME).write_text(render_card(repository), encoding="utf-8")
    (root / CHANGELOG_NAME).write_text(changelog(), encoding="utf-8")
    _write_json(root / CROISSANT_NAME, render_croissant(repository))
    return repository


def published_table(rows: Sequence[Row], *, place: str) -> pa.Table:
    """Rows as a table of `PUBLISHED_SCHEMA`. Raises BenchmarkError that starts with `place`."""
    try:
        return pa.Table.from_pylist([in_numbers(row) for row in rows], schema=PUBLISHED_SCHEMA)
    except (ValueError, OverflowError, pa.ArrowException) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise BenchmarkError(f"{place}: a value does not fit its column: {said}") from None


def _samples_by_lvlm(rows: Sequence[Row]) -> dict[str, int]:
    counts = dict.fromkeys(sorted({row["lvlm"] for row in rows}), 0)
    for row in rows:
        counts[row["lvlm"]] += (row["group"] or "grounded") == "grounded"
    return counts


def _write_split(
    root: Path, publication: Publication, config: str, split: str, rows: Sequence[Row]
) -> SplitInfo:
    table = published_table(rows, place=f"{config}, {split}")
    count = max(1, min(-(-table.nbytes // SHARD_BYTES), -(-len(rows) // ROW_GROUP_ROWS)))
    edges = [len(rows) * number // count for number in range(count + 1)]
    shards = []
    for number in range(count):
        path = root / shard_name(config, split, number, count)
        # A large dictionary page stores a picture once, however many rows of a row group share it.
        pq.write_table(
            table.slice(edges[number], edges[number + 1] - edges[number]),
            path,
            row_group_size=ROW_GROUP_ROWS,
            compression="zstd",
            compression_level=3,
            dictionary_pagesize_limit=2**26,
            write_page_index=True,
            version="2.6",
            data_page_version="1.0",
        )
        shards.append(Shard(path.relative_to(root).as_posix(), path.stat().st_size, file_sha256(path)))
    return SplitInfo(
        name=split,
        rows=len(rows),
        samples_by_lvlm=_samples_by_lvlm(rows),
        content_bytes=table.nbytes,
        fingerprint=publication.split_fingerprint(config, split),
        shards=tuple(shards),
    )


def _manifest(repository: Repository) -> Mapping[str, Any]:
    return {
        "name": repository.name,
        "version": repository.version,
        "default_config": DEFAULT_CONFIG,
        "configs": {
            config.name: {
                "fingerprint": config.fingerprint,
                "splits": {
                    split.name: {
                        "rows": split.rows,
                        "samples": split.samples,
                        "fingerprint": split.fingerprint,
                    }
                    for split in config.splits
                },
            }
            for config in repository.configs
        },
        "files": {shard.path: {"bytes": shard.size, "sha256": shard.sha256} for shard in repository.shards},
    }


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
