"""An LVLM as a module of torch: what other libraries of attribution take."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from medfocus_bench.errors import InputError
from medfocus_bench.lvlm.example import EncodedExample, Target
from medfocus_bench.lvlm.finite import check_finite


class Scorer(Protocol):
    """The part of an LVLM that a module is made of, see `HuggingFaceLVLM`."""

    key: str
    model: Any
    quantised: bool

    @property
    def device(self) -> torch.device: ...

    def pass_scores(
        self, example: EncodedExample, pixel_values: torch.Tensor, target: Target = "response"
    ) -> torch.Tensor: ...


class ScoreModule(torch.nn.Module):
    """From pixels (n, 3, height, width) to scores (n,) of an example's target, float32; differentiable.

    Pixels are those of `EncodedExample.pixel_values`, normalised, float of any precision, on any device;
    scores are on the LVLM's. One call is one forward pass of all n pictures, whatever the LVLM's `batch`, so
    that a hook on a layer sees them together: the caller's library decides how many they are.

    `model` is the transformers model, for libraries that ask for its layers. Its weights are frozen, so a
    graph begins at the pixels, also at pixels that do not require gradients themselves; under
    `torch.no_grad` and in inference mode there are values alone. A second derivative (`create_graph`) needs
    kernels of attention that have one: load the LVLM with `attention="eager"`. Within `lvlm.measured()` the
    passes forward and back are counted.

    Raises InputError for pixels of another type or shape or that are not finite, and for gradients of
    quantised weights; NotFiniteError for scores or gradients that are not finite; ValueError for a target
    that the response does not have.
    """

    def __init__(self, lvlm: Scorer, example: EncodedExample, target: Target = "response") -> None:
        super().__init__()
        example.offsets(target)
        self.lvlm, self.example, self.target = lvlm, example, target
        self.model = lvlm.model
        self.eval()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        if not isinstance(pixels, torch.Tensor) or not pixels.is_floating_point():
            kind = pixels.dtype if isinstance(pixels, torch.Tensor) else type(pixels).__name__
            raise InputError(f"{self.lvlm.key}: pixels are a tensor of torch of a float type, not {kind}")
        expected = tuple(self.example.pixel_values.shape)
        if pixels.ndim != len(expected) + 1 or tuple(pixels.shape[1:]) != expected or len(pixels) == 0:
            raise InputError(
                f"{self.lvlm.key}: pixels are (n, {', '.join(map(str, expected))}) for this example, not "
                f"{tuple(pixels.shape)}; begin with example.pixel_values[None]"
            )
        if not bool(pixels.isfinite().all()):
            raise InputError(f"{self.lvlm.key}: some pixels are not finite numbers")
        if torch.is_grad_enabled():
            pixels = self._rooted(pixels)
        pixels = pixels.to(self.lvlm.device, torch.float32)
        return self.lvlm.pass_scores(self.example, pixels, self.target)

    def _rooted(self, pixels: torch.Tensor) -> torch.Tensor:
        """The pixels as a tensor of this pass alone, at which a graph begins."""
        if self.lvlm.quantised:
            if pixels.requires_grad:
                raise InputError(
                    f"{self.lvlm.key}: gradients do not pass through quantised weights as the model computes "
                    "with them; load it without quantise, or score under torch.no_grad()"
                )
            return pixels
        own = pixels.clone()  # the hook below ends with the pass; inference tensors could not be saved
        own = own if own.requires_grad else own.requires_grad_()
        own.register_hook(self._check_gradients)  # type: ignore[no-untyped-call]
        return own

    def _check_gradients(self, gradients: torch.Tensor) -> None:
        check_finite(gradients, "the gradients at the pixels", self.lvlm.key, self.model.dtype)

    def on_grid(self, states: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
        """States (n, length, width) of a block of the decoder, at the picture: (n, width, rows, columns).

        The `reshape_transform` of pytorch-grad-cam for target layers `lvlm.decoder.layers[k]`. After the last
        of them the picture's tokens no longer reach the answer. Raises InputError for a family whose
        decoder has no tokens of the picture.
        """
        if not self.example.in_sequence:
            raise InputError(
                f"{self.lvlm.key}: the decoder has no tokens of the picture; take a layer of the vision tower"
            )
        found = states[0] if isinstance(states, tuple) else states
        grid = self.example.grid
        tokens = found[:, self.example.image_positions.to(found.device)]
        return tokens.movedim(-1, 1).reshape(len(found), -1, grid.rows, grid.columns)

    def feature_mask(self) -> torch.Tensor:
        """The number of each pixel's token, int64 (1, 1, height, width): Captum's `feature_mask`."""
        grid = self.example.grid
        height, width = self.example.pixel_values.shape[1:]
        rows, columns = (
            (torch.arange(side, device=self.lvlm.device) // (side // cells)).clamp(max=cells - 1)
            for side, cells in ((height, grid.rows), (width, grid.columns))
        )
        return (rows[:, None] * grid.columns + columns)[None, None]

    def __repr__(self) -> str:
        shape = ", ".join(map(str, self.example.pixel_values.shape))
        return (
            f"<{self.lvlm.key}: pixels (n, {shape}) to the {self.target} of {self.example.response[:40]!r}>"
        )
