"""The tiny OWLv2: a phrase in, the box of the region that it names out, or a score near 0."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from medfocus_bench.attribution.vision_models import OWLv2
from medfocus_bench.geometry import BoolArray, FloatArray
from medfocus_bench.phantom.findings import FINDINGS
from medfocus_bench.phantom.render import MARKS
from medfocus_bench.phantom.training.optimising import optimise
from medfocus_bench.phantom.training.phrases import (
    FRAMES,
    HELD_OUT_ABSENT,
    LOOKS,
    PHRASES,
    REGIONS,
    STRANGERS,
    fragments,
)
from medfocus_bench.phantom.training.pictures import HELD_OUT_SEED, TRAIN_SEED
from medfocus_bench.phantom.training.regions import (
    RegionPictures,
    draw_regions,
    overlap,
    random_windows,
    varied,
)
from medfocus_bench.phantom.training.segmenter import go_on_from, save_vision
from medfocus_bench.phantom.training.vision_checkpoints import DEVIATION, MEAN, OWL_SIDE, untrained_detector

THRESHOLD: Final = 0.1
"""The score from which Prompting + MedSAM takes a phrase for found."""

_HELD_OUT: Final = 60
_PATCHES: Final = 4
"""Patches that are taught to propose a region's box: those nearest to its middle that no smaller one has."""

_WORDS: Final = frozenset(
    word for text in (*PHRASES.values(), FRAMES, LOOKS) for phrase in text for word in phrase.split()
)

_RARE: Final = 3.0
"""How much a finding's box counts, beside one of the anatomy, which every picture shows."""

_REFUSED: Final = 28
"""Phrases for nothing in each step."""


def train_detector(out: Path, *, pictures: int, steps: int, batch: int, seed: int = 0) -> None:
    """Train the detector; write the checkpoint folder `out/owlv2` in float16, or continue from it."""
    model, processor = untrained_detector(seed)
    peak = go_on_from(out / "owlv2", model)
    data = draw_regions(pictures, TRAIN_SEED + seed)
    print(f"detector: {pictures} pictures drawn", flush=True)
    rng = np.random.default_rng(seed)
    nothing = fragments()
    model.train()
    optimise(
        "detector",
        (p for p in model.parameters() if p.requires_grad),
        lambda: _loss(model, processor, data, rng, batch, nothing),
        lambda: save_vision(model, processor, out / "owlv2"),
        steps=steps,
        peak=peak,
    )
    print_detector_quality(model.eval(), processor, _HELD_OUT)


def _asked(rng: np.random.Generator, nothing: list[str]) -> list[str]:
    """A phrase for every region, in the order of `REGIONS`, then phrases for nothing."""
    return [named(region, rng) for region in REGIONS] + [_refused(rng, nothing) for _ in range(_REFUSED)]


def named(region: str, rng: np.random.Generator) -> str:
    """One of a region's names, as often as not with something around it."""
    phrase = str(rng.choice(PHRASES[region]))
    if rng.random() < 0.5:
        return phrase
    plural = region.startswith("both ")
    return str(rng.choice(FRAMES + LOOKS if plural else FRAMES)).format(phrase)


def _refused(rng: np.random.Generator, nothing: list[str]) -> str:
    """Foreign words, letters without a sense, pieces of the LVLMs' sentences, verdicts, a region negated."""
    way = int(rng.integers(7))
    if way == 0:
        phrase = " ".join(rng.choice(STRANGERS, int(rng.integers(1, 4))))
    elif way == 1:
        phrase = "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), int(rng.integers(2, 10))))
    elif way == 2:
        phrase = str(rng.choice(nothing))
    elif way == 3:
        joint = str(rng.choice(["", " ", ". ", ", "]))
        phrase = joint.join(rng.choice(["Yes", "No", "Final answer", "no"], int(rng.integers(1, 7))))
    elif way == 4:
        phrase = f"{rng.choice(STRANGERS)} {rng.choice(nothing)}"
    elif way == 5:
        phrase = _mixed(rng)
    else:
        denial = rng.choice(["no", "no sign of", "no evidence of", "without"])
        phrase = f"{denial} {named(_any_region(rng), rng)}"
    return phrase


