"""The paper's tables and figures as declarations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from medfocus_bench.data.columns import GROUPS
from medfocus_bench.data.questions import MODES
from medfocus_bench.data.sample import Sample
from medfocus_bench.errors import InputError
from medfocus_bench.paper import figures
from medfocus_bench.paper.ablate import variants
from medfocus_bench.paper.config import MEDFOCUS, ReproduceConfig, with_samples
from medfocus_bench.paper.document import (
    ComparedValue,
    Estimate,
    Reproduction,
    ResultColumn,
    ResultRow,
    ResultSection,
)
from medfocus_bench.paper.engine import PaperTable, document
from medfocus_bench.paper.measuring import (
    COSTS,
    FAILURES,
    SCORES,
    SampleSet,
    Selection,
    rows_of_controls,
    rows_of_run,
    selections,
)
from medfocus_bench.paper.published import BESIDE, KEPT, MAIN_DIRECT, OVERLAP, SECONDS, SOURCES
from medfocus_bench.paper.runs import RunResults, RunSpec

METHODS: Final = tuple(MAIN_DIRECT)
"""The paper's methods, in its order."""

GROUNDED: Final = "grounded"
DIRECT: Final = ("direct",)

_MEANS: Final = "Published values are means over the paper's six LVLMs; ours over those that are named."
_PROTOCOLS: Final = (
    "Per cent. IoU, F1, P, R: the paper's protocol; Evidence AP and the second IoU: the standard protocol. "
    "95 % intervals: of several LVLMs over LVLMs and patients, of one over its patients."
)
_ROLLOUT: Final = (
    "Beside our attention rollout stands the paper's LRP, which its released code computes as rollout; our "
    "LRP has no published values. The paper's attention rollout multiplies the blocks in the other order, "
    "which nothing here does: IoU "
    + ", ".join(f"{MAIN_DIRECT['attention-rollout'][name][0]} ({title})" for name, title in SOURCES.items())
    + "."
)
_VARIED: Final = "One setting is changed at a time, the others are as published."
_COSTS: Final = (
    "Published: on an A100, means over six LVLMs. Ours: on the machine of the runs; the passes do not "
    "depend on it. No null control applies: they look at no model."
)
_GROUPS: Final = (
    "Per cent, with 95 % intervals over LVLMs and patients. The shares are of all rows, whatever the limit. "
    "A failure: nothing that MedFocus fills takes a quarter of the response's probability. Of rows that are "
    "not grounded nobody showed that the region drives the answer. Null controls: on the grounded rows."
)

_Runs = Callable[[ReproduceConfig], list[RunSpec]]


def each_method(splits: Sequence[str]) -> _Runs:
    """One run for each of the paper's methods that is asked for."""

    def runs(config: ReproduceConfig) -> list[RunSpec]:
        present = config.splits(splits)
        names = [name for name in METHODS if not config.methods or name in config.methods]
        return [RunSpec(name, config.method(name), config.benchmark, present, config.runs) for name in names]

    return runs


def medfocus(config: ReproduceConfig) -> list[RunSpec]:
    """One run of MedFocus in both modes."""
    method = config.method(MEDFOCUS)
    return [RunSpec(MEDFOCUS, method, config.benchmark, config.splits(MODES), config.runs)]


def studies(*names: str) -> _Runs:
    """MedFocus as published, and with one setting of these studies changed at a time.

    The first shares its records with every table that runs MedFocus.
    """

    def runs(config: ReproduceConfig) -> list[RunSpec]:
        splits, method = config.splits(DIRECT), config.method(MEDFOCUS)
        specs = [RunSpec("as published", method, config.benchmark, splits, config.runs)]
        for variant in variants(config.segmenter):
            if variant.study in names:
                label, folder = f"{variant.study}: {variant.value}", config.runs / "ablation" / variant.folder
                method = config.method(MEDFOCUS, **variant.settings)
                specs.append(RunSpec(label, method, config.benchmark, splits, folder))
        return specs

    return runs


def _variant_notes(config: ReproduceConfig, *, localised: bool) -> Sequence[str]:
    notes = [_PROTOCOLS, _VARIED]
    if localised and config.segmenter is None:
        notes.append("Refinement by MedSAM is left out: give its weights with --segmenter.")
    return notes


