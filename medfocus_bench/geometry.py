"""Boxes, unions of boxes, and the map between an image and the square that a model is given.

Conventions, kept by every part of the package:

* A box is `[x1, y1, x2, y2]` with half-open pixel edges: it covers `x1 <= x < x2`, so its width is
  `x2 - x1`. Several boxes are an array of shape (n, 4), float64; they mean their *union*.
* The *native frame* is the pixels of the original image. The *model frame* is the square that an LVLM's
  processor is given: the image resized with its aspect kept, then padded with zeros, split evenly.
* Only `Frame` converts between the two. Padding is never evidence and never counts as area.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

UInt8Image = npt.NDArray[np.uint8]
"""An image as the LVLMs are given it: grey (height, width) or RGB (height, width, 3)."""

MapFrame = Literal["model", "image"]
"""The area that a map covers: the model frame, padding included, or the image alone."""

MODEL_SIZE = 224
"""Side of the model frame in pixels, unless a model says otherwise."""


def as_boxes(boxes: npt.ArrayLike) -> FloatArray:
    """`boxes` as a float64 array of shape (n, 4); an empty sequence gives (0, 4).

    Raises ValueError for another shape, for a coordinate that is not finite and for a box whose corners
    are swapped. A box of zero area is allowed: it covers nothing.
    """
    array = np.asarray(boxes, dtype=np.float64)
    if array.size == 0:
        return np.empty((0, 4))
    if array.ndim != 2 or array.shape[1] != 4:
        raise ValueError(f"boxes need the shape (n, 4), not {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("a box coordinate is not finite")
    if (array[:, 2:] < array[:, :2]).any():
        raise ValueError("a box is inside out: it needs x1 <= x2 and y1 <= y2")
    return array


def clip_boxes(boxes: npt.ArrayLike, width: float, height: float) -> FloatArray:
    """`boxes` cut to `[0, width] x [0, height]`; one that lies outside keeps its place, with no area."""
    limits = np.array([width, height, width, height], dtype=np.float64)
    return np.clip(as_boxes(boxes), 0.0, limits)


def tight_box(mask: BoolArray) -> FloatArray:
    """The half-open box [x1, y1, x2, y2] of a mask's pixels; zeros where it has none."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(ys):
        return np.zeros(4)
    return np.array([xs[0], ys[0], xs[-1] + 1, ys[-1] + 1], dtype=np.float64)


@dataclass(frozen=True, slots=True)
class BoxUnion:
    """The union of boxes, exactly, by coordinate compression.

    `xs` (m + 1) and `ys` (n + 1) are the sorted distinct edges of the boxes; `inside` (n, m) says which
    of the rectangles between them the union covers.
    """

    xs: FloatArray
    ys: FloatArray
    inside: BoolArray

    @classmethod
    def of(cls, boxes: npt.ArrayLike, *, among: npt.ArrayLike | None = None) -> BoxUnion:
        """The union of `boxes`, on a grid that also holds the edges of `among` where that is given."""
        array = as_boxes(boxes)
        edges = array if among is None else np.concatenate([array, as_boxes(among)])
        xs, ys = np.unique(edges[:, [0, 2]]), np.unique(edges[:, [1, 3]])
        inside = np.zeros((max(len(ys) - 1, 0), max(len(xs) - 1, 0)), dtype=np.bool_)
        columns, rows = np.searchsorted(xs, array[:, [0, 2]]), np.searchsorted(ys, array[:, [1, 3]])
        for (left, right), (top, bottom) in zip(columns, rows, strict=True):
            inside[top:bottom, left:right] = True
        return cls(xs, ys, inside)

    @classmethod
    def of_pixels(cls, pixels: BoolArray) -> BoxUnion:
        """The union of the true pixels of a grid (height, width), each a unit square."""
        height, width = pixels.shape
        return cls(np.arange(width + 1.0), np.arange(height + 1.0), pixels)

    @property
    def area(self) -> float:
        return self._measure(self.inside)

    def intersection_area(self, other: BoxUnion) -> float:
        """Area shared with `other`, which must live on the same edges (see `among`)."""
        if not (np.array_equal(self.xs, other.xs) and np.array_equal(self.ys, other.ys)):
            raise ValueError("the two unions need the same edges")
        return self._measure(self.inside & other.inside)

    def _measure(self, cells: BoolArray) -> float:
        return float(np.diff(self.ys) @ cells @ np.diff(self.xs))

    def coverage(self, width: int, height: int) -> FloatArray:
        """The share of each unit pixel that the union covers: (height, width) in [0, 1], exact."""
        rows = interval_overlap(self.ys, height)
        columns = interval_overlap(self.xs, width)
        return np.asarray(np.clip(np.round(rows.T @ self.inside @ columns, 12), 0.0, 1.0))


def interval_overlap(edges: FloatArray, cells: int) -> FloatArray:
    """Length shared by each interval of `edges` (m + 1) and each unit cell: (m, cells)."""
    lows = np.arange(cells, dtype=np.float64)
    shared = np.minimum(edges[1:, None], lows + 1) - np.maximum(edges[:-1, None], lows)
    return np.asarray(np.clip(shared, 0.0, None))


def rasterise(boxes: npt.ArrayLike, width: int, height: int) -> FloatArray:
    """Coverage mask (height, width) in [0, 1] of the union of `boxes` given in that grid's pixels."""
    return BoxUnion.of(boxes).coverage(width, height)


