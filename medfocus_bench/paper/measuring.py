"""The engine of all tables: measure quantities of runs and null controls, section by section."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from scipy import stats

from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.data.sample import Sample
from medfocus_bench.errors import UnavailableError
from medfocus_bench.evaluation.evaluate import score_null
from medfocus_bench.evaluation.groups import CELL, Groups
from medfocus_bench.evaluation.nulls import NULL_CONTROLS
from medfocus_bench.evaluation.protocol import Settings
from medfocus_bench.evaluation.score import ScoredSamples
from medfocus_bench.evaluation.statistics import Interval
from medfocus_bench.geometry import BoolArray, FloatArray
from medfocus_bench.paper.config import ReproduceConfig, with_samples
from medfocus_bench.paper.document import (
    ComparedValue,
    Estimate,
    ResultColumn,
    ResultRow,
    ResultSection,
    RowKind,
)
from medfocus_bench.paper.published import NAMES, OVERLAP
from medfocus_bench.paper.runs import RunResults

_LABELS: Final = ("IoU", "F1", "P", "R")
_STANDARD: Final = ("evidence_ap", "iou")


@dataclass(frozen=True, slots=True)
class Selection:
    """The samples with these values of fields, under a title.

    One that is not `whole` is about one LVLM, beside the selection of all LVLMs.
    """

    title: str
    values: Mapping[str, str] = field(default_factory=dict)
    whole: bool = True

    def __contains__(self, sample: Sample) -> bool:
        return all(getattr(sample, name) == value for name, value in self.values.items())


def selections(samples: Sequence[Sample], by: Sequence[str], *, each_lvlm: bool = False) -> list[Selection]:
    """A selection for each combination of values of the fields `by`; `each_lvlm` adds its several LVLMs."""
    selected: list[Selection] = []
    for key in sorted({tuple(getattr(sample, name) for name in by) for sample in samples}):
        selected.append(Selection(", ".join(key), dict(zip(by, key, strict=True))))
        lvlms = sorted({sample.lvlm for sample in samples if sample in selected[-1]})
        if each_lvlm and len(lvlms) > 1:
            whole = selected[-1]
            selected += [
                Selection(f"{whole.title}, {lvlm}", {**whole.values, "lvlm": lvlm}, whole=False)
                for lvlm in lvlms
            ]
    return selected


class SampleSet:
    """Samples with the patients that every interval resamples, the same for all runs that are measured."""

    def __init__(
        self, samples: Sequence[Sample], settings: Settings, by: Sequence[str] = (*CELL, "mode")
    ) -> None:
        self.samples, self.settings = tuple(samples), settings
        self._groups = Groups.of(samples, by=by)

    def within(self, selection: Selection) -> list[Sample]:
        return [sample for sample in self.samples if sample in selection]

    def counts(self, selection: Selection) -> tuple[int, int]:
        """The number of samples and of patients."""
        return self._groups.counts(self._groups.pooled(self._mask(selection)))

    def row(
        self,
        selection: Selection,
        name: str,
        entries: dict[str, ComparedValue],
        *,
        kind: RowKind = "ours",
        not_run: str | None = None,
    ) -> ResultRow:
        samples, patients = self.counts(selection)
        return ResultRow(
            name=name, kind=kind, entries=entries, samples=samples, patients=patients, not_run=not_run
        )

    def section(
        self, selection: Selection, rows: Iterable[ResultRow], *, averaged: bool = True
    ) -> ResultSection:
        samples, patients = self.counts(selection)
        return ResultSection(
            title=selection.title,
            whole=selection.whole,
            averaged=averaged,
            lvlms=sorted({sample.lvlm for sample in self.within(selection)}),
            lines=list(rows),
            samples=samples,
            patients=patients,
        )

    def estimates(
        self, values: FloatArray, chosen: Sequence[Selection], *, share: bool = False
    ) -> list[list[Estimate] | None]:
        """For each selection the means of values (n, m) with intervals, macro over LVLMs, sources and modes.

        Samples with NaN are left out; None where no sample remains. Where all samples of a `share` (values
        of 0 or 100) agree, resampling finds no spread: the interval is Wilson's over the patients.
        """
        stated = ~np.isnan(values).any(axis=1)
        masks = [self._mask(selection) & stated for selection in chosen]
        filled = [number for number, mask in enumerate(masks) if mask.any()]
        groups = [self._groups.macro(masks[number]) for number in filled]
        means = self._groups.means(values, groups, self.settings)
        estimates: list[list[Estimate] | None] = [None] * len(masks)
        for number, group, intervals in zip(filled, groups, means, strict=True):
            _, patients = self._groups.counts(group)
            estimates[number] = [_estimate(one, patients, share=share) for one in intervals]
        return estimates

    def _mask(self, selection: Selection) -> BoolArray:
        return np.array([sample in selection for sample in self.samples], dtype=np.bool_)


def _estimate(interval: Interval, patients: int, *, share: bool) -> Estimate:
    mean, low, high = interval.mean, interval.low, interval.high
    if patients < 2:
        return Estimate(value=mean)
    if share and mean in (0.0, 100.0) and low == high:
        test = stats.binomtest(round(mean / 100 * patients), patients)
        low, high = (100 * float(end) for end in test.proportion_ci(method="wilson"))
    return Estimate(value=mean, low=low, high=high)


@dataclass(frozen=True, slots=True)
class NullControlScores:
    """A null control on a benchmark, by name."""

    name: str
    benchmark: Benchmark

    def scores(self, samples: Sequence[Sample], settings: Settings) -> ScoredSamples:
        """As those of a run. Raises UnavailableError."""
        return score_null(self.name, with_samples(self.benchmark, samples), settings)


@dataclass(frozen=True, slots=True)
class Quantity:
    """Columns of a table with the function that computes their values.

    `compute` takes a RunResults, or with `of_controls` a null control, too, and returns (n, m) values, NaN
    for a sample without one. A `share` has values of 0 or 100.
    """

    columns: tuple[ResultColumn, ...]
    compute: Callable[[Any, SampleSet], FloatArray]
    of_controls: bool = False
    share: bool = False


def _both_protocols(scored: Any, samples: SampleSet) -> FloatArray:
    paper, standard = (
        scored.scores(samples.samples, replace(samples.settings, protocol=protocol))
        for protocol in ("paper", "standard")
    )
    return 100 * np.concatenate([paper.columns(OVERLAP), standard.columns(_STANDARD)], axis=1)


def _costs(results: RunResults, samples: SampleSet) -> FloatArray:
    costs = np.full((len(samples.samples), len(COSTS.columns)), np.nan)
    for number, sample in enumerate(samples.samples):
        record = results.record(sample)
        if record is not None and record.entry.cost is not None:
            costs[number] = [getattr(record.entry.cost, column.key) or 0.0 for column in COSTS.columns]
    return costs


SCORES: Final = Quantity(
    (
        *(
            ResultColumn(key=f"paper_{name}", label=label)
            for name, label in zip(OVERLAP, _LABELS, strict=True)
        ),
        ResultColumn(key="evidence_ap", label="Evidence AP (standard)"),
        ResultColumn(key="iou", label="IoU (standard)"),
    ),
    _both_protocols,
    of_controls=True,
)
"""Per cent: the paper's four scores under its protocol, and beside them two of the standard one."""

