"""Tables and figures of the paper: the declaration of one, and how its document is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from medfocus_bench.errors import InputError
from medfocus_bench.evaluation.protocol import EVALUATOR_VERSION
from medfocus_bench.paper.config import MEDFOCUS, ReproduceConfig
from medfocus_bench.paper.document import Reproduction, ResultColumn, ResultSection
from medfocus_bench.paper.measuring import (
    PublishedValues,
    Quantity,
    SampleSet,
    nothing_published,
    rows_of_controls,
    rows_of_run,
    selections,
)
from medfocus_bench.paper.runs import RunResults, RunSpec
from medfocus_bench.runs.settings import BenchmarkIdentity

NOT_PUBLISHED_HERE: Final = "not published here: the sources of this package do not state them"


def compare_runs(table: PaperTable, config: ReproduceConfig, results: Sequence[RunResults]) -> Reproduction:
    """All runs on the same samples, section by section, with the null controls below."""
    samples = SampleSet(config.selected(results[0].spec.splits), config.settings)
    chosen = selections(samples.samples, table.by, each_lvlm=table.each_lvlm)
    rows, notes = [], list(table.notes(config))
    for one in config.progress(results, "Scoring methods", len(results)):
        rows.append(rows_of_run(one, samples, chosen, table.quantities, table.published_values))
        missing, wanted = len(one.missing(samples.samples)), len(samples.samples)
        if 0 < missing < wanted and any(quantity.of_controls for quantity in table.quantities):
            notes.append(f"{rows[-1][0].name}: {missing} of {wanted} samples have no record and score 0.")
    controls, unavailable = rows_of_controls(config, samples, chosen, table.quantities)
    sections = [
        samples.section(selection, of_selection)
        for selection, *of_selection in zip(chosen, *rows, *controls, strict=True)
    ]
    return document(table, config, results, sections, [*notes, *unavailable])


def document(
    table: PaperTable,
    config: ReproduceConfig,
    results: Sequence[RunResults],
    sections: Sequence[ResultSection],
    notes: Sequence[str],
    columns: Sequence[ResultColumn] = (),
    **more: Any,
) -> Reproduction:
    """The document of a table; `columns` are by default those of its quantities."""
    lvlms = {lvlm for section in sections for lvlm in section.lvlms}
    fields = {
        "splits": list(dict.fromkeys(split for one in results for split in one.spec.splits)),
        "limit": config.limit,
        **more,
    }
    return Reproduction(
        target=table.name,
        title=table.title,
        published=table.published,
        benchmark=BenchmarkIdentity.of(config.benchmark),
        lvlms=[key for key in config.sources if key in lvlms],
        seed=config.run_config.seed,
        resamples=config.resamples,
        evaluator_version=EVALUATOR_VERSION,
        columns=list(columns) or [column for one in table.quantities for column in one.columns],
        sections=list(sections),
        notes=list(notes),
        **fields,
    )


@dataclass(frozen=True, slots=True)
class PaperTable:
    """A table or figure: the runs that it needs, the samples of its sections, and the values of its columns.

    Args:
        published: which values of the paper stand beside ours, in words.
        methods: the methods that can be asked for.
        runs: lists the runs, given the configuration.
        make: computes the document from the results of the runs; by default `compare_runs` does.
        by: the fields that the samples of a section agree in; `each_lvlm` adds a section for each LVLM.
        quantities: the columns.
        published_values: the paper's values.
        adapt: changes the configuration first.
    """

    name: str
    title: str
    published: str = NOT_PUBLISHED_HERE
    methods: Sequence[str] = (MEDFOCUS,)
    runs: Callable[[ReproduceConfig], list[RunSpec]] = lambda config: []
    make: Callable[[PaperTable, ReproduceConfig, Sequence[RunResults]], Reproduction] = compare_runs
    by: Sequence[str] = ("source",)
    each_lvlm: bool = True
    quantities: Sequence[Quantity] = ()
    published_values: PublishedValues = nothing_published
    notes: Callable[[ReproduceConfig], Sequence[str]] = lambda config: ()
    adapt: Callable[[ReproduceConfig], ReproduceConfig] = lambda config: config

    def check_methods(self, names: Iterable[str]) -> None:
        """Raises InputError for a method that the table does not have."""
        for name in names:
            if name not in self.methods:
                known = f"only {', '.join(self.methods)}" if self.methods else "which runs none"
                raise InputError(f"no method {name!r} in {self.name}, {known}")
