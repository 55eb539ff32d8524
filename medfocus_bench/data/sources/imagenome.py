"""Chest ImaGenome's gold attributes with the pictures of MIMIC-CXR-JPG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Final

from medfocus_bench.data.concepts import CONCEPTS
from medfocus_bench.data.sources.grouped import Grouping, file_name
from medfocus_bench.data.sources.protocol import Annotations, Skip, Split
from medfocus_bench.data.sources.tables import (
    Line,
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
    optional: Mapping[str, str] = MappingProxyType(
        {BOX_LIST: "the null control both-lungs is not available, and no references can be built"}
    )
    pictures = "mimic-cxr-jpg/2.1.0/files/p{patient[:2]}/p{patient}/s{study}/{image}.jpg"

    def annotations(self, root: Path, split: Split = "test") -> Annotations:
        path = find_table(root, self.tables)
        lines = read_table(path, [*_KEYS, "relation", "coord_original"], delimiter="\t")
        asked = [line.cells[4] in _CATEGORIES for line in lines]
        wanted = [keep and _asserted(path, line) for line, keep in zip(lines, asked, strict=True)]
        found = _GROUPING.annotations(path, lines, wanted)
        unknown = tuple(
            Skip(place_of(path, [line]), "does not say whether the finding is there, so it is no question")
            for line, keep in zip(lines, asked, strict=True)
            if keep and is_missing(line.cells[_RELATION])
        )
        outlined = _anatomy(root / BOX_LIST)
        questions = tuple(
            replace(question, anatomy=outlined.get(PurePosixPath(question.image_ref).stem, {}))
            for question in found.questions
        )
        return Annotations(self.name, split, questions, (*unknown, *found.skips), found.found)


def _anatomy(path: Path) -> Mapping[str, Mapping[str, FloatArray]]:
    """Boxes (1, 4) by picture and concept: the first of each that can be read."""
    found: dict[str, dict[str, FloatArray]] = {}
    if not path.is_file():
        return found
    for line in read_table(path, ("image_id", "bbox_name", "coord_original")):
        image_file, name, text = line.cells
        outlined = found.setdefault(image_file.removesuffix(".dcm"), {})
        if name in CONCEPTS and name not in outlined:
            try:
                outlined[name] = boxes_of([box_of(text)])
            except ValueError:
                continue  # anatomy is an addition: a question does not fail for lack of it
    return found


def _asserted(path: Path, line: Line) -> bool:
    if is_missing(line.cells[_RELATION]):
        return False
    try:
        return number_of(line.cells[_RELATION]) == 1
    except ValueError as error:
        raise InputError(
            f"{path}: line {line.number}: relation: {error}, so the questions cannot be counted; "
            "fetch the table again"
        ) from None


def _picture(cells: Sequence[str]) -> str:
    patient, study = file_name(cells[0]), file_name(cells[1])
    image = file_name(cells[2].removesuffix(".dcm"))
    return f"mimic-cxr-jpg/2.1.0/files/p{patient[:2]}/p{patient}/s{study}/{image}.jpg"


_GROUPING: Final = Grouping(
    source="imagenome",
    keys=len(_KEYS),
    box=lambda line: box_of(line.cells[_COORDINATES]),
    picture=_picture,
    patient=lambda cells: cells[0],
    finding=lambda cells: cells[3],
)
