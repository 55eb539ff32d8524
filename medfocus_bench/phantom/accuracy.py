"""Accuracy of the phantom models on held-out patients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from medfocus_bench.answers import parse_verdict
from medfocus_bench.data.questions import Mode, prompt
from medfocus_bench.lvlm.protocol import LVLM
from medfocus_bench.phantom import TWINS
from medfocus_bench.phantom.findings import FINDINGS
from medfocus_bench.phantom.render import MARK_OF, MARKS, Patient, render

_SEED: Final = 30_000_000
_BATCH: Final = 32


def balanced_accuracy(lvlm: LVLM, mode: Mode, *, each: int = 40) -> dict[str, float]:
    """Balanced accuracy of the written verdicts by finding: `each` patients with the cause, as many without.

    The cause is the finding of a patient anywhere on the film, or for a twin its mark at any place; the other
    findings and marks are random. An answer without a verdict is wrong.
    """
    right: dict[tuple[str, bool], list[bool]] = {(f, t): [] for f in FINDINGS for t in (False, True)}
    patients = list(_patients(lvlm.key in TWINS, each))
    for start in range(0, len(patients), _BATCH):
        part = patients[start : start + _BATCH]
        images = [render(patient).image for _, _, patient in part]
        answers = lvlm.respond(images, [prompt(finding, mode) for finding, _, _ in part])
        for (finding, present, _), answer in zip(part, answers, strict=True):
            right[finding, present].append(parse_verdict(answer.text) == ("yes" if present else "no"))
    return {f: float(np.mean([np.mean(right[f, False]), np.mean(right[f, True])])) for f in FINDINGS}


def _patients(twin: bool, each: int) -> Iterator[tuple[str, bool, Patient]]:
    for number, finding in enumerate(FINDINGS):
        for present in (False, True):
            for patient in range(each):
                seed = (_SEED, number, int(present), patient)
                yield finding, present, _patient(seed, finding, present, twin)


def _patient(seed: tuple[int, ...], finding: str, present: bool, twin: bool) -> Patient:
    """A patient with or without the cause of a yes, all else drawn at random."""
    rng = np.random.default_rng(seed)
    others = [name for name in rng.permutation(FINDINGS).tolist() if name != finding]
    names = others[: int(rng.integers(4))]
    marks = {mark for mark in MARKS if rng.random() < 0.5}
    has_finding = bool(rng.random() < 0.5) if twin else present
    if twin:
        mark = MARK_OF[finding]
        marks = marks | {mark} if present else marks - {mark}
    patient = Patient.sample(
        (*seed, 1), findings=[finding, *names] if has_finding else names, marks=sorted(marks)
    )
    return patient.with_tag_moved(rng) if twin else patient.with_chest_moved(rng)
