"""Methods that weight a block's attention or hidden states of the image by the target's gradient.

Blocks are counted from 0. Attention is differentiated with respect to the weights of a block, whose predictor
rows are read, and the Grad-CAM family with respect to the hidden states of the image tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from medfocus_bench.attribution.attention import (
    chosen_block,
    predictor_rows,
    rows_of_product,
    token_map,
)
from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.attribution.protocol import Method
from medfocus_bench.errors import InputError

if TYPE_CHECKING:
    from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
    from medfocus_bench.lvlm.example import EncodedExample, Target


@dataclass(frozen=True)
class GradientWeightedAttention(Method):
    """Chefer et al. 2021: attention where more of it would raise the target.

    C_k = mean_h(max(0, dy/dA_k) A_k) of block k. The map is the sum of the predictor rows of C_layer at the
    image tokens, as the benchmark's paper has it; with `propagate` that of R = (I + C_L) ... (I + C_layer),
    which is the update R <- R + C R of the method's own paper over all blocks from that one on. `layer` None
    is the middle block, with `propagate` the first. One pass forward and one back.
    """

    name = "gradient-weighted-attention"
    title = "Gradient-weighted Attention"
    family = "gradient"
    needs = ("attentions", "gradients")
    assumes = ("image_tokens",)
    description = "Attention times its positive gradient at one block, mean over the heads."
    paper = "https://arxiv.org/abs/2103.15679"

    layer: int | None = None
    propagate: bool = False

    def explain(
        self, lvlm: HuggingFaceLVLM, example: EncodedExample, *, target: Target = "response", seed: int = 0
    ) -> Attribution:
        wanted = 0 if self.propagate and self.layer is None else self.layer
        first = chosen_block(self.name, lvlm, wanted)
        layers = range(first, lvlm.layers) if self.propagate else range(first, first + 1)
        rows = predictor_rows(example, target)
        read = None if self.propagate else rows
        trace = lvlm.trace(example, attentions=layers, attention_rows=read, gradients=True)
        weights = [trace.attentions[layer] for layer in layers]
        gradients = lvlm.gradients(lvlm.objective(example, trace, target), weights)
        relevance = [
            (gradient[0].clamp(min=0).float() * weight[0].detach().float()).mean(0).to(lvlm.device)
            for gradient, weight in zip(gradients, weights, strict=True)
        ]
        if self.propagate:
            unit = torch.eye(len(relevance[0]), device=relevance[0].device)
            reached = rows_of_product([unit + matrix for matrix in relevance], rows)
        else:
            reached = relevance[0]
        return token_map(example, reached[:, example.image_positions].sum(0))

    def candidates(self, lvlm: HuggingFaceLVLM) -> Iterator[Mapping[str, Any]]:
        """Every block, and the update over all of them."""
        yield from ({"layer": layer, "propagate": False} for layer in range(lvlm.layers))
        yield {"layer": 0, "propagate": True}


@dataclass(frozen=True)
class GradCAM(Method):
    """Selvaraju et al. 2017, on the output h of a decoder block at the image tokens.

    map_i = max(0, sum_c alpha_c h_ic), with alpha_c the mean over the image tokens of dy/dh_ic. The last
    block is excluded: after it no image token reaches the answer, and the gradient is zero. `layer` None is
    the middle block, or the one before the last. One pass forward and one back.
    """

    name = "grad-cam"
    title = "Grad-CAM"
    family = "gradient"
    needs = ("gradients",)
    assumes = ("image_tokens",)
    description = "Hidden states of the image tokens, channels weighted by their mean gradient."
    paper = "https://arxiv.org/abs/1610.02391"

    layer: int | None = None

    def explain(
        self, lvlm: HuggingFaceLVLM, example: EncodedExample, *, target: Target = "response", seed: int = 0
    ) -> Attribution:
        last = lvlm.layers - 1
        if last > 0 and self.layer == last:
            raise InputError(
                f"{self.name}: block {last} is the last of {lvlm.key}, after which the image tokens no "
                f"longer reach the answer; give an earlier one, up to {last - 1}"
            )
        layer = chosen_block(self.name, lvlm, self.layer, last)
        trace = lvlm.trace(example, hidden=[layer], gradients=True)
        states = trace.hidden[layer]
        (slopes,) = lvlm.gradients(lvlm.objective(example, trace, target), [states])
        hidden, gradient = (
            each.detach()[0].to(lvlm.device)[example.image_positions].cpu().double()
            for each in (states, slopes)
        )
        return token_map(example, (hidden @ self.channel_weights(hidden, gradient)).clamp(min=0))

    def channel_weights(self, hidden: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """Alpha (width,) from states and gradients (tokens, width): equation 1 of the paper."""
        return gradient.mean(0)

    def candidates(self, lvlm: HuggingFaceLVLM) -> Iterator[Mapping[str, Any]]:
        """Every block but the last."""
        return ({"layer": layer} for layer in range(lvlm.layers - 1))


@dataclass(frozen=True)
class GradCAMPlusPlus(GradCAM):
    """Chattopadhay et al. 2018: Grad-CAM with weights that count every token where a channel helps.

    alpha_c = sum_i a_ic max(0, g_ic), where a_ic = g_ic^2 / (2 g_ic^2 + S_c g_ic^3), g = dy/dh at token i and
    S_c = sum_i h_ic. Hidden states are not positive as a CNN's feature maps are, so the denominator may
    vanish: a_ic is 0 then. For `layer` see `GradCAM`.
    """

    name = "grad-cam-plus-plus"
    title = "Grad-CAM++"
    description = "Grad-CAM with weights from higher-order gradients."
    paper = "https://arxiv.org/abs/1710.11063"

    def channel_weights(self, hidden: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """Alpha (width,): equations 5 and 19 of the paper."""
        # The ratio of powers, reduced: the square and the cube of a small gradient underflow.
        denominator = 2 + hidden.sum(0) * gradient
        defined = (gradient != 0) & (denominator != 0)
        share = torch.where(defined, 1 / denominator.where(defined, 1.0), 0.0)
        return (share * gradient.clamp(min=0)).sum(0)
