"""The findings: how each is drawn from a seed and what it does to the attenuation.

A finding is an *effect*: attenuation before -> attenuation after. Its mask is where the two differ visibly,
so the truth about its place is the rendering itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medfocus_bench.phantom.anatomy import (
    SIDES,
    Anatomy,
    Canvas,
    Field,
    Side,
    clavicle_points,
    heart_field,
    rib_points,
    side_sign,
    soft_inside,
    soft_step,
)

TISSUE: Final = 0.62
"""Attenuation of consolidated or compressed lung, and of fluid."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding of one patient: its side, its severity in [0, 1], two free place coordinates in [-1, 1]."""

    name: str
    side: Side
    severity: float
    u: float
    v: float
    seed: int

    @classmethod
    def sample(cls, name: str, rng: np.random.Generator) -> Finding:
        """A finding of that name at a random place."""
        side = SIDES[int(rng.integers(2))]
        u, v = rng.uniform(-1, 1, 2)
        return cls(name, side, float(rng.random()), float(u), float(v), int(rng.integers(2**31)))

    @property
    def region(self) -> tuple[str, Side]:
        """The rough region: two findings in one region would hide each other."""
        return _KINDS[self.name][1], self.side if self.name not in _UNSIDED else "left"


def apply_finding(finding: Finding, before: Field, canvas: Canvas, anatomy: Anatomy) -> Field:
    """The attenuation with the finding."""
    effect, _ = _KINDS[finding.name]
    return np.asarray(effect(finding, before, canvas, anatomy), dtype=np.float32)


Change = npt.NDArray[np.floating]


def _cardiomegaly(finding: Finding, before: Field, canvas: Canvas, anatomy: Anatomy) -> Change:
    enlarged = heart_field(canvas, anatomy, 1.36 + 0.2 * finding.severity)
    return before + (TISSUE + 0.04 - before).clip(0) * enlarged


def _effusion(finding: Finding, before: Field, canvas: Canvas, anatomy: Anatomy) -> Change:
    lung = anatomy.lungs[finding.side]
    level = lung.dome - (8 + 34 * finding.severity) * anatomy.scale
    meniscus = 14 * ((canvas.x - np.float32(lung.x)) * side_sign(finding.side) / lung.half_width).clip(-1, 1)
    fluid = soft_step(np.asarray(canvas.y - (level - meniscus), np.float32), 2.2) * canvas.lung(lung)
    return np.asarray(before + (TISSUE + 0.08 - before).clip(0) * fluid)


def _in_lung(
    finding: Finding, anatomy: Anatomy, across: float, up: float, down: float
) -> tuple[float, float]:
    lung = anatomy.lungs[finding.side]
    span = (down + up) / 2 * finding.v + (down - up) / 2
    return lung.x + across * lung.half_width * finding.u, lung.y + span * lung.half_height


def _nodule(finding: Finding, before: Field, canvas: Canvas, anatomy: Anatomy) -> Change:
    x, y = _in_lung(finding, anatomy, 0.42, 0.55, 0.25)
    radius = 6.0 + 2.4 * finding.severity
    return before + (0.30 + 0.08 * finding.severity) * soft_inside(canvas.ellipse(x, y, radius, radius), 0.16)


def _mass(finding: Finding, before: Field, canvas: Canvas, anatomy: Anatomy) -> Change:
    x, y = _in_lung(finding, anatomy, 0.26, 0.45, 0.2)
    radius = 13.0 + 5 * finding.severity
    lobes = np.random.default_rng(finding.seed).uniform(-0.09, 0.09, (3, 2))
    angle = np.arctan2(canvas.y - np.float32(y), canvas.x - np.float32(x))
    outline = 1 + sum(a * np.cos((k + 2) * angle + 30 * b) for k, (a, b) in enumerate(lobes.tolist()))
    shape = canvas.ellipse(x, y, radius, radius * 0.9) / outline**2
    return before + (0.22 + 0.06 * finding.severity) * soft_inside(shape.astype(np.float32), 0.12)


