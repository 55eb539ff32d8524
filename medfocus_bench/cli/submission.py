"""`info`, `validate`, `null` and `schema`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from medfocus_bench.cli.options import (
    FOLDER_OR_NAME,
    INPUT,
    OUTPUT_FOLDER,
    Command,
    any_version_option,
    benchmark_option,
    check_new,
    seed_option,
)
from medfocus_bench.cli.output import counted, one_line, print_problems, warn


@click.command("info", cls=Command)
@click.argument("benchmark", metavar="BENCHMARK", type=FOLDER_OR_NAME)
def info_command(benchmark: str) -> None:
    """Show the identity and the content of BENCHMARK (a folder or a name), as a submission quotes it.

    Derived splits are made when they are asked for by name, and count among neither samples nor patients.
    Of an exported dataset repository it is the default config; the others are listed below it.
    """
    from medfocus_bench.data.resolve import is_folder, load_benchmark

    opened = load_benchmark(benchmark)
    for name, value in (
        ("name", opened.name),
        ("version", opened.version),
        ("fingerprint", opened.fingerprint),
        ("configs", ", ".join(opened.configs)),
        ("splits", ", ".join(opened.splits)),
        ("derived", ", ".join(sorted(set(opened.known_splits) - set(opened.splits))) or "none"),
        ("samples", len(opened.samples)),
        ("patients", len({sample.patient for sample in opened.samples})),
    ):
        click.echo(f"{name + ':':13}{value}")
    if is_folder(benchmark) and opened.folder != Path(benchmark):
        for line in _configs_of(Path(benchmark), opened.folder.name):
            click.echo(line)


def _configs_of(repository: Path, default: str) -> Iterator[str]:
    """Describe each config of a dataset repository, split by split, and check it against the manifest."""
    from medfocus_bench.data.hub.publication import read_publication
    from medfocus_bench.data.hub.repository import published_configs

    publication = read_publication(repository)
    configs = counted(len(publication.configs), "config")
    yield ""
    yield f"The folder is a dataset repository of {configs}; above stands {default}, its default."
    for name, splits in publication.configs.items():
        kind = (
            "complete"
            if published_configs()[name].is_open
            else "pointers, which `data attach` joins with your copies"
        )
        yield f"{name}: {kind}; fingerprint {publication.fingerprint(name)}"
        for split, rows in splits.items():
            samples = sum((row["group"] or "grounded") == "grounded" for row in rows)
            yield f"  {split + ':':11}{samples:,} samples in {len(rows):,} rows"


@click.command("validate", cls=Command)
@click.argument("path", type=INPUT)
@benchmark_option(help="Also hold it against the samples of a benchmark.")
@any_version_option
def validate_command(path: Path, benchmark: str | None, any_version: bool) -> None:
    """List every problem of the submission at PATH; status 2 if there is one.

    Of a sound one, warn of samples without an attribution, of maps that are not finite or everywhere the
    same, and of maps that lost values in float16, have few levels, or repeat the cells of a coarse grid.
    """
    from medfocus_bench.data.resolve import load_benchmark
    from medfocus_bench.submission.reader import validate

    problems = validate(path, load_benchmark(benchmark) if benchmark else None, any_version=any_version)
    if problems:
        print_problems(problems, str(path))
        sys.exit(2)
    for warning in problems.warnings:
        warn(f"warning: {path}: {warning}")
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
    from medfocus_bench.data.resolve import load_benchmark
    from medfocus_bench.errors import InputError
    from medfocus_bench.evaluation.nulls import null_control, write_null

    null_control(name)
    check_new(out, overwrite=overwrite)
    part = load_benchmark(benchmark)
    unknown = sorted(set(splits) - set(part.known_splits)) if splits else []
    if unknown:
        raise InputError(f"no split {unknown[0]!r} in the benchmark, only {', '.join(part.known_splits)}")
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
