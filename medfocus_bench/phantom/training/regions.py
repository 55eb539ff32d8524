"""Training data of the segmenter and the detector: rendered patients with the masks of their regions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from medfocus_bench.data.concepts import COMPOSITES
from medfocus_bench.geometry import BoolArray, FloatArray, UInt8Image
from medfocus_bench.phantom.render import Patient, Phantom, render
from medfocus_bench.phantom.track import box_of
from medfocus_bench.phantom.training.checkpoints import SIDE
from medfocus_bench.phantom.training.phrases import REGIONS
from medfocus_bench.phantom.training.vision_checkpoints import DEVIATION, MEAN

_SEEN: Final = 0.7
"""The share of a region's box that a cut picture must show."""


@dataclass(frozen=True, slots=True, eq=False)
class RegionPictures:
    """Rendered patients: `images` (n, 224, 224) uint8, `boxes` (n, 28, 4) in pixels, NaN if not shown.

    `masks`: for each picture the packed bits of the masks by the region's number.
    """

    images: UInt8Image
    boxes: FloatArray
    masks: list[dict[int, UInt8Image]]

    def mask(self, picture: int, region: int) -> BoolArray:
        """A region's mask, (224, 224)."""
        bits = np.unpackbits(self.masks[picture][region], count=SIDE * SIDE)
        return bits.reshape(SIDE, SIDE).astype(np.bool_)


def region_masks(phantom: Phantom) -> dict[str, BoolArray]:
    """The mask of every region that a phantom shows: concepts, their unions, findings, marks."""
    masks = {**phantom.concepts, **phantom.findings, **phantom.marks}
    for name, members in COMPOSITES.items():
        masks[name] = np.asarray(np.logical_or.reduce([phantom.concepts[member] for member in members]))
    return {name: masks[name] for name in REGIONS if name in masks and masks[name].any()}


def region_patient(first_seed: int, number: int) -> Patient:
    """Every other one stands anywhere on the film."""
    patient = Patient.sample((first_seed, number))
    moved = number % 2 == 1
    return patient.with_chest_moved(np.random.default_rng((first_seed, number, 1))) if moved else patient


