"""Scores of many attributions, and their aggregation to slices with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.data.columns import Sample
from medfocus_bench.evaluation.groups import CELL, Group, Groups
from medfocus_bench.evaluation.metrics import METRICS
from medfocus_bench.evaluation.protocol import Protocol, Settings
from medfocus_bench.evaluation.report import Counts, MeanCost, Score, SliceKind, SliceScores
from medfocus_bench.evaluation.scores import Evidence, score_attribution
from medfocus_bench.evaluation.statistics import Interval
from medfocus_bench.geometry import BoxUnion, FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class SampleScores:
    """The scores of one method, (n, m) in the order of the samples and of `METRICS`, with its counts."""

    scores: FloatArray
    attributed: int
    explained: int
    cost: MeanCost


def score_samples(
    samples: Sequence[Sample],
    attributions: Iterable[tuple[Sample, Attribution | None]],
    settings: Settings,
) -> SampleScores:
    """Scores attributions as they come, in any order, one in memory at a time; what never comes scores 0."""
    row_of = {sample.sample_id: row for row, sample in enumerate(samples)}
    scores = np.zeros((len(samples), len(METRICS[settings.protocol])))
    costs = _CostSum()
    attributed = explained = 0
    for sample, attribution in attributions:
        evidence = Evidence.of(sample.sample_id, sample.width, sample.height, sample.boxes)
        result = score_attribution(evidence, attribution, protocol=settings.protocol, seed=settings.seed)
        if attribution is not None:
            attributed += 1
            costs.add(attribution)
        if result is not None:
            explained += 1
            scores[row_of[sample.sample_id]] = result
    return SampleScores(scores, attributed, explained, costs.mean())


class _CostSum:
    _PARTS = ("forward_passes", "backward_passes", "seconds")

    def __init__(self) -> None:
        self._sums = dict.fromkeys(self._PARTS, 0.0)
        self._counts = dict.fromkeys(self._PARTS, 0)

    def add(self, attribution: Attribution) -> None:
        for part in self._PARTS:
            value = getattr(attribution.cost, part)
            if value is not None:
                self._sums[part] += value
                self._counts[part] += 1

    def mean(self) -> MeanCost:
        means = {part: self._sums[part] / n for part, n in self._counts.items() if n}
        return MeanCost(**means)


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """A named part of the samples."""

    kind: SliceKind
    value: str
    group: Group


class Aggregator:
    """The slices of a list of samples; the same for every method that is scored on them."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.groups = Groups.of(samples)
        self.slices = list(_slices(samples, self.groups))

    def aggregate(self, scores: FloatArray, settings: Settings) -> list[SliceScores]:
        """Means and intervals of scores (n, m) over every slice."""
        results = self.groups.means(scores, [part.group for part in self.slices], settings)
        return [
            self._slice_scores(part, result, settings.protocol)
            for part, result in zip(self.slices, results, strict=True)
        ]

    def _slice_scores(self, part: Slice, result: Sequence[Interval], protocol: Protocol) -> SliceScores:
        samples, patients = self.groups.counts(part.group)
        return SliceScores(
            kind=part.kind,
            value=part.value,
            samples=samples,
            patients=patients,
            scores={
                metric.name: Score(mean=interval.mean, low=interval.low, high=interval.high)
                for metric, interval in zip(METRICS[protocol], result, strict=True)
            },
        )

    def counts(self, scored: SampleScores) -> Counts:
        samples = len(scored.scores)
        return Counts(
            samples=samples,
            attributed=scored.attributed,
            missing=samples - scored.attributed,
            no_explanation=scored.attributed - scored.explained,
            patients=self.groups.patients,
        )


def _slices(samples: Sequence[Sample], groups: Groups) -> Iterable[Slice]:
    yield Slice("all", "all", groups.macro())
    yield Slice("pooled", "all", groups.pooled())
    labels: dict[SliceKind, Sequence[str]] = {
        "source": [s.source for s in samples],
        "lvlm": [s.lvlm for s in samples],
        "mode": [s.mode for s in samples],
        "evidence": [s.evidence for s in samples],
        "size": _size_terciles(samples),
        "finding": [s.finding for s in samples],
        "cell": [" / ".join(getattr(s, field) for field in CELL) for s in samples],
    }
    for kind, values in labels.items():
        array = np.array(values)
        for value in sorted(set(values)):
            yield Slice(kind, value, groups.macro(array == value))


def _size_terciles(samples: Sequence[Sample]) -> list[str]:
    """Each sample's third by the evidence region's share of the image; thirds of the regions, not samples."""
    shares = {s.region: BoxUnion.of(s.boxes).area / (s.width * s.height) for s in samples}
    first, second = np.quantile(list(shares.values()), [1 / 3, 2 / 3])
    return [
        "1 small" if shares[s.region] <= first else "2 medium" if shares[s.region] <= second else "3 large"
        for s in samples
    ]
