"""`plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from medfocus_bench.cli.attribution import check_models, conditions_of
from medfocus_bench.cli.options import (
    INPUT_FOLDER,
    Command,
    benchmark_option,
    format_option,
    lvlms_option,
    model_options,
    split_commas,
)
from medfocus_bench.cli.output import print_tables


@click.command("plan", cls=Command)
@click.option(
    "--method",
    "names",
    multiple=True,
    metavar="NAME[,NAME]",
    callback=split_commas,
    help="Methods by name, `all`, or module:Class. Default: the paper's.",
)
@lvlms_option()
@benchmark_option()
@click.option("--paper", is_flag=True, help="The paper's benchmark, by its published counts.")
@click.option("--split", "splits", multiple=True, callback=split_commas, help="Default: all.")
@click.option(
    "--set", "assignments", multiple=True, metavar="[METHOD.]FIELD=VALUE", help="A setting of the methods."
)
@click.option(
    "--records",
    multiple=True,
    type=INPUT_FOLDER,
    help="Folder of `attribute` whose passes, seconds and bytes a sample hold; may be repeated.",
)
@click.option(
    "--times",
    default=1,
    show_default=True,
    type=click.IntRange(1, 1_000_000),
    help="Count the samples so often.",
)
@click.option(
    "--devices",
    default=1,
    show_default=True,
    type=click.IntRange(1, 100_000),
    help="Devices that share the hours.",
)
@click.option(
    "--seconds-per-forward", type=float, help="Take this pace, in place of measured and published ones."
)
@format_option
@model_options
def plan_command(
    names: tuple[str, ...],
    assignments: tuple[str, ...],
    form: str,
    records: tuple[Path, ...],
    times: int,
    devices: int,
    seconds_per_forward: float | None,
    **options: Any,
) -> None:
    """Plan the cost of methods on the samples of a benchmark: passes, hours, disk, memory.

    Each figure says whether it is measured, published (seconds of an A100) or declared. An LVLM that is not
    of the paper is loaded and timed with a few passes, unless --records or --seconds-per-forward tell.
    """
    from medfocus_bench.errors import InputError
    from medfocus_bench.paper.costs import check_pace
    from medfocus_bench.paper.published import SECONDS
    from medfocus_bench.paper.run_plan import plan_run, run_plan_tables
    from medfocus_bench.runs.methods import choose_methods
    from medfocus_bench.tables import render_markdown

    if options["paper"] == (options["benchmark"] is not None):
        raise InputError("give --benchmark, or --paper for the benchmark of the paper")
    check_pace(seconds_per_forward)
    methods = choose_methods(names or tuple(SECONDS), assignments)
    check_models(options["lvlms"], options["device"])
    plan = plan_run(
        methods,
        options["benchmark"],
        splits=options["splits"],
        lvlms=options["lvlms"],
        config=conditions_of("response", options),
        records=records,
        times=times,
        devices=devices,
        seconds_per_forward=seconds_per_forward,
    )
    tables = run_plan_tables(plan, options["batch"])
    if form == "table":
        print_tables([], tables)
    else:
        click.echo(plan.model_dump_json(indent=1) if form == "json" else render_markdown(tables))
