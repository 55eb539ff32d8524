"""From what a user writes after `--benchmark` to a benchmark."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final, TypeVar

from medfocus_bench.data.benchmark import Benchmark, read_benchmark
from medfocus_bench.data.hub.repository import DATASET, VERSION_PATTERN, HubName, hub_name, published_configs
from medfocus_bench.data.manifest import read_manifest
from medfocus_bench.errors import BenchmarkError, MissingExtraError, OfflineWarning

GROUP: Final = "medfocus_bench.benchmarks"
"""The entry point group by which a package ships benchmarks: the path of a folder under each name."""

One = TypeVar("One")

BenchmarkLike = Benchmark | str | Path
"""Whatever `load_benchmark` takes; every function that needs a benchmark takes it, too."""


@cache
def installed_benchmarks() -> dict[str, Path]:
    """The folders of the benchmarks that installed packages ship, by name."""
    return {entry.name: entry.load() for entry in entry_points(group=GROUP)}


def load_benchmark(name_or_path: BenchmarkLike, split: str | Sequence[str] | None = None) -> Benchmark:
    """Load a benchmark: all of its splits, or one or more of them.

    >>> from medfocus_bench import load_benchmark
    >>> load_benchmark("phantom", split="direct")
    Benchmark(medfocus/cxr-causal ...: 998 samples in phantom / direct)

    Args:
        name_or_path: A folder, the name of an installed benchmark, or one on the Hub, `medfocus/cxr-causal`
            or `hf://OWNER/NAME`, either with `@REVISION`. A folder in the current one wins over any other
            meaning of its name. Where the Hub is out of reach the installed copy stands in for the published
            benchmark, with a warning. A loaded benchmark is passed through.
        split: `direct`, `reasoning`, `dev`, or several of them; by default all three. `control` and
            `contrast`, which are made of the others (`data.derived`), are loaded by their names only.

    Raises BenchmarkError for a name or folder that is not a benchmark, and InputError for an unknown split.

    """
    loaded = name_or_path if isinstance(name_or_path, Benchmark) else read_benchmark(locate(name_or_path))
    return loaded.part((), one_or_more(split)) if split else loaded


def one_or_more(values: str | Sequence[One]) -> Sequence[One | str]:
    """A sequence as it is, one name as a sequence of one: "dev" is a split, not three letters."""
    return (values,) if isinstance(values, str) else values


def locate(path_or_name: str | Path) -> Path:
    """The folder of what a user wrote; fetched first where it is a name on the Hub. As `load_benchmark`."""
    text = str(path_or_name)
    if is_folder(text):
        return Path(text)
    if text in installed_benchmarks():
        return installed_benchmarks()[text]
    name = hub_name(text)
    if name is None:
        raise BenchmarkError(unknown_benchmark(text))
    return locate_on_hub(name)


def unknown_benchmark(text: str) -> str:
    """The sentence about what is neither a folder nor a name; with the name that is most like it."""
    like = get_close_matches(text.lower(), (*installed_benchmarks(), DATASET), n=1)
    meant = f"did you mean {like[0]}? Else give" if like else "give"
    return (
        f"{text}: is neither a folder nor a benchmark; {meant} {', '.join(installed_benchmarks())}, "
        f"{DATASET}, hf://OWNER/NAME, or a folder with <split>.parquet files"
    )


def locate_on_hub(name: HubName) -> Path:
    """The folder of a config of a repository on the Hub, or of the embedded benchmark in its place."""
    from medfocus_bench.data.hub.fetch import OutOfReachError, fetch

    try:
        return fetch(name) / name.config
    except (OutOfReachError, MissingExtraError) as error:
        embedded = embedded_copy(name)
        if embedded is None:
            raise
        why = (
            "the Hub is out of reach" if isinstance(error, OutOfReachError) else "huggingface_hub is missing"
        )
        warn_offline(name, embedded[1], why)
        return embedded[0]


def warn_offline(name: HubName, version: str, why: str) -> None:
    """Say that the embedded benchmark stands in; once in a process, unless warnings are set otherwise."""
    warnings.warn(f"{name}: {why}; the embedded version {version} is used", OfflineWarning, stacklevel=1)


def embedded_copy(name: HubName) -> tuple[Path, str] | None:
    """Folder and version of the embedded benchmark that is what `name` asks for; None if none is."""
    folder = installed_benchmarks().get(name.config)
    if folder is None or not name.is_published:
        return None
    manifest = read_manifest(folder)
    assert manifest is not None
    here = name.revision in (None, "main", f"v{manifest.version}")
    return (folder, manifest.version) if here else None


def is_folder(text: str) -> bool:
    try:
        return Path(text).is_dir()
    except OSError:
        return False


def folder_at_hand(name: str, version: str, fingerprint: str) -> Path | None:
    """The folder of the benchmark of this name, version and fingerprint; None if it is not at hand.

    Looks at what is part of the package, and at what the Hub's cache holds under the tag of the version. Its
    content is not held against the fingerprint here.
    """
    for folder in (*installed_benchmarks().values(), *_cached(name, version)):
        manifest = read_manifest(folder)
        if manifest and (manifest.name, manifest.fingerprint) == (name, fingerprint):
            return folder
    return None


def _cached(name: str, version: str) -> Iterator[Path]:
    from medfocus_bench.data.hub.fetch import OutOfReachError, cached

    known = hub_name(name)
    if known is None or not VERSION_PATTERN.fullmatch(version):
        return
    for config in published_configs():
        try:
            yield cached(HubName(known.repo, f"v{version}", config)) / config
        except (OutOfReachError, MissingExtraError):
            return
