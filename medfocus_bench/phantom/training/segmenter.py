"""The tiny SAM: a rough box in, the mask of the region in it out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from medfocus_bench.attribution.vision_models import BoxSAM, mask_boxes
from medfocus_bench.geometry import clip_boxes
from medfocus_bench.phantom.findings import FINDINGS
from medfocus_bench.phantom.training.checkpoints import SIDE
from medfocus_bench.phantom.training.optimising import optimise
from medfocus_bench.phantom.training.phrases import REGIONS
from medfocus_bench.phantom.training.pictures import HELD_OUT_SEED, TRAIN_SEED
from medfocus_bench.phantom.training.regions import (
    RegionPictures,
    Windows,
    draw_regions,
    jittered,
    overlap,
    random_windows,
    varied,
)
from medfocus_bench.phantom.training.vision_checkpoints import DEVIATION, MEAN, SAM_SIDE, untrained_segmenter

JITTER: Final = 0.15
"""How far an edge of a rough box lies from the region's, at most, as a share of the side."""

_HELD_OUT: Final = 40
_MASK_SIDE: Final = 128
_PROMPTS: Final = 6


def train_segmenter(out: Path, *, pictures: int, steps: int, batch: int, seed: int = 0) -> None:
    """Train the segmenter; write the checkpoint folder `out/sam` in float16, or continue from it."""
    model, processor = untrained_segmenter(seed)
    peak = go_on_from(out / "sam", model)
    data = draw_regions(pictures, TRAIN_SEED + seed)
    print(f"segmenter: {pictures} pictures drawn", flush=True)
    rng = np.random.default_rng(seed)
    model.train()
    optimise(
        "segmenter",
        (p for p in model.parameters() if p.requires_grad),
        lambda: _loss(model, data, rng, batch),
        lambda: save_vision(model, processor, out / "sam"),
        steps=steps,
        peak=peak,
    )
    print_segmenter_quality(model.eval(), processor, _HELD_OUT)


def go_on_from(folder: Path, model: Any) -> float:
    """Give `model` the weights of a checkpoint that is there already; the learning rate to train it with."""
    if not (folder / "config.json").exists():
        return 1.2e-3
    before = type(model).from_pretrained(folder, dtype=torch.float32)
    model.load_state_dict(before.state_dict())
    return 6e-4


def save_vision(model: Any, processor: Any, folder: Path) -> None:
    """An ordinary checkpoint folder, in float16."""
    model.save_pretrained(folder, state_dict={k: v.half() for k, v in model.state_dict().items()})
    processor.save_pretrained(folder)


def _loss(model: Any, data: RegionPictures, rng: np.random.Generator, batch: int) -> torch.Tensor:
    """Cross-entropy and Dice of the masks of a few regions a picture, and the error of the predicted IoU."""
    chosen = rng.integers(len(data.images), size=batch)
    windows = random_windows(batch, SAM_SIDE, rng)
    # Where a picture is padded, the processor has normalised it already: zero.
    pixels = windows.sample((varied(data.images[chosen], rng) - MEAN) / DEVIATION, 0.0)
    boxes = data.boxes[chosen]
    shown = windows.shown(boxes)
    # A picture shows all of the anatomy and few findings, whose shapes vary more.
    often = shown * np.where(np.isin(REGIONS, FINDINGS), 2.0, 1.0)
    regions = np.stack([rng.choice(len(REGIONS), _PROMPTS, p=row / row.sum()) for row in often])
    true = windows.onto(np.take_along_axis(boxes, regions[:, :, None], axis=1))
    share = np.where(rng.random((batch, _PROMPTS, 1)) < 0.7, JITTER, 2 * JITTER)
    prompts = np.clip(jittered(true, share, rng), 0, SAM_SIDE)
    wanted = _targets(data, chosen, regions, windows)
    found = model(
        pixel_values=pixels[:, None].expand(-1, 3, -1, -1),
        input_boxes=torch.from_numpy(prompts).float(),
        multimask_output=False,
    )
    logits = nn.functional.interpolate(
        found.pred_masks[:, :, 0], size=(_MASK_SIDE, _MASK_SIDE), mode="bilinear", align_corners=False
    )
    local = nn.functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    # As much of the loss in a thin clavicle as in a lung: half of it inside of the mask, half outside.
    inside = (local * wanted).sum((2, 3)) / (wanted.sum((2, 3)) + 1)
    outside = (local * (1 - wanted)).sum((2, 3)) / (wanted.sum((2, 3)) + 64)
    share_of = logits.sigmoid()
    both = (share_of * wanted).sum((2, 3))
    dice = 1 - (2 * both + 1) / (share_of.sum((2, 3)) + wanted.sum((2, 3)) + 1)
    hard, there = logits.detach() > 0, wanted > 0.5
    iou = (hard & there).sum((2, 3)) / (hard | there).sum((2, 3)).clamp(min=1)
    judged = nn.functional.mse_loss(found.iou_scores[:, :, 0], iou)
    return (inside + outside + dice).mean() + 0.1 * judged


def _targets(data: RegionPictures, chosen: Any, regions: Any, windows: Windows) -> torch.Tensor:
    """The masks on the canvas, in [0, 1]: (batch, prompts, 128, 128)."""
    layers = []
    coarse = Windows(windows.edges, _MASK_SIDE)
    for column in range(regions.shape[1]):
        masks = np.stack([data.mask(int(n), int(r)) for n, r in zip(chosen, regions[:, column], strict=True)])
        layers.append(coarse.sample(torch.from_numpy(masks).float(), 0.0))
    return torch.stack(layers, dim=1)


def print_segmenter_quality(model: Any, processor: Any, pictures: int) -> None:
    """On patients that were not trained on, from rough boxes: IoU of boxes and masks, region by region."""
    data = draw_regions(pictures, HELD_OUT_SEED + 2)
    rng = np.random.default_rng(0)
    segmenter = BoxSAM(model, processor)
    scores: dict[str, list[tuple[float, float, float]]] = {name: [] for name in REGIONS}
    for number in range(pictures):
        regions = sorted(data.masks[number])
        true = data.boxes[number, regions]
        rough = clip_boxes(jittered(true, JITTER, rng), SIDE, SIDE)
        masks = segmenter.segment(data.images[number], rough)
        before, after = overlap(rough, true), overlap(mask_boxes(masks), true)
        for order, region in enumerate(regions):
            wanted = data.mask(number, region)
            iou = (masks[order] & wanted).sum() / (masks[order] | wanted).sum()
            scores[REGIONS[region]].append((before[order], after[order], float(iou)))
    for name, rows in scores.items():
        if rows:
            before, after, iou = np.mean(rows, axis=0)
            print(
                f"segmenter {name}: rough box {before:.3f}, box of the mask {after:.3f}, mask {iou:.3f} "
                f"({len(rows)})",
                flush=True,
            )
