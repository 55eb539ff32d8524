"""The cost of a run before it is made: methods on the samples of a benchmark, or on those of the paper."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.data.resolve import BenchmarkLike, load_benchmark, one_or_more
from medfocus_bench.data.sample import Sample
from medfocus_bench.engine.devices import named_device
from medfocus_bench.errors import InputError
from medfocus_bench.lvlm.models import PAPER_LVLMS
from medfocus_bench.lvlm.registry import lvlm_key
from medfocus_bench.paper.costs import (
    DECLARED,
    GRAPHS,
    WRITING,
    Origin,
    Pace,
    Passes,
    Plan,
    PlanLine,
    TimeOrigin,
    check_pace,
    pace_of,
    passes_of,
    seconds_of,
    size,
)
from medfocus_bench.paper.published import KEPT, SECONDS
from medfocus_bench.runs.config import RunConfig
from medfocus_bench.runs.explaining import encode_sample
from medfocus_bench.runs.methods import MethodSpec, chosen_methods
from medfocus_bench.runs.records import Record, RecordFiles
from medfocus_bench.runs.run import is_run, methods_inside
from medfocus_bench.runs.settings import BenchmarkIdentity
from medfocus_bench.tables import Row, Table

if TYPE_CHECKING:
    from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
    from medfocus_bench.lvlm.example import EncodedExample

PAPER_TITLE: Final = "the benchmark of the paper"
PROBE: Final = "phantom_qwen"
"""The tiny LVLM on which the passes of a method are counted that nobody has declared."""


@dataclass(frozen=True, slots=True)
class Share:
    """`count` samples of an LVLM in a split; the first of them times the LVLM that `source` loads."""

    lvlm: str
    split: str
    count: int
    source: str
    first: Sample | None = None


def shares_of(benchmark: Benchmark, splits: Sequence[str] = (), lvlms: Sequence[str] = ()) -> list[Share]:
    """The samples of a benchmark by LVLM and split. Raises InputError for an LVLM without samples."""
    part = benchmark.part((), splits or tuple(benchmark.splits))
    present = sorted({sample.lvlm for sample in part.samples})
    sources = {name if name in present else lvlm_key(name): name for name in lvlms or present}
    grouped: dict[tuple[str, str], list[Sample]] = {}
    for sample in part.samples:
        grouped.setdefault((sample.lvlm, sample.split), []).append(sample)
    _check(sources, present)
    return [
        Share(lvlm, split, len(samples), sources[lvlm], samples[0])
        for (lvlm, split), samples in sorted(grouped.items())
        if lvlm in sources
    ]


def shares_of_paper(splits: Sequence[str] = (), lvlms: Sequence[str] = ()) -> list[Share]:
    """The published counts of the paper's benchmark, by LVLM and mode."""
    modes = list(dict.fromkeys(mode for mode, _, _ in KEPT))
    for split in splits:
        if split not in modes:
            raise InputError(f"--split {split}: the paper's benchmark has {' and '.join(modes)}")
    keys = [lvlm_key(name) for name in lvlms] or list(PAPER_LVLMS)
    _check(keys, PAPER_LVLMS)
    return [
        Share(lvlm, mode, sum(n for (m, _, of), n in KEPT.items() if (m, of) == (mode, lvlm)), lvlm)
        for lvlm in keys
        for mode in modes
        if not splits or mode in splits
    ]


def _check(keys: Iterable[str], present: Iterable[str]) -> None:
    for key in keys:
        if key not in present:
            raise InputError(f"no samples of the LVLM {key!r}, only of {', '.join(present)}")


