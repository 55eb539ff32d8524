"""The configuration of a reproduction: the benchmark, the LVLMs and methods, and where records go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.data.sample import Sample
from medfocus_bench.engine.protocol import Engine, InProcess
from medfocus_bench.errors import InputError
from medfocus_bench.evaluation.protocol import RESAMPLES, Settings
from medfocus_bench.lvlm.registry import lvlm_key
from medfocus_bench.progress import Progress, Say, no_progress, say_nothing
from medfocus_bench.runs.config import RunConfig
from medfocus_bench.runs.methods import MethodSpec, with_tuning
from medfocus_bench.runs.tuning import read_tuning

PHANTOM: Final = "phantom"
"""The source whose references and anatomy are those of the shipped pool."""

MEDFOCUS: Final = "medfocus"
PROMPTING_MEDSAM: Final = "prompting-medsam"


@dataclass(frozen=True)
class ReproduceConfig:
    """Choices that all tables and figures share.

    Args:
        out: the folder for tables and figures.
        runs: the folder of records, which every table reads and adds to.
        lvlms: the LVLMs to explain; all of the benchmark by default.
        methods: the methods of a table to keep; all by default.
        limit: the number of samples of each LVLM and split, the first ones.
        references: the pool of MedFocus.
        segmenter: the segmenter of MedFocus and of Prompting + MedSAM.
        detector: the detector of Prompting + MedSAM.
        tuned: files of `tune`.
        engine: from `open_engine`: where the LVLMs run.
    """

    benchmark: Benchmark
    out: Path
    runs: Path
    lvlms: Sequence[str] = ()
    methods: Sequence[str] = ()
    limit: int | None = None
    references: str | None = None
    segmenter: str | None = None
    detector: str | None = None
    tuned: Sequence[Path] = ()
    run_config: RunConfig = field(default_factory=RunConfig)
    resamples: int = RESAMPLES
    engine: Engine = field(default_factory=InProcess)
    progress: Progress = no_progress
    say: Say = say_nothing

    @cached_property
    def sources(self) -> Mapping[str, str]:
        """The source to load each LVLM from, by its key. Raises InputError for an LVLM without samples."""
        present = sorted({sample.lvlm for sample in self.benchmark.samples})
        sources = {name if name in present else lvlm_key(name): name for name in self.lvlms or present}
        for key in sources:
            if key not in present:
                raise InputError(
                    f"no samples of the LVLM {key!r} in the benchmark, only of {', '.join(present)}"
                )
        return sources

    @property
    def settings(self) -> Settings:
        return Settings("standard", self.run_config.seed, self.resamples)

    def splits(self, wanted: Sequence[str]) -> tuple[str, ...]:
        """Those of the wanted splits that the benchmark has. Raises InputError if it has none of them."""
        splits = tuple(split for split in wanted if split in self.benchmark.splits)
        if not splits:
            raise InputError(
                f"{self.benchmark.folder}: has no split {' or '.join(wanted)}, only "
                f"{', '.join(self.benchmark.splits)}"
            )
        return splits

    def selected(self, splits: Sequence[str], benchmark: Benchmark | None = None) -> tuple[Sample, ...]:
        """The first `limit` samples of each LVLM and split, in the order of the benchmark."""
        samples = (benchmark or self.benchmark).samples
        groups: dict[tuple[str, str], list[str]] = {}
        for sample in samples:
            if sample.lvlm in self.sources and sample.split in splits:
                groups.setdefault((sample.lvlm, sample.split), []).append(sample.sample_id)
        selected = {sample_id for group in groups.values() for sample_id in group[: self.limit]}
        return tuple(sample for sample in samples if sample.sample_id in selected)

    def method(self, name: str, **settings: Any) -> MethodSpec:
        """A method with its settings: those given here, those of this configuration, and tuned ones."""
        if name == MEDFOCUS:
            settings = {**self._medfocus(), **settings}
        if name == PROMPTING_MEDSAM:
            models = {"detector": self.detector, "segmenter": self.segmenter}
            settings |= {key: value for key, value in models.items() if value is not None}
        files = [path for path in self.tuned if self._tuned_method[path] == name]
        (method,) = with_tuning([MethodSpec(name, settings)], files, self.benchmark)
        return method

    @cached_property
    def _tuned_method(self) -> Mapping[Path, str]:
        return {path: read_tuning(path).method for path in self.tuned}

    def _medfocus(self) -> dict[str, Any]:
        """The pool and the segmenter of MedFocus.

        Raises InputError where radiographs would be explained with phantoms for references, unasked.
        """
        if self.references is None and set(self.benchmark.configs) != {PHANTOM}:
            raise InputError(
                "MedFocus needs references of the same kind as the pictures: make a pool with `reference "
                "build --source imagenome` and give it with --references, or give --references phantom to "
                "use the phantoms"
            )
        references = None if self.references == PHANTOM else self.references
        given = {"references": references, "segmenter": self.segmenter}
        return {name: value for name, value in given.items() if value is not None}


def with_samples(benchmark: Benchmark, samples: Sequence[Sample]) -> Benchmark:
    """The benchmark restricted to these of its rows."""
    return replace(benchmark, samples=tuple(samples))
