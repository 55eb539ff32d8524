"""The runs behind a table: explain what has no record yet, and read the records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.data.sample import Sample
from medfocus_bench.errors import InputError
from medfocus_bench.evaluation.protocol import Settings
from medfocus_bench.evaluation.score import ScoredSamples, score_samples
from medfocus_bench.geometry import FloatArray
from medfocus_bench.lvlm.registry import lvlm_key
from medfocus_bench.paper.config import PROMPTING_MEDSAM, ReproduceConfig
from medfocus_bench.progress import once
from medfocus_bench.runs.attribute import attribute
from medfocus_bench.runs.methods import MethodSpec
from medfocus_bench.runs.parts import PartOutcome
from medfocus_bench.runs.records import Record, RunRecords, read_failures, read_records
from medfocus_bench.runs.shards import method_places


@dataclass(frozen=True, slots=True)
class RunSpec:
    """One method with its settings on splits of a benchmark; its records are in `run`, or in shards of it.

    `label` names it in the table; `benchmark` holds the samples to explain.
    """

    label: str
    method: MethodSpec
    benchmark: Benchmark
    splits: tuple[str, ...]
    run: Path

    @property
    def folders(self) -> list[Path]:
        """Where the records are: in the run itself and in its shards. Raises InputError for missing ones."""
        return method_places(self.run, self.method.metadata.name)


@dataclass(frozen=True, slots=True, eq=False)
class RunResults:
    """The records of a run by sample; `impossible`: the reason why the method cannot run here at all."""

    spec: RunSpec
    records: RunRecords
    impossible: str | None = None

    @classmethod
    def read(cls, spec: RunSpec, impossible: str | None = None) -> RunResults:
        return cls(spec, read_records(spec.folders), impossible)

    def missing(self, samples: Iterable[Sample]) -> list[Sample]:
        """Those of the samples that have no record yet."""
        return [sample for sample in samples if sample.sample_id not in self.records]

    def record(self, sample: Sample) -> Record | None:
        return self.records.record(sample.sample_id)

    def attribution(self, sample: Sample) -> Attribution | None:
        return self.records.attribution(sample.sample_id)

    def reason(self, samples: Sequence[Sample]) -> str | None:
        """Why there are no results on these samples; None where one of them has a record."""
        if self.impossible is not None:
            return self.impossible
        if any(sample.sample_id in self.records for sample in samples):
            return None
        wanted = {sample.sample_id for sample in samples}
        failures = (failure for folder in self.spec.folders for failure in read_failures(folder))
        return next((f.reason for f in failures if f.sample_id in wanted), "no records")

    def scores(self, samples: Sequence[Sample], settings: Settings) -> ScoredSamples:
        """The scores of the samples; one without a record scores 0."""
        attributions = ((sample, self.attribution(sample)) for sample in samples)
        return score_samples(samples, attributions, settings)

    def failures(self, samples: Sequence[Sample]) -> FloatArray:
        """1 where MedFocus found nothing that drives the response, else 0, also without a record: (n,)."""
        records = (self.record(sample) for sample in samples)
        return np.array([0.0 if r is None else r.diagnostics.get("failure", 0.0) for r in records])


def run_missing(
    specs: Sequence[RunSpec], config: ReproduceConfig
) -> tuple[list[PartOutcome], dict[str, str]]:
    """Run `attribute` on whatever has no record yet, LVLM by LVLM, so that each is loaded once.

    Returns the outcomes and, by the label of the spec, why one cannot run here at all. Raises InputError,
    before any LVLM is loaded, for an unknown one and for a segmenter or detector that is given and cannot be
    loaded; later as `attribute` does.
    """
    pending = [
        spec for spec in specs if RunResults.read(spec).missing(config.selected(spec.splits, spec.benchmark))
    ]
    if pending:
        for source in config.sources.values():
            lvlm_key(source)
    reasons = {spec.label: _impossible(spec, config) for spec in pending}
    impossible = {label: reason for label, reason in reasons.items() if reason is not None}
    able = [spec for spec in specs if spec.label not in impossible]
    outcomes: list[PartOutcome] = []
    say = once(config.say)
    for key, source in config.sources.items():
        for group in _sharing_samples(able):
            benchmark = group[0].benchmark
            present = {sample.split for sample in benchmark.samples if sample.lvlm == key}
            splits = [split for split in group[0].splits if split in present]
            if splits:
                outcomes += attribute(
                    [spec.method for spec in group],
                    benchmark,
                    group[0].run,
                    splits=splits,
                    lvlms=[source],
                    limit=config.limit,
                    config=config.run_config,
                    engine=config.engine,
                    progress=config.progress,
                    say=say,
                ).outcomes
    return outcomes, impossible


def count_missing(specs: Sequence[RunSpec], config: ReproduceConfig) -> tuple[int, int]:
    """The number of records that these runs lack, and the number that they need."""
    selected = [config.selected(spec.splits, spec.benchmark) for spec in specs]
    missing = [RunResults.read(spec).missing(samples) for spec, samples in zip(specs, selected, strict=True)]
    return sum(map(len, missing)), sum(map(len, selected))


def _sharing_samples(specs: Sequence[RunSpec]) -> Iterator[list[RunSpec]]:
    """Specs that explain the same samples into the same run: each sample is encoded once for all of them."""
    groups: dict[tuple[Path, tuple[str, ...], int], list[RunSpec]] = {}
    for spec in specs:
        groups.setdefault((spec.run, spec.splits, id(spec.benchmark)), []).append(spec)
    yield from groups.values()


def _impossible(spec: RunSpec, config: ReproduceConfig) -> str | None:
    """Why a method cannot run here: a vision model that it needs beside the LVLM cannot be loaded.

    Asked once, before the samples: otherwise each of them would fail with the same reason. A model that is
    given has to load (InputError); the defaults of Prompting + MedSAM may be missing.
    """
    settings = spec.method.settings
    prompting = spec.method.source == PROMPTING_MEDSAM
    if not prompting and settings.get("segmenter") is None:
        return None
    from medfocus_bench.attribution.vision_models import MEDSAM, OWLV2, load_detector, load_segmenter

    models: list[tuple[Callable[..., object], str | None, str]] = [(load_segmenter, config.segmenter, MEDSAM)]
    if prompting:
        models.insert(0, (load_detector, config.detector, OWLV2))
    for load, given, default in models:
        try:
            load(given or default, device=config.engine.device_here(config.run_config.device))
        except InputError as error:
            if given is not None:
                raise
            return str(error)
    return None
