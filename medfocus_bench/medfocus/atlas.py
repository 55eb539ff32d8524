"""Localisation by registration: every reference is brought onto the image, their labels are fused.

1. Constant borders are cut off; what is left is drawn on a grid of `size`^2 pixels, its grey levels replaced
   by their ranks (so that no exposure matters) and normalised by local mean and deviation.
2. Pose: on a coarse grid the normalised cross-correlation with each reference, for a set of rotations,
   scales and aspects and all shifts at once (by FFT), of the picture and of its negative.
3. From the pose that fits best an affine registration by correlation (SimpleITK), then symmetric-forces
   demons from coarse to fine.
4. Labels are fused with weights that fall with the local difference of image and moved reference, which is
   weighted voting as in joint label fusion without its correlations (Artaechevarria, TMI 2009).

Nothing is trained. SimpleITK runs on one thread here: the same image gives the same regions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any, Final

import numpy as np
from scipy import ndimage

from medfocus_bench.errors import require
from medfocus_bench.geometry import BoolArray, UInt8Image
from medfocus_bench.medfocus.concept_mask import ConceptMask
from medfocus_bench.medfocus.pose import Pose, best_poses
from medfocus_bench.medfocus.reference import ReferencePool
from medfocus_bench.medfocus.registration_grid import Field, RegistrationGrid

_DIFFERENCE_FLOOR: Final = 0.02
"""Added to a local squared difference: the weight of a perfect match is finite."""

_KEPT: Final = 384
"""Images whose votes are kept, about 300 MB in all: LVLMs and modes ask about the same ones in turn."""


@dataclass(frozen=True, slots=True)
class AtlasSettings:
    """`size`, `coarse`: side of a square image's grid, in pixels, for registration and for the pose.

    `local`: radius (standard deviation) of the local normalisation, as a share of `size`; `affine_steps`: the
    most steps of the affine registration at each of its two levels; `demons`: (shrink factor, iterations,
    smoothing in pixels) by level; `references`: how many of the pool, the best by pose, are registered;
    `weight_radius` (share of `size`), `weight_power`: labels count as 1 / difference^power.
    """

    size: int = 128
    coarse: int = 32
    local: float = 0.06
    affine_steps: int = 60
    demons: tuple[tuple[int, int, float], ...] = ((4, 60, 1.0), (2, 60, 1.2), (1, 30, 1.5))
    references: int = 16
    weight_radius: float = 0.05
    weight_power: float = 6.0


def localise_by_atlas(
    image: UInt8Image, pool: ReferencePool, settings: AtlasSettings | None = None
) -> dict[str, ConceptMask]:
    """The region of each of the pool's concepts in an image, uint8 (height, width), native pixels.

    The last images' results are kept; a pool is known by identity, so do not change its arrays. A concept
    that no reference brings into view has an empty region. Raises InputError for an image without contrast
    or with the shape of a strip, and where SimpleITK is missing.
    """
    settings = settings or AtlasSettings()
    target = _grid_of(image, settings)
    votes = _votes(target, pool, settings)
    return {concept: ConceptMask(target.native(share) > 0.5) for concept, share in votes.items()}


@dataclass(frozen=True, slots=True, eq=False)
class _Reference:
    grid: RegistrationGrid
    labels: Mapping[str, Field]


def _grid_of(image: UInt8Image, settings: AtlasSettings) -> RegistrationGrid:
    return RegistrationGrid.of(image, settings.size, settings.coarse, settings.local)


@lru_cache(maxsize=2)
def _references(pool: ReferencePool, settings: AtlasSettings) -> tuple[_Reference, ...]:
    grids = [_grid_of(image, settings) for image in pool.images]
    return tuple(
        _Reference(grid, {concept: grid.resampled(mask) for concept, mask in masks.items()})
        for grid, masks in zip(grids, pool.masks, strict=True)
    )


@lru_cache(maxsize=_KEPT)
def _votes(target: RegistrationGrid, pool: ReferencePool, settings: AtlasSettings) -> dict[str, Field]:
    """For each concept the share of the weighted votes that a pixel of the fine grid belongs to it."""
    require("SimpleITK")
    sitk: Any = import_module("SimpleITK")
    references = _references(pool, settings)
    sign, poses = best_poses(target.coarse, [reference.grid.coarse for reference in references])
    seen = np.float32(sign) * target.fine
    fixed = sitk.GetImageFromArray(seen)
    votes = {concept: np.zeros(seen.shape, dtype=np.float32) for concept in pool.concepts}
    weights = {concept: np.full(seen.shape, 1e-9, dtype=np.float32) for concept in pool.concepts}
    best = np.argsort([-pose.score for pose in poses], kind="stable")[: settings.references]
    for reference, pose in ((references[number], poses[number]) for number in best):
        with _quiet(sitk):
            transform = _registered(sitk, fixed, target, reference.grid, pose, settings)
        moved, inside = _moved(sitk, reference.grid.fine, fixed, transform)
        local = ndimage.gaussian_filter(np.square(moved - seen), settings.weight_radius * settings.size)
        weight = inside / (local + _DIFFERENCE_FLOOR) ** settings.weight_power
        for concept, label in reference.labels.items():
            votes[concept] += weight * _moved(sitk, label, fixed, transform)[0]
            weights[concept] += weight
    return {concept: votes[concept] / weights[concept] for concept in pool.concepts}


def _registered(
    sitk: Any,
    fixed: Any,
    target: RegistrationGrid,
    reference: RegistrationGrid,
    pose: Pose,
    settings: AtlasSettings,
) -> Any:
    """The transform from the image's fine grid to a reference's: affine, then a displacement field."""
    start = _affine_start(sitk, target, reference, pose)
    affine = _affine(sitk, fixed, reference.fine, start, settings.affine_steps)
    seen = sitk.GetArrayViewFromImage(fixed)
    moved, inside = _moved(sitk, reference.fine, fixed, affine)
    before, inside_before = _moved(sitk, reference.fine, fixed, start)
    lost = inside.sum() < 0.5 * inside_before.sum()
    if lost or _correlation(seen, moved, inside) < _correlation(seen, before, inside_before):
        affine, moved, inside = start, before, inside_before
    # Where the reference shows nothing it must not pull either.
    moving = sitk.GetImageFromArray(np.where(inside, moved, seen))
    demons = sitk.FastSymmetricForcesDemonsRegistrationFilter()
    demons.SetNumberOfThreads(1)
    demons.SetSmoothDisplacementField(True)
    field = None
    for shrink, iterations, smoothing in settings.demons:
        demons.SetNumberOfIterations(iterations)
        demons.SetStandardDeviations(smoothing)
        level = [_shrunk(sitk, image, shrink) for image in (fixed, moving)]
        field = demons.Execute(*level, *([] if field is None else [sitk.Resample(field, level[0])]))
    if field is None:
        return affine
    fine = sitk.Cast(sitk.Resample(field, fixed), sitk.sitkVectorFloat64)
    return sitk.CompositeTransform([affine, sitk.DisplacementFieldTransform(fine)])


def _affine_start(sitk: Any, target: RegistrationGrid, reference: RegistrationGrid, pose: Pose) -> Any:
    """A pose between the coarse grids as a transform between the fine ones, (x, y) as SimpleITK has it."""
    matrix = np.diag(reference.pixel) @ pose.matrix @ np.diag(1 / target.pixel)
    centre = (np.array(target.fine.shape) - 1) / 2
    coarse = (centre + 0.5) / target.pixel - 0.5
    place = (pose.matrix @ coarse + pose.shift + 0.5) * reference.pixel - 0.5
    transform = sitk.AffineTransform(2)
    transform.SetCenter(centre[::-1].tolist())
    transform.SetMatrix(matrix[::-1, ::-1].ravel().tolist())
    transform.SetTranslation((place - centre)[::-1].tolist())
    return transform


def _affine(sitk: Any, fixed: Any, reference: Field, start: Any, steps: int) -> Any:
    transform = sitk.AffineTransform(start)
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsCorrelation()
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(2.0, 1e-2, steps)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2])
    method.SetSmoothingSigmasPerLevel([2, 1])
    method.SetInitialTransform(transform, inPlace=True)
    try:
        method.Execute(fixed, sitk.GetImageFromArray(reference))
    except RuntimeError:  # the two no longer overlap
        return start
    return transform


def _moved(sitk: Any, picture: Field, fixed: Any, transform: Any) -> tuple[Field, BoolArray]:
    """A reference's picture on the image's fine grid, and where there is one."""
    outside = -1e3
    moved = sitk.Resample(sitk.GetImageFromArray(picture), fixed, transform, sitk.sitkLinear, outside)
    array = sitk.GetArrayFromImage(moved)
    inside = array != np.float32(outside)
    return np.where(inside, array, np.float32(0)), inside


def _shrunk(sitk: Any, image: Any, factor: int) -> Any:
    if factor == 1:
        return image
    return sitk.Shrink(sitk.DiscreteGaussian(image, (factor / 2) ** 2), [factor, factor])


def _correlation(one: Field, other: Field, inside: BoolArray) -> float:
    if inside.sum() < 2:
        return -1.0
    first, second = (values[inside] - values[inside].mean() for values in (one, other))
    return float((first * second).sum() / np.sqrt((first**2).sum() * (second**2).sum() + 1e-9))


@contextmanager
def _quiet(sitk: Any) -> Iterator[None]:
    """Without what ITK writes to the terminal where two pictures do not overlap, which is seen to here."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.GlobalWarningDisplayOff()
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)
