"""The identity of an LVLM's checkpoint, by its content: one key may name several."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final

from medfocus_bench.data.derived import RANDOM
from medfocus_bench.data.truth import second_names
from medfocus_bench.lvlm.fine_tune import fine_tune
from medfocus_bench.lvlm.models import HUB_LVLMS
from medfocus_bench.lvlm.registry import base_of, shipped_lvlms, trained_source

if TYPE_CHECKING:
    from medfocus_bench.lvlm.adapter import HuggingFaceLVLM

_LOADED: Final = (".json", ".jinja", ".txt", ".model", ".safetensors", ".bin")
"""Endings of the files of a checkpoint that decide what it computes."""

_WHOLE: Final = 64 * 2**20
"""Bytes up to which a file is read whole."""

_BLOCKS: Final = 64
"""How many blocks are read of a larger one, evenly spaced from its first to its last byte."""

_BLOCK: Final = 64 * 2**10
"""Bytes of a block."""


def folder_identity(source: str) -> str | None:
    """The identity of the checkpoint of a shipped LVLM or of a local folder.

    A SHA-256 over the names, sizes and bytes of its files; of a file over 64 MiB, 64 blocks count. None for a
    Hub id, the commit of which `loaded_identity` knows, and for an adapter of one. A random decoder is named
    with its seed, and of an adapter base and adapter count.
    """
    trained, seed = trained_source(source)
    source = second_names().get(str(trained), str(trained))
    tune = fine_tune(source)
    if tune is not None:
        base = folder_identity(str(base_of(tune)))
        whole = None if base is None else sha256(f"{base} {tune.identity}".encode()).hexdigest()
        return None if whole is None else f"sha256:{whole}{_drawn(seed)}"
    folder = shipped_lvlms().get(source, Path(source))
    if source in HUB_LVLMS or not (folder / "config.json").is_file():
        return None
    digest = sha256()
    for path in sorted(path for path in folder.iterdir() if path.suffix in _LOADED and path.is_file()):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
        for content in _content(path):
            digest.update(content)
    return f"sha256:{digest.hexdigest()}{_drawn(seed)}"


def loaded_identity(lvlm: HuggingFaceLVLM) -> str | None:
    """The commit of an LVLM that came from the Hub; None for one of a folder.

    Of an adapter, where it or its base came from there, the base and the SHA-256 of the adapter's files.
    """
    commit = getattr(lvlm.model.config, "_commit_hash", None)
    found = None if commit is None else f"commit:{commit}"
    tune = lvlm.tune
    if tune is not None and (found is not None or tune.fetched):
        found = f"{found or folder_identity(str(lvlm.source))}+sha256:{tune.identity}"
    return None if found is None else f"{found}{_drawn(trained_source(lvlm.key)[1])}"


def _drawn(seed: int | None) -> str:
    return "" if seed is None else f"{RANDOM}-{seed}"


def _content(path: Path) -> Iterator[bytes]:
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= _WHOLE:
            yield file.read()
            return
        for number in range(_BLOCKS):
            file.seek((size - _BLOCK) * number // (_BLOCKS - 1))
            yield file.read(_BLOCK)
