"""`data export`, `data push` and `data diff`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from medfocus_bench.cli.options import FOLDER_OR_NAME, INPUT_FOLDER, REPLACED_FOLDER, Command
from medfocus_bench.cli.output import counted, one_line

_SHOWN = 10


@click.command("export", cls=Command)
@click.argument("out", metavar="DIR", type=REPLACED_FOLDER)
@click.option(
    "--from",
    "source",
    metavar="FOLDER",
    type=FOLDER_OR_NAME,
    default="phantom",
    show_default=True,
    help="Open benchmark to export.",
)
@click.option(
    "--pointers", multiple=True, type=INPUT_FOLDER, help="Pointers of licensed sources; may be repeated."
)
@click.option("--version", metavar="X.Y.Z", help="Version of the export. Default: that of the benchmark.")
def export_command(out: Path, source: str, pointers: tuple[Path, ...], version: str | None) -> None:
    """Write the dataset repository, as it is uploaded to the Hub, to the new folder DIR."""
    from medfocus_bench.data.hub.publish import export

    repository = export(out, source, pointers, version=version)
    for config in repository.configs:
        for split in config.splits:
            shards = counted(len(split.shards), "shard")
            click.echo(
                f"{config.name}, {split.name}: {split.rows:,} rows, {split.samples:,} samples, {shards}"
            )
        click.echo(f"{config.name}: fingerprint {config.fingerprint}")
    click.echo(f"{out}: {repository.name} {repository.version}")


@click.command("push", cls=Command)
@click.argument("folder", metavar="DIR", type=INPUT_FOLDER)
@click.option("--repo", required=True, metavar="OWNER/NAME", help="Dataset repository on the Hub.")
@click.option("--private", is_flag=True, help="Make it private, where it is created.")
@click.option("--revision", metavar="vX.Y.Z", help="Tag; it has to be the version of DIR, its default.")
@click.option("--remove-configs", is_flag=True, help="Allow the removal of configs that DIR lacks.")
@click.option("--dry-run", is_flag=True, help="Show the changes; send nothing.")
def push_command(folder: Path, repo: str, dry_run: bool, **options: Any) -> None:
    """Send the exported repository DIR to the Hub in one commit, and tag it with its version."""
    from medfocus_bench.data.hub.publish import push

    pushed = push(folder, repo, dry_run=dry_run, **options)
    changes = pushed.changes
    if pushed.created:
        click.echo(f"{repo}: {'would be' if dry_run else 'was'} created")
    for sign, paths in (("+", changes.added), ("~", changes.changed), ("-", changes.removed)):
        for path in paths:
            click.echo(f"{sign} {path}")
    click.echo(f"{len(changes.unchanged)} files are there already")
    if pushed.tagged:
        click.echo(f"{repo}: {pushed.tag} is commit {pushed.commit}")
    else:
        click.echo(f"{repo}: {'nothing was sent' if dry_run else f'{pushed.tag} is published already'}")


@click.command("diff", cls=Command)
@click.argument("before", metavar="A", type=FOLDER_OR_NAME)
@click.argument("after", metavar="B", type=FOLDER_OR_NAME)
@click.option("--all", "everything", is_flag=True, help=f"Show all samples, not {_SHOWN} of a kind.")
def diff_command(before: str, after: str, everything: bool) -> None:
    """Show the differences of benchmarks A and B (folders or names); status 1 if there are any."""
    from medfocus_bench.data.hub.diff import difference

    changes = difference(before, after)
    for kind, lines in (
        ("removed", [f"- {name}" for name in changes.removed]),
        ("added", [f"+ {name}" for name in changes.added]),
        ("changed", [f"~ {name}: {', '.join(columns)}" for name, columns in changes.changed.items()]),
    ):
        shown = lines if everything else lines[:_SHOWN]
        for line in shown:
            click.echo(one_line(line))
        if len(lines) > len(shown):
            click.echo(f"  and {len(lines) - len(shown):,} more {kind}; --all shows them")
    click.echo(one_line(f"{changes}, {changes.unchanged} the same"))
    if changes:
        sys.exit(1)