def draw_regions(count: int, first_seed: int) -> RegionPictures:
    """`count` patients of successive seeds with their regions."""
    images = np.empty((count, SIDE, SIDE), dtype=np.uint8)
    boxes = np.full((count, len(REGIONS), 4), np.nan)
    masks: list[dict[int, UInt8Image]] = []
    for number in range(count):
        phantom = render(region_patient(first_seed, number))
        images[number] = phantom.image
        found = {REGIONS.index(name): mask for name, mask in region_masks(phantom).items()}
        masks.append({region: np.packbits(mask) for region, mask in found.items()})
        for region, mask in found.items():
            boxes[number, region] = box_of(mask)[0]
    return RegionPictures(images, boxes, masks)


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Windows cut out of pictures, `edges` (n, 4) in their pixels, and how it lies on a square canvas.

    The longest side of a window fills the canvas of `side` pixels; the rest, at the right or at the bottom,
    is padding, as both processors have it.
    """

    edges: FloatArray
    side: int

    @property
    def scale(self) -> FloatArray:
        """Pixels of the canvas for a pixel of the picture, (n, 1)."""
        sides = self.edges[:, 2:] - self.edges[:, :2]
        return np.asarray(self.side / sides.max(axis=1, keepdims=True))

    def onto(self, boxes: FloatArray) -> FloatArray:
        """Boxes (n, k, 4) of the pictures on the canvas, cut at the window."""
        corner = np.tile(self.edges[:, :2], 2)[:, None]
        shown = np.clip(boxes, corner, np.tile(self.edges[:, 2:], 2)[:, None])
        return np.asarray((shown - corner) * self.scale[:, None])

    def shown(self, boxes: FloatArray) -> BoolArray:
        """Which boxes (n, k, 4) the windows show most of, (n, k); False for NaN."""
        ratio = _area(self.onto(boxes)) / np.maximum(_area(boxes) * self.scale**2, 1e-9)
        return np.asarray(ratio > _SEEN)

    def sample(self, pictures: torch.Tensor, padding: float) -> torch.Tensor:
        """Pictures (n, height, width) on the canvas, (n, side, side): bilinear, half-pixel centres."""
        side = torch.tensor([pictures.shape[2], pictures.shape[1]], dtype=torch.float32)
        corner = torch.from_numpy(self.edges[:, :2]).float()
        length = self.side / torch.from_numpy(self.scale).float()
        theta = torch.zeros(len(pictures), 2, 3)
        theta[:, 0, 0], theta[:, 1, 1] = (length / side).unbind(1)
        theta[:, :, 2] = (2 * corner + length) / side - 1
        shape = [len(pictures), 1, self.side, self.side]
        grid = torch.nn.functional.affine_grid(theta, shape, align_corners=False)
        drawn = torch.nn.functional.grid_sample(
            pictures[:, None], grid, mode="bilinear", padding_mode="border", align_corners=False
        )[:, 0]
        ends = torch.from_numpy((self.edges[:, 2:] - self.edges[:, :2]) * self.scale).round()
        axis = torch.arange(self.side)
        inside = (axis < ends[:, :1])[:, None, :] & (axis < ends[:, 1:])[:, :, None]
        return torch.where(inside, drawn, torch.tensor(padding))


def _area(boxes: FloatArray) -> FloatArray:
    return np.asarray((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]))


def whole(count: int, side: int) -> Windows:
    """Windows that cut nothing off."""
    return Windows(np.tile([0.0, 0.0, SIDE, SIDE], (count, 1)), side)


def random_windows(count: int, side: int, rng: np.random.Generator) -> Windows:
    """Half of the pictures whole, the others with up to a sixth cut off at each edge."""
    cut = rng.uniform(0, SIDE / 6, (count, 4)) * (rng.random((count, 1)) < 0.5)
    return Windows(np.array([0.0, 0.0, SIDE, SIDE]) + cut * [1, 1, -1, -1], side)


def varied(images: UInt8Image, rng: np.random.Generator) -> torch.Tensor:
    """Grey in [0, 1] with another exposure and contrast, a little noise, and at times less grain."""
    grey = torch.from_numpy(images).float() / 255
    smooth = torch.nn.functional.avg_pool2d(grey[:, None], 3, stride=1, padding=1, count_include_pad=False)
    blend = torch.from_numpy(rng.uniform(0, 1, (len(grey), 1, 1)).astype(np.float32))
    blend = blend * torch.from_numpy(rng.random((len(grey), 1, 1)) < 0.4)
    grey = grey + blend * (smooth[:, 0] - grey)
    gain = torch.from_numpy(rng.uniform(0.93, 1.07, (len(grey), 1, 1)).astype(np.float32))
    noise = torch.from_numpy(rng.standard_normal(grey.shape, dtype=np.float32)) * 0.012
    return (grey * gain + noise).clamp(0, 1)


def normalised(grey: torch.Tensor) -> torch.Tensor:
    """The three equal channels of grey in [0, 1] as both processors give them, (n, 3, height, width)."""
    return ((grey - MEAN) / DEVIATION)[:, None].expand(-1, 3, -1, -1)


def jittered(boxes: FloatArray, share: float | FloatArray, rng: np.random.Generator) -> FloatArray:
    """Boxes (..., 4) whose edges are each moved by up to `share` of the side; none is turned inside out."""
    sides = np.tile(boxes[..., 2:] - boxes[..., :2], 2)
    return np.asarray(boxes + rng.uniform(-1, 1, boxes.shape) * np.minimum(share, 0.45) * sides)


def overlap(one: FloatArray, other: FloatArray) -> FloatArray:
    """IoU of boxes (..., 4) with boxes of the same shape."""
    low, high = np.maximum(one[..., :2], other[..., :2]), np.minimum(one[..., 2:], other[..., 2:])
    shared = np.clip(high - low, 0, None).prod(axis=-1)
    return np.asarray(shared / np.maximum(_area(one) + _area(other) - shared, 1e-9))
