"""Targets that lay methods, or variants of one, beside each other on the same samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from medfocus_bench._version import __version__
from medfocus_bench.data.columns import Sample
from medfocus_bench.geometry import FloatArray
from medfocus_bench.paper.ablate import variants
from medfocus_bench.paper.document import Column, Entry, Line, Measured, Reproduction, Section
from medfocus_bench.paper.measuring import SCORE_COLUMNS, Part, Samples, null_controls
from medfocus_bench.paper.published import MAIN_DIRECT, SECONDS
from medfocus_bench.paper.request import MEDFOCUS, Request, with_samples
from medfocus_bench.paper.work import Work, pending
from medfocus_bench.runs.settings import BenchmarkIdentity

METHODS: Final = tuple(MAIN_DIRECT)
"""The paper's methods, in its order."""

LOCALISATION: Final = "localisation"

PROTOCOLS_NOTE: Final = (
    "Per cent. IoU, F1, P, R: the paper's protocol; Evidence AP and the second IoU: the standard protocol. "
    "95 % intervals by patient."
)

_Published = Callable[[str, Part], Sequence[float] | None]


def method_works(request: Request, splits: Sequence[str], known: Sequence[str] = METHODS) -> list[Work]:
    """One work for each of the paper's methods that is asked for."""
    found = request.splits(splits)
    names = [name for name in known if not request.methods or name in request.methods]
    return [Work(name, request.chosen(name), request.benchmark, found, request.runs) for name in names]


def medfocus_work(request: Request, splits: Sequence[str]) -> Work:
    method = request.chosen(MEDFOCUS)
    return Work(MEDFOCUS, method, request.benchmark, request.splits(splits), request.runs)


def variant_works(request: Request, splits: Sequence[str], studies: Sequence[str]) -> list[Work]:
    """MedFocus as published, and with one setting of these studies changed at a time.

    The first shares its records with every target that runs MedFocus.
    """
    found = request.splits(splits)
    works = [Work("as published", request.chosen(MEDFOCUS), request.benchmark, found, request.runs)]
    for variant in variants(request.segmenter):
        if variant.study in studies:
            method = request.chosen(MEDFOCUS, **variant.settings)
            run = request.runs / "ablation" / variant.folder
            works.append(Work(f"{variant.study}: {variant.value}", method, request.benchmark, found, run))
    return works


def parts_of(samples: Samples, *, by_mode: bool = False) -> list[Part]:
    """For each source (and mode) the mean over its LVLMs, and then each of them where it has several."""
    keys = sorted({(s.source, s.mode if by_mode else "") for s in samples.samples})
    parts: list[Part] = []
    for source, mode in keys:
        title = f"{source}, {mode}" if mode else source

        def inside(sample: Sample, source: str = source, mode: str = mode) -> bool:
            return sample.source == source and mode in ("", sample.mode)

        whole = samples.part(title, inside)
        parts.append(whole)
        if len(whole.lvlms) > 1:
            parts += [
                samples.part(f"{title}, {lvlm}", _also(inside, lvlm), whole=False) for lvlm in whole.lvlms
            ]
    return parts


def _also(inside: Callable[[Sample], bool], lvlm: str) -> Callable[[Sample], bool]:
    return lambda sample: inside(sample) and sample.lvlm == lvlm


def main_table(request: Request, works: Sequence[Work], impossible: Mapping[str, str]) -> Reproduction:
    """The paper's methods and the null controls, source by source."""
    direct = works[0].splits == ("direct",)

    def published(name: str, part: Part) -> Sequence[float] | None:
        return MAIN_DIRECT.get(name, {}).get(part.title) if direct and part.whole else None

    notes = ["Published values are means over the paper's six LVLMs; ours over those that are named."]
    return _scored(request, works, impossible, published, notes=notes if direct else ())


def per_model(request: Request, works: Sequence[Work], impossible: Mapping[str, str]) -> Reproduction:
    """MedFocus of each LVLM, in both modes."""
    return _scored(request, works, impossible, lambda name, part: None, by_mode=True)


def varied(request: Request, works: Sequence[Work], impossible: Mapping[str, str]) -> Reproduction:
    """Variants of MedFocus, with how often each fails."""
    notes = ["One setting is changed at a time, the others are as published."]
    if request.segmenter is None and any(work.name.startswith(LOCALISATION) for work in works):
        notes.append("Refinement by MedSAM is left out: give its weights with --segmenter.")
    return _scored(request, works, impossible, lambda name, part: None, failures=True, notes=notes)


