"""`reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from medfocus_bench.cli.attribution import check_models, conditions_of
from medfocus_bench.cli.options import (
    FOLDER_OR_NAME,
    INPUT_FOLDER,
    MODES,
    OUTPUT_FOLDER,
    Command,
    benchmark_option,
    check_root,
    decoding_option,
    engine_options,
    format_option,
    limit_option,
    lvlms_option,
    model_options,
    resamples_option,
    root_option,
    segmenter_option,
    settings_of,
    split_commas,
    tuned_option,
)
from medfocus_bench.cli.output import print_tables, say, warn
from medfocus_bench.cli.progress import show_progress
from medfocus_bench.cli.rankings import RANKING_TARGETS
from medfocus_bench.data.questions import GREEDY, Decoding

if TYPE_CHECKING:
    from medfocus_bench.data.benchmark import Benchmark
    from medfocus_bench.paper.config import ReproduceConfig
    from medfocus_bench.paper.rebuild import RebuildConfig
    from medfocus_bench.runs.config import RunConfig


_PAPER: Final[Decoding] = "checkpoint"
"""How the paper's LVLMs write."""

_FILTER_OPTIONS: Final = {
    "sources": "--source",
    "editor": "--editor",
    "editor_settings": "--editor-set",
    "modes": "--mode",
}
"""Options of the causal filter, which runs where no benchmark is given."""


def _list_tables(context: click.Context, option: click.Parameter, given: bool) -> None:
    """Show the tables and figures, and end the command without asking for more."""
    from medfocus_bench.paper.tables import TABLES
    from medfocus_bench.tables import Row, Table

    if given:
        rows = [Row((one.name, one.title, one.published)) for one in TABLES.values()]
        rows += [Row((name, one.title, one.published)) for name, one in RANKING_TARGETS.items()]
        print_tables([], [Table("Targets", ("", "what it shows", "published values"), tuple(rows))])
        context.exit()


