"""Paired differences between submissions on the same samples."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.data.columns import is_line
from medfocus_bench.data.resolve import BenchmarkLike, load_benchmark, one_or_more
from medfocus_bench.errors import InputError, UnavailableError
from medfocus_bench.evaluation.evaluate import covered_part, score_null, score_submission
from medfocus_bench.evaluation.figures import Score
from medfocus_bench.evaluation.groups import Groups
from medfocus_bench.evaluation.metrics.registry import headline
from medfocus_bench.evaluation.metrics.registry import metrics as metrics_of
from medfocus_bench.evaluation.nulls import NULL_PREFIX, null_control
from medfocus_bench.evaluation.protocol import EVALUATOR_VERSION, RESAMPLES, Protocol, Settings
from medfocus_bench.evaluation.report import Comparison, Difference
from medfocus_bench.evaluation.statistics import Interval, holm, sign_flip_p_value
from medfocus_bench.geometry import FloatArray
from medfocus_bench.progress import Progress, no_progress
from medfocus_bench.submission.reader import Submission, open_submission
from medfocus_bench.submission.schema import BenchmarkRef


def compare(
    submissions: Sequence[str | Path],
    benchmark: BenchmarkLike,
    *,
    metrics: Sequence[str] | None = None,
    protocol: Protocol = "standard",
    seed: int = 0,
    resamples: int = RESAMPLES,
    any_version: bool = False,
    lvlms: str | Sequence[str] = (),
    progress: Progress = no_progress,
) -> Comparison:
    """Compare every pair of at least two submissions: difference of macro means, interval and p-values.

    An entry `null:NAME` is a null control. The submissions need to cover the same configs and splits. The
    interval and the p-value are over LVLMs and patients where a kind of evidence has several LVLMs. Elsewhere
    they are over patients: a bootstrap, and exchanging the two methods patient by patient. Holm's correction
    runs over all pairs and `metrics` (default: the headline) of the call. A metric is given by its name or
    its label ("iou", "IoU-c"), in any case. `lvlms` limits the comparison to the samples of these LVLMs.

    >>> import medfocus_bench as mb
    >>> benchmark = mb.load_benchmark("phantom", split="dev")
    >>> comparison = mb.compare(["null:both-lungs", "null:whole-image"], benchmark, resamples=100)
    >>> comparison.differences[0].metric
    'evidence_ap'
    """
    settings = Settings(protocol, seed, resamples)
    chosen = _chosen(metrics or [headline(protocol).name], protocol)
    if len(submissions) < 2:
        raise InputError("give at least two submissions to compare")
    whole = load_benchmark(benchmark)
    opened = [_open(entry, whole, any_version) for entry in submissions]
    part, limited = _common_part(opened, whole), list(dict.fromkeys(one_or_more(lvlms)))
    if limited:
        part = part.of_lvlms(limited)
    scores: list[FloatArray] = []
    for entry in opened:
        if isinstance(entry, Submission):
            scored = score_submission(entry, part, settings, progress)
        else:
            try:
                scored = score_null(entry, part, settings, progress)
            except UnavailableError as error:
                raise UnavailableError(f"{part.folder}: {error}") from None
        scores.append(scored.columns(chosen))
    return Comparison(
        evaluator_version=EVALUATOR_VERSION,
        benchmark=BenchmarkRef.model_validate(part.reference()),
        protocol=protocol,
        seed=seed,
        resamples=resamples,
        lvlms=sorted(limited) or None,
        differences=_differences(
            _labels(submissions, opened), chosen, scores, Groups.of(part.samples), settings
        ),
    )


def _chosen(metrics: Sequence[str], protocol: Protocol) -> list[str]:
    """The names of the metrics, each once."""
    known = metrics_of(protocol, with_lvlm=False)
    name_of = {key.lower(): metric.name for metric in known for key in (metric.label, metric.name)}
    for metric in metrics:
        if metric.lower() not in name_of:
            names = ", ".join(metric.name for metric in known)
            raise InputError(f"no score {metric!r} under the {protocol} protocol; there are {names}")
    return list(dict.fromkeys(name_of[metric.lower()] for metric in metrics))


def _open(entry: str | Path, benchmark: Benchmark, any_version: bool) -> Submission | str:
    text = str(entry)
    if text.startswith(NULL_PREFIX):
        return null_control(text.removeprefix(NULL_PREFIX)).name
    return open_submission(entry, benchmark, any_version=any_version)


def _common_part(opened: Sequence[Submission | str], benchmark: Benchmark) -> Benchmark:
    real = [entry for entry in opened if isinstance(entry, Submission)]
    if not real:
        return benchmark
    part = covered_part(real[0], benchmark)
    for other in real[1:]:
        if covered_part(other, benchmark).samples != part.samples:
            raise InputError(
                f"{other.path}: covers other configs or splits than {real[0].path}; "
                "compare submissions to the same part of the benchmark"
            )
    return part


def _labels(given: Sequence[str | Path], opened: Sequence[Submission | str]) -> list[str]:
    """The methods' names; with the folder's where they share one, with the path where they share that too."""
    names = [e.document.method.name if isinstance(e, Submission) else NULL_PREFIX + e for e in opened]
    folders = [entry.path.parent.name if isinstance(entry, Submission) else "" for entry in opened]
    labels: list[str] = []
    for number, (name, folder, path) in enumerate(zip(names, folders, given, strict=True), start=1):
        if names.count(name) == 1 or not folder:
            labels.append(name)
            continue
        shared = list(zip(names, folders, strict=True)).count((name, folder)) > 1
        label = f"{name} ({path if shared else folder})"
        labels.append(label if is_line(label) else f"{name} ({number})")
    return labels


def _differences(
    labels: Sequence[str],
    metrics: Sequence[str],
    scores: Sequence[FloatArray],
    groups: Groups,
    settings: Settings,
) -> list[Difference]:
    pairs = list(combinations(range(len(scores)), 2))
    paired = np.concatenate([scores[a] - scores[b] for a, b in pairs], axis=1)
    everything = groups.macro()
    (found,) = groups.means(paired, [everything], settings, paired=True)
    p_values = [
        sign_flip_p_value(column, settings) if interval.p_value is None else interval.p_value
        for interval, column in zip(found, groups.contributions(paired, everything).T, strict=True)
    ]
    keys = [(labels[a], labels[b], metric) for a, b in pairs for metric in metrics]
    return [
        Difference(
            first=first,
            second=second,
            metric=metric,
            difference=Score.of(interval, spread=True),
            levels=interval.levels,
            kept_in=_kept_in(interval),
            p_value=p_value,
            p_holm=p_holm,
        )
        for (first, second, metric), interval, p_value, p_holm in zip(
            keys, found, p_values, holm(p_values).tolist(), strict=True
        )
    ]


def _kept_in(interval: Interval) -> str | None:
    """In how many LVLMs the difference has the sign of the mean, of how many."""
    if len(interval.by_lvlm) < 2:
        return None
    kept = sum(np.sign(own) == np.sign(interval.mean) for own in interval.by_lvlm)
    return f"{kept} of {len(interval.by_lvlm)}"
