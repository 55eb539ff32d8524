"""Fills that hide a region of a picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import numpy.typing as npt
import torch

from medfocus_bench.errors import InputError, require
from medfocus_bench.geometry import BoolArray, UInt8Image, bilinear_weights

if TYPE_CHECKING:
    from medfocus_bench.lvlm.example import EncodedExample

Filling = Literal["zero", "mean", "blur", "inpaint"]
"""Black pixels; the image's mean grey; the image blurred; a smooth continuation of what is around."""

RegionEdit = Callable[[UInt8Image, BoolArray], UInt8Image]
"""Redraws a region (height, width) of a native image: (image, region) -> image of the same shape."""

Painter = Callable[[BoolArray], torch.Tensor]
"""The model's input with a mask (height, width) of its pixels filled: (3, height, width)."""

_BLUR: Final = 1 / 16
"""Standard deviation of the blur, as a share of the image's longer side: ribs and nodules are gone."""

_INPAINTED: Final = 40
"""Longer side of the grid on which a region is inpainted: what is continued over an organ is smooth."""


def filler(example: EncodedExample, fill: Filling) -> Painter:
    """Return the fill of an example's `pixel_values`, made of the image without its padding."""
    if fill == "zero":
        return _with(example, example.colour(0.0).expand_as(example.pixel_values))
    if fill == "mean":
        return _with(example, _mean_grey(example).expand_as(example.pixel_values))
    if fill == "blur":
        image = example.pixel_values[example.shown]
        return _with(example, example.blurred(_BLUR * max(image.shape[1:])))
    if fill == "inpaint":
        return lambda mask: _inpainted(example, mask)
    raise InputError(f"no fill {fill!r}; there are zero, mean, blur and inpaint")


def _with(example: EncodedExample, other: torch.Tensor) -> Painter:
    def paint(mask: BoolArray) -> torch.Tensor:
        hidden = torch.from_numpy(mask).to(example.pixel_values.device)
        return torch.where(hidden, other, example.pixel_values)

    return paint


def _mean_grey(example: EncodedExample) -> torch.Tensor:
    """The mean colour of the image in whole grey levels, rounded down as the paper's code does it."""
    level = (example.mean_colour() * example.std + example.mean) * 255
    whole = torch.floor(level + 1e-3) / 255
    return (whole - example.mean) / example.std


def _inpainted(example: EncodedExample, mask: BoolArray) -> torch.Tensor:
    """The model's input with a mask filled by the biharmonic function that continues its surroundings.

    Solved on a coarse grid of the image without its padding, and resampled to the model's input.
    """
    image = example.pixel_values[example.shown].cpu().double().numpy()
    hidden = mask[example.shown[1:]]
    if not hidden.any():
        return example.pixel_values
    height, width = hidden.shape
    scale = min(1.0, _INPAINTED / max(height, width))
    rows, columns = max(4, round(height * scale)), max(4, round(width * scale))
    down, across = bilinear_weights(height, rows), bilinear_weights(width, columns)
    # Cells that the mask touches take nothing of what it hides; the others are means of what is seen.
    touched = down @ hidden.astype(np.float64) @ across.T > 1e-9
    if touched.all():
        smooth = np.broadcast_to(image.mean(axis=(1, 2), keepdims=True), (3, rows, columns))
    else:
        smooth = _biharmonic(down @ image @ across.T, touched)
    fine = bilinear_weights(rows, height) @ smooth @ bilinear_weights(columns, width).T
    filled = example.pixel_values.clone()
    filled[example.shown] = torch.from_numpy(np.where(hidden, fine, image)).float().to(filled)
    return filled


def _biharmonic(image: npt.NDArray[np.float64], mask: BoolArray) -> npt.NDArray[np.float64]:
    require("skimage.restoration")
    from skimage.restoration import inpaint_biharmonic

    return np.asarray(inpaint_biharmonic(image, mask, channel_axis=0))
