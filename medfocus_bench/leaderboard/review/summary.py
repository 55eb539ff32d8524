"""The outcome of a check as Markdown, for the summary of a job: no text in it can be more than text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from medfocus_bench.tables import Table

MAX_PROBLEMS: Final = 50
MAX_TEXT: Final = 600

_PLAIN: Final = frozenset(" %,;\N{EN DASH}")
"""Besides letters and digits, what has no meaning in the middle of a line of Markdown."""


def neutral(text: str) -> str:
    """`text` on one line as it reads, with every sign that could be markup, a link or a mention disarmed.

    Signs become character references, which Markdown shows and never obeys; after an at sign stands a space
    of no width, as GitHub finds mentions in what is shown. What cannot be seen is escaped.
    """
    line = " ".join(text.split())
    if len(line) > MAX_TEXT:
        line = line[: MAX_TEXT - 3] + "..."
    return "".join(_neutral(c) for c in line)


def accepted_summary(name: str, lines: Sequence[str], tables: Sequence[Table]) -> str:
    """What a sound submission would get: a few lines, then tables."""
    blocks = [f"## {neutral(name)}: sound", "\n".join(f"* {neutral(line)}" for line in lines)]
    blocks += [_table(table) for table in tables]
    return "\n\n".join(block for block in blocks if block) + "\n"


def refused_summary(problems: Sequence[str]) -> str:
    """The problems of a submission, the first `MAX_PROBLEMS` of them."""
    count = f"{len(problems)} problem" + ("s" if len(problems) != 1 else "")
    listed = [f"* {neutral(problem)}" for problem in problems[:MAX_PROBLEMS]]
    if len(problems) > MAX_PROBLEMS:
        listed.append(f"* and {len(problems) - MAX_PROBLEMS} more")
    return f"## Refused: {count}\n\n" + "\n".join(listed) + "\n"


def _neutral(character: str) -> str:
    if character == "@":
        return "&#64;&#8203;"
    if character.isalnum() or character in _PLAIN:
        return character
    if not character.isprintable():
        return neutral(ascii(character)[1:-1])
    return f"&#{ord(character)};"


def _table(table: Table) -> str:
    lines = [f"### {neutral(table.title)}", ""]
    lines += [_line(table.header), "| --- |" + " ---: |" * (len(table.header) - 1)]
    lines += [_line(row.cells) for row in table.rows]
    if table.notes:
        lines += ["", *(f"* {neutral(note)}" for note in table.notes)]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(neutral(cell) for cell in cells) + " |"
