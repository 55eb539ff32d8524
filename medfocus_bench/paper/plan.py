"""What a target would cost, before it is run: passes, hours and disk."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from medfocus_bench.data.columns import Sample
from medfocus_bench.errors import InputError
from medfocus_bench.paper.request import Request, forget_loaded, with_samples
from medfocus_bench.paper.work import Work, pending
from medfocus_bench.runs.cases import cases
from medfocus_bench.runs.records import Record
from medfocus_bench.submission.schema import Finite, Strict
from medfocus_bench.tables import Row, Table

if TYPE_CHECKING:
    from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
    from medfocus_bench.lvlm.example import EncodedExample

Origin = Literal["measured", "declared"]

BACKWARD: Final = 2.0
"""Forward passes that a backward pass is counted as."""

LINE_BYTES: Final = 2_000
"""Of a record, its map left out: concepts and tokens of a short response."""

TIMED: Final = 3
"""Passes that are timed on a loaded LVLM, after one that is not."""


@dataclass(frozen=True, slots=True)
class Passes:
    """Passes and bytes of map a sample, as a method's settings in the paper make them."""

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
"""For methods of which there is no record yet. Of the prompting methods: a pass a written token, about."""

_UNKNOWN: Final = Passes(1)


class PlanLine(Strict):
    """One method on one LVLM and split; `hours` are those of what is missing."""

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
    target: str, title: str, works: Sequence[Work], request: Request, seconds_per_forward: float | None = None
) -> Plan:
    """What is missing for a target, and what it would take.

    Unless `seconds_per_forward` is given, every LVLM that something is missing for is loaded and timed on
    its first missing sample. Passes a sample are the mean of the records that are there, or declared.
    """
    check_pace(seconds_per_forward)
    paces: list[Pace] = []
    lines: list[PlanLine] = []
    try:
        for key in request.sources:
            pairs = [(work, split) for work in works for split in work.splits]
            own = [(work, split, _samples(work, split, key, request)) for work, split in pairs]
            first = next(((w, missing[0]) for w, _, s in own if (missing := pending(w, s))), None)
            pace = None
            if first is not None:
                pace = _pace(key, *first, request, seconds_per_forward)
                paces.append(pace)
            lines += [_line(work, split, key, samples, pace) for work, split, samples in own if samples]
    finally:
        forget_loaded()
    notes = [
        "The time of what is missing, one picture at a time; a backward pass counts as two forward ones. "
        "Not in it: loading, localising the anatomy, detector and segmenter of Prompting + MedSAM.",
        "Disk: records and maps, without the weights of the LVLMs.",
    ]
    if any(line.name.startswith("prompting") for line in lines):
        notes.append(
            "Prompting methods write text: their passes are as many as the tokens, declared by a guess."
        )
    return Plan(target=target, title=title, paces=paces, lines=lines, notes=notes)


def check_pace(seconds: float | None) -> None:
    """Raises InputError for what is no time of a pass."""
    if seconds is not None and not 0 < seconds < float("inf"):
        raise InputError(f"--seconds-per-forward {seconds}: give a number above 0")


def plan_tables(document: Plan) -> list[Table]:
    """The lines with their totals, and how fast the LVLMs were taken to be."""
    on_gpu = all(pace.device.startswith("cuda") for pace in document.paces)
    hours = "GPU hours" if on_gpu else "hours"
    header = ("", "samples", "missing", "forward", "backward", "passes", hours, "disk")
    rows = [
        Row(
            (
                f"{line.name}, {line.lvlm} {line.split}",
                str(line.samples),
                str(line.missing),
                f"{line.forward:.4g}",
                f"{line.backward:.4g}",
                line.passes,
                f"{line.hours:.3g}",
                _size(line.bytes),
            )
        )
        for line in document.lines
    ]
    missing = sum(line.missing for line in document.lines)
    whole = ("all", "", str(missing), f"{document.forwards:.4g} in all", "", "", f"{document.hours:.3g}")
    rows.append(Row((*whole, _size(document.bytes))))
    paces = [
        f"{pace.lvlm}: {pace.seconds:.3g} s a forward pass, {pace.origin} ({pace.device})"
        for pace in document.paces
    ]
    title = f"Plan of {document.target}: {document.title}"
    return [Table(title, header, tuple(rows), (*paces, *document.notes))]


def seconds_a_pass(lvlm: HuggingFaceLVLM, reading: EncodedExample) -> float:
    """The median time of a forward pass of a reading, after one that warms up."""
    times = []
    for _ in range(TIMED + 1):
        start = time.perf_counter()
        lvlm.token_scores(reading, reading.pixel_values[None]).cpu()
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:]))


def _samples(work: Work, split: str, lvlm: str, request: Request) -> list[Sample]:
    return [s for s in request.taken((split,), work.benchmark) if s.lvlm == lvlm]


def _pace(lvlm: str, work: Work, sample: Sample, request: Request, given: float | None) -> Pace:
    device = request.conditions.device
    if given is not None:
        return Pace(lvlm=lvlm, seconds=given, origin="given", device=device)
    loaded = request.load(request.sources[lvlm])
    (case,) = cases(with_samples(work.benchmark, [sample]))
    seconds = seconds_a_pass(loaded, case.read(loaded))
    return Pace(lvlm=lvlm, seconds=seconds, origin="measured", device=device)


def _line(work: Work, split: str, lvlm: str, samples: Sequence[Sample], pace: Pace | None) -> PlanLine:
    missing = pending(work, samples)
    passes, origin = _passes(work, samples)
    each = passes.forward + BACKWARD * passes.backward
    seconds = 0.0 if pace is None else len(missing) * each * pace.seconds
    return PlanLine(
        name=work.name,
        lvlm=lvlm,
        split=split,
        samples=len(samples),
        missing=len(missing),
        forward=passes.forward,
        backward=passes.backward,
        passes=origin,
        bytes=len(missing) * (LINE_BYTES + passes.map_bytes),
        hours=seconds / 3600,
    )


def _passes(work: Work, samples: Sequence[Sample]) -> tuple[Passes, Origin]:
    """Means over the records that are there, else what the method is known for."""
    records = [record for sample in samples if (record := work.record(sample)) is not None]
    costs = [cost for record in records if (cost := record.entry.cost) is not None]
    stated = [
        (cost.forward_passes, cost.backward_passes or 0) for cost in costs if cost.forward_passes is not None
    ]
    if not stated:
        return DECLARED.get(work.method.metadata.name, _UNKNOWN), "declared"
    forward, backward = np.mean(stated, axis=0)
    return Passes(
        float(forward), float(backward), round(float(np.mean([_map_bytes(r) for r in records])))
    ), "measured"


def _map_bytes(record: Record) -> int:
    return 0 if record.map is None else record.map.end - record.map.offset


def _size(count: int) -> str:
    return f"{count / 2**20:.3g} MiB" if count < 2**30 else f"{count / 2**30:.3g} GiB"
