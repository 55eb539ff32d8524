"""Methods over the samples of a benchmark: each record written as it is made, a stopped run gone on with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.attribution.protocol import Method, measured
from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.data.columns import Sample
from medfocus_bench.data.resolve import BenchmarkLike, load_benchmark, one_or_more
from medfocus_bench.errors import InputError
from medfocus_bench.evaluation.nulls import NullControl
from medfocus_bench.lvlm.grid import Preprocessing
from medfocus_bench.lvlm.registry import load_lvlm, lvlm_key
from medfocus_bench.progress import Progress, no_progress
from medfocus_bench.runs.cases import cases, part_of
from medfocus_bench.runs.checkpoints import folder_identity, loaded_identity
from medfocus_bench.runs.methods import MethodSpec, chosen_methods
from medfocus_bench.runs.records import (
    Failure,
    RecordFiles,
    RecordWriter,
    add_failure,
    forget_failures,
    read_failures,
)
from medfocus_bench.runs.settings import (
    BenchmarkIdentity,
    PartSettings,
    RunSettings,
    check_settings,
    keep_settings,
    part_name,
    place_of,
)
from medfocus_bench.submission.maps import as_stored
from medfocus_bench.submission.writer import to_entry

if TYPE_CHECKING:
    from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
    from medfocus_bench.lvlm.example import EncodedExample, Target

EXPECTED = (InputError, ValueError)
"""What a sample that cannot be explained raises; anything else is a fault of the program."""


@dataclass(frozen=True, slots=True)
class RunConfig:
    """What, beside the methods, decides what a run computes; the device alone does not count."""

    target: Target = "response"
    seed: int = 0
    dtype: str = "float32"
    framing: Preprocessing = "square"
    device: str = "cpu"

    def load(self, source: str) -> HuggingFaceLVLM:
        return load_lvlm(source, framing=self.framing, dtype=self.dtype, device=self.device)

    @property
    def target_name(self) -> str:
        return self.target if isinstance(self.target, str) else "{}:{}".format(*self.target)


@dataclass(slots=True)
class PartOutcome:
    """What came of one method on one LVLM and split: of `samples`, `made` now, or had before."""

    method: str
    lvlm: str
    split: str
    samples: int
    had: int
    made: int = 0
    seconds: float = 0.0
    reasons: list[str] = field(default_factory=list)


def attribute(
    methods: str | Sequence[str | MethodSpec],
    benchmark: BenchmarkLike,
    out: str | Path,
    *,
    splits: str | Sequence[str],
    lvlms: str | Sequence[str] = (),
    configs: str | Sequence[str] = (),
    limit: int | None = None,
    conditions: RunConfig | None = None,
    progress: Progress = no_progress,
) -> list[PartOutcome]:
    """Explains the samples of a benchmark with every method; records go to `out`/<method>/.

    Methods are names, as `choose_methods` takes them, or methods that it made, with their settings.
    `lvlms` are sources of `load_lvlm`, by default the keys of all LVLMs of the part in `configs` and
    `splits`; each explains the samples that are its own, the first `limit` of every split. Where a sample has
    no response the LVLM answers now, and question and response stand in the record. What `out` holds
    already is not computed again. A sample that a method cannot explain is put on record as a failure, and
    tried again by the next run; any other error ends the run, with all records made so far in place.

    Raises InputError where `out` holds records of other settings or of another checkpoint of an LVLM, where
    settings were tuned under other conditions, for an unknown LVLM, config or split, and for an LVLM that
    has no samples.
    """
    conditions = conditions or RunConfig()
    benchmark, out = load_benchmark(benchmark), Path(out)
    methods, splits = chosen_methods(one_or_more(methods)), one_or_more(splits)
    part = part_of(benchmark, one_or_more(configs), splits)
    jobs = list(_jobs(part, _sources(part, one_or_more(lvlms)), splits, limit))
    models = [method for method in methods if method.control is None]
    checkpoints = {job.lvlm: folder_identity(job.source) for job in jobs} if models else {}
    folders = {method.metadata.name: out / method.metadata.name for method in methods}
    wanted = {
        method.metadata.name: _settings(method, benchmark, jobs, conditions, checkpoints)
        for method in methods
    }
    for name, settings in wanted.items():
        check_settings(folders[name], settings)
        read_failures(folders[name])  # an unsound file is said now, and not by `pack` after hours of work
    outcomes: list[PartOutcome] = []
    for method in methods:
        if method.control is not None:
            keep_settings(folders[method.metadata.name], wanted[method.metadata.name])
            outcomes += _run_null(method, method.control, part, jobs, folders, conditions.seed, progress)
    loaded: tuple[str, HuggingFaceLVLM] | None = None
    for job in jobs:
        with ExitStack() as stack:
            parts = [stack.enter_context(_Part(job, method, folders, benchmark)) for method in models]
            outcomes += [own.outcome for own in parts]
            if any(own.pending for own in parts):
                if loaded is None or loaded[0] != job.lvlm:
                    loaded = job.lvlm, conditions.load(job.source)
                checkpoint = loaded_identity(loaded[1])
                begun = [own.settings(wanted[own.outcome.method], checkpoint) for own in parts]
                for own, settings in zip(parts, begun, strict=True):
                    own.begin(settings)
                _run_job(job, parts, loaded[1], part, conditions, progress)
    return outcomes


def explain(
    method: Method, lvlm: HuggingFaceLVLM, example: EncodedExample, sample_id: str, conditions: RunConfig
) -> Attribution:
    """The attribution of one sample by a method, with its cost, as it is stored.

    Raises InputError for a map with values that are not finite.
    """
    found = measured(method, lvlm, example, target=conditions.target, seed=conditions.seed)
    return as_recorded(found, sample_id)


def as_recorded(found: Attribution, sample_id: str) -> Attribution:
    """The attribution of a sample, its map in a type that files hold."""
    saliency = None if found.saliency is None else as_stored(found.saliency)
    return replace(found, sample_id=sample_id, saliency=saliency)


def reason(error: Exception) -> str:
    """An error as one line of a table."""
    lines = str(error).strip().splitlines()
    return lines[0][:1000] if lines else type(error).__name__


@dataclass(frozen=True, slots=True)
class _Job:
    """The samples of one LVLM in one split."""

    lvlm: str
    source: str
    split: str
    samples: tuple[Sample, ...]


class _Part:
    """One method on the samples of one job: its records, and which samples they lack."""

    def __init__(
        self, job: _Job, method: MethodSpec, folders: Mapping[str, Path], benchmark: Benchmark
    ) -> None:
        name = method.metadata.name
        self._job, self._folder, self._covers = job, folders[name], benchmark.covers
        self._samples = {sample.sample_id: sample for sample in job.samples}
        self._writer = RecordWriter(RecordFiles.of(self._folder, job.lvlm, job.split))
        self.pending = {key for key in self._samples if key not in self._writer.held}
        self.outcome = PartOutcome(
            name, job.lvlm, job.split, len(job.samples), len(job.samples) - len(self.pending)
        )
        self.methods = (
            {mode: method.load(job.lvlm, mode) for mode in {sample.mode for sample in job.samples}}
            if method.control is None
            else {}
        )

    def settings(self, wanted: RunSettings, checkpoint: str | None) -> RunSettings:
        """Those of what is to be written, with the checkpoint where loading told it.

        Raises InputError where the records there are of others.
        """
        names = {part_name(self._job.lvlm, sample.mode) for sample in self._job.samples}
        settings = wanted.of_parts(names, checkpoint)
        if self.pending:
            check_settings(self._folder, settings)
        return settings

    def begin(self, settings: RunSettings) -> None:
        """Notes the settings of what is written from now on; failures that are tried again are forgotten."""
        if self.pending:
            keep_settings(self._folder, settings)
            forget_failures(self._folder, self.pending)

    def __enter__(self) -> _Part:
        return self

    def __exit__(self, *error: Any) -> None:
        self._writer.__exit__(*error)

    def add(self, attribution: Attribution, asked: tuple[str, str] | None = None) -> None:
        entry = to_entry(attribution, self._samples, self._covers, self.outcome.method)
        self._writer.add(
            entry,
            attribution.saliency,
            attribution.diagnostics,
            attribution.intervals,
            attribution.frame,
            asked=asked,
        )
        self.outcome.made += 1
        self.outcome.seconds += attribution.cost.seconds or 0.0

    def fail(self, sample_id: str, error: Exception) -> None:
        why = reason(error)
        self.outcome.reasons.append(why)
        failure = Failure(sample_id=sample_id, lvlm=self._job.lvlm, split=self._job.split, reason=why)
        add_failure(self._folder, failure)


def _sources(part: Benchmark, lvlms: Sequence[str]) -> dict[str, str]:
    """What loads each LVLM, by its key."""
    held = sorted({sample.lvlm for sample in part.samples})
    if not lvlms:
        return {key: key for key in held}
    sources = {key if key in held else lvlm_key(key): key for key in lvlms}
    for key in sources:
        if key not in held:
            raise InputError(f"no samples of the LVLM {key!r} in {part.covers}, only of {', '.join(held)}")
    return sources


def _jobs(
    part: Benchmark, sources: Mapping[str, str], splits: Sequence[str], limit: int | None
) -> Iterator[_Job]:
    for key, source in sources.items():
        for split in dict.fromkeys(splits):
            samples = [s for s in part.samples if s.lvlm == key and s.split == split]
            if samples:
                yield _Job(key, source, split, tuple(samples[:limit]))


def _settings(
    method: MethodSpec,
    benchmark: Benchmark,
    jobs: Iterable[_Job],
    conditions: RunConfig,
    checkpoints: Mapping[str, str | None],
) -> RunSettings:
    looks = method.control is None
    parts: dict[str, PartSettings] = {}
    if looks:
        for lvlm, mode in sorted({(job.lvlm, sample.mode) for job in jobs for sample in job.samples}):
            method.check_conditions(lvlm, mode, conditions.dtype, conditions.framing)
            known = {"checkpoint": checkpoints[lvlm]}
            parts[part_name(lvlm, mode)] = method.part(lvlm, mode).model_copy(update=known)
    return RunSettings(
        source=method.source,
        method=method.metadata,
        benchmark=BenchmarkIdentity.of(benchmark),
        opened=place_of(benchmark),
        target=conditions.target_name if looks else None,
        seed=conditions.seed,
        dtype=conditions.dtype if looks else None,
        framing=conditions.framing if looks else None,
        parts=parts,
    )


def _run_job(
    job: _Job,
    parts: Sequence[_Part],
    lvlm: HuggingFaceLVLM,
    part: Benchmark,
    conditions: RunConfig,
    progress: Progress,
) -> None:
    """Reads each sample once for all the methods that lack it."""
    wanted = set().union(*(own.pending for own in parts))
    samples = tuple(sample for sample in job.samples if sample.sample_id in wanted)
    found = cases(replace(part, samples=samples))
    for case in progress(found, f"{job.lvlm} {job.split}", len(samples)):
        key = case.sample.sample_id
        lacking = [own for own in parts if key in own.pending]
        try:
            example = case.read(lvlm)
        except EXPECTED as error:
            for own in lacking:
                own.fail(key, error)
            continue
        asked = (case.question, example.response) if case.response is None else None
        for own in lacking:
            try:
                own.add(explain(own.methods[case.sample.mode], lvlm, example, key, conditions), asked)
            except EXPECTED as error:
                own.fail(key, error)


def _run_null(
    null: MethodSpec,
    control: NullControl,
    part: Benchmark,
    jobs: Sequence[_Job],
    folders: Mapping[str, Path],
    seed: int,
    progress: Progress,
) -> Iterator[PartOutcome]:
    """A null control split by split: the prior of one may be made of all its samples."""
    for split in dict.fromkeys(job.split for job in jobs):
        own_jobs = [job for job in jobs if job.split == split]
        with ExitStack() as stack:
            own = {job.lvlm: stack.enter_context(_Part(job, null, folders, part)) for job in own_jobs}
            if any(of_lvlm.pending for of_lvlm in own.values()):
                of_split = part.select(part.configs, [split])
                made = control.make(of_split, seed)
                for sample, attribution in progress(made, control.title, len(of_split.samples)):
                    if sample.lvlm in own and sample.sample_id in own[sample.lvlm].pending:
                        own[sample.lvlm].add(attribution)
            yield from (of_lvlm.outcome for of_lvlm in own.values())
