"""The units of a run on their way through workers, which may be lost."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Generic

from medfocus_bench.engine.protocol import Lost, Unit
from medfocus_bench.errors import InputError

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
            yield (
                task.unit,
                Lost(
                    f"its worker {how}, {ATTEMPTS} times, as one does where memory runs out; "
                    "try fewer --workers or a smaller --batch"
                ),
            )


def with_trace(error: Exception, trace: str) -> Exception:
    """The error of a worker with the place where it was raised, unless that is a sentence for the user."""
    if not isinstance(error, InputError):
        error.add_note(f"In a worker:\n{trace}")
    return error
