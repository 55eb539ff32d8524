"""The phantom track: the questions, and the dataset that the causal filter makes of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from io import BytesIO
from typing import Any, Final

import numpy as np
from PIL import Image

from medfocus_bench.counterfactual.dataset import pointer_row
from medfocus_bench.counterfactual.records import Verification
from medfocus_bench.data.questions import Question
from medfocus_bench.data.rows import complete_row
from medfocus_bench.geometry import BoolArray, FloatArray, UInt8Image, clip_boxes, tight_box
from medfocus_bench.phantom.findings import FINDINGS
from medfocus_bench.phantom.render import MARK_OF, MARKS, Patient, Phantom, mark_box, render

VERSION: Final = "3.0.0"

TEST_QUESTIONS: Final = 24 * len(FINDINGS)
DEV_QUESTIONS: Final = 6 * len(FINDINGS)
"""Questions about lesions, and as many about marks."""

_SEED: Final = 2026
_MARK_SEED: Final = 2027
_MARGIN: Final = 3
"""Pixels around a finding that belong to its box: what lies below the visible edge of its mask."""


def patient_of(index: int, evidence: str = "lesion") -> Patient:
    """The patient whose picture a question is about.

    A lesion's patient has its finding and up to two others, and stands anywhere on the film, with the text
    tag where scanners print it. A mark's stands in the middle, with the tag at a place of its own and the
    findings of two questions, so that half as many pictures do. For were the evidence always at one place, a
    prior of the place would pass for an explanation.
    """
    return _lesion_patient(index) if evidence == "lesion" else _mark_patient(_mark_picture(index))


def finding_of(index: int) -> str:
    """The finding that a question asks about."""
    return FINDINGS[index % len(FINDINGS)]


def cause_in(phantom: Phantom, index: int, evidence: str) -> BoolArray:
    """The mask of the cause in the picture of a question: its finding, or the mark that stands for it."""
    finding = finding_of(index)
    return phantom.findings[finding] if evidence == "lesion" else phantom.marks[MARK_OF[finding]]


def _lesion_patient(index: int) -> Patient:
    finding = finding_of(index)
    rng = np.random.default_rng((_SEED, index))
    others = [name for name in rng.permutation(FINDINGS).tolist() if name != finding]
    marks = [mark for mark in MARKS if mark == MARK_OF[finding] or rng.random() < 0.5]
    patient = Patient.sample(
        (_SEED, index, 1), findings=[finding, *others[: int(rng.integers(3))]], marks=sorted(marks)
    )
    return patient.with_chest_moved(rng)


def _mark_picture(index: int) -> int:
    """The picture of a question about a mark: successive questions share one."""
    return index // 2


@lru_cache(maxsize=4096)
def _mark_patient(number: int) -> Patient:
    """The first random patient whose text tag hides no finding."""
    rng = np.random.default_rng((_MARK_SEED, number))
    asked = [FINDINGS[(2 * number + question) % len(FINDINGS)] for question in range(2)]
    others = [name for name in rng.permutation(FINDINGS).tolist() if name not in asked]
    marks = [mark for mark in MARKS if mark in map(MARK_OF.get, asked) or rng.random() < 0.5]
    patient = Patient.sample(
        (_MARK_SEED, number, 1), findings=[*asked, *others[: int(rng.integers(2))]], marks=sorted(marks)
    )
    findings = np.logical_or.reduce(list(render(patient).findings.values()))
    while True:
        patient = patient.with_tag_moved(rng)
        x1, y1, x2, y2 = mark_box("text tag", tag=patient.tag)
        if not findings[max(y1 - _MARGIN, 0) : y2 + _MARGIN, max(x1 - _MARGIN, 0) : x2 + _MARGIN].any():
            return patient


def _patient_id(index: int, evidence: str) -> str:
    """The name of the patient, which is also that of the picture."""
    return f"phantom-{index:05d}" if evidence == "lesion" else f"phantom-mark-{_mark_picture(index):05d}"


def phantom_questions(indices: Iterable[int], evidence: str) -> Iterator[Question]:
    """The questions of these indices about the `lesion` or the `spurious` mark."""
    for index in indices:
        finding = finding_of(index)
        phantom = render(patient_of(index, evidence))
        mask = cause_in(phantom, index, evidence)
        yield Question(
            source="phantom",
            index=index,
            patient_id=_patient_id(index, evidence),
            finding=finding,
            image=phantom.image,
            boxes=box_of(mask, _MARGIN),
            evidence=evidence,
        )


def box_of(mask: BoolArray, margin: int = 0) -> FloatArray:
    """The tight box of a mask, widened by `margin` within the picture: (1, 4)."""
    height, width = mask.shape
    x1, y1, x2, y2 = tight_box(mask)
    return clip_boxes([[x1 - margin, y1 - margin, x2 + margin, y2 + margin]], width, height)


def split_of(index: int, mode: str) -> str:
    """The split of a question: the last ones are `dev`, whatever the mode."""
    return mode if index < TEST_QUESTIONS else "dev"


def rows(records: Sequence[Verification]) -> Mapping[str, list[dict[str, Any]]]:
    """The rows of the dataset by split, from the verified questions of all models and modes."""
    splits: dict[str, list[dict[str, Any]]] = {"direct": [], "reasoning": [], "dev": []}
    questions: dict[tuple[int, str], Question] = {}
    pictures: dict[str, tuple[bytes, list[dict[str, Any]]]] = {}
    for record in sorted(records, key=lambda r: (r.index, r.lvlm, r.mode)):
        asked = record.index, record.evidence
        if asked not in questions:
            (questions[asked],) = phantom_questions([record.index], record.evidence)
        question = questions[asked]
        if question.patient_id not in pictures:
            pictures[question.patient_id] = _png(question.image), _anatomy(patient_of(*asked))
        picture, anatomy = pictures[question.patient_id]
        height, width = question.image.shape
        row = complete_row(
            pointer_row(record),
            finding=record.finding,
            patient_id=record.patient_id,
            size=(width, height),
            boxes=question.boxes,
            image={"bytes": picture, "path": f"{record.patient_id}.png"},
            anatomy=anatomy,
        )
        splits[split_of(record.index, record.mode)].append(row)
    return splits


def _png(image: UInt8Image) -> bytes:
    file = BytesIO()
    Image.fromarray(image).save(file, "PNG", optimize=True)
    return file.getvalue()


def _anatomy(patient: Patient) -> list[dict[str, Any]]:
    return [
        {"concept": concept, "box": box_of(mask)[0].tolist()}
        for concept, mask in render(patient).concepts.items()
        if mask.any()
    ]