# -- the groups of the causal filter -----------------------------------------------------------------------


def groups(config: ReproduceConfig) -> list[RunSpec]:
    """MedFocus on the rows of each group; those that were kept share their records with other tables."""
    splits, method = config.splits(MODES), config.method(MEDFOCUS)
    by_group: dict[str, list[Sample]] = {group: [] for group in GROUPS}
    for sample in config.benchmark.all_rows():
        if sample.split in splits:
            by_group[sample.group].append(sample)
    return [
        RunSpec(
            group,
            method,
            with_samples(config.benchmark, samples),
            splits,
            config.runs if group == GROUNDED else config.runs / "groups" / group,
        )
        for group, samples in by_group.items()
    ]


def group_table(table: PaperTable, config: ReproduceConfig, results: Sequence[RunResults]) -> Reproduction:
    """The share of each group among all rows, and on each how often MedFocus fails and how it scores."""
    everything = [
        (sample, one.spec.label)
        for one in results
        for sample in one.spec.benchmark.samples
        if sample.lvlm in config.sources
    ]
    rows = SampleSet([sample for sample, _ in everything], config.settings)
    chosen = selections(rows.samples, table.by)
    membership = 100.0 * np.array([[group == name for name in GROUPS] for _, group in everything])
    shares = rows.estimates(membership, chosen, share=True)
    by_run: list[list[ResultRow]] = []
    notes = [_GROUPS]
    for number, one in enumerate(results):
        samples = SampleSet(config.selected(one.spec.splits, one.spec.benchmark), config.settings)
        own = rows_of_run(one, samples, chosen, table.quantities)
        by_run.append([_with_share(row, share, number) for row, share in zip(own, shares, strict=True)])
        if one.spec.label == GROUNDED:
            controls, unavailable = rows_of_controls(config, samples, chosen, table.quantities)
            by_run += controls
            notes += unavailable
    sections = [
        rows.section(selection, [row for row in own if row.samples or row.kind == "ours"])
        for selection, *own in zip(chosen, *by_run, strict=True)
    ]
    if len({group for _, group in everything}) == 1:
        notes.append(
            "The benchmark holds grounded rows only: `data build` makes one with all groups from `verify`."
        )
    share = ResultColumn(key="share", label="Share of rows", digits=1)
    failures = ResultColumn(key="failures", label="Failures", digits=1)
    return document(table, config, results, sections, notes, [share, failures, *SCORES.columns])


def _with_share(row: ResultRow, shares: Sequence[Estimate] | None, number: int) -> ResultRow:
    entries = {key: entry for key, entry in row.entries.items() if entry.ours is not None}
    share = ComparedValue(ours=None if shares is None else shares[number])
    return row.model_copy(update={"entries": {"share": share, **entries}})


def kept_table(table: PaperTable, config: ReproduceConfig, results: Sequence[RunResults]) -> Reproduction:
    """Samples of the benchmark by mode, source and LVLM: all of them, whatever the limit."""
    lvlms = list(config.sources)
    samples = [s for s in config.benchmark.samples if s.split in MODES and s.lvlm in lvlms]
    sections = []
    for mode in dict.fromkeys(mode for mode in MODES for s in samples if s.mode == mode):
        of_mode = [s for s in samples if s.mode == mode]
        rows = []
        for source in sorted({s.source for s in of_mode}):
            own = [s for s in of_mode if s.source == source]
            counts = Counter(s.lvlm for s in own)
            entries = {
                lvlm: ComparedValue(
                    published=KEPT.get((mode, source, lvlm)), ours=Estimate(value=counts[lvlm])
                )
                for lvlm in lvlms
            }
            rows.append(ResultRow(name=source, entries=entries, samples=len(own), patients=_patients(own)))
        sections.append(
            ResultSection(
                title=f"Kept samples, {mode}",
                averaged=False,
                lvlms=lvlms,
                lines=rows,
                samples=len(of_mode),
                patients=_patients(of_mode),
            )
        )
    columns = [ResultColumn(key=lvlm, label=lvlm, digits=0) for lvlm in lvlms]
    notes = ["Counts, so that they have no interval; no null control applies."]
    splits = [split for split in MODES if split in config.benchmark.splits]
    return document(table, config, results, sections, notes, columns, splits=splits, limit=None)


