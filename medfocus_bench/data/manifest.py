"""`benchmark.json`: what a benchmark folder, or a dataset repository, says of itself.

That of a benchmark holds the fingerprint of its rows, that of a repository those of every config and split.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from medfocus_bench.data.columns import is_line
from medfocus_bench.errors import BenchmarkError

MANIFEST_NAME: Final = "benchmark.json"

MAX_BYTES: Final = 2**20
_CONFIG_NAME = re.compile(r"[a-z0-9][a-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Attachment:
    """The folder of the pictures of an attached benchmark, and whether it is licensed and must stay local."""

    root: Path | None = None
    licensed: bool = False


NOT_ATTACHED: Final = Attachment()


@dataclass(frozen=True, slots=True)
class ConfigEntry:
    """A config of a repository: its fingerprint, and that of each split."""

    fingerprint: str
    splits: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest that was read.

    `fingerprint` is None where none is claimed; `default_config`, `configs` and `files` (the sha256 of a
    repository's files, by path) are those of a repository.
    """

    name: str
    version: str
    fingerprint: str | None = None
    attachment: Attachment = NOT_ATTACHED
    default_config: str | None = None
    configs: Mapping[str, ConfigEntry] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder; None where it has none. Raises BenchmarkError that names what is wrong."""
    path = folder / MANIFEST_NAME
    try:
        if not path.exists():
            return None
    except OSError:  # no path at all, which its reader says
        return None
    if not path.is_file():
        raise BenchmarkError(f"{path}: is not a regular file")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        value = json.loads(data) if len(data) <= MAX_BYTES else None
    except (ValueError, OSError, RecursionError):
        value = None
    try:
        return _manifest(value if isinstance(value, dict) else {}, folder)
    except ValueError as error:
        raise BenchmarkError(f"{path}: {error}") from None


def write_manifest(
    folder: Path, name: str, version: str, fingerprint: str, attachment: Attachment = NOT_ATTACHED
) -> None:
    """Write the manifest of a benchmark."""
    entries: dict[str, Any] = {"name": name, "version": version, "fingerprint": fingerprint}
    if attachment.root is not None:
        entries["root"] = str(attachment.root.resolve())
    if attachment.licensed:
        entries["licensed"] = True
    (folder / MANIFEST_NAME).write_text(
        json.dumps(entries, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def _manifest(value: dict[str, Any], folder: Path) -> Manifest:
    """Raise ValueError with what is wrong."""
    name, version, fingerprint = (value.get(key) for key in ("name", "version", "fingerprint"))
    if not (is_line(name) and is_line(version) and (fingerprint is None or is_line(fingerprint))):
        raise ValueError("needs a name, a version and a fingerprint, each a short text")
    default = value.get("default_config")
    if not (default is None or (is_line(default) and _CONFIG_NAME.fullmatch(default))):
        raise ValueError("default_config is not the plain name of a folder beside it")
    return Manifest(
        name,
        version,
        fingerprint,
        _attachment(value, folder),
        default,
        {config: _config(config, entry) for config, entry in _object(value, "configs").items()},
        {path: _text(entry, "sha256", path) for path, entry in _object(value, "files").items()},
    )


def _attachment(value: dict[str, Any], folder: Path) -> Attachment:
    root, licensed = value.get("root"), value.get("licensed", False)
    if not (root is None or isinstance(root, str)) or not isinstance(licensed, bool):
        raise ValueError("root is the path of a folder, licensed is true or false")
    return Attachment(None if root is None else folder / root, licensed)


def _config(name: str, entry: Any) -> ConfigEntry:
    fingerprint = _text(entry, "fingerprint", name)
    splits = _object(entry, "splits")
    return ConfigEntry(
        fingerprint,
        {split: _text(of, "fingerprint", f"{name}, {split}") for split, of in splits.items()},
    )


def _object(value: dict[str, Any], key: str) -> dict[str, Any]:
    found = value.get(key, {})
    if not isinstance(found, dict):
        raise ValueError(f"{key} is not an object but {type(found).__name__}")
    return found


def _text(entry: Any, key: str, place: str) -> str:
    found = entry.get(key) if isinstance(entry, dict) else None
    if not is_line(found):
        raise ValueError(f"{place[:100]!r} is described without its {key}")
    return str(found)
