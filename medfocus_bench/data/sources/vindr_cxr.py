"""The test set of VinDR-CXR: DICOM pictures with the boxes of its radiologists."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from medfocus_bench.data.sources.grouped import Grouping, file_name
from medfocus_bench.data.sources.protocol import Annotations, Release, Split
from medfocus_bench.data.sources.tables import find_table, number_of, read_table
from medfocus_bench.text import same

_COLUMNS: Final = ("image_id", "class_name", "x_min", "y_min", "x_max", "y_max")
_NO_FINDING: Final = "no finding"


class VinDrCXR:
    """All classes but `No finding`. Ranks follow (image_id, class_name), sorted.

    The collection names no patients, so every picture is a cluster of its own.
    """

    name = "vindr_cxr"
    title = "VinDR-CXR 1.0.0 (test set)"
    expected: Mapping[Split, int] = {"test": 2108}
    tables: tuple[str, ...] = ("vindr-cxr/1.0.0/annotations/annotations_test.csv",)
    optional: Mapping[str, str] = {}
    pictures = "vindr-cxr/1.0.0/test/{image_id}.dicom"
    release: Release | None = Release(
        title="VinDr-CXR",
        licence="PhysioNet Credentialed Health Data License 1.5.0",
        link="https://physionet.org/content/vindr-cxr/1.0.0/",
        join="VinDr-CXR 1.0.0 (test set), from PhysioNet.",
    )

    def annotations(self, root: Path, split: Split = "test") -> Annotations:
        path = find_table(root, self.tables)
        lines = read_table(path, _COLUMNS)
        return _GROUPING.annotations(path, lines, [same(line.cells[1]) != _NO_FINDING for line in lines])


_GROUPING: Final = Grouping(
    source="vindr_cxr",
    keys=2,
    box=lambda line: [number_of(cell) for cell in line.cells[2:]],
    picture=lambda cells: f"vindr-cxr/1.0.0/test/{file_name(cells[0])}.dicom",
    patient=lambda cells: cells[0],
    finding=lambda cells: cells[1],
)
