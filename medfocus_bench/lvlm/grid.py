"""Positions of an LVLM's image tokens in the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from medfocus_bench.geometry import FloatArray, Frame, clip_boxes

Preprocessing = Literal["square", "native"]
"""Input of a processor: the padded square of the model frame, or the image as it is."""


@dataclass(frozen=True, slots=True)
class InputView:
    """The part of the image that a rectangular array of values over a model's input shows.

    With `square` framing the input is the model frame itself, padding included; with `native` framing it is
    the image alone, however the processor then resized or squashed it.
    """

    frame: Frame
    framing: Preprocessing = "square"

    def saliency(self, values: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Values (rows, columns) that divide the input evenly, as a map of the model frame.

        A square input is returned as it is, since a map may have any resolution; a native one is resampled
        (bilinear, half-pixel centres) to the image's place in the model frame.
        """
        array = np.asarray(values, dtype=np.float32)
        if array.ndim != 2:
            raise ValueError(f"a map has the shape (rows, columns), not {array.shape}")
        return array if self.framing == "square" else self.frame.embed(array)

    def place(self, boxes: npt.ArrayLike, rows: int, columns: int) -> FloatArray:
        """Native boxes, cut to the image, in pixels of an array (rows, columns) over the input: (n, 4)."""
        if self.framing == "native":
            native = clip_boxes(boxes, self.frame.width, self.frame.height)
            return np.asarray(native * np.array([columns / self.frame.width, rows / self.frame.height] * 2))
        return np.asarray(self.frame.to_model(boxes) * np.array([columns, rows] * 2) / self.frame.size)

    def content(self, rows: int, columns: int) -> tuple[int, int, int, int]:
        """The box [x1, y1, x2, y2] of an array (rows, columns) over the input that shows the image."""
        if self.framing == "native":
            return 0, 0, columns, rows
        left, top, right, bottom = (edge / self.frame.size for edge in self.frame.content)
        return round(left * columns), round(top * rows), round(right * columns), round(bottom * rows)


@dataclass(frozen=True, slots=True)
class TokenGrid:
    """The image tokens of one picture: `rows` x `columns`, in raster order, evenly over what `view` shows.

    Rectangular wherever the processor makes it so. `seen`: the parts of height and width, from the first
    pixel on, that the tokens divide. Patches of 14 pixels take in 378 of 384, and no token sees the rest.
    """

    rows: int
    columns: int
    view: InputView
    seen: tuple[float, float] = (1.0, 1.0)

    def __len__(self) -> int:
        return self.rows * self.columns

    def saliency(self, values: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """One value a token, flat or (rows, columns), as a map of the model frame."""
        array = np.asarray(values, dtype=np.float32)
        if array.size != len(self):
            raise ValueError(f"{array.size} values for a grid of {self.rows} x {self.columns} tokens")
        found = array.reshape(self.rows, self.columns)
        for axis, part in enumerate(self.seen):
            found = _over_all(found, axis, part)
        return self.view.saliency(found)


def seen_part(tokens: int, pixels: int) -> float:
    """How much of a side of so many pixels the tokens along it divide, each of as many pixels as fit."""
    return tokens * (pixels // tokens) / pixels


def _over_all(values: npt.NDArray[np.float32], axis: int, part: float) -> npt.NDArray[np.float32]:
    """Values that divide the first `part` of an axis, as ones that divide all of it: as many, bilinear."""
    if part == 1:
        return values
    last = values.shape[axis] - 1
    at = ((np.arange(last + 1) + 0.5) / part - 0.5).clip(0, last)
    below = np.floor(at).astype(int)
    above = np.minimum(below + 1, last)
    weight = (at - below).astype(np.float32)
    weight = weight[:, None] if axis == 0 else weight
    return np.asarray(values.take(below, axis) * (1 - weight) + values.take(above, axis) * weight)
