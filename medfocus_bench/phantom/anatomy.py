"""The anatomy of a phantom patient: parameters drawn from a seed, and the fields that they span.

All lengths are in *phantom units*: 224 of them are the side of the picture, whatever its size in pixels. x
runs to the right of the picture, which is the patient's left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy import ndimage

UNITS: Final = 224.0

Field = npt.NDArray[np.float32]
Side = Literal["right", "left"]

SIDES: Final[tuple[Side, Side]] = ("right", "left")
"""The patient's sides: the right one is on the left of the picture."""


def side_sign(side: Side) -> int:
    """-1 for the patient's right (left of the picture), +1 for the left."""
    return -1 if side == "right" else 1


@dataclass(frozen=True, slots=True)
class Lung:
    """A lung: an upright superellipse, cut below by the dome of its diaphragm."""

    x: float
    y: float
    half_width: float
    half_height: float
    tilt: float
    dome: float


@dataclass(frozen=True, slots=True)
class Anatomy:
    """One patient. `ribs` are offsets of the ribs from their regular places."""

    centre: float
    top: float
    habitus: float
    scale: float
    rotation: float
    lungs: dict[Side, Lung]
    heart: tuple[float, float, float, float, float]
    mediastinum: float
    hila: dict[Side, tuple[float, float, float]]
    clavicles: dict[Side, tuple[float, float]]
    ribs: tuple[float, ...]
    vessels: int

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Anatomy:
        """A patient within the normal range."""
        scale, top = rng.uniform(0.92, 1.05), rng.uniform(24, 34)
        centre = rng.uniform(107, 117)
        height = 82 * scale * rng.uniform(0.95, 1.04)
        lungs: dict[Side, Lung] = {}
        for side in SIDES:
            right = side == "right"
            lungs[side] = Lung(
                x=centre + side_sign(side) * 43 * scale + rng.uniform(-2, 2),
                y=top + height + rng.uniform(-2, 2),
                half_width=(37 if right else 34) * scale * rng.uniform(0.95, 1.05),
                half_height=height,
                tilt=-side_sign(side) * rng.uniform(0.04, 0.12),
                dome=top + (1.64 if right else 1.73) * height + rng.uniform(-4, 4),
            )
        bottom = max(lung.dome for lung in lungs.values())
        return cls(
            centre=centre,
            top=top,
            habitus=rng.uniform(0.95, 1.1),
            scale=scale,
            rotation=rng.uniform(-0.05, 0.05),
            lungs=lungs,
            heart=(
                centre + 12 * scale + rng.uniform(-2, 2),
                bottom - 21 * scale,
                32 * scale * rng.uniform(0.94, 1.06),
                29 * scale * rng.uniform(0.94, 1.06),
                rng.uniform(0.4, 0.75),
            ),
            mediastinum=13 * scale * rng.uniform(0.9, 1.15),
            hila={
                side: (
                    centre + side_sign(side) * 22 * scale,
                    top + height * (0.92 if side == "right" else 0.86) + rng.uniform(-2, 2),
                    rng.uniform(0.9, 1.1),
                )
                for side in SIDES
            },
            clavicles={side: (top + rng.uniform(6, 11), rng.uniform(0.16, 0.32)) for side in SIDES},
            ribs=tuple(rng.uniform(-1.2, 1.2, 9).tolist()),
            vessels=int(rng.integers(2**31)),
        )


@dataclass(frozen=True, slots=True)
class Position:
    """Where the patient stands before the film: moved right and down in phantom units, magnified."""

    right: float = 0.0
    down: float = 0.0
    magnification: float = 1.0

    def on_film(self, x: float, y: float) -> tuple[float, float]:
        """The place on the film of a point of the patient."""
        return (
            (x - 112) * self.magnification + 112 + self.right,
            (y - 112) * self.magnification + 112 + self.down,
        )


IN_THE_MIDDLE: Final = Position()


