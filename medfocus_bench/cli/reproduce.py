"""`reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medfocus_bench.cli.attribution import conditions_of, lvlms_option, model_options, split_commas
from medfocus_bench.cli.options import one_line, settings_of
from medfocus_bench.evaluation.protocol import MIN_RESAMPLES, RESAMPLES

if TYPE_CHECKING:
    from medfocus_bench.data.benchmark import Benchmark
    from medfocus_bench.run.reproduce.rebuild import Rebuild
    from medfocus_bench.run.reproduce.request import Request


@click.command("reproduce")
@click.argument("target", required=False)
@click.option("--list", "listing", is_flag=True, help="List the targets, and what of each is published here.")
@click.option(
    "--benchmark",
    "-b",
    metavar="BENCHMARK",
    help="Folder (pointers with --root, or attached to your copy already), `phantom`, or a name on the Hub.",
)
@click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    help="Your copies of the sources: attaches --benchmark, a folder of pointers; or, without one, runs the "
    "causal filter over --source first.",
)
@click.option(
    "--source",
    "sources",
    multiple=True,
    callback=split_commas,
    help="Without --benchmark: the sources to filter. Default: the paper's three.",
)
@click.option(
    "--editor", help="Without --benchmark: who edits the pictures: radedit, inpainting, or an own one."
)
@click.option(
    "--editor-set", "editor_settings", multiple=True, metavar="FIELD=VALUE", help="A setting of the editor."
)
@click.option(
    "--mode",
    "modes",
    multiple=True,
    type=click.Choice(("direct", "reasoning")),
    help="Without --benchmark: the modes to filter. Default: both, so that all targets share the benchmark.",
)
@lvlms_option
@click.option(
    "--method", "methods", multiple=True, callback=split_commas, help="Only these methods of the target."
)
@click.option("--limit", type=click.IntRange(1), help="Only the first samples of every LVLM and split.")
@click.option("--references", help="Pool of MedFocus, a file of `reference build`; phantom: the shipped one.")
@click.option("--segmenter", help="MedSAM (folder or Hub id), for MedFocus and Prompting + MedSAM.")
@click.option("--detector", help="OWLv2 (folder or Hub id), for Prompting + MedSAM.")
@click.option(
    "--tuned",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="File of `tune` whose settings hold; may be repeated.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default="reproduction",
    show_default=True,
    help="Folder for the tables and figures.",
)
@click.option(
    "--runs",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of records to read and to add to, also one of `attribute`. Default: OUT/runs.",
)
@click.option("--no-run", is_flag=True, help="Only read the records that are there.")
@click.option("--dry-run", is_flag=True, help="Only plan: passes, GPU hours and disk of what is missing.")
@click.option(
    "--seconds-per-forward",
    type=float,
    help="For --dry-run: take this pace, and load no LVLM. Default: measured on each LVLM.",
)
@click.option(
    "--format", "form", default="table", show_default=True, type=click.Choice(("table", "markdown", "json"))
)
@click.option(
    "--resamples", default=RESAMPLES, show_default=True, type=click.IntRange(MIN_RESAMPLES, 1_000_000)
)
@model_options
def reproduce_command(
    target: str | None,
    listing: bool,
    no_run: bool,
    dry_run: bool,
    seconds_per_forward: float | None,
    form: str,
    **options: Any,
) -> None:
    """Reproduce TARGET, a table or figure of the paper: table1 to table8, fig3, fig5, fig6.

    Runs what is missing, and prints the paper's value beside ours with 95 % intervals and null controls.
    Writes TARGET.json, TARGET.md and the figures to --out; a stopped run is gone on with.
    """
    from medfocus_bench.cli.options import print_tables, quiet_models
    from medfocus_bench.errors import InputError

    if listing:
        print_tables([], [_target_table()])
        return
    if target is None:
        raise InputError("name a target; `medfocus-bench reproduce --list` shows them")
    if seconds_per_forward is not None and not dry_run:
        raise InputError("--seconds-per-forward goes with --dry-run only")
    from medfocus_bench.run.reproduce.targets import find_target, reproduce

    find_target(target)
    quiet_models()
    if dry_run:
        _plan(target, seconds_per_forward, form, options)
        return
    from medfocus_bench.run.reproduce.document import reproduction_tables, summary

    document = reproduce(target, _request(options), run=not no_run)
    tables = reproduction_tables(document, brief=form == "table")
    _show(tables, summary(document), document.model_dump_json(indent=1), form)
    if form == "table":
        for name in (f"{target}.md", f"{target}.json", *document.figures):
            click.echo(str(options["out"] / name))


def _plan(target: str, pace: float | None, form: str, options: dict[str, Any]) -> None:
    from medfocus_bench.run.reproduce.plan import plan_tables
    from medfocus_bench.run.reproduce.targets import find_target, plan_of

    if options["benchmark"] is None:
        from medfocus_bench.run.reproduce.rebuild import plan_rebuild

        plan = plan_rebuild(target, find_target(target).title, _rebuild(options), pace)
    else:
        plan = plan_of(target, _request(options), pace)
    _show(plan_tables(plan), [], plan.model_dump_json(indent=1), form)


def _request(options: dict[str, Any]) -> Request:
    from medfocus_bench.cli.options import track
    from medfocus_bench.run.reproduce.request import Request

    out: Path = options["out"]
    return Request(
        benchmark=_benchmark(options),
        out=out,
        runs=options["runs"] or out / "runs",
        lvlms=options["lvlms"],
        methods=options["methods"],
        limit=options["limit"],
        references=options["references"],
        segmenter=options["segmenter"],
        detector=options["detector"],
        tuned=options["tuned"],
        conditions=conditions_of("response", options),
        resamples=options["resamples"],
        track=track,
    )


def _benchmark(options: dict[str, Any]) -> Benchmark:
    """The benchmark that is named, attached where that is asked for; or one that the filter makes."""
    from medfocus_bench.data.attach import attach_folder
    from medfocus_bench.data.resolve import open_benchmark
    from medfocus_bench.errors import InputError

    name, root, out = options["benchmark"], options["root"], options["out"]
    if name is None:
        from medfocus_bench.run.reproduce.rebuild import rebuild

        rebuilt = rebuild(_rebuild(options))
        for failure in rebuilt.failures:
            click.echo(one_line(f"{failure.source} {failure.index}: {failure.reason}"), err=True)
        attached = rebuilt.attached
    else:
        for flag in ("sources", "editor", "modes"):
            if options[flag]:
                raise InputError(
                    f"--{flag.removesuffix('s')} goes with a run of the filter, without --benchmark"
                )
        if root is None:
            return open_benchmark(name)
        attached = attach_folder(Path(name), root, out / "benchmark", overwrite=True)
    for notice in (*attached.notices, *map(str, attached.losses)):
        click.echo(one_line(notice), err=True)
    return attached.benchmark


def _rebuild(options: dict[str, Any]) -> Rebuild:
    from medfocus_bench.cli.options import track
    from medfocus_bench.counterfactual.registry import load_editor
    from medfocus_bench.data.questions import MODES
    from medfocus_bench.data.sources.registry import PUBLISHED, open_source
    from medfocus_bench.errors import InputError
    from medfocus_bench.lvlm.registry import PAPER_LVLMS
    from medfocus_bench.run.reproduce.rebuild import Rebuild

    root, editor = options["root"], options["editor"]
    if root is None:
        raise InputError(
            "give --benchmark: phantom, or a folder; or --root and --editor, to filter your copies"
        )
    if editor is None:
        raise InputError(
            "give --benchmark, a folder of pointers; or --editor, to run the causal filter first"
        )
    return Rebuild(
        sources=[open_source(name) for name in options["sources"] or PUBLISHED],
        root=root,
        editor=load_editor(editor, **settings_of(options["editor_settings"], "--editor-set")),
        folder=options["out"],
        lvlms=options["lvlms"] or tuple(PAPER_LVLMS),
        modes=[mode for mode in MODES if mode in (options["modes"] or MODES)],
        limit=options["limit"],
        conditions=conditions_of("response", options),
        track=track,
    )


def _show(tables: Any, lines: list[str], as_json: str, form: str) -> None:
    from medfocus_bench.cli.options import print_tables
    from medfocus_bench.evaluation.tables import render_markdown

    if form == "table":
        print_tables(lines, tables)
    else:
        click.echo(as_json if form == "json" else render_markdown(tables, lines), nl=form == "json")


def _target_table() -> Any:
    from medfocus_bench.evaluation.tables import Row, Table
    from medfocus_bench.run.reproduce.targets import TARGETS

    rows = tuple(Row((one.name, one.title, one.published)) for one in TARGETS.values())
    return Table("Targets", ("", "what it shows", "published values"), rows)
