"""`reproduce`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medfocus_bench.cli.attribution import conditions_of
from medfocus_bench.cli.options import (
    FOLDER_OR_NAME,
    MODES,
    OUTPUT_FOLDER,
    Command,
    benchmark_option,
    check_root,
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
from medfocus_bench.cli.output import one_line

if TYPE_CHECKING:
    from medfocus_bench.data.benchmark import Benchmark
    from medfocus_bench.paper.rebuild import Rebuild
    from medfocus_bench.paper.request import Request


@click.command("reproduce", cls=Command)
@click.argument("target", required=False)
@click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda context, option, given: _list_targets(context) if given else None,
    help="List the targets, and what of each is published here.",
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
    "--editor", help="Without --benchmark: who edits the pictures: radedit, inpainting, or an own one."
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
@lvlms_option
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
    help="Folder of records to read and to add to, also one of `attribute`. Default: OUT/runs.",
)
@click.option("--no-run", is_flag=True, help="Only read the records that are there.")
@click.option("--dry-run", is_flag=True, help="Only plan: passes, GPU hours and disk of what is missing.")
@click.option(
    "--seconds-per-forward",
    type=float,
    help="For --dry-run: take this pace, and load no LVLM. Default: measured on each LVLM.",
)
@format_option
@resamples_option
@model_options
def reproduce_command(
    target: str | None,
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
    from medfocus_bench.cli.output import quiet_models
    from medfocus_bench.errors import InputError

    if target is None:
        raise InputError("name a target; `medfocus-bench reproduce --list` shows them")
    if seconds_per_forward is not None and not dry_run:
        raise InputError("--seconds-per-forward goes with --dry-run only")
    if no_run and dry_run:
        raise InputError("--no-run and --dry-run exclude each other; give one")
    _check_given(target, seconds_per_forward, no_run, options)
    quiet_models()
    if dry_run:
        _plan(target, seconds_per_forward, form, options)
        return
    from medfocus_bench.paper.document import reproduction_tables, summary
    from medfocus_bench.paper.targets import reproduce

    say = partial(click.echo, err=True)
    document = reproduce(target, _request(options), run=not no_run, say=say)
    tables = reproduction_tables(document, brief=form == "table")
    _show(tables, summary(document), document.model_dump_json(indent=1), form)
    if form == "table":
        for name in (f"{target}.md", f"{target}.json", *document.figures):
            click.echo(str(options["out"] / name))


def _check_given(target: str, pace: float | None, no_run: bool, options: dict[str, Any]) -> None:
    """Everything that can be known to be wrong before the benchmark is read and an LVLM is loaded."""
    from medfocus_bench.data.writing import check_vacant
    from medfocus_bench.errors import InputError
    from medfocus_bench.lvlm.registry import check_device, check_lvlms
    from medfocus_bench.medfocus.reference import check_references
    from medfocus_bench.paper.plan import check_pace
    from medfocus_bench.paper.targets import find_target
    from medfocus_bench.runs.tuning import read_tuning

    find_target(target).check_methods(options["methods"])
    check_pace(pace)
    runs, name = options["runs"], options["benchmark"]
    if no_run and runs is not None and not runs.is_dir():
        raise InputError(f"--runs {runs}: is no folder; give the one with the records, or leave --no-run out")
    if name is None:
        _check_rebuild(no_run, options)
    else:
        for flag in ("sources", "editor", "editor_settings", "modes"):
            if options[flag]:
                shown = {"editor_settings": "editor-set"}.get(flag, flag.removesuffix("s"))
                raise InputError(f"--{shown} goes with a run of the filter, without --benchmark")
    if options["root"] is not None:
        check_root(options["root"])
        check_vacant(options["out"] / "benchmark", overwrite=True)
    if name is not None and options["root"] is not None:
        _check_pointers(Path(name), options["out"] / "benchmark")
    if not no_run:
        check_lvlms(options["lvlms"])
    check_references(options["references"])
    if options["segmenter"] or options["detector"]:
        from medfocus_bench.attribution.vision_models import check_vision_model

        check_vision_model("segmenter", options["segmenter"])
        check_vision_model("detector", options["detector"])
    for file in options["tuned"]:
        read_tuning(file)
    if not no_run:
        check_device(options["device"])


def _check_rebuild(no_run: bool, options: dict[str, Any]) -> None:
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
        made = options["out"] / "benchmark"
        raise InputError(f"--no-run needs --benchmark; the one that an earlier run made is in {made}")
    _rebuild(options)


def _check_pointers(folder: Path, attached: Path) -> None:
    from medfocus_bench.errors import InputError

    if not folder.is_dir():
        raise InputError(f"--benchmark {folder}: is no folder; with --root give one of pointers")
    if folder.resolve() == attached.resolve():
        raise InputError(f"--benchmark {folder}: is attached already; leave --root out")


def _plan(target: str, pace: float | None, form: str, options: dict[str, Any]) -> None:
    from medfocus_bench.paper.plan import plan_tables
    from medfocus_bench.paper.targets import find_target, plan_of

    if options["benchmark"] is None:
        from medfocus_bench.paper.rebuild import plan_rebuild

        plan = plan_rebuild(target, find_target(target).title, _rebuild(options), pace)
    else:
        plan = plan_of(target, _request(options), pace)
    _show(plan_tables(plan), [], plan.model_dump_json(indent=1), form)


def _request(options: dict[str, Any]) -> Request:
    from medfocus_bench.cli.progress import show_progress
    from medfocus_bench.paper.request import Request

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
        progress=show_progress,
    )


def _benchmark(options: dict[str, Any]) -> Benchmark:
    """The benchmark that is named, attached where that is asked for; or one that the filter makes."""
    from medfocus_bench.data.attach import attach_folder
    from medfocus_bench.data.resolve import open_benchmark

    name, root, out = options["benchmark"], options["root"], options["out"]
    if name is None:
        from medfocus_bench.paper.rebuild import rebuild

        rebuilt = rebuild(_rebuild(options))
        for failure in rebuilt.failures:
            click.echo(one_line(f"{failure.source} {failure.index}: {failure.reason}"), err=True)
        attached = rebuilt.attached
    else:
        if root is None:
            return open_benchmark(name)
        attached = attach_folder(Path(name), root, out / "benchmark", overwrite=True)
    for notice in (*attached.notices, *map(str, attached.losses)):
        click.echo(one_line(notice), err=True)
    return attached.benchmark


def _rebuild(options: dict[str, Any]) -> Rebuild:
    from medfocus_bench.cli.progress import show_progress
    from medfocus_bench.counterfactual.registry import load_editor
    from medfocus_bench.data.questions import MODES
    from medfocus_bench.data.sources.registry import PUBLISHED, open_source
    from medfocus_bench.lvlm.registry import PAPER_LVLMS
    from medfocus_bench.paper.rebuild import Rebuild

    return Rebuild(
        sources=[open_source(name) for name in options["sources"] or PUBLISHED],
        root=options["root"],
        editor=load_editor(options["editor"], **settings_of(options["editor_settings"], "--editor-set")),
        folder=options["out"],
        lvlms=options["lvlms"] or tuple(PAPER_LVLMS),
        modes=[mode for mode in MODES if mode in (options["modes"] or MODES)],
        limit=options["limit"],
        conditions=conditions_of("response", options),
        progress=show_progress,
    )


def _show(tables: Any, lines: list[str], as_json: str, form: str) -> None:
    from medfocus_bench.cli.output import print_tables
    from medfocus_bench.tables import render_markdown

    if form == "table":
        print_tables(lines, tables)
    else:
        click.echo(as_json if form == "json" else render_markdown(tables, lines), nl=form == "json")


def _list_targets(context: click.Context) -> None:
    """Shows the targets, and ends the command: nothing else is asked for."""
    from medfocus_bench.cli.output import print_tables
    from medfocus_bench.paper.targets import TARGETS
    from medfocus_bench.tables import Row, Table

    rows = tuple(Row((one.name, one.title, one.published)) for one in TARGETS.values())
    print_tables([], [Table("Targets", ("", "what it shows", "published values"), rows)])
    context.exit()
