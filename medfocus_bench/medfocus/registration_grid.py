"""Radiographs on a grid for registration: without borders, whatever their exposure, size and marks."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from medfocus_bench.errors import InputError
from medfocus_bench.geometry import BoolArray, FloatArray, UInt8Image

Field = npt.NDArray[np.float32]

_CLIP: Final = 2.5
"""Local deviations beyond which a grey level is cut off: burned-in marks, metal."""

_COARSE_LOCAL: Final = 0.08
"""Radius of the normalisation of the coarse grid, as a share of its side."""

_LEAST_CONTENT: Final = 0.3
"""Share of a side that must be left without borders; else nothing is cut off."""

_MOST_ELONGATED: Final = 8
"""How many times its shorter side the longer one of a radiograph's content may be."""

_FLAT: Final = 0.03
"""Spread of grey levels, as a share of the image's, up to which a row at the edge is border."""


@dataclass(frozen=True, slots=True, eq=False)
class RegistrationGrid:
    """An image without its borders on the registration grid (`fine`) and on the pose's (`coarse`).

    `corner` (row, column) and `extent` (height, width): the part of the image that is drawn; `shape`: the
    image's. Grids are equal where the images are, and the settings they were made with.
    """

    fine: Field
    coarse: Field
    corner: tuple[int, int]
    extent: tuple[int, int]
    shape: tuple[int, int]
    digest: bytes

    @classmethod
    def of(cls, image: UInt8Image, size: int, coarse_size: int, local: float) -> RegistrationGrid:
        """Grids of size^2 and coarse_size^2 pixels; `local` * size is the fine one's radius of normalisation.

        Raises InputError for an image of one grey level, and for one whose content is a strip.
        """
        top, bottom, left, right = _content(image)
        part = image[top:bottom, left:right]
        if part.min() == part.max():
            raise InputError("an image of one grey level has no anatomy to localise")
        if max(part.shape) > _MOST_ELONGATED * min(part.shape):
            raise InputError(
                f"a strip of {part.shape[1]} x {part.shape[0]} pixels is too thin to hold anatomy to localise"
            )
        grey = _resized(part.astype(np.float32), _grid(part.shape, size))
        coarse = _resized(grey, _grid(part.shape, coarse_size))
        digest = blake2b(
            image.tobytes() + repr((image.shape, size, coarse_size, local)).encode(), digest_size=16
        ).digest()
        return cls(
            _normalised(grey, local * size),
            _normalised(coarse, _COARSE_LOCAL * coarse_size),
            (top, left),
            (bottom - top, right - left),
            (image.shape[0], image.shape[1]),
            digest,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RegistrationGrid) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def resampled(self, mask: BoolArray) -> Field:
        """A mask of the image on the fine grid: the share of each pixel that it covers."""
        (top, left), (height, width) = self.corner, self.extent
        part = mask[top : top + height, left : left + width]
        return _resized(part.astype(np.uint8) * np.uint8(255), self.fine.shape) / np.float32(255)

    def native(self, share: Field) -> Field:
        """A map on the fine grid at the image's pixels, zero in the borders."""
        (top, left), (height, width) = self.corner, self.extent
        whole = np.zeros(self.shape, dtype=np.float32)
        whole[top : top + height, left : left + width] = _resized(share, self.extent)
        return whole

    @property
    def pixel(self) -> FloatArray:
        """Fine pixels a coarse pixel, (rows, columns)."""
        return np.asarray(np.array(self.fine.shape) / np.array(self.coarse.shape))


def _content(image: UInt8Image) -> tuple[int, int, int, int]:
    """Top, bottom, left, right without constant borders; all of the image if little were left."""
    small = np.asarray(Image.fromarray(image).resize((256, 256), Image.Resampling.BOX))
    low, high = np.percentile(small, [1, 99])
    flat = max(2.0, _FLAT * (high - low))
    edges = [0, 256, 0, 256]

    def is_border(line: UInt8Image) -> bool:
        # Not the range: letters may stand in a border.
        return bool(np.subtract(*np.percentile(line, [95, 5])) <= flat)

    while edges[1] - edges[0] > 1 and edges[3] - edges[2] > 1:
        part = small[edges[0] : edges[1], edges[2] : edges[3]]
        steps = [is_border(line) for line in (part[0], part[-1], part[:, 0], part[:, -1])]
        if not any(steps):
            break
        edges = [edge + sign * step for edge, sign, step in zip(edges, (1, -1, 1, -1), steps, strict=True)]
    if edges[1] - edges[0] < _LEAST_CONTENT * 256 or edges[3] - edges[2] < _LEAST_CONTENT * 256:
        edges = [0, 256, 0, 256]
    height, width = image.shape
    top, bottom = (round(edge / 256 * height) for edge in edges[:2])
    left, right = (round(edge / 256 * width) for edge in edges[2:])
    return top, max(bottom, top + 1), left, max(right, left + 1)


def _grid(shape: tuple[int, ...], size: int) -> tuple[int, int]:
    """Rows and columns of a grid of square pixels, size^2 of them."""
    unit = size / np.sqrt(shape[0] * shape[1])
    return max(8, round(shape[0] * unit)), max(8, round(shape[1] * unit))


def _resized(picture: npt.NDArray[Any], shape: tuple[int, ...]) -> Field:
    """Bilinear, half-pixel centres; low-passed where it gets smaller."""
    resized = Image.fromarray(picture).resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.float32)


def _normalised(grey: Field, radius: float) -> Field:
    """Ranks of the grey levels, less their local mean and over their local deviation."""
    levels = np.sort(grey.ravel())
    # Ties take their mean rank: so the negative of a picture has the negative of its ranks.
    rank = np.searchsorted(levels, grey, side="left") + np.searchsorted(levels, grey, side="right")
    values = (rank - rank.mean()) / (rank.std() + 1e-6)
    centred = values - ndimage.gaussian_filter(values, radius)
    deviation = np.sqrt(ndimage.gaussian_filter(centred**2, radius) + 0.1)
    normalised: Field = np.clip(centred / deviation, -_CLIP, _CLIP).astype(np.float32)
    return normalised
