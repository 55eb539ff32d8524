"""Progress of a command: a bar on a terminal, a line about every half minute elsewhere.

The lines, for the log of a cluster or of CI, hold how much is done, the pace, and the time that is left.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

import click

from medfocus_bench.progress import Item

Clock = Callable[[], float]
"""Seconds since some moment that stays the same."""

LINE_SECONDS: Final = 30.0
_REMEMBERED: Final = 10
"""The pace is measured over so many lines: the time left follows the last minutes."""
_ON_RECORD_SECONDS: Final = 1.0
"""Items that pass this soon after the first were on disk already, and do not count for the pace."""


class ProgressLines:
    """Prints progress lines on stderr; a work that ends before the first line is due prints nothing."""

    def __init__(
        self,
        description: str,
        *,
        clock: Clock = time.monotonic,
        write: Callable[[str], None] = lambda line: click.echo(line, err=True),
    ) -> None:
        self._description, self._clock, self._write = description, clock, write
        self._marks: deque[tuple[float, int]] = deque(maxlen=_REMEMBERED)
        self._begun = self._said = clock()

    def __call__(self, done: int, total: int) -> None:
        """Count `done` of `total` items; print a line if one is due."""
        now = self._clock()
        if not self._marks:
            self._begun = now
        if not self._marks or (len(self._marks) == 1 and now - self._begun < _ON_RECORD_SECONDS):
            self._marks = deque([(now, done)], maxlen=_REMEMBERED)
        if now - self._said < LINE_SECONDS:
            return
        since, before = self._marks[0]
        pace = _pace(now - since, done - before, total - done)
        self._write(f"{self._description}: {done:,} of {total:,}{pace}")
        self._marks.append((now, done))
        self._said = now


def _pace(seconds: float, made: int, left: int) -> str:
    """The rest of a line: the pace, and the time left at that pace."""
    if made <= 0:
        return ""
    each = seconds / made
    pace = f"{each:.3g} s each" if each >= 1 else f"{1 / each:.3g} a second"
    return f", {pace}, {duration(each * left)} left"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, as 1:02:03, or 2:03 under an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def show_progress(
    items: Iterable[Item], label: str, total: int, *, clock: Clock = time.monotonic
) -> Iterable[Item]:
    """Pass the items through and show progress: a bar with an ETA on a terminal's stderr, lines elsewhere."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as bar:
            yield from bar.track(items, total, description=label)
        return
    lines = ProgressLines(label, clock=clock)
    for done, item in enumerate(items):
        lines(done, total)
        yield item
    lines(total, total)
