"""The box list of NIH ChestX-ray14, an openly licensed source beyond the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from medfocus_bench.data.sources.grouped import Grouping, file_name
from medfocus_bench.data.sources.protocol import Annotations, Split
from medfocus_bench.data.sources.tables import AnnotationRow, find_table, first_lines, number_of, read_table
from medfocus_bench.errors import InputError

_BASE: Final = "nih-chest-xray14"

_HEADER: Final = ("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]", "", "", "")
"""As it is published: the rows have the first six cells only, or three empty ones more."""

_SIDE: Final = 1024
"""Pixels of each side of every picture of the collection; resized copies are common, so boxes are shares."""


class NIH:
    """All boxes of the list. Ranks follow (image, finding), sorted."""

    name = "nih"
    title = "NIH ChestX-ray14 (box list of 2017)"
    expected: Mapping[Split, int] = {"test": 984}
    tables: tuple[str, ...] = (
        f"{_BASE}/BBox_List_2017.csv",
        f"{_BASE}/BBox_List_2017.csv.gz",
    )
    optional: Mapping[str, str] = {}
    pictures = "nih-chest-xray14/images*/{image}, or in images*/images/"
    release = None

    def annotations(self, root: Path, split: Split = "test") -> Annotations:
        path = find_table(root, self.tables)
        lines = _lines(path)
        folder_of = _folders(root / _BASE)
        grouping = Grouping(
            source=self.name,
            keys=2,
            box=_shares,
            picture=lambda cells: f"{_BASE}/{folder_of.get(cells[0], 'images')}/{file_name(cells[0])}",
            patient=lambda cells: cells[0].partition("_")[0],
            finding=lambda cells: cells[1],
            relative=True,
        )
        return grouping.annotations(path, lines, [True] * len(lines))


def _lines(path: Path) -> list[AnnotationRow]:
    head, *rows = first_lines(path, 2) or [[]]
    if tuple(head[:6]) != _HEADER[:6]:
        raise InputError(f"{path}: does not begin with {','.join(_HEADER[:6])}; is it the box list?")
    width = len(rows[0]) if rows else 6
    if width not in (6, 9):
        raise InputError(f"{path}: line 2 has {width} cells, not 6; fetch the table again")
    return read_table(path, _HEADER[:6], header=_HEADER[:width])


def _shares(line: AnnotationRow) -> Sequence[float]:
    x, y, width, height = (number_of(cell) for cell in line.cells[2:])
    if width <= 0 or height <= 0:
        raise ValueError("the box has no area")
    return [x / _SIDE, y / _SIDE, (x + width) / _SIDE, (y + height) / _SIDE]


def _folders(base: Path) -> Mapping[str, str]:
    """Where each picture lies: the collection comes as one folder `images`, or as twelve."""
    found: dict[str, str] = {}
    for folder in sorted((*base.glob("images*"), *base.glob("images*/images")), reverse=True):
        if folder.is_dir():
            place = folder.relative_to(base).as_posix()
            found.update((entry.name, place) for entry in folder.iterdir() if entry.suffix == ".png")
    return found
