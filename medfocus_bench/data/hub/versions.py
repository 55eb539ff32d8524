"""Other versions of a benchmark that are at hand without a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from medfocus_bench.data.hub.client import MissingExtraError
from medfocus_bench.data.hub.layout import CONFIGS, VERSION_PATTERN
from medfocus_bench.data.hub.names import HubName, hub_name
from medfocus_bench.data.manifest import read_manifest
from medfocus_bench.data.resolve import installed_benchmarks


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
    for config in CONFIGS:
        try:
            yield cached(HubName(known.repo, f"v{version}", config)) / config
        except (OutOfReachError, MissingExtraError):
            return
