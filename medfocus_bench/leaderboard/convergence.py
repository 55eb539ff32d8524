"""Our ranking of the paper's methods beside the published ones: Kendall's tau, its p, and where they part.

Both rank the same methods, on other models, pictures and evidence. Whether one says anything of the other is
what the table shows; nothing here assumes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.errors import InputError
from medfocus_bench.evaluation.evaluate import evaluate_samples
from medfocus_bench.evaluation.groups import Groups
from medfocus_bench.evaluation.protocol import MIN_RESAMPLES, Settings
from medfocus_bench.evaluation.rank_agreement import kendall, order_signs
from medfocus_bench.geometry import FloatArray
from medfocus_bench.leaderboard.result import Result, headline_name, of_one_version, selected
from medfocus_bench.paper.published import MAIN_DIRECT, NAMES, OVERLAP, SOURCES
from medfocus_bench.progress import Progress, no_progress
from medfocus_bench.storage import write_atomic
from medfocus_bench.submission.schema import BenchmarkRef, Strict
from medfocus_bench.tables import counted

MODE: Final = "direct"
"""The mode of the published table."""

EVIDENCE: Final[Mapping[str, str]] = {"all": "all", "lesion": "lesions", "spurious": "marks"}
"""Kinds of evidence of our rankings, with their names in tables."""

MEAN: Final = "mean of the three"
PAPER_IOU: Final = "paper_iou"
"""IoU under the paper's protocol, beside the headline of the standard one."""

_EXPLAINS: Final = 0.5
"""A method that explains fewer of the samples than this cannot apply to the LVLMs at hand."""


class Agreement(Strict):
    """Kendall's tau-b of two rankings of the same methods; None where all of one tie.

    `ours` is a score, `evidence` the samples that it is a mean over, `published` a source or the mean of the
    three. `p_value`: two-sided, of no association.
    """

    ours: str
    evidence: str
    published: str
    methods: int
    tau: float | None
    p_value: float | None


class MethodRanks(Strict):
    """A method with its published IoU (mean of three sources, per cent) and ours, each with its rank."""

    name: str
    title: str
    family: str
    applies: bool
    published: float
    published_rank: int
    ours: dict[str, float]
    ranks: dict[str, int]


class FamilyOrder(Strict):
    """The pairs with a method of one family that have the same order in both rankings, by evidence AP.

    Pairs `within` the family, and `across`: with methods of others. A tie is not an order.
    """

    family: str
    methods: list[str]
    published_rank: float
    our_rank: float
    within_same: int
    within: int
    across_same: int
    across: int


class Convergence(Strict):
    """The table as data. `applying` leaves out methods that explain under half of the samples."""

    benchmark: BenchmarkRef
    evaluator_version: str
    mode: str
    scores: list[str]
    methods: list[MethodRanks]
    agreements: list[Agreement]
    applying: list[Agreement]
    published_agreements: list[Agreement]
    families: list[FamilyOrder]
    reasons: list[str]


def convergence(
    results: Sequence[Result], paper_iou: Mapping[str, Mapping[str, float]] | None = None
) -> Convergence:
    """The table of results of one version; those of methods that the paper does not have are left out.

    Args:
        results: of the leaderboard. Those of the commonest version of benchmark and evaluator are used.
        paper_iou: of each name the IoU under the paper's protocol by kind of evidence, as `paper_scores` has
            it; None leaves that ranking out.

    Raises InputError where fewer than three methods are shared.
    """
    shared = [result for result in of_one_version(results) if result.name in MAIN_DIRECT]
    shared = [result for result in shared if _view_score(result, "all") is not None]
    shared.sort(key=lambda result: list(MAIN_DIRECT).index(result.name))
    if len(shared) < 3:
        raise InputError(
            f"the results share {counted(len(shared), 'method')} with the paper's table in {MODE} mode; a "
            "ranking is compared from three on"
        )
    ours = _our_scores(shared, paper_iou or {})
    published = _published(shared)
    applies = np.array([result.report.counts.no_explanation_rate < _EXPLAINS for result in shared])
    methods = _method_ranks(shared, ours, published[MEAN], applies)
    key = f"{headline_name()} all"
    return Convergence(
        benchmark=shared[0].report.benchmark,
        evaluator_version=shared[0].report.provenance.evaluator_version,
        mode=MODE,
        scores=list(dict.fromkeys(name.split(" ")[0] for name in ours)),
        methods=methods,
        agreements=list(_agreements(ours, published)),
        applying=list(_agreements(_masked(ours, applies), _masked(published, applies))),
        published_agreements=[
            _agreement("published", one, other, published[one], published[other])
            for number, one in enumerate(SOURCES)
            for other in list(SOURCES)[number + 1 :]
        ],
        families=list(_families(shared, ours[key], published[MEAN])),
        reasons=list(_reasons([one.title for one in methods if not one.applies])),
    )


