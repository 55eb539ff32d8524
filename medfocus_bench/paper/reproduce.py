"""Reproduce a table or figure of the paper: run what is missing, compare, and write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from medfocus_bench.data.resolve import BenchmarkLike, load_benchmark
from medfocus_bench.errors import InputError
from medfocus_bench.paper.config import ReproduceConfig
from medfocus_bench.paper.costs import Plan
from medfocus_bench.paper.document import Reproduction, reproduction_tables, summary
from medfocus_bench.paper.engine import PaperTable
from medfocus_bench.paper.plan import plan
from medfocus_bench.paper.runs import RunResults, RunSpec, count_missing, run_missing
from medfocus_bench.paper.tables import find_table
from medfocus_bench.runs.settings import write_document
from medfocus_bench.storage import write_atomic
from medfocus_bench.tables import render_markdown


def reproduce(
    name: str,
    config: ReproduceConfig | BenchmarkLike,
    out: str | Path | None = None,
    *,
    run: bool = True,
    say: Callable[[str], None] = lambda sentence: None,
) -> Reproduction:
    """Run what a table or figure lacks, and write `<name>.json` and `<name>.md` to the folder for results.

    An interrupted call is resumed by the next one, and records that other tables made are used.

    Args:
        name: table1 to table8, fig3, fig5 or fig6.
        config: a configuration, or a benchmark and nothing else.
        out: the folder for results, where a benchmark is given.
        run: False reads the records that are there, and loads no LVLM.
        say: is told the progress, a sentence at a time.

    Raises:
        InputError: for an unknown table, LVLM or method, for a segmenter or detector that is given and cannot
            be loaded, and as `medfocus_bench.attribute` does.
    """
    find_table(name)
    if not isinstance(config, ReproduceConfig):
        if out is None:
            raise InputError(f"{name}: give a folder for the results")
        config = ReproduceConfig(load_benchmark(config), Path(out), Path(out) / "runs")
    table, config, specs = _prepared(name, config)
    if specs:
        missing, wanted = count_missing(specs, config)
        rest = "they are made first" if run else "nothing is run"
        present = f"{name}: {wanted - missing:,} of {wanted:,} records are in {config.runs}"
        say(present + f"; {rest}" * (missing > 0))
    impossible = run_missing(specs, config)[1] if run else {}
    say(f"{name}: computing the table with {config.resamples:,} resamples for the intervals")
    results = [RunResults.read(spec, impossible.get(spec.label)) for spec in specs]
    made = table.make(table, config, results)
    write_document(config.out / f"{name}.json", made)
    pictures = "".join(f"\n![{made.title}]({file})\n" for file in made.figures)
    write_atomic(
        config.out / f"{name}.md", render_markdown(reproduction_tables(made), summary(made)) + pictures
    )
    return made


def plan_of(name: str, config: ReproduceConfig, seconds_per_forward: float | None = None) -> Plan:
    """The cost of what `reproduce` would run, also written to `<name>-plan.json`."""
    table, config, specs = _prepared(name, config)
    made = plan(table.name, table.title, specs, config, seconds_per_forward)
    write_document(config.out / f"{name}-plan.json", made)
    return made


def _prepared(name: str, config: ReproduceConfig) -> tuple[PaperTable, ReproduceConfig, list[RunSpec]]:
    table = find_table(name)
    table.check_methods(config.methods)
    config = table.adapt(config)
    return table, config, table.runs(config)