@click.command("reproduce", cls=Command)
@click.argument("target", required=False)
@click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_tables,
    help="List the targets, and the published values of each.",
)
@benchmark_option(
    help="Folder (pointers with --root, or attached to your copy already), `phantom`, or a name on the Hub.",
)
@root_option(
    "Your copies of the sources: attaches --benchmark, a folder of pointers; or, without one, runs the "
    "causal filter over --source first."
)
@click.option(
    "--source",
    "sources",
    multiple=True,
    callback=split_commas,
    help="Without --benchmark: the sources to filter. Default: the paper's three.",
)
@click.option(
    "--editor", help="Without --benchmark: the editor of the pictures: radedit, inpainting, or your own."
)
@click.option(
    "--editor-set", "editor_settings", multiple=True, metavar="FIELD=VALUE", help="A setting of the editor."
)
@click.option(
    "--mode",
    "modes",
    multiple=True,
    type=click.Choice(MODES),
    help="Without --benchmark: the modes to filter. Default: both, so that all targets share the benchmark.",
)
@lvlms_option()
@click.option(
    "--method", "methods", multiple=True, callback=split_commas, help="Only these methods of the target."
)
@limit_option()
@click.option(
    "--references",
    type=FOLDER_OR_NAME,
    help="Pool of MedFocus, a file of `reference build`; phantom: the shipped one.",
)
@segmenter_option(", for MedFocus and Prompting + MedSAM.")
@click.option(
    "--detector", type=FOLDER_OR_NAME, help="OWLv2 (folder, Hub id or phantom_owlv2), for Prompting + MedSAM."
)
@tuned_option
@click.option(
    "--out",
    type=OUTPUT_FOLDER,
    default="reproduction",
    show_default=True,
    help="Folder for the tables and figures.",
)
@click.option(
    "--runs",
    type=OUTPUT_FOLDER,
    help="Folder of records to read and extend, also one of `attribute`. Default: OUT/runs.",
)
@click.option("--no-run", is_flag=True, help="Only read the records that are there.")
@click.option(
    "--dry-run", is_flag=True, help="Only plan: passes, GPU hours and disk for the missing records."
)
@click.option(
    "--seconds-per-forward",
    type=float,
    help="For --dry-run: take this pace, and load no LVLM. Default: measured on each LVLM.",
)
@click.option(
    "--results",
    type=INPUT_FOLDER,
    default="leaderboard/results",
    show_default=True,
    help="For convergence: the results of the leaderboard.",
)
@click.option(
    "--submissions",
    type=INPUT_FOLDER,
    default="submissions",
    show_default=True,
    help="For convergence and sensitivity: the submissions, which are scored again.",
)
@format_option
@resamples_option
@decoding_option(None, " Default: checkpoint; greedy on the phantom.")
@model_options
@engine_options()
def reproduce_command(
    target: str | None,
    results: Path,
    submissions: Path,
    no_run: bool,
    dry_run: bool,
    seconds_per_forward: float | None,
    form: str,
    **options: Any,
) -> None:
    """Reproduce TARGET, a table or figure of the paper: table1 to table8, fig3, fig5, fig6.

    Makes the missing runs, and prints the paper's value beside ours with 95 % intervals and null controls.
    Writes TARGET.json, TARGET.md and the figures to --out. An interrupted run is resumed.

    Two targets are about the ranking of the leaderboard and run no LVLM: convergence lays it beside the
    published one, sensitivity ranks under other constants of evidence AP.
    """
    from medfocus_bench.errors import InputError

    if target is None:
        raise InputError("name a target; `medfocus-bench reproduce --list` shows them")
    if target in RANKING_TARGETS:
        RANKING_TARGETS[target].check(target)
        made = RANKING_TARGETS[target].make(options | {"results": results, "submissions": submissions})
        _show(list(made.tables), list(made.lines), made.as_json, form)
        return
    if seconds_per_forward is not None and not dry_run:
        raise InputError("--seconds-per-forward goes with --dry-run only")
    if no_run and dry_run:
        raise InputError("--no-run and --dry-run exclude each other; give one")
    _check_options(target, seconds_per_forward, no_run, options)
    if dry_run:
        _plan(target, seconds_per_forward, form, options)
        return
    from medfocus_bench.paper.document import reproduction_tables, summary
    from medfocus_bench.paper.reproduce import reproduce

    document = reproduce(target, _config(options), run=not no_run, say=say)
    tables = reproduction_tables(document, brief=form == "table")
    _show(tables, summary(document), document.model_dump_json(indent=1), form)
    if form == "table":
        for name in (f"{target}.md", f"{target}.json", *document.figures):
            click.echo(str(options["out"] / name))


def _check_options(target: str, pace: float | None, no_run: bool, options: dict[str, Any]) -> None:
    """Refuse whatever is known to be wrong before the benchmark is read and an LVLM is loaded."""
    from medfocus_bench.data.writing import check_vacant
    from medfocus_bench.errors import InputError
    from medfocus_bench.medfocus.reference import check_references
    from medfocus_bench.paper.costs import check_pace
    from medfocus_bench.paper.tables import find_table
    from medfocus_bench.runs.tuning import read_tuning

    find_table(target, others=RANKING_TARGETS).check_methods(options["methods"])
    check_pace(pace)
    runs, root, attached = options["runs"], options["root"], options["out"] / "benchmark"
    if no_run and runs is not None and not runs.is_dir():
        raise InputError(
            f"--runs {runs}: is not a folder; give the one with the records, or leave --no-run out"
        )
    if options["benchmark"] is None:
        _check_filter(no_run, attached, options)
    else:
        for name, flag in _FILTER_OPTIONS.items():
            if options[name]:
                raise InputError(f"{flag} goes with a run of the filter, without --benchmark")
    if root is not None:
        check_root(root)
        check_vacant(attached, overwrite=True)
        if options["benchmark"] is not None:
            folder = Path(options["benchmark"])
            if not folder.is_dir():
                raise InputError(f"--benchmark {folder}: is not a folder; with --root give one of pointers")
            if folder.resolve() == attached.resolve():
                raise InputError(f"--benchmark {folder}: is attached already; leave --root out")
    check_references(options["references"])
    if options["segmenter"] or options["detector"]:
        from medfocus_bench.attribution.vision_models import check_vision_model

        check_vision_model("segmenter", options["segmenter"])
        check_vision_model("detector", options["detector"])
    for file in options["tuned"]:
        read_tuning(file)
    if not no_run:
        device = options["engine"].device_here(options["device"])
        check_models(options["lvlms"], device, options["quantise"])


