"""Methods that hide parts of the picture and watch the response's probability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch.nn import functional

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.attribution.protocol import Method
from medfocus_bench.errors import InputError

if TYPE_CHECKING:
    from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
    from medfocus_bench.lvlm.example import EncodedExample, Target


_MAX_CELLS: Final = 64
_MAX_MASKS: Final = 100_000


@dataclass(frozen=True)
class Occlusion(Method):
    """Zeiler & Fergus 2014: the drop of the target when a patch of a grid is blackened.

    One pass for the picture and one for each of the `cells` x `cells` patches. A patch whose loss raises the
    target has no saliency.
    """

    name = "occlusion"
    title = "Occlusion"
    family = "perturbation"
    needs = ("forward",)
    description = "Drop of the log-probability when a patch of an 8 x 8 grid is blackened."
    paper = "https://arxiv.org/abs/1311.2901"

    cells: int = 8
    fill: float = 0.0

    def __post_init__(self) -> None:
        _check_grid(self.name, self.cells, self.fill)

    def explain(
        self, lvlm: HuggingFaceLVLM, example: EncodedExample, *, target: Target = "response", seed: int = 0
    ) -> Attribution:
        none_then_each = torch.eye(self.cells**2 + 1, device=example.pixel_values.device)[:, 1:]
        hidden = cell_masks(none_then_each, self.cells, example)
        edited = torch.where(hidden, example.colour(self.fill), example.pixel_values)
        values = lvlm.scores(example, edited, target)
        drops = (values[0] - values[1:]).clamp(min=0).reshape(self.cells, self.cells)
        return Attribution(saliency=example.grid.view.saliency(drops.cpu().numpy()))


@dataclass(frozen=True)
class RISE(Method):
    """Petsiuk et al. 2018: the mean probability under the random masks that keep a cell.

    Probabilities are taken relative to the whole picture's, so that a long response does not underflow. A
    model that ignores the picture gets a flat map: no explanation.

    By default a mask is of whole cells that tile the picture, black or shown, as in the benchmark's paper.
    With `soft` it is that of the method's own paper: a grid of one cell more a side, drawn out bilinearly, so
    that the picture fades, and shifted by a random part of a cell; the map then has the resolution of the
    model's input.
    """

    name = "rise"
    title = "RISE"
    family = "perturbation"
    needs = ("forward",)
    description = "Mean probability under 64 random masks that keep half of an 8 x 8 grid."
    paper = "https://arxiv.org/abs/1806.07421"

    masks: int = 64
    cells: int = 8
    keep: float = 0.5
    fill: float = 0.0
    soft: bool = False

    def __post_init__(self) -> None:
        _check_grid(self.name, self.cells, self.fill)
        if not 1 <= self.masks <= _MAX_MASKS:
            raise InputError(f"{self.name}: masks {self.masks} is not within 1 and {_MAX_MASKS:,}")
        count = self.cells**2
        if not (0 < self.keep < 1 and 1 <= round(self.keep * count) < count):
            raise InputError(
                f"{self.name}: keep {self.keep:g} is not a share of {count} cells; keep at least one, and "
                "hide at least one"
            )

    def explain(
        self, lvlm: HuggingFaceLVLM, example: EncodedExample, *, target: Target = "response", seed: int = 0
    ) -> Attribution:
        rng, pixels = np.random.default_rng(seed), example.pixel_values
        black = example.colour(self.fill)
        if self.soft:
            shown = self._soft(rng, *pixels.shape[1:]).to(pixels)
            edited, shape = black + shown[:, None] * (pixels - black), pixels.shape[1:]
        else:
            shown, shape = self._kept(rng).to(pixels), torch.Size((self.cells, self.cells))
            edited = torch.where(cell_masks(shown, self.cells, example), pixels, black)
        values = lvlm.scores(example, torch.cat([pixels[None], edited]), target)
        # On the CPU: MPS has no double precision.
        weights = torch.exp((values[1:] - values[0]).clamp(max=50.0)).cpu().double()
        shares = shown.reshape(self.masks, -1).cpu().double()
        counts = shares.sum(0)
        means = (weights @ shares) / counts.where(counts > 0, 1.0)
        # A cell that was never shown is as good as the mean of the others.
        means = torch.where(counts > 0, means, means[counts > 0].mean())
        return Attribution(saliency=example.grid.view.saliency(means.reshape(shape).numpy()))

    def _soft(self, rng: np.random.Generator, height: int, width: int) -> torch.Tensor:
        """How much of each pixel each mask shows: (masks, height, width), in [0, 1]."""
        side = self.cells + 1
        chosen = np.arange(side**2) < round(self.keep * side**2)
        drawn = np.stack([rng.permutation(chosen) for _ in range(self.masks)]).reshape(-1, side, side)
        down, across = -(-height // self.cells), -(-width // self.cells)
        wide = functional.interpolate(
            torch.from_numpy(drawn).float()[:, None],
            size=(side * down, side * across),
            mode="bilinear",
            align_corners=False,
        )[:, 0]
        tops, lefts = rng.integers(0, down, self.masks), rng.integers(0, across, self.masks)
        parts = zip(wide, tops.tolist(), lefts.tolist(), strict=True)
        return torch.stack([mask[top : top + height, left : left + width] for mask, top, left in parts])

    def _kept(self, rng: np.random.Generator) -> torch.Tensor:
        """Which cells each mask keeps: (masks, cells x cells), the same share in each."""
        count = self.cells**2
        kept = np.zeros((self.masks, count), dtype=np.float32)
        for row in kept:
            row[rng.permutation(count)[: round(self.keep * count)]] = 1.0
        return torch.from_numpy(kept)


def _check_grid(name: str, cells: int, fill: float) -> None:
    if not 1 <= cells <= _MAX_CELLS:
        raise InputError(f"{name}: cells {cells} is not within 1 and {_MAX_CELLS} a side")
    if not 0 <= fill <= 1:
        raise InputError(f"{name}: fill {fill:g} is not a grey level between 0 (black) and 1 (white)")


def cell_masks(chosen: torch.Tensor, cells: int, example: EncodedExample) -> torch.Tensor:
    """Masks of the model's input from masks of its cells: (n, cells x cells) to (n, 1, height, width), bool.

    Cells have whole pixels; where the model's input does not divide evenly some are a pixel larger.
    """
    rows, columns = (
        ((torch.arange(side, device=chosen.device) + 0.5) * cells / side).long()
        for side in example.pixel_values.shape[1:]
    )
    return (chosen > 0).reshape(-1, 1, cells, cells)[:, :, rows][..., columns]
