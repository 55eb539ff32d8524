"""The cost of a table before it is run: passes, hours and disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from medfocus_bench.data.sample import Sample
from medfocus_bench.errors import InputError
from medfocus_bench.paper.config import ReproduceConfig
from medfocus_bench.paper.runs import RunResults, RunSpec
from medfocus_bench.runs.explaining import encode_sample
from medfocus_bench.submission.schema import Finite, Strict
from medfocus_bench.tables import Row, Table

if TYPE_CHECKING:
    from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
    from medfocus_bench.lvlm.example import EncodedExample

Origin = Literal["measured", "declared"]

BACKWARD: Final = 2.0
"""A backward pass counts as this many forward passes."""

LINE_BYTES: Final = 2_000
"""Size of a record without its map: concepts and tokens of a short response."""

TIMED: Final = 3
"""Passes that are timed on a loaded LVLM."""


@dataclass(frozen=True, slots=True)
class Passes:
    """Passes and bytes of map per sample, with a method's settings in the paper."""

    forward: float
    backward: float = 0.0
    map_bytes: int = 0


_TOKENS: Final = 16 * 16 * 4
"""A float32 map on the grid of image tokens of a 224 px picture, or smaller."""

DECLARED: Final[Mapping[str, Passes]] = {
    "attention-head": Passes(1, map_bytes=_TOKENS),
    "attention-rollout": Passes(1, map_bytes=_TOKENS),
    "lrp": Passes(1, 1, _TOKENS),
    "gradient-weighted-attention": Passes(1, 1, _TOKENS),
    "grad-cam": Passes(1, 1, _TOKENS),
    "grad-cam-plus-plus": Passes(1, 1, _TOKENS),
    "integrated-gradients": Passes(38, 36, 224 * 224 * 4),
    "occlusion": Passes(65, map_bytes=_TOKENS),
    "rise": Passes(65, map_bytes=_TOKENS),
    "medfocus": Passes(16),
    "prompting": Passes(128),
    "prompting-medsam": Passes(64),
}
"""For methods without records. Of the prompting methods: about one pass for each generated token."""


class PlanLine(Strict):
    """One method on one LVLM and split; `bytes` and `hours` are those of the missing records."""

    name: str
    lvlm: str
    split: str
    samples: int
    missing: int
    forward: Finite
    backward: Finite
    passes: Origin
    bytes: int
    hours: Finite

    @classmethod
    def of(
        cls,
        part: tuple[str, str, str],
        samples: int,
        missing: int,
        passes: Passes,
        origin: Origin,
        pace: Pace | None,
    ) -> PlanLine:
        """The line of a part (name, LVLM, split) at a pace; None where nothing is missing."""
        name, lvlm, split = part
        each = passes.forward + BACKWARD * passes.backward
        return cls(
            name=name,
            lvlm=lvlm,
            split=split,
            samples=samples,
            missing=missing,
            forward=passes.forward,
            backward=passes.backward,
            passes=origin,
            bytes=missing * (LINE_BYTES + passes.map_bytes),
            hours=0.0 if pace is None else missing * each * pace.seconds / 3600,
        )


class Pace(Strict):
    """Seconds a forward pass of an LVLM."""

    lvlm: str
    seconds: Finite
    origin: Literal["measured", "given"]
    device: str


class Plan(Strict):
    """The content of `<target>-plan.json`."""

    format: Literal["medfocus-bench plan 1"] = "medfocus-bench plan 1"
    target: str
    title: str
    paces: list[Pace]
    lines: list[PlanLine]
    notes: list[str]

    @property
    def forwards(self) -> float:
        """Forward passes of what is missing, a backward pass as two."""
        return sum(line.missing * (line.forward + BACKWARD * line.backward) for line in self.lines)

    @property
    def hours(self) -> float:
        return sum(line.hours for line in self.lines)

    @property
    def bytes(self) -> int:
        return sum(line.bytes for line in self.lines)


