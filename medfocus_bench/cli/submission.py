"""`validate`, `null` and `schema`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from medfocus_bench.cli.options import (
    INPUT,
    OUTPUT_FOLDER,
    Command,
    any_version_option,
    benchmark_option,
    check_new,
    seed_option,
)
from medfocus_bench.cli.output import one_line, print_problems


@click.command("validate", cls=Command)
@click.argument("path", type=INPUT)
@benchmark_option(help="Also hold it against the samples of a benchmark.")
@any_version_option
def validate_command(path: Path, benchmark: str | None, any_version: bool) -> None:
    """List every problem of the submission at PATH; status 2 if there is one.

    Of a sound one, warns of what explains nothing: samples without an attribution, maps that are not finite
    or everywhere the same.
    """
    from medfocus_bench.data.resolve import open_benchmark
    from medfocus_bench.submission.reader import validate

    problems = validate(path, open_benchmark(benchmark) if benchmark else None, any_version=any_version)
    if problems:
        print_problems(problems, str(path))
        sys.exit(2)
    for warning in problems.warnings:
        click.echo(one_line(f"warning: {path}: {warning}"), err=True)
    against = f" for {benchmark}" if benchmark else "; give --benchmark to check its samples too"
    summary = problems.counts.summary if problems.counts else ""
    click.echo(one_line(f"{path}: sound{against}; {summary}"))


@click.command("null", cls=Command)
@click.argument("name")
@benchmark_option(required=True)
@click.option("--out", required=True, type=OUTPUT_FOLDER, help="Submission folder to write.")
@click.option("--split", "splits", multiple=True, help="Only this split; may be repeated. Default: all.")
@seed_option()
@click.option("--overwrite", is_flag=True, help="Replace the folder if it exists.")
def null_command(
    name: str, benchmark: str, out: Path, splits: tuple[str, ...], seed: int, overwrite: bool
) -> None:
    """Write the null control NAME as a submission.

    NAME: whole-image, centre-box, random-boxes, random-map, mean-map, both-lungs or image-edges.
    """
    from medfocus_bench.data.resolve import open_benchmark
    from medfocus_bench.errors import InputError
    from medfocus_bench.evaluation.nulls import null_control, write_null

    null_control(name)
    check_new(out, overwrite=overwrite)
    part = open_benchmark(benchmark)
    unknown = set(splits) - set(part.splits)
    if unknown:
        raise InputError(f"no split {sorted(unknown)[0]!r} in the benchmark, only {', '.join(part.splits)}")
    if splits:
        part = part.select(part.configs, splits)
    click.echo(write_null(name, part, out, seed=seed, overwrite=overwrite))


@click.command("schema", cls=Command)
@click.argument("document", type=click.Choice(("submission", "report")))
def schema_command(document: str) -> None:
    """Print the JSON Schema of a submission or of a report."""
    from medfocus_bench.evaluation.report import report_json_schema
    from medfocus_bench.submission.schema import submission_json_schema

    schema = submission_json_schema() if document == "submission" else report_json_schema()
    click.echo(json.dumps(schema, indent=1))
