"""The drop of a response's probability when the region of a concept is filled."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import numpy.typing as npt
import torch

from medfocus_bench.errors import InputError
from medfocus_bench.geometry import BoolArray, FloatArray, UInt8Image, bilinear_weights, rasterise, tight_box
from medfocus_bench.medfocus.concept_mask import ConceptMask
from medfocus_bench.medfocus.fills import Filling, RegionEdit, filler

if TYPE_CHECKING:
    from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
    from medfocus_bench.lvlm.example import EncodedExample, Target

Shape = Literal["box", "mask"]
"""The filled pixels of a concept: its tight box, as in the paper, or its own mask."""

TAU: Final = 0.75
"""The paper's threshold: where every intervention keeps this share of the probability, it is a failure."""

CELLS: Final = 56
"""Cells along a side of the model's input by which it is noted what an intervention filled."""

_RESAMPLES: Final = 1000

_AT_A_TIME: Final = 2
"""Batches of the model whose edited pictures are held at once."""


@dataclass(frozen=True, slots=True, eq=False)
class ConceptRegion:
    """A concept, or a composite of several, where it lies in an image: its members are its parts.

    `boxes` (parts, 4), native pixels, `masks`: (height, width) bool for each part. The union of the
    parts is filled and reported, never the box around them.
    """

    name: str
    boxes: FloatArray
    masks: tuple[BoolArray, ...]

    def mask(self, shape: Shape) -> BoolArray:
        """The native pixels (height, width) that an intervention of that shape fills."""
        whole = np.logical_or.reduce(self.masks)
        return whole if shape == "mask" else np.asarray(rasterise(self.boxes, *whole.shape[::-1]) > 0.5)


@dataclass(frozen=True, slots=True, eq=False)
class Effects:
    """`drops` (regions, tokens): how much of each token's log-probability an intervention takes, at least 0.

    NaN where the model gave no number.
    """

    drops: FloatArray

    @property
    def total(self) -> FloatArray:
        """Delta (regions,), as the paper has it: the sum over the tokens, which grows with their number."""
        return np.asarray(self.drops.sum(axis=1))

    @property
    def per_token(self) -> FloatArray:
        """The mean over the tokens: (regions,)."""
        return np.asarray(self.drops.mean(axis=1))


@dataclass(frozen=True, slots=True)
class Decision:
    """The index of the region with the largest effect; None for a failure: nothing drives the answer."""

    winner: int | None
    effect: float = 0.0

    @property
    def failure(self) -> bool:
        return self.winner is None


@dataclass(frozen=True, slots=True, eq=False)
class NullDistribution:
    """The effects of a region's own shape at random places: `effects` (regions, n_permutations)."""

    effects: FloatArray

    def z(self, observed: FloatArray) -> FloatArray:
        """Standard deviations of its null by which an effect lies above the null's mean: (regions,)."""
        return _standardised(observed, self.effects)

    def z_interval(self, observed: FloatArray, rng: np.random.Generator) -> FloatArray:
        """The 95 % interval of `z` over which places were drawn, by resampling them: (regions, 2)."""
        count = self.effects.shape[1]
        drawn = self.effects[:, rng.integers(count, size=(_RESAMPLES, count))]
        return np.asarray(np.percentile(_standardised(observed[:, None], drawn), (2.5, 97.5), axis=1).T)

    def p(self, observed: FloatArray) -> FloatArray:
        """(1 + #{null >= effect}) / (n_permutations + 1): (regions,)."""
        reached = (self.effects >= observed[:, None]) | np.isnan(observed)[:, None]
        return np.asarray((1 + reached.sum(axis=1)) / (self.effects.shape[1] + 1))


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """The effects of interventions on regions; `tokens` are those of the response that `effects` speaks of.

    `null`, with `n_permutations` rows for each region: the same shapes at random places. `hidden`,
    `hidden_in_null` (interventions, 56, 56): the share of each cell of the model's input that was filled.
    """

    regions: tuple[ConceptRegion, ...]
    original: npt.NDArray[np.float32]
    effects: Effects
    tokens: tuple[str, ...]
    hidden: FloatArray
    null: Effects | None = None
    hidden_in_null: FloatArray | None = None

    def null_of_total(self) -> NullDistribution | None:
        """The null of the summed effects, where there is one."""
        if self.null is None:
            return None
        return NullDistribution(self.null.total.reshape(len(self.regions), -1))


