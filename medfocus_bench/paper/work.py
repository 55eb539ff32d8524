"""The runs that a target needs: done where they are missing, and read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.data.columns import Sample
from medfocus_bench.errors import InputError
from medfocus_bench.lvlm.registry import lvlm_key
from medfocus_bench.paper.request import PROMPTING_MEDSAM, Request, forget_loaded
from medfocus_bench.runs.attribute import attribute
from medfocus_bench.runs.methods import MethodSpec
from medfocus_bench.runs.records import Record, RecordFiles, read_failures


@dataclass(frozen=True)
class Work:
    """One method with its settings over samples of one benchmark; records go to `run`/<method>/.

    `name` is how the target speaks of it. `benchmark` holds the samples that it may be asked about.
    """

    name: str
    method: MethodSpec
    benchmark: Benchmark
    splits: tuple[str, ...]
    run: Path

    @property
    def folder(self) -> Path:
        return self.run / self.method.metadata.name

    @cached_property
    def held(self) -> Mapping[str, tuple[RecordFiles, Record]]:
        """The records by sample, as they are when this is first asked for."""
        found: dict[str, tuple[RecordFiles, Record]] = {}
        for files in RecordFiles.all_of(self.folder):
            found |= {record.entry.sample_id: (files, record) for record in files.read()}
        return found

    def record(self, sample: Sample) -> Record | None:
        found = self.held.get(sample.sample_id)
        return None if found is None else found[1]

    def attributions(self, samples: Iterable[Sample]) -> Iterator[tuple[Sample, Attribution | None]]:
        """What the records say of each sample, a map in memory at a time."""
        for sample in samples:
            found = self.held.get(sample.sample_id)
            yield sample, None if found is None else found[0].attribution(found[1])

    def reason(self, samples: Sequence[Sample]) -> str | None:
        """Why none of these samples has a record; None where one has."""
        if any(sample.sample_id in self.held for sample in samples):
            return None
        wanted = {sample.sample_id for sample in samples}
        for failure in read_failures(self.folder):
            if failure.sample_id in wanted:
                return failure.reason
        return "no records"


def perform(works: Sequence[Work], request: Request) -> dict[str, str]:
    """Runs what is missing, LVLM by LVLM, each loaded once.

    Returns, by the name of the work, why one cannot run here at all. Raises InputError, before any LVLM is
    loaded, for one that nobody knows and for a segmenter or detector that is given and cannot be loaded;
    later as `attribute` does.
    """
    needed = [work for work in works if pending(work, request.taken(work.splits, work.benchmark))]
    if needed:
        for source in request.sources.values():
            lvlm_key(source)
    impossible = {work.name: reason for work in needed if (reason := _impossible(work, request)) is not None}
    able = [work for work in works if work.name not in impossible]
    try:
        for key, source in request.sources.items():
            for group in _together(able):
                first = group[0]
                splits = [split for split in first.splits if _has(first.benchmark, key, split)]
                if not splits:
                    continue
                attribute(
                    [work.method for work in group],
                    first.benchmark,
                    first.run,
                    splits=splits,
                    lvlms=[source],
                    limit=request.limit,
                    conditions=request.sharing,
                    progress=request.progress,
                )
    finally:
        forget_loaded()
    return impossible


def missing(works: Sequence[Work], request: Request) -> tuple[int, int]:
    """How many of the records that these works need are missing, and how many they need."""
    taken = [(work, request.taken(work.splits, work.benchmark)) for work in works]
    return sum(len(pending(*one)) for one in taken), sum(len(samples) for _, samples in taken)


def pending(work: Work, samples: Iterable[Sample]) -> list[Sample]:
    """Those of the samples that have no record yet."""
    return [sample for sample in samples if sample.sample_id not in work.held]


def _has(benchmark: Benchmark, lvlm: str, split: str) -> bool:
    return any((sample.lvlm, sample.split) == (lvlm, split) for sample in benchmark.samples)


def _together(works: Sequence[Work]) -> list[list[Work]]:
    """Works that read the same samples into the same run: they share each reading."""
    groups: dict[tuple[Path, tuple[str, ...], int], list[Work]] = {}
    for work in works:
        groups.setdefault((work.run, work.splits, id(work.benchmark)), []).append(work)
    return list(groups.values())


def _impossible(work: Work, request: Request) -> str | None:
    """Why a method cannot run here: the vision models that it needs beside the LVLM cannot be had.

    Asked once, before the samples: otherwise each of them would fail with the same reason. A model that is
    given has to load (InputError); the ones that Prompting + MedSAM takes by default may be missing.
    """
    settings = work.method.settings
    prompting = work.method.source == PROMPTING_MEDSAM
    if not prompting and settings.get("segmenter") is None:
        return None
    from medfocus_bench.attribution.vision_models import MEDSAM, OWLV2, load_detector, load_segmenter

    load: Callable[..., object]
    wanted = [("segmenter", request.segmenter, MEDSAM)]
    if prompting:
        wanted.insert(0, ("detector", request.detector, OWLV2))
    for role, given, default in wanted:
        load = load_detector if role == "detector" else load_segmenter
        try:
            load(given or default, device=request.conditions.device)
        except InputError as error:
            if given is not None:
                raise
            return str(error)
    return None


def fresh(works: Sequence[Work]) -> list[Work]:
    """The works with their records read again."""
    return [replace(work) for work in works]
