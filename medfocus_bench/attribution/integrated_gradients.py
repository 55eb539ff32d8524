"""Integrated Gradients: the target's gradient at the pixels, along a path from a baseline picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.nn import functional

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.attribution.protocol import Method
from medfocus_bench.attribution.sign import Sign, as_evidence
from medfocus_bench.errors import InputError

if TYPE_CHECKING:
    from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
    from medfocus_bench.lvlm.example import EncodedExample, Target

Baseline = Literal["black", "mean", "blurred"]
"""The baseline picture. `black` is grey level 0 and not normalised 0, which is a mid grey; `mean` is
the image's mean colour; `blurred` is the picture itself, smoothed until small findings are gone."""


@dataclass(frozen=True)
class IntegratedGradients(Method):
    """Sundararajan et al. 2017: (x - x') * integral over a in [0, 1] of df/dx at x' + a (x - x').

    x are the processor's pixel values, x' the baseline; padding is the same in both, so
    that it gets nothing. The integral is taken by the midpoint rule in `steps` steps: a = 0 is never
    touched, where a picture without contrast meets a normalisation the gradient of which has no bound.
    Summed over the colours, the attributions of all pixels add up to f(x) - f(x') if the steps suffice:
    `diagnostics["completeness"]` is their ratio, `diagnostics["completeness_error"]` their distance.
    `steps` passes forward and back, and two forward for that check.

    `pool` averages the attribution over cells before its sign is dealt with: `pool` x `pool` cells for each
    image token, None for single pixels. Neighbouring pixels often differ in sign alone, so the size of an
    attribution is the default saliency. `blur` is the standard deviation of the blurred baseline's Gaussian
    as a share of the longer side of the model's input.
    """

    name = "integrated-gradients"
    title = "Integrated Gradients"
    family = "gradient"
    needs = ("gradients",)
    description = "Pixel gradients integrated from a baseline picture to this one in 36 steps."
    paper = "https://arxiv.org/abs/1703.01365"

    steps: int = 36
    baseline: Baseline = "black"
    pool: int | None = None
    sign: Sign = "absolute"
    blur: float = 0.05

    def __post_init__(self) -> None:
        if self.steps < 1 or (self.pool is not None and self.pool < 1) or self.blur <= 0:
            raise InputError(f"{self.name}: steps, pool and blur must be positive")

    def candidates(self, lvlm: HuggingFaceLVLM) -> Iterator[Mapping[str, Any]]:
        """Each baseline, as pixels and as four values for each image token."""
        for baseline in ("black", "mean", "blurred"):
            for pool in (None, 2):
                yield {"baseline": baseline, "pool": pool}

    def explain(
        self, lvlm: HuggingFaceLVLM, example: EncodedExample, *, target: Target = "response", seed: int = 0
    ) -> Attribution:
        baseline = baseline_input(example, self.baseline, self.blur)
        attribution = self.attributions(lvlm, example, baseline, target)
        value, nothing = lvlm.scores(example, torch.stack([example.pixel_values, baseline]), target).tolist()
        total = float(attribution.double().sum())
        diagnostics = {"completeness_error": abs(total - (value - nothing))}
        if value != nothing:
            diagnostics["completeness"] = total / (value - nothing)
        evidence = as_evidence(self._pooled(attribution, example), self.sign)
        return Attribution(
            saliency=example.grid.view.saliency(evidence.cpu().numpy()), diagnostics=diagnostics
        )

    def attributions(
        self,
        lvlm: HuggingFaceLVLM,
        example: EncodedExample,
        baseline: torch.Tensor,
        target: Target = "response",
    ) -> torch.Tensor:
        """The signed attribution of each pixel of the model's input: (height, width)."""
        way = example.pixel_values - baseline
        summed = torch.zeros_like(way)
        middles = (torch.arange(self.steps, device=way.device) + 0.5) / self.steps
        # A batch of pictures at a time: all steps of a large picture take gigabytes.
        for part in torch.split(middles, lvlm.batch):
            _, gradients = lvlm.pixel_gradients(example, baseline + part[:, None, None, None] * way, target)
            summed += gradients.sum(0)
        return (way * summed / self.steps).sum(0)

    def _pooled(self, attribution: torch.Tensor, example: EncodedExample) -> torch.Tensor:
        if self.pool is None:
            return attribution
        cells = (example.grid.rows * self.pool, example.grid.columns * self.pool)
        return functional.adaptive_avg_pool2d(attribution[None], cells)[0]


def baseline_input(example: EncodedExample, baseline: Baseline, blur: float) -> torch.Tensor:
    """A baseline, (3, height, width), normalised; its padding is that of the example."""
    pixel_values = example.pixel_values
    x1, y1, x2, y2 = example.grid.view.content(*pixel_values.shape[1:])
    image = pixel_values[:, y1:y2, x1:x2]
    if baseline == "blurred":
        plain = blurred(image, blur * max(pixel_values.shape[1:]))
    else:
        plain = (example.colour(0.0) if baseline == "black" else example.mean_colour()).expand_as(image)
    filled = pixel_values.clone()
    filled[:, y1:y2, x1:x2] = plain
    return filled


def blurred(image: torch.Tensor, sigma: float) -> torch.Tensor:
    """A picture (3, height, width) smoothed by a Gaussian of `sigma` pixels; its edges go on outside."""
    radius = max(1, round(3 * sigma))
    offsets = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    padded = functional.pad(image[:, None], [radius] * 4, mode="replicate")
    rows = functional.conv2d(padded, kernel[None, None, :, None])
    return functional.conv2d(rows, kernel[None, None, None, :])[:, 0]