def concept_regions(
    masks: Mapping[str, ConceptMask], composites: Mapping[str, Sequence[str]]
) -> tuple[ConceptRegion, ...]:
    """The concepts that were found, and then the composites of those of their members that were.

    Raises InputError where none was found.
    """
    found = {name: mask for name, mask in masks.items() if mask}
    if not found:
        raise InputError("no concept was found in the image: there is nothing to intervene on")
    regions = [ConceptRegion(name, mask.box[None], (mask.mask,)) for name, mask in found.items()]
    for name, members in composites.items():
        parts = [found[member] for member in members if member in found]
        if parts:
            boxes = np.stack([part.box for part in parts])
            regions.append(ConceptRegion(name, boxes, tuple(part.mask for part in parts)))
    return tuple(regions)


def concept_effects(original: npt.ArrayLike, edited: npt.ArrayLike) -> Effects:
    """max(0, log p(y_t | x) - log p(y_t | x_c)) from log-probabilities (tokens,) and (regions, tokens)."""
    before, after = np.asarray(original, dtype=np.float64), np.asarray(edited, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return Effects(np.asarray(np.maximum(0.0, before[None] - after)))


def decide(effects: Sequence[float] | FloatArray, tau: float = TAU) -> Decision:
    """The region with the largest effect, the first of equal ones, unless min exp(-effect) >= tau.

    An effect that is NaN neither wins nor decides about failure (the paper's code lets it win).
    """
    known = [(number, float(effect)) for number, effect in enumerate(effects) if not math.isnan(effect)]
    if not known or min(_kept(effect) for _, effect in known) >= tau:
        return Decision(None)
    winner, effect = max(known, key=lambda one: one[1])
    return Decision(winner, effect)


def measure(
    lvlm: HuggingFaceLVLM,
    example: EncodedExample,
    regions: Sequence[ConceptRegion],
    *,
    shape: Shape = "box",
    fill: Filling | RegionEdit = "zero",
    target: Target = "response",
    n_permutations: int = 0,
    seed: int = 0,
) -> Measured:
    """The effect of filling each of the regions on the tokens of the target: len(regions) + 1 forward passes.

    With `n_permutations` the shape of each region is also filled at so many random places of the image, each
    part on its own: what filling that much of the image does by itself. Of the target "verdict" the one token
    has the log-odds of yes over no for its log-probability.
    """
    if callable(fill) and n_permutations:
        raise InputError("an editor redraws native pixels, and has no random places; give places 0")
    parts = [region_parts(region, shape, example) for region in regions]
    content = example.grid.view.content(*example.pixel_values.shape[1:])
    rng = np.random.default_rng(seed)
    masks = [np.logical_or.reduce(own) for own in parts]
    moved = [
        np.logical_or.reduce([moved_mask(part, content, rng) for part in own])
        for own in parts
        for _ in range(n_permutations)
    ]

    def pictures() -> Iterator[torch.Tensor]:
        yield example.pixel_values
        if callable(fill):
            yield from (_redrawn(lvlm, example, region.mask(shape), fill) for region in regions)
            return
        paint = filler(example, fill)
        yield from map(paint, [*masks, *moved])

    values = target_scores(lvlm, example, pictures(), target)
    chosen = example.offsets(target)
    return Measured(
        regions=tuple(regions),
        original=values[0],
        effects=concept_effects(values[0], values[1 : len(regions) + 1]),
        tokens=example.tokens[chosen.start : chosen.stop],
        hidden=covered(masks),
        null=concept_effects(values[0], values[len(regions) + 1 :]) if n_permutations else None,
        hidden_in_null=covered(moved) if n_permutations else None,
    )


def covered(masks: Sequence[BoolArray]) -> FloatArray:
    """The share of each of 56 x 56 cells that masks hold: (masks, 56, 56), or fewer on a smaller image."""
    return np.stack([_shares(mask) for mask in masks])


def _shares(mask: BoolArray) -> FloatArray:
    shares = mask.astype(np.float64)
    for axis, side in enumerate(mask.shape):
        edges = np.arange(min(CELLS, side)) * side // min(CELLS, side)
        sizes = np.diff([*edges, side])
        shares = np.add.reduceat(shares, edges, axis=axis) / (sizes if axis else sizes[:, None])
    return shares


def target_scores(
    lvlm: HuggingFaceLVLM, example: EncodedExample, edited: Iterator[torch.Tensor], target: Target
) -> npt.NDArray[np.float32]:
    """The log-probability of each token of a target on every edited input: (inputs, tokens)."""
    chosen = example.offsets(target)
    found: list[npt.NDArray[np.float32]] = []
    for stack in _stacks(edited, lvlm.batch * _AT_A_TIME):
        if target == "verdict":
            values = lvlm.scores(example, stack, target)[:, None]
        else:
            values = lvlm.token_scores(example, stack)[:, chosen.start : chosen.stop]
        found.append(values.float().cpu().numpy())
    return np.concatenate(found)


def region_parts(region: ConceptRegion, shape: Shape, example: EncodedExample) -> list[BoolArray]:
    """The pixels of the model's input (height, width) that each part of a region fills."""
    size = example.pixel_values.shape[1], example.pixel_values.shape[2]
    if shape == "mask":
        return [input_mask(mask, example) for mask in region.masks]
    return [_box_pixels(box, *size) for box in example.grid.view.place(region.boxes, *size)]


def input_mask(mask: BoolArray, example: EncodedExample) -> BoolArray:
    """A native mask at the pixels of the model's input."""
    view, (rows, columns) = example.grid.view, example.pixel_values.shape[1:]
    if view.framing == "native":
        down, across = bilinear_weights(mask.shape[0], rows), bilinear_weights(mask.shape[1], columns)
        return np.asarray(down @ mask.astype(np.float64) @ across.T > 0.5)
    square = mask.shape == (view.frame.size, view.frame.size)
    framed = mask if square else view.frame.embed(mask.astype(np.float32)) > 0.5
    down_to = ((np.arange(rows) + 0.5) / rows * len(framed)).astype(np.intp)
    across_to = ((np.arange(columns) + 0.5) / columns * len(framed)).astype(np.intp)
    return np.asarray(framed[down_to][:, across_to])


def moved_mask(mask: BoolArray, content: tuple[int, int, int, int], rng: np.random.Generator) -> BoolArray:
    """A mask at a random place within the box `content` of its array; one that does not fit is cut."""
    moved = np.zeros_like(mask)
    left, top, right, bottom = content
    x1, y1, x2, y2 = tight_box(mask).astype(int)
    piece = mask[y1:y2, x1:x2][: bottom - top, : right - left]
    if not piece.size:
        return moved
    height, width = piece.shape
    y = int(rng.integers(top, bottom - height + 1))
    x = int(rng.integers(left, right - width + 1))
    moved[y : y + height, x : x + width] = piece
    return moved


def _standardised(observed: FloatArray, null: FloatArray) -> FloatArray:
    """Effects less the mean of their null, which lies along the last axis, in its standard deviations."""
    spread = null.std(axis=-1, ddof=1) if null.shape[-1] > 1 else np.ones(null.shape[:-1])
    # A null without any spread is one of a model that hardly looks: it makes nothing significant.
    return np.asarray((observed - null.mean(axis=-1)) / np.maximum(spread, 1e-3))


def _kept(effect: float) -> float:
    """exp(-effect), infinite where that overflows."""
    return math.exp(-effect) if effect > -700 else math.inf


def _box_pixels(box: FloatArray, rows: int, columns: int) -> BoolArray:
    """The pixels whose centres a box holds; of a box that holds none, the one that holds its centre."""
    pixels = np.zeros((rows, columns), dtype=np.bool_)
    x1, y1, x2, y2 = np.ceil(box - 0.5).astype(int).tolist()
    if box[2] > box[0] and box[3] > box[1]:
        x1, x2 = _at_least_one(x1, x2, (box[0] + box[2]) / 2, columns)
        y1, y2 = _at_least_one(y1, y2, (box[1] + box[3]) / 2, rows)
    pixels[y1:y2, x1:x2] = True
    return pixels


def _at_least_one(start: int, stop: int, centre: float, count: int) -> tuple[int, int]:
    if stop > start:
        return start, stop
    only = min(int(centre), count - 1)
    return only, only + 1


def _redrawn(
    lvlm: HuggingFaceLVLM,
    example: EncodedExample,
    region: BoolArray,
    editor: Callable[..., UInt8Image],
) -> torch.Tensor:
    """The model's input with a region of the image redrawn; outside of it every pixel is the original's."""
    image = example.image
    redrawn = editor(image, region)
    if redrawn.shape != image.shape or redrawn.dtype != np.uint8:
        raise ValueError(f"the editor returned {redrawn.dtype} {redrawn.shape}, not uint8 {image.shape}")
    inside = region if image.ndim == 2 else region[..., None]
    edited = np.where(inside, redrawn, image)
    return lvlm.encode(edited, example.question, example.response).pixel_values


def _stacks(edited: Iterator[torch.Tensor], count: int) -> Iterator[torch.Tensor]:
    while held := list(islice(edited, count)):
        yield torch.stack(held)
