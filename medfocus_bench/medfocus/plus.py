"""MedFocus with a better localiser, calibrated effects, a finer vocabulary, and a map instead of one box."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import numpy as np
from pydantic import Field

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.attribution.protocol import Method
from medfocus_bench.data.concepts import COMPOSITES
from medfocus_bench.errors import InputError
from medfocus_bench.geometry import BoolArray, FloatArray
from medfocus_bench.medfocus.anatomy import PHANTOM, ConceptLocaliser, check_anatomy
from medfocus_bench.medfocus.fills import Filling, filler
from medfocus_bench.medfocus.interventions import (
    Measured,
    NullDistribution,
    Shape,
    concept_effects,
    concept_regions,
    covered,
    measure,
    target_scores,
)
from medfocus_bench.medfocus.localisers import Localiser
from medfocus_bench.medfocus.method import ranked, token_scores
from medfocus_bench.medfocus.vocabulary import with_lung_zones

if TYPE_CHECKING:
    from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
    from medfocus_bench.lvlm.example import EncodedExample, Target

Blend = Literal["effects", "correlation"]

_NULL_PLACES: Final = 20
"""Random places of the nearest areas that an effect is compared with."""

_ROUNDS: Final = 3
_PROBE_SIDES: Final = (0.15, 0.35)
"""Of a probe, as shares of the image's shorter side: a third of a lung is about 0.2."""


