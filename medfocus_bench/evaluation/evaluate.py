"""Evaluate attributions on a benchmark: from a submission, a run or Attributions to a report."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.data.derived import CONTRAST, CONTROL, DERIVED_SPLITS
from medfocus_bench.data.resolve import BenchmarkLike, load_benchmark, one_or_more
from medfocus_bench.data.sample import Sample
from medfocus_bench.data.truth import installed_truths
from medfocus_bench.errors import InputError, Notice, UnavailableError
from medfocus_bench.evaluation.dependence import Find
from medfocus_bench.evaluation.derived_splits import contrast_on, dependence_on, localised
from medfocus_bench.evaluation.grid import GridTally
from medfocus_bench.evaluation.metrics.registry import metrics
from medfocus_bench.evaluation.nulls import NULL_CONTROLS, NULL_PREFIX
from medfocus_bench.evaluation.protocol import EVALUATOR_VERSION, RESAMPLES, Protocol, Settings
from medfocus_bench.evaluation.report import NullScores, Provenance, Report, SliceScores
from medfocus_bench.evaluation.score import Aggregator, LoadLVLM, ScoredSamples, score_samples
from medfocus_bench.evaluation.words import aggregate as aggregate_words
from medfocus_bench.progress import Progress, no_progress
from medfocus_bench.storage import write_atomic
from medfocus_bench.submission.reader import Submission, open_submission
from medfocus_bench.submission.schema import BenchmarkRef, MethodMetadata

_UNNAMED = MethodMetadata(
    name="unnamed", family="other", version="0", description="Attributions that were given without a method."
)
_SLICES = TypeAdapter(list[SliceScores])


def evaluate(
    attributions: str | Path | Submission | Iterable[Attribution],
    benchmark: BenchmarkLike,
    *,
    method: MethodMetadata | None = None,
    protocol: Protocol = "standard",
    seed: int = 0,
    resamples: int = RESAMPLES,
    nulls: bool = True,
    any_version: bool = False,
    verified: bool = False,
    lvlms: str | Sequence[str] = (),
    load_lvlm: LoadLVLM | None = None,
    progress: Progress = no_progress,
) -> Report:
    """Score attributions against the evidence regions of a benchmark.

    A sample without an attribution scores 0. The samples are those of the configs and splits that a
    submission declares, or in which any of the Attributions lies. Those of `control` and `contrast` are not
    among them: they have their own sections in the report, `dependence` and `contrast`.

    Args:
        attributions: a submission, opened or its folder; a run of one method; or Attributions in any order.
        benchmark: its name, its folder, or a loaded one.
        method: what made Attributions that are given as such, for the report.
        protocol: "standard" or "paper".
        seed: of every random draw.
        resamples: of the patients, behind the intervals over patients alone.
        nulls: whether the null controls on the same samples are part of the report; they are cached.
        any_version: accept a submission to another version of the benchmark.
        verified: for whoever recomputes the scores from the raw attributions.
        lvlms: limits the report, which says so, to the samples of these LVLMs.
        load_lvlm: gives the LVLM of a name, for scores that need one; they are skipped without it.
        progress: shows how far the scoring is.

    Raises:
        SubmissionError, BenchmarkError: with the file, the place in it and the way out.
        InputError: for an Attribution of no sample of the benchmark, or a second one of a sample.

    Example:
        >>> import medfocus_bench as mb
        >>> bench = mb.load_benchmark("phantom")
        >>> perfect = [mb.Attribution(s.sample_id, boxes=s.boxes) for s in bench.samples if s.split == "dev"]
        >>> report = mb.evaluate(perfect, bench, nulls=False, resamples=100)
        >>> report.headline["iou"].mean
        1.0

    """
    return evaluate_samples(
        attributions,
        benchmark,
        Settings(protocol, seed, resamples),
        method=method,
        nulls=nulls,
        any_version=any_version,
        verified=verified,
        lvlms=lvlms,
        load_lvlm=load_lvlm,
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
    attributions: str | Path | Submission | Iterable[Attribution],
    benchmark: BenchmarkLike,
    settings: Settings,
    *,
    method: MethodMetadata | None = None,
    nulls: bool = True,
    any_version: bool = False,
    verified: bool = False,
    lvlms: str | Sequence[str] = (),
    load_lvlm: LoadLVLM | None = None,
    progress: Progress = no_progress,
) -> Evaluation:
    """As `evaluate`, with the scores of the samples."""
    whole, limited = load_benchmark(benchmark), list(dict.fromkeys(one_or_more(lvlms)))
    tally = GridTally()
    find: Find
    derived: set[str]
    if isinstance(attributions, str | Path | Submission):
        opened = _opened(attributions, whole, any_version)
        part = covered_part(opened, whole)
        part = part.of_lvlms(limited) if limited else part
        scored = score_submission(opened, part, settings, progress, load_lvlm, tally)
        find, derived = opened.attribution, set(DERIVED_SPLITS).intersection(opened.document.benchmark.splits)
        method, submitters = opened.document.method, opened.document.submitters
        sha256, held = opened.sha256, {s.sample_id for s in part.samples if s.sample_id in opened}
    else:
        made_for = getattr(attributions, "fingerprint", whole.fingerprint)
        if made_for != whole.fingerprint and not any_version:
            raise InputError("the run explains another version of the benchmark; give that one")
        stream = _Stream(whole.of_lvlms(limited) if limited else whole, whole)
        pairs = progress(stream.pairs(attributions), "Attributions", len(stream.scored.samples))
        scored = score_samples(stream.scored.samples, pairs, settings, load_lvlm=load_lvlm, tally=tally)
        part, scored = stream.covered(scored)
        find, derived = stream.attribution, stream.derived
        method, submitters = method or getattr(attributions, "metadata", None) or _UNNAMED, []
        sha256, held = stream.sha256, set(stream.digests)
    aggregator = Aggregator(part.samples)
    derived = derived if settings.protocol == "standard" else set()
    report = Report(
        provenance=Provenance(
            evaluator_version=EVALUATOR_VERSION,
            submission_sha256=sha256,
            status="verified" if verified else "self-reported",
            lvlms=sorted(limited) or None,
            skipped_scores=list(scored.skipped) or None,
            **asdict(settings),
        ),
        benchmark=BenchmarkRef.model_validate(part.reference()),
        method=method,
        submitters=submitters,
        counts=aggregator.counts(scored),
        cost=scored.cost,
        grid=tally.grid(),
        slices=aggregator.aggregate(scored, settings),
        nulls=list(_null_scores(part, aggregator, settings, progress)) if nulls else [],
        words=aggregate_words(part.samples, scored.heard, settings),
        dependence=dependence_on(whole, part, find, settings, nulls=nulls) if CONTROL in derived else None,
        contrast=(
            contrast_on(whole, part.configs, find, settings, nulls=nulls)
            if CONTRAST in derived and not limited
            else None
        ),
    )
    attributed = {sample.lvlm for sample in part.samples if sample.sample_id in held}
    unexplained = tuple(sorted({sample.lvlm for sample in part.samples} - attributed))
    return Evaluation(report, part, scored, unexplained)


class _Stream:
    """Attributions in any order, held against the samples of `whole`; those of `scored` are passed on.

    `digests` of the attributions that came, by sample. `derived`: the derived splits in which any lies;
    `kept`: the attributions that those are scored by.
    """

    def __init__(self, scored: Benchmark, whole: Benchmark) -> None:
        self.scored, self.whole = scored, whole
        self.digests: dict[str, bytes] = {}
        self.derived: set[str] = set()
        self.kept: dict[str, Attribution] = {}

    def pairs(self, attributions: Iterable[Attribution]) -> Iterator[tuple[Sample, Attribution]]:
        scored = {sample.sample_id: sample for sample in self.scored.samples}
        known = {sample.sample_id for sample in self.whole.samples}
        read_again = {sample.derived_from for sample in self.whole.derived.of(CONTROL)}
        for attribution in attributions:
            if not isinstance(attribution, Attribution):
                raise InputError(
                    f"{attribution!r:.60}: is not an Attribution; give those, or a submission folder"
                )
            name = attribution.sample_id
            split = None if name in known else self._splits.get(name)
            if name not in known and split is None:
                raise InputError(
                    f"{name or 'an Attribution without sample_id'}: not a sample of {self.whole.name}"
                )
            if name in self.digests:
                raise InputError(f"{name}: a second attribution of this sample; give one of each")
            if split is not None or name in read_again:
                self.kept[name] = attribution
            if split is not None:
                self.digests[name] = _digest_with_words(attribution)
                self.derived.add(split)
            elif name in scored:
                self.digests[name] = _digest_with_words(attribution)
                yield scored[name], attribution

    def attribution(self, sample_id: str) -> Attribution | None:
        """One of those that were kept."""
        return self.kept.get(sample_id)

    @cached_property
    def _splits(self) -> dict[str, str]:
        """The split of each derived sample, by its id."""
        derived = self.whole.derived
        return {sample.sample_id: split for split in DERIVED_SPLITS for sample in derived.of(split)}

    def covered(self, scored: ScoredSamples) -> tuple[Benchmark, ScoredSamples]:
        """The configs and splits in which an attribution lies, with their scores."""
        samples = self.scored.samples
        held = [sample for sample in samples if sample.sample_id in self.digests]
        if not held:
            raise InputError("no attributions to score; give those of some samples of the benchmark")
        part = self.scored.select([s.source for s in held], [s.split for s in held])
        kept = {sample.sample_id for sample in part.samples}
        rows = [row for row, sample in enumerate(samples) if sample.sample_id in kept]
        return part, replace(scored, scores=scored.scores[rows])

    @property
    def sha256(self) -> str:
        """Of all attributions, in whatever order they came."""
        return hashlib.sha256(b"".join(digest for _, digest in sorted(self.digests.items()))).hexdigest()


def attribution_digest(attribution: Attribution) -> bytes:
    """sha256 of the map or boxes of an attribution: 32 bytes."""
    values = attribution.saliency if attribution.boxes is None else attribution.boxes
    assert values is not None
    head = (attribution.sample_id, attribution.frame, values.dtype.str, values.shape)
    return hashlib.sha256(repr(head).encode() + np.ascontiguousarray(values).tobytes()).digest()


def _digest_with_words(attribution: Attribution) -> bytes:
    """As `attribution_digest`, of tokens and concepts, too, where there are any: 32 bytes."""
    digest = attribution_digest(attribution)
    tokens = [(text, float(score)) for text, score in attribution.tokens]
    words = [tokens, sorted((name, float(score)) for name, score in attribution.concepts.items())]
    return hashlib.sha256(digest + repr(words).encode()).digest() if any(words) else digest


def _opened(submission: str | Path | Submission, whole: Benchmark, any_version: bool) -> Submission:
    if isinstance(submission, Submission):
        if submission.document.benchmark.fingerprint != whole.fingerprint and not any_version:
            raise InputError(f"{submission.path}: of another version of the benchmark; open it with this one")
        return submission
    if str(submission).startswith(NULL_PREFIX):
        raise InputError(
            f"{submission}: is a null control, not a submission; every report holds those, `compare` takes "
            "one, and `null` writes one as a submission"
        )
    return open_submission(submission, whole, any_version=any_version)


def covered_part(submission: Submission, benchmark: Benchmark) -> Benchmark:
    """The part of the benchmark that a submission declares to cover, without derived splits.

    Raises InputError where that is nothing.
    """
    declared = submission.document.benchmark
    part = localised(benchmark, declared.configs, declared.splits)
    if not part.samples:
        raise InputError(
            f"{submission.path}: covers {', '.join(declared.splits)} alone, which say nothing without the "
            "questions that they are made of; cover direct and reasoning, too"
        )
    return part


def score_submission(
    submission: Submission,
    part: Benchmark,
    settings: Settings,
    progress: Progress = no_progress,
    load_lvlm: LoadLVLM | None = None,
    tally: GridTally | None = None,
) -> ScoredSamples:
    """The scores of every sample of `part`, in its order; `tally` counts the grids of its maps."""
    pairs = ((sample, submission.attribution(sample.sample_id)) for sample in part.samples)
    tracked = progress(pairs, submission.document.method.title, len(part.samples))
    return score_samples(part.samples, tracked, settings, load_lvlm=load_lvlm, tally=tally)


def score_null(
    name: str, part: Benchmark, settings: Settings, progress: Progress = no_progress
) -> ScoredSamples:
    """The scores of a null control. Raises UnavailableError where the benchmark lacks what it needs."""
    control = NULL_CONTROLS[name]
    tracked = progress(control.make(part.samples, settings.seed), control.title, len(part.samples))
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
                yield NullScores(name=name, title=control.title, unavailable=str(error))
                continue
            slices = aggregator.aggregate(scored, settings)
            _write_cache(kept, slices)
        yield NullScores(name=name, title=control.title, slices=slices)


def _cache_file(name: str, part: Benchmark, settings: Settings) -> Path | None:
    """The cache file of a null control's scores; None without a home, or where another package has a say.

    The code of its scores and the files of its truth are not part of the key.
    """
    chosen, truths = metrics(settings.protocol), installed_truths()
    modules = [metric.compute.__module__ for metric in chosen]
    modules += [type(truths[source]).__module__ for source in {s.source for s in part.samples} & set(truths)]
    if any(not module.startswith("medfocus_bench.") for module in modules):
        return None
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None
    samples = hashlib.sha256("\n".join(sample.sample_id for sample in part.samples).encode()).hexdigest()
    names = [metric.name for metric in chosen]
    key = json.dumps(
        [name, names, part.reference(), samples, asdict(settings), _code_digest()], sort_keys=True
    )
    return folder / "medfocus-bench" / "nulls" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


@cache
def _code_digest() -> str:
    """A digest of the scoring code, the truth and the libraries: no version reads the cache of another."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256(" ".join(version(name) for name in ("numpy", "scipy", "Pillow")).encode())
    code = ("*.py", "attribution/attribution.py", "data/*.py", "submission/*.py", "evaluation/**/*.py")
    places = (*code, "phantom/truth.py", "phantom/truth/regions.parquet")
    for path in sorted(path for place in places for path in package.glob(place)):
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
    """Best effort: an unwritable home costs time, not the result."""
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