def _mixed(rng: np.random.Generator) -> str:
    """A made-up word: it begins like one of a region's name and ends like another."""
    one, other = (str(rng.choice(named(_any_region(rng), rng).split())) for _ in range(2))
    word = one[: int(rng.integers(1, len(one) + 1))] + other[int(rng.integers(len(other))) :]
    return f"{word}q" if word in _WORDS else word


def _any_region(rng: np.random.Generator) -> str:
    return REGIONS[int(rng.integers(len(REGIONS)))]


@dataclass(frozen=True, slots=True, eq=False)
class Assignment:
    """Which patch proposes which region: rows (picture, patch, region), and whose boxes they are to be."""

    pictures: npt.NDArray[np.intp]
    patches: npt.NDArray[np.intp]
    regions: npt.NDArray[np.intp]


def assigned(boxes: FloatArray, shown: BoolArray, grid: int, side: int) -> Assignment:
    """The patches nearest to the middle of each region that is shown; a patch has one box and so one region.

    `boxes` (n, k, 4) on a canvas of `side` pixels, `shown` (n, k). The smaller region chooses first; the
    last row and column of the grid are left out.
    """
    middles = (np.arange(grid) + 0.5) * side / grid
    across, down = np.meshgrid(middles, middles)
    rows: list[tuple[int, int, int]] = []
    for picture in range(len(boxes)):
        # The last row and column begin with a box at the very edge, where the gradient is nearly zero.
        inner = np.zeros((grid, grid), dtype=np.bool_)
        inner[:-1, :-1] = True
        free = inner.ravel()
        regions = np.flatnonzero(shown[picture])
        areas = (boxes[picture, regions, 2:] - boxes[picture, regions, :2]).prod(axis=1)
        for region in regions[np.argsort(areas, kind="stable")].tolist():
            x1, y1, x2, y2 = boxes[picture, region]
            away = ((across - (x1 + x2) / 2) ** 2 + (down - (y1 + y2) / 2) ** 2).ravel()
            nearest = np.argsort(np.where(free, away, np.inf), kind="stable")[:_PATCHES]
            free[nearest] = False
            rows += [(picture, int(patch), region) for patch in nearest]
    table = np.array(rows, dtype=np.intp).reshape(-1, 3)
    return Assignment(*table.T)


def _loss(
    model: Any,
    processor: Any,
    data: RegionPictures,
    rng: np.random.Generator,
    batch: int,
    nothing: list[str],
) -> torch.Tensor:
    chosen = rng.integers(len(data.images), size=batch)
    windows = random_windows(batch, OWL_SIDE, rng)
    # The processor pads before it normalises: black.
    grey = windows.sample(varied(data.images[chosen], rng), 0.0)
    shown = windows.shown(data.boxes[chosen])
    there = np.isfinite(data.boxes[chosen][:, :, 0])
    boxes = windows.onto(data.boxes[chosen])
    phrases = _asked(rng, nothing)
    logits, found, objects = predicted(model, processor, (grey - MEAN) / DEVIATION, phrases)
    grid = round(found.shape[1] ** 0.5)
    chosen_patches = assigned(boxes, shown, grid, OWL_SIDE)
    at = tuple(torch.from_numpy(index) for index in (chosen_patches.pictures, chosen_patches.patches))
    region = torch.from_numpy(chosen_patches.regions)
    wanted = torch.zeros_like(logits)
    wanted[at[0], at[1], region] = 1.0
    # A region of which little is left may be found or not.
    counts = torch.ones(logits.shape[0], 1, logits.shape[2])
    counts[:, 0, : len(REGIONS)] = torch.from_numpy(~(there & ~shown)).float()
    each = nn.functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    local = (each * counts).sum() / wanted.sum()
    present = torch.zeros(logits.shape[0], logits.shape[2])
    present[:, : len(REGIONS)] = torch.from_numpy(shown).float()
    whole = nn.functional.binary_cross_entropy_with_logits(logits.amax(1), present, reduction="none")
    # The threshold is 0.1, not 0.5: what is not there must be refused with some certainty.
    whole = whole * torch.where(present > 0, 1.0, 2.0)
    target = torch.from_numpy(boxes[chosen_patches.pictures, chosen_patches.regions] / OWL_SIDE).float()
    often = torch.from_numpy(np.where(np.isin(REGIONS, FINDINGS), _RARE, 1.0)).float()[region]
    placed = (_box_loss(found[at[0], at[1]], target) * often).sum() / often.sum()
    any_region = nn.functional.binary_cross_entropy_with_logits(objects, wanted.amax(2))
    return local + 4 * (whole * counts[:, 0]).mean() + placed + 0.1 * any_region


