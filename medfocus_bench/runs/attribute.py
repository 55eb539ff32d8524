"""Run attribution methods over a benchmark.

Every record is saved immediately, so that an interrupted run can be resumed.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.attribution.registry import load_method
from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.data.resolve import BenchmarkLike, load_benchmark, one_or_more
from medfocus_bench.data.sample import Sample
from medfocus_bench.engine.protocol import Engine, InProcess, Lost
from medfocus_bench.errors import InputError
from medfocus_bench.evaluation.nulls import NullControl
from medfocus_bench.lvlm.registry import lvlm_key
from medfocus_bench.progress import Progress, Say, no_progress, say_nothing
from medfocus_bench.runs.checkpoints import folder_identity
from medfocus_bench.runs.config import RunConfig
from medfocus_bench.runs.explaining import EXPECTED, Block, Explain, Explained, blocks, reason
from medfocus_bench.runs.methods import MethodSpec, chosen_methods, refuse_families
from medfocus_bench.runs.parts import Job, Part, PartOutcome
from medfocus_bench.runs.places import Places
from medfocus_bench.runs.run import Run, open_run
from medfocus_bench.runs.settings import (
    BenchmarkIdentity,
    PartSettings,
    RunSettings,
    part_name,
    place_of,
    write_settings,
)
from medfocus_bench.runs.shards import Shard
from medfocus_bench.runs.wanted import note_wanted
from medfocus_bench.submission.schema import MethodMetadata


@dataclass(frozen=True, slots=True, repr=False)
class RunResult:
    """The run of one or more methods in `folder`; `result["grad-cam"]` is the `Run` of one of them.

    Iterating over the result of one method reads its attributions, one at a time; `evaluate` takes it.
    """

    folder: Path
    methods: tuple[str, ...]
    outcomes: tuple[PartOutcome, ...]

    def __getitem__(self, method: str) -> Run:
        return open_run(self.folder, method)

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
    shard: Shard | None = None,
    wait: bool = False,
    engine: Engine | None = None,
    progress: Progress = no_progress,
    say: Say = say_nothing,
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
        shard: Only the samples of a shard; its records go to `out`/shard-<number>-of-<count>/<method>/.
        wait: Wait for another process that writes to `out`, and go on from there.
        engine: From `open_engine`: where the LVLMs run; by default in this process. Engines differ
            in nothing but the order of the records.
        progress: Shows how far the run is.
        say: Is told where each LVLM runs, before it is loaded.

    Returns:
        The run; iterating over it reads the attributions of its method.

    Raises InputError where `out` holds records of other settings or of another checkpoint of an LVLM, where
    another process writes to it, where it holds shards of another number, where settings were tuned under
    other conditions, for an unknown LVLM, config or split, for an LVLM without samples, and for a method that
    assumes of an LVLM what does not hold for its family.

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
    jobs = tuple(_jobs(part, _sources(part, one_or_more(lvlms)), splits, limit, shard))
    _refuse_families(specs, jobs)
    settings = _settings_of_run(specs, benchmark, jobs, config)
    places = Places(Path(out), shard, wait)
    with ExitStack() as stack:
        elsewhere = places.open(settings, stack)
        run = _Run(
            places.folder,
            benchmark,
            part,
            jobs,
            settings,
            elsewhere,
            config,
            engine or InProcess(),
            progress,
            say,
        )
        run.note_wanted()
        outcomes = [outcome for spec in specs if spec.control for outcome in run.null(spec, spec.control)]
        models = [spec for spec in specs if not spec.control]
        outcomes += run.models(models) if models else ()
    return RunResult(places.folder, tuple(settings), tuple(outcomes))


@dataclass(frozen=True, slots=True)
class _Run:
    """One call of `attribute`, by name of its methods: `settings`, and samples that are held `elsewhere`."""

    out: Path
    benchmark: Benchmark
    part: Benchmark
    jobs: tuple[Job, ...]
    settings: Mapping[str, RunSettings]
    elsewhere: Mapping[str, Collection[str]]
    config: RunConfig
    engine: Engine
    progress: Progress
    say: Say

    def folder(self, method: str) -> Path:
        return self.out / method

    def open_part(self, job: Job, method: str) -> Part:
        return Part(job, method, self.folder(method), self.benchmark, self.elsewhere[method])

    def note_wanted(self) -> None:
        """Write down, for `status`, what is wanted of each method."""
        for name in self.settings:
            wanted = {
                (job.lvlm, job.split): sum(s.sample_id not in self.elsewhere[name] for s in job.samples)
                for job in self.jobs
            }
            note_wanted(self.folder(name), wanted)

    def null(self, spec: MethodSpec, control: NullControl) -> Iterator[PartOutcome]:
        """A null control split by split: the prior of one may be made of all its samples."""
        name = spec.metadata.name
        write_settings(self.folder(name), self.settings[name])
        for split in dict.fromkeys(job.split for job in self.jobs):
            with ExitStack() as stack:
                parts = {
                    job.lvlm: stack.enter_context(self.open_part(job, name))
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

    def models(self, specs: Sequence[MethodSpec]) -> Iterator[PartOutcome]:
        """The methods that look at a model, an LVLM at a time."""
        work, names = Explain(specs, self.config), [spec.metadata.name for spec in specs]
        for lvlm in dict.fromkeys(job.lvlm for job in self.jobs):
            jobs = [job for job in self.jobs if job.lvlm == lvlm]
            with ExitStack() as stack:
                parts = {
                    (number, job.split): stack.enter_context(self.open_part(job, name))
                    for job in jobs
                    for number, name in enumerate(names)
                }
                self._explain(work, jobs, parts)
                yield from (part.outcome for part in parts.values())

    def _explain(self, work: Explain, jobs: Sequence[Job], parts: Mapping[tuple[int, str], Part]) -> None:
        """Fill the parts of one LVLM."""
        lacking = [
            (sample, numbers)
            for job in jobs
            for sample in job.samples
            if (numbers := _lacking(sample, parts, len(work.specs)))
        ]
        total = sum(len(numbers) for _, numbers in lacking)
        if not lacking:
            return
        for number, mode in {(n, sample.mode) for sample, numbers in lacking for n in numbers}:
            work.specs[number].load(jobs[0].lvlm, mode)  # what cannot be loaded is said before an LVLM is
        self.say(self.config.placed(jobs[0].lvlm))
        todo = blocks(jobs[0].source, lacking, self.engine.workers)
        outputs = self._outputs(work, todo, parts)
        splits = ", ".join(job.split for job in jobs)
        with closing(outputs):  # at an error workers end before it is told
            for one, part in self.progress(outputs, f"{jobs[0].lvlm} {splits}", total):
                if not one.lost:
                    part.begin(self.settings[part.outcome.method], one.checkpoint)
                if one.attribution is None:
                    part.fail(one.sample_id, one.reason or "")
                    continue
                try:
                    part.add(one.attribution, one.asked)
                except EXPECTED as error:
                    part.fail(one.sample_id, reason(error))

    def _outputs(
        self, work: Explain, todo: Iterable[Block], parts: Mapping[tuple[int, str], Part]
    ) -> Generator[tuple[Explained, Part], None, None]:
        """Everything that the engine makes of the blocks, with the part that it belongs to."""
        for block, output in self.engine.run(work, todo):
            splits = {sample.sample_id: sample.split for sample, _ in block.samples}
            if not isinstance(output, Lost):
                yield output, parts[output.method, splits[output.sample_id]]
                continue
            for sample, numbers in block.samples:
                for number in numbers:
                    part = parts[number, sample.split]
                    if sample.sample_id in part.pending:
                        yield Explained(sample.sample_id, number, None, output.reason, lost=True), part


def _lacking(sample: Sample, parts: Mapping[tuple[int, str], Part], methods: int) -> tuple[int, ...]:
    return tuple(n for n in range(methods) if sample.sample_id in parts[n, sample.split].pending)


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
    part: Benchmark,
    sources: Mapping[str, str],
    splits: Sequence[str],
    limit: int | None,
    shard: Shard | None,
) -> Iterator[Job]:
    for key, source in sources.items():
        for split in dict.fromkeys(splits):
            samples = [s for s in part.samples if s.lvlm == key and s.split == split][:limit]
            if shard is not None:
                samples = [sample for sample in samples if sample in shard]
            if samples:
                yield Job(key, source, split, tuple(samples))


def _refuse_families(specs: Sequence[MethodSpec], jobs: Sequence[Job]) -> None:
    """Raise InputError for methods that cannot explain one of the LVLMs, before any of them is loaded."""
    methods = [load_method(spec.source, **spec.settings) for spec in specs if spec.control is None]
    refuse_families(methods, dict.fromkeys(job.source for job in jobs))


def _settings_of_run(
    specs: Sequence[MethodSpec], benchmark: Benchmark, jobs: Sequence[Job], config: RunConfig
) -> dict[str, RunSettings]:
    """The settings of each method. Raises InputError for settings tuned under other conditions."""
    looking = any(spec.control is None for spec in specs)
    checkpoints = {job.lvlm: folder_identity(job.source) for job in jobs} if looking else {}
    return {spec.metadata.name: _settings(spec, benchmark, jobs, config, checkpoints) for spec in specs}


def _settings(
    spec: MethodSpec,
    benchmark: Benchmark,
    jobs: Iterable[Job],
    config: RunConfig,
    checkpoints: Mapping[str, str | None],
) -> RunSettings:
    looks = spec.control is None
    parts: dict[str, PartSettings] = {}
    if looks:
        for lvlm, mode in sorted({(job.lvlm, sample.mode) for job in jobs for sample in job.samples}):
            spec.check_conditions(lvlm, mode, config)
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
        quantise=config.quantise if looks else None,
        decoding=config.decoding if looks else None,
        pixels=config.pixels if looks else None,
        parts=parts,
    )
