"""MedFocus: anatomical concepts, where they lie, and which of them the answer depends on."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medfocus_bench.medfocus.concept_mask import ConceptMask as ConceptMask
    from medfocus_bench.medfocus.localisers import localise as localise
    from medfocus_bench.medfocus.reference import ReferencePool as ReferencePool

_HOMES = {"ReferencePool": "reference", "ConceptMask": "concept_mask", "localise": "localisers"}

__all__ = ["ConceptMask", "ReferencePool", "localise"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
