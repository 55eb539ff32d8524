"""What a reproduction works with: the benchmark, the LVLMs, and where records go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.data.columns import Sample
from medfocus_bench.errors import InputError
from medfocus_bench.evaluation.protocol import RESAMPLES, Settings
from medfocus_bench.lvlm.registry import lvlm_key
from medfocus_bench.progress import Progress, no_progress
from medfocus_bench.runs.attribute import RunConfig
from medfocus_bench.runs.methods import MethodSpec, with_tuning

if TYPE_CHECKING:
    from medfocus_bench.lvlm.adapter import HuggingFaceLVLM

PHANTOM: Final = "phantom"
"""The source whose references and anatomy are those of the shipped pool."""

MEDFOCUS: Final = "medfocus"
PROMPTING_MEDSAM: Final = "prompting-medsam"


@dataclass(frozen=True)
class Request:
    """What the user asks for.

    `runs` is the folder of the records, which any target reads and adds to. `references` is the pool of
    MedFocus, `segmenter` and `detector` the vision models of it and of Prompting + MedSAM. `methods` leaves
    only some of a target's methods; `tuned` are files of `tune`.
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
    conditions: RunConfig = field(default_factory=RunConfig)
    resamples: int = RESAMPLES
    progress: Progress = no_progress

    @cached_property
    def sources(self) -> Mapping[str, str]:
        """What loads each LVLM, by its key. Raises InputError for one that has no samples."""
        held = sorted({sample.lvlm for sample in self.benchmark.samples})
        found = {key if key in held else lvlm_key(key): key for key in self.lvlms or held}
        for key in found:
            if key not in held:
                raise InputError(
                    f"no samples of the LVLM {key!r} in the benchmark, only of {', '.join(held)}"
                )
        return found

    @property
    def settings(self) -> Settings:
        return Settings("standard", self.conditions.seed, self.resamples)

    def splits(self, wanted: Sequence[str]) -> tuple[str, ...]:
        """Those of the wanted splits that the benchmark has. Raises InputError if it has none of them."""
        found = tuple(split for split in wanted if split in self.benchmark.splits)
        if not found:
            raise InputError(
                f"{self.benchmark.folder}: has no split {' or '.join(wanted)}, only "
                f"{', '.join(self.benchmark.splits)}"
            )
        return found

    def taken(self, splits: Sequence[str], benchmark: Benchmark | None = None) -> tuple[Sample, ...]:
        """The first `limit` samples of each LVLM and split, in the order of the benchmark."""
        groups: dict[tuple[str, str], list[str]] = {}
        samples = (benchmark or self.benchmark).samples
        for sample in samples:
            if sample.lvlm in self.sources and sample.split in splits:
                groups.setdefault((sample.lvlm, sample.split), []).append(sample.sample_id)
        kept = {key for group in groups.values() for key in group[: self.limit]}
        return tuple(sample for sample in samples if sample.sample_id in kept)

    def chosen(self, name: str, **settings: Any) -> MethodSpec:
        """A method with the settings that this request gives it, those of its tuning file included."""
        given = dict(settings)
        if name == MEDFOCUS:
            given = {**self._medfocus(), **given}
        if name == PROMPTING_MEDSAM:
            models = {"detector": self.detector, "segmenter": self.segmenter}
            given |= {key: value for key, value in models.items() if value is not None}
        method = MethodSpec(name, given)
        return (
            with_tuning([method], [self._tuning[name]], self.benchmark)[0] if name in self._tuning else method
        )

    @cached_property
    def _tuning(self) -> Mapping[str, Path]:
        from medfocus_bench.runs.tuning import read_tuning

        return {read_tuning(path).method: path for path in self.tuned}

    def _medfocus(self) -> dict[str, Any]:
        """The pool and the segmenter of MedFocus.

        Raises InputError where radiographs would be explained with phantoms for references, unasked.
        """
        settings: dict[str, Any] = {}
        if self.references not in (None, PHANTOM):
            settings["references"] = self.references
        elif self.references is None and set(self.benchmark.configs) != {PHANTOM}:
            raise InputError(
                "MedFocus needs references of the same kind as the pictures: make a pool with `reference "
                "build --source imagenome` and give it with --references, or give --references phantom to go "
                "on with the phantoms"
            )
        if self.segmenter is not None:
            settings["segmenter"] = self.segmenter
        return settings

    def load(self, source: str) -> HuggingFaceLVLM:
        """The LVLM, kept until another one is loaded."""
        return _loaded(source, self.conditions)

    @property
    def sharing(self) -> RunConfig:
        """The conditions, under which runs of the same LVLM load it once."""
        given = self.conditions
        return _Sharing(given.target, given.seed, given.dtype, given.framing, given.device)


@dataclass(frozen=True, slots=True)
class _Sharing(RunConfig):
    def load(self, source: str) -> HuggingFaceLVLM:
        return _loaded(source, RunConfig(self.target, self.seed, self.dtype, self.framing, self.device))


@lru_cache(maxsize=1)
def _loaded(source: str, conditions: RunConfig) -> HuggingFaceLVLM:
    return conditions.load(source)


def forget_loaded() -> None:
    """Lets go of the LVLM that was loaded last."""
    _loaded.cache_clear()


def with_samples(benchmark: Benchmark, samples: Sequence[Sample]) -> Benchmark:
    """The benchmark with these of its rows for samples."""
    return replace(benchmark, samples=tuple(samples))
