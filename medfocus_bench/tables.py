"""Tables of text, drawn for the terminal or as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

FULL_WIDTH = 168
"""Terminal width (columns) that every table needs, those of reports with all intervals included."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of cells; a `quiet` one (a null control, a note) is drawn dimmed."""

    cells: tuple[str, ...]
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A titled table of text."""

    title: str
    header: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


def render_rich(table: Table) -> RichTable:
    """The cells of a table for a terminal; the interval of a score goes below its mean."""
    drawn = RichTable(
        header_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for number, name in enumerate(table.header):
        drawn.add_column(
            Text(name), justify="left" if number == 0 else "right", overflow="fold", vertical="top"
        )
    for row in table.rows:
        cells = [Text(cell.replace(" [", "\n[").replace(" (", "\n(")) for cell in row.cells[1:]]
        drawn.add_row(Text(row.cells[0]), *cells, style="dim" if row.quiet else "")
    return drawn


def escaped(text: str) -> str:
    """`text` on one line of Markdown, as text only."""
    safe = "".join("\\" + c if c in "\\`*_{}<>#|[]!" else c for c in text)
    return " ".join(safe.split())


def render_markdown(
    tables: Iterable[Table], summary: Sequence[str] = (), *, escape: Callable[[str], str] = escaped
) -> str:
    """The lines of a summary and the tables as Markdown; `escape` makes plain text of every text."""

    def row(cells: Iterable[str]) -> str:
        return "| " + " | ".join(map(escape, cells)) + " |"

    blocks = ["\n".join(f"- {escape(line)}" for line in summary)] if summary else []
    for table in tables:
        lines = [f"### {escape(table.title)}", "", row(table.header)]
        lines.append("| --- |" + " ---: |" * (len(table.header) - 1))
        lines += [row(line.cells) for line in table.rows]
        if table.notes:
            lines += ["", *(f"- {escape(note)}" for note in table.notes)]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def counted(number: int, unit: str) -> str:
    """A number with its unit, as in `1 sample` or `2 samples`."""
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"
