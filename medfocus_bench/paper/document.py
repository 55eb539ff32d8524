"""The result of a reproduction as it is written: in every cell the published value, ours, or both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from pydantic import Field

from medfocus_bench.runs.settings import BenchmarkIdentity
from medfocus_bench.submission.schema import Finite, Strict
from medfocus_bench.tables import Row, Table, counted

RowKind = Literal["ours", "control"]

NOT_PUBLISHED = "\N{EN DASH}"


class Estimate(Strict):
    """A value with its 95 % interval; counts and values of one patient have no interval."""

    value: Finite
    low: Finite | None = None
    high: Finite | None = None

    @property
    def ends(self) -> tuple[float, float]:
        """The ends of the interval; the value twice where it is missing."""
        return self.value if self.low is None else self.low, self.value if self.high is None else self.high


class ComparedValue(Strict):
    """One cell: the paper's value and ours; either may be missing."""

    published: Finite | None = None
    ours: Estimate | None = None

    @property
    def difference(self) -> float | None:
        """Ours less the published value."""
        if self.published is None or self.ours is None:
            return None
        return self.ours.value - self.published

    @property
    def differs(self) -> bool:
        """Whether the published value lies outside our interval, or is another count."""
        if self.published is None or self.ours is None:
            return False
        low, high = self.ours.ends
        return not low <= self.published <= high


class ResultColumn(Strict):
    """A quantity: its key in `ResultRow.entries`, its heading, and the number of digits shown."""

    key: str
    label: str
    digits: int = 2


class ResultRow(Strict):
    """A method, a variant or a group; `control` marks null controls. `not_run`: the reason for no values."""

    name: str
    kind: RowKind = "ours"
    entries: dict[str, ComparedValue] = Field(default_factory=dict)
    samples: int | None = None
    patients: int | None = None
    not_run: str | None = None


class ResultSection(Strict):
    """Rows about the same samples.

    With several `lvlms` and `averaged`, values are means over the LVLMs. A section that is not `whole` is
    about one LVLM, beside the section of the mean.
    """

    title: str
    whole: bool = True
    averaged: bool = True
    lvlms: list[str]
    lines: list[ResultRow]
    samples: int
    patients: int


class Reproduction(Strict):
    """The content of `<target>.json`. `figures` are files beside it."""

    format: Literal["medfocus-bench reproduction 1"] = "medfocus-bench reproduction 1"
    target: str
    title: str
    published: str
    benchmark: BenchmarkIdentity
    splits: list[str]
    lvlms: list[str]
    limit: int | None
    seed: int
    resamples: int
    evaluator_version: str
    columns: list[ResultColumn]
    sections: list[ResultSection]
    notes: list[str]
    figures: list[str] = Field(default_factory=list)


def summary(document: Reproduction) -> list[str]:
    """The table, the benchmark and the settings, in a few lines."""
    limit = "" if document.limit is None else f", the first {document.limit} of each LVLM and split only"
    return [
        f"{document.target}: {document.title}",
        f"{document.benchmark}, {', '.join(document.splits)}{limit}; {', '.join(document.lvlms)}",
        f"Published values: {document.published}",
        f"evaluator {document.evaluator_version}, seed {document.seed}, {document.resamples:,} resamples",
    ]


def reproduction_tables(document: Reproduction, *, brief: bool = False) -> list[Table]:
    """A table for each section; `brief` leaves out single LVLMs where their mean is stated."""
    shown = [section for section in document.sections if section.whole or not brief]
    tables = [_table(section, document.columns) for section in shown]
    marked = any(
        entry.differs for section in shown for line in section.lines for entry in line.entries.values()
    )
    notes = [*document.notes]
    if marked:
        notes.insert(0, "*: the published value lies outside of our interval, or is another count.")
    if len(shown) < len(document.sections):
        notes.append(f"Each LVLM on its own: {document.target}.md.")
    if tables and notes:
        last = tables[-1]
        tables[-1] = Table(last.title, last.header, last.rows, (*last.notes, *notes))
    return tables


def _table(section: ResultSection, columns: Iterable[ResultColumn]) -> Table:
    used = [c for c in columns if any(c.key in line.entries for line in section.lines)]
    compared = {c.key for c in used if any(_entry(row, c).published is not None for row in section.lines)}
    header = [""]
    for column in used:
        both = [f"{column.label}, published", f"{column.label}, ours"]
        header += both if column.key in compared else [column.label]
    rows = []
    for line in section.lines:
        cells = [f"null: {line.name}" if line.kind == "control" else line.name]
        for column in used:
            cells += list(_cells(_entry(line, column), column, column.key in compared))
        if line.not_run is not None:
            cells[0] = f"{cells[0]}: not run"
        rows.append(Row(tuple(cells), quiet=line.kind == "control"))
    reasons = [f"{line.name}: not run, {line.not_run}" for line in section.lines if line.not_run]
    sizes = f"{counted(section.samples, 'sample')} of {counted(section.patients, 'patient')}; {_of(section)}."
    return Table(section.title, tuple(header), tuple(rows), (sizes, *reasons))


def _of(section: ResultSection) -> str:
    names = ", ".join(section.lvlms)
    several = section.averaged and len(section.lvlms) > 1
    return f"the means of {len(section.lvlms)} LVLMs, averaged ({names})" if several else names


def _entry(line: ResultRow, column: ResultColumn) -> ComparedValue:
    return line.entries.get(column.key, ComparedValue())


def _cells(entry: ComparedValue, column: ResultColumn, with_published: bool) -> Iterator[str]:
    if with_published:
        yield NOT_PUBLISHED if entry.published is None else f"{entry.published:.{column.digits}f}"
    if entry.ours is None:
        yield ""
        return
    low, value, high = (
        _number(n, column.digits) for n in (entry.ours.ends[0], entry.ours.value, entry.ours.ends[1])
    )
    yield value + "*" * entry.differs + (f" [{low}, {high}]" if entry.ours.low is not None else "")


def _number(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if not text.strip("-0.") else text
