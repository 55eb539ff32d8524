"""Turn the records of runs into a submission."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.data.resolve import BenchmarkLike, load_benchmark
from medfocus_bench.data.sample import Sample
from medfocus_bench.errors import InputError
from medfocus_bench.evaluation.score import score
from medfocus_bench.geometry import explains
from medfocus_bench.runs.records import Failure, RunRecords, read_failures, read_records
from medfocus_bench.runs.run import common_settings, method_folders
from medfocus_bench.runs.settings import (
    BenchmarkIdentity,
    RunSettings,
)
from medfocus_bench.runs.thinning import thinned
from medfocus_bench.submission.schema import MethodMetadata
from medfocus_bench.submission.writer import SubmissionWriter

MEASURED: Final = 200
"""Averaged maps that are scored before and after, evenly over the samples."""


@dataclass(frozen=True, slots=True)
class Thinning:
    """The effect of averaging `maps` maps: the evidence AP of `measured` of them before and after."""

    maps: int
    measured: int
    before: float
    after: float


@dataclass(slots=True)
class Packed:
    """Counts for a submission: all samples, with an attribution, with one that explains something, failed.

    `diagnostics`: the mean of each of the method's own figures, and how many samples have it. `thinning`:
    None where no map was averaged.
    """

    folder: Path
    method: MethodMetadata
    covers: str
    samples: int
    attributed: int = 0
    explained: int = 0
    failed: int = 0
    diagnostics: dict[str, tuple[float, int]] = field(default_factory=dict)
    thinning: Thinning | None = None


def pack(
    runs: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    method: str | None = None,
    benchmark: BenchmarkLike | None = None,
    submitters: Sequence[str | Mapping[str, str]] = ("anonymous",),
    version: str | None = None,
    display_name: str | None = None,
    licence: str | None = None,
    partial: bool = False,
    keep: bool = False,
    overwrite: bool = False,
) -> Packed:
    """Write the records of one method as a submission that covers their configs and splits.

    Args:
        runs: One or more folders that `attribute` wrote; those of shards are found in that of their run.
        out: The folder of the submission.
        method: Which of the methods of the runs; may be left out where there is one.
        benchmark: The one that was explained; by default where the run found it.
        submitters: Names, or dictionaries with name, affiliation and url.
        version: Of the method; by default that of the package.
        display_name: Of the method in tables; by default its title.
        licence: Of the method.
        partial: Accept samples without an attribution.
        keep: Store all maps unchanged; otherwise those of more than 64 cells a side are averaged to 64.
        overwrite: Replace an existing submission.

    Raises InputError for missing samples or shards, and for runs of different settings.
    """
    out = Path(out)
    given = [runs] if isinstance(runs, str | Path) else runs
    folders = method_folders([Path(run) for run in given], method, partial=partial)
    settings = common_settings(folders)
    whole = _benchmark(folders[0], settings, benchmark)
    records = read_records(folders)
    failures = [failure for folder in dict.fromkeys(folders) for failure in read_failures(folder)]
    tried = [*records.sample_ids, *(failure.sample_id for failure in failures)]
    part = _covered(whole, tried, folders[0])
    failed = {failure.sample_id: failure for failure in failures if failure.sample_id not in records}
    missing = [sample for sample in part.samples if sample.sample_id not in records]
    if missing and not partial:
        raise InputError(_incomplete(folders[0], missing, part, list(failed.values())))
    metadata = _metadata(settings, part, version, display_name, licence)
    packed = Packed(out, metadata, part.covers, len(part.samples), failed=len(failed))
    figures: dict[str, list[float]] = defaultdict(list)
    averaged: list[Sample] = []
    with SubmissionWriter(out, metadata, part, submitters=submitters, overwrite=overwrite) as writer:
        for sample in part.samples:
            recorded = records.attribution(sample.sample_id)
            if recorded is None:
                continue
            attribution = recorded if keep else _thinned(recorded)
            writer.add(attribution)
            if attribution is not recorded:
                averaged.append(sample)
            packed.attributed += 1
            packed.explained += _explains(attribution)
            for name, value in recorded.diagnostics.items():
                figures[name].append(value)
    packed.diagnostics = {name: (sum(values) / len(values), len(values)) for name, values in figures.items()}
    if averaged:
        packed.thinning = _thinning(averaged, records)
    return packed


def _thinned(attribution: Attribution) -> Attribution:
    if attribution.saliency is None:
        return attribution
    stored = thinned(attribution.saliency)
    return attribution if stored is attribution.saliency else replace(attribution, saliency=stored)


def _thinning(averaged: Sequence[Sample], records: RunRecords) -> Thinning:
    """Score some of the averaged maps before and after."""
    step = -(-len(averaged) // MEASURED)
    measured = averaged[::step]
    sums = [0.0, 0.0]
    for sample in measured:
        recorded = records.attribution(sample.sample_id)
        assert recorded is not None
        for number, attribution in enumerate((recorded, _thinned(recorded))):
            sums[number] += _evidence_ap(sample, attribution)
    before, after = (total / len(measured) for total in sums)
    return Thinning(len(averaged), len(measured), before, after)


def _evidence_ap(sample: Sample, attribution: Attribution) -> float:
    return score(attribution, sample, names=["evidence_ap"])["evidence_ap"]


def _benchmark(folder: Path, settings: RunSettings, given: BenchmarkLike | None) -> Benchmark:
    benchmark = load_benchmark(settings.opened if given is None else given)
    identity = BenchmarkIdentity.of(benchmark)
    if identity != settings.benchmark:
        raise InputError(
            f"{folder}: is of the benchmark {settings.benchmark}, but {benchmark.folder} is {identity}; "
            "run `attribute` again in another folder"
        )
    return benchmark


def _covered(benchmark: Benchmark, sample_ids: Iterable[str], folder: Path) -> Benchmark:
    tried = set(sample_ids)
    samples = [sample for sample in benchmark.known_samples if sample.sample_id in tried]
    if not samples:
        raise InputError(f"{folder}: holds no attributions yet; run `attribute` first")
    configs, splits = ({getattr(s, name) for s in samples} for name in ("source", "split"))
    return benchmark.select(sorted(configs), sorted(splits))


def _incomplete(folder: Path, missing: Sequence[Sample], part: Benchmark, failed: Sequence[Failure]) -> str:
    counts = Counter(f"{sample.lvlm} {sample.split}" for sample in missing)
    lacks = ", ".join(f"{name} {count}" for name, count in counts.items())
    failures = f"; {len(failed)} failed, the first with: {failed[0].reason}" if failed else ""
    lacking = {sample.sample_id for sample in missing}
    complete = sorted({sample.lvlm for sample in part.samples if sample.sample_id not in lacking})
    alone = ""
    if complete and {sample.lvlm for sample in missing}.isdisjoint(complete):
        flags = " ".join(f"--lvlm {lvlm}" for lvlm in complete)
        alone = f"; that is a run of {', '.join(complete)} alone, which `evaluate` scores with {flags}"
    return (
        f"{folder}: {len(missing)} of {len(part.samples)} samples are missing ({lacks}{failures}); "
        f"run `attribute` again to finish, or pack with --partial{alone}"
    )


def _metadata(
    settings: RunSettings, part: Benchmark, version: str | None, display_name: str | None, licence: str | None
) -> MethodMetadata:
    """The method with the settings of the parts that are in the submission."""
    names = {f"{sample.lvlm} {sample.mode}" for sample in part.samples}
    of_samples = {name: of for name, of in settings.parts.items() if name in names and of.tuned is not None}
    trained = {name: of for name, of in of_samples.items() if "@" not in name}
    parts = trained or of_samples  # copies have the settings of their LVLMs
    tuned = {name: of.tuned or {} for name, of in parts.items()}
    base = settings.method.hyperparameters
    values: dict[str, Any] = {
        name: value for name, value in base.items() if not any(name in chosen for chosen in tuned.values())
    }
    values |= {f"{part}: {name}": value for part, chosen in tuned.items() for name, value in chosen.items()}
    values |= {f"{name}: dev samples": of.dev_samples for name, of in parts.items() if of.dev_samples}
    values |= dict(_run_values(settings))
    changes: dict[str, Any] = {"hyperparameters": values, "tuned_on_dev": bool(tuned)}
    given = {"version": version, "display_name": display_name, "licence": licence}
    changes |= {name: value for name, value in given.items() if value is not None}
    return settings.method.model_copy(update=changes)


def _run_values(settings: RunSettings) -> Iterator[tuple[str, Any]]:
    for name in ("target", "seed", "dtype", "framing", "quantise", "decoding", "pixels"):
        value = getattr(settings, name)
        if value is not None:
            yield f"run: {name}", list(value) if isinstance(value, tuple) else value


def _explains(attribution: Attribution) -> bool:
    if attribution.saliency is not None:
        return explains(attribution.saliency)
    return attribution.boxes is not None and len(attribution.boxes) > 0
