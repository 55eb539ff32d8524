"""The methods of the paper's released code where they differ from ours, in our words, for docs/deviations.md.

`python -m tests.attribution.released` prints the figures of that page: on samples of the phantom track, what
each difference does to the map (Pearson's correlation with ours) and to evidence AP.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from math import isqrt
from typing import Any, Final

import numpy as np
import torch

import medfocus_bench as mb
from medfocus_bench.attribution.attention import AttentionRollout, predictor_rows
from medfocus_bench.attribution.gradient import GradientWeightedAttention
from medfocus_bench.attribution.integrated_gradients import IntegratedGradients, baseline_input
from medfocus_bench.attribution.lrp import LRP
from medfocus_bench.attribution.perturbation import RISE
from medfocus_bench.data.sample import Sample
from medfocus_bench.lvlm.protocol import Response
from medfocus_bench.lvlm.registry import kept_lvlm

SAMPLES: Final = 25
"""Of each LVLM and mode."""

Map = np.ndarray[Any, Any]


def _mixed(lvlm: Any, example: Any) -> list[torch.Tensor]:
    """(A + I) of each block, heads averaged, rows scaled to sum to 1: (length, length)."""
    trace = lvlm.trace(example, attentions=range(lvlm.layers), keep=lambda a: a.float().mean(0))
    mixed = [trace.attentions[n][0] + torch.eye(len(example.ids)) for n in range(lvlm.layers)]
    return [one / one.sum(-1, keepdim=True) for one in mixed]


def relevance_by_attention(lvlm: Any, example: Any) -> Map:
    """Its "LRP": equal relevance at the predictor rows, handed down by averaged attention with a residual."""
    relevance = torch.zeros(len(example.ids))
    relevance[predictor_rows(example, "response")] = 1.0
    for matrix in reversed(_mixed(lvlm, example)):
        relevance = matrix.T @ relevance
        relevance = relevance / relevance.sum()
    return np.asarray(relevance[example.image_positions].numpy())


def rollout_reversed(lvlm: Any, example: Any) -> Map:
    """Its rollout: the product with the first block on the left, and the rows of the answer itself."""
    product = torch.eye(len(example.ids))
    for matrix in _mixed(lvlm, example):
        product = product @ matrix
    rows = slice(example.answer.start, example.answer.stop)
    return np.asarray(product[rows].mean(0)[example.image_positions].numpy())


def gradients_at_answer_rows(lvlm: Any, example: Any) -> Map:
    """Its gradient-weighted attention: the rows of the answer, one after those that predict it."""
    layer = lvlm.layers // 2
    trace = lvlm.trace(example, attentions=[layer], gradients=True)
    weights = trace.attentions[layer]
    (slope,) = torch.autograd.grad(lvlm.objective(example, trace), [weights])
    relevance = (slope[0].clamp(min=0) * weights[0].detach()).mean(0)
    rows = slice(example.answer.start, example.answer.stop)
    return np.asarray(relevance[rows].mean(0)[example.image_positions].numpy())


def integrated_over(lvlm: Any, example: Any, baseline: torch.Tensor) -> torch.Tensor:
    """The size of our attributions, summed over colours, at the patches of the model: (rows, columns)."""
    signed = IntegratedGradients(steps=12).attributions(lvlm, example, baseline)
    patch = example.pixel_values.shape[1] // example.grid.rows // 2
    rows, columns = (side // patch for side in signed.shape)
    return signed.abs().reshape(rows, patch, columns, patch).sum((1, 3))


def in_merge_order(patches: torch.Tensor) -> Map:
    """Its Integrated Gradients on Qwen: patches as the processor lists them, read as if in raster order."""
    rows, columns = patches.shape
    listed = patches.reshape(rows // 2, 2, columns // 2, 2).permute(0, 2, 1, 3).reshape(-1)
    side = isqrt(listed.numel())
    return np.asarray(listed.reshape(side, side).numpy())


def of_tokens(example: Any, values: Map) -> Map:
    return np.asarray(values).reshape(example.grid.rows, example.grid.columns)


def pairs(sample: Sample) -> dict[str, tuple[Map, Map]]:
    """By difference: the map of the released code and ours."""
    lvlm = kept_lvlm(sample.lvlm)
    example = lvlm.encode(sample.image, sample.question, sample.response)
    rollout = AttentionRollout().explain(lvlm, example).saliency
    found = {
        "its LRP, our rollout": (of_tokens(example, relevance_by_attention(lvlm, example)), rollout),
        "its LRP, our LRP": (
            of_tokens(example, relevance_by_attention(lvlm, example)),
            LRP().explain(lvlm, example).saliency,
        ),
        "rollout": (of_tokens(example, rollout_reversed(lvlm, example)), rollout),
        "gradient-weighted attention": (
            of_tokens(example, gradients_at_answer_rows(lvlm, example)),
            GradientWeightedAttention().explain(lvlm, example).saliency,
        ),
        "RISE, soft masks": (
            RISE(soft=True).explain(lvlm, example).saliency,
            RISE().explain(lvlm, example).saliency,
        ),
    }
    if "qwen" in sample.lvlm:
        patches = integrated_over(lvlm, example, baseline_input(example, "black", 0.05))
        found["Integrated Gradients, patch order"] = in_merge_order(patches), np.asarray(patches.numpy())
        grey = integrated_over(lvlm, example, torch.zeros_like(example.pixel_values))
        found["Integrated Gradients, grey for black"] = np.asarray(grey.numpy()), np.asarray(patches.numpy())
    return found


def correlation(one: Map, other: Map) -> float:
    """Pearson's; 0 for a map without contrast."""
    coarse = min(len(one), len(other))
    one, other = (each.reshape(coarse, -1, coarse, len(each) // coarse).mean((1, 3)) for each in (one, other))
    if not (np.ptp(one) and np.ptp(other)):
        return 0.0
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def end_of_turn(sample: Sample) -> float:
    """The end token's part of how much the log-probability moves when the cause goes, all signs counted."""
    lvlm = kept_lvlm(sample.lvlm)
    ids = lvlm.chat_format.tokenised(sample.response).ids
    closed = Response(sample.response, (*ids, lvlm.processor.tokenizer.eos_token_id), None)
    scores = lvlm.log_probs([sample.image, sample.counterfactual], sample.question, closed)
    moved = np.abs(scores[0] - scores[1])
    return float(moved[-1] / moved.sum())


def figures(samples: Iterable[Sample]) -> dict[str, list[tuple[float, float, float]]]:
    """By difference, of each sample: the correlation, and evidence AP of the released code's map and ours."""
    found: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for sample in samples:
        for name, (theirs, ours) in pairs(sample).items():
            scores = [
                mb.score(mb.Attribution(sample.sample_id, saliency=one), sample)["evidence_ap"]
                for one in (theirs, ours)
            ]
            found[name].append((correlation(theirs, ours), scores[0], scores[1]))
    return found


def some(count: int = SAMPLES) -> list[Sample]:
    """So many samples of each LVLM and mode, in the order of the LVLMs."""
    held: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for sample in mb.load_benchmark("phantom", split=["direct", "reasoning"]).samples:
        held[sample.lvlm, sample.mode].append(sample)
    return [sample for key in sorted(held) for sample in held[key][:: len(held[key]) // count][:count]]


def main() -> None:
    samples = some()
    for mode in ("direct", "reasoning"):
        shares = [end_of_turn(sample) for sample in samples if sample.mode == mode]
        mean, most = np.mean(shares), max(shares)
        print(f"end of turn, {mode}: n {len(shares)}, {mean:.3f} of the change, at most {most:.3f}")
    for name, rows in figures(samples).items():
        means = np.mean(rows, axis=0)
        print(f"{name}: n {len(rows)}, r {means[0]:.3f}, evidence AP {means[1]:.3f} against {means[2]:.3f}")


if __name__ == "__main__":
    main()
