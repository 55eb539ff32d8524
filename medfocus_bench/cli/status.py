"""`status`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from medfocus_bench.cli.options import INPUT, Command, format_option
from medfocus_bench.cli.output import output_width, print_tables
from medfocus_bench.cli.progress import LINE_SECONDS, duration

if TYPE_CHECKING:
    from medfocus_bench.runs.status import PartStatus, ProcessStatus, RunStatus

LOOK_SECONDS: Final = 2.0
"""Between two looks at the files of a run that is watched."""
_NAMED: Final = 10


@click.command("status", cls=Command)
@click.argument("run", type=INPUT)
@click.option("--watch", is_flag=True, help="Look again and again, until all is done; Ctrl-C ends it.")
@format_option
def status_command(run: Path, watch: bool, form: str) -> None:
    """Show how far RUN is: a folder of `attribute`, of a method or a shard in it, or records of `verify`.

    By method, LVLM and split: records, failures, pace, time left, and the processes that are at it. Only the
    files are read, so that it works on any machine that sees them, and disturbs nobody.
    """
    from medfocus_bench.runs.status import run_status

    if not watch:
        _show(run_status(run), form)
        return
    with suppress(KeyboardInterrupt):
        if form == "table" and _is_terminal():
            _watch_live(run)
            return
        shown = -LINE_SECONDS
        for status in _looks(run):
            if status.is_done or time.monotonic() - shown >= LINE_SECONDS:
                shown = time.monotonic()
                _show(status, form)


def _is_terminal() -> bool:
    return sys.stdout.isatty()


def _looks(run: Path) -> Iterator[RunStatus]:
    """The status of a run every few seconds, until all is done."""
    from medfocus_bench.runs.status import run_status

    while True:
        status = run_status(run)
        yield status
        if status.is_done:
            return
        time.sleep(LOOK_SECONDS)


def _watch_live(run: Path) -> None:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    from medfocus_bench.tables import render_rich

    with Live(console=Console(width=output_width()), auto_refresh=False) as live:
        for status in _looks(run):
            drawn: list[Any] = []
            for table in _tables(status):
                notes = [Text(note, style="italic") for note in table.notes]
                drawn += [Text(table.title, style="bold"), render_rich(table), *notes]
            live.update(Group(*drawn), refresh=True)


def _show(status: RunStatus, form: str) -> None:
    from medfocus_bench.tables import render_markdown

    if form == "json":
        click.echo(json.dumps(_document(status)))
    elif form == "markdown":
        click.echo(render_markdown(_tables(status)), nl=False)
    else:
        print_tables([], _tables(status))


def _document(status: RunStatus) -> dict[str, Any]:
    from dataclasses import asdict

    missing = {name: [shard.number for shard in shards] for name, shards in status.missing.items()}
    return asdict(status) | {"run": str(status.run), "missing": missing, "is_done": status.is_done}


def _tables(status: RunStatus) -> list[Any]:
    from medfocus_bench.tables import Row, Table

    header = ("", "samples", "done", "failed", "pending", "s/sample", "left", "state")
    notes = tuple(
        f"{name}: {len(shards)} of {shards[0].count} shards have not begun, and do not count: "
        + ", ".join(str(shard.number) for shard in shards[:_NAMED])
        + (", ..." if len(shards) > _NAMED else "")
        for name, shards in status.missing.items()
    )
    tables = [Table(f"Run {status.run}", header, tuple(Row(_cells(part)) for part in status.parts), notes)]
    if status.processes:
        rows = tuple(Row(_process_cells(process)) for process in status.processes)
        tables.append(Table("Processes", ("", "state", "methods"), rows))
    return tables


def _cells(part: PartStatus) -> tuple[str, ...]:
    pace = f"{1 / part.pace:.3g}" if part.pace else ""
    left = "" if part.seconds_left is None else duration(part.seconds_left)
    one = len(part.states) == 1 and set(part.states.values()) == {1}
    states = ", ".join(state if one else f"{count} {state}" for state, count in part.states.items())
    counts = (part.samples, part.done, part.failed, part.pending)
    return (
        f"{part.method}, {part.lvlm} {part.split}",
        *("" if count is None else f"{count:,}" for count in counts),
        *(pace, left, states),
    )


def _process_cells(process: ProcessStatus) -> tuple[str, ...]:
    states = {True: "runs", False: "has ended", None: "on another host, which cannot be asked"}
    shard = "" if process.shard is None else f", shard {process.shard}"
    return f"{process.holder}{shard}", states[process.runs], ", ".join(process.methods)