def _consolidation(finding: Finding, before: Field, canvas: Canvas, anatomy: Anatomy) -> Change:
    lung = anatomy.lungs[finding.side]
    x, y = _in_lung(finding, anatomy, 0.15, 0.35, 0.3)
    patch = np.exp(-(canvas.ellipse(x, y, 0.62 * lung.half_width, 17 + 7 * finding.severity) ** 2))
    grain = _texture(finding.seed, canvas, 4.5)
    haze = (0.27 + 0.06 * finding.severity) * (1 + 0.22 * grain)
    return np.asarray(before + np.clip(haze, 0, 1) * patch * canvas.lung(lung))


def _texture(seed: int, canvas: Canvas, width: float) -> Field:
    """Unit-variance noise of that correlation width, the same at every size of the picture."""
    coarse = round(224 / width)
    noise = np.random.default_rng(seed).standard_normal((coarse, coarse)).astype(np.float32)
    blurred = ndimage.gaussian_filter(noise, 0.7)
    smooth = ndimage.zoom(blurred, canvas.size / coarse, order=1, grid_mode=True, mode="nearest")
    return np.asarray(smooth[: canvas.size, : canvas.size] / smooth.std())


def _pneumothorax(finding: Finding, before: Field, canvas: Canvas, anatomy: Anatomy) -> Change:
    lung, sign = anatomy.lungs[finding.side], side_sign(finding.side)
    depth = 0.17 + 0.13 * finding.severity
    whole = canvas.lung(lung)
    shape = canvas.ellipse(
        lung.x - sign * depth * 0.62 * lung.half_width,
        lung.y + depth * 0.75 * lung.half_height,
        lung.half_width * (1 - depth * 0.62),
        lung.half_height * (1 - depth * 0.55),
        lung.tilt,
        2.4,
    )
    collapsed = soft_inside(shape, 0.05)
    rim = np.exp(-(((shape - 1) / 0.055) ** 2)) * whole
    gas = whole * (1 - collapsed) * soft_step(lung.y + 0.35 * lung.half_height - canvas.y, 14)
    line = rim * soft_step(lung.y + 0.35 * lung.half_height - canvas.y, 14)
    return np.asarray(before - 0.17 * gas * before.clip(0, 1) / 0.3 + 0.15 * line)


def _hilar_enlargement(finding: Finding, before: Field, canvas: Canvas, anatomy: Anatomy) -> Change:
    x, y, _ = anatomy.hila[finding.side]
    sign = side_sign(finding.side)
    swollen = soft_inside(
        canvas.ellipse(x + sign * 5, y, 11 + 3 * finding.severity, 15 + 4 * finding.severity, sign * 0.2),
        0.22,
    )
    return before + (TISSUE + 0.12 - before).clip(0) * 0.85 * swollen


def _atelectasis(finding: Finding, before: Field, canvas: Canvas, anatomy: Anatomy) -> Change:
    lung, sign = anatomy.lungs[finding.side], side_sign(finding.side)
    y = lung.dome - (20 + 10 * finding.v) * anatomy.scale
    half = (0.55 + 0.15 * finding.severity) * lung.half_width
    x, slope = lung.x + 4 * finding.u, sign * 0.22
    plates = [
        ([(x - half, y + slope * half - dy), (x, y - 1 - dy), (x + half, y - slope * half - dy)], 3.4, 1.0)
        for dy in (0.0, 9.0)
    ]
    return before + (0.28 + 0.06 * finding.severity) * canvas.strokes(plates, 0.9) * canvas.lung(lung)


def clavicle_strokes(
    points: list[tuple[float, float]], scale: float
) -> list[tuple[list[tuple[float, float]], float, float]]:
    """A clavicle as a cortex around a less dense core."""
    return [(points, 7.4 * scale, 1.0), (points, 4.2 * scale, 0.72)]


