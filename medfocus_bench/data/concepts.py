"""The anatomical vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from medfocus_bench.text import same, tidy

CONCEPTS: Final = (
    "cardiac silhouette",
    "left lung",
    "right lung",
    "mediastinum",
    "upper mediastinum",
    "left clavicle",
    "right clavicle",
    "left hilar structures",
    "right hilar structures",
    "left costophrenic angle",
    "right costophrenic angle",
)
"""The eleven concepts of the paper, from Chest ImaGenome. Left and right are the patient's."""

COMPOSITES: Final[Mapping[str, tuple[str, ...]]] = {
    "both lungs": ("left lung", "right lung"),
    "both clavicles": ("left clavicle", "right clavicle"),
    "both hila": ("left hilar structures", "right hilar structures"),
    "both costophrenic angles": ("left costophrenic angle", "right costophrenic angle"),
}
"""Unions of concepts that the paper asks for beside them."""

_NAMES: Final = frozenset((*CONCEPTS, *COMPOSITES))

LUNG_ZONES: Final = ("upper", "middle", "lower")
"""Thirds of a lung, from the top."""


@lru_cache(1024)  # every row of a benchmark names the same few
def concept_named(text: str) -> str:
    """The name in the vocabulary that `text` spells, whatever its case and spaces; another name tidied."""
    name = same(text)
    return name if name in _NAMES else tidy(text)