def plan_run(
    methods: str | Sequence[str | MethodSpec] = tuple(SECONDS),
    benchmark: BenchmarkLike | None = None,
    *,
    splits: str | Sequence[str] = (),
    lvlms: str | Sequence[str] = (),
    config: RunConfig | None = None,
    records: str | Path | Sequence[str | Path] = (),
    times: int = 1,
    devices: int = 1,
    seconds_per_forward: float | None = None,
) -> Plan:
    """The cost of methods on the samples of a benchmark; of the paper's methods on its own, by default.

    Args:
        methods: Names, as `choose_methods` takes them, or specs with their settings.
        benchmark: A loaded one, its folder or its name; None for the paper's, of which the published counts
            are planned.
        splits: By default all.
        lvlms: By default all that have samples.
        config: Of the run; its framing, batch, device and dtype count.
        records: Folders of runs: passes, seconds and bytes of a sample are the means of their records.
        times: Counts all samples so often.
        devices: How many share the hours.
        seconds_per_forward: The pace of all LVLMs, in place of measured and published ones.

    An LVLM is loaded and timed where neither records nor the paper tell its seconds. Raises InputError for
    what is not there, for folders without records, and as loading an LVLM does.

    """
    splits, lvlms = one_or_more(splits), one_or_more(lvlms)
    if benchmark is None:
        title, shares = PAPER_TITLE, shares_of_paper(splits, lvlms)
    else:
        loaded = load_benchmark(benchmark)
        title, shares = str(BenchmarkIdentity.of(loaded)), shares_of(loaded, splits, lvlms)
    folders = [records] if isinstance(records, str | Path) else records
    return RunPlanner(
        title,
        chosen_methods(one_or_more(methods)),
        shares,
        config=config or RunConfig(),
        records=[Path(folder) for folder in folders],
        times=times,
        devices=devices,
        seconds_per_forward=seconds_per_forward,
    ).plan()


@dataclass(frozen=True)
class RunPlanner:
    """Plans methods on shares of a benchmark; its fields are the arguments of `plan_run`."""

    title: str
    methods: Sequence[MethodSpec]
    shares: Sequence[Share]
    config: RunConfig = field(default_factory=RunConfig)
    records: Sequence[Path] = ()
    times: int = 1
    devices: int = 1
    seconds_per_forward: float | None = None

    def plan(self) -> Plan:
        """The plan. Raises InputError as `plan_run` does."""
        check_pace(self.seconds_per_forward)
        for spec in self.methods:
            if spec.control is not None:
                raise InputError(f"{spec.source}: asks no LVLM and costs nothing to speak of; leave it out")
        lines = [
            self._line(spec, share) for share in self.shares for spec in self.methods
        ]  # an LVLM at a time, so that each is loaded once
        return Plan(
            target="run",
            title=self.title,
            times=self.times,
            devices=self.devices,
            paces=list(self._paces.values()),
            lines=lines,
            notes=[*_notes(lines), f"Framing: {self.config.framing}."],
        )

    def _line(self, spec: MethodSpec, share: Share) -> PlanLine:
        name, count = self._names[spec.source], self.times * share.count
        records = self._recorded.of(name, share)
        passes, origin = self._passes(spec, records)
        time = self._time(spec, share, passes, records)
        usual = not spec.settings and self.config.pixels is None
        graph = GRAPHS.get((name, share.lvlm, self.config.framing)) if usual else None
        return PlanLine.of((name, share.lvlm, share.split), count, count, passes, origin, time, graph)

    def _passes(self, spec: MethodSpec, records: Sequence[Record]) -> tuple[Passes, Origin]:
        name = self._names[spec.source]
        for found in (records, self._recorded.of(name)):
            made = passes_of(found)
            if made is not None:
                return made, "measured"
        if name in DECLARED and not spec.settings:
            return DECLARED[name], "declared"
        if name not in self._probed:
            self._probed[name] = probed_passes(spec)
        return self._probed[name], "measured"

    def _time(
        self, spec: MethodSpec, share: Share, passes: Passes, records: Sequence[Record]
    ) -> tuple[float, TimeOrigin]:
        """The seconds of a sample: given, of records, published, on the line of these, or timed here."""
        seconds, name = seconds_of(records), self._names[spec.source]
        if self.seconds_per_forward is None and seconds is not None:
            return seconds, "measured"
        if self.seconds_per_forward is None and share.lvlm in PAPER_LVLMS:
            if name in SECONDS and not spec.settings:
                return SECONDS[name], "published"
            fixed, each = published_line()
            return fixed + each * passes.together, "declared"
        if share.lvlm not in self._paces:
            device = named_device(self.config.device)
            self._paces[share.lvlm] = pace_of(
                share.lvlm, device, self.seconds_per_forward, lambda: self._encoded(share)
            )
        return self._paces[share.lvlm].of(passes)

    def _encoded(self, share: Share) -> tuple[HuggingFaceLVLM, EncodedExample]:
        assert share.first is not None  # only the paper's own LVLMs come without samples
        lvlm = self.config.load(share.source)
        return lvlm, encode_sample(lvlm, share.first)

    @cached_property
    def _names(self) -> dict[str, str]:
        return {spec.source: spec.metadata.name for spec in self.methods}

    @cached_property
    def _recorded(self) -> _Recorded:
        return _Recorded.read(self.records)

    @cached_property
    def _paces(self) -> dict[str, Pace]:
        return {}

    @cached_property
    def _probed(self) -> dict[str, Passes]:
        return {}