def clavicle_field(canvas: Canvas, anatomy: Anatomy, side: Side) -> Field:
    """An unbroken clavicle."""
    lines = clavicle_strokes(clavicle_points(anatomy, side), anatomy.scale)
    return canvas.once(("clavicle", side), lambda: canvas.strokes(lines, 0.7))


CLAVICLE: Final = 0.2
"""Attenuation of a clavicle."""


def _clavicle_fracture(finding: Finding, before: Field, canvas: Canvas, anatomy: Anatomy) -> Change:
    points = clavicle_points(anatomy, finding.side)
    sign = side_sign(finding.side)
    at = 7 + round(1.5 * finding.u)
    drop = 9.5 + 4.0 * finding.severity
    inner = points[: at + 1]
    outer = [(x - sign * 6, y + drop * (1 - 0.5 * t / 8)) for t, (x, y) in enumerate(points[at:])]
    whole = clavicle_field(canvas, anatomy, finding.side)
    broken = np.maximum(
        canvas.strokes(clavicle_strokes(inner, anatomy.scale), 0.7),
        canvas.strokes(clavicle_strokes(outer, anatomy.scale), 0.7),
    )
    return before + CLAVICLE * (broken - whole)


def _pacemaker(finding: Finding, before: Field, canvas: Canvas, anatomy: Anatomy) -> Change:
    x, y = anatomy.centre + (57 + 3 * finding.u) * anatomy.scale, anatomy.top + 31 + 3 * finding.v
    can = soft_inside(canvas.ellipse(x, y, 11 + 1.5 * finding.severity, 9, 0.15, 4), 0.07)
    hx, hy, *_ = anatomy.heart
    vein = [(x - 26, y - 11), (anatomy.centre - 4, y + 4), (anatomy.centre - 10, y + 40)]
    lead = _smooth([(x - 6, y - 7), *vein, (hx - 8, hy)])
    wire = canvas.strokes([(lead, 1.5, 1.0)], 0.4)
    return np.asarray(before + 0.9 * can + 0.55 * wire)


def _smooth(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """A curve near the points: corners cut three times (Chaikin)."""
    path = np.array(points)
    for _ in range(3):
        cut = np.stack([0.75 * path[:-1] + 0.25 * path[1:], 0.25 * path[:-1] + 0.75 * path[1:]], axis=1)
        path = np.concatenate([path[:1], cut.reshape(-1, 2), path[-1:]])
    return [(float(x), float(y)) for x, y in path]


def _rib_lesion(finding: Finding, before: Field, canvas: Canvas, anatomy: Anatomy) -> Change:
    number = 3 + round(1.5 + 1.5 * finding.v)
    points = rib_points(anatomy, finding.side, number)
    (x1, y1), (x2, y2) = points[11], points[13]
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    tilt = float(np.arctan2(y2 - y1, x2 - x1))
    length = 9.5 + 2.5 * finding.severity
    return before + (0.30 + 0.1 * finding.severity) * soft_inside(
        canvas.ellipse(x, y, length, 6.4, tilt), 0.3
    )


Effect = Callable[[Finding, Field, Canvas, Anatomy], Change]

_KINDS: Final[dict[str, tuple[Effect, str]]] = {
    "cardiomegaly": (_cardiomegaly, "heart"),
    "pleural effusion": (_effusion, "base"),
    "nodule": (_nodule, "lung"),
    "mass": (_mass, "lung"),
    "consolidation": (_consolidation, "lung"),
    "pneumothorax": (_pneumothorax, "lung"),
    "hilar enlargement": (_hilar_enlargement, "hilum"),
    "atelectasis": (_atelectasis, "base"),
    "clavicle fracture": (_clavicle_fracture, "clavicle"),
    "pacemaker": (_pacemaker, "device"),
    "rib lesion": (_rib_lesion, "rib"),
}
"""The effect and the rough region of each finding."""

FINDINGS: Final = tuple(_KINDS)

_UNSIDED: Final = ("cardiomegaly", "pacemaker")
