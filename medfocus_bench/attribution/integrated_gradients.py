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
        total = float(attribution.cpu().double().sum())
        diagnostics = {"completeness_error": abs(total - (value - nothing))}
        if value != nothing:
            diagnostics["completeness"] = total / (value - nothing)
        if self.pool is not None:
            cells = (example.grid.rows * self.pool, example.grid.columns * self.pool)
            attribution = functional.adaptive_avg_pool2d(attribution[None], cells)[0]
        evidence = as_evidence(attribution, self.sign).cpu().numpy()
        return Attribution(saliency=example.grid.view.saliency(evidence), diagnostics=diagnostics)

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


def baseline_input(example: EncodedExample, baseline: Baseline, blur: float) -> torch.Tensor:
    """A baseline, (3, height, width), normalised; its padding is that of the example."""
    if baseline == "blurred":
        return example.blurred(blur * max(example.pixel_values.shape[1:]))
    filled = example.pixel_values.clone()
    filled[example.shown] = example.colour(0.0) if baseline == "black" else example.mean_colour()
    return filled
