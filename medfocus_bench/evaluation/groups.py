"""Samples in groups: their patients, their cells, macro means with intervals, and what each patient adds.

Every average over samples is computed here. A *cell* holds the samples that agree in some fields, which are
nested; a macro mean is taken field by field from the inside out, so that no LVLM, source or kind of evidence
drowns another: of the sources of an LVLM, of the LVLMs of a kind of evidence, of the kinds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import numpy as np

from medfocus_bench.evaluation.protocol import Settings
from medfocus_bench.evaluation.statistics import Cell, IndexArray, Interval, Levels, Part, patient_intervals
from medfocus_bench.evaluation.two_levels import lvlm_means, two_level_intervals
from medfocus_bench.geometry import BoolArray, FloatArray

CELL: Final = ("evidence", "lvlm", "source")
"""The fields in which the samples of a cell agree, the outermost first."""

LVLM: Final = "lvlm"
"""The field whose values are a sample of others: LVLMs that agree in the fields before it are of one kind."""


WeightsOf = Callable[[Sequence[tuple[int, ...]], Sequence[int]], list[float]]
"""From the values of the cells' fields and their numbers of samples to weights, which sum to 1."""


class Clustered(Protocol):
    """A sample, as far as resampling is concerned."""

    @property
    def patient(self) -> Hashable: ...


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Some of n samples, as the cells over whose means they are averaged.

    For each cell a mask (n,) and a weight; the weights sum to 1. `lvlms` and `kinds` number the LVLM and the
    kind of evidence of each cell; the former is None where LVLMs are not told apart.
    """

    cells: tuple[BoolArray, ...]
    weights: tuple[float, ...]
    lvlms: tuple[int | None, ...]
    kinds: tuple[int, ...]

    @property
    def members(self) -> BoolArray:
        """The samples of all cells, (n,)."""
        return np.asarray(np.logical_or.reduce(self.cells))

    def parts(self, cells: Mapping[bytes, Cell]) -> list[Part]:
        """The cells, found by their masks, with what is known of them."""
        known = zip(self.cells, self.weights, self.lvlms, self.kinds, strict=True)
        return [Part(cells[mask.tobytes()], weight, lvlm, kind) for mask, weight, lvlm, kind in known]

    @property
    def levels(self) -> Levels:
        """Over which units its intervals speak: over LVLMs, too, if a kind of evidence has several."""
        known = {(kind, lvlm) for kind, lvlm in zip(self.kinds, self.lvlms, strict=True) if lvlm is not None}
        several = len(known) > len({kind for kind, _ in known})
        return "lvlms and patients" if several else "patients"


class Groups:
    """Samples by patient and by cell; the same for every method that is scored on them.

    `patient_of` (n,) holds the number of each sample's patient, of `patients` in all; `fields` the nested
    fields, the outermost first, with the number of each sample's value (n,).
    """

    def __init__(self, patient_of: IndexArray, patients: int, fields: Mapping[str, IndexArray]) -> None:
        self.patient_of, self.patients, self.fields = patient_of, patients, dict(fields)

    @classmethod
    def of(cls, samples: Sequence[Clustered], by: Sequence[str] = CELL) -> Groups:
        """Samples that agree in the fields `by` share a cell; with no field, all of them do."""
        patient_of, patients = numbered(sample.patient for sample in samples)
        fields = {field: numbered(getattr(sample, field) for sample in samples)[0] for field in by}
        return cls(patient_of, patients, fields)

    @property
    def everything(self) -> BoolArray:
        """The mask of all samples, (n,)."""
        return np.ones(len(self.patient_of), dtype=np.bool_)

    def macro(self, members: BoolArray | None = None) -> Group:
        """Those samples (default: all) as a group that is averaged field by field."""
        return self._group(members, tuple(self.fields), _macro_weights)

    def pooled(self, members: BoolArray | None = None) -> Group:
        """Those samples (default: all) as a group in which each weighs the same: large LVLMs weigh more."""
        names = tuple(self.fields)
        return self._group(members, names[: names.index(LVLM) + 1] if LVLM in names else (), _shares)

    def _group(self, members: BoolArray | None, names: tuple[str, ...], weights_of: WeightsOf) -> Group:
        """Those samples as one cell for each combination of values of the fields `names`."""
        members = self.everything if members is None else members
        columns = [self.fields[name] for name in names]
        values = zip(*(column[members].tolist() for column in columns), strict=True) if columns else ()
        held = Counter(values or [()] * int(members.sum()))
        rows = sorted(held)
        kind_fields = names.index(LVLM) if LVLM in names else 0
        kinds, _ = numbered(row[:kind_fields] for row in rows)
        lvlms, _ = numbered(row[: kind_fields + 1] for row in rows)
        return Group(
            cells=tuple(np.logical_and.reduce([members, *map(np.equal, columns, row)]) for row in rows),
            weights=tuple(weights_of(rows, [held[row] for row in rows])),
            lvlms=tuple(lvlms.tolist()) if LVLM in names else (None,) * len(rows),
            kinds=tuple(kinds.tolist()),
        )

    def counts(self, group: Group) -> tuple[int, int]:
        """Samples and patients of a group."""
        members = group.members
        return int(members.sum()), len(np.unique(self.patient_of[members]))

    def means(
        self, values: FloatArray, groups: Sequence[Group], settings: Settings, *, paired: bool = False
    ) -> list[list[Interval]]:
        """For each group the means of values (n, m), with intervals over LVLMs and patients.

        Over patients alone where no kind of evidence has several LVLMs. `paired`: the values are differences
        of two methods, whose p-values go through Holm's correction.
        """
        cells: dict[bytes, Cell] = {}
        for members in (members for group in groups for members in group.cells):
            key = members.tobytes()
            if key not in cells:
                cells[key] = Cell.of(values, self.patient_of, members)
        least_p = 1 / (settings.resamples + 1)
        parts = [group.parts(cells) for group in groups]
        found = [two_level_intervals(own, paired=paired, least_p=least_p) for own in parts]
        alone = [own for own, held in zip(parts, found, strict=True) if held is None]
        over_patients = iter(patient_intervals(alone, self.patients, settings))
        return [
            _by_lvlm(next(over_patients), own)
            if over_both is None
            else over_both
            if paired
            else _within(over_both, values[group.members])
            for over_both, own, group in zip(found, parts, groups, strict=True)
        ]

    def contributions(self, values: FloatArray, group: Group) -> FloatArray:
        """The part of each patient in the means of values (n, m): (patients, m), which sum to the means."""
        added = np.zeros((self.patients, values.shape[1]))
        for members, weight in zip(group.cells, group.weights, strict=True):
            scale = weight / int(members.sum())
            np.add.at(added, self.patient_of[members], values[members] * scale)
        return added


def numbered(values: Iterable[Any]) -> tuple[IndexArray, int]:
    """The place of each value among the sorted distinct ones, and how many of those there are."""
    held = list(values)
    place = {value: number for number, value in enumerate(sorted(set(held)))}
    return np.array([place[value] for value in held], dtype=np.intp), len(place)


def _within(intervals: Sequence[Interval], values: FloatArray) -> list[Interval]:
    """The intervals cut to the values (n, m) of which they are: no mean lies beyond those."""
    ends = zip(intervals, values.min(axis=0).tolist(), values.max(axis=0).tolist(), strict=True)
    return [replace(one, low=max(one.low, least), high=min(one.high, most)) for one, least, most in ends]


def _by_lvlm(intervals: Sequence[Interval], parts: Sequence[Part]) -> list[Interval]:
    """The intervals with the means of the LVLMs within."""
    each = lvlm_means(parts).T.tolist()
    return [replace(one, by_lvlm=tuple(means)) for one, means in zip(intervals, each, strict=True)]


def _macro_weights(rows: Sequence[tuple[int, ...]], counts: Sequence[int]) -> list[float]:
    """Equal for the values of a field that stand under one value of the field before it."""
    prefixes = {row[:depth] for row in rows for depth in range(1, len(row) + 1)}
    beneath = Counter(prefix[:-1] for prefix in prefixes)
    return [float(np.prod([1 / beneath[row[:depth]] for depth in range(len(row))])) for row in rows]


def _shares(rows: Sequence[tuple[int, ...]], counts: Sequence[int]) -> list[float]:
    """By the number of samples."""
    return [count / sum(counts) for count in counts]
