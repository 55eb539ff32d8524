"""The sections of a report on the splits `control` and `contrast`, with the null controls beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.data.derived import CONTRAST, CONTROL, DERIVED_SPLITS
from medfocus_bench.data.sample import Sample
from medfocus_bench.errors import UnavailableError
from medfocus_bench.evaluation.contrast import Contrast, contrast_of, contrasts, pairs_of
from medfocus_bench.evaluation.dependence import Compared, Dependence, Find, compare_decoders, dependence_of
from medfocus_bench.evaluation.nulls import NULL_CONTROLS
from medfocus_bench.evaluation.protocol import Settings
from medfocus_bench.geometry import FloatArray

NULLS: Final = ("mean-map", "image-edges")
"""Null controls that find something, and read no model: their dependence and contrast are 0."""


def localised(benchmark: Benchmark, configs: Sequence[str], splits: Sequence[str]) -> Benchmark:
    """The part of a benchmark in these configs and splits on which localisation is scored: none derived."""
    return benchmark.select(configs, [split for split in splits if split not in DERIVED_SPLITS])


def dependence_on(
    benchmark: Benchmark, part: Benchmark, find: Find, settings: Settings, *, nulls: bool = True
) -> Dependence | None:
    """The dependence of a method on the LVLMs of `part`; None where that has no questions of `control`.

    Those of its questions count whose trained LVLM is asked in `part`, too. `find` gives the attributions.
    """
    asked = {sample.sample_id for sample in part.samples}
    control = tuple(sample for sample in benchmark.derived.of(CONTROL) if sample.derived_from in asked)
    if not control:
        return None
    beside = {name: _dependence_of_null(benchmark, control, name, settings.seed) for name in NULLS if nulls}
    return dependence_of(find, control, settings, {k: v for k, v in beside.items() if v is not None})


def contrast_on(
    benchmark: Benchmark, configs: Sequence[str], find: Find, settings: Settings, *, nulls: bool = True
) -> Contrast | None:
    """The contrast of a method on the questions of `contrast` in some configs; None where there are none."""
    samples = tuple(sample for sample in benchmark.derived.of(CONTRAST) if sample.source in configs)
    if not samples:
        return None
    beside = {name: _contrast_of_null(benchmark, samples, name, settings.seed) for name in NULLS if nulls}
    return contrast_of(find, samples, settings, {k: v for k, v in beside.items() if v is not None})


@lru_cache(maxsize=8)
def _dependence_of_null(
    benchmark: Benchmark, control: tuple[Sample, ...], name: str, seed: int
) -> Compared | None:
    """The scores of a null control on `control`; None where the benchmark lacks what it needs."""
    found = _null(benchmark, control, name, seed)
    return compare_decoders(found.get, control) if found else None


@lru_cache(maxsize=8)
def _contrast_of_null(
    benchmark: Benchmark, samples: tuple[Sample, ...], name: str, seed: int
) -> FloatArray | None:
    """The contrasts of a null control; None where the benchmark lacks what it needs."""
    found = _null(benchmark, samples, name, seed)
    return contrasts(found.get, pairs_of(samples)) if found else None


def _null(
    benchmark: Benchmark, samples: tuple[Sample, ...], name: str, seed: int
) -> Mapping[str, Attribution]:
    """The attributions of a null control for derived samples and those that they are made of.

    Empty where it lacks what it needs. The mean map is that of all regions of the benchmark.
    """
    whole = {sample.sample_id: sample for sample in benchmark.samples}
    wanted = {sample.sample_id: sample for sample in samples}
    wanted |= {s.derived_from: whole[s.derived_from] for s in samples if s.derived_from in whole}
    others = {sample.region: sample for sample in benchmark.samples}.values() if name == "mean-map" else ()
    given = [*wanted.values(), *(sample for sample in others if sample.sample_id not in wanted)]
    try:
        pairs = NULL_CONTROLS[name].make(given, seed)
        return {sample.sample_id: found for sample, found in pairs if sample.sample_id in wanted}
    except UnavailableError:
        return {}
