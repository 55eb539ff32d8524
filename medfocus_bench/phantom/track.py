"""The phantom track: the questions, and the dataset that the causal filter makes of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from medfocus_bench.counterfactual.causal_filter import Verification
from medfocus_bench.data.questions import Question
from medfocus_bench.data.rows import complete_row, pointer_row
from medfocus_bench.geometry import BoolArray, FloatArray
from medfocus_bench.phantom.findings import FINDINGS
from medfocus_bench.phantom.render import MARK_OF, MARKS, Patient, Phantom, render

VERSION: Final = "1.0.0"

TEST_QUESTIONS: Final = 24 * len(FINDINGS)
DEV_QUESTIONS: Final = 6 * len(FINDINGS)

_SEED: Final = 2026
_MARGIN: Final = 3
"""Pixels around a finding that belong to its box: what lies below the visible edge of its mask."""


def track_folder() -> Path:
    """The folder of the dataset that is shipped with the package."""
    return Path(str(files("medfocus_bench.phantom"))) / "track"


def patient_of(index: int) -> Patient:
    """The patient of a question: its finding, up to two others, and its finding's mark among the marks."""
    finding = FINDINGS[index % len(FINDINGS)]
    rng = np.random.default_rng((_SEED, index))
    others = [name for name in rng.permutation(FINDINGS).tolist() if name != finding]
    marks = [mark for mark in MARKS if mark == MARK_OF[finding] or rng.random() < 0.5]
    return Patient.sample(
        (_SEED, index, 1), findings=[finding, *others[: int(rng.integers(3))]], marks=sorted(marks)
    )


def phantom_questions(indices: Iterable[int], evidence: str) -> Iterator[Question]:
    """The questions of these indices about the `lesion` or the `spurious` mark."""
    for index in indices:
        finding = FINDINGS[index % len(FINDINGS)]
        phantom = render(patient_of(index))
        mask = phantom.findings[finding] if evidence == "lesion" else phantom.marks[MARK_OF[finding]]
        yield Question(
            source="phantom",
            index=index,
            patient_id=f"phantom-{index:05d}",
            finding=finding,
            image=phantom.image,
            boxes=box_of(mask, _MARGIN),
            evidence=evidence,
        )


def box_of(mask: BoolArray, margin: int = 0) -> FloatArray:
    """The tight box of a mask, widened by `margin` within the picture: (1, 4)."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    height, width = mask.shape
    return np.array(
        [
            [
                max(columns[0] - margin, 0),
                max(rows[0] - margin, 0),
                min(columns[-1] + 1 + margin, width),
                min(rows[-1] + 1 + margin, height),
            ]
        ],
        dtype=np.float64,
    )


def split_of(index: int, mode: str) -> str:
    """The split of a question: the last ones are `dev`, whatever the mode."""
    return mode if index < TEST_QUESTIONS else "dev"


def rows(records: Sequence[Verification]) -> Mapping[str, list[dict[str, Any]]]:
    """The rows of the dataset by split, from the verified questions of all models and modes."""
    splits: dict[str, list[dict[str, Any]]] = {"direct": [], "reasoning": [], "dev": []}
    pictures: dict[int, tuple[bytes, list[dict[str, Any]]]] = {}
    for record in sorted(records, key=lambda r: (r.index, r.lvlm, r.mode)):
        if record.index not in pictures:
            phantom = render(patient_of(record.index))
            pictures[record.index] = _png(phantom), _anatomy(phantom)
        splits[split_of(record.index, record.mode)].append(_row(record, *pictures[record.index]))
    return splits


def _row(record: Verification, picture: bytes, anatomy: list[dict[str, Any]]) -> dict[str, Any]:
    (question,) = phantom_questions([record.index], record.evidence)
    height, width = question.image.shape
    return complete_row(
        pointer_row(record),
        finding=record.finding,
        patient_id=record.patient_id,
        size=(width, height),
        boxes=question.boxes,
        image={"bytes": picture, "path": f"phantom-{record.index:05d}.png"},
        anatomy=anatomy,
    )


def _png(phantom: Phantom) -> bytes:
    file = BytesIO()
    Image.fromarray(phantom.image).save(file, "PNG", optimize=True)
    return file.getvalue()


def _anatomy(phantom: Phantom) -> list[dict[str, Any]]:
    return [
        {"concept": concept, "box": box_of(mask)[0].tolist()}
        for concept, mask in phantom.concepts.items()
        if mask.any()
    ]
