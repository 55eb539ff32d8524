"""Reading the pictures of annotations, and checking that they are the ones that the experts annotated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from medfocus_bench.data.images import picture_at, picture_size, read_picture
from medfocus_bench.data.pixels import PictureError
from medfocus_bench.data.questions import Question
from medfocus_bench.data.sources.protocol import Annotation, Annotations, Skip
from medfocus_bench.errors import InputError
from medfocus_bench.geometry import FloatArray, UInt8Image, clip_boxes

MIN_INSIDE: Final = 0.5
"""Share of its area that every box keeps within the picture; with less, box and picture do not belong
together."""


MISFITS: Final = 3
MISFIT_SHARE: Final = 0.05
"""Pictures, and their share, whose boxes lie outside; of the published copies none does."""


class MisfitError(PictureError):
    """Boxes that do not fit their picture."""


class OtherCopyError(InputError):
    """The local pictures are not the annotated ones, so no box can be placed."""


@dataclass(frozen=True, slots=True, eq=False)
class LocatedBoxes:
    """The size of a question's picture, and its boxes in native pixels, cut to the picture: (n, 4).

    `anatomy` likewise, one box (1, 4) a concept; boxes of it that do not fit the picture are left out.
    """

    width: int
    height: int
    boxes: FloatArray
    anatomy: Mapping[str, FloatArray]


def locate(annotation: Annotation, root: Path) -> LocatedBoxes:
    """Size and native boxes of a question; of the picture only the header is read.

    Raises PictureError that names the file: it is not there or no picture; MisfitError where the boxes do not
    fit it. Whether the collection as a whole is another copy, `check_copy` says.
    """
    width, height = picture_size(picture_at(root, annotation.image_ref))
    return _region(annotation, width, height)


def check_copy(
    annotations: Annotations, root: Path, find: Callable[[Annotation, Path], LocatedBoxes] = locate
) -> None:
    """Raise OtherCopyError if the local pictures of a source are not the annotated ones.

    Boxes in pixels do not say of which size their picture is. In a reduced copy most lie outside, and a few,
    near the upper left corner, fit by chance: in the wrong place. So a collection is judged as a whole.
    Reads the header of every picture whose boxes are in pixels, with `find`; pictures that are not there or
    cannot be read are left out of the count.
    """
    fits: dict[str, bool] = {}
    for annotation in annotations.questions:
        if annotation.relative:
            continue
        ref = annotation.image_ref
        try:
            region = find(annotation, root)
        except MisfitError:
            fits[ref] = False
        except InputError:
            continue
        else:
            fits[ref] = fits.get(ref, True) and len(region.anatomy) == len(annotation.anatomy)
    misfits = [ref for ref, holds in fits.items() if not holds]
    if len(misfits) >= MISFITS and len(misfits) >= MISFIT_SHARE * len(fits):
        raise OtherCopyError(
            f"{root / misfits[0]}: does not hold its boxes, nor do {len(misfits) - 1:,} more of the "
            f"{len(fits):,} pictures of {annotations.source}; they are a resized or a cropped copy, so none "
            "of its boxes is used: put the pictures there as the collection publishes them"
        )


def read_question(annotation: Annotation, root: Path) -> Question:
    """The question with its decoded picture. Raises PictureError as `locate`, or if it cannot be decoded."""
    return _question(annotation, read_picture(picture_at(root, annotation.image_ref)))


def iter_questions(
    annotations: Iterable[Annotation], root: Path, on_skip: Callable[[Skip], None]
) -> Iterator[Question]:
    """The questions with usable pictures, in order; `on_skip` is called for every other."""
    last: tuple[str, UInt8Image] | None = None
    for annotation in annotations:
        try:
            if last is None or last[0] != annotation.image_ref:
                last = annotation.image_ref, read_picture(picture_at(root, annotation.image_ref))
            question = _question(annotation, last[1])
        except PictureError as error:
            on_skip(Skip(annotation.place, str(error), annotation.index))
            continue
        yield question


def _question(annotation: Annotation, image: UInt8Image) -> Question:
    height, width = image.shape
    return Question(
        source=annotation.source,
        index=annotation.index,
        patient_id=annotation.patient_id,
        finding=annotation.finding,
        image=image,
        boxes=_region(annotation, width, height).boxes,
    )


def _region(annotation: Annotation, width: int, height: int) -> LocatedBoxes:
    scale = np.array([width, height] * 2) if annotation.relative else np.ones(4)
    boxes = _cut(annotation.boxes * scale, width, height)
    if boxes is None:
        raise MisfitError(
            f"{annotation.image_ref}: a box of {annotation.place} lies outside the picture of {width} x "
            f"{height} pixels; is it another copy of the picture?"
        )
    outlined = {name: _cut(box * scale, width, height) for name, box in annotation.anatomy.items()}
    anatomy = {name: box for name, box in outlined.items() if box is not None}
    return LocatedBoxes(width, height, boxes, anatomy)


def _cut(boxes: FloatArray, width: int, height: int) -> FloatArray | None:
    """`boxes` cut to the picture; None if one loses too much of its area, or nothing is left."""
    cut = clip_boxes(boxes, width, height)
    before, after = (np.prod(part[:, 2:] - part[:, :2], axis=1) for part in (boxes, cut))
    return None if (after < MIN_INSIDE * before).any() or not (after > 0).any() else cut
