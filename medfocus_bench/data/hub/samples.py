"""`load_samples`: the rows of the benchmark as a `datasets` object, from the Hub or from disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from medfocus_bench.data.benchmark import fingerprint_of, read_rows, row_digest
from medfocus_bench.data.hub.client import hub_answers, hub_api, hub_errors, quiet_hub
from medfocus_bench.data.hub.fetch import RETRY, OutOfReachError, check_files, fetch
from medfocus_bench.data.hub.publication import PublishedRow
from medfocus_bench.data.hub.publish import published_table
from medfocus_bench.data.hub.repository import DATASET, DEFAULT_CONFIG, HubName, hub_name
from medfocus_bench.data.labels import in_words, label_names
from medfocus_bench.data.manifest import read_manifest
from medfocus_bench.data.resolve import (
    embedded_copy,
    installed_benchmarks,
    is_folder,
    unknown_benchmark,
    warn_offline,
)
from medfocus_bench.errors import BenchmarkError, first_line, require

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset


@overload
def load_samples(
    name: str | Path = ...,
    *,
    config: str | None = ...,
    split: str = ...,
    revision: str | None = ...,
    streaming: Literal[False] = ...,
) -> Dataset: ...
@overload
def load_samples(
    name: str | Path = ...,
    *,
    config: str | None = ...,
    split: str = ...,
    revision: str | None = ...,
    streaming: Literal[True],
) -> IterableDataset: ...
def load_samples(
    name: str | Path = DATASET,
    *,
    config: str | None = None,
    split: str = "direct",
    revision: str | None = None,
    streaming: bool = False,
) -> Dataset | IterableDataset:
    """Load the rows of one config and split; pictures are decoded on access, as with `load_dataset`.

    All groups of the causal filter are there; the grounded rows are the benchmark. Without the Hub the cache
    is used, and without a cache the embedded track for `phantom`, each with a warning.

    Args:
        name: `medfocus/cxr-causal` or `hf://OWNER/NAME` (the Hub), the folder of an exported repository or of
            a benchmark, or `phantom` (the embedded track).
        config: `phantom` by default.
        split: `direct`, `reasoning` or `dev`.
        revision: a tag or commit of a repository on the Hub.
        streaming: read rows when they are asked for. Only otherwise is the content compared with the
            published fingerprint.

    Raises:
        InputError: if the extra `[hub]` is missing.
        BenchmarkError: for data that is missing, private, or different from the published one.

    >>> import medfocus_bench as mb
    >>> mb.load_samples("phantom", split="dev")[0]["finding"]
    'cardiomegaly'
    """
    require("datasets")
    text = str(name)
    if is_folder(text):
        _no_revision(text, revision)
        return _from_folder(Path(text), config, split, streaming=streaming)
    if text in installed_benchmarks():
        _no_revision(text, revision)
        return _from_benchmark(installed_benchmarks()[text], config or text, split, streaming=streaming)
    found = hub_name(text)
    if found is None:
        raise BenchmarkError(unknown_benchmark(text))
    wanted = HubName(found.repo, revision or found.revision, config or found.config)
    return _from_hub(wanted, split, streaming=streaming)


def _from_hub(name: HubName, split: str, *, streaming: bool) -> Dataset | IterableDataset:
    if streaming and hub_answers():
        with quiet_hub(), hub_errors(str(name), retry=RETRY):
            commit = hub_api().repo_info(name.repo, repo_type="dataset", revision=name.revision).sha
            shards = f"hf://datasets/{name.repo}@{commit}/{name.config}/{split}-*.parquet"
            return _load(f"{name}, {name.config}", split, shards, streaming=True)
    try:
        root = fetch(name)
    except OutOfReachError:
        embedded = embedded_copy(name)
        if embedded is None:
            raise
        warn_offline(name, embedded[1], "the Hub is out of reach")
        return _from_benchmark(embedded[0], name.config, split, streaming=streaming)
    return _from_repository(root, name.config, split, streaming=streaming)


def _from_folder(root: Path, config: str | None, split: str, *, streaming: bool) -> Dataset | IterableDataset:
    manifest = read_manifest(root)
    if manifest and manifest.configs:
        check_files(root, config or DEFAULT_CONFIG)
        return _from_repository(root, config or DEFAULT_CONFIG, split, streaming=streaming)
    return _from_benchmark(root, config, split, streaming=streaming)


def _from_repository(root: Path, config: str, split: str, *, streaming: bool) -> Dataset | IterableDataset:
    """A split of a repository in a folder; the caller checks the files, this the fingerprint."""
    manifest = read_manifest(root)
    assert manifest is not None  # its files were held against it
    splits = manifest.configs[config].splits
    if split not in splits:
        raise BenchmarkError(f"{root}: {config} has no split {split!r}, only {', '.join(splits)}")
    shards = [str(path) for path in sorted((root / config).glob(f"{split}-*.parquet"))]
    loaded = _load(f"{root / config}", split, shards, streaming=streaming)
    if not streaming and fingerprint(loaded, split) != splits[split]:
        raise BenchmarkError(f"{root}: {config}, {split} is not what its manifest says; fetch it again")
    return loaded


def _from_benchmark(
    root: Path, config: str | None, split: str, *, streaming: bool
) -> Dataset | IterableDataset:
    """A split of a plain benchmark folder, compared with its manifest if there is one."""
    library = require("datasets")
    known: dict[str, dict[str, list[PublishedRow]]] = {}
    digests = []
    for _, found, row in read_rows(root):
        known.setdefault(str(row["source"]), {}).setdefault(found, []).append(row)
        digests.append(row_digest(row, found))
    manifest = read_manifest(root)
    if manifest and manifest.fingerprint not in (None, fingerprint_of(digests)):
        raise BenchmarkError(f"{root}: its content is not that of its manifest; fetch the benchmark again")
    chosen = config or min(known, key=lambda name: name != DEFAULT_CONFIG, default=DEFAULT_CONFIG)
    if split not in known.get(chosen, {}):
        held = "; ".join(f"{name}: {', '.join(splits)}" for name, splits in known.items())
        raise BenchmarkError(f"{root}: has no {split!r} of {chosen!r}; it holds {held or 'no rows'}")
    table = library.table.InMemoryTable(published_table(known[chosen][split], place=f"{root}: {split}"))
    loaded = library.Dataset(table, split=library.NamedSplit(split))
    return loaded.to_iterable_dataset() if streaming else loaded


def fingerprint(rows: Dataset, split: str) -> str:
    """The fingerprint of a loaded split, as `benchmark.json` states it; pictures are not decoded for it."""
    table = rows.data.table
    names = label_names(rows.features.arrow_schema)
    return fingerprint_of(
        row_digest(in_words(row, names), split)
        for batch in table.to_batches(max_chunksize=128)
        for row in batch.to_pylist()
    )


def _load(place: str, split: str, shards: str | Sequence[str], *, streaming: bool) -> Any:
    """Load Parquet files as a split; cards and programs of a repository are never read."""
    library = require("datasets")
    bars = library.is_progress_bar_enabled()
    library.disable_progress_bars()
    try:
        return library.load_dataset("parquet", data_files={split: shards}, split=split, streaming=streaming)
    except (ValueError, FileNotFoundError, library.exceptions.DatasetsError) as error:
        raise BenchmarkError(f"{place}: {split} cannot be loaded: {first_line(error)}") from None
    finally:
        if bars:
            library.enable_progress_bars()


def _no_revision(text: str, revision: str | None) -> None:
    if revision is not None:
        raise BenchmarkError(
            f"{text}: a revision is of a repository on the Hub; leave it out for a local one"
        )
