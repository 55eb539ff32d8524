"""Samples in groups: their patients, their cells, macro means with intervals, and what each patient adds.

Every average over samples is computed here. A *cell* holds the samples that agree in some fields; the macro
mean of a group is the mean of its cells' means, so that no LVLM or source drowns another.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from medfocus_bench.evaluation.protocol import Settings
from medfocus_bench.evaluation.statistics import Cell, IndexArray, Interval, intervals
from medfocus_bench.geometry import BoolArray, FloatArray

CELL: Final = ("lvlm", "source")
"""The fields in which the samples of a cell agree."""


class Clustered(Protocol):
    """A sample, as far as resampling is concerned."""

    @property
    def patient(self) -> Hashable: ...


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Some of n samples, as the cells over whose means they are averaged: a mask (n,) for each."""

    cells: tuple[BoolArray, ...]

    @property
    def members(self) -> BoolArray:
        """The samples of all cells, (n,)."""
        return np.asarray(np.logical_or.reduce(self.cells))


class Groups:
    """Samples by patient and by cell; the same for every method that is scored on them.

    `patient_of` (n,) holds the number of each sample's patient, of `patients` in all; `cell_of` (n,) that of
    its cell.
    """

    def __init__(self, patient_of: IndexArray, patients: int, cell_of: IndexArray) -> None:
        self.patient_of, self.patients, self.cell_of = patient_of, patients, cell_of

    @classmethod
    def of(cls, samples: Sequence[Clustered], by: Sequence[str] = CELL) -> Groups:
        """Samples that agree in the fields `by` share a cell; with no field, all of them do."""
        patient_of, patients = numbered(sample.patient for sample in samples)
        cell_of, _ = numbered(tuple(getattr(sample, field) for field in by) for sample in samples)
        return cls(patient_of, patients, cell_of)

    @property
    def everything(self) -> BoolArray:
        """The mask of all samples, (n,)."""
        return np.ones(len(self.patient_of), dtype=np.bool_)

    def macro(self, members: BoolArray | None = None) -> Group:
        """Those samples (default: all) as a group that is averaged cell by cell."""
        members = self.everything if members is None else members
        return Group(tuple(members & (self.cell_of == cell) for cell in np.unique(self.cell_of[members])))

    def pooled(self, members: BoolArray | None = None) -> Group:
        """Those samples (default: all) as a group of one cell: large LVLMs and sources weigh more."""
        return Group((self.everything if members is None else members,))

    def counts(self, group: Group) -> tuple[int, int]:
        """Samples and patients of a group."""
        members = group.members
        return int(members.sum()), len(np.unique(self.patient_of[members]))

    def means(self, values: FloatArray, groups: Sequence[Group], settings: Settings) -> list[list[Interval]]:
        """For each group the means of values (n, m), with intervals from resampled patients."""
        cells: dict[bytes, Cell] = {}
        for members in (members for group in groups for members in group.cells):
            key = members.tobytes()
            if key not in cells:
                cells[key] = Cell.of(values, self.patient_of, members)
        parts = [[cells[members.tobytes()] for members in group.cells] for group in groups]
        return intervals(parts, self.patients, settings)

    def contributions(self, values: FloatArray, group: Group) -> FloatArray:
        """The part of each patient in the means of values (n, m): (patients, m), which sum to the means."""
        added = np.zeros((self.patients, values.shape[1]))
        for members in group.cells:
            scale = 1 / (int(members.sum()) * len(group.cells))
            np.add.at(added, self.patient_of[members], values[members] * scale)
        return added


def numbered(values: Iterable[Any]) -> tuple[IndexArray, int]:
    """The place of each value among the sorted distinct ones, and how many of those there are."""
    held = list(values)
    place = {value: number for number, value in enumerate(sorted(set(held)))}
    return np.array([place[value] for value in held], dtype=np.intp), len(place)
