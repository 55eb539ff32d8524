"""Find submissions whose attributions are copies of another one's, or of a null control's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.errors import SubmissionError, UnavailableError
from medfocus_bench.evaluation.evaluate import covered_part
from medfocus_bench.evaluation.nulls import NULL_CONTROLS, NullControl
from medfocus_bench.submission.document import DOCUMENT_NAME, read_document
from medfocus_bench.submission.maps import MapReader
from medfocus_bench.submission.raw import RawDocument
from medfocus_bench.submission.reader import Inspection
from medfocus_bench.submission.schema import MAP_FILE_PATTERN


@dataclass(frozen=True, slots=True)
class _Attributions:
    """The maps, and the boxes by sample, as they stand in the document."""

    maps: MapReader | None
    boxes: dict[str, Any]

    @classmethod
    def of(cls, document: RawDocument, maps: MapReader | None) -> _Attributions:
        return cls(
            maps,
            {entry["sample_id"]: entry["boxes"] for entry in document.attributions() if entry.get("boxes")},
        )

    def is_other(self, attribution: Attribution) -> bool | None:
        """Whether the attribution of this sample differs here; None for a sample without one."""
        key = attribution.sample_id
        if self.maps is not None and key in self.maps.keys:
            theirs = attribution.saliency
            return theirs is None or not np.array_equal(self.maps.read(key), theirs, equal_nan=True)
        if key in self.boxes:
            return attribution.boxes is None or not np.array_equal(self.boxes[key], attribution.boxes)
        return None


def copied_from(inspection: Inspection, submissions: Path, benchmark: Benchmark) -> list[str]:
    """A problem for each folder of `submissions`, and each null control, that has all these attributions.

    The inspected submission is sound and of the `benchmark`; a neighbour that is unsound is left alone, as is
    the one of the same name. Maps are compared as numbers, whatever their type and order, and only until two
    differ; boxes alone are held against those of folders without maps: that costs less than opening all.
    """
    submission, raw = inspection.submission, inspection.raw
    assert submission is not None
    assert raw is not None
    folder = submission.path.parent
    ours = _Attributions.of(raw, inspection.maps)
    keys = ours.maps.keys if ours.maps is not None else frozenset()
    if not keys and not ours.boxes:
        return []  # no explanation at all, which is nobody's
    part = covered_part(submission, benchmark)
    originals = [
        *(f"{submissions.name}/{o.name}" for o in _neighbours(folder, submissions) if _all_in(ours, o)),
        *(f"the null control {c.name}" for c in NULL_CONTROLS.values() if _is_null(ours, c, part)),
    ]
    return [
        f"{folder}: holds the same attributions as {original}; submit your own method's"
        for original in originals
    ]


def _is_null(ours: _Attributions, control: NullControl, benchmark: Benchmark) -> bool:
    """Whether all attributions equal a null control's, which is drawn until two differ."""
    try:
        return not any(ours.is_other(attribution) for _, attribution in control.make(benchmark.samples, 0))
    except UnavailableError:
        return False


def _neighbours(folder: Path, submissions: Path) -> Iterator[Path]:
    for path in sorted(submissions.iterdir()):
        if path.is_dir() and not path.is_symlink() and path.name != folder.name:
            yield path


def _all_in(ours: _Attributions, other: Path) -> bool:
    """Whether every map and all boxes equal those of the submission `other`."""
    try:
        theirs = _maps_of(other)
        if (ours.maps is None) != (theirs is None):
            return False
        if ours.maps is not None and theirs is not None and not _same_maps(ours.maps, theirs):
            return False
        if not ours.boxes:
            return True
        boxes = _Attributions.of(read_document(other / DOCUMENT_NAME), None).boxes
    except (SubmissionError, KeyError, TypeError, AttributeError):
        return False
    return all(boxes.get(sample_id) == value for sample_id, value in ours.boxes.items())


def _maps_of(folder: Path) -> MapReader | None:
    """The one map file of a folder, found without reading its document, which may be large."""
    found = [path for path in folder.iterdir() if re.fullmatch(MAP_FILE_PATTERN, path.name)]
    return MapReader(found[0]) if len(found) == 1 else None


def _same_maps(ours: MapReader, theirs: MapReader) -> bool:
    return ours.keys <= theirs.keys and all(
        theirs.problem(key) is None and np.array_equal(ours.read(key), theirs.read(key), equal_nan=True)
        for key in sorted(ours.keys)
    )
