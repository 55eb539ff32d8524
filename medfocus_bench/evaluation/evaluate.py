"""From a submission and a benchmark to a report."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from medfocus_bench._version import __version__
from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.data.columns import Sample
from medfocus_bench.data.resolve import BenchmarkLike, one_or_more, open_benchmark
from medfocus_bench.errors import InputError, Notice, UnavailableError
from medfocus_bench.evaluation.metrics.registry import metrics
from medfocus_bench.evaluation.nulls import NULL_CONTROLS, NULL_PREFIX
from medfocus_bench.evaluation.protocol import RESAMPLES, Protocol, Settings
from medfocus_bench.evaluation.report import NullScores, Provenance, Report, SliceScores
from medfocus_bench.evaluation.score import Aggregator, ScoredSamples, score_samples
from medfocus_bench.progress import Progress, no_progress
from medfocus_bench.storage import write_atomic
from medfocus_bench.submission.reader import Submission, open_submission
from medfocus_bench.submission.schema import BenchmarkRef

Pairs = Iterable[tuple[Sample, Attribution | None]]

_SLICES = TypeAdapter(list[SliceScores])


def evaluate(
    submission: str | Path,
    benchmark: BenchmarkLike,
    *,
    protocol: Protocol = "standard",
    seed: int = 0,
    resamples: int = RESAMPLES,
    nulls: bool = True,
    any_version: bool = False,
    verified: bool = False,
    lvlms: str | Sequence[str] = (),
    progress: Progress = no_progress,
) -> Report:
    """Scores a submission folder against the evidence regions of a benchmark.

    The samples are those of the configs and splits that the submission declares; each that it lacks scores 0.
    `protocol` is "standard" or "paper". Null controls on the same samples are part of the report; they are
    kept in a cache between calls. `any_version` accepts a submission to another version of the benchmark.
    `lvlms` limits the report to the samples of these LVLMs, which it states; by default it is of all.
    `verified` is for whoever recomputes the scores from the raw attributions.

    Raises SubmissionError or BenchmarkError, which name the file, the place in it and the way out.
    """
    return evaluate_samples(
        submission,
        benchmark,
        Settings(protocol, seed, resamples),
        nulls=nulls,
        any_version=any_version,
        verified=verified,
        lvlms=lvlms,
        progress=progress,
    ).report


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """A report with the scores behind it: those of each sample of `part`, in its order.

    `unexplained`: the LVLMs of `part` none of whose samples has an attribution.
    """

    report: Report
    part: Benchmark
    scored: ScoredSamples
    unexplained: tuple[str, ...] = ()


def evaluate_samples(
    submission: str | Path,
    benchmark: BenchmarkLike,
    settings: Settings,
    *,
    nulls: bool = True,
    any_version: bool = False,
    verified: bool = False,
    lvlms: str | Sequence[str] = (),
    progress: Progress = no_progress,
) -> Evaluation:
    """As `evaluate`, with the scores of the samples."""
    if str(submission).startswith(NULL_PREFIX):
        raise InputError(
            f"{submission}: is no submission; every report holds the null controls, `compare` takes one, and "
            "`null` writes one as a submission"
        )
    whole = open_benchmark(benchmark)
    opened = open_submission(submission, whole, any_version=any_version)
    part, limited = covered_part(opened, whole), list(dict.fromkeys(one_or_more(lvlms)))
    if limited:
        part = part.of_lvlms(limited)
    scored = score_submission(opened, part, settings, progress)
    aggregator = Aggregator(part.samples)
    document = opened.document
    report = Report(
        provenance=Provenance(
            evaluator_version=__version__,
            submission_sha256=opened.sha256,
            status="verified" if verified else "self-reported",
            lvlms=sorted(limited) or None,
            skipped_scores=list(scored.skipped) or None,
            **asdict(settings),
        ),
        benchmark=BenchmarkRef.model_validate(part.reference()),
        method=document.method,
        submitters=document.submitters,
        counts=aggregator.counts(scored),
        cost=scored.cost,
        slices=aggregator.aggregate(scored, settings),
        nulls=list(_null_scores(part, aggregator, settings, progress)) if nulls else [],
    )
    explained = {sample.lvlm for sample in part.samples if sample.sample_id in opened}
    unexplained = tuple(sorted({sample.lvlm for sample in part.samples} - explained))
    return Evaluation(report, part, scored, unexplained)


def covered_part(submission: Submission, benchmark: Benchmark) -> Benchmark:
    """The part of the benchmark that a submission declares to cover."""
    declared = submission.document.benchmark
    return benchmark.select(declared.configs, declared.splits)


def score_submission(
    submission: Submission, part: Benchmark, settings: Settings, progress: Progress = no_progress
) -> ScoredSamples:
    """The scores of every sample of `part`, in its order."""
    pairs = ((sample, submission.attribution(sample.sample_id)) for sample in part.samples)
    tracked = progress(pairs, submission.document.method.title, len(part.samples))
    return score_samples(part.samples, tracked, settings)


def score_null(
    name: str, part: Benchmark, settings: Settings, progress: Progress = no_progress
) -> ScoredSamples:
    """The scores of a null control. Raises UnavailableError where the benchmark lacks what it needs."""
    control = NULL_CONTROLS[name]
    tracked = progress(control.make(part, settings.seed), control.title, len(part.samples))
    return score_samples(part.samples, tracked, settings)


def _null_scores(
    part: Benchmark, aggregator: Aggregator, settings: Settings, progress: Progress
) -> Iterator[NullScores]:
    for name, control in NULL_CONTROLS.items():
        kept = _cache_file(name, part, settings)
        slices = _read_cache(kept)
        if slices is None:
            try:
                scored = score_null(name, part, settings, progress)
            except UnavailableError as error:
                reason = str(error).removeprefix(f"{part.folder}: ")  # a report holds no paths of a machine
                yield NullScores(name=name, title=control.title, unavailable=reason)
                continue
            slices = aggregator.aggregate(scored, settings)
            _write_cache(kept, slices)
        yield NullScores(name=name, title=control.title, slices=slices)


def _cache_file(name: str, part: Benchmark, settings: Settings) -> Path | None:
    """Where the scores of a null control are kept; None for a user without a home."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None
    samples = hashlib.sha256("\n".join(sample.sample_id for sample in part.samples).encode()).hexdigest()
    names = [metric.name for metric in metrics(settings.protocol)]
    key = json.dumps(
        [name, names, part.reference(), samples, asdict(settings), _code_digest()], sort_keys=True
    )
    return folder / "medfocus-bench" / "nulls" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


@cache
def _code_digest() -> str:
    """Of the code that scores, and of what it computes with: no evaluator reads the scores of another one."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256(" ".join(version(name) for name in ("numpy", "scipy", "Pillow")).encode())
    for folder in ("", "data", "submission", "evaluation", "evaluation/metrics"):
        for path in sorted((package / folder).glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _read_cache(path: Path | None) -> list[SliceScores] | None:
    if path is None:
        return None
    try:
        return _SLICES.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _write_cache(path: Path | None, slices: Sequence[SliceScores]) -> None:
    """Best effort: a home that cannot be written costs time, not the result."""
    if path is None:
        return
    try:
        write_atomic(path, _SLICES.dump_json(list(slices)))
    except OSError as error:
        warnings.warn(
            f"{path.parent}: cannot be written to ({error.strerror}), so that the scores of the null "
            "controls are not kept and computed again each time; XDG_CACHE_HOME names another place",
            Notice,
            stacklevel=1,
        )
