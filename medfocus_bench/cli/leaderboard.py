"""`leaderboard`: its group, and `leaderboard build`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from medfocus_bench.cli.options import (
    CORES,
    INPUT_FILE,
    INPUT_FOLDER,
    REPLACED_FOLDER,
    Group,
    benchmark_option,
    engine_options,
)
from medfocus_bench.cli.progress import show_progress
from medfocus_bench.cli.submit import guard_command, log_command, rebuild_command, results_option

if TYPE_CHECKING:
    from medfocus_bench.engine.protocol import Engine

_SUBMISSIONS = Path("submissions")


@click.group("leaderboard", cls=Group)
def leaderboard_command() -> None:
    """The leaderboard: verified results and the page that shows them."""


@leaderboard_command.command("build")
@results_option
@click.option(
    "--submissions",
    default=_SUBMISSIONS,
    show_default=True,
    type=INPUT_FOLDER,
    help="Folder with the submissions, for the galleries; without it, no gallery is drawn.",
)
@click.option(
    "--log",
    type=INPUT_FILE,
    help="Log of additions, rescorings and removals. Default: log.jsonl beside the results' folder.",
)
@benchmark_option(default="phantom", show_default=True, help="Whose pictures are shown.")
@click.option("--no-gallery", is_flag=True, help="Draw no pictures.")
@engine_options(CORES, "cores, up to 8")
@click.option(
    "--out",
    default="leaderboard/site",
    show_default=True,
    type=REPLACED_FOLDER,
    help="Folder of the page; one that was built before is replaced.",
)
def build_command(
    results: Path,
    submissions: Path,
    log: Path | None,
    benchmark: str,
    no_gallery: bool,
    engine: Engine,
    out: Path,
) -> None:
    """Build the static page of all results."""
    from medfocus_bench.data.resolve import load_benchmark
    from medfocus_bench.errors import InputError
    from medfocus_bench.leaderboard.log import LOG_NAME
    from medfocus_bench.leaderboard.site import build_site

    if log is not None and not log.exists():
        raise InputError(f"{log}: is not a file; give the log, or leave --log out")
    if submissions != _SUBMISSIONS and not submissions.is_dir():
        raise InputError(
            f"{submissions}: is not a folder; give the one with the submissions, or --no-gallery"
        )
    gallery = not no_gallery and submissions.is_dir()
    site = build_site(
        results,
        out,
        log=log or results.parent / LOG_NAME,
        submissions=submissions if gallery else None,
        benchmark=load_benchmark(benchmark) if gallery else None,
        engine=engine,
        progress=show_progress,
    )
    click.echo(
        f"{site.results} results, {site.pages} pages ({site.size / 1e6:.2f} MB), {site.pictures} pictures"
    )
    click.echo(f"open {site.index.resolve()}")


for _command in (rebuild_command, guard_command, log_command):
    leaderboard_command.add_command(_command)
