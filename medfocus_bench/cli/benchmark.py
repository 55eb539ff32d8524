"""`info`."""

from __future__ import annotations

import click


@click.command("info")
@click.argument("benchmark", metavar="BENCHMARK")
def info_command(benchmark: str) -> None:
    """Show what BENCHMARK (a folder or a name) is and holds: what a submission quotes of it."""
    from medfocus_bench.data.resolve import open_benchmark

    opened = open_benchmark(benchmark)
    for name, value in (
        ("name", opened.name),
        ("version", opened.version),
        ("fingerprint", opened.fingerprint),
        ("configs", ", ".join(opened.configs)),
        ("splits", ", ".join(opened.splits)),
        ("samples", len(opened.samples)),
        ("patients", len({sample.patient for sample in opened.samples})),
    ):
        click.echo(f"{name + ':':13}{value}")