class Canvas:
    """The coordinates of the pixels in the patient's phantom units, and drawing in them."""

    def __init__(self, anatomy: Anatomy, size: int, position: Position) -> None:
        self.size = size
        self.pixel = UNITS / size
        self._position = position
        axis = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(self.pixel)
        axis -= np.float32(112)
        smaller = np.float32(1 / position.magnification)
        across = (axis[None, :] - np.float32(position.right)) * smaller + 112 - anatomy.centre
        down = (axis[:, None] - np.float32(position.down)) * smaller
        cos, sin = np.cos(anatomy.rotation), np.sin(anatomy.rotation)
        self.x: Field = (cos * across + sin * down + anatomy.centre).astype(np.float32)
        self.y: Field = (cos * down - sin * across + 112).astype(np.float32)
        self._turn = (cos, sin, anatomy.centre)
        self._known: dict[object, Field] = {}

    def ellipse(self, x: float, y: float, a: float, b: float, tilt: float = 0.0, power: float = 2.0) -> Field:
        """Below 1 inside a superellipse, 1 on it, above 1 outside."""
        cos, sin = np.cos(tilt), np.sin(tilt)
        across, down = self.x - np.float32(x), self.y - np.float32(y)
        u = np.abs((across * np.float32(cos) + down * np.float32(sin)) * np.float32(1 / a))
        v = np.abs((down * np.float32(cos) - across * np.float32(sin)) * np.float32(1 / b))
        if power == 2.0:
            return np.asarray(u * u + v * v, dtype=np.float32)
        return np.asarray(u**power + v**power, dtype=np.float32)

    def lung(self, lung: Lung) -> Field:
        """The aerated lung, soft-edged; computed once."""

        def field() -> Field:
            shape = self.ellipse(lung.x, lung.y, lung.half_width, lung.half_height, lung.tilt, 2.4)
            return soft_inside(shape, 0.07) * soft_step(dome_height(self, lung) - self.y, 1.6)

        return self.once(lung, field)

    def once(self, key: object, field: Callable[[], Field]) -> Field:
        """The field of that key, computed when it is first asked for."""
        if key not in self._known:
            self._known[key] = field()
        return self._known[key]

    def strokes(self, lines: list[tuple[list[tuple[float, float]], float, float]], blur: float) -> Field:
        """Polylines (points, width, brightness in [0, 1]) in phantom units, the brighter on top, blurred."""
        cos, sin, centre = self._turn
        picture = Image.new("L", (2 * self.size, 2 * self.size))
        pen = ImageDraw.Draw(picture)
        factor, magnification = 2 / self.pixel, self._position.magnification
        for points, width, brightness in lines:
            placed = []
            for px, py in points:
                x, y = self._position.on_film(
                    cos * (px - centre) - sin * (py - 112) + centre,
                    sin * (px - centre) + cos * (py - 112) + 112,
                )
                placed.append((x * factor, y * factor))
            wide = max(1, round(width * magnification * factor))
            pen.line(placed, fill=round(255 * brightness), width=wide, joint="curve")
        halved = picture.resize((self.size, self.size), Image.Resampling.BOX)
        drawn = np.asarray(halved, dtype=np.float32) / np.float32(255)
        return np.asarray(ndimage.gaussian_filter(drawn, blur * magnification / self.pixel, truncate=3.0))


def soft_inside(distance: Field, softness: float) -> Field:
    """1 where a distance field is below 1, 0 above, over a soft edge."""
    return np.asarray(1 / (1 + np.exp(np.clip((distance - 1) / np.float32(softness), -30, 30))), np.float32)


def soft_step(values: Field, softness: float) -> Field:
    """0 for negative values, 1 for positive ones, over a soft edge."""
    return np.asarray(1 / (1 + np.exp(np.clip(values / np.float32(-softness), -30, 30))), np.float32)


def dome_height(canvas: Canvas, lung: Lung) -> Field:
    """The y of the diaphragm under each x."""
    return np.asarray(lung.dome + 0.011 * (canvas.x - np.float32(lung.x)) ** 2, dtype=np.float32)


def clavicle_points(anatomy: Anatomy, side: Side) -> list[tuple[float, float]]:
    """The axis of a clavicle from the sternum outwards."""
    sign, (y, slope) = side_sign(side), anatomy.clavicles[side]
    length = 70 * anatomy.scale
    return [
        (
            anatomy.centre + sign * (9 + length * t),
            y + 17 - slope * length * t - 5.5 * np.sin(np.pi * 1.5 * t),
        )
        for t in np.linspace(0, 1, 15)
    ]


def rib_points(anatomy: Anatomy, side: Side, number: int) -> list[tuple[float, float]]:
    """The axis of a posterior rib from the spine outwards and down."""
    sign, lung = side_sign(side), anatomy.lungs[side]
    reach = abs(lung.x - anatomy.centre) + lung.half_width * 1.04
    y = anatomy.top + 2 + 17.0 * anatomy.scale * number + anatomy.ribs[number]
    return [
        (anatomy.centre + sign * (7 + (reach - 7) * t), y - 7 * np.sin(np.pi * t * 0.9) + 17 * t**2.2)
        for t in np.linspace(0, 1, 14)
    ]


def heart_field(canvas: Canvas, anatomy: Anatomy, enlarged: float = 1.0) -> Field:
    """The cardiac silhouette; `enlarged` widens it, mostly to the patient's left."""
    x, y, a, b, tilt = anatomy.heart
    growth = enlarged - 1

    def field() -> Field:
        shape = canvas.ellipse(
            x + 7 * growth, y - 4 * growth, a * enlarged, b * (1 + 0.65 * growth), tilt, 2.1
        )
        return soft_inside(shape, 0.06)

    return canvas.once(("heart", enlarged), field)
