"""The paper's figures: their data as sections, and a drawing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from medfocus_bench.data.columns import Sample
from medfocus_bench.data.concepts import COMPOSITES, CONCEPTS
from medfocus_bench.drawing.bars import Bar, BarGroup, bar_chart
from medfocus_bench.drawing.concepts import ConceptDrawing, concept_panel
from medfocus_bench.drawing.overlay import fit, overlay, plain
from medfocus_bench.geometry import MODEL_SIZE, FloatArray
from medfocus_bench.paper.comparing import document, failure_column, parts_of
from medfocus_bench.paper.document import Column, Entry, Line, Measured, Reproduction, Section
from medfocus_bench.paper.measuring import Part, Samples
from medfocus_bench.paper.request import Request, with_samples
from medfocus_bench.paper.work import Work
from medfocus_bench.runs.records import Record

FAILURE: Final = "none (failure)"
MAX_PANELS: Final = 24
"""Panels that are drawn without a limit: the first of each LVLM and split, as many times as fit."""

_PICTURE: Final = (420, 520)
_SHARE: Final = Column(key="share", label="Per cent", digits=1)


def concept_frequencies(
    request: Request, works: Sequence[Work], impossible: Mapping[str, str]
) -> Reproduction:
    """How often MedFocus names each concept, source by source, LVLM by LVLM."""
    (work,) = works
    samples = Samples(request.taken(work.splits), request.settings)
    parts = parts_of(samples, by_mode=True)
    names = _vocabulary(work, samples.samples)
    winners = [winner(work.record(sample)) for sample in samples.samples]
    shares = 100.0 * np.array([[found == name for name in names] for found in winners])
    sections = _shares(work, samples, parts, names, shares)
    notes = [
        "Per cent of the samples for which it is the strongest concept, with 95 % intervals by patient. "
        "Composites hold more of the picture than their members, and win more often for that alone: no null "
        "control tells the two apart here, z at random places does (`attribute --set medfocus.places=20`).",
    ]
    if any(found is None for found in winners):
        notes.append(f"{sum(found is None for found in winners)} samples have no record and name nothing.")
    figure = request.out / "fig3.png"
    bar_chart("Concepts that MedFocus names, per cent", _groups(sections)).save(_ready(figure), "PNG")
    made = document(request, works, [_SHARE], sections, notes)
    return made.model_copy(update={"figures": [figure.name]})


def failure_rates(request: Request, works: Sequence[Work], impossible: Mapping[str, str]) -> Reproduction:
    """How often nothing that MedFocus fills drives the answer, by source, mode and LVLM."""
    (work,) = works
    samples = Samples(request.taken(work.splits), request.settings)
    values = failure_column(samples, work)
    sections = []
    for whole in [part for part in parts_of(samples, by_mode=True) if part.whole]:
        inside = {sample.sample_id for sample in samples.within(whole)}
        each = [samples.part(lvlm, _within(inside, lvlm)) for lvlm in whole.lvlms]
        shown = [Part("mean over LVLMs", whole.members, whole.lvlms), *each] if len(each) > 1 else each
        lines = []
        for part, (rate,) in zip(shown, samples.shares(values, shown), strict=True):
            reason = work.reason(samples.within(part))
            entries = {} if reason else {_SHARE.key: Entry(ours=rate)}
            lines.append(samples.line(part, part.title, entries, not_run=reason))
        sections.append(samples.section(whole, lines, averaged=False))
    notes = [
        "Per cent of the samples, with 95 % intervals by patient. A failure: nothing that is filled takes a "
        "quarter of the response's probability; the whole image is reported then. No null control applies: "
        "it asks no model.",
    ]
    figure = request.out / "fig6.png"
    bar_chart("Failures of MedFocus, per cent", _groups(sections)).save(_ready(figure), "PNG")
    made = document(request, works, [_SHARE], sections, notes)
    return made.model_copy(update={"figures": [figure.name]})


def concept_panels(request: Request, works: Sequence[Work], impossible: Mapping[str, str]) -> Reproduction:
    """A panel of tokens and concepts for the first samples of each LVLM and split."""
    (work,) = works
    taken = request.taken(work.splits)
    records = {sample.sample_id: work.record(sample) for sample in taken}
    drawn: list[str] = []
    sections = []
    pictures = with_samples(request.benchmark, taken)
    asked = {sample.sample_id: row for sample, row in pictures.rows(("question", "response"))}
    for sample, image in pictures.pictures():
        record = records[sample.sample_id]
        if record is None or image is None:
            continue
        files, _ = work.held[sample.sample_id]
        attribution = files.attribution(record)
        size = fit(sample.width, sample.height, _PICTURE)
        row = asked[sample.sample_id]
        sheet = concept_panel(
            ConceptDrawing(
                title=f"{work.method.metadata.title}, {sample.lvlm}",
                question=row["question"] or "",
                picture=overlay(image, attribution, size, MODEL_SIZE) or plain(image, size),
                tokens=list(attribution.tokens),
                concepts=attribution.concepts,
                response=row["response"] or "",
                note=f"named: {winner(record)}",
            )
        )
        name = f"fig5-{sample.sample_id}.png"
        sheet.save(_ready(request.out / name), "PNG", optimize=True)
        drawn.append(name)
        sections.append(_panel_section(sample, record))
    missing = len(taken) - len(drawn)
    notes = [
        "For each concept the sum of the positive drops of the log-probability when it is filled; for each "
        "token its drop when the strongest is. One sample each: no intervals, and no null control applies.",
        "The paper's own pictures may not be passed on, and which samples they were is not known here.",
    ]
    if missing:
        notes.append(f"{missing} of {len(taken)} samples have no record or no picture.")
    columns = [Column(key="drop", label="Drop", digits=3)]
    made = document(request, works, columns, sections, notes)
    return made.model_copy(update={"figures": drawn})


def panel_request(request: Request) -> Request:
    """The request with as few samples as make panels, where it has no limit itself."""
    if request.limit is not None:
        return request
    shown = [s for s in request.benchmark.samples if s.lvlm in request.sources and s.split != "dev"]
    pairs = {(sample.lvlm, sample.split) for sample in shown}
    return replace(request, limit=max(1, MAX_PANELS // max(1, len(pairs))))


def winner(record: Record | None) -> str | None:
    """The concept that a record of MedFocus names: the strongest, or `FAILURE`; None without a record."""
    if record is None:
        return None
    if record.diagnostics.get("failure") or not record.entry.concepts:
        return FAILURE
    return max(record.entry.concepts.items(), key=lambda one: one[1])[0]


def _vocabulary(work: Work, samples: Sequence[Sample]) -> list[str]:
    """The paper's concepts and composites, whatever else is named, and the failure."""
    named = {found for sample in samples if (found := winner(work.record(sample))) is not None}
    known = [*CONCEPTS, *COMPOSITES]
    return [*known, *sorted(named - {*known, FAILURE}), FAILURE]