FAILURES: Final = Quantity(
    (ResultColumn(key="failures", label="Failures"),),
    lambda results, samples: 100 * results.failures(samples.samples)[:, None],
    share=True,
)
"""Per cent of the samples on which nothing that MedFocus fills drives the response."""

COSTS: Final = Quantity(
    (
        ResultColumn(key="seconds", label="Seconds a sample"),
        ResultColumn(key="forward_passes", label="Forward passes", digits=1),
        ResultColumn(key="backward_passes", label="Backward passes", digits=1),
    ),
    _costs,
)
"""Cost of a sample, as the records state it."""

PublishedValues = Callable[[str, Selection], Mapping[str, float]]
"""The paper's values for the label of a run and a selection, by the key of their column."""


def nothing_published(label: str, selection: Selection) -> Mapping[str, float]:
    return {}


def rows_of_run(
    results: RunResults,
    samples: SampleSet,
    chosen: Sequence[Selection],
    quantities: Sequence[Quantity],
    published: PublishedValues = nothing_published,
) -> list[ResultRow]:
    """One row of a run for each selection; a row without results says why."""
    spec = results.spec
    name = spec.method.metadata.title if spec.label in NAMES else spec.label
    ran = results.reason(samples.samples) is None
    measured = measure(results, samples, chosen, quantities) if ran else [{}] * len(chosen)
    keys = [column.key for quantity in quantities for column in quantity.columns]
    rows = []
    for selection, ours in zip(chosen, measured, strict=True):
        inside = samples.within(selection)
        reason = results.reason(inside) if inside else None
        stated = published(spec.label, selection)
        entries = {
            key: ComparedValue(published=stated.get(key), ours=None if reason else ours.get(key))
            for key in keys
        }
        rows.append(samples.row(selection, name, entries, not_run=reason))
    return rows


def rows_of_controls(
    config: ReproduceConfig,
    samples: SampleSet,
    chosen: Sequence[Selection],
    quantities: Sequence[Quantity],
) -> tuple[list[list[ResultRow]], list[str]]:
    """The rows of each null control, one a selection, and a note on each that is not available."""
    scored = [quantity for quantity in quantities if quantity.of_controls]
    names = list(NULL_CONTROLS) if scored and samples.samples else []
    rows: list[list[ResultRow]] = []
    notes: list[str] = []
    for name in config.progress(names, "Scoring null controls", len(names)):
        title, control = NULL_CONTROLS[name].title, NullControlScores(name, config.benchmark)
        try:
            measured = measure(control, samples, chosen, scored)
        except UnavailableError as error:
            notes.append(f"Null control {title}: not available, {error}")
            continue
        entries = [{key: ComparedValue(ours=one) for key, one in ours.items()} for ours in measured]
        rows.append(
            [
                samples.row(selection, title, own, kind="control")
                for selection, own in zip(chosen, entries, strict=True)
            ]
        )
    return rows, notes


def measure(
    scored: Any, samples: SampleSet, chosen: Sequence[Selection], quantities: Iterable[Quantity]
) -> list[dict[str, Estimate]]:
    """For each selection the estimates of all quantities, by column."""
    measured: list[dict[str, Estimate]] = [{} for _ in chosen]
    for quantity in quantities:
        keys = [column.key for column in quantity.columns]
        by_selection = samples.estimates(quantity.compute(scored, samples), chosen, share=quantity.share)
        for ours, estimates in zip(measured, by_selection, strict=True):
            ours.update(zip(keys, estimates or (), strict=False))
    return measured
