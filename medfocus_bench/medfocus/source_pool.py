"""The paper's pool of references, from a user's own licensed copy of an annotated source.

Chest ImaGenome is the one source whose experts outlined anatomy. Its gold set holds it in two tables: the
attributes, one row for each finding of a box (`bbox` names the anatomy), and a list of all boxes of its 1,000
pictures, which is read beside it where it is there. The attributes alone name only the anatomy that a report
mentions, so without the list few pictures have all eleven concepts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from medfocus_bench.data.concepts import CONCEPTS, concept_named
from medfocus_bench.data.images import picture_at, read_picture
from medfocus_bench.data.pixels import PictureError
from medfocus_bench.data.sources.imagenome import BOX_LIST, anatomy_box, outlined_anatomy, picture_ref
from medfocus_bench.data.sources.protocol import Skip
from medfocus_bench.data.sources.reading import check_copy
from medfocus_bench.data.sources.registry import open_source
from medfocus_bench.data.sources.tables import find_table, is_missing, number_of, read_table
from medfocus_bench.errors import InputError
from medfocus_bench.geometry import BoolArray, FloatArray, UInt8Image, clip_boxes, rasterise
from medfocus_bench.medfocus.reference import ReferencePool
from medfocus_bench.text import same

POOL_SIZE: Final = 16
"""References in the paper."""

MAX_SIDE: Final = 1024
"""Pixels of the longer side of a reference; larger pictures are reduced, their boxes with them."""

_SOURCE: Final = "imagenome"
_FINDINGS: Final = ("anatomicalfinding", "disease")
_NORMALITY: Final = "nlp"
_ABNORMAL: Final = "abnormal"
_MEDIASTINUM: Final = ("upper mediastinum", "cardiac silhouette")
"""The box list leaves the mediastinum out: it is what encloses these two."""
_MIN_INSIDE: Final = 0.5
"""Share of a box within the picture; with less they do not belong together."""

Refine = Callable[[UInt8Image, FloatArray], BoolArray]
"""Masks (n, height, width) of what native boxes (n, 4) enclose."""


@dataclass(frozen=True, slots=True)
class SourcePool:
    """A pool, the pictures that it is made of (relative to the root), and all that was left out, and why.

    `normal` counts the pictures without an asserted finding, `complete` those with all concepts as well.
    """

    pool: ReferencePool
    pictures: tuple[str, ...]
    skips: tuple[Skip, ...]
    normal: int
    complete: int


@dataclass(slots=True)
class _SourceImage:
    """The entries of the tables for one picture."""

    image_id: str
    patient: str
    ref: str
    place: str
    normal: bool = True
    reason: str = ""
    boxes: dict[str, FloatArray] = field(default_factory=dict)

    def reject(self, reason: str) -> None:
        if self.normal:
            self.normal, self.reason = False, reason


def pool_from_source(
    name: str,
    root: Path,
    *,
    size: int = POOL_SIZE,
    seed: int = 0,
    max_side: int = MAX_SIDE,
    refine: Refine | None = None,
) -> SourcePool:
    """`size` normal pictures whose annotations cover all eleven concepts, drawn by `seed`.

    Normal is a picture with rows in the attributes, none of which asserts a finding, a disease or that it is
    abnormal, or leaves that open. At most one picture of a patient is taken. A concept's mask is its box, or
    what `refine` makes of it. The choice depends on the tables, the seed and on which pictures can be read.

    Raises InputError for a source without outlined anatomy, for a table that is not there or damaged, for
    pictures of another copy than the annotated one, and where fewer than `size` pictures can be used.
    """
    if name != _SOURCE:
        raise InputError(f"no outlined anatomy in the source {name!r}, only in {_SOURCE}")
    found = _read(root)
    check_copy(open_source(name).annotations(root), root)
    skips = [Skip(p.place, f"{p.image_id}: {p.reason}") for p in found if not p.normal]
    normal = [p for p in found if p.normal]
    complete = []
    for p in normal:
        if lacking := [concept for concept in CONCEPTS if concept not in p.boxes]:
            skips.append(Skip(p.place, f"{p.image_id}: has no box of the {lacking[0]}"))
        else:
            complete.append(p)
    order = np.random.default_rng(seed).permutation(len(complete))
    images: list[UInt8Image] = []
    masks: list[Mapping[str, BoolArray]] = []
    refs: list[str] = []
    patients: set[str] = set()
    for picture in (complete[number] for number in order):
        if len(images) == size:
            break
        if picture.patient in patients:
            skips.append(Skip(picture.place, f"{picture.image_id}: another picture of its patient is taken"))
            continue
        try:
            image, outlined = _outlined(picture, root, max_side, refine)
        except PictureError as error:
            skips.append(Skip(picture.place, str(error)))
            continue
        patients.add(picture.patient)
        images.append(image)
        masks.append(outlined)
        refs.append(picture.ref)
    if len(images) < size:
        hint = (
            "" if (root / BOX_LIST).is_file() else f"; {root / BOX_LIST}, which has all boxes, is not there"
        )
        raise InputError(
            [
                f"{root}: {len(images)} pictures can be references of {size} that are wanted ({len(normal)} "
                f"normal, {len(complete)} of them with all concepts){hint}",
                *map(str, skips),
            ]
        )
    return SourcePool(ReferencePool(images, masks), tuple(refs), tuple(skips), len(normal), len(complete))


def _read(root: Path) -> list[_SourceImage]:
    """Every picture of the attributes, in the order of its id, with its boxes."""
    path = find_table(root, open_source(_SOURCE).tables)
    columns = ("patient_id", "study_id", "image_id", "relation", "label_name", "categoryID", "bbox")
    pictures: dict[str, _SourceImage] = {}
    for line in read_table(path, [*columns, "coord_original"], delimiter="\t"):
        patient, study, image_file, relation, label, category, anatomy, box = line.cells
        if is_missing(image_file) or is_missing(patient) or is_missing(study):
            continue
        anatomy = concept_named(anatomy)
        image_id = image_file.removesuffix(".dcm")
        place = f"{path}: line {line.number}"
        picture = pictures.get(image_id)
        if picture is None:
            picture = pictures[image_id] = _picture(patient, study, image_id, place)
        _judge(picture, relation, label, category)
        if anatomy in CONCEPTS and anatomy not in picture.boxes and (found := anatomy_box(box)) is not None:
            picture.boxes[anatomy] = found[0]
    listed = outlined_anatomy(root)
    for image_id, picture in pictures.items():
        of_list = {concept: boxes[0] for concept, boxes in listed.get(image_id, {}).items()}
        picture.boxes = of_list | picture.boxes
        _add_mediastinum(picture)
    return [pictures[image_id] for image_id in sorted(pictures)]


def _picture(patient: str, study: str, image_id: str, place: str) -> _SourceImage:
    try:
        return _SourceImage(image_id, patient, picture_ref(patient, study, image_id), place)
    except ValueError as error:
        picture = _SourceImage(ascii(image_id)[:80], patient, "", place)
        picture.reject(str(error))
        return picture


def _judge(picture: _SourceImage, relation: str, label: str, category: str) -> None:
    if same(category) not in _FINDINGS and (same(category), same(label)) != (_NORMALITY, _ABNORMAL):
        return
    name = ascii(label)[:80]
    try:
        asserted = number_of(relation)
    except ValueError:
        picture.reject(f"does not say whether {name} is there")
        return
    if asserted != 0:
        picture.reject(f"asserts {name}")


def _add_mediastinum(picture: _SourceImage) -> None:
    if "mediastinum" in picture.boxes or not all(part in picture.boxes for part in _MEDIASTINUM):
        return
    parts = np.stack([picture.boxes[part] for part in _MEDIASTINUM])
    picture.boxes["mediastinum"] = np.concatenate([parts[:, :2].min(axis=0), parts[:, 2:].max(axis=0)])


def _outlined(
    picture: _SourceImage, root: Path, max_side: int, refine: Refine | None
) -> tuple[UInt8Image, Mapping[str, BoolArray]]:
    """The picture with the mask of each concept, reduced to `max_side`. Raises PictureError."""
    image = read_picture(picture_at(root, picture.ref))
    height, width = image.shape
    boxes = np.stack([picture.boxes[concept] for concept in CONCEPTS])
    inside = clip_boxes(boxes, width, height)
    before, after = (np.prod(part[:, 2:] - part[:, :2], axis=1) for part in (boxes, inside))
    outside = np.flatnonzero(after < _MIN_INSIDE * before)
    if len(outside):
        raise PictureError(
            f"{picture.ref}: the box of the {CONCEPTS[outside[0]]} lies outside the picture of {width} x "
            f"{height} pixels; is it another copy of the picture?"
        )
    scale = min(1.0, max_side / max(width, height))
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        inside = inside * np.array([size[0] / width, size[1] / height] * 2)
        image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    return image, _masks(picture, image, inside, refine)


def _masks(
    picture: _SourceImage, image: UInt8Image, boxes: FloatArray, refine: Refine | None
) -> Mapping[str, BoolArray]:
    """The box of each concept as a mask, or what `refine` makes of it; a concept it loses keeps its box."""
    height, width = image.shape
    refined = np.zeros((len(CONCEPTS), *image.shape), np.bool_) if refine is None else refine(image, boxes)
    masks: dict[str, BoolArray] = {}
    for concept, box, mask in zip(CONCEPTS, boxes, refined, strict=True):
        kept: BoolArray = mask if mask.any() else rasterise(box[None], width, height) >= 0.5
        if not kept.any():
            raise PictureError(f"{picture.ref}: the box of the {concept} covers less than half a pixel")
        masks[concept] = kept
    return masks