def _shares(
    work: Work, samples: Samples, parts: Sequence[Part], names: Sequence[str], shares: FloatArray
) -> list[Section]:
    sections = []
    for part, found in zip(parts, samples.shares(shares, parts), strict=True):
        reason = work.reason(samples.within(part))
        if reason is not None:
            lines = [samples.line(part, work.method.metadata.title, {}, not_run=reason)]
        else:
            named = zip(names, found, strict=True)
            lines = [samples.line(part, name, {_SHARE.key: Entry(ours=share)}) for name, share in named]
        sections.append(samples.section(part, lines))
    return sections


def _groups(sections: Sequence[Section]) -> list[BarGroup]:
    return [
        BarGroup(section.title, [bar for line in section.lines for bar in _bars(line)])
        for section in sections
        if any(line.entries for line in section.lines)
    ]


def _bars(line: Line) -> Iterator[Bar]:
    entry = line.entries.get(_SHARE.key)
    if entry is not None and entry.ours is not None:
        yield Bar(line.name, entry.ours.value, entry.ours.low, entry.ours.high)


def _within(inside: set[str], lvlm: str) -> Callable[[Sample], bool]:
    return lambda sample: sample.sample_id in inside and sample.lvlm == lvlm


def _panel_section(sample: Sample, record: Record) -> Section:
    tokens = [
        (f"token {number}: {one.text.strip() or ascii(one.text)}", one.score)
        for number, one in enumerate(record.entry.tokens or [], start=1)
    ]
    figures = [*(record.entry.concepts or {}).items(), *tokens]
    lines = [Line(name=name, entries={"drop": Entry(ours=Measured(value=value))}) for name, value in figures]
    return Section(
        title=f"{sample.sample_id}: {winner(record)}", lvlms=[sample.lvlm], lines=lines, samples=1, patients=1
    )


def _ready(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
