"""Chest ImaGenome's gold attributes with the pictures of MIMIC-CXR-JPG."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Final

from medfocus_bench.data.concepts import CONCEPTS, concept_named
from medfocus_bench.data.sources.grouped import Grouping, file_name
from medfocus_bench.data.sources.protocol import Annotations, Release, Skip, Split
from medfocus_bench.data.sources.tables import (
    AnnotationRow,
    box_of,
    boxes_of,
    find_table,
    is_missing,
    number_of,
    place_of,
    read_table,
)
from medfocus_bench.errors import InputError
from medfocus_bench.geometry import FloatArray
from medfocus_bench.text import same

_CATEGORIES: Final = ("anatomicalfinding", "disease")
_KEYS: Final = ("patient_id", "study_id", "image_id", "label_name", "categoryID")
_RELATION, _COORDINATES = 5, 6


BOX_LIST: Final = "chest-imagenome/1.0.0/gold_dataset/gold_bbox_coordinate_annotations_1000images.csv"
"""The anatomy of the gold set's 1,000 pictures, by picture and name."""


class ImaGenome:
    """Asserted findings and diseases of the gold set; the boxes are those of the anatomy they are in.

    Ranks follow (patient, study, image, label, category), sorted. The picture's anatomy is that of
    `BOX_LIST`, where it is there.
    """

    name = "imagenome"
    title = "Chest ImaGenome (gold set) with MIMIC-CXR-JPG 2.1.0"
    expected: Mapping[Split, int] = {"test": 1405}
    tables: tuple[str, ...] = (
        "chest-imagenome/1.0.0/gold_dataset/gold_object_attribute_with_coordinates.txt",
    )
    optional: Mapping[str, str] = {
        BOX_LIST: "the null control both-lungs is not available, and no references can be built"
    }
    pictures = "mimic-cxr-jpg/2.1.0/files/p{patient[:2]}/p{patient}/s{study}/{image}.jpg"
    release: Release | None = Release(
        title="Chest ImaGenome",
        licence="PhysioNet Credentialed Health Data License 1.5.0",
        link="https://physionet.org/content/chest-imagenome/1.0.0/",
        join="Chest ImaGenome 1.0.0 (gold annotations) and MIMIC-CXR-JPG, from PhysioNet.",
    )

    def annotations(self, root: Path, split: Split = "test") -> Annotations:
        path = find_table(root, self.tables)
        lines = read_table(path, [*_KEYS, "relation", "coord_original"], delimiter="\t")
        asked = [same(line.cells[4]) in _CATEGORIES for line in lines]
        wanted = [keep and _asserted(path, line) for line, keep in zip(lines, asked, strict=True)]
        found = _GROUPING.annotations(path, lines, wanted)
        unknown = tuple(
            Skip(place_of(path, [line]), "does not say whether the finding is there, so it is skipped")
            for line, keep in zip(lines, asked, strict=True)
            if keep and is_missing(line.cells[_RELATION])
        )
        outlined = outlined_anatomy(root)
        questions = tuple(
            replace(question, anatomy=outlined.get(PurePosixPath(question.image_ref).stem, {}))
            for question in found.questions
        )
        return Annotations(self.name, split, questions, (*unknown, *found.skips), found.found)


def outlined_anatomy(root: Path) -> Mapping[str, Mapping[str, FloatArray]]:
    """The boxes (1, 4) of `BOX_LIST` by id of the picture and concept: the first of each that can be read.

    Empty where the list is not there.
    """
    found: dict[str, dict[str, FloatArray]] = {}
    path = root / BOX_LIST
    if not path.is_file():
        return found
    for line in read_table(path, ("image_id", "bbox_name", "coord_original")):
        image_file, name, text = line.cells
        name = concept_named(name)
        outlined = found.setdefault(image_file.removesuffix(".dcm"), {})
        if name in CONCEPTS and name not in outlined and (box := anatomy_box(text)) is not None:
            outlined[name] = box
    return found


def anatomy_box(cell: str) -> FloatArray | None:
    """A box (1, 4) as text; None for anything but a box with an area.

    Anatomy is an addition: a question does not fail for lack of it.
    """
    try:
        return boxes_of([box_of(cell)])
    except ValueError:
        return None


def _asserted(path: Path, line: AnnotationRow) -> bool:
    if is_missing(line.cells[_RELATION]):
        return False
    try:
        return number_of(line.cells[_RELATION]) == 1
    except ValueError as error:
        raise InputError(
            f"{path}: line {line.number}: relation: {error}, so the questions cannot be counted; "
            "fetch the table again"
        ) from None


def picture_ref(patient: str, study: str, image_file: str) -> str:
    """Where MIMIC-CXR-JPG holds a picture, below the root. Raises ValueError for an unsafe id."""
    patient, study = file_name(patient), file_name(study)
    image = file_name(image_file.removesuffix(".dcm"))
    return f"mimic-cxr-jpg/2.1.0/files/p{patient[:2]}/p{patient}/s{study}/{image}.jpg"


_GROUPING: Final = Grouping(
    source="imagenome",
    keys=len(_KEYS),
    box=lambda line: box_of(line.cells[_COORDINATES]),
    picture=lambda cells: picture_ref(cells[0], cells[1], cells[2]),
    patient=lambda cells: cells[0],
    finding=lambda cells: cells[3],
)
