"""Methods that read attention weights.

Token t of the response is predicted by the position before it, so all of them read these predictor rows,
never the rows of the response's own tokens. Their weights are computed step by step beside the fused kernels,
which give none. Blocks and heads are counted from 0. Nothing assumes that a row sees only what
stands before it (Gemma 3 attends in both directions within the image), nor that it sees the image at all (a
sliding window may have passed it): a block that does not look gives an empty map, no explanation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.attribution.protocol import Method
from medfocus_bench.errors import InputError
from medfocus_bench.lvlm.protocol import Response

if TYPE_CHECKING:
    from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
    from medfocus_bench.lvlm.example import EncodedExample, Target


@dataclass(frozen=True)
class AttentionHead(Method):
    """The attention of one head of one block: A[head, row, image token], the mean over the predictor rows.

    `layer` None is the middle block. Select both on the dev split: heads differ, and most do not look for
    evidence.
    """

    name = "attention-head"
    title = "Attention Head"
    family = "attention"
    needs = ("attentions",)
    assumes = ("image_tokens",)
    description = "Attention of one head of one block to the image, mean over the response."
    paper = "https://arxiv.org/abs/2605.20158"

    layer: int | None = None
    head: int = 0

    def explain(
        self, lvlm: HuggingFaceLVLM, example: EncodedExample, *, target: Target = "response", seed: int = 0
    ) -> Attribution:
        layer = chosen_block(self.name, lvlm, self.layer)
        heads = heads_of(lvlm)
        if not 0 <= self.head < heads:
            raise InputError(f"{self.name}: {lvlm.key} has no head {self.head}; give one of 0 to {heads - 1}")
        chosen = {"layer": layer, "head": self.head}
        return self.explain_candidates(lvlm, example, [chosen], target=target)[0]

    def candidates(self, lvlm: HuggingFaceLVLM) -> Iterator[Mapping[str, Any]]:
        """Every head of every block."""
        for layer in range(lvlm.layers):
            for head in range(heads_of(lvlm)):
                yield {"layer": layer, "head": head}

    def explain_candidates(
        self,
        lvlm: HuggingFaceLVLM,
        example: EncodedExample,
        candidates: Sequence[Mapping[str, Any]],
        *,
        target: Target = "response",
        seed: int = 0,
    ) -> list[Attribution]:
        """One pass for all heads of all blocks: a model of 36 blocks has more than 500."""
        rows, columns = predictor_rows(example, target), example.image_positions
        trace = lvlm.trace(
            example,
            attentions=sorted({one["layer"] for one in candidates}),
            attention_rows=rows,
            keep=lambda weights: weights[:, :, columns.to(weights.device)].float().mean(1),
        )
        return [token_map(example, trace.attentions[one["layer"]][0, one["head"]]) for one in candidates]


@dataclass(frozen=True)
class AttentionRollout(Method):
    """Abnar & Zuidema 2020: how attention passes the image on to the response, block upon block.

    M_k = (1 - residual) mean_h(A_k) + residual I, rows scaled to sum to 1, and R = M_L ... M_2 M_1, the last
    block first. The map is the mean of R's predictor rows at the image tokens. Memory: one (length, length)
    matrix a block.
    """

    name = "attention-rollout"
    title = "Attention Rollout"
    family = "attention"
    needs = ("attentions",)
    assumes = ("image_tokens",)
    description = "Product over the blocks of head-averaged attention with a residual of 0.5."
    paper = "https://arxiv.org/abs/2005.00928"

    residual: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.residual < 1:
            raise InputError(f"{self.name}: a residual of {self.residual} is not within 0 and 1")

    def explain(
        self, lvlm: HuggingFaceLVLM, example: EncodedExample, *, target: Target = "response", seed: int = 0
    ) -> Attribution:
        layers = range(lvlm.layers)
        trace = lvlm.trace(example, attentions=layers, keep=lambda weights: weights.float().mean(0))
        mixed = [self._mixed(trace.attentions[layer][0]) for layer in layers]
        reached = rows_of_product(mixed, predictor_rows(example, target))
        return token_map(example, reached[:, example.image_positions].mean(0))

    def _mixed(self, attention: torch.Tensor) -> torch.Tensor:
        unit = torch.eye(len(attention), device=attention.device)
        mixed = (1 - self.residual) * attention + self.residual * unit
        return mixed / mixed.sum(-1, keepdim=True)


@dataclass(frozen=True)
class RelativeAttention(Method):
    """Zhang et al. 2025, "MLLMs know where to look": attention for this prompt over that for a general one.

    mean_h(A[row]) / mean_h(A'[last row of the general prompt]) at the image tokens, of one block, where row
    predicts the target's first token: the prompt's last one for a whole response. Attention that any
    question draws cancels. Two passes. A token that the general prompt does not see gets no saliency.
    `layer` None is the middle block.
    """

    name = "relative-attention"
    title = "Relative Attention"
    family = "attention"
    needs = ("attentions",)
    assumes = ("image_tokens",)
    description = "Attention for this prompt over that for a general one, at one block."
    paper = "https://arxiv.org/abs/2502.17422"

    layer: int | None = None
    prompt: str = "Write a general description of the image."

    def explain(
        self, lvlm: HuggingFaceLVLM, example: EncodedExample, *, target: Target = "response", seed: int = 0
    ) -> Attribution:
        layer = chosen_block(self.name, lvlm, self.layer)
        general = self._general(lvlm, example)
        asked = _mean_attention(lvlm, example, layer, predictor_rows(example, target).start)
        always = _mean_attention(lvlm, general, layer, general.rows.start)
        seen = always >= torch.finfo(always.dtype).tiny
        return token_map(example, torch.where(seen, asked / always.where(seen, 1.0), 0.0))

    def candidates(self, lvlm: HuggingFaceLVLM) -> Iterator[Mapping[str, Any]]:
        """Every block."""
        return ({"layer": layer} for layer in range(lvlm.layers))

    def _general(self, lvlm: HuggingFaceLVLM, example: EncodedExample) -> EncodedExample:
        """The same image after the general prompt, of which the last row alone is read."""
        first = Response(example.tokens[0], (int(example.ids[example.answer.start]),), None)
        return lvlm.encode(example.image, self.prompt, first)


def _mean_attention(lvlm: HuggingFaceLVLM, example: EncodedExample, layer: int, row: int) -> torch.Tensor:
    """Attention of one row to the image tokens, the mean over the heads of a block: (tokens,)."""
    columns = example.image_positions
    trace = lvlm.trace(
        example,
        attentions=[layer],
        attention_rows=slice(row, row + 1),
        keep=lambda weights: weights[:, 0, columns.to(weights.device)].float().mean(0),
    )
    return trace.attentions[layer][0]


def token_map(example: EncodedExample, values: torch.Tensor) -> Attribution:
    """The map of one value an image token."""
    return Attribution(saliency=example.grid.saliency(values.cpu().numpy()))


def chosen_block(name: str, lvlm: HuggingFaceLVLM, layer: int | None, count: int | None = None) -> int:
    """`layer`, checked to be one of the first `count` blocks, of all by default.

    None is the middle block, or the last of them. Raises InputError that names the method and the range.
    """
    count = lvlm.layers if count is None else count
    if count < 1:
        raise InputError(f"{name}: {lvlm.key} has no block whose image tokens still reach the answer")
    if layer is None:
        return min(lvlm.layers // 2, count - 1)
    if not 0 <= layer < count:
        raise InputError(f"{name}: {lvlm.key} has no block {layer} to read; give one of 0 to {count - 1}")
    return layer


def heads_of(lvlm: HuggingFaceLVLM) -> int:
    """Attention heads of a block of the text decoder."""
    return int(lvlm.decoder.config.num_attention_heads)


def predictor_rows(example: EncodedExample, target: Target) -> slice:
    """The positions that predict the target's tokens, as a slice of the sequence."""
    chosen, first = example.offsets(target), example.rows.start
    return slice(first + chosen.start, first + chosen.stop)


def rows_of_product(matrices: Sequence[torch.Tensor], rows: slice) -> torch.Tensor:
    """Some rows of the product M_L ... M_2 M_1 of square matrices that are given first block first.

    Multiplied from the left, so that only these rows are in memory.
    """
    product = matrices[-1][rows]
    for matrix in reversed(matrices[:-1]):
        product = product @ matrix
    return product
