"""The protocol of counterfactual editors, and what holds for every one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from medfocus_bench.data.questions import Question
from medfocus_bench.errors import InputError
from medfocus_bench.geometry import BoolArray, Frame, UInt8Image, rasterise

Edit = Literal["foreground", "background", "background_normal", "sham"]

EDITS: Final[tuple[Edit, ...]] = ("foreground", "background", "background_normal", "sham")
"""The region without the finding; all else without it; all else normal; the region redrawn, finding kept."""


class EditorError(InputError):
    """An editor that cannot work at all: weights that are missing, a setting that makes no sense."""


class Editor(Protocol):
    """An editor redraws a part of a picture. `name` and `version` go into the record of every answer.

    An editor with settings has a `digest` of them as well (str), which goes there too. One that draws at a
    resolution of its own says so by `resolution` (int, the longer side in pixels): all pictures that are
    compared are then taken to that resolution. One that redraws several pictures at once more cheaply is a
    `BatchEditor`.
    """

    name: str
    version: str

    def redraw(self, question: Question, edit: Edit, region: BoolArray, seed: int) -> UInt8Image:
        """The whole picture with `region` (height, width) redrawn as the edit asks; the rest is ignored."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Redrawing:
    """A picture of which `region` (height, width) is to be redrawn: the arguments of `Editor.redraw`."""

    question: Question
    edit: Edit
    region: BoolArray
    seed: int = 0


@runtime_checkable
class BatchEditor(Editor, Protocol):
    """An editor that redraws several pictures at once."""

    def redraw_many(self, redrawings: Sequence[Redrawing]) -> list[UInt8Image]:
        """As `redraw` of each."""
        ...


def editor_label(editor: Editor) -> str:
    """Label of an editor in records: name, version and the first digits of the digest of its settings."""
    digest = getattr(editor, "digest", None)
    return f"{editor.name} {editor.version}" + (f" {digest[:12]}" if digest else "")


def edited_region(question: Question, edit: Edit) -> BoolArray:
    """The pixels that an edit may change: those that the boxes touch, or all others for a background.

    Raises InputError for an empty region: an edit of nothing would decide nothing.
    """
    height, width = question.image.shape[:2]
    touched = rasterise(question.boxes, width, height) > 0
    region = ~touched if edit.startswith("background") else touched
    if not region.any():
        where = "cover the whole picture and leave no background" if touched.any() else "cover no pixel"
        raise InputError(f"{question.key}: the boxes {where}")
    return region


def picture_names(shams: int) -> tuple[str, ...]:
    """The names of a question's pictures; further shams are called `sham_1`, `sham_2`, ..."""
    numbered = ["sham" if number == 0 else f"sham_{number}" for number in range(shams)]
    return ("original", *EDITS[:3], *numbered)


def counterfactual_sets(
    editor: Editor, questions: Sequence[Question], *, sham_seeds: Sequence[int] = (0,)
) -> list[dict[str, UInt8Image]]:
    """For each question the original and all its edits by name, in the order of `picture_names`.

    Every pixel outside an edited region is the original's, bit for bit. A model has to tell the pictures
    apart by the edit alone: where an editor draws at a `resolution` of its own, the original is resized to
    it first. All edits are given to the editor at once. Raises ValueError if the editor returns another
    shape or type of picture.
    """
    resolution = getattr(editor, "resolution", None)
    shown = [
        question if resolution is None else at_resolution(question, resolution) for question in questions
    ]
    wanted: list[tuple[Edit, int]] = [(edit, 0) for edit in EDITS[:3]]
    wanted += [("sham", seed) for seed in sham_seeds]
    drawn = iter(
        _drawn(
            editor,
            [Redrawing(one, edit, edited_region(one, edit), seed) for one in shown for edit, seed in wanted],
        )
    )
    names = picture_names(len(sham_seeds))
    return [dict(zip(names, [one.image, *(next(drawn) for _ in wanted)], strict=True)) for one in shown]


def at_resolution(question: Question, size: int) -> Question:
    """The question with its picture as the model frame of this size shows it, without the padding.

    Bicubic, aspect kept, as an LVLM's own frame is made; the boxes go with it.
    """
    height, width = question.image.shape[:2]
    frame = Frame(width, height, size)
    if frame.content_size == (width, height):
        return question
    resized = Image.fromarray(question.image).resize(frame.content_size, Image.Resampling.BICUBIC)
    left, top = frame.content[:2]
    boxes = frame.to_model(question.boxes) - np.array([left, top, left, top])
    return replace(question, image=np.asarray(resized), boxes=boxes)


def _drawn(editor: Editor, redrawings: Sequence[Redrawing]) -> list[UInt8Image]:
    if isinstance(editor, BatchEditor):
        pictures = editor.redraw_many(redrawings)
    else:
        pictures = [editor.redraw(r.question, r.edit, r.region, r.seed) for r in redrawings]
    return [_confined(editor, r, picture) for r, picture in zip(redrawings, pictures, strict=True)]


def _confined(editor: Editor, redrawing: Redrawing, redrawn: UInt8Image) -> UInt8Image:
    original = redrawing.question.image
    if redrawn.shape != original.shape or redrawn.dtype != np.uint8:
        raise ValueError(f"{redrawing.question.key}: {editor.name} returned {redrawn.dtype} {redrawn.shape}")
    region = redrawing.region if original.ndim == 2 else redrawing.region[:, :, None]
    return np.where(region, redrawn, original)