@dataclass(frozen=True, slots=True)
class Frame:
    """The map between an image of `width` x `height` pixels and its model frame of side `size`.

    The image is resized to whole pixels (aspect kept, half up) and placed so that the padding is split
    evenly; an odd pixel of padding goes to the right or to the bottom.
    """

    width: int
    height: int
    size: int = MODEL_SIZE

    def __post_init__(self) -> None:
        if min(self.width, self.height, self.size) < 1:
            raise ValueError(f"a frame needs positive sides, not {self.width} x {self.height} in {self.size}")

    @property
    def content_size(self) -> tuple[int, int]:
        """Width and height of the resized image inside the model frame, in whole pixels."""
        longest = max(self.width, self.height)
        return (
            max(1, (2 * self.width * self.size + longest) // (2 * longest)),
            max(1, (2 * self.height * self.size + longest) // (2 * longest)),
        )

    @property
    def content(self) -> tuple[int, int, int, int]:
        """The box of the model frame that shows the image; all else is padding."""
        width, height = self.content_size
        left, top = (self.size - width) // 2, (self.size - height) // 2
        return left, top, left + width, top + height

    @property
    def padding(self) -> FloatArray:
        """The padding as disjoint boxes of the model frame: (0, 4) for a square image, else (1 or 2, 4)."""
        left, top, right, bottom = self.content
        strips = [(0, 0, self.size, top), (0, bottom, self.size, self.size)]
        strips += [(0, top, left, bottom), (right, top, self.size, bottom)]
        return np.array([s for s in strips if s[2] > s[0] and s[3] > s[1]], dtype=np.float64).reshape(-1, 4)

    @property
    def area(self) -> int:
        """Area of the image inside the model frame, in model-frame pixels; padding does not count."""
        width, height = self.content_size
        return width * height

    @property
    def _scale(self) -> FloatArray:
        width, height = self.content_size
        return np.array([width / self.width, height / self.height] * 2)

    @property
    def _offset(self) -> FloatArray:
        left, top, _, _ = self.content
        return np.array([left, top, left, top], dtype=np.float64)

    def to_model(self, boxes: npt.ArrayLike) -> FloatArray:
        """Native boxes, cut to the image, in model-frame pixels: (n, 4)."""
        native = clip_boxes(boxes, self.width, self.height)
        return np.asarray(native * self._scale + self._offset)

    def to_native(self, boxes: npt.ArrayLike) -> FloatArray:
        """Model-frame boxes in native pixels, cut to the image: (n, 4); padding maps to no area."""
        return clip_boxes((as_boxes(boxes) - self._offset) / self._scale, self.width, self.height)

    def to_content(self, boxes: npt.ArrayLike) -> FloatArray:
        """Native boxes, cut to the image, in content pixels, which start where the padding ends: (n, 4)."""
        return np.asarray(clip_boxes(boxes, self.width, self.height) * self._scale)

    def coverage(self, boxes: npt.ArrayLike) -> FloatArray:
        """Share of each content pixel that native `boxes` cover: (content height, content width)."""
        return rasterise(self.to_content(boxes), *self.content_size)

    def content_of(self, saliency: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        """The part of a model-frame map (any resolution, 2-D) that shows the image, without padding.

        Resampled to model-frame pixels: bilinear, half-pixel centres, edges repeated; a finer map is
        low-passed first (the triangle filter is widened), so that no pixel of it is skipped. The sums are
        formed in float64 and rounded to float32, which keeps plateaus exactly flat.
        """
        left, top, right, bottom = self.content
        return self._resampled(saliency, slice(top, bottom), slice(left, right))

    def whole_of(self, saliency: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        """A model-frame map (any resolution, 2-D) at the pixels of the model frame, padding included.

        Resampled as in `content_of`: (size, size).
        """
        return self._resampled(saliency, slice(None), slice(None))

    def _resampled(
        self, saliency: npt.NDArray[np.generic], rows: slice, columns: slice
    ) -> npt.NDArray[np.float32]:
        if saliency.shape == (self.size, self.size):
            return saliency[rows, columns].astype(np.float32)
        down = bilinear_weights(saliency.shape[0], self.size)[rows]
        across = bilinear_weights(saliency.shape[1], self.size)[columns]
        return (down @ saliency.astype(np.float64) @ across.T).astype(np.float32)

    def embed(self, content: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """A map of the image alone (any resolution), resampled and padded to the model frame."""
        left, top, right, bottom = self.content
        framed = np.zeros((self.size, self.size), dtype=np.float32)
        down = bilinear_weights(content.shape[0], bottom - top)
        across = bilinear_weights(content.shape[1], right - left)
        framed[top:bottom, left:right] = down @ content.astype(np.float64) @ across.T
        return framed


def explains(saliency: npt.NDArray[np.generic]) -> bool:
    """Whether a map says anything: it has pixels, all of them finite and not all equal."""
    if saliency.size == 0:
        return False
    low, high = saliency.min(), saliency.max()
    return bool(np.isfinite(low) and np.isfinite(high) and low < high)


@lru_cache(maxsize=16)
def area_weights(source: int, target: int) -> FloatArray:
    """Weights (target, source) of the means over `target` equal parts of a line of `source` cells."""
    weights = interval_overlap(np.linspace(0, source, target + 1), source)
    weights /= weights.sum(axis=1, keepdims=True)
    weights.setflags(write=False)
    return weights


@lru_cache(maxsize=16)
def bilinear_weights(source: int, target: int) -> FloatArray:
    """Weights (target, source) of one-dimensional bilinear resampling with half-pixel centres."""
    ratio = source / target
    centres = (np.arange(target)[:, None] + 0.5) * ratio - 0.5
    distance = np.abs(centres - np.arange(source)[None, :]) / max(1.0, ratio)
    weights: FloatArray = np.clip(1.0 - distance, 0.0, None)
    weights /= weights.sum(axis=1, keepdims=True)
    weights.setflags(write=False)
    return weights
