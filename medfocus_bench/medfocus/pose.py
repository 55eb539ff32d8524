"""How a picture lies to others, rotation, scale, aspect, shift and polarity: all tried on a coarse grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medfocus_bench.geometry import FloatArray

Field = npt.NDArray[np.float32]

_ROTATIONS: Final = (-10, -5, 0, 5, 10)
_SCALES: Final = (0.72, 0.85, 1.0, 1.17, 1.37)
_ASPECTS: Final = (0.87, 1.0, 1.15)

_LEAST_OVERLAP: Final = 0.6
"""Share of the smaller of two pictures that the other has to cover."""


@dataclass(frozen=True, slots=True, eq=False)
class Pose:
    """A picture's place (row, column) is at matrix @ place + shift of a reference; `score` in [-1, 1]."""

    matrix: FloatArray
    shift: FloatArray
    score: float


def best_poses(picture: Field, references: Sequence[Field]) -> tuple[int, list[Pose]]:
    """1, or -1 where the picture is a negative of the references, and its best pose to each of them.

    Pictures are (height, width), of any size each, with mean zero around every place. The picture is turned
    and scaled in 75 ways; for each, the normalised cross-correlation with all references at all shifts comes
    from four products of Fourier transforms. Polarity is decided by all references together.
    """
    field = _References.of(picture, references)
    maps = list(_linear_maps())
    scores, shifts = zip(*(field.best_shifts(picture, linear) for linear in maps), strict=True)
    table, offsets = np.stack(scores), np.stack(shifts)
    negative = int(table.max(axis=0).mean(axis=1).argmax())
    centre = (np.array(picture.shape) - 1) / 2
    poses = []
    for number, place in enumerate(table[:, negative].argmax(axis=0)):
        matrix = np.linalg.inv(maps[place])
        shift = field.middle + offsets[place, negative, number] - matrix @ centre
        poses.append(Pose(matrix, shift, float(table[place, negative, number])))
    return (-1 if negative else 1), poses


def _linear_maps() -> Iterator[FloatArray]:
    for rotation, scale, aspect in product(_ROTATIONS, _SCALES, _ASPECTS):
        angle = np.deg2rad(rotation)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        yield turn @ np.diag([scale * np.sqrt(aspect), scale / np.sqrt(aspect)])


@dataclass(frozen=True, slots=True, eq=False)
class _References:
    """n references in the corner of a frame of `side`^2, zero around them, as Fourier transforms.

    `grey`, `energy`, `covered`: of the picture, its square and where it is; `areas` (n, 1, 1), pixels.
    """

    side: int
    grey: npt.NDArray[np.complexfloating]
    energy: npt.NDArray[np.complexfloating]
    covered: npt.NDArray[np.complexfloating]
    areas: npt.NDArray[np.floating]

    @classmethod
    def of(cls, picture: Field, references: Sequence[Field]) -> _References:
        side = max(max(image.shape) for image in (picture, *references))
        grey = np.zeros((len(references), side, side), dtype=np.float32)
        covered = np.zeros_like(grey)
        for number, reference in enumerate(references):
            height, width = reference.shape
            grey[number, :height, :width] = reference
            covered[number, :height, :width] = 1
        size = (2 * side, 2 * side)  # twice the side: shifts must not wrap around
        moved, energy, there = (np.fft.rfft2(array, s=size) for array in (grey, grey**2, covered))
        return cls(side, moved, energy, there, covered.sum(axis=(1, 2), keepdims=True))

    @property
    def middle(self) -> FloatArray:
        return np.full(2, (self.side - 1) / 2)

    def best_shifts(self, picture: Field, linear: FloatArray) -> tuple[FloatArray, npt.NDArray[np.integer]]:
        """The best correlation, and its shift, of the picture drawn through a linear map about its centre.

        For the picture and its negative, for each reference: (2, n) and (2, n, 2).
        """
        size = (2 * self.side, 2 * self.side)
        # A rim of zeros: outside of the picture its edge would go on else.
        offset = (np.array(picture.shape) - 1) / 2 + 1 - linear @ self.middle
        drawn, inside = (
            ndimage.affine_transform(
                np.pad(layer, 1), linear, offset, output_shape=(self.side, self.side), order=1
            )
            for layer in (picture, np.ones_like(picture))
        )
        grey, energy, covered = (np.conj(np.fft.rfft2(layer, s=size)) for layer in (drawn, drawn**2, inside))
        shared = np.fft.irfft2(self.covered * covered, s=size)
        theirs = np.clip(np.fft.irfft2(self.energy * covered, s=size), 1e-3, None)
        own = np.clip(np.fft.irfft2(self.covered * energy, s=size), 1e-3, None)
        correlation = np.fft.irfft2(self.grey * grey, s=size) / np.sqrt(theirs * own)
        area = inside.sum()
        # A large overlap is worth something: a small one that fits by chance would win else.
        correlation *= np.clip(shared / np.maximum(self.areas, area), 0, 1) ** 0.25
        correlation[shared < _LEAST_OVERLAP * np.minimum(self.areas, area)] = 0
        both = np.stack([correlation, -correlation]).reshape(2, len(correlation), -1)
        at = both.argmax(axis=2)
        scores = np.take_along_axis(both, at[..., None], axis=2)[..., 0]
        shifts = np.stack(np.unravel_index(at, size), axis=-1)
        return scores, (shifts + self.side) % (2 * self.side) - self.side