def predicted(
    model: Any, processor: Any, pixels: torch.Tensor, phrases: list[str]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The output of the model's own forward pass, but with each phrase encoded once for all pictures.

    For normalised grey pictures (n, side, side): logits (n, patches, phrases), boxes (n, patches, 4) as
    centre and sides in [0, 1], and the logits of objectness (n, patches).
    """
    tokens = processor.tokenizer(
        phrases, padding="max_length", truncation=True, max_length=16, return_tensors="pt"
    )
    texts = model.owlv2.text_model(**tokens).pooler_output
    queries = model.owlv2.text_projection(texts)
    grid, _ = model.image_embedder(pixels[:, None].expand(-1, 3, -1, -1))
    features = grid.flatten(1, 2)
    logits, _ = model.class_predictor(features, queries.expand(len(pixels), -1, -1))
    boxes = model.box_predictor(features, grid)
    return logits, boxes, model.objectness_predictor(features)


def _box_loss(found: torch.Tensor, corners: torch.Tensor) -> torch.Tensor:
    """L1 of centre and sides, and generalised IoU, of each box, as OWLv2 is trained."""
    low, high = corners[:, :2], corners[:, 2:]
    wanted = torch.cat([(low + high) / 2, high - low], dim=1)
    centres, sides = found[:, :2], found[:, 2:]
    first, last = centres - sides / 2, centres + sides / 2
    shared = (torch.minimum(last, high) - torch.maximum(first, low)).clamp(min=0).prod(1)
    joint = sides.prod(1) + (high - low).prod(1) - shared
    hull = (torch.maximum(last, high) - torch.minimum(first, low)).prod(1)
    giou = shared / (joint + 1e-7) - (hull - joint) / (hull + 1e-7)
    distance: torch.Tensor = (found - wanted).abs().sum(1)
    return 5 * distance + 2 * (1 - giou)


def print_detector_quality(model: Any, processor: Any, pictures: int) -> None:
    """On patients that were not trained on: boxes and scores of what is there, scores of what is not."""
    data = draw_regions(pictures, HELD_OUT_SEED + 3)
    detector = OWLv2(model, processor)
    phrases = [PHRASES[name][0] for name in REGIONS]
    hits: dict[str, list[tuple[float, bool]]] = {name: [] for name in REGIONS}
    refused: dict[str, list[bool]] = {"finding or mark": [], "phrase for nothing": []}
    for number in range(pictures):
        found = detector.detect(data.images[number], [*phrases, *HELD_OUT_ABSENT])
        for region, name in enumerate(REGIONS):
            if region in data.masks[number]:
                iou = float(overlap(found.boxes[region], data.boxes[number, region]))
                hits[name].append((iou, bool(found.scores[region] >= THRESHOLD)))
            elif name in (*FINDINGS, *MARKS):
                refused["finding or mark"].append(bool(found.scores[region] < THRESHOLD))
        refused["phrase for nothing"] += (found.scores[len(phrases) :] < THRESHOLD).tolist()
    for name, rows in hits.items():
        if rows:
            ious = np.array([iou for iou, _ in rows])
            over = np.mean([sure for _, sure in rows])
            print(
                f"detector {name}: mean IoU {ious.mean():.3f}, IoU >= 0.5 {np.mean(ious >= 0.5):.3f}, "
                f"score over {THRESHOLD} {over:.3f} ({len(rows)})",
                flush=True,
            )
    for kind, kept in refused.items():
        print(f"detector absent {kind}: under {THRESHOLD} {np.mean(kept):.3f} ({len(kept)})", flush=True)
