"""Figures of many samples as means with intervals, section by section."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import stats

from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.data.columns import Sample
from medfocus_bench.errors import UnavailableError
from medfocus_bench.evaluation.evaluate import score_null
from medfocus_bench.evaluation.groups import CELL, Groups
from medfocus_bench.evaluation.metrics.registry import metrics
from medfocus_bench.evaluation.nulls import NULL_CONTROLS
from medfocus_bench.evaluation.protocol import Protocol, Settings
from medfocus_bench.evaluation.score import ScoredSamples, score_samples
from medfocus_bench.geometry import BoolArray, FloatArray
from medfocus_bench.paper.document import Column, Entry, Kind, Line, Measured, Section
from medfocus_bench.paper.published import OVERLAP
from medfocus_bench.paper.work import Work
from medfocus_bench.progress import Progress, no_progress

_LABELS: Final = dict(zip(OVERLAP, ("IoU", "F1", "P", "R"), strict=True))

SCORE_COLUMNS: Final = (
    *(Column(key=f"paper_{name}", label=label) for name, label in _LABELS.items()),
    Column(key="evidence_ap", label="Evidence AP (standard)"),
    Column(key="iou", label="IoU (standard)"),
)
"""Per cent: the paper's four scores under its protocol, and beside them two of the standard one."""

_STANDARD: Final = ("evidence_ap", "iou")


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Some of the samples, by number. `lvlms` are those averaged; `whole` says that none is left out."""

    title: str
    members: BoolArray
    lvlms: tuple[str, ...]
    whole: bool = True


class Samples:
    """Samples with the patients that every interval draws, the same for all methods that are measured."""

    def __init__(self, samples: Sequence[Sample], settings: Settings) -> None:
        self.samples, self.settings = tuple(samples), settings
        self._groups = Groups.of(samples, by=(*CELL, "mode"))

    def part(self, title: str, wanted: Callable[[Sample], bool], *, whole: bool = True) -> Part:
        """The samples that are wanted, under a title."""
        members = np.array([wanted(sample) for sample in self.samples], dtype=np.bool_)
        lvlms = sorted({s.lvlm for s, inside in zip(self.samples, members, strict=True) if inside})
        return Part(title, members, tuple(lvlms), whole)

    def counts(self, part: Part) -> tuple[int, int]:
        """Samples and patients of a part."""
        return self._groups.counts(self._groups.pooled(part.members))

    def within(self, part: Part) -> list[Sample]:
        """The samples of a part."""
        return [s for s, inside in zip(self.samples, part.members, strict=True) if inside]

    def line(
        self,
        part: Part,
        name: str,
        entries: dict[str, Entry],
        *,
        kind: Kind = "ours",
        not_run: str | None = None,
    ) -> Line:
        """A line about the samples of a part."""
        count, patients = self.counts(part)
        return Line(name=name, kind=kind, entries=entries, samples=count, patients=patients, not_run=not_run)

    def section(self, part: Part, lines: Iterable[Line], *, averaged: bool = True) -> Section:
        """The section of a part."""
        count, patients = self.counts(part)
        return Section(
            title=part.title,
            whole=part.whole,
            averaged=averaged,
            lvlms=list(part.lvlms),
            lines=list(lines),
            samples=count,
            patients=patients,
        )

    def means(self, values: FloatArray, parts: Sequence[Part]) -> list[list[Measured]]:
        """For each part the means of values (n, m) with intervals, macro over LVLMs, sources and modes."""
        found = self._groups.means(values, [self._groups.macro(p.members) for p in parts], self.settings)
        alone = [self.counts(part)[1] < 2 for part in parts]
        return [
            [
                Measured(value=one.mean) if single else Measured(value=one.mean, low=one.low, high=one.high)
                for one in measured
            ]
            for measured, single in zip(found, alone, strict=True)
        ]

    def shares(self, values: FloatArray, parts: Sequence[Part]) -> list[list[Measured]]:
        """As `means`, of values that are 0 or 100.

        Where all samples agree, resampling them finds no spread: the interval is Wilson's over the patients.
        """
        found = self.means(values, parts)
        for part, measured in zip(parts, found, strict=True):
            patients = self.counts(part)[1]
            for number, one in enumerate(measured):
                if one.value in (0.0, 100.0) and one.low == one.high and patients > 1:
                    measured[number] = _wilson(one.value, patients)
        return found

    def scores(self, work: Work) -> FloatArray:
        """The scores of a work's records in per cent, (n, 6) in the order of `SCORE_COLUMNS`."""
        return self._both(
            lambda settings: score_samples(self.samples, work.attributions(self.samples), settings)
        )

    def null_scores(self, name: str, benchmark: Benchmark) -> FloatArray:
        """As `scores`, of a null control; `benchmark` has these samples. Raises UnavailableError."""
        return self._both(lambda settings: score_null(name, benchmark, settings))

    def _both(self, scored: Callable[[Settings], ScoredSamples]) -> FloatArray:
        paper, standard = (scored(self._under(protocol)) for protocol in ("paper", "standard"))
        names = [metric.name for metric in metrics("paper")]
        return 100 * np.concatenate([paper.columns(names), standard.columns(_STANDARD)], axis=1)

    def _under(self, protocol: Protocol) -> Settings:
        return Settings(protocol, self.settings.seed, self.settings.resamples)


def _wilson(share: float, patients: int) -> Measured:
    """A share of 0 or 100 per cent with its 95 % interval."""
    exact = stats.binomtest(round(share / 100 * patients), patients).proportion_ci(method="wilson")
    return Measured(value=share, low=100 * float(exact.low), high=100 * float(exact.high))


def null_controls(
    samples: Samples,
    benchmark: Benchmark,
    names: Sequence[str] = tuple(NULL_CONTROLS),
    progress: Progress = no_progress,
) -> tuple[dict[str, FloatArray], list[str]]:
    """The scores of the null controls by title, and what is to be said of those that cannot be had."""
    found: dict[str, FloatArray] = {}
    lacking: list[str] = []
    for name in progress(names, "Scoring null controls", len(names)):
        title = NULL_CONTROLS[name].title
        try:
            found[title] = samples.null_scores(name, benchmark)
        except UnavailableError as error:
            reason = str(error).removeprefix(f"{benchmark.folder}: ")
            lacking.append(f"Null control {title}: not available, {reason}")
    return found, lacking
