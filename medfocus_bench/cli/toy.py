"""`toy`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("toy")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--patients", default=60, show_default=True, type=click.IntRange(4, 100_000))
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**32 - 1))
def toy_command(folder: Path, patients: int, seed: int) -> None:
    """Write a toy benchmark and four toy submissions to FOLDER, to try the evaluator on."""
    from medfocus_bench.toy import write_toy

    benchmark = write_toy(folder, patients=patients, seed=seed)
    click.echo(f"{folder / 'benchmark'}: {len(benchmark.samples)} samples of {patients} patients")
    for path in sorted((folder / "submissions").iterdir()):
        click.echo(str(path))