@dataclass(frozen=True)
class MedFocusPlus(Method):
    """Concepts and their surroundings, each filled, and their shapes at random places filled as well.

    Concepts are the paper's, thirds of the lungs, and what lies around the lungs, so that all of the image
    can be found. The effect of one is the mean drop of the response's tokens; it is judged by how far it
    stands out of what filling the same area at random places does (z). Where the strongest lies within a
    standard deviation of that, or its p is above `alpha`, the case is a failure.

    The map is the sum of the effects of all interventions, each spread evenly over what it filled (`blend`
    "effects"), or the correlation of the effects with whether a pixel was filled ("correlation"). `probes`
    further boxes, in rounds, are put where that correlation is high so far.

    N + 1 + N `places` + `probes` forward passes for N concepts and composites.
    """

    name = "medfocus-plus"
    title = "MedFocus+"
    family = "concept"
    needs = ("forward",)
    description = "Effects of filling anatomical regions, calibrated by random places, as a map."
    paper = "https://arxiv.org/abs/2605.20158"

    references: str = PHANTOM
    localiser: Localiser = "atlas"
    segmenter: str | None = None
    segmenter_revision: str | None = None
    region: Shape = "mask"
    fill: Filling = "zero"
    blend: Blend = "effects"
    places: Annotated[int, Field(ge=1, le=1000)] = 2
    probes: Annotated[int, Field(ge=0, le=10_000)] = 48
    alpha: Annotated[float, Field(gt=0, le=1)] = 0.1

    def check(self) -> None:
        check_anatomy(self.references, self.segmenter)

    def candidates(self, lvlm: HuggingFaceLVLM) -> Iterable[Mapping[str, Any]]:
        return [
            {"fill": fill, "blend": blend}
            for fill in ("zero", "mean", "blur")
            for blend in ("effects", "correlation")
        ]

    def explain(
        self, lvlm: HuggingFaceLVLM, example: EncodedExample, *, target: Target = "response", seed: int = 0
    ) -> Attribution:
        return self._explained(example, self._tried(lvlm, example, target, seed), seed)

    def explain_candidates(
        self,
        lvlm: HuggingFaceLVLM,
        example: EncodedExample,
        candidates: Sequence[Mapping[str, Any]],
        *,
        target: Target = "response",
        seed: int = 0,
    ) -> list[Attribution]:
        """The attribution with each of the candidates: those that differ by their blend share passes."""
        tried: dict[MedFocusPlus, _Tried] = {}
        found = []
        for settings in candidates:
            method = replace(self, **settings)
            key = replace(method, blend="effects")
            if key not in tried:
                tried[key] = key._tried(lvlm, example, target, seed)
            found.append(method._explained(example, tried[key], seed))
        return found

    def _tried(self, lvlm: HuggingFaceLVLM, example: EncodedExample, target: Target, seed: int) -> _Tried:
        """All interventions: on the concepts, at random places, and the probes."""
        localiser = ConceptLocaliser(
            references=self.references,
            localiser=self.localiser,
            segmenter=self.segmenter,
            segmenter_revision=self.segmenter_revision,
            device=str(lvlm.device) if self.segmenter else "cpu",
        )
        regions = concept_regions(with_lung_zones(localiser.regions(example.image)), COMPOSITES)
        measured = measure(
            lvlm,
            example,
            regions,
            shape=self.region,
            fill=self.fill,
            target=target,
            n_permutations=self.places,
            seed=seed,
        )
        assert measured.null is not None
        assert measured.hidden_in_null is not None
        hidden = np.concatenate([measured.hidden, measured.hidden_in_null])
        effects = np.concatenate([measured.effects.per_token, measured.null.per_token])
        if not np.isfinite(measured.null.per_token).any():
            raise InputError(f"{lvlm.key}: no intervention has an effect that is a number")
        rng = np.random.default_rng((seed, 1))
        paint = filler(example, self.fill)
        for count in np.diff(np.round(np.linspace(0, self.probes, _ROUNDS + 1)).astype(int)):
            if count:
                boxes = probe_boxes(correlation_map(*_finite(hidden, effects)), int(count), example, rng)
                scores = target_scores(lvlm, example, map(paint, boxes), target)
                effects = np.concatenate([effects, concept_effects(measured.original, scores).per_token])
                hidden = np.concatenate([hidden, covered(boxes)])
        return _Tried(measured, *_finite(hidden, effects))

    def _explained(self, example: EncodedExample, tried: _Tried, seed: int) -> Attribution:
        measured = tried.measured
        effects = measured.effects.per_token
        null = matched_null(measured)
        z, p = null.z(effects), null.p(effects)
        intervals = null.z_interval(effects, np.random.default_rng((seed, 2)))
        best = int(np.argmax(np.nan_to_num(z, nan=-np.inf)))
        failure = not (p[best] <= self.alpha and z[best] >= 1)
        blend = correlation_map if self.blend == "correlation" else effect_map
        return Attribution(
            saliency=example.grid.view.saliency(blend(tried.hidden, tried.effects)),
            concepts=ranked([region.name for region in measured.regions], z),
            intervals={
                region.name: (float(low), float(high))
                for region, (low, high) in zip(measured.regions, intervals, strict=True)
                if np.isfinite((low, high)).all()
            },
            tokens=token_scores(measured, None if failure else best),
            diagnostics={"failure": float(failure), "z": float(np.nan_to_num(z[best])), "p": float(p[best])},
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Tried:
    """The measurements at the regions, and all interventions whose effect is a number.

    `hidden` (interventions, rows, columns), `effects` (interventions,).
    """

    measured: Measured
    hidden: FloatArray
    effects: FloatArray


def _finite(hidden: FloatArray, effects: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The interventions whose effect is a number."""
    known = np.isfinite(effects)
    return hidden[known], effects[known]


def matched_null(measured: Measured) -> NullDistribution:
    """For each region the random places that filled the most similar areas, its own and other regions'."""
    assert measured.null is not None
    assert measured.hidden_in_null is not None
    effects = measured.null.per_token
    known = np.flatnonzero(np.isfinite(effects))
    areas, others = (np.log(h.mean(axis=(1, 2)) + 1e-6) for h in (measured.hidden, measured.hidden_in_null))
    nearest = np.argsort(np.abs(areas[:, None] - others[known][None]), axis=1, kind="stable")
    return NullDistribution(effects[known][nearest[:, :_NULL_PLACES]])


def correlation_map(hidden: FloatArray, effects: FloatArray) -> FloatArray:
    """How well each cell alone explains the effects: (rows, columns).

    The correlation of how much of it was filled (interventions, rows, columns) with the effects
    (interventions,), times their standard deviation; negative ones are zero.
    """
    filled = hidden - hidden.mean(axis=0)
    lost = effects - effects.mean()
    along = np.tensordot(lost, filled, axes=1)
    length = np.sqrt((filled**2).sum(axis=0))
    return np.asarray(np.clip(along / np.maximum(length, 1e-6), 0, None))


def effect_map(hidden: FloatArray, effects: FloatArray) -> FloatArray:
    """The sum of the effects, each spread over the area that was filled: (rows, columns)."""
    areas = hidden.sum(axis=(1, 2), keepdims=True)
    return np.asarray(np.tensordot(effects, hidden / np.maximum(areas, 1e-6), axes=1))


def probe_boxes(
    saliency: FloatArray, count: int, example: EncodedExample, rng: np.random.Generator
) -> list[BoolArray]:
    """Boxes on the model's input, of random sides, around cells that are drawn by their saliency."""
    rows, columns = example.pixel_values.shape[1:]
    x1, y1, x2, y2 = example.grid.view.content(rows, columns)
    weights = saliency.ravel()
    weights = weights / weights.sum() if weights.sum() > 0 else np.full(weights.size, 1 / weights.size)
    shortest = min(y2 - y1, x2 - x1)
    boxes = []
    for cell in rng.choice(weights.size, size=count, p=weights):
        row, column = divmod(int(cell), saliency.shape[1])
        height, width = np.maximum(1, shortest * rng.uniform(*_PROBE_SIDES, 2)).astype(int)
        y = int((row + rng.random()) / saliency.shape[0] * rows - height * rng.random())
        x = int((column + rng.random()) / saliency.shape[1] * columns - width * rng.random())
        mask = np.zeros((rows, columns), dtype=np.bool_)
        mask[max(y, y1) : min(y + height, y2), max(x, x1) : min(x + width, x2)] = True
        boxes.append(mask)
    return boxes
