"""The editor of the phantom track: it renders the same patient again, changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from medfocus_bench.counterfactual.editors import Edit
from medfocus_bench.data.questions import Question
from medfocus_bench.geometry import BoolArray, UInt8Image
from medfocus_bench.phantom.render import MARK_OF, Patient, render


class PhantomEditor:
    """Redraw by rendering.

    foreground: without the finding (of a spurious question: without its mark), the grain of the film kept.
    background: other grain, and without what the question asks about outside the region. background_normal:
    no findings, no marks, other vessels and ribs as well. sham: nothing changed but the grain.
    """

    name = "phantom"
    version = "1"

    def __init__(self, patient_of: Callable[[int, str], Patient]) -> None:
        self._patient_of = patient_of

    def redraw(self, question: Question, edit: Edit, region: BoolArray, seed: int) -> UInt8Image:
        patient = self._patient_of(question.index, question.evidence)
        texture = int(np.random.default_rng((patient.texture, seed + 1)).integers(2**31))
        finding, mark = question.finding, MARK_OF[question.finding]
        if edit == "foreground":
            changed = patient.without_cause(finding, question.evidence)
        elif edit == "background":
            changed = replace(patient.without(finding).without_mark(mark), texture=texture)
        elif edit == "background_normal":
            anatomy = replace(
                patient.anatomy, vessels=texture, ribs=tuple(-offset for offset in patient.anatomy.ribs)
            )
            changed = replace(patient, anatomy=anatomy, findings=(), marks=(), texture=texture)
        else:
            changed = replace(patient, texture=texture)
        return render(changed, question.image.shape[0]).image
