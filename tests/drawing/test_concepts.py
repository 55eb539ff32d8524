"""The panel of concepts and tokens."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from medfocus_bench.drawing.concepts import ConceptDrawing, concept_panel


def drawing(**more) -> ConceptDrawing:
    given = {
        "title": "MedFocus",
        "question": "Is there evidence of nodule?",
        "picture": Image.new("RGB", (100, 120)),
        "tokens": [("Yes", 2.0), (".", 0.0)],
        "concepts": {"left lung": 2.0, "heart": -1.0},
        "response": "Yes.",
    }
    return ConceptDrawing(**{**given, **more})


def test_an_interval_is_written_beside_its_bar():
    intervals = {"left lung": (1.0, 2.5)}
    plain, marked = (np.asarray(concept_panel(drawing(**more))) for more in ({}, {"intervals": intervals}))
    assert plain.shape == marked.shape
    changed = (plain != marked).any(axis=(1, 2))
    assert 10 < changed.sum() < 60, "the first bar, and the second for its scale"


def test_the_token_that_loses_most_is_the_brightest():
    first = np.asarray(concept_panel(drawing(concepts={})))
    second = np.asarray(concept_panel(drawing(tokens=[("Yes", 0.0), (".", 2.0)], concepts={})))
    assert first.shape == second.shape
    text = slice(150, None)  # right of the picture
    bright = [
        np.flatnonzero(((sheet[:, text, 0] > 250) & (sheet[:, text, 2] < 160)).any(axis=0))
        for sheet in (first, second)
    ]
    assert bright[0].min() < bright[1].min(), "the first token, and then the second"


@pytest.mark.parametrize(
    "more",
    [
        {"tokens": [("\N{CJK UNIFIED IDEOGRAPH-6C34}\x07", 1.0)] * 900},
        {"tokens": [], "response": "word " * 900},
        {"tokens": [("a" * 3000, 1.0)], "concepts": {"x" * 300: 0.0}},
        {"concepts": {f"c{n}": float(n) for n in range(50)}},
    ],
)
def test_any_text_fits(more):
    sheet = concept_panel(drawing(**more))
    assert sheet.width < 900
    assert sheet.height < 1200