def _view_score(result: Result, evidence: str) -> float | None:
    """The headline over the direct samples of a kind of evidence; None where the result has none of them."""
    wanted = selected(result.parts, (None, None, MODE, None if evidence == "all" else evidence))
    views = (view for view in result.views if wanted and selected(result.parts, view.filters) == wanted)
    return next((view.scores[headline_name()].mean for view in views), None)


def _our_scores(
    shared: Sequence[Result], paper_iou: Mapping[str, Mapping[str, float]]
) -> dict[str, FloatArray]:
    """Scores of the methods by "score evidence"; a ranking that lacks a method is left out."""
    found: dict[str, FloatArray] = {}
    for score in (headline_name(), PAPER_IOU):
        for evidence in EVIDENCE:
            values = [
                _view_score(result, evidence)
                if score == headline_name()
                else paper_iou.get(result.name, {}).get(evidence)
                for result in shared
            ]
            if None not in values:
                found[f"{score} {evidence}"] = np.array(values, dtype=np.float64)
    return found


def _published(shared: Sequence[Result]) -> dict[str, FloatArray]:
    place = OVERLAP.index("iou")
    found = {
        source: np.array([MAIN_DIRECT[result.name][source][place] for result in shared]) for source in SOURCES
    }
    return {MEAN: np.mean(list(found.values()), axis=0), **found}


def _masked(scores: Mapping[str, FloatArray], members: npt.NDArray[np.bool_]) -> dict[str, FloatArray]:
    return {name: values[members] for name, values in scores.items()}


def _agreements(ours: Mapping[str, FloatArray], published: Mapping[str, FloatArray]) -> Iterator[Agreement]:
    for key, values in ours.items():
        score, evidence = key.split(" ")
        for source, reported in published.items():
            yield _agreement(score, evidence, source, values, reported)


def _agreement(ours: str, evidence: str, source: str, first: FloatArray, second: FloatArray) -> Agreement:
    tau, p_value = kendall(first.tolist(), second.tolist())
    return Agreement(
        ours=ours, evidence=evidence, published=source, methods=len(first), tau=tau, p_value=p_value
    )


def _ranks(values: FloatArray) -> list[int]:
    """One more than the number of methods that score higher."""
    return [1 + int((values > value).sum()) for value in values]


def _method_ranks(
    shared: Sequence[Result],
    ours: Mapping[str, FloatArray],
    published: FloatArray,
    applies: npt.NDArray[np.bool_],
) -> list[MethodRanks]:
    ranks = {key: _ranks(values) for key, values in ours.items()}
    reported = _ranks(published)
    return [
        MethodRanks(
            name=result.name,
            title=NAMES[result.name],
            family=result.report.method.family,
            applies=bool(applies[n]),
            published=round(float(published[n]), 2),
            published_rank=reported[n],
            ours={key: float(values[n]) for key, values in ours.items()},
            ranks={key: ranks[key][n] for key in ours},
        )
        for n, result in enumerate(shared)
    ]


def _families(shared: Sequence[Result], ours: FloatArray, published: FloatArray) -> Iterator[FamilyOrder]:
    agree = order_signs(ours) * order_signs(published)
    reported, own = np.array(_ranks(published)), np.array(_ranks(ours))
    families = np.array([result.report.method.family for result in shared])
    for family in dict.fromkeys(families.tolist()):
        members = families == family
        within = agree[np.ix_(members, members)][np.triu_indices(int(members.sum()), 1)]
        across = agree[np.ix_(members, ~members)]
        yield FamilyOrder(
            family=family,
            methods=[result.name for result in shared if result.report.method.family == family],
            published_rank=float(reported[members].mean()),
            our_rank=float(own[members].mean()),
            within_same=int((within > 0).sum()),
            within=int(np.count_nonzero(within)),
            across_same=int((across > 0).sum()),
            across=int(np.count_nonzero(across)),
        )


