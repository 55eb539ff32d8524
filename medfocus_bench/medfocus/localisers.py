"""Where the concepts of reference radiographs lie in another radiograph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np

from medfocus_bench.errors import InputError
from medfocus_bench.geometry import BoolArray, FloatArray, Frame, UInt8Image
from medfocus_bench.medfocus.atlas import AtlasSettings, localise_by_atlas
from medfocus_bench.medfocus.concept_mask import ConceptMask
from medfocus_bench.medfocus.grids import GridImage, grid_image, grid_mask
from medfocus_bench.medfocus.reference import ReferencePool, Selection
from medfocus_bench.medfocus.transport import Problem, Transport, transport

Localiser = Literal["transport", "atlas"]

MASS: Final = 0.75
"""The share of a concept's mass that its region holds."""


def localise(
    image: UInt8Image, pool: ReferencePool, method: Localiser = "transport", **settings: Any
) -> dict[str, ConceptMask]:
    """The region of each of the pool's concepts in `image`, uint8 (height, width), native pixels.

    `transport`: the paper's way, from the one reference that is closest; settings: those of
    `TransportSettings`. `atlas`: all references, registered one by one, their labels fused; settings: those
    of `atlas.AtlasSettings`. A concept that is lost on the way has an empty region. Raises InputError for an
    image that holds nothing to localise, and for an unknown method.
    """
    if image.dtype != np.uint8 or image.ndim != 2:
        raise InputError(f"to localise anatomy takes uint8 (height, width), not {image.dtype} {image.shape}")
    if method == "transport":
        return localise_by_transport(image, pool, TransportSettings(**settings))
    if method == "atlas":
        return localise_by_atlas(image, pool, AtlasSettings(**settings))
    raise InputError(f"no localiser {method!r}; there are transport and atlas")


@dataclass(frozen=True, slots=True)
class TransportSettings:
    """The paper's: a 56 x 56 grid, eps 0.05, lam 0.1, three quarters of the mass, selection by cost."""

    grid: int = 56
    problem: Problem = field(default_factory=Problem)
    mass: float = MASS
    selection: Selection = "cost"


def localise_by_transport(
    image: UInt8Image, pool: ReferencePool, settings: TransportSettings | None = None
) -> dict[str, ConceptMask]:
    """Concepts carried over from the closest reference by unbalanced transport (paper, section 5).

    Of the mass that arrives from a concept's pixels the region is the smallest set of grid cells that holds
    `mass` of it. Where the paper's code marks one pixel of each such cell, the whole cell is taken here.
    Raises InputError for an image that holds nothing to localise, and where eps and lam leave no mass at all.
    """
    settings = settings or TransportSettings()
    try:
        number = pool.closest(image, settings.selection)
    except ValueError as error:
        raise InputError(str(error)) from None
    moved, target, concepts = carried(image, pool, number, settings)
    if not moved.mass[0] > 0:
        problem = settings.problem
        raise InputError(
            f"transport with eps {problem.eps:g} and lam {problem.lam:g} carries no mass from the closest "
            "reference to the picture; take a larger eps or lam"
        )
    arrived = moved.push(np.stack(list(concepts.values())))
    frame = Frame(image.shape[1], image.shape[0])
    return {
        concept: ConceptMask(_native(smallest_set(heat, target.inside, settings.mass), frame))
        for concept, heat in zip(concepts, arrived, strict=True)
    }


def carried(
    image: UInt8Image, pool: ReferencePool, number: int, settings: TransportSettings
) -> tuple[Transport, GridImage, Mapping[str, BoolArray]]:
    """The transport from a reference to an image, the image's grid, and the reference's concepts on it."""
    source, target = grid_image(pool.images[number], settings.grid), grid_image(image, settings.grid)
    scale = source.cost_scale(target)
    moved = transport(source.support, target.support, settings.problem, scale=scale)
    masks = {concept: grid_mask(mask, settings.grid) for concept, mask in pool.masks[number].items()}
    return moved, target, masks


def smallest_set(heat: FloatArray, inside: BoolArray, share: float) -> BoolArray:
    """The fewest cells inside that hold a share of the heat; of equal ones the first in raster order."""
    chosen = np.zeros(heat.shape, dtype=np.bool_)
    places = np.flatnonzero(inside)
    values = heat.ravel()[places]
    order = np.argsort(-values, kind="stable")
    held = np.cumsum(values[order])
    if len(held) and held[-1] > 0:
        count = int(np.searchsorted(held, share * held[-1])) + 1
        chosen.ravel()[places[order[:count]]] = True
    return chosen


def _native(cells: BoolArray, frame: Frame) -> BoolArray:
    """Cells of the model frame as pixels of the image: each takes the cell that its centre lies in."""
    left, top, right, bottom = frame.content
    rows, columns = (
        ((np.arange(count) + 0.5) / count * (end - start) + start) / frame.size * len(cells)
        for count, start, end in ((frame.height, top, bottom), (frame.width, left, right))
    )
    return np.asarray(cells[rows.astype(np.intp)][:, columns.astype(np.intp)])