@dataclass(frozen=True, slots=True)
class _Recorded:
    """The folders of methods in runs and their shards, by the name of the method."""

    folders: Mapping[str, Sequence[Path]]

    @classmethod
    def read(cls, runs: Iterable[Path]) -> _Recorded:
        folders: dict[str, list[Path]] = {}
        for run in runs:
            inside = methods_inside(run) if is_run(run) else {}
            if not inside:
                raise InputError(f"{run}: holds no records; give the folder that `attribute` wrote")
            for name, places in inside.items():
                folders.setdefault(name, []).extend(places)
        return cls(folders)

    def of(self, method: str, share: Share | None = None) -> list[Record]:
        """The records of a method, all of them or those of a share."""
        return [record for folder in self.folders.get(method, ()) for record in _read(folder, share)]


def _read(folder: Path, share: Share | None) -> Iterator[Record]:
    files = RecordFiles.all_of(folder)
    if share is not None:
        files = [RecordFiles.of(folder, share.lvlm, share.split)]
    for one in files:
        yield from one.read()


def probed_passes(spec: MethodSpec) -> Passes:
    """Passes and bytes of a method with its settings, counted on a phantom and a tiny LVLM.

    Raises InputError where the method cannot explain it.
    """
    from medfocus_bench.attribution.protocol import measured

    samples = load_benchmark("phantom").select(["phantom"], ["direct"]).samples
    sample = next(sample for sample in samples if sample.lvlm == PROBE)
    lvlm = RunConfig(device="cpu").load(PROBE)
    example = encode_sample(lvlm, sample)
    found = measured(spec.load(PROBE, sample.mode), lvlm, example, target="response", seed=0)
    forward, backward = found.cost.forward_passes or 0, found.cost.backward_passes or 0
    return Passes(forward, backward, 0 if found.saliency is None else int(found.saliency.nbytes))


@cache
def published_line() -> tuple[float, float]:
    """Seconds of a sample, and of each of its passes: the line through the published seconds.

    Of methods whose passes do not depend on what an LVLM writes; least squares.
    """
    names = [name for name in SECONDS if name not in WRITING]
    passes = [DECLARED[name].together for name in names]
    each, fixed = np.polyfit(passes, [SECONDS[name] for name in names], 1)
    return float(fixed), float(each)


def _notes(lines: Sequence[PlanLine]) -> Iterator[str]:
    yield (
        "A backward pass counts as two forward ones. Declared passes are those of the default settings; "
        "measured ones were counted, over records or on a phantom."
    )
    timed = {line.timed for line in lines}
    if "published" in timed:
        yield (
            "Published seconds: of an A100, in direct mode, means over the paper's six LVLMs, which hold for "
            "the six together. The longer responses of the reasoning mode take more."
        )
    if "declared" in timed:
        fixed, each = published_line()
        yield (
            f"Declared seconds: {fixed:.2f} and {each:.3f} a pass, the line through the published ones; for "
            "methods and settings that the paper does not have."
        )
    if any(line.name in WRITING and line.passes == "declared" for line in lines):
        yield "Prompting methods take as many passes as they write tokens: declared by a guess."
    yield (
        "Hours on several devices: an even split. Not in them: loading LVLMs, and answers where the "
        "benchmark has none."
    )
    yield "Disk: records and maps of a run, without the weights of LVLMs."