class _Kept(Strict):
    """IoU under the paper's protocol by kind of evidence, of a submission as it was."""

    submission_sha256: str
    fingerprint: str
    evaluator_version: str
    iou: dict[str, float]


def paper_scores(
    submissions: Path,
    results: Sequence[Result],
    benchmark: Benchmark,
    kept: Path,
    *,
    progress: Progress = no_progress,
) -> dict[str, dict[str, float]]:
    """The IoU of the shared methods under the paper's protocol, by kind of evidence, over direct samples.

    Args:
        submissions: the folder of the submissions, by the names of the results; one without its folder is
            left out.
        results: those whose methods are wanted, of `benchmark`.
        benchmark: the one that they explain.
        kept: a folder for the scores, one file a method; a file of the same submission, benchmark and
            evaluator is read instead of scoring again.
        progress: shows how far the scoring of a method is.

    """
    found = {}
    for result in of_one_version(results):
        folder = submissions / result.name
        if result.name not in MAIN_DIRECT or not folder.is_dir():
            continue
        path = kept / f"{result.name}.json"
        made_for = result.report.provenance
        key = (made_for.submission_sha256, benchmark.fingerprint, made_for.evaluator_version)
        held = _read_kept(path)
        if held is None or (held.submission_sha256, held.fingerprint, held.evaluator_version) != key:
            iou = _paper_iou(folder, benchmark, progress)
            held = _Kept(submission_sha256=key[0], fingerprint=key[1], evaluator_version=key[2], iou=iou)
            write_atomic(path, held.model_dump_json(indent=1).encode())
        found[result.name] = held.iou
    return found


def _read_kept(path: Path) -> _Kept | None:
    try:
        return _Kept.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _paper_iou(folder: Path, benchmark: Benchmark, progress: Progress) -> dict[str, float]:
    settings = Settings("paper", 0, MIN_RESAMPLES)
    made = evaluate_samples(folder, benchmark, settings, nulls=False, progress=progress)
    samples, scores = made.part.samples, made.scored.columns(["iou"])
    groups = Groups.of(samples)
    found = {}
    for evidence in EVIDENCE:
        chosen = np.array([s.mode == MODE and evidence in ("all", s.evidence) for s in samples])
        if chosen.any():
            added = groups.contributions(scores, groups.macro(chosen))
            found[evidence] = round(float(added.sum()), 6)
    return found


_REASONS: Final = (
    "Another score: the paper ranks by the IoU of boxes cut at a quantile, which rewards area. Its "
    "gradient-weighted attention has a recall of 99.9 to 100 % and a precision equal to its IoU: the score "
    "of the whole image, and second of twelve on ImaGenome. Evidence AP gives the whole image 0.",
    "Other evidence: the paper's regions are lesions, on ImaGenome whole parts of the anatomy, and a prior "
    "of the place does well on them; half of ours are marks without medical meaning, on which it does not.",
    "Other models: six LVLMs of 3 to 12 billion parameters there, tiny ones with few image tokens here.",
    "Other programs: layers, heads, baselines and rules were chosen on another dev split; our LRP goes "
    "through the whole decoder, and our Integrated Gradients is averaged over cells.",
    "Few methods: of twelve, a tau under .45 cannot be told from none, and the paper's own sources agree "
    "with each other only in part. A rank here says how well a method finds causes that are known; nothing "
    "here claims that it says how the method ranks on radiographs.",
)


def _reasons(silent: Sequence[str]) -> Iterator[str]:
    """Why the rankings part, a few sentences each; `silent` are the methods that cannot apply here."""
    yield from _REASONS[:-1]
    if silent:
        yield (
            f"Not applicable: {' and '.join(silent)} explain under half of the samples, since these LVLMs "
            "write no boxes and name no regions; the second table leaves them out."
        )
    yield _REASONS[-1]
