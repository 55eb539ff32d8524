"""A finer vocabulary than the paper's: zones of the lungs, and what lies outside of the named anatomy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from medfocus_bench.data.concepts import LUNG_ZONES
from medfocus_bench.geometry import BoolArray, tight_box
from medfocus_bench.medfocus.concept_mask import ConceptMask

_SIDES: Final = ("right", "left")


def with_lung_zones(regions: Mapping[str, ConceptMask]) -> dict[str, ConceptMask]:
    """The regions, with thirds of each lung and the surroundings of both, where both lungs were found.

    The surroundings are the pixels that no region holds: the shoulders (above the lungs), the chest walls
    (beside them) and the upper abdomen (below them), right and left of the middle between the lungs. They are
    not anatomical concepts: with them, nothing in the image is beyond the reach of an intervention.
    """
    found = {name: region for name, region in regions.items() if region}
    lungs = {side: found.get(f"{side} lung") for side in _SIDES}
    more: dict[str, ConceptMask] = {}
    for side, lung in lungs.items():
        if lung is not None:
            more |= {f"{side} {zone} lung zone": region for zone, region in _thirds(lung).items()}
    if all(lung is not None for lung in lungs.values()):
        more |= _surroundings(found)
    return {**found, **{name: region for name, region in more.items() if region}}


def _thirds(lung: ConceptMask) -> dict[str, ConceptMask]:
    """Thirds of a lung's height, from the top."""
    _, top, _, bottom = lung.box
    edges = np.round(np.linspace(top, bottom, len(LUNG_ZONES) + 1)).astype(int)
    zones = {}
    for zone, start, stop in zip(LUNG_ZONES, edges[:-1], edges[1:], strict=True):
        mask = np.zeros_like(lung.mask)
        mask[start:stop] = lung.mask[start:stop]
        zones[zone] = ConceptMask(mask)
    return zones


def _surroundings(found: Mapping[str, ConceptMask]) -> dict[str, ConceptMask]:
    rest = ~np.logical_or.reduce([region.mask for region in found.values()])
    lungs = [found[f"{side} lung"].mask for side in _SIDES]
    _, top, _, bottom = tight_box(lungs[0] | lungs[1]).astype(int)
    columns = [float(np.flatnonzero(lung.any(axis=0)).mean()) for lung in lungs]
    middle = sum(columns) / 2
    # The patient's right lies on the left of a frontal picture; a mirrored one is told by its lungs.
    on_right = (np.arange(rest.shape[1]) < middle) == (columns[0] < columns[1])
    bands = {"shoulder": slice(0, top), "chest wall": slice(top, bottom), "abdomen": slice(bottom, None)}
    regions: dict[str, ConceptMask] = {}
    for band, rows in bands.items():
        for side, columns_of in zip(_SIDES, (on_right, ~on_right), strict=True):
            mask: BoolArray = np.zeros_like(rest)
            mask[rows] = rest[rows] & columns_of
            regions[f"{side} {band}"] = ConceptMask(mask)
    return regions