def seconds_table(request: Request, works: Sequence[Work], impossible: Mapping[str, str]) -> Reproduction:
    """Seconds and passes a sample of each method, as its records state them."""
    samples = Samples(request.taken(works[0].splits), request.settings)
    parts = parts_of(samples)
    names = ("seconds", "forward_passes", "backward_passes")
    lines: dict[str, list[Line]] = {part.title: [] for part in parts}
    for work in works:
        costs = np.full((len(samples.samples), len(names)), np.nan)
        for number, sample in enumerate(samples.samples):
            record = work.record(sample)
            if record is not None and record.entry.cost is not None:
                stated = [getattr(record.entry.cost, name) for name in names]
                costs[number] = [0.0 if value is None else value for value in stated]
        for part in parts:
            reason = impossible.get(work.name) or work.reason(samples.within(part))
            known = Part(part.title, part.members & ~np.isnan(costs[:, 0]), part.lvlms)
            entries = {name: Entry() for name in names}
            if reason is None and known.members.any():
                (measured,) = samples.means(costs, [known])
                entries = {name: Entry(ours=one) for name, one in zip(names, measured, strict=True)}
            stated_by_paper = SECONDS.get(work.name) if part.whole else None
            entries["seconds"] = Entry(published=stated_by_paper, ours=entries["seconds"].ours)
            lines[part.title].append(samples.line(part, _title(work), entries, not_run=reason))
    columns = [
        Column(key="seconds", label="Seconds a sample"),
        Column(key="forward_passes", label="Forward passes", digits=1),
        Column(key="backward_passes", label="Backward passes", digits=1),
    ]
    notes = [
        "Published: on an A100, means over six LVLMs. Ours: on the machine of the runs; the passes do not "
        "depend on it. No null control applies: they look at no model.",
    ]
    sections = [samples.section(part, lines[part.title]) for part in parts]
    return document(request, works, columns, sections, notes)


def document(
    request: Request,
    works: Sequence[Work],
    columns: Sequence[Column],
    sections: Sequence[Section],
    notes: Sequence[str],
) -> Reproduction:
    """The document of a target, which fills in its name, its title and what is published of it."""
    splits = list(dict.fromkeys(split for work in works for split in work.splits))
    return Reproduction(
        target="",
        title="",
        published="",
        benchmark=BenchmarkIdentity.of(request.benchmark),
        splits=splits,
        lvlms=[key for key in request.sources if key in {name for s in sections for name in s.lvlms}],
        limit=request.limit,
        seed=request.conditions.seed,
        resamples=request.resamples,
        evaluator_version=__version__,
        columns=list(columns),
        sections=list(sections),
        notes=list(notes),
    )


def _scored(
    request: Request,
    works: Sequence[Work],
    impossible: Mapping[str, str],
    published: _Published,
    *,
    by_mode: bool = False,
    failures: bool = False,
    notes: Sequence[str] = (),
) -> Reproduction:
    taken = request.taken(works[0].splits)
    samples = Samples(taken, request.settings)
    parts = parts_of(samples, by_mode=by_mode)
    lines: dict[str, list[Line]] = {part.title: [] for part in parts}
    said = [PROTOCOLS_NOTE, *notes]
    for work in request.progress(works, "Scoring methods", len(works)):
        measured = _measured(samples, work, parts, failures=failures)
        missing = len(pending(work, taken))
        if 0 < missing < len(taken):
            said.append(f"{_title(work)}: {missing} of {len(taken)} samples have no record and score 0.")
        for part, found in zip(parts, measured, strict=True):
            reason = impossible.get(work.name) or work.reason(samples.within(part))
            entries = _entries(None if reason else found, published(work.name, part), failures=failures)
            lines[part.title].append(samples.line(part, _title(work), entries, not_run=reason))
    controls, lacking = null_controls(
        samples, with_samples(request.benchmark, taken), progress=request.progress
    )
    for title, scores in controls.items():
        for part, one in zip(parts, samples.means(scores, parts), strict=True):
            entries = _entries(one, None, failures=False)
            lines[part.title].append(samples.line(part, title, entries, kind="control"))
    columns = [*SCORE_COLUMNS, *([Column(key="failures", label="Failures")] if failures else [])]
    sections = [samples.section(part, lines[part.title]) for part in parts]
    return document(request, works, columns, sections, [*said, *lacking])


def _measured(
    samples: Samples, work: Work, parts: Sequence[Part], *, failures: bool
) -> Sequence[Sequence[Measured] | None]:
    """The scores of a work, and behind them how often it fails where that is asked for.

    None where there are no records.
    """
    if work.reason(samples.samples) is not None:
        return [None] * len(parts)
    scores = samples.means(samples.scores(work), parts)
    if not failures:
        return scores
    rates = samples.shares(failure_column(samples, work), parts)
    return [[*own, *rate] for own, rate in zip(scores, rates, strict=True)]


def failure_column(samples: Samples, work: Work) -> FloatArray:
    """100 where MedFocus found nothing that drives the answer, else 0, also without a record: (n, 1)."""
    records = [work.record(sample) for sample in samples.samples]
    failed = [0.0 if record is None else record.diagnostics.get("failure", 0.0) for record in records]
    return 100 * np.array(failed)[:, None]


def _title(work: Work) -> str:
    return work.method.metadata.title if work.name in METHODS else work.name


def _entries(
    measured: Sequence[Measured] | None, published: Sequence[float] | None, *, failures: bool
) -> dict[str, Entry]:
    keys = [column.key for column in SCORE_COLUMNS] + (["failures"] if failures else [])
    stated = [*(published or ()), *[None] * len(keys)]
    ours = list(measured) if measured is not None else [None] * len(keys)
    return {key: Entry(published=stated[n], ours=ours[n]) for n, key in enumerate(keys)}
