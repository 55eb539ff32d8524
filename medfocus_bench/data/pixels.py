"""Grey levels of pictures and the bounds within which pictures are decoded.

A picture has 80 million pixels at most, but few distinct values: whatever is done to a pixel is done to its
value once, and the picture is looked up.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from medfocus_bench.errors import BenchmarkError, PictureWarning
from medfocus_bench.geometry import UInt8Image

MAX_PIXELS: Final = 80_000_000
"""More than any radiograph has; PIL, too, starts to warn a little above."""

MAX_FILE_BYTES: Final = 256 * 2**20

MAX_DECODED_BYTES: Final = 384 * 2**20
"""Memory of the decoded pixels: all channels, and both bytes of 16 bits."""

FEW_LEVELS: Final = 16
"""With fewer grey levels a picture is hardly shown as it was meant: a warning says so."""


class PictureError(BenchmarkError):
    """A picture that is not there, that cannot be read, or that does not fit what is said of it."""


def check_levels(image: UInt8Image, *, place: str) -> None:
    """Raise PictureError for a picture of one level; warn once about one with fewer than `FEW_LEVELS`.

    Both name `place`.
    """
    used = np.flatnonzero(Image.fromarray(image).histogram())
    if len(used) == 1:
        raise PictureError(f"{place}: is blank: all of its pixels have the level {used[0]}")
    if len(used) < FEW_LEVELS:
        _say_few(place, len(used))


@lru_cache(maxsize=4096)
def _say_few(place: str, count: int) -> None:
    """Once a picture, however often it is decoded."""
    warnings.warn(
        f"{place}: is shown in {count} grey levels, where a radiograph has hundreds; look at it",
        PictureWarning,
        stacklevel=3,
    )


def check_size(width: int, height: int, *, place: str, depth: int = 1) -> None:
    """Raise PictureError for sides that no radiograph has; `depth` is the bytes that a pixel decodes to."""
    if min(width, height) < 1 or width * height > MAX_PIXELS:
        raise PictureError(
            f"{place}: claims {width} x {height} pixels; at most {MAX_PIXELS:,} pixels are decoded"
        )
    if width * height * depth > MAX_DECODED_BYTES:
        raise PictureError(
            f"{place}: claims {width} x {height} pixels of {depth} bytes; at most "
            f"{MAX_DECODED_BYTES // 2**20} MiB are decoded, so make it grey or smaller"
        )


_OUTLIERS: Final = 0.001
"""Share of the pixels at either end that may be outliers."""

_REACH: Final = 0.5
"""How far an end may lie beyond its quantile, as a share of what lies between the two quantiles."""

_CHUNK: Final = 1 << 22
"""Pixels that are worked on at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Values:
    """The distinct values of a picture of whole numbers (height, width), and how often each is there.

    `points` (n,), ascending, `counts` (n,), both int64. A count may be zero: no pixel has that value, then.
    """

    stored: npt.NDArray[np.integer]
    points: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, stored: npt.NDArray[np.integer], counted: npt.NDArray[np.bool_] | None = None) -> Values:
        """The values of a picture; only the pixels of `counted`, where it is given, are counted."""
        if stored.itemsize > 2:
            points, counts = np.unique(stored, return_counts=True)
            return cls(stored, points.astype(np.int64), counts.astype(np.int64))
        low, high = int(stored.min()), int(stored.max())
        counts = np.zeros(high - low + 1, dtype=np.int64)
        for rows in bands(stored):
            part = stored[rows] if counted is None else stored[rows][counted[rows]]
            counts += np.bincount((part.astype(np.int32) - low).ravel(), minlength=len(counts))
        return cls(stored, np.arange(low, high + 1), counts)

    def shown(self, levels: UInt8Image) -> UInt8Image:
        """The picture (height, width) in which each point has its level, (n,)."""
        image = np.empty(self.stored.shape, dtype=np.uint8)
        for rows in bands(self.stored):
            part = self.stored[rows]
            if self.stored.itemsize > 2:
                image[rows] = levels[np.searchsorted(self.points, part)]
            else:
                image[rows] = levels[part.astype(np.int32) - self.points[0]]
        return image


def bands(image: npt.NDArray[Any]) -> Iterator[slice]:
    """The rows of an image in bands of about `_CHUNK` pixels."""
    step = max(1, _CHUNK // max(1, image.shape[1]))
    for top in range(0, image.shape[0], step):
        yield slice(top, top + step)


def own_range(values: npt.NDArray[np.float64], counts: npt.NDArray[np.int64]) -> tuple[float, float]:
    """From where to where `values` (n,), each there `counts` (n,) times, are shown as black to white.

    Their smallest and largest, as most viewers have it, unless these are outliers: an end that lies further
    beyond the quantile of `_OUTLIERS` of the pixels than half the distance between the two quantiles gives
    way to the quantile. So one hot pixel does not darken a film, and the range of any other is its own.
    """
    there = counts > 0 if counts.any() else np.ones(len(counts), dtype=np.bool_)
    order = np.argsort(values[there], kind="stable")
    ordered, held = values[there][order], np.cumsum(np.maximum(counts[there][order], 1))
    rank = int(_OUTLIERS * held[-1])
    low, high = (ordered[np.searchsorted(held, n, side="right")] for n in (rank, held[-1] - 1 - rank))
    reach = _REACH * (high - low)
    first, last = float(ordered[0]), float(ordered[-1])
    if reach > 0:
        first = float(low) if low - first > reach else first
        last = float(high) if last - high > reach else last
    return first, last


def within(values: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.float64]:
    """`values` as shares of the way from `low` to `high`, cut to [0, 1]; zeros where the two are equal."""
    return np.clip((values - low) / (high - low if high > low else 1.0), 0.0, 1.0)


def by_own_range(stored: npt.NDArray[np.integer], counted: npt.NDArray[np.bool_] | None = None) -> UInt8Image:
    """A picture (height, width) of whole numbers from `own_range`'s ends; only `counted` pixels make it."""
    values = Values.of(stored, counted)
    points = values.points.astype(np.float64)
    return values.shown(in_levels(within(points, *own_range(points, values.counts))))


def in_levels(grey: npt.NDArray[np.floating]) -> UInt8Image:
    """Grey values in [0, 1] as whole levels of 0 to 255."""
    return np.round(grey * 255).astype(np.uint8)
