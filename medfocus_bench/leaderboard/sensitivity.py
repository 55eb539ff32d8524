"""Does the ranking hang on the constants of evidence AP? Other ones, and the ranking that they give.

The constants: the standard deviation of the low-pass, the rim around the cause in which no pixel counts, and
how chance is taken off the average precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Final, Literal

import numpy as np

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.data.sample import Sample
from medfocus_bench.errors import InputError
from medfocus_bench.evaluation.evaluate import covered_part
from medfocus_bench.evaluation.evidence import RIM, evidence_of
from medfocus_bench.evaluation.groups import Groups
from medfocus_bench.evaluation.lowpass import SIGMA, lowpassed
from medfocus_bench.evaluation.protocol import MIN_RESAMPLES, Settings
from medfocus_bench.evaluation.rank_agreement import kendall
from medfocus_bench.evaluation.ranking import RankingScores, ranking_scores
from medfocus_bench.evaluation.score import explanation
from medfocus_bench.geometry import FloatArray
from medfocus_bench.progress import Progress, no_progress
from medfocus_bench.submission.reader import Submission, open_submission
from medfocus_bench.submission.schema import BenchmarkRef, Strict
from medfocus_bench.tables import Row, Table, counted

Chance = Literal["none", "share", "exact"]

SIGMAS: Final = (SIGMA / 2, SIGMA, 1.5 * SIGMA)
RIMS: Final = (RIM / 2, RIM, 1.5 * RIM)
CHANCES: Final[tuple[Chance, ...]] = ("none", "share", "exact")
"""AP as it is; (AP - a) / (1 - a), a being the share of positive pixels; and the exact expectation."""

VARIANTS: Final[tuple[tuple[float, float, Chance], ...]] = tuple(product(SIGMAS, RIMS, CHANCES))
_STANDARD: Final = VARIANTS.index((SIGMA, RIM, "exact"))


class Variant(Strict):
    """One choice of the constants, in pixels of 224, with the mean score of each method.

    `tau`: Kendall's tau-b of its ranking with the standard one. `swapped`: pairs in the other order.
    """

    sigma: float
    rim: float
    chance: Chance
    tau: float | None
    swapped: list[tuple[str, str]]
    scores: dict[str, float]


class Sensitivity(Strict):
    """All variants over the same samples of every method."""

    benchmark: BenchmarkRef
    samples: int
    methods: list[str]
    variants: list[Variant]


def variant_scores(attribution: Attribution | None, sample: Sample) -> FloatArray:
    """The score of one attribution under each of `VARIANTS`, (27,); zeros where it explains nothing."""
    found = np.zeros(len(VARIANTS))
    given = explanation(attribution, sample)
    if given is None:
        return found
    ranked: dict[tuple[float, float], tuple[RankingScores, float]] = {}
    for sigma in SIGMAS:
        values = lowpassed(given.attribution, given.evidence.frame, sigma)
        for rim in RIMS:
            evidence = evidence_of(sample, rim)
            share = float(evidence.pixels.sum() / evidence.counted.sum())
            ranked[sigma, rim] = ranking_scores(values, evidence.pixels, evidence.counted), share
    return np.array([_score(*ranked[sigma, rim], chance) for sigma, rim, chance in VARIANTS])


def _score(scores: RankingScores, share: float, chance: Chance) -> float:
    if chance == "exact":
        return scores.evidence_ap
    if chance == "none":
        return scores.average_precision
    return (scores.average_precision - share) / (1 - share) if share < 1 else 0.0


def sensitivity(
    folders: Sequence[Path],
    benchmark: Benchmark,
    *,
    limit: int | None = None,
    progress: Progress = no_progress,
) -> Sensitivity:
    """Score submissions under all variants of the constants.

    Args:
        folders: of the submissions, at least two; all have to cover the same part of the benchmark.
        benchmark: the one that they explain.
        limit: Only the first so many samples of every LVLM and split.
        progress: shows how far the scoring of a method is.

    Raises InputError for fewer than two submissions, and for some that cover different parts.
    """
    if len(folders) < 2:
        raise InputError("a ranking needs two submissions; give the folder that holds them")
    opened = [open_submission(folder, benchmark) for folder in sorted(folders)]
    part, *others = (covered_part(one, benchmark) for one in opened)
    for one, other in zip(opened[1:], others, strict=True):
        if _ids(other) != _ids(part):
            raise InputError(f"{one.path}: covers another part of the benchmark than {opened[0].path}")
    samples = _first(part.samples, limit)
    means = np.array([_means(one, samples, progress) for one in opened]).T
    names = [one.document.method.name for one in opened]
    return Sensitivity(
        benchmark=BenchmarkRef.model_validate(part.reference()),
        samples=len(samples),
        methods=names,
        variants=[_variant(number, means, names) for number in range(len(VARIANTS))],
    )


def _ids(part: Benchmark) -> list[str]:
    return [sample.sample_id for sample in part.samples]


def _first(samples: Sequence[Sample], limit: int | None) -> list[Sample]:
    seen: dict[tuple[str, str], int] = {}
    chosen = []
    for sample in samples:
        part = (sample.lvlm, sample.split)
        seen[part] = seen.get(part, 0) + 1
        if limit is None or seen[part] <= limit:
            chosen.append(sample)
    return chosen


def _means(submission: Submission, samples: Sequence[Sample], progress: Progress) -> list[float]:
    tracked = progress(samples, submission.document.method.title, len(samples))
    scores = np.array([variant_scores(submission.attribution(s.sample_id), s) for s in tracked])
    groups = Groups.of(samples)
    (found,) = groups.means(scores, [groups.macro()], Settings(resamples=MIN_RESAMPLES))
    return [interval.mean for interval in found]


def _variant(number: int, means: FloatArray, names: Sequence[str]) -> Variant:
    sigma, rim, chance = VARIANTS[number]
    own, standard = means[number], means[_STANDARD]
    pairs = [(one, other) for one in range(len(names)) for other in range(one)]
    return Variant(
        sigma=round(224 * sigma, 3),
        rim=round(224 * rim, 3),
        chance=chance,
        tau=kendall(own.tolist(), standard.tolist(), draws=1)[0],
        swapped=[
            (names[one], names[other])
            for one, other in pairs
            if (own[one] - own[other]) * (standard[one] - standard[other]) < 0
        ],
        scores={name: float(value) for name, value in zip(names, own, strict=True)},
    )


_CHANCE_TITLES: Final[dict[Chance, str]] = {
    "none": "AP as it is",
    "share": "share of positives off",
    "exact": "exact chance off",
}


def sensitivity_tables(found: Sensitivity) -> list[Table]:
    """The taus by sigma and rim, and the scores of the methods under variants of one constant each."""
    rows: dict[tuple[float, float], list[str]] = {}
    for one in found.variants:
        swaps = counted(len(one.swapped), "pair")
        text = "\N{EN DASH}" if one.tau is None else f"{one.tau:.2f} ({swaps} swapped)"
        rows.setdefault((one.sigma, one.rim), []).append(text)
    taus = Table(
        f"Kendall's tau with the standard ranking, {counted(len(found.methods), 'method')}",
        ("sigma, rim", *(_CHANCE_TITLES[chance] for chance in CHANCES)),
        tuple(Row((f"{sigma:g} px, {rim:g} px", *cells)) for (sigma, rim), cells in rows.items()),
        (f"{counted(found.samples, 'sample')} of each method; px: of 224. The standard is 10, 14, exact.",),
    )
    return [taus, _score_table(found)]


def _score_table(found: Sensitivity) -> Table:
    by_constants = {(one.sigma, one.rim, one.chance): one.scores for one in found.variants}
    standard = found.variants[_STANDARD]
    shown = [
        (standard.sigma, standard.rim, standard.chance),
        *((224 * sigma, standard.rim, standard.chance) for sigma in (SIGMAS[0], SIGMAS[2])),
        *((standard.sigma, 224 * rim, standard.chance) for rim in (RIMS[0], RIMS[2])),
        *((standard.sigma, standard.rim, chance) for chance in CHANCES[:2]),
    ]
    titles = ["standard", *(f"sigma {key[0]:g}" for key in shown[1:3])]
    titles += [*(f"rim {key[1]:g}" for key in shown[3:5]), *(_CHANCE_TITLES[key[2]] for key in shown[5:])]
    order = sorted(found.methods, key=lambda name: -standard.scores[name])
    rows = [
        Row((name, *(f"{by_constants[round(s, 3), round(r, 3), c][name]:.3f}" for s, r, c in shown)))
        for name in order
    ]
    return Table("Mean scores", ("method", *titles), tuple(rows))
