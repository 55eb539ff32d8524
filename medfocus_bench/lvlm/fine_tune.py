"""Fine-tunes that are shipped as an adapter (PEFT): a few weights, and the name of the LVLM they change."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from medfocus_bench.data.hub.client import hub_client, hub_if_it_answers
from medfocus_bench.errors import InputError

CONFIG: Final = "adapter_config.json"
WEIGHTS: Final = "adapter_model.safetensors"
_PICKLE: Final = "adapter_model.bin"


@dataclass(frozen=True, slots=True)
class FineTune:
    """An adapter in a folder: `base` names the LVLM that it changes, at `revision` where that is pinned.

    `fetched`: the folder is that of a Hub id in the cache.
    """

    folder: Path
    base: str
    revision: str | None = None
    fetched: bool = False

    @property
    def identity(self) -> str:
        """SHA-256 of what the adapter is made of."""
        digest = sha256()
        for name in (CONFIG, WEIGHTS):
            content = (self.folder / name).read_bytes()
            digest.update(f"{name} {len(content)}\n".encode() + content)
        return digest.hexdigest()


def fine_tune(folder: str | Path) -> FineTune | None:
    """The adapter in a folder; None where there is none.

    A relative `base_model_name_or_path` is looked for beside the adapter first. Raises InputError for a
    config that names no base, one that would import other code, weights that are a pickle or missing, and
    whole weights beside the adapter.
    """
    folder = Path(folder)
    path = folder / CONFIG
    if not path.is_file():
        return None
    settings = _settings(path)
    base = settings.get("base_model_name_or_path")
    if not isinstance(base, str) or not base.strip():
        raise InputError(
            f"{path}: names no base_model_name_or_path; write the key, the folder or the Hub id of the LVLM "
            "there that the adapter was trained on"
        )
    if settings.get("megatron_config"):
        raise InputError(f"{path}: megatron_config asks for another library to be imported; remove it")
    if any(folder.glob("model*.safetensors")):
        raise InputError(
            f"{folder}: holds an adapter and whole weights, and either could be meant; move one of them away"
        )
    _check_weights(folder)
    beside = folder / base
    if any((beside / name).is_file() for name in ("config.json", CONFIG)):
        base = str(beside.resolve())
    revision = settings.get("revision")
    return FineTune(folder, base, revision if isinstance(revision, str) and revision else None)


def fetched_fine_tune(source: str, revision: str | None) -> FineTune | None:
    """The adapter of a Hub id, fetched; None where it holds none or the Hub does not have it.

    From the cache alone where the Hub does not answer. Raises as `fine_tune`.
    """
    client = hub_client()
    with hub_if_it_answers(source):
        try:
            config = Path(client.hf_hub_download(source, CONFIG, revision=revision))
        except Exception:  # not there, not in the cache, a broken connection: loading the model says it
            return None
        for name in (WEIGHTS, _PICKLE):  # `fine_tune` says which is missing
            with suppress(Exception):
                client.hf_hub_download(source, name, revision=config.parent.name)
                break
    found = fine_tune(config.parent)
    return None if found is None else replace(found, fetched=True)


def _settings(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: holds no object of JSON")
    return found


def _check_weights(folder: Path) -> None:
    if (folder / WEIGHTS).is_file():
        return
    if (folder / _PICKLE).exists():
        raise InputError(
            f"{folder / _PICKLE}: is a pickle, which could run code when it is read; save the adapter anew "
            f"with peft, as {WEIGHTS}"
        )
    raise InputError(f"{folder}: holds {CONFIG} and no {WEIGHTS}; fetch it again")
