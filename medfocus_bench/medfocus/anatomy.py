"""The anatomy of the image that is explained: localised once, whichever model reads it."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from medfocus_bench.geometry import BoolArray, UInt8Image
from medfocus_bench.medfocus.concept_mask import ConceptMask
from medfocus_bench.medfocus.localisers import Localiser, localise
from medfocus_bench.medfocus.reference import ReferencePool, check_references, phantom_pool

PHANTOM: Final = "phantom"
"""Stands for the shipped pool."""

_HELD_BYTES: Final = 64 << 20
"""Memory for the cached regions, at a bit a pixel."""


@dataclass(frozen=True, slots=True)
class ConceptLocaliser:
    """Localises concepts: the pool of references (its first `pool_size`), and the localiser's way.

    `references` is the file of a pool, or "phantom". `segmenter` is the checkpoint of a MedSAM that refines
    the tight boxes (`phantom_sam` for phantoms), or None.
    """

    references: str = PHANTOM
    pool_size: int | None = None
    localiser: Localiser = "transport"
    settings: Mapping[str, Any] = field(default_factory=dict)
    segmenter: str | None = None
    segmenter_revision: str | None = None
    device: str = "cpu"

    def regions(self, image: UInt8Image) -> dict[str, ConceptMask]:
        """The region of every concept in an image (height, width) or (height, width, 3), native pixels.

        Kept for the images seen last, so that the models that share an image share its anatomy.
        """
        key = _digest(image, repr(self))
        held = _KEPT.get(key)
        if held is None:
            held = self._found(image)
            _KEPT.put(key, held)
        return held

    def _found(self, image: UInt8Image) -> dict[str, ConceptMask]:
        pool = _pool(self.references)
        if self.pool_size is not None and self.pool_size < len(pool):
            pool = pool.subset(range(self.pool_size))
        grey = image if image.ndim == 2 else np.asarray(Image.fromarray(image).convert("L"))
        regions = localise(grey, pool, self.localiser, **self.settings)
        return regions if self.segmenter is None else self._refined(image, regions)

    def _refined(self, image: UInt8Image, regions: dict[str, ConceptMask]) -> dict[str, ConceptMask]:
        """The masks that MedSAM makes of the tight boxes, from one encoding of the image.

        A concept that it finds nothing of keeps its region.
        """
        from medfocus_bench.attribution.vision_models import load_segmenter

        assert self.segmenter is not None
        segmenter = load_segmenter(self.segmenter, self.segmenter_revision, self.device)
        found = [name for name, region in regions.items() if region]
        masks = segmenter.segment(image, np.array([regions[name].box for name in found]).reshape(-1, 4))
        refined = {name: ConceptMask(mask) for name, mask in zip(found, masks, strict=True) if mask.any()}
        return {name: refined.get(name, region) for name, region in regions.items()}


def check_anatomy(references: str | None, segmenter: str | None) -> None:
    """Raise InputError for a file of references, or a segmenter, that cannot be used."""
    if segmenter is not None:
        from medfocus_bench.attribution.vision_models import check_vision_model

        check_vision_model("segmenter", segmenter)
    check_references(references)


class _Kept:
    """Regions by key, the least lately used forgotten first."""

    def __init__(self, budget: int) -> None:
        self._budget, self._held = budget, 0
        self._entries: OrderedDict[str, dict[str, tuple[UInt8Image, tuple[int, ...]]]] = OrderedDict()

    def get(self, key: str) -> dict[str, ConceptMask] | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return {name: ConceptMask(_unpacked(bits, shape)) for name, (bits, shape) in entry.items()}

    def put(self, key: str, regions: Mapping[str, ConceptMask]) -> None:
        entry = {name: (np.packbits(region.mask), region.mask.shape) for name, region in regions.items()}
        self._entries[key] = entry
        self._held += sum(bits.nbytes for bits, _ in entry.values())
        while self._held > self._budget and len(self._entries) > 1:
            _, gone = self._entries.popitem(last=False)
            self._held -= sum(bits.nbytes for bits, _ in gone.values())


_KEPT: Final = _Kept(_HELD_BYTES)


def _unpacked(bits: UInt8Image, shape: tuple[int, ...]) -> BoolArray:
    return np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape).astype(np.bool_)


def _digest(image: UInt8Image, how: str) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(image).tobytes())
    digest.update(f"{image.shape} {how}".encode())
    return digest.hexdigest()


@lru_cache(maxsize=4)
def _pool(references: str) -> ReferencePool:
    return phantom_pool() if references == PHANTOM else ReferencePool.load(Path(references))
