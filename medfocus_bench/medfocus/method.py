"""MedFocus as published: the anatomical concept that a response depends on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.attribution.protocol import Method
from medfocus_bench.data.concepts import COMPOSITES
from medfocus_bench.geometry import FloatArray
from medfocus_bench.medfocus.anatomy import PHANTOM, ConceptLocaliser, check_anatomy
from medfocus_bench.medfocus.fills import Filling
from medfocus_bench.medfocus.generative_fill import check_editor, generative_fill
from medfocus_bench.medfocus.interventions import TAU, Measured, Shape, concept_regions, decide, measure
from medfocus_bench.medfocus.localisers import Localiser
from medfocus_bench.medfocus.transport import Problem

if TYPE_CHECKING:
    from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
    from medfocus_bench.lvlm.example import EncodedExample, Target

OnFailure = Literal["whole-image", "nothing"]


@dataclass(frozen=True)
class MedFocus(Method):
    """Xiong et al. 2026: eleven concepts and four composites, each filled with black in turn.

    The concepts are carried over from the closest of the `references` (a file, or "phantom" for the shipped
    pool) by unbalanced transport and, with a `segmenter`, refined by MedSAM. The explanation is the box of
    the concept whose loss takes most of the response's log-probability; for a composite it is the boxes of
    its members, all of them filled. Where min exp(-Delta) >= `tau` the case is a failure, and the
    whole image is reported, as published, or nothing.

    `references`, `pool_size`, `eps`, `lam`, `region`, `fill`, `editor`, `localiser` and `segmenter` are what
    the paper's ablations vary. An `editor` ("inpainting", or "radedit,size=512,device=cuda") redraws a region
    without the finding instead of filling it, and has no random places. `places` random places of each
    concept's shape give its effect a null.
    """

    name = "medfocus"
    title = "MedFocus"
    family = "concept"
    needs = ("forward",)
    description = "The anatomical concept whose blackened box takes most of the response."
    paper = "https://arxiv.org/abs/2605.20158"

    references: str = PHANTOM
    pool_size: Annotated[int, Field(ge=1)] | None = None
    localiser: Localiser = "transport"
    eps: Annotated[float, Field(gt=0)] = 0.05
    lam: Annotated[float, Field(gt=0)] = 0.1
    segmenter: str | None = None
    segmenter_revision: str | None = None
    region: Shape = "box"
    fill: Filling = "zero"
    editor: str | None = None
    tau: float = TAU
    on_failure: OnFailure = "whole-image"
    places: Annotated[int, Field(ge=0, le=1000)] = 0

    def check(self) -> None:
        check_anatomy(self.references, self.segmenter)
        check_editor(self.editor)

    def explain(
        self, lvlm: HuggingFaceLVLM, example: EncodedExample, *, target: Target = "response", seed: int = 0
    ) -> Attribution:
        masks = self._localiser(str(lvlm.device)).regions(example.image)
        regions = concept_regions(masks, COMPOSITES)
        measured = measure(
            lvlm,
            example,
            regions,
            shape=self.region,
            fill=self.fill if self.editor is None else generative_fill(self.editor, example.finding, seed),
            target=target,
            n_permutations=self.places,
            seed=seed,
        )
        effects = measured.effects.total
        decision = decide(effects, self.tau)
        return Attribution(
            boxes=self._reported(measured, decision.winner, example),
            concepts=ranked([region.name for region in measured.regions], effects),
            tokens=token_scores(measured, decision.winner),
            diagnostics={"failure": float(decision.failure)} | significance(measured, decision.winner, seed),
        )

    def _localiser(self, device: str) -> ConceptLocaliser:
        by_transport = {"problem": Problem(eps=self.eps, lam=self.lam)}
        return ConceptLocaliser(
            references=self.references,
            pool_size=self.pool_size,
            localiser=self.localiser,
            settings=by_transport if self.localiser == "transport" else {},
            segmenter=self.segmenter,
            segmenter_revision=self.segmenter_revision,
            device=device if self.segmenter else "cpu",
        )

    def _reported(self, measured: Measured, winner: int | None, example: EncodedExample) -> FloatArray:
        if winner is not None:
            return measured.regions[winner].boxes
        frame = example.frame
        whole = np.array([[0, 0, frame.width, frame.height]], dtype=np.float64)
        return whole if self.on_failure == "whole-image" else whole[:0]


def ranked(names: Sequence[str], effects: FloatArray) -> dict[str, float]:
    """Effects by name, the largest first; those that are not finite are left out."""
    order = np.argsort(-np.nan_to_num(effects, nan=-np.inf), kind="stable")
    return {names[number]: float(effects[number]) for number in order if np.isfinite(effects[number])}


def token_scores(measured: Measured, winner: int | None) -> tuple[tuple[str, float], ...]:
    """The drop of each token without the winner's region; empty for a failure."""
    if winner is None:
        return ()
    drops = measured.effects.drops[winner]
    return tuple((token, float(drop)) for token, drop in zip(measured.tokens, drops, strict=True))


def significance(measured: Measured, winner: int | None, seed: int) -> dict[str, float]:
    """How far the winner stands out from its own shape at random places, where those were filled.

    z with its 95 % interval over the places, and the permutation p.
    """
    null = measured.null_of_total()
    if null is None or winner is None:
        return {}
    observed = measured.effects.total
    low, high = null.z_interval(observed, np.random.default_rng((seed, 2)))[winner]
    return {
        "z": float(null.z(observed)[winner]),
        "z_low": float(low),
        "z_high": float(high),
        "p": float(null.p(observed)[winner]),
    }