def _patients(samples: Sequence[Sample]) -> int:
    return len({sample.patient for sample in samples})


# -- declarations ------------------------------------------------------------------------------------------


def _main_values(label: str, selection: Selection) -> Mapping[str, float]:
    scores = MAIN_DIRECT[BESIDE[label]].get(selection.title) if selection.whole and label in BESIDE else None
    return {} if scores is None else {f"paper_{name}": v for name, v in zip(OVERLAP, scores, strict=True)}


def _seconds(label: str, selection: Selection) -> Mapping[str, float]:
    return {"seconds": SECONDS[BESIDE[label]]} if selection.whole and label in BESIDE else {}


TABLES: Final[Mapping[str, PaperTable]] = {
    table.name: table
    for table in (
        PaperTable(
            "table1",
            "the methods compared, direct mode: IoU, F1, precision and recall by source",
            "the means over the paper's six LVLMs, by source",
            METHODS,
            each_method(DIRECT),
            quantities=(SCORES,),
            published_values=_main_values,
            notes=lambda config: (_PROTOCOLS, _MEANS, _ROLLOUT),
        ),
        PaperTable(
            "table2",
            "kept samples by LVLM, source and mode",
            "all counts (1,880 direct, 2,060 reasoning)",
            methods=(),
            make=kept_table,
        ),
        PaperTable(
            "table3",
            "the methods compared, reasoning mode",
            methods=METHODS,
            runs=each_method(("reasoning",)),
            quantities=(SCORES,),
            notes=lambda config: (_PROTOCOLS,),
        ),
        PaperTable(
            "table4",
            "MedFocus by LVLM, source and mode",
            runs=medfocus,
            by=("source", "mode"),
            quantities=(SCORES,),
            notes=lambda config: (_PROTOCOLS,),
        ),
        PaperTable(
            "table5",
            "the three groups of the causal filter, and how often MedFocus fails on each",
            runs=groups,
            make=group_table,
            by=("source", "mode", "lvlm"),
            quantities=(FAILURES, SCORES),
        ),
        PaperTable(
            "table6",
            "ablations of MedFocus: region, fill, localisation",
            runs=studies("region", "fill", "localisation"),
            quantities=(SCORES, FAILURES),
            notes=lambda config: _variant_notes(config, localised=True),
        ),
        PaperTable(
            "table7",
            "sensitivity of MedFocus: size of the pool, lambda, eps",
            runs=studies("pool size", "lambda", "eps"),
            quantities=(SCORES, FAILURES),
            notes=lambda config: _variant_notes(config, localised=False),
        ),
        PaperTable(
            "table8",
            "seconds and passes a sample by method, direct mode",
            "seconds on an A100",
            METHODS,
            each_method(DIRECT),
            quantities=(COSTS,),
            published_values=_seconds,
            notes=lambda config: (_COSTS,),
        ),
        PaperTable(
            "fig3",
            "how often MedFocus names each concept",
            runs=medfocus,
            make=figures.concept_frequencies,
            by=("source", "mode"),
        ),
        PaperTable(
            "fig5",
            "panels of tokens and concepts, sample by sample",
            "none: the paper's panels are pictures of licensed radiographs",
            runs=medfocus,
            make=figures.concept_panels,
            adapt=figures.few_panels,
        ),
        PaperTable(
            "fig6",
            "how often MedFocus fails, by source, mode and LVLM",
            runs=medfocus,
            make=figures.failure_rates,
            by=("source", "mode"),
            quantities=(FAILURES,),
        ),
    )
}
"""By name. The numbers are the paper's for table1 and fig5, and this package's for the others."""


def find_table(name: str, *, others: Iterable[str] = ()) -> PaperTable:
    """The table or figure of that name. Raises InputError that lists them, and the `others` of the caller."""
    if name not in TABLES:
        raise InputError(f"no target {name!r}; there are {', '.join([*TABLES, *others])}")
    return TABLES[name]
