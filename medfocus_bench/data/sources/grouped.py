"""Tables with one row a box, whose groups are the questions."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medfocus_bench.data.columns import is_line
from medfocus_bench.data.sources.protocol import Annotation, Annotations, Skip, patient_cluster
from medfocus_bench.data.sources.tables import AnnotationRow, boxes_of, groups_in_order, place_of

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")


@dataclass(frozen=True, slots=True)
class Grouping:
    """How the groups of a table become questions.

    The first `keys` cells of every line are its key. `box` reads the box of one line (ValueError if it
    cannot); `picture`, `patient` and `finding` say from the cells of a group's first line what it is about.
    """

    source: str
    keys: int
    box: Callable[[AnnotationRow], Sequence[float]]
    picture: Callable[[Sequence[str]], str]
    patient: Callable[[Sequence[str]], str]
    finding: Callable[[Sequence[str]], str]
    relative: bool = False

    def annotations(self, path: Path, lines: Sequence[AnnotationRow], wanted: Sequence[bool]) -> Annotations:
        """The questions of the wanted lines. One box that cannot be read makes its question a Skip."""
        groups, without_key = groups_in_order(lines, self.keys, wanted)
        questions: list[Annotation] = []
        skips = [
            Skip(place_of(path, [line]), "names no picture or no finding, so it is skipped")
            for line in without_key
        ]
        for index, members in enumerate(groups.values()):
            try:
                questions.append(self._question(index, members, path))
            except ValueError as error:
                skips.append(Skip(place_of(path, members), str(error), index))
        return Annotations(self.source, "test", tuple(questions), tuple(skips), len(groups))

    def _question(self, index: int, members: Sequence[AnnotationRow], path: Path) -> Annotation:
        cells = members[0].cells
        finding = self.finding(cells)
        if not is_line(finding):
            raise ValueError("the finding is not a short text on one line")
        return Annotation(
            source=self.source,
            index=index,
            patient_id=patient_cluster(self.source, self.patient(cells)),
            finding=finding,
            image_ref=self.picture(cells),
            boxes=boxes_of([self.box(line) for line in members]),
            relative=self.relative,
            place=place_of(path, members),
        )


def file_name(text: str) -> str:
    """An id of a table as part of a path. Raises ValueError for an unsafe id."""
    if not _FILE_NAME.fullmatch(text) or ".." in text:
        raise ValueError(f"{ascii(text)[:80]} is not the name of a picture")
    return text
