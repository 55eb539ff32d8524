"""The units of a run on their way through workers, which may be lost."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from typing import Any, Final, Generic

from medfocus_bench.engine.protocol import Lost, Unit
from medfocus_bench.errors import InputError, Notice

ATTEMPTS: Final = 3
"""Workers that may be lost with a unit before it is given up."""


@dataclass(slots=True)
class Task(Generic[Unit]):
    """A unit: its outputs that were given on, those of the present attempt, and how many workers it cost."""

    unit: Unit
    delivered: int = 0
    seen: int = 0
    lost: int = 0

    def is_new(self) -> bool:
        """Count an output; False for one that came from a worker that was lost later."""
        self.seen += 1
        if self.seen <= self.delivered:
            return False
        self.delivered = self.seen
        return True


class Tasks(Generic[Unit]):
    """The units that wait; those whose worker was lost come first."""

    def __init__(self, units: Iterable[Unit]) -> None:
        self._units = iter(units)
        self._again: deque[Task[Unit]] = deque()

    def next(self) -> Task[Unit] | None:
        """The next to be done; None where nothing waits."""
        if self._again:
            return self._again.popleft()
        for unit in self._units:
            return Task(unit)
        return None

    def lost(self, task: Task[Unit], how: str) -> Iterator[tuple[Unit, Lost]]:
        """Do a unit again whose worker was lost, or give it up."""
        task.lost, task.seen = task.lost + 1, 0
        if task.lost < ATTEMPTS:
            self._again.append(task)
        else:
            yield task.unit, Lost(f"its worker {how}, {ATTEMPTS} times")


class Messages:
    """The messages of a worker on its units: ("output", value), and ("notice", a Notice that was given).

    Made once in a worker process, whose warnings it then takes.
    """

    def __init__(self) -> None:
        self._notices: list[Notice] = []
        self._show = warnings.showwarning
        warnings.showwarning = self._take

    def of(self, outputs: Iterator[Any]) -> Iterator[tuple[str, Any]]:
        """The outputs, with the notices that were given on the way to each.

        An error of the work is raised as one that can be sent.
        """
        try:
            for output in outputs:
                yield from self._said()
                yield "output", output
        except (Exception, SystemExit) as error:
            raise sendable(error) from error
        finally:
            self._notices.clear()
        yield from self._said()

    def _said(self) -> Iterator[tuple[str, Any]]:
        while self._notices:
            yield "notice", self._notices.pop(0)

    def _take(self, message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
        if isinstance(message, Notice):
            self._notices.append(message)
        else:
            self._show(message, category, *place, **more)


def sendable(error: BaseException) -> Exception:
    """The error, or its text where it does not survive the way to another process."""
    if isinstance(error, Exception):
        with suppress(Exception):
            ForkingPickler.loads(ForkingPickler.dumps(error))
            return error
    return RuntimeError(f"{type(error).__name__}: {error}")


def with_trace(error: Exception, trace: str) -> Exception:
    """The error of a worker with the place where it was raised, unless that is a sentence for the user."""
    if not isinstance(error, InputError):
        error.add_note(f"In a worker:\n{trace}")
    return error
