"""`info`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from medfocus_bench.cli.options import FOLDER_OR_NAME, Command


@click.command("info", cls=Command)
@click.argument("benchmark", metavar="BENCHMARK", type=FOLDER_OR_NAME)
def info_command(benchmark: str) -> None:
    """Show what BENCHMARK (a folder or a name) is and holds: what a submission quotes of it.

    Of an exported dataset repository that is its default config; the others are listed below it.
    """
    from medfocus_bench.data.resolve import is_folder, open_benchmark

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
    if is_folder(benchmark) and opened.folder != Path(benchmark):
        for line in _configs_of(Path(benchmark), opened.folder.name):
            click.echo(line)


def _configs_of(repository: Path, default: str) -> Iterator[str]:
    """What each config of a dataset repository holds, split by split; its manifest is held against it."""
    from medfocus_bench.data.hub.layout import CONFIGS
    from medfocus_bench.data.hub.publication import read_publication

    publication = read_publication(repository)
    count = len(publication.configs)
    yield ""
    held = f"{count} config{'s' * (count > 1)}"
    yield f"The folder is a dataset repository of {held}; above stands {default}, its default."
    for name, splits in publication.configs.items():
        kind = "complete" if CONFIGS[name].is_open else "pointers, which `data attach` joins with your copies"
        yield f"{name}: {kind}; fingerprint {publication.fingerprint(name)}"
        for split, rows in splits.items():
            samples = sum((row["group"] or "grounded") == "grounded" for row in rows)
            yield f"  {split + ':':11}{samples:,} samples in {len(rows):,} rows"
