"""A written dataset repository: what the card, the Croissant file and the manifest say of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shard:
    """A written Parquet file: its path in the repository, its size and sha256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class SplitInfo:
    """A written split. `content_bytes`: of the rows in memory; `samples`: its grounded rows by LVLM."""

    name: str
    rows: int
    samples_by_lvlm: Mapping[str, int]
    content_bytes: int
    fingerprint: str
    shards: tuple[Shard, ...]

    @property
    def samples(self) -> int:
        return sum(self.samples_by_lvlm.values())


@dataclass(frozen=True, slots=True)
class ConfigInfo:
    """A written config."""

    name: str
    fingerprint: str
    splits: tuple[SplitInfo, ...]

    @property
    def lvlms(self) -> tuple[str, ...]:
        return tuple(sorted({name for split in self.splits for name in split.samples_by_lvlm}))

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
