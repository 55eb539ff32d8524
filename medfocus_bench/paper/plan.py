"""The cost of a table before it is run: passes, hours and disk."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from medfocus_bench.data.sample import Sample
from medfocus_bench.engine.devices import named_device
from medfocus_bench.paper.config import ReproduceConfig
from medfocus_bench.paper.costs import (
    DECLARED,
    WRITING,
    Origin,
    Pace,
    Passes,
    Plan,
    PlanLine,
    check_pace,
    pace_of,
    passes_of,
    size,
)
from medfocus_bench.paper.runs import RunResults, RunSpec
from medfocus_bench.runs.explaining import encode_sample
from medfocus_bench.tables import Row, Table

if TYPE_CHECKING:
    from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
    from medfocus_bench.lvlm.example import EncodedExample


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
            pace = pace_of(key, named_device(config.run_config.device), seconds_per_forward, encode)
            paces.append(pace)
        for one, split, samples in jobs:
            if samples:
                passes, origin = _passes(one, samples)
                part, lacks = (one.spec.label, key, split), len(one.missing(samples))
                time = pace.of(passes) if pace is not None else None
                lines.append(PlanLine.of(part, len(samples), lacks, passes, origin, time))
    notes = [
        "The time of what is missing, one picture at a time; a backward pass counts as two forward ones. "
        "Not in it: loading, localising the anatomy, detector and segmenter of Prompting + MedSAM.",
        "Disk: records and maps, without the weights of the LVLMs.",
    ]
    if any(line.name in WRITING for line in lines):
        notes.append(
            "Prompting methods write text: their passes are as many as the tokens, declared by a guess."
        )
    return Plan(target=name, title=title, paces=paces, lines=lines, notes=notes)


def plan_tables(document: Plan) -> list[Table]:
    """The lines with their totals, and below them the pace of each LVLM."""
    on_gpu = all(pace.device.startswith("cuda") for pace in document.paces)
    hours = "GPU hours" if on_gpu else "hours"
    header = ("", "samples", "missing", "forward", "backward", "passes", hours, "disk")
    rows = []
    for line in document.lines:
        counts = str(line.samples), str(line.missing), f"{line.forward:.4g}", f"{line.backward:.4g}"
        title = f"{line.name}, {line.lvlm} {line.split}"
        rows.append(Row((title, *counts, line.passes, f"{line.hours:.3g}", size(line.bytes))))
    missing = sum(line.missing for line in document.lines)
    total = ("all", "", str(missing), f"{document.forwards:.4g} in all", "", "", f"{document.hours:.3g}")
    rows.append(Row((*total, size(document.bytes))))
    paces = [
        f"{pace.lvlm}: {pace.seconds:.3g} s a forward pass, {pace.origin} ({pace.device})"
        for pace in document.paces
    ]
    title = f"Plan of {document.target}: {document.title}"
    return [Table(title, header, tuple(rows), (*paces, *document.notes))]


def _encoded(config: ReproduceConfig, key: str, sample: Sample) -> tuple[HuggingFaceLVLM, EncodedExample]:
    lvlm = config.run_config.load(config.sources[key])
    return lvlm, encode_sample(lvlm, sample)


def _passes(results: RunResults, samples: Sequence[Sample]) -> tuple[Passes, Origin]:
    """The means of the existing records, else the passes that the method is known for."""
    records = [record for sample in samples if (record := results.record(sample)) is not None]
    made = passes_of(records)
    if made is not None:
        return made, "measured"
    return DECLARED.get(results.spec.method.metadata.name, Passes(1)), "declared"
