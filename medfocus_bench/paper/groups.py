"""Targets that count what the causal filter made of the questions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from medfocus_bench.data.benchmark import Benchmark, read_rows
from medfocus_bench.data.columns import GROUPS, Sample, sample_of
from medfocus_bench.data.questions import MODES
from medfocus_bench.errors import BenchmarkError
from medfocus_bench.geometry import FloatArray
from medfocus_bench.paper.comparing import document, failure_column
from medfocus_bench.paper.document import Column, Entry, Line, Measured, Reproduction, Section
from medfocus_bench.paper.measuring import SCORE_COLUMNS, Samples, null_controls
from medfocus_bench.paper.published import KEPT
from medfocus_bench.paper.request import MEDFOCUS, Request, with_samples
from medfocus_bench.paper.work import Work

GROUNDED: Final = "grounded"


@dataclass(frozen=True, slots=True)
class Grouped:
    """All rows of a benchmark, those that the causal filter did not keep included, by group."""

    benchmark: Benchmark
    samples: Mapping[str, tuple[Sample, ...]]

    def of(self, group: str) -> Benchmark:
        """The benchmark with the rows of one group for samples."""
        return with_samples(self.benchmark, self.samples[group])


def grouped(benchmark: Benchmark, splits: Sequence[str] = MODES) -> Grouped:
    """Reads every row of these splits again with its group. Raises BenchmarkError for a row that is none."""
    found: dict[str, list[Sample]] = {group: [] for group in GROUPS}
    for place, split, row in read_rows(benchmark.folder):
        if split in splits:
            try:
                found[row.get("group") or GROUNDED].append(sample_of(row, split))
            except (ValueError, TypeError, KeyError) as error:
                raise BenchmarkError(f"{place}: {error}") from None
    return Grouped(benchmark, {group: tuple(samples) for group, samples in found.items()})


def kept_works(request: Request) -> list[Work]:
    """Counting needs no run."""
    return []


def kept_table(request: Request, works: Sequence[Work], impossible: Mapping[str, str]) -> Reproduction:
    """Samples of the benchmark by mode and source, LVLM by LVLM; the whole benchmark, whatever the limit."""
    samples = [s for s in request.benchmark.samples if s.split in MODES and s.lvlm in request.sources]
    counted = Counter((s.mode, s.source, s.lvlm) for s in samples)
    lvlms = list(request.sources)
    sections = []
    for mode in [mode for mode in MODES if any(s.mode == mode for s in samples)]:
        own = [s for s in samples if s.mode == mode]
        lines = []
        for source in sorted({s.source for s in own}):
            entries = {
                lvlm: Entry(
                    published=_published(mode, source, lvlm), ours=Measured(value=counted[mode, source, lvlm])
                )
                for lvlm in lvlms
            }
            here = [s for s in own if s.source == source]
            lines.append(Line(name=source, entries=entries, samples=len(here), patients=_patients(here)))
        sections.append(
            Section(
                title=f"Kept samples, {mode}",
                averaged=False,
                lvlms=lvlms,
                lines=lines,
                samples=len(own),
                patients=_patients(own),
            )
        )
    columns = [Column(key=lvlm, label=lvlm, digits=0) for lvlm in lvlms]
    notes = ["Counts, so that they have no interval; no null control applies."]
    made = document(request, works, columns, sections, notes)
    return made.model_copy(
        update={"splits": [s for s in MODES if s in request.benchmark.splits], "limit": None}
    )


def _published(mode: str, source: str, lvlm: str) -> float | None:
    count = KEPT.get((mode, source, lvlm))
    return None if count is None else float(count)


def _patients(samples: Iterable[Sample]) -> int:
    return len({sample.patient for sample in samples})


def group_works(request: Request) -> list[Work]:
    """MedFocus on the rows of each group; those that were kept share their records with other targets."""
    found = request.splits(MODES)
    all_rows = grouped(request.benchmark, found)
    method = request.chosen(MEDFOCUS)
    works = []
    for group in GROUPS:
        run = request.runs if group == GROUNDED else request.runs / "groups" / group
        works.append(Work(group, method, all_rows.of(group), found, run))
    return works


def group_table(request: Request, works: Sequence[Work], impossible: Mapping[str, str]) -> Reproduction:
    """The share of each group among the rows, and on each how often MedFocus fails and how it scores."""
    everything = [s for work in works for s in work.benchmark.samples if s.lvlm in request.sources]
    rows = Samples(everything, request.settings)
    groups = [_OfGroup.of(work, request) for work in works]
    of_row = {s.sample_id: work.name for work in works for s in work.benchmark.samples}
    shares = 100.0 * np.array([[of_row[s.sample_id] == group for group in GROUPS] for s in everything])
    keys = sorted({(s.source, s.mode, s.lvlm) for s in everything})
    parts = [rows.part(", ".join(key), _of(key)) for key in keys]
    lines = [group.lines(keys) for group in groups]
    sections = []
    for number, (part, own) in enumerate(zip(parts, rows.shares(shares, parts), strict=True)):
        found = [one for of_group, share in zip(lines, own, strict=True) for one in of_group(number, share)]
        sections.append(rows.section(part, found))
    columns = [
        Column(key="share", label="Share of rows", digits=1),
        Column(key="failures", label="Failures", digits=1),
        *SCORE_COLUMNS,
    ]
    notes = [_GROUPS_NOTE, *(note for group in groups for note in group.lacking)]
    if len({of_row[s.sample_id] for s in everything}) == 1:
        notes.append(
            "The benchmark holds grounded rows only: `data build` makes one with all groups from `verify`."
        )
    return document(request, works, columns, sections, notes)


_GROUPS_NOTE: Final = (
    "Per cent, with 95 % intervals by patient. The shares are of all rows, whatever the limit. A failure: "
    "nothing that MedFocus fills takes a quarter of the response's probability. Of rows that are not "
    "grounded nobody showed that the region drives the answer. Null controls: on the grounded rows."
)

_Key = tuple[str, str, str]
"""Source, mode and LVLM."""


@dataclass(frozen=True, slots=True, eq=False)
class _OfGroup:
    """What MedFocus did on the taken rows of one group: (n, 7), failures first, and the null controls."""

    work: Work
    samples: Samples
    values: FloatArray
    controls: Mapping[str, FloatArray]
    lacking: Sequence[str]

    @classmethod
    def of(cls, work: Work, request: Request) -> _OfGroup:
        samples = Samples(request.taken(work.splits, work.benchmark), request.settings)
        values = np.concatenate([failure_column(samples, work), samples.scores(work)], axis=1)
        controls: Mapping[str, FloatArray] = {}
        lacking: Sequence[str] = ()
        if work.name == GROUNDED and samples.samples:
            controls, lacking = null_controls(samples, with_samples(request.benchmark, samples.samples))
        return cls(work, samples, values, controls, lacking)

    def lines(self, keys: Sequence[_Key]) -> Callable[[int, Measured], Iterator[Line]]:
        """What yields the lines of the group, given the number of a key and the share of the group there.

        They are the group's own, and for grounded rows those of the null controls.
        """
        samples, name = self.samples, self.work.name
        parts = [samples.part(name, _of(key)) for key in keys]
        held = [number for number, part in enumerate(parts) if part.members.any()]
        here = [parts[number] for number in held]
        rates = dict(zip(held, samples.shares(self.values[:, :1], here), strict=True))
        scores = dict(zip(held, samples.means(self.values[:, 1:], here), strict=True))
        controls = {
            title: dict(zip(held, samples.means(values, here), strict=True))
            for title, values in self.controls.items()
        }

        def of(number: int, share: Measured) -> Iterator[Line]:
            entries = {"share": Entry(ours=share)}
            part = parts[number]
            if number not in rates:
                yield samples.line(part, name, entries)
                return
            reason = self.work.reason(samples.within(part))
            if reason is None:
                entries |= {"failures": Entry(ours=rates[number][0])} | _scores(scores[number])
            yield samples.line(part, name, entries, not_run=reason)
            for title, found in controls.items():
                yield samples.line(part, title, _scores(found[number]), kind="control")

        return of


def _scores(found: Sequence[Measured]) -> dict[str, Entry]:
    return {column.key: Entry(ours=one) for column, one in zip(SCORE_COLUMNS, found, strict=True)}


def _of(key: _Key) -> Callable[[Sample], bool]:
    return lambda sample: (sample.source, sample.mode, sample.lvlm) == key
