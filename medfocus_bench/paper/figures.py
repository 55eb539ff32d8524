"""The paper's figures: their data as sections, and a drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from medfocus_bench.data.concepts import COMPOSITES, CONCEPTS
from medfocus_bench.data.sample import Sample
from medfocus_bench.drawing.bars import Bar, BarGroup, bar_chart
from medfocus_bench.drawing.concepts import ConceptDrawing, concept_panel
from medfocus_bench.drawing.overlay import fit, overlay, plain
from medfocus_bench.errors import UnavailableError
from medfocus_bench.geometry import MODEL_SIZE
from medfocus_bench.paper.config import ReproduceConfig
from medfocus_bench.paper.document import (
    ComparedValue,
    Estimate,
    Reproduction,
    ResultColumn,
    ResultRow,
    ResultSection,
)
from medfocus_bench.paper.engine import PaperTable, document
from medfocus_bench.paper.measuring import SampleSet, Selection, selections
from medfocus_bench.paper.runs import RunResults
from medfocus_bench.runs.records import Record

FAILURE: Final = "none (failure)"
MAX_PANELS: Final = 24
"""Panels that are drawn without a limit: the first of each LVLM and split, as many times as fit."""

_PANEL_SIZE: Final = (420, 520)
_SHARE: Final = ResultColumn(key="share", label="Per cent", digits=1)


def concept_frequencies(
    table: PaperTable, config: ReproduceConfig, results: Sequence[RunResults]
) -> Reproduction:
    """How often MedFocus names each concept, source by source, LVLM by LVLM."""
    (run,) = results
    samples = SampleSet(config.selected(run.spec.splits), config.settings)
    chosen = selections(samples.samples, table.by, each_lvlm=True)
    winners = [winner(run.record(sample)) for sample in samples.samples]
    known = [*CONCEPTS, *COMPOSITES]
    others = {name for name in winners if name is not None} - {*known, FAILURE}
    names = [*known, *sorted(others), FAILURE]
    values = 100.0 * np.array([[winning == name for name in names] for winning in winners])
    sections = []
    for selection, shares in zip(chosen, samples.estimates(values, chosen, share=True), strict=True):
        reason = run.reason(samples.within(selection))
        rows = [
            _share_row(samples, selection, name, one) for name, one in zip(names, shares or (), strict=True)
        ]
        if reason is not None:
            rows = [samples.row(selection, run.spec.method.metadata.title, {}, not_run=reason)]
        sections.append(samples.section(selection, rows))
    notes = [
        "Per cent of the samples for which it is the strongest concept, with 95 % intervals. "
        "Composites hold more of the picture than their members, and win more often for that alone: no null "
        "control tells the two apart here, z at random places does (`attribute --set medfocus.places=20`).",
    ]
    if None in winners:
        notes.append(f"{winners.count(None)} samples have no record and name nothing.")
    return _with_chart(table, config, results, sections, notes, "Concepts that MedFocus names, per cent")


def failure_rates(table: PaperTable, config: ReproduceConfig, results: Sequence[RunResults]) -> Reproduction:
    """How often nothing that MedFocus fills drives the response, by source, mode and LVLM."""
    (run,) = results
    samples = SampleSet(config.selected(run.spec.splits), config.settings)
    (failures,) = table.quantities
    values = failures.compute(run, samples)
    sections = []
    for whole in selections(samples.samples, table.by):
        inside = samples.within(whole)
        lvlms = sorted({sample.lvlm for sample in inside})
        shown = [Selection(lvlm, {**whole.values, "lvlm": lvlm}) for lvlm in lvlms]
        if len(shown) > 1:
            shown.insert(0, replace(whole, title="mean over LVLMs"))
        rows = []
        for selection, shares in zip(shown, samples.estimates(values, shown, share=True), strict=True):
            reason = run.reason(samples.within(selection))
            share = shares[0] if shares and reason is None else None
            rows.append(_share_row(samples, selection, selection.title, share, reason))
        sections.append(samples.section(whole, rows, averaged=False))
    notes = [
        "Per cent of the samples, with 95 % intervals. A failure: nothing that is filled takes a "
        "quarter of the response's probability; the whole image is reported then. No null control applies: "
        "it asks no model.",
    ]
    return _with_chart(table, config, results, sections, notes, "Failures of MedFocus, per cent")


def concept_panels(table: PaperTable, config: ReproduceConfig, results: Sequence[RunResults]) -> Reproduction:
    """A panel of tokens and concepts for the first samples of each LVLM and split."""
    (run,) = results
    selected = config.selected(run.spec.splits)
    drawn: list[str] = []
    sections = []
    for sample in selected:
        record, attribution = run.record(sample), run.attribution(sample)
        if record is None or attribution is None:
            continue
        try:
            image = sample.image
        except UnavailableError:
            continue
        size = fit(sample.width, sample.height, _PANEL_SIZE)
        sheet = concept_panel(
            ConceptDrawing(
                title=f"{run.spec.method.metadata.title}, {sample.lvlm}",
                question=sample.question,
                picture=overlay(image, attribution, size, MODEL_SIZE) or plain(image, size),
                tokens=list(attribution.tokens),
                concepts=attribution.concepts,
                response=sample.response or "",
                note=f"named: {winner(record)}",
            )
        )
        drawn.append(_save(sheet, config.out / f"fig5-{sample.sample_id}.png"))
        sections.append(_panel_section(sample, record))
    notes = [
        "For each concept the sum of the positive drops of the log-probability when it is filled; for each "
        "token its drop when the strongest is. One sample each: no intervals, and no null control applies.",
        "The paper's own pictures may not be passed on, and which samples they were is not known here.",
    ]
    if len(drawn) < len(selected):
        notes.append(f"{len(selected) - len(drawn)} of {len(selected)} samples have no record or no picture.")
    columns = [ResultColumn(key="drop", label="Drop", digits=3)]
    return document(table, config, results, sections, notes, columns, figures=drawn)


def few_panels(config: ReproduceConfig) -> ReproduceConfig:
    """Limit the samples to `MAX_PANELS`, unless the configuration has a limit."""
    if config.limit is not None:
        return config
    pairs = {
        (s.lvlm, s.split) for s in config.benchmark.samples if s.lvlm in config.sources and s.split != "dev"
    }
    return replace(config, limit=max(1, MAX_PANELS // max(1, len(pairs))))


def winner(record: Record | None) -> str | None:
    """The concept that a record of MedFocus names: the strongest, or `FAILURE`; None without a record."""
    if record is None:
        return None
    if record.diagnostics.get("failure") or not record.entry.concepts:
        return FAILURE
    return max(record.entry.concepts, key=record.entry.concepts.__getitem__)


def _share_row(
    samples: SampleSet, selection: Selection, name: str, share: Estimate | None, not_run: str | None = None
) -> ResultRow:
    entries = {} if share is None else {_SHARE.key: ComparedValue(ours=share)}
    return samples.row(selection, name, entries, not_run=not_run)


def _panel_section(sample: Sample, record: Record) -> ResultSection:
    tokens = [
        (f"token {number}: {one.text.strip() or ascii(one.text)}", one.score)
        for number, one in enumerate(record.entry.tokens or [], start=1)
    ]
    drops = [*(record.entry.concepts or {}).items(), *tokens]
    rows = [
        ResultRow(name=name, entries={"drop": ComparedValue(ours=Estimate(value=drop))})
        for name, drop in drops
    ]
    title = f"{sample.sample_id}: {winner(record)}"
    return ResultSection(title=title, lvlms=[sample.lvlm], lines=rows, samples=1, patients=1)


def _with_chart(
    table: PaperTable,
    config: ReproduceConfig,
    results: Sequence[RunResults],
    sections: Sequence[ResultSection],
    notes: Sequence[str],
    title: str,
) -> Reproduction:
    """The document of shares, and its bar chart beside it."""
    groups = []
    for section in sections:
        shares = [(row.name, row.entries[_SHARE.key].ours) for row in section.lines if row.entries]
        bars = [Bar(name, one.value, one.low, one.high) for name, one in shares if one is not None]
        groups += [BarGroup(section.title, bars)] if bars else []
    name = _save(bar_chart(title, groups), config.out / f"{table.name}.png")
    return document(table, config, results, sections, notes, [_SHARE], figures=[name])


def _save(sheet: Image.Image, path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, "PNG", optimize=True)
    return path.name
