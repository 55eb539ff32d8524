"""`evaluate` and `compare`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medfocus_bench.cli.options import (
    FOLDER_OR_NAME,
    INPUT,
    OUTPUT_FILE,
    Command,
    any_version_option,
    benchmark_option,
    format_option,
    scoring_options,
    split_commas,
)
from medfocus_bench.cli.output import one_line, output_width, print_tables
from medfocus_bench.cli.progress import show_progress
from medfocus_bench.storage import write_atomic

if TYPE_CHECKING:
    from medfocus_bench.evaluation.evaluate import Evaluation

_lvlms_option = click.option(
    "--lvlm",
    "lvlms",
    multiple=True,
    metavar="KEY[,KEY]",
    callback=split_commas,
    help="Only the samples of this LVLM; may be repeated. Default: all that is covered.",
)
_out_option = click.option(
    "--out",
    type=OUTPUT_FILE,
    callback=lambda context, option, path: _checked_out(path),
    help="Also write it to this file: JSON, or .md.",
)


@click.command("evaluate", cls=Command)
@click.argument("submission", type=INPUT)
@benchmark_option(required=True)
@scoring_options
@format_option
@_out_option
@click.option("--brief", is_flag=True, help="Show the first table only.")
@click.option("--no-nulls", is_flag=True, help="Leave the null controls out.")
@click.option("--verified", is_flag=True, help="Mark the report as recomputed by a maintainer.")
@any_version_option
@_lvlms_option
def evaluate_command(
    submission: Path,
    benchmark: str,
    form: str,
    out: Path | None,
    brief: bool,
    no_nulls: bool,
    verified: bool,
    any_version: bool,
    lvlms: tuple[str, ...],
    **scoring: Any,
) -> None:
    """Score SUBMISSION (a folder, or its submission.json) against a benchmark."""
    from medfocus_bench.evaluation.evaluate import evaluate_samples
    from medfocus_bench.evaluation.protocol import Settings
    from medfocus_bench.evaluation.report_tables import report_summary, report_tables
    from medfocus_bench.tables import FULL_WIDTH, render_markdown

    _check_outside(out, [submission])
    evaluation = evaluate_samples(
        submission,
        benchmark,
        Settings(**scoring),
        nulls=not no_nulls,
        verified=verified,
        any_version=any_version,
        lvlms=lvlms,
        progress=show_progress,
    )
    report = evaluation.report
    summary = report_summary(report)
    if form == "table":
        tables = report_tables(report, narrow=output_width() < FULL_WIDTH)
        print_tables(summary, tables[:1] if brief else tables)
    markdown = render_markdown(report_tables(report), summary)
    _hand_out(report.model_dump_json(indent=1) + "\n", markdown, form, out)
    _say_unexplained(evaluation)


@click.command("compare", cls=Command)
@click.argument("submissions", nargs=-1, required=True, type=FOLDER_OR_NAME)
@benchmark_option(required=True)
@scoring_options
@format_option
@_out_option
@click.option("--metric", "metrics", multiple=True, help="Score to compare; may be repeated.")
@any_version_option
@_lvlms_option
def compare_command(
    submissions: tuple[str, ...],
    benchmark: str,
    form: str,
    out: Path | None,
    metrics: tuple[str, ...],
    any_version: bool,
    lvlms: tuple[str, ...],
    **scoring: Any,
) -> None:
    """Paired differences of two or more SUBMISSIONS; null:NAME stands for a null control."""
    from medfocus_bench.evaluation.compare import compare
    from medfocus_bench.evaluation.report_tables import comparison_table
    from medfocus_bench.tables import render_markdown

    _check_outside(out, [Path(name) for name in submissions])
    comparison = compare(
        submissions,
        benchmark,
        metrics=metrics,
        any_version=any_version,
        lvlms=lvlms,
        progress=show_progress,
        **scoring,
    )
    table = comparison_table(comparison)
    if form == "table":
        print_tables([], [table])
    _hand_out(comparison.model_dump_json(indent=1) + "\n", render_markdown([table]), form, out)


def _say_unexplained(evaluation: Evaluation) -> None:
    """Of a run of some LVLMs only: what the zeros of the others are, and how they are left out."""
    held = {sample.lvlm for sample in evaluation.part.samples} - set(evaluation.unexplained)
    if evaluation.unexplained and held:
        of = " ".join(f"--lvlm {lvlm}" for lvlm in sorted(held))
        click.echo(
            one_line(
                f"No sample of {', '.join(evaluation.unexplained)} has an attribution, so that all of them "
                f"score 0; {of} leaves them out"
            ),
            err=True,
        )


def _checked_out(path: Path | None) -> Path | None:
    if path is not None and path.suffix not in (".json", ".md"):
        raise click.UsageError(f"--out {path}: give a file that ends in .json or .md")
    return path


def _check_outside(out: Path | None, submissions: Iterable[Path]) -> None:
    """Refuses to write a report over the document of a submission that it is about."""
    from medfocus_bench.errors import InputError

    if out is not None and out.exists() and out.resolve().parent in [path.resolve() for path in submissions]:
        raise InputError(f"{out}: is a file of the submission itself; name another place for --out")


def _hand_out(as_json: str, as_markdown: str, form: str, out: Path | None) -> None:
    """Prints the form that is asked for (a table is printed already), and writes that of `out`."""
    if form != "table":
        click.echo(as_json if form == "json" else as_markdown, nl=False)
    if out is not None:
        write_atomic(out, as_markdown if out.suffix == ".md" else as_json)
