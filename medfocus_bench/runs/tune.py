"""Select the hyperparameters of a method on the dev split, never on another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.attribution.protocol import Method, refuse_family
from medfocus_bench.attribution.registry import load_method
from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.data.resolve import BenchmarkLike, load_benchmark
from medfocus_bench.data.sample import Sample
from medfocus_bench.engine.protocol import Engine, InProcess, Lost
from medfocus_bench.errors import InputError
from medfocus_bench.evaluation.groups import Groups
from medfocus_bench.evaluation.metrics.registry import headline
from medfocus_bench.evaluation.protocol import Settings
from medfocus_bench.evaluation.score import score
from medfocus_bench.geometry import FloatArray
from medfocus_bench.lvlm.fitting import fitting
from medfocus_bench.lvlm.registry import lvlm_key
from medfocus_bench.progress import Progress, no_progress
from medfocus_bench.runs.config import RunConfig
from medfocus_bench.runs.explaining import EXPECTED, as_recorded, encode_sample, ends_run, explain, reason
from medfocus_bench.runs.methods import hyperparameters, refuse_families
from medfocus_bench.runs.tuning import DEV, Candidate, TunedPart

if TYPE_CHECKING:
    from medfocus_bench.lvlm.adapter import HuggingFaceLVLM


def tune(
    source: str,
    lvlm: str | HuggingFaceLVLM,
    benchmark: BenchmarkLike,
    mode: str = "direct",
    *,
    limit: int | None = None,
    config: RunConfig | None = None,
    engine: Engine | None = None,
    progress: Progress = no_progress,
) -> TunedPart:
    """Select the candidate with the best mean evidence AP on the dev samples of one LVLM and mode.

    A sample that a candidate cannot explain counts as 0. Of equal candidates the first wins.

    Args:
        source: The name or `module:Class` of a method with candidates.
        lvlm: A loaded one, or its source for `load_lvlm`.
        benchmark: A loaded one, its folder or its name.
        mode: "direct" or "reasoning".
        limit: Only the first so many samples.
        config: Target, seed and how the LVLM runs.
        engine: From `open_engine`; only its default, this process, works with a loaded LVLM.
        progress: Shows how far it is.

    Raises InputError for a method without candidates or one that cannot explain the LVLM, where dev has no
    samples of the LVLM and mode, and where no candidate can explain any of them.
    """
    config = config or RunConfig()
    benchmark = load_benchmark(benchmark)
    method = tunable(source)
    key = lvlm_key(lvlm) if isinstance(lvlm, str) else lvlm.key
    refuse_families([method], [lvlm] if isinstance(lvlm, str) else [])
    samples = dev_samples(benchmark, key, mode)[:limit]
    if not samples:
        raise InputError(f"limit {limit}: leaves no sample of dev to tune on")
    outputs = (engine or InProcess()).run(_Try(source, lvlm, config), samples)
    tried: dict[str, _Tried] = {}
    for sample, one in progress(outputs, f"{key} {mode}", len(samples)):
        if isinstance(one, Lost):
            raise InputError(f"{sample.sample_id}: {source} cannot be tuned: {one.reason}")
        tried[sample.sample_id] = one
    ordered = [tried[sample.sample_id] for sample in samples]
    failed = np.array([[reason is not None for reason in one.reasons] for one in ordered]).sum(0)
    if (failed == len(samples)).all():
        raise InputError(f"{source}: no candidate could explain a sample of dev: {ordered[-1].reasons[-1]}")
    scores = np.array([one.scores for one in ordered])
    ranked = _ranked(ordered[0].settings, scores, failed, samples, config.seed)
    return TunedPart(
        samples=len(samples),
        patients=len({sample.patient for sample in samples}),
        seed=config.seed,
        dtype=config.dtype,
        framing=config.framing,
        quantise=config.quantise,
        decoding=config.decoding,
        pixels=config.pixels,
        chosen=ranked[0].settings,
        candidates=ranked,
    )


@dataclass(frozen=True, slots=True)
class _Tried:
    """One sample with every candidate: its settings, its evidence AP, and why it failed, if it did."""

    settings: list[dict[str, Any]]
    scores: list[float]
    reasons: list[str | None]


@dataclass(slots=True)
class _Try:
    """The work of tuning: explain a sample with every candidate. It keeps the methods that it has loaded."""

    source: str
    lvlm: str | HuggingFaceLVLM
    config: RunConfig
    _candidates: list[Mapping[str, Any]] = field(default_factory=list, repr=False)
    _methods: list[Method] = field(default_factory=list, repr=False)

    def __call__(self, sample: Sample) -> Iterator[_Tried]:
        lvlm = self.config.load(self.lvlm) if isinstance(self.lvlm, str) else self.lvlm
        if not self._methods:
            self._candidates = _candidates(self.source, lvlm)
            self._methods = [load_method(self.source, **settings) for settings in self._candidates]
            refuse_family(self._methods, getattr(lvlm, "family", None), lvlm.key)
        pairs = zip(self._methods, self._candidates, strict=True)
        named = [_named(method, settings) for method, settings in pairs]
        found = list(_explained(self._methods, self._candidates, lvlm, sample, self.config))
        scores = [evidence_ap(sample, one) if isinstance(one, Attribution) else 0.0 for one in found]
        yield _Tried(named, scores, [None if isinstance(one, Attribution) else reason(one) for one in found])


def _explained(
    methods: Sequence[Method],
    candidates: Sequence[Mapping[str, Any]],
    lvlm: HuggingFaceLVLM,
    sample: Sample,
    config: RunConfig,
) -> Iterator[Attribution | Exception]:
    """The attribution of a sample by each candidate, or the error."""
    try:
        example = encode_sample(lvlm, sample)
    except EXPECTED as error:
        if ends_run(error):
            raise
        yield from (error for _ in candidates)
        return
    explain_candidates = getattr(methods[0], "explain_candidates", None)
    if explain_candidates is not None:
        ask = partial(explain_candidates, lvlm, example, candidates, target=config.target, seed=config.seed)
        try:
            together = fitting(lvlm, f"tuning {methods[0].name}", ask)
        except EXPECTED as error:
            yield from (error for _ in candidates)
            return
        yield from (as_recorded(found, sample.sample_id) for found in together)
        return
    for method in methods:
        try:
            yield explain(method, lvlm, example, sample.sample_id, config)
        except EXPECTED as error:
            yield error


def dev_samples(benchmark: Benchmark, lvlm: str, mode: str) -> tuple[Sample, ...]:
    """The samples of dev of an LVLM and a mode. Raises InputError if missing."""
    samples = tuple(
        sample
        for sample in benchmark.samples
        if (sample.split, sample.lvlm, sample.mode) == (DEV, lvlm, mode)
    )
    if not samples:
        raise InputError(
            f"{benchmark.name} {benchmark.version} has no {mode} samples of the LVLM {lvlm!r} in its split "
            f"{DEV}, and nothing is tuned on another"
        )
    assert {sample.split for sample in samples} == {DEV}
    return samples


def evidence_ap(sample: Sample, attribution: Attribution) -> float:
    """The headline score of one attribution; 0 where it explains nothing."""
    name = headline().name
    return score(attribution, sample, names=[name])[name]


def tunable(source: str) -> Method:
    """The method, whose settings can be chosen. Raises InputError for one without candidates."""
    method = load_method(source)
    if getattr(type(method), "candidates", Method.candidates) is Method.candidates:
        raise InputError(f"{source} declares no candidates, so that there is nothing to tune")
    return method


def _candidates(source: str, lvlm: HuggingFaceLVLM) -> list[Mapping[str, Any]]:
    candidates = list(tunable(source).candidates(lvlm))
    if not candidates:
        raise InputError(f"{source} has no candidates for {lvlm.key}, so that there is nothing to tune")
    return candidates


def _named(method: Method, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a candidate as JSON holds them."""
    values = hyperparameters(method)
    return {name: values[name] for name in settings}


def _ranked(
    named: list[dict[str, Any]],
    scores: FloatArray,
    failed: np.ndarray[Any, np.dtype[np.intp]],
    samples: tuple[Sample, ...],
    seed: int,
) -> list[Candidate]:
    """The candidates, best first; those that failed on every sample last."""
    groups = Groups.of(samples)
    (measured,) = groups.means(scores, [groups.pooled()], Settings(seed=seed))
    found = [
        Candidate(settings=settings, evidence_ap=ap.mean, low=ap.low, high=ap.high, failed=int(failures))
        for settings, ap, failures in zip(named, measured, failed, strict=True)
    ]
    return sorted(found, key=lambda one: (one.failed == len(samples), -one.evidence_ap))
