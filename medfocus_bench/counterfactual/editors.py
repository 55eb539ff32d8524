"""The protocol of counterfactual editors, and what holds for every one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from medfocus_bench.data.questions import Question
from medfocus_bench.geometry import BoolArray, rasterise

Edit = Literal["foreground", "background", "background_normal", "sham"]

EDITS: Final[tuple[Edit, ...]] = ("foreground", "background", "background_normal", "sham")
"""The region without the finding; all else without it; all else normal; the region redrawn, finding kept."""


class Editor(Protocol):
    """Redraws a part of a picture. `name` and `version` go into the record of every answer."""

    name: str
    version: str

    def redraw(self, question: Question, edit: Edit, region: BoolArray, seed: int) -> npt.NDArray[np.uint8]:
        """The whole picture with `region` (height, width) redrawn as the edit asks; the rest is ignored."""
        ...


def edited_region(question: Question, edit: Edit) -> BoolArray:
    """The pixels that an edit may change: those that the boxes touch, or all others for a background."""
    height, width = question.image.shape[:2]
    touched = rasterise(question.boxes, width, height) > 0
    return ~touched if edit.startswith("background") else touched


def counterfactual(editor: Editor, question: Question, edit: Edit, seed: int = 0) -> npt.NDArray[np.uint8]:
    """The edited picture; every pixel outside the edited region is the original's, bit for bit.

    Raises ValueError if the editor returns another shape or type of picture.
    """
    region = edited_region(question, edit)
    redrawn = editor.redraw(question, edit, region, seed)
    if redrawn.shape != question.image.shape or redrawn.dtype != np.uint8:
        raise ValueError(f"{question.key}: {editor.name} returned {redrawn.dtype} {redrawn.shape}")
    keep = region if question.image.ndim == 2 else region[:, :, None]
    return np.where(keep, redrawn, question.image)


def counterfactuals(
    editor: Editor, question: Question, *, sham_seeds: Sequence[int] = (0,)
) -> dict[str, npt.NDArray[np.uint8]]:
    """The original and all its edits by name; further shams are called `sham_1`, `sham_2`, ..."""
    pictures = {"original": question.image}
    for edit in EDITS[:3]:
        pictures[edit] = counterfactual(editor, question, edit)
    for number, seed in enumerate(sham_seeds):
        name = "sham" if number == 0 else f"sham_{number}"
        pictures[name] = counterfactual(editor, question, "sham", seed)
    return pictures
