"""From a submission to its result: the report, the scores of every combination of filters, each sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.data.sample import Sample
from medfocus_bench.evaluation.evaluate import evaluate_samples
from medfocus_bench.evaluation.figures import Score
from medfocus_bench.evaluation.groups import Groups
from medfocus_bench.evaluation.protocol import RESAMPLES, Settings
from medfocus_bench.evaluation.score import ScoredSamples
from medfocus_bench.evaluation.statistics import Interval
from medfocus_bench.geometry import FloatArray
from medfocus_bench.leaderboard.result import (
    DIGITS,
    Headline,
    PerSampleScores,
    Result,
    Stratum,
    View,
    headline_name,
    selections,
)
from medfocus_bench.progress import Progress, no_progress
from medfocus_bench.submission.reader import Submission


def score_result(
    submission: str | Path | Submission,
    benchmark: str | Path | Benchmark,
    *,
    resamples: int = RESAMPLES,
    verified: bool = False,
    progress: Progress = no_progress,
) -> Result:
    """Score a submission, its folder or opened, from the raw attributions; its name is the folder's.

    Raises SubmissionError or BenchmarkError as `evaluate` does.
    """
    settings = Settings("standard", 0, resamples)
    folder = submission.path.parent if isinstance(submission, Submission) else Path(submission)
    evaluation = evaluate_samples(
        submission, benchmark, settings, nulls=False, verified=verified, progress=progress
    )
    samples = evaluation.part.samples
    return Result(
        name=folder.resolve().name,
        report=evaluation.report,
        views=_views(samples, evaluation.scored, settings),
        headline=_headline(samples, evaluation.scored.columns([headline_name()])[:, 0]),
    )


def part_of(sample: Sample) -> Stratum:
    """The cell of a sample: what it can be filtered by."""
    return sample.source, sample.lvlm, sample.mode, sample.evidence


def _views(samples: Sequence[Sample], scored: ScoredSamples, settings: Settings) -> list[View]:
    groups = Groups.of(samples)
    strata = [part_of(sample) for sample in samples]
    chosen = selections(set(strata))
    members = [groups.macro(np.array([stratum in kept for stratum in strata])) for kept in chosen]
    views = []
    means = groups.means(scored.scores, members, settings)
    for (source, lvlm, mode, evidence), group, found in zip(chosen.values(), members, means, strict=True):
        number, patients = groups.counts(group)
        views.append(
            View(
                source=source,
                lvlm=lvlm,
                mode=mode,
                evidence=evidence,
                samples=number,
                patients=patients,
                levels=group.levels,
                scores={
                    name: _rounded(interval, spread=name == headline_name())
                    for name, interval in zip(scored.names, found, strict=True)
                },
            )
        )
    return views


def _rounded(interval: Interval, *, spread: bool) -> Score:
    rounded = replace(
        interval,
        mean=_digits(interval.mean),
        low=_digits(interval.low),
        high=_digits(interval.high),
        by_lvlm=tuple(_digits(own) for own in interval.by_lvlm),
    )
    return Score.of(rounded, spread=spread)


def _digits(value: float) -> float:
    return round(value, DIGITS) + 0.0  # which makes 0.0 of -0.0


def _headline(samples: Sequence[Sample], scores: FloatArray) -> Headline:
    patients = sorted({f"{source}/{patient}" for source, patient in (sample.patient for sample in samples)})
    place = {patient: number for number, patient in enumerate(patients)}
    cells: dict[Stratum, tuple[list[int], list[float]]] = {}
    for sample, score in sorted(
        zip(samples, scores.tolist(), strict=True), key=lambda pair: pair[0].sample_id
    ):
        patient, score_list = cells.setdefault(part_of(sample), ([], []))
        patient.append(place["/".join(sample.patient)])
        score_list.append(_digits(score))
    return Headline(
        patients=patients,
        cells=[
            PerSampleScores(
                source=part[0], lvlm=part[1], mode=part[2], evidence=part[3], patient=patient, score=values
            )
            for part, (patient, values) in sorted(cells.items())
        ],
    )
