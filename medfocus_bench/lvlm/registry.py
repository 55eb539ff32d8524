"""LVLMs by key."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Final

from medfocus_bench.errors import InputError

if TYPE_CHECKING:
    from medfocus_bench.lvlm.adapter import HuggingFaceLVLM

PHANTOM_LVLMS: Final = {
    "phantom_qwen": "qwen-lesion",
    "phantom_qwen_twin": "qwen-twin",
    "phantom_gemma": "gemma-lesion",
    "phantom_gemma_twin": "gemma-twin",
}
"""The shipped tiny models by key, with the folder of their weights."""

TWINS: Final = ("phantom_qwen_twin", "phantom_gemma_twin")
"""Those that answer by a spurious mark."""


def phantom_weights(key: str) -> Path:
    """The checkpoint folder of a shipped model."""
    return Path(str(files("medfocus_bench.phantom"))) / "weights" / PHANTOM_LVLMS[key]


def load_lvlm(key_or_folder: str | Path) -> HuggingFaceLVLM:
    """The LVLM of a registry key, or the checkpoint in a local folder.

    Raises InputError for an unknown key, or where the extra `attribution` (torch, transformers) is missing.
    """
    try:
        from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
    except ImportError as error:
        raise InputError(
            f"LVLMs need {error.name}: install the extra with pip install 'medfocus-bench[attribution]'"
        ) from None
    key = str(key_or_folder)
    if key in PHANTOM_LVLMS:
        return HuggingFaceLVLM(key, phantom_weights(key))
    folder = Path(key_or_folder)
    if (folder / "config.json").is_file():
        return HuggingFaceLVLM(folder.name, folder)
    raise InputError(f"no LVLM {key!r}; there are {', '.join(PHANTOM_LVLMS)}, or give a checkpoint folder")
