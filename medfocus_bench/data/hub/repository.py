"""A dataset repository on the Hub: its names, configs, columns and files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import pyarrow as pa

from medfocus_bench.data.base_rate import Kept
from medfocus_bench.data.columns import SCHEMA
from medfocus_bench.data.labels import LABELS
from medfocus_bench.data.sources.protocol import Release
from medfocus_bench.data.sources.registry import installed_sources
from medfocus_bench.errors import BenchmarkError

DATASET: Final = "medfocus/cxr-causal"
"""The published benchmark: its name in reports and its repository on the Hub."""

DEFAULT_CONFIG: Final = "phantom"

CARD_NAME: Final = "README.md"
CROISSANT_NAME: Final = "croissant.json"
CHANGELOG_NAME: Final = "CHANGELOG.md"

SHARD_BYTES: Final = 2**24
"""Content of a shard before compression. Small, so that a few workers have a shard each."""
ROW_GROUP_ROWS: Final = 128

VERSION_PATTERN: Final = re.compile(r"(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})")
"""Semantic versions without pre-releases: major.minor.patch."""


@cache
def published_configs() -> Mapping[str, Release]:
    """The configs by name in the order of the card: the phantom track, then the released sources."""
    phantom = Release(
        "Phantom track",
        "MIT",
        "https://opensource.org/license/mit",
        "Complete: pictures, boxes and anatomy are in the files.",
        is_open=True,
    )
    sources = installed_sources().items()
    return {DEFAULT_CONFIG: phantom} | {name: source.release for name, source in sources if source.release}


LICENSED_COLUMNS: Final = ("image", "image_ref", "boxes", "anatomy")
"""Columns that are always empty for a licensed source: pixels, their file, and experts' boxes."""


def _published_schema() -> pa.Schema:
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    features |= {column: {"names": list(names), "_type": "ClassLabel"} for column, names in LABELS.items()}
    fields = [field.with_type(pa.int64()) if field.name in LABELS else field for field in SCHEMA]
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})


PUBLISHED_SCHEMA: Final = _published_schema()
"""`columns.SCHEMA` with labels as numbers, and with the metadata that `datasets` reads its features from."""


def shard_name(config: str, split: str, number: int, count: int) -> str:
    """The path of a shard in the repository."""
    return f"{config}/{split}-{number:05d}-of-{count:05d}.parquet"


SCHEME: Final = "hf://"

REPO_PATTERN: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
REVISION_PATTERN: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"

_NAME: Final = re.compile(
    rf"(hf://(datasets/)?)?(?P<repo>{REPO_PATTERN})(@(?P<revision>{REVISION_PATTERN}))?"
    r"(/(?P<config>[a-z0-9][a-z0-9_]{0,63}))?"
)


@dataclass(frozen=True, slots=True)
class HubName:
    """A dataset repository, a revision of it (None: the newest) and a config."""

    repo: str
    revision: str | None = None
    config: str = DEFAULT_CONFIG

    def __str__(self) -> str:
        return f"{SCHEME}{self.repo}" + (f"@{self.revision}" if self.revision else "")

    @property
    def is_published(self) -> bool:
        """Whether this is the published benchmark, of which one version is part of the package."""
        return self.repo == DATASET


def hub_name(text: str) -> HubName | None:
    """Parse the name of a dataset on the Hub; None for any other text.

    `medfocus/cxr-causal` is the published benchmark. Any other repository needs `hf://` before its name, so
    that the misspelt path of a folder is never asked for on the Hub. `@v1.0.0` after the name pins a
    revision, `/imagenome` a config.
    """
    match = _NAME.fullmatch(text)
    if match is not None and (text.startswith(SCHEME) or match["repo"] == DATASET):
        return HubName(match["repo"], match["revision"], match["config"] or DEFAULT_CONFIG)
    if text.startswith(SCHEME):
        raise BenchmarkError(
            f"{text[:200]}: is not a name on the Hub; write hf://OWNER/NAME or hf://OWNER/NAME@REVISION"
        )
    return None


@dataclass(frozen=True, slots=True)
class Shard:
    """A written Parquet file: its path in the repository, its size and sha256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class SplitInfo:
    """A written split. `content_bytes`: of the rows in memory; `kept`: its grounded rows by LVLM."""

    name: str
    rows: int
    kept: Mapping[str, Kept]
    content_bytes: int
    fingerprint: str
    shards: tuple[Shard, ...]

    @property
    def samples(self) -> int:
        return sum(one.count for one in self.kept.values())


@dataclass(frozen=True, slots=True)
class ConfigInfo:
    """A written config."""

    name: str
    fingerprint: str
    splits: tuple[SplitInfo, ...]

    @property
    def lvlms(self) -> tuple[str, ...]:
        return tuple(sorted({name for split in self.splits for name in split.kept}))

    @property
    def download_size(self) -> int:
        return sum(shard.size for split in self.splits for shard in split.shards)

    @property
    def content_bytes(self) -> int:
        return sum(split.content_bytes for split in self.splits)


@dataclass(frozen=True, slots=True)
class Repository:
    """A written dataset repository."""

    name: str
    version: str
    configs: tuple[ConfigInfo, ...]

    @property
    def shards(self) -> tuple[Shard, ...]:
        return tuple(shard for config in self.configs for split in config.splits for shard in split.shards)
