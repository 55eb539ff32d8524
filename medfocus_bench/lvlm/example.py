"""One picture with its question and response, as a model reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from scipy import ndimage

from medfocus_bench.geometry import Frame, UInt8Image
from medfocus_bench.lvlm.grid import TokenGrid

Target = Literal["response", "verdict"] | tuple[int, int]
"""The explained quantity: the log-probability of the whole response, the log-odds of yes over no at its
verdict, or the log-probability of its tokens `start:stop`."""


@dataclass(frozen=True, slots=True, eq=False)
class EncodedExample:
    """An (image, question, response) ready for teacher-forced passes.

    `ids` (length): the prompt, image tokens included, and then the response's own tokens, which stand at
    `answer`. `pixel_values` (3, height, width), float32: the normalised pixels that the processor made, in
    raster order whatever order the model wants them in; methods edit it. `mean` and `std` (3, 1, 1)
    normalised it.
    `token_types` (length) marks the image tokens where the family's model asks for that. `finding` is the one
    that the question is about, where the caller knows it. `in_sequence`: whether the picture's tokens stand
    in the decoder's sequence; if not, there are no `image_positions`, and `grid` is the vision tower's.
    """

    image: UInt8Image
    question: str
    response: str
    ids: torch.Tensor
    token_types: torch.Tensor | None
    image_positions: torch.Tensor
    answer: range
    tokens: tuple[str, ...]
    pixel_values: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor
    grid: TokenGrid
    verdict: int | None
    finding: str | None = None
    in_sequence: bool = True

    def __post_init__(self) -> None:
        if len(self.image_positions) != (len(self.grid) if self.in_sequence else 0):
            grid = f"{self.grid.rows} x {self.grid.columns}"
            raise ValueError(f"{len(self.image_positions)} image tokens for a grid of {grid}")
        if len(self.answer) == 0:
            raise ValueError("the response is empty: there is nothing to explain")

    @property
    def frame(self) -> Frame:
        return self.grid.view.frame

    @property
    def rows(self) -> range:
        """The positions whose output predicts the response's tokens: one before each of them."""
        return range(self.answer.start - 1, self.answer.stop - 1)

    def offsets(self, target: Target) -> range:
        """The tokens of the response that a target speaks of.

        Raises ValueError for an empty span, one outside the response, and a response without a verdict.
        """
        if target == "response":
            return range(len(self.answer))
        if target == "verdict":
            if self.verdict is None:
                raise ValueError(f"the response {self.response[:80]!r} states no yes or no to explain")
            return range(self.verdict, self.verdict + 1)
        if not isinstance(target, tuple) or len(target) != 2:
            raise ValueError(
                f"no target {target!r}; there are 'response', 'verdict' and a span (start, stop)"
            )
        start, stop = target
        if not 0 <= start < stop <= len(self.answer):
            raise ValueError(f"no tokens {start}:{stop} in a response of {len(self.answer)}")
        return range(start, stop)

    def colour(self, grey: float) -> torch.Tensor:
        """A grey level in [0, 1], normalised as the pixel values are: (3, 1, 1)."""
        return (grey - self.mean) / self.std

    @property
    def shown(self) -> tuple[slice, slice, slice]:
        """The part of `pixel_values` that is the image, padding left out."""
        x1, y1, x2, y2 = self.grid.view.content(*self.pixel_values.shape[1:])
        return slice(None), slice(y1, y2), slice(x1, x2)

    def mean_colour(self) -> torch.Tensor:
        """The mean colour of the image, padding left out, normalised: (3, 1, 1)."""
        return self.pixel_values[self.shown].mean(dim=(1, 2), keepdim=True)

    def blurred(self, sigma: float) -> torch.Tensor:
        """The pixel values with the image, but not its padding, smoothed by a Gaussian of `sigma` pixels."""
        smooth = self.pixel_values.clone()
        image = smooth[self.shown].cpu().numpy()
        soft = ndimage.gaussian_filter(image, (0, sigma, sigma), mode="nearest", truncate=3.0)
        smooth[self.shown] = torch.from_numpy(soft).to(smooth.device)
        return smooth
