"""Scores of one attribution or of many, and their aggregation to slices with intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.data.sample import Sample
from medfocus_bench.errors import InputError
from medfocus_bench.evaluation.evidence import evidence_of
from medfocus_bench.evaluation.figures import Score
from medfocus_bench.evaluation.grid import GridTally
from medfocus_bench.evaluation.groups import Group, Groups
from medfocus_bench.evaluation.metrics.metric import Metric, MetricInput
from medfocus_bench.evaluation.metrics.registry import metrics
from medfocus_bench.evaluation.protocol import Protocol, Settings
from medfocus_bench.evaluation.report import Counts, MeanCost, SliceKind, SliceScores
from medfocus_bench.evaluation.words import Heard, word_scores
from medfocus_bench.geometry import BoxUnion, FloatArray

LoadLVLM = Callable[[str], Any]
"""Loads the adapter of an LVLM by its name in the samples."""


def score(
    attribution: Attribution | None,
    sample: Sample,
    *,
    names: Sequence[str] | None = None,
    protocol: Protocol = "standard",
    seed: int = 0,
    lvlm: Any = None,
) -> dict[str, float]:
    """The scores of one attribution by name; all 0 where it explains nothing.

    With those of its tokens and concepts under the standard protocol, where it has any and their effects are
    known: `token_ndcg`, `concept_ndcg`, `abstention`.

    Args:
        attribution: a map or boxes of this sample; None for a missing one.
        sample: its evidence region is what the attribution is held against.
        names: the scores to compute. Default: those of the protocol, without those that need an LVLM if none
            is given.
        protocol: "standard" or "paper".
        seed: of the random translations behind IoU-c.
        lvlm: the adapter of the sample's LVLM.

    Raises:
        InputError: a name that the protocol does not have, or a score that needs the LVLM.

    Example:
        >>> import medfocus_bench as mb
        >>> sample = mb.load_benchmark("phantom").samples[0]
        >>> perfect = mb.Attribution(sample.sample_id, boxes=sample.boxes)
        >>> mb.score(perfect, sample)["iou"]
        1.0

    """
    known = metrics(protocol, with_lvlm=lvlm is not None)
    chosen = known if names is None else [_named(name, protocol, lvlm is not None) for name in names]
    given = explanation(attribution, sample, protocol=protocol, seed=seed, lvlm=lvlm)
    scores = {metric.name: 0.0 if given is None else float(metric.compute(given)) for metric in chosen}
    return scores | (word_scores(attribution, sample) if names is None and protocol == "standard" else {})


def _named(name: str, protocol: Protocol, with_lvlm: bool) -> Metric:
    known = {metric.name: metric for metric in metrics(protocol)}
    if name not in known:
        raise InputError(f"no score {name!r} under the {protocol} protocol; there are {', '.join(known)}")
    if "lvlm" in known[name].needs and not with_lvlm:
        raise InputError(f"the score {name} needs the LVLM; give lvlm")
    return known[name]


def explanation(
    attribution: Attribution | None,
    sample: Sample,
    *,
    protocol: Protocol = "standard",
    seed: int = 0,
    lvlm: Any = None,
) -> MetricInput | None:
    """The input of every score; None for a missing explanation, which counts as zero in every mean.

    No explanation: a missing attribution, an empty list of boxes and, under `standard`, an empty, constant or
    not everywhere finite map.
    """
    if attribution is None:
        return None
    evidence = evidence_of(sample)
    given = MetricInput(sample, evidence, attribution, protocol, seed, lvlm)
    return None if given.says_nothing else given


@dataclass(frozen=True, slots=True, eq=False)
class ScoredSamples:
    """The scores of one method, (n, m) in the order of the samples and of `names`, with its counts.

    `skipped`: scores that need the LVLM, of which none could be loaded. `heard`: the scores of the words of
    each attribution that has any, by sample.
    """

    names: tuple[str, ...]
    scores: FloatArray
    attributed: int
    explained: int
    cost: MeanCost
    skipped: tuple[str, ...] = ()
    heard: Mapping[str, Heard] = field(default_factory=dict)

    def columns(self, names: Sequence[str]) -> FloatArray:
        """The scores of these names, (n, len(names))."""
        return self.scores[:, [self.names.index(name) for name in names]]


def score_samples(
    samples: Sequence[Sample],
    attributions: Iterable[tuple[Sample, Attribution | None]],
    settings: Settings,
    *,
    load_lvlm: LoadLVLM | None = None,
    tally: GridTally | None = None,
) -> ScoredSamples:
    """Score attributions as they come, in any order, one in memory at a time; one that never comes scores 0.

    Scores that need the LVLM are skipped unless `load_lvlm` is given. `tally` counts the grids of the maps.
    """
    chosen = metrics(settings.protocol, with_lvlm=load_lvlm is not None)
    row_of = {sample.sample_id: row for row, sample in enumerate(samples)}
    scores = np.zeros((len(samples), len(chosen)))
    costs: dict[str, list[float]] = {part: [] for part in MeanCost.model_fields}
    attributed = explained = 0
    heard: dict[str, Heard] = {}
    for sample, attribution in attributions:
        if attribution is None:
            continue
        attributed += 1
        words = Heard.words_of(attribution, sample) if settings.protocol == "standard" else None
        if words is not None:
            heard[sample.sample_id] = words
        for part, cost in asdict(attribution.cost).items():
            if cost is not None:
                costs[part].append(cost)
        if tally is not None:
            tally.add(attribution, evidence_of(sample))
        lvlm = None if load_lvlm is None else load_lvlm(sample.lvlm)
        given = explanation(attribution, sample, protocol=settings.protocol, seed=settings.seed, lvlm=lvlm)
        if given is not None:
            explained += 1
            scores[row_of[sample.sample_id]] = [metric.compute(given) for metric in chosen]
    names = tuple(metric.name for metric in chosen)
    skipped = tuple(metric.name for metric in metrics(settings.protocol) if metric not in chosen)
    means = {part: sum(stated) / len(stated) for part, stated in costs.items() if stated}
    return ScoredSamples(names, scores, attributed, explained, MeanCost(**means), skipped, heard)


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

    def aggregate(self, scored: ScoredSamples, settings: Settings) -> list[SliceScores]:
        """Means and intervals of the scores over every slice."""
        results = self.groups.means(scored.scores, [part.group for part in self.slices], settings)
        slices = []
        for part, result in zip(self.slices, results, strict=True):
            samples, patients = self.groups.counts(part.group)
            slices.append(
                SliceScores(
                    kind=part.kind,
                    value=part.value,
                    samples=samples,
                    patients=patients,
                    levels=part.group.levels,
                    scores={
                        name: Score.of(found, spread=part.kind == "all")
                        for name, found in zip(scored.names, result, strict=True)
                    },
                )
            )
        return slices

    def counts(self, scored: ScoredSamples) -> Counts:
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
        "cell": [f"{s.lvlm} / {s.source}" for s in samples],
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