def plan(
    name: str,
    title: str,
    specs: Sequence[RunSpec],
    config: ReproduceConfig,
    seconds_per_forward: float | None = None,
) -> Plan:
    """The records that a table lacks, and the cost of making them.

    Unless `seconds_per_forward` is given, every LVLM with missing records is loaded and timed on its first
    missing sample. Passes a sample are the mean of the existing records, or declared.
    """
    check_pace(seconds_per_forward)
    paces: list[Pace] = []
    lines: list[PlanLine] = []
    results = [RunResults.read(spec) for spec in specs]
    for key in config.sources:
        jobs = [
            (one, split, [s for s in config.selected((split,), one.spec.benchmark) if s.lvlm == key])
            for one in results
            for split in one.spec.splits
        ]
        lacking = [(one, missing[0]) for one, _, samples in jobs if (missing := one.missing(samples))]
        pace = None
        if lacking:
            (_, sample), *_ = lacking
            encode = partial(_encoded, config, key, sample)
            pace = pace_of(key, config.run_config.device, seconds_per_forward, encode)
            paces.append(pace)
        for one, split, samples in jobs:
            if samples:
                passes, origin = _passes(one, samples)
                part, lacks = (one.spec.label, key, split), len(one.missing(samples))
                lines.append(PlanLine.of(part, len(samples), lacks, passes, origin, pace))
    notes = [
        "The time of what is missing, one picture at a time; a backward pass counts as two forward ones. "
        "Not in it: loading, localising the anatomy, detector and segmenter of Prompting + MedSAM.",
        "Disk: records and maps, without the weights of the LVLMs.",
    ]
    if any(line.name.startswith("prompting") for line in lines):
        notes.append(
            "Prompting methods write text: their passes are as many as the tokens, declared by a guess."
        )
    return Plan(target=name, title=title, paces=paces, lines=lines, notes=notes)


def check_pace(seconds: float | None) -> None:
    """Raises InputError unless the seconds are positive and finite."""
    if seconds is not None and not 0 < seconds < float("inf"):
        raise InputError(f"--seconds-per-forward {seconds}: give a number above 0")


def pace_of(
    lvlm: str,
    device: str,
    given: float | None,
    encode: Callable[[], tuple[HuggingFaceLVLM, EncodedExample]],
) -> Pace:
    """The pace that is given, or that of an LVLM on an example of `encode`."""
    if given is not None:
        return Pace(lvlm=lvlm, seconds=given, origin="given", device=device)
    return Pace(lvlm=lvlm, seconds=seconds_a_pass(*encode()), origin="measured", device=device)


def plan_tables(document: Plan) -> list[Table]:
    """The lines with their totals, and below them the pace of each LVLM."""
    on_gpu = all(pace.device.startswith("cuda") for pace in document.paces)
    hours = "GPU hours" if on_gpu else "hours"
    header = ("", "samples", "missing", "forward", "backward", "passes", hours, "disk")
    rows = []
    for line in document.lines:
        counts = str(line.samples), str(line.missing), f"{line.forward:.4g}", f"{line.backward:.4g}"
        title = f"{line.name}, {line.lvlm} {line.split}"
        rows.append(Row((title, *counts, line.passes, f"{line.hours:.3g}", _size(line.bytes))))
    missing = sum(line.missing for line in document.lines)
    total = ("all", "", str(missing), f"{document.forwards:.4g} in all", "", "", f"{document.hours:.3g}")
    rows.append(Row((*total, _size(document.bytes))))
    paces = [
        f"{pace.lvlm}: {pace.seconds:.3g} s a forward pass, {pace.origin} ({pace.device})"
        for pace in document.paces
    ]
    title = f"Plan of {document.target}: {document.title}"
    return [Table(title, header, tuple(rows), (*paces, *document.notes))]


def seconds_a_pass(lvlm: HuggingFaceLVLM, example: EncodedExample) -> float:
    """The median time of a forward pass, after one that warms up."""
    times = []
    for _ in range(TIMED + 1):
        start = time.perf_counter()
        lvlm.token_scores(example, example.pixel_values[None]).cpu()
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:]))


def _encoded(config: ReproduceConfig, key: str, sample: Sample) -> tuple[HuggingFaceLVLM, EncodedExample]:
    lvlm = config.run_config.load(config.sources[key])
    return lvlm, encode_sample(lvlm, sample)


def _passes(results: RunResults, samples: Sequence[Sample]) -> tuple[Passes, Origin]:
    """The means of the existing records, else the passes that the method is known for."""
    records = [record for sample in samples if (record := results.record(sample)) is not None]
    costs = [cost for record in records if (cost := record.entry.cost) is not None]
    stated = [(c.forward_passes, c.backward_passes or 0) for c in costs if c.forward_passes is not None]
    if not stated:
        return DECLARED.get(results.spec.method.metadata.name, Passes(1)), "declared"
    forward, backward = np.mean(stated, axis=0)
    map_bytes = np.mean([0 if r.map is None else r.map.end - r.map.offset for r in records])
    return Passes(float(forward), float(backward), round(float(map_bytes))), "measured"


def _size(count: int) -> str:
    return f"{count / 2**20:.3g} MiB" if count < 2**30 else f"{count / 2**30:.3g} GiB"
