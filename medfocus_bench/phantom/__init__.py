"""The phantom track: synthetic chest radiographs, the LVLMs trained on them, and their evidence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

_FOLDER: Final = Path(__file__).parent

TRACK: Final = _FOLDER / "track"
"""The shipped benchmark; installed under the name `phantom`."""

PHANTOM_LVLMS: Final = {
    key: _FOLDER / "weights" / name
    for key, name in (
        ("phantom_qwen", "qwen-lesion"),
        ("phantom_qwen_twin", "qwen-twin"),
        ("phantom_gemma", "gemma-lesion"),
        ("phantom_gemma_twin", "gemma-twin"),
    )
}
"""The shipped tiny models by key, with the folder of their weights."""

EXACT: Final[Mapping[str, Any]] = {"device": "cpu", "dtype": "float32"}
"""How these models are loaded wherever what they say is built into the track, or held against it."""

TWINS: Final = ("phantom_qwen_twin", "phantom_gemma_twin")
"""Those that answer by a spurious mark."""
