"""Fetching a dataset repository into the client's cache; every file is checked by its sha256."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Final

from medfocus_bench.data.hub.client import hub_answers, hub_api, hub_client, hub_errors, quiet_hub
from medfocus_bench.data.hub.repository import CARD_NAME, HubName
from medfocus_bench.data.manifest import MANIFEST_NAME, read_manifest
from medfocus_bench.errors import BenchmarkError, OfflineWarning
from medfocus_bench.storage import file_sha256

RETRY: Final = "run it again: what was fetched is kept"


class OutOfReachError(BenchmarkError):
    """The Hub cannot be reached, and the cache has no copy."""


def fetch(name: HubName) -> Path:
    """Fetch the files of one config, unless the cache has them; return the folder of the repository.

    Out of reach of the Hub, what the cache holds of that revision is used, with a warning. Raises
    OutOfReachError without one, BenchmarkError for a repository or revision that is not there or not open
    to this user, for a connection that breaks off, and for a file that is not the published one.
    """
    if hub_answers():
        with quiet_hub(), hub_errors(str(name), retry=RETRY):
            root = _snapshot(name, local_files_only=False)
    else:
        root = cached(name)
        warnings.warn(
            f"{name}: the Hub is out of reach; the copy in the cache is used", OfflineWarning, stacklevel=1
        )
    check_files(root, name.config, in_cache=True)
    return root


def _snapshot(name: HubName, **more: Any) -> Path:
    return Path(
        hub_api().snapshot_download(
            name.repo,
            repo_type="dataset",
            revision=name.revision,
            allow_patterns=[CARD_NAME, MANIFEST_NAME, f"{name.config}/*"],
            **more,
        )
    )


def cached(name: HubName) -> Path:
    """The cached folder of a repository. Raises OutOfReachError if there is none."""
    errors = hub_client().errors
    try:
        with quiet_hub():
            return _snapshot(name, local_files_only=True)
    except (errors.LocalEntryNotFoundError, OSError):
        raise OutOfReachError(
            f"{name}: the Hub is out of reach, and no copy is in the cache; go online once, or give a folder"
        ) from None


def check_files(root: Path, config: str, *, in_cache: bool = False) -> None:
    """Check the Parquet files of a config against the manifest of their repository.

    One of the Hub's cache that is not the published one is removed, so that the next run fetches it anew; one
    of a user is let be.
    """
    manifest = read_manifest(root)
    if manifest is None or config not in manifest.configs:
        raise BenchmarkError(f"{root}: holds no config {config}; the configs stand in its {MANIFEST_NAME}")
    published = {path: sha256 for path, sha256 in manifest.files.items() if path.startswith(f"{config}/")}
    found = {path.relative_to(root).as_posix() for path in (root / config).glob("*.parquet")}
    for path in sorted(found - published.keys()):
        raise BenchmarkError(f"{root / path}: is not one of the published files")
    for path, sha256 in published.items():
        if path not in found:
            raise BenchmarkError(f"{root / path}: is missing; fetch the dataset again")
        if file_sha256(root / path) != sha256:
            if in_cache:
                (root / path).resolve().unlink(missing_ok=True)  # a link to its content, as a rule
                (root / path).unlink(missing_ok=True)
            raise BenchmarkError(
                f"{root / path}: is not the published file (its sha256 is another one); fetch it again"
            )
