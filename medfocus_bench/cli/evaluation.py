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
    lvlms_option,
    scoring_options,
)
from medfocus_bench.cli.output import output_width, print_tables, warn
from medfocus_bench.cli.progress import show_progress
from medfocus_bench.storage import write_atomic

if TYPE_CHECKING:
    from medfocus_bench.evaluation.evaluate import Evaluation

_lvlms_option = lvlms_option("Only the samples of this LVLM; may be repeated. Default: all that is covered.")


def _check_suffix(context: click.Context, option: click.Parameter, path: Path | None) -> Path | None:
    if path is not None and path.suffix not in (".json", ".md"):
        raise click.UsageError(f"--out {path}: give a file that ends in .json or .md")
    return path


_out_option = click.option(
    "--out", type=OUTPUT_FILE, callback=_check_suffix, help="Also write it to this file: JSON, or .md."
)


@click.command("evaluate", cls=Command)
@click.argument("submission", type=INPUT)
@benchmark_option(required=True)
@click.option("--method", help="Which method of a run. Default: the only one.")
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
    method: str | None,
    form: str,
    out: Path | None,
    brief: bool,
    no_nulls: bool,
    **options: Any,
) -> None:
    """Score SUBMISSION (a folder, its submission.json, or a method of a run) against a benchmark."""
    from medfocus_bench.errors import InputError
    from medfocus_bench.evaluation.evaluate import evaluate_samples
    from medfocus_bench.evaluation.protocol import Settings
    from medfocus_bench.evaluation.report_tables import report_summary, report_tables
    from medfocus_bench.runs.run import is_run, open_run
    from medfocus_bench.tables import FULL_WIDTH, render_markdown

    _check_outside(out, [submission])
    given = is_run(submission)
    if method is not None and not given:
        raise InputError(f"--method {method}: {submission} is not a run of several; leave it out")
    evaluation = evaluate_samples(
        open_run(submission, method) if given else submission,
        benchmark,
        Settings(**{name: options.pop(name) for name in ("protocol", "seed", "resamples")}),
        nulls=not no_nulls,
        progress=show_progress,
        **options,
    )
    report = evaluation.report
    summary = report_summary(report)
    if form == "table":
        tables = report_tables(report, narrow=output_width() < FULL_WIDTH)
        print_tables(summary, tables[:1] if brief else tables)
    markdown = render_markdown(report_tables(report), summary)
    _deliver(report.model_dump_json(indent=1) + "\n", markdown, form, out)
    _warn_unexplained(evaluation)


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
    **options: Any,
) -> None:
    """Paired differences of two or more SUBMISSIONS; null:NAME stands for a null control."""
    from medfocus_bench.evaluation.compare import compare
    from medfocus_bench.evaluation.report_tables import comparison_table
    from medfocus_bench.tables import render_markdown

    _check_outside(out, [Path(name) for name in submissions])
    comparison = compare(submissions, benchmark, progress=show_progress, **options)
    table = comparison_table(comparison)
    if form == "table":
        print_tables([], [table])
    _deliver(comparison.model_dump_json(indent=1) + "\n", render_markdown([table]), form, out)


def _warn_unexplained(evaluation: Evaluation) -> None:
    """Of a run of some LVLMs only: say why the others score 0, and how to leave them out."""
    explained = {sample.lvlm for sample in evaluation.part.samples} - set(evaluation.unexplained)
    if evaluation.unexplained and explained:
        lvlms = " ".join(f"--lvlm {lvlm}" for lvlm in sorted(explained))
        names = ", ".join(evaluation.unexplained)
        warn(f"No sample of {names} has an attribution, so that all of them score 0; {lvlms} leaves them out")


def _check_outside(out: Path | None, submissions: Iterable[Path]) -> None:
    """Refuse to write a report over the document of a submission that it is about."""
    from medfocus_bench.errors import InputError

    if out is not None and out.exists() and out.resolve().parent in [path.resolve() for path in submissions]:
        raise InputError(f"{out}: is a file of the submission itself; name another place for --out")


def _deliver(as_json: str, as_markdown: str, form: str, out: Path | None) -> None:
    """Print the form that was asked for (a table is printed already), and write that of `out`."""
    if form != "table":
        click.echo(as_json if form == "json" else as_markdown, nl=False)
    if out is not None:
        write_atomic(out, as_markdown if out.suffix == ".md" else as_json)
