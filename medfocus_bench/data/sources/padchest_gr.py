"""PadChest-GR: grounded findings on 16-bit pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from medfocus_bench.data.columns import is_line
from medfocus_bench.data.sources.grouped import file_name
from medfocus_bench.data.sources.protocol import (
    DEV_START,
    Annotation,
    Annotations,
    Release,
    Skip,
    Split,
    patient_cluster,
)
from medfocus_bench.data.sources.tables import boxes_of, cell_of, find_table, read_json_list, read_table
from medfocus_bench.errors import InputError

_TEST_STUDIES: Final = 2000
_DEV_STUDIES: Final = 100
_TOLERANCE: Final = 1e-3
"""Share of a side by which a box may stick out of the picture: rounding."""


_Candidate = tuple[str, Mapping[str, Any], Mapping[str, Any]]
"""The place of a finding that is a question, its study, and itself, whether or not its boxes can be read."""


class PadChestGR:
    """Abnormal findings with boxes, in the order of the file: one question each.

    `test` is the first 2,000 studies, `dev` the last 100 (never one of test); dev indices begin at
    `DEV_START`. A finding with several labels asks about them all, joined by "or". A patient is that of
    `master_table.csv` where it lies beside the table, else the study.
    """

    name = "padchest_gr"
    title = "PadChest-GR"
    expected: Mapping[Split, int] = {"test": 2657, "dev": 144}
    tables: tuple[str, ...] = (
        "filtered_studies.json",
        "PadChest_GR/filtered_studies.json",
        "grounded_reports_20240819.json",
        "PadChest_GR/grounded_reports_20240819.json",
    )
    optional: Mapping[str, str] = {"master_table.csv": "intervals are formed by studies, not by patients"}
    pictures = "PadChest_GR/{ImageID}"
    release: Release | None = Release(
        title="PadChest-GR",
        licence="the data use agreement of BIMCV",
        link="https://bimcv.cipf.es/bimcv-projects/padchest-gr/",
        join="PadChest-GR, from BIMCV.",
    )

    def annotations(self, root: Path, split: Split = "test") -> Annotations:
        path = find_table(root, self.tables)
        studies = read_json_list(path)
        patients = _patients(path.with_name("master_table.csv"))
        start = 0 if split == "test" else max(_TEST_STUDIES, len(studies) - _DEV_STUDIES)
        stop = _TEST_STUDIES if split == "test" else len(studies)
        first = 0 if split == "test" else DEV_START
        questions: list[Annotation] = []
        skips: list[Skip] = []
        candidates = _candidates(path, studies, start, stop)
        for index, (place, study, finding) in enumerate(candidates, start=first):
            try:
                questions.append(_question(index, place, study, finding, patients))
            except ValueError as error:
                skips.append(Skip(place, str(error), index))
        found = len(questions) + len(skips)
        return Annotations(self.name, split, tuple(questions), tuple(skips), found)


def _candidates(path: Path, studies: list[Any], start: int, stop: int) -> Iterator[_Candidate]:
    for number, study in enumerate(studies[start:stop], start=start):
        place = f"{path}: study {number}"
        findings = study.get("findings") if isinstance(study, dict) else None
        if not isinstance(findings, list):
            raise _uncountable(place, "has no list of findings")
        for part, finding in enumerate(findings):
            if not isinstance(finding, dict) or not isinstance(finding.get("abnormal"), bool):
                raise _uncountable(f"{place}, finding {part}", "does not say whether it is abnormal")
            if finding["abnormal"] and (finding.get("boxes") or finding.get("extra_boxes")):
                yield f"{place}, finding {part}", study, finding


def _uncountable(place: str, what: str) -> InputError:
    return InputError(f"{place}: {what}, so the questions cannot be counted; fetch the file again")


def _question(
    index: int, place: str, study: Mapping[str, Any], finding: Mapping[str, Any], patients: Mapping[str, str]
) -> Annotation:
    labels, image = finding.get("labels"), study.get("ImageID")
    if not isinstance(labels, list) or not labels or not all(isinstance(label, str) for label in labels):
        raise ValueError("labels is not a list of texts")
    asked = " or ".join(map(cell_of, labels))
    if not is_line(asked):
        raise ValueError("the finding is not a short text on one line")
    if not isinstance(image, str):
        raise ValueError("ImageID is not a text")
    name = file_name(image)
    identity = study.get("StudyID", name)
    if not isinstance(identity, (str, int)):
        raise ValueError("StudyID is not a text")
    return Annotation(
        source="padchest_gr",
        index=index,
        patient_id=patient_cluster("padchest_gr", patients.get(str(identity), str(identity))),
        finding=asked,
        image_ref=f"PadChest_GR/{name}",
        boxes=boxes_of([_box(box) for key in ("boxes", "extra_boxes") for box in _list(finding, key)]),
        relative=True,
        place=place,
    )


def _list(finding: Mapping[str, Any], key: str) -> list[Any]:
    value = finding.get(key) or []
    if not isinstance(value, list):
        raise ValueError(f"{key} is not a list")
    return value


def _box(value: Any) -> tuple[float, ...]:
    if not isinstance(value, list) or len(value) != 4:
        raise ValueError("a box is not a list [x1, y1, x2, y2]")
    for part in value:
        is_number = isinstance(part, (int, float)) and not isinstance(part, bool)
        if not is_number or not -_TOLERANCE <= part <= 1 + _TOLERANCE:  # NaN and infinities neither
            raise ValueError(f"{ascii(part)[:80]} is not a share of the picture within 0 and 1")
    return tuple(float(part) for part in value)


def _patients(path: Path) -> Mapping[str, str]:
    if not path.is_file():
        return {}
    lines = read_table(path, ["StudyID", "PatientID"])
    return {line.cells[0]: line.cells[1] for line in lines if all(line.cells)}