def run_plan_tables(document: Plan, batch: int) -> list[Table]:
    """The cost by method and by LVLM, and the memory of graphs where it is known."""
    counted = "" if document.times == 1 else f", {document.times:,} times"
    hours = ("hours", *([f"on {document.devices:,}"] if document.devices > 1 else []))
    header = ("", "samples", "forward", "backward", "passes", "s/sample", "seconds", *hours, "disk")
    rows = [
        Row((name, *_cells(document, [line for line in document.lines if line.name == name])))
        for name in dict.fromkeys(line.name for line in document.lines)
    ]
    rows.append(Row(("all", *_cells(document, document.lines))))
    paces = [
        f"{pace.lvlm}: {pace.seconds:.3g} s a forward pass, {pace.origin} ({pace.device})"
        for pace in document.paces
    ]
    title = f"Plan of {document.title}{counted}"
    tables = [Table(title, header, tuple(rows), (*paces, *document.notes)), _by_lvlm(document, hours)]
    graphs = _graphs(document, batch)
    return [*tables, graphs] if graphs.rows else tables


def _cells(document: Plan, lines: Sequence[PlanLine]) -> tuple[str, ...]:
    """The cells of one method, its passes and seconds as means over samples; or of all, with sums."""
    if len({line.name for line in lines}) > 1:
        samples = sum({(line.lvlm, line.split): line.samples for line in lines}.values())
        sums = [
            f"{sum(line.missing * getattr(line, name) for line in lines):.3g} in all"
            for name in ("forward", "backward")
        ]
        stated = (*sums, "", "", "")
    else:
        counts = [line.samples for line in lines]
        samples = sum(counts)
        forward, backward, seconds = (
            f"{np.average([getattr(line, name) for line in lines], weights=counts):.3g}"
            for name in ("forward", "backward", "seconds")
        )
        passes, timed = (", ".join(sorted({getattr(p, name) for p in lines})) for name in ("passes", "timed"))
        stated = (forward, backward, passes, seconds, timed)
    return f"{samples:,}", *stated, *_hours(document, lines), size(sum(line.bytes for line in lines))


def _hours(document: Plan, lines: Sequence[PlanLine]) -> list[str]:
    """Hours on one device, and on several where they are given."""
    hours = sum(line.hours for line in lines)
    shared = [hours / document.devices] if document.devices > 1 else []
    return [f"{number:,.0f}" if number >= 1000 else f"{number:.3g}" for number in (hours, *shared)]


def _by_lvlm(document: Plan, hours: tuple[str, ...]) -> Table:
    rows = []
    for lvlm, split in dict.fromkeys((line.lvlm, line.split) for line in document.lines):
        lines = [line for line in document.lines if (line.lvlm, line.split) == (lvlm, split)]
        disk = size(sum(line.bytes for line in lines))
        rows.append(Row((f"{lvlm} {split}", f"{lines[0].samples:,}", *_hours(document, lines), disk)))
    return Table("By LVLM and split, all methods", ("", "samples", *hours, "disk"), tuple(rows))


def _graphs(document: Plan, batch: int) -> Table:
    known = {(p.name, p.lvlm): p.memory for p in document.lines if p.memory is not None}
    rows = [
        Row((f"{name}, {lvlm}", f"{each:.3g}", f"{batch * each:.3g}")) for (name, lvlm), each in known.items()
    ]
    notes = (
        "Measured at the true widths of these LVLMs in bfloat16, beside the weights; of others and of other "
        "methods it is not known here. Where a batch does not fit, half of it is tried.",
    )
    header = ("", "GiB a picture", f"GiB a batch of {batch}")
    return Table("Memory of the graph of a backward pass", header, tuple(rows), notes)
