"""Options and output that several commands share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from medfocus_bench.evaluation.protocol import MIN_RESAMPLES, PROTOCOLS, RESAMPLES

Item = TypeVar("Item")
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

BENCHMARK_HELP = "Folder with <split>.parquet files, `phantom`, or medfocus/cxr-causal[@REVISION] on the Hub."
benchmark_option: Decorator = click.option(
    "--benchmark", "-b", required=True, metavar="BENCHMARK", help=BENCHMARK_HELP
)
any_version_option: Decorator = click.option(
    "--any-version", is_flag=True, help="Accept a submission to another version of the benchmark."
)


def scoring_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--protocol, --seed, --resamples."""
    for option in (
        click.option(
            "--resamples",
            default=RESAMPLES,
            show_default=True,
            type=click.IntRange(MIN_RESAMPLES, 1_000_000),
        ),
        click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**32 - 1)),
        click.option("--protocol", default="standard", show_default=True, type=click.Choice(PROTOCOLS)),
    ):
        command = option(command)
    return command


def settings_of(assignments: Iterable[str], option: str) -> dict[str, str]:
    """FIELD=VALUE of a repeated option, by field. Raises InputError for what is none, or comes twice."""
    from medfocus_bench.errors import InputError

    settings: dict[str, str] = {}
    for assignment in assignments:
        field, equals, value = assignment.partition("=")
        if not equals or not field.isidentifier():
            raise InputError(f"{option} {assignment}: give FIELD=VALUE")
        if field in settings:
            raise InputError(f"{option} {field}: is given twice")
        settings[field] = value
    return settings


def one_line(text: str) -> str:
    """`text` on one line, with nothing in it that a terminal would obey; for what quotes an input."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.split()))


def track(items: Iterable[Item], description: str, total: int) -> Iterable[Item]:
    """A progress bar with an ETA on a terminal's stderr; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track as rich_track

    yield from rich_track(
        items, description=description, total=total, console=Console(stderr=True), transient=True
    )


def output_width() -> int:
    """Columns of the terminal; as many as every table needs where output goes to a file or a pipe."""
    from rich.console import Console

    from medfocus_bench.evaluation.tables import FULL_WIDTH

    return Console().width if sys.stdout.isatty() else FULL_WIDTH


@contextmanager
def progress_bar(description: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with an ETA on a terminal's stderr, moved by (done, total); silent elsewhere."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def print_tables(summary: Sequence[str], tables: Iterable[Any]) -> None:
    """Tables for a terminal."""
    from rich.console import Console
    from rich.text import Text

    from medfocus_bench.evaluation.tables import render_rich

    console = Console(width=output_width())
    for line in summary:
        console.print(Text(line))
    for table in tables:
        console.print()
        console.print(Text(table.title, style="bold"))
        console.print(render_rich(table))
        for note in table.notes:
            console.print(Text(note, style="italic"))


def quiet_models() -> None:
    """Keeps the bars of transformers off the terminal: loading a tiny model takes a moment."""
    try:
        from transformers.utils import logging
    except ImportError:
        return
    logging.disable_progress_bar()
