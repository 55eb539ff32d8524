"""Reading the rows of a publication from folders, and refusing what may not be published.

An open source is published whole. A licensed one is published as pointers: no pixels, no boxes, no anatomy,
no file names, whatever folder the rows come from and whatever it calls itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medfocus_bench.data.base_rate import Kept, yes_share
from medfocus_bench.data.benchmark import SPLITS, fingerprint_of, read_rows, row_digest
from medfocus_bench.data.columns import IMAGES, SCHEMA, is_line
from medfocus_bench.data.hub.repository import LICENSED_COLUMNS, published_configs
from medfocus_bench.data.manifest import MANIFEST_NAME, Manifest, read_manifest
from medfocus_bench.data.sample import check_identity, sample_of
from medfocus_bench.data.sources.registry import installed_sources
from medfocus_bench.errors import BenchmarkError

PublishedRow = Mapping[str, Any]
Splits = Mapping[str, Sequence[PublishedRow]]


@dataclass(frozen=True, slots=True, eq=False)
class Publication:
    """The published rows by config and split, sorted, with all columns of `SCHEMA`."""

    name: str
    version: str
    configs: Mapping[str, Splits]

    def fingerprint(self, config: str) -> str:
        """The fingerprint of a config: the same that `read_benchmark` computes for its folder."""
        return _fingerprint(self.configs[config])

    def split_fingerprint(self, config: str, split: str) -> str:
        return _fingerprint({split: self.configs[config][split]})


def read_publication(
    folder: str | Path, pointers: Iterable[str | Path] = (), *, version: str | None = None
) -> Publication:
    """The rows of `folder` (a benchmark or a dataset repository) and of folders of pointers.

    `version` replaces that of the folder's manifest. Raises BenchmarkError for a folder that cannot be read,
    whose content is not that of its manifest, or that holds anything of a licensed source.
    """
    root = Path(folder)
    if not root.is_dir():
        raise BenchmarkError(f"{root}: is not a folder; give an open benchmark or an earlier export")
    manifest = _only_open_manifests(root)
    if manifest is None:
        raise BenchmarkError(f"{root}: has no {MANIFEST_NAME}; what is published has a name and a version")
    configs = _read_configs(root)
    _check_fingerprints(root, manifest, configs)
    for other in map(Path, pointers):
        _only_open_manifests(other)
        for config, splits in _read_configs(other).items():
            if published_configs()[config].is_open:
                raise BenchmarkError(f"{other}: holds rows of {config}; give a folder of pointers")
            if config in configs:
                raise BenchmarkError(f"{other}: holds rows of {config}, as another folder does; give one")
            configs[config] = splits
    _check_unique(configs)
    ordered = {name: configs[name] for name in published_configs() if name in configs}
    return Publication(manifest.name, version or manifest.version, ordered)


def _only_open_manifests(root: Path) -> Manifest | None:
    """The manifest in `root`. Refuses a folder with a licensed benchmark anywhere in it."""
    for path in sorted(root.rglob(MANIFEST_NAME)):
        manifest = read_manifest(path.parent)
        if manifest and manifest.attachment.licensed:
            raise BenchmarkError(
                f"{path.parent}: is a benchmark with licensed images and boxes attached; it stays where it "
                "is, and only the pointers that it was made of are published"
            )
    return read_manifest(root)


def _read_configs(root: Path) -> dict[str, Splits]:
    configs: dict[str, dict[str, list[PublishedRow]]] = {}
    for place, split, row in read_rows(root):
        source = str(row.get("source"))
        if source not in published_configs():
            raise BenchmarkError(
                f"{place}: source {source[:100]!r} is not one of those that are published: "
                f"{', '.join(published_configs())}"
            )
        try:
            _check(row, split, is_open=published_configs()[source].is_open)
        except (ValueError, TypeError) as error:
            raise BenchmarkError(f"{place}: {error}") from None
        whole = {name: row.get(name) for name in SCHEMA.names}
        configs.setdefault(source, {}).setdefault(split, []).append(whole)
    return {
        config: {split: sorted(splits[split], key=_rank) for split in SPLITS if split in splits}
        for config, splits in configs.items()
    }


def _rank(row: PublishedRow) -> tuple[int, str, str, str]:
    """The order of rows: those of one picture stand together, so that a file stores it once."""
    return row["index"], row["lvlm"], row["mode"], row["sample_id"]


def _check(row: PublishedRow, split: str, *, is_open: bool) -> None:
    """Raise ValueError with the reason why a row may not be published."""
    strange = [column for column in row if column not in SCHEMA.names]
    if strange:
        raise ValueError(f"has the column {strange[0][:100]!r}, which is not published")
    if is_open:
        sample_of(row, split)
    else:
        held = [column for column in LICENSED_COLUMNS if row.get(column) is not None]
        if held:
            raise ValueError(
                f"holds {', '.join(held)} of {row['source']}, which is licensed; publish the pointers only"
            )
        check_identity(row, split)
        for column in ("patient_id", "finding", "answer"):
            if row.get(column) is not None and not is_line(row[column]):
                raise ValueError(f"{column} is not a short text on one line")


def _check_fingerprints(root: Path, manifest: Manifest, configs: Mapping[str, Splits]) -> None:
    """Compare the content of `root` with its manifest: that of a benchmark, or of a repository."""
    claimed: dict[str, str | None]
    if manifest.configs:
        claimed = {name: entry.fingerprint for name, entry in manifest.configs.items()}
        found = {name: _fingerprint(splits) for name, splits in configs.items()}
    else:
        claimed = {"content": manifest.fingerprint}
        found = {"content": _fingerprint(*configs.values())}
    if found != claimed:
        raise BenchmarkError(
            f"{root}: its content is not that of its {MANIFEST_NAME}; fetch it again, or remove the manifest "
            "of one that you changed"
        )


def _fingerprint(*parts: Splits) -> str:
    return fingerprint_of(
        row_digest(row, split) for splits in parts for split, rows in splits.items() for row in rows
    )


def _check_unique(configs: Mapping[str, Splits]) -> None:
    seen: set[str] = set()
    for config, splits in configs.items():
        for rows in splits.values():
            for row in rows:
                if row["sample_id"] in seen:
                    raise BenchmarkError(f"{config}: the sample {row['sample_id']} stands twice")
                seen.add(row["sample_id"])


def kept_by_lvlm(config: str, split: str, rows: Sequence[PublishedRow]) -> dict[str, Kept]:
    """The grounded rows of each LVLM in a split, of the questions that it was asked.

    Where a licensed source has grounded rows alone, these are all questions of the source.
    """
    of_lvlms: dict[str, list[PublishedRow]] = {}
    for row in rows:
        of_lvlms.setdefault(row["lvlm"], []).append(row)
    return {lvlm: _kept(config, split, of_lvlms[lvlm]) for lvlm in sorted(of_lvlms)}


def _kept(config: str, split: str, rows: Sequence[PublishedRow]) -> Kept:
    grounded = sum(row["group"] in (None, "grounded") for row in rows)
    if grounded == len(rows) and not published_configs()[config].is_open:
        questions = installed_sources()[config].expected.get("dev" if split == "dev" else "test", 0)
        return Kept(grounded, max(questions, grounded))
    answered = [{image: row[f"answer_{image}"] for image in IMAGES} for row in rows]
    known = [answers for answers in answered if None not in answers.values()]
    return Kept(grounded, len(rows), yes_share(known) if known else None)
