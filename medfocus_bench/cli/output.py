"""Printing: lines, tables and lists of problems, safe for a terminal and for the log of a job."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

import click

MAX_PRINTED: Final = 1000
"""Problems that are printed; a map file can have as many as its header holds keys."""

_COMMANDS: Final = (("::", ": :"), ("##[", "# #["))
"""How a command to the runner of a job on GitHub starts, and a harmless form of it."""


def disarmed(text: str) -> str:
    """`text` as it is; in a job on GitHub without anything that its runner would take for a command."""
    if os.environ.get("GITHUB_ACTIONS") != "true":
        return text
    for command, harmless in _COMMANDS:
        while command in text:  # of three colons two are left
            text = text.replace(command, harmless)
    return text


def one_line(text: str) -> str:
    """`text` on one line, with nothing that a terminal or a job's runner obeys; to quote an input."""
    return disarmed("".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.split())))


def warn(text: str) -> None:
    """Print a text on one line of stderr."""
    click.echo(one_line(text), err=True)


def say(text: str) -> None:
    """Tell how a command goes about its work, on one line of stderr."""
    click.echo(one_line(text), err=True)


def counted(count: int, noun: str) -> str:
    """A count with its noun: "1 problem", "1,200 problems"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def print_problems(problems: Sequence[str], place: str, limit: int = MAX_PRINTED) -> None:
    """Print one line each on stderr, and how many there are at `place`."""
    for problem in problems[:limit]:
        warn(problem)
    if len(problems) > limit:
        click.echo(f"and {len(problems) - limit:,} more", err=True)
    if place:
        warn(f"medfocus-bench: {place}: {counted(len(problems), 'problem')}")


def print_first(lines: Sequence[str], limit: int, rest: str) -> None:
    """Print the first lines, indented; where there are more, how many, and `rest`."""
    for line in lines[:limit]:
        click.echo(one_line(f"  {line}"))
    if len(lines) > limit:
        click.echo(f"  and {len(lines) - limit:,} more; {rest}")


def output_width() -> int:
    """Columns of the terminal; as many as every table needs where output goes to a file or a pipe."""
    from rich.console import Console

    from medfocus_bench.tables import FULL_WIDTH

    return Console().width if sys.stdout.isatty() else FULL_WIDTH


def print_tables(summary: Sequence[str], tables: Iterable[Any]) -> None:
    """Print lines and tables, each with its title and notes."""
    from rich.console import Console
    from rich.text import Text

    from medfocus_bench.tables import render_rich

    console = Console(width=output_width())
    with console.capture() as captured:
        for line in summary:
            console.print(Text(line))
        for table in tables:
            console.print()
            console.print(Text(table.title, style="bold"))
            console.print(render_rich(table))
            for note in table.notes:
                console.print(Text(note, style="italic"))
    click.echo(disarmed(captured.get()), nl=False)
