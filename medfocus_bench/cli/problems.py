"""Lists of problems, as many as can be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click

from medfocus_bench.cli.options import one_line

MAX_PRINTED: Final = 1000
"""Problems that are printed; a map file can have as many as its header holds keys."""


def print_problems(problems: Sequence[str], what: str) -> None:
    """One line each on stderr, and their count; `what` has them."""
    for problem in problems[:MAX_PRINTED]:
        click.echo(one_line(problem), err=True)
    if len(problems) > MAX_PRINTED:
        click.echo(f"and {len(problems) - MAX_PRINTED:,} more", err=True)
    count = f"{len(problems):,} problem" + ("s" if len(problems) > 1 else "")
    click.echo(one_line(f"medfocus-bench: {what}: {count}"), err=True)
