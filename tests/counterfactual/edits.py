"""Edits of one question at a time."""

from __future__ import annotations

from collections.abc import Sequence

from medfocus_bench.counterfactual.editors import (
    Edit,
    Editor,
    Redrawing,
    _drawn,
    counterfactual_sets,
    edited_region,
)
from medfocus_bench.data.questions import Question
from medfocus_bench.geometry import UInt8Image


def counterfactual(editor: Editor, question: Question, edit: Edit, seed: int = 0) -> UInt8Image:
    """The edited picture, in the native frame, whatever resolution the editor draws at."""
    return _drawn(editor, [Redrawing(question, edit, edited_region(question, edit), seed)])[0]


def counterfactuals(
    editor: Editor, question: Question, *, sham_seeds: Sequence[int] = (0,)
) -> dict[str, UInt8Image]:
    """The original and all its edits by name."""
    return counterfactual_sets(editor, [question], sham_seeds=sham_seeds)[0]