def _check_filter(no_run: bool, made: Path, options: dict[str, Any]) -> None:
    """Refuse a run of the filter that lacks an option."""
    from medfocus_bench.errors import InputError

    if options["root"] is None:
        raise InputError(
            "give --benchmark: phantom, or a folder; or --root and --editor, to filter your copies"
        )
    if options["editor"] is None:
        raise InputError(
            "give --benchmark, a folder of pointers; or --editor, to run the causal filter first"
        )
    if no_run:
        raise InputError(f"--no-run needs --benchmark; the one that an earlier run made is in {made}")
    _rebuild_config(options)


def _plan(target: str, pace: float | None, form: str, options: dict[str, Any]) -> None:
    from medfocus_bench.paper.plan import plan_tables
    from medfocus_bench.paper.rebuild import plan_rebuild
    from medfocus_bench.paper.reproduce import plan_of
    from medfocus_bench.paper.tables import find_table

    if options["benchmark"] is None:
        plan = plan_rebuild(target, find_table(target).title, _rebuild_config(options), pace)
    else:
        plan = plan_of(target, _config(options), pace)
    _show(plan_tables(plan), [], plan.model_dump_json(indent=1), form)


def _config(options: dict[str, Any]) -> ReproduceConfig:
    from medfocus_bench.paper.config import PHANTOM, ReproduceConfig

    same = ("lvlms", "methods", "limit", "references", "segmenter", "detector", "tuned", "resamples")
    benchmark = _benchmark(options)
    decoding = GREEDY if set(benchmark.configs) == {PHANTOM} else _PAPER
    return ReproduceConfig(
        benchmark=benchmark,
        out=options["out"],
        runs=options["runs"] or options["out"] / "runs",
        run_config=_conditions(options, decoding),
        engine=options["engine"],
        progress=show_progress,
        say=say,
        **{name: options[name] for name in same},
    )


def _conditions(options: dict[str, Any], decoding: Decoding) -> RunConfig:
    """The settings of the runs, with `decoding` where the command names none."""
    return conditions_of("response", options | {"decoding": options["decoding"] or decoding})


def _benchmark(options: dict[str, Any]) -> Benchmark:
    """The benchmark that is named, attached with --root; or the one that the filter makes."""
    from medfocus_bench.data.attach import attach_folder
    from medfocus_bench.data.resolve import load_benchmark
    from medfocus_bench.paper.rebuild import rebuild

    name, root = options["benchmark"], options["root"]
    if name is not None and root is None:
        return load_benchmark(name)
    if name is not None:
        attached = attach_folder(Path(name), root, options["out"] / "benchmark", overwrite=True)
    else:
        rebuilt = rebuild(_rebuild_config(options))
        for failure in rebuilt.failures:
            warn(f"{failure.source} {failure.index}: {failure.reason}")
        attached = rebuilt.attached
    for notice in (*attached.notices, *map(str, attached.unmatched)):
        warn(notice)
    return attached.benchmark


def _rebuild_config(options: dict[str, Any]) -> RebuildConfig:
    from medfocus_bench.counterfactual.registry import load_editor
    from medfocus_bench.data.questions import MODES
    from medfocus_bench.data.sources.registry import open_source, published_sources
    from medfocus_bench.lvlm.models import PAPER_LVLMS
    from medfocus_bench.paper.rebuild import RebuildConfig

    return RebuildConfig(
        sources=[open_source(name) for name in options["sources"] or published_sources()],
        root=options["root"],
        editor=load_editor(options["editor"], **settings_of(options["editor_settings"], "--editor-set")),
        folder=options["out"],
        lvlms=options["lvlms"] or tuple(PAPER_LVLMS),
        modes=[mode for mode in MODES if mode in (options["modes"] or MODES)],
        limit=options["limit"],
        run_config=_conditions(options, _PAPER),
        engine=options["engine"],
        progress=show_progress,
        say=say,
    )


def _show(tables: Any, lines: list[str], as_json: str, form: str) -> None:
    from medfocus_bench.tables import render_markdown

    if form == "table":
        print_tables(lines, tables)
    else:
        click.echo(as_json if form == "json" else render_markdown(tables, lines), nl=form == "json")
