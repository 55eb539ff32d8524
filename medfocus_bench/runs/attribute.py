"""Run attribution methods over a benchmark.

Every record is saved immediately, so that an interrupted run can be resumed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.attribution.protocol import Method, measured
from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.data.pixels import PictureError
from medfocus_bench.data.resolve import BenchmarkLike, load_benchmark, one_or_more
from medfocus_bench.data.sample import Sample
from medfocus_bench.errors import BenchmarkError, InputError, UnavailableError
from medfocus_bench.evaluation.nulls import NullControl
from medfocus_bench.lvlm.grid import Preprocessing
from medfocus_bench.lvlm.registry import kept_lvlm, lvlm_key
from medfocus_bench.progress import Progress, no_progress
from medfocus_bench.runs.checkpoints import folder_identity, loaded_identity
from medfocus_bench.runs.lock import exclusive
from medfocus_bench.runs.methods import MethodSpec, chosen_methods
from medfocus_bench.runs.records import (
    Failure,
    RecordFiles,
    RecordWriter,
    add_failure,
    forget_failures,
    read_failures,
)
from medfocus_bench.runs.run import Run, open_run
from medfocus_bench.runs.settings import (
    BenchmarkIdentity,
    PartSettings,
    RunSettings,
    check_settings,
    part_name,
    place_of,
    write_settings,
)
from medfocus_bench.submission.entry import to_entry
from medfocus_bench.submission.maps import as_stored
from medfocus_bench.submission.schema import MethodMetadata

if TYPE_CHECKING:
    from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
    from medfocus_bench.lvlm.example import EncodedExample, Target

EXPECTED = (InputError, ValueError)
"""Errors of a sample that cannot be explained; any other is a fault of the program."""


@dataclass(frozen=True, slots=True)
class RunConfig:
    """The settings of a run beside its methods; all but the device decide what it computes."""

    target: Target = "response"
    seed: int = 0
    dtype: str = "float32"
    framing: Preprocessing = "square"
    device: str = "cpu"

    def load(self, source: str) -> HuggingFaceLVLM:
        return kept_lvlm(source, framing=self.framing, dtype=self.dtype, device=self.device)

    @property
    def target_name(self) -> str:
        return self.target if isinstance(self.target, str) else "{}:{}".format(*self.target)


@dataclass(slots=True)
class PartOutcome:
    """Counts for one (method, LVLM, split): all samples, already on disk, newly attributed.

    `seconds` are those of the new ones; `reasons` say why samples could not be explained.
    """

    method: str
    lvlm: str
    split: str
    samples: int
    existing: int
    new: int = 0
    seconds: float = 0.0
    reasons: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, repr=False)
class RunResult:
    """The run of one or more methods in `folder`; `result["grad-cam"]` is the `Run` of one of them.

    Iterating over the result of one method reads its attributions, one at a time; `evaluate` takes it.
    """

    folder: Path
    methods: tuple[str, ...]
    outcomes: tuple[PartOutcome, ...]

    def __getitem__(self, method: str) -> Run:
        return open_run(self.folder / method)

    def __iter__(self) -> Iterator[Attribution]:
        return iter(self._only)

    def __repr__(self) -> str:
        new, existing = (sum(getattr(o, name) for o in self.outcomes) for name in ("new", "existing"))
        failed = sum(len(o.reasons) for o in self.outcomes)
        methods = ", ".join(self.methods)
        return f"RunResult({self.folder}: {methods}; {new} new, {existing} existing, {failed} failed)"

    @property
    def metadata(self) -> MethodMetadata:
        """The method with the settings that the run was made with."""
        return self._only.metadata

    @property
    def fingerprint(self) -> str:
        """Of the benchmark that was explained."""
        return self._only.fingerprint

    @property
    def _only(self) -> Run:
        if len(self.methods) != 1:
            raise InputError(
                f"{self.folder}: holds {', '.join(self.methods)}; choose one: result[{self.methods[0]!r}]"
            )
        return self[self.methods[0]]


def attribute(
    methods: str | Sequence[str | MethodSpec],
    benchmark: BenchmarkLike,
    out: str | Path,
    *,
    splits: str | Sequence[str] = (),
    lvlms: str | Sequence[str] = (),
    configs: str | Sequence[str] = (),
    limit: int | None = None,
    config: RunConfig | None = None,
    progress: Progress = no_progress,
) -> RunResult:
    """Explain the samples of a benchmark with every method; records go to `out`/<method>/.

    Records that `out` holds already are not computed again. Where a sample has no response the LVLM answers
    first, and question and response stand in the record. A sample that a method cannot explain is put on
    record as a failure and tried again by the next run; any other error ends the run, with all records so
    far in place.

    Args:
        methods: Names, as `choose_methods` takes them, or specs with their settings.
        benchmark: A loaded one, its folder or its name.
        out: The folder of the run; one process at a time writes to the folder of a method in it.
        splits: Which to explain; by default all.
        lvlms: Sources of `load_lvlm`; by default all LVLMs that have samples. Each explains its own samples.
        configs: Which to explain; by default all.
        limit: Only the first so many samples of every LVLM and split.
        config: Target, seed and how the LVLM runs.
        progress: Shows how far the run is.

    Returns:
        The run; iterating over it reads the attributions of its method.

    Raises InputError where `out` holds records of other settings or of another checkpoint of an LVLM, where
    another process writes to it, where settings were tuned under other conditions, for an unknown LVLM,
    config or split, and for an LVLM without samples.

    Example:
        >>> import medfocus_bench as mb
        >>> benchmark = mb.load_benchmark("phantom", split="dev")
        >>> run = mb.attribute("grad-cam", benchmark, "run", lvlms="phantom_qwen", limit=2)
        >>> run
        RunResult(run: grad-cam; 2 new, 0 existing, 0 failed)
        >>> [attribution.saliency.shape for attribution in run]
        [(8, 8), (8, 8)]

    """
    config = config or RunConfig()
    benchmark = load_benchmark(benchmark)
    splits = one_or_more(splits) or tuple(dict.fromkeys(sample.split for sample in benchmark.samples))
    specs = chosen_methods(one_or_more(methods))
    part = benchmark.part(one_or_more(configs), splits)
    jobs = tuple(_jobs(part, _sources(part, one_or_more(lvlms)), splits, limit))
    settings = _settings_of_run(specs, benchmark, jobs, config)
    run = _Run(Path(out), benchmark, part, jobs, settings, config, progress)
    with ExitStack() as stack:
        for name, wanted in settings.items():
            folder = run.folder(name)
            stack.enter_context(exclusive(folder))
            check_settings(folder, wanted)
            read_failures(folder)  # an unsound file is said now, and not by `pack` after hours of work
        outcomes = [outcome for spec in specs if spec.control for outcome in run.null(spec, spec.control)]
        models = [spec for spec in specs if not spec.control]
        outcomes += [outcome for job in jobs if models for outcome in run.job(job, models)]
    return RunResult(Path(out), tuple(settings), tuple(outcomes))


def encode_sample(lvlm: HuggingFaceLVLM, sample: Sample) -> EncodedExample:
    """The sample as an LVLM reads it; where it has no response, the LVLM writes one now.

    Raises one of `EXPECTED`: for a picture that cannot be decoded or a response without tokens, which
    concern this sample alone, and for a benchmark that cannot be read (see `ends_run`).
    """
    return lvlm.encode(sample.image, sample.question, sample.response, finding=sample.finding)


def ends_run(error: Exception) -> bool:
    """Whether an error concerns the whole benchmark: no pictures at all, a damaged file."""
    return isinstance(error, UnavailableError | BenchmarkError) and not isinstance(error, PictureError)


def explain(
    method: Method, lvlm: HuggingFaceLVLM, example: EncodedExample, sample_id: str, config: RunConfig
) -> Attribution:
    """The attribution of one sample by a method, with its cost, as it is stored.

    Raises InputError for a map with values that are not finite.
    """
    found = measured(method, lvlm, example, target=config.target, seed=config.seed)
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


@dataclass(frozen=True, slots=True)
class _Run:
    """One call of `attribute`; `settings` are those of its methods by name."""

    out: Path
    benchmark: Benchmark
    part: Benchmark
    jobs: tuple[_Job, ...]
    settings: Mapping[str, RunSettings]
    config: RunConfig
    progress: Progress

    def folder(self, method: str) -> Path:
        return self.out / method

    def null(self, spec: MethodSpec, control: NullControl) -> Iterator[PartOutcome]:
        """A null control split by split: the prior of one may be made of all its samples."""
        name = spec.metadata.name
        write_settings(self.folder(name), self.settings[name])
        for split in dict.fromkeys(job.split for job in self.jobs):
            with ExitStack() as stack:
                parts = {
                    job.lvlm: stack.enter_context(_Part(job, spec, self.folder(name), self.benchmark))
                    for job in self.jobs
                    if job.split == split
                }
                if any(part.pending for part in parts.values()):
                    of_split = self.part.select(self.part.configs, [split])
                    pairs = control.make(of_split.samples, self.config.seed)
                    for sample, attribution in self.progress(pairs, control.title, len(of_split.samples)):
                        if sample.lvlm in parts and sample.sample_id in parts[sample.lvlm].pending:
                            parts[sample.lvlm].add(attribution)
                yield from (part.outcome for part in parts.values())

    def job(self, job: _Job, specs: Sequence[MethodSpec]) -> list[PartOutcome]:
        """The methods that look at a model, on the samples of one job."""
        with ExitStack() as stack:
            parts = [
                stack.enter_context(_Part(job, spec, self.folder(spec.metadata.name), self.benchmark))
                for spec in specs
            ]
            if any(part.pending for part in parts):
                lvlm = self.config.load(job.source)
                checkpoint = loaded_identity(lvlm)
                known = [part.settings(self.settings[part.outcome.method], checkpoint) for part in parts]
                for part, settings in zip(parts, known, strict=True):
                    part.begin(settings)
                self._explain(job, parts, lvlm)
            return [part.outcome for part in parts]

    def _explain(self, job: _Job, parts: Sequence[_Part], lvlm: HuggingFaceLVLM) -> None:
        """Encode each sample once for all the methods that lack it."""
        pending = set().union(*(part.pending for part in parts))
        samples = tuple(sample for sample in job.samples if sample.sample_id in pending)
        for sample in self.progress(samples, f"{job.lvlm} {job.split}", len(samples)):
            key = sample.sample_id
            lacking = [part for part in parts if key in part.pending]
            try:
                example = encode_sample(lvlm, sample)
            except EXPECTED as error:
                if ends_run(error):
                    raise
                for part in lacking:
                    part.fail(key, error)
                continue
            asked = (example.question, example.response) if sample.response is None else None
            for part in lacking:
                try:
                    method = part.methods[sample.mode]
                    part.add(explain(method, lvlm, example, key, self.config), asked)
                except EXPECTED as error:
                    part.fail(key, error)


class _Part:
    """One method on the samples of one job: its records, and which samples they lack."""

    def __init__(self, job: _Job, spec: MethodSpec, folder: Path, benchmark: Benchmark) -> None:
        self._job, self._folder, self._covers = job, folder, benchmark.covers
        self._samples = {sample.sample_id: sample for sample in job.samples}
        self._writer = RecordWriter(RecordFiles.of(self._folder, job.lvlm, job.split))
        self.pending = {key for key in self._samples if key not in self._writer.sample_ids}
        self.outcome = PartOutcome(
            spec.metadata.name, job.lvlm, job.split, len(job.samples), len(job.samples) - len(self.pending)
        )
        modes = {sample.mode for sample in job.samples} if spec.control is None else ()
        self.methods = {mode: spec.load(job.lvlm, mode) for mode in modes}

    def settings(self, wanted: RunSettings, checkpoint: str | None) -> RunSettings:
        """The settings of this part, with the checkpoint where loading the LVLM told it.

        Raises InputError where the records in the folder are of other settings.
        """
        names = {part_name(self._job.lvlm, sample.mode) for sample in self._job.samples}
        settings = wanted.of_parts(names, checkpoint)
        if self.pending:
            check_settings(self._folder, settings)
        return settings

    def begin(self, settings: RunSettings) -> None:
        """Write down the settings, and forget the failures that are tried again."""
        if self.pending:
            write_settings(self._folder, settings)
            forget_failures(self._folder, self.pending)

    def __enter__(self) -> _Part:
        return self

    def __exit__(self, *error: Any) -> None:
        self._writer.__exit__(*error)

    def add(self, attribution: Attribution, asked: tuple[str, str] | None = None) -> None:
        entry = to_entry(attribution, self._samples, self._covers, self.outcome.method)
        self._writer.add(entry, attribution, asked=asked)
        self.outcome.new += 1
        self.outcome.seconds += attribution.cost.seconds or 0.0

    def fail(self, sample_id: str, error: Exception) -> None:
        why = reason(error)
        self.outcome.reasons.append(why)
        failure = Failure(sample_id=sample_id, lvlm=self._job.lvlm, split=self._job.split, reason=why)
        add_failure(self._folder, failure)


def _sources(part: Benchmark, lvlms: Sequence[str]) -> dict[str, str]:
    """The source that loads each LVLM, by its key."""
    present = sorted({sample.lvlm for sample in part.samples})
    if not lvlms:
        return {key: key for key in present}
    sources = {key if key in present else lvlm_key(key): key for key in lvlms}
    for key in sources:
        if key not in present:
            raise InputError(f"no samples of the LVLM {key!r} in {part.covers}, only of {', '.join(present)}")
    return sources


def _jobs(
    part: Benchmark, sources: Mapping[str, str], splits: Sequence[str], limit: int | None
) -> Iterator[_Job]:
    for key, source in sources.items():
        for split in dict.fromkeys(splits):
            samples = [s for s in part.samples if s.lvlm == key and s.split == split]
            if samples:
                yield _Job(key, source, split, tuple(samples[:limit]))


def _settings_of_run(
    specs: Sequence[MethodSpec], benchmark: Benchmark, jobs: Sequence[_Job], config: RunConfig
) -> dict[str, RunSettings]:
    """The settings of each method. Raises InputError for settings tuned under other conditions."""
    looking = any(spec.control is None for spec in specs)
    checkpoints = {job.lvlm: folder_identity(job.source) for job in jobs} if looking else {}
    return {spec.metadata.name: _settings(spec, benchmark, jobs, config, checkpoints) for spec in specs}


def _settings(
    spec: MethodSpec,
    benchmark: Benchmark,
    jobs: Iterable[_Job],
    config: RunConfig,
    checkpoints: Mapping[str, str | None],
) -> RunSettings:
    looks = spec.control is None
    parts: dict[str, PartSettings] = {}
    if looks:
        for lvlm, mode in sorted({(job.lvlm, sample.mode) for job in jobs for sample in job.samples}):
            spec.check_conditions(lvlm, mode, config.dtype, config.framing)
            known = {"checkpoint": checkpoints[lvlm]}
            parts[part_name(lvlm, mode)] = spec.part(lvlm, mode).model_copy(update=known)
    return RunSettings(
        source=spec.source,
        method=spec.metadata,
        benchmark=BenchmarkIdentity.of(benchmark),
        opened=place_of(benchmark),
        target=config.target_name if looks else None,
        seed=config.seed,
        dtype=config.dtype if looks else None,
        framing=config.framing if looks else None,
        parts=parts,
    )
