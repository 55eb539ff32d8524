"""The protocol of engines: they take a piece of work through its units, and give the outputs as they come."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol, Self, TypeVar

Unit = TypeVar("Unit")
Output = TypeVar("Output")
_Unit_contra = TypeVar("_Unit_contra", contravariant=True)
_Output_co = TypeVar("_Output_co", covariant=True)

THREADS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables that give a worker one thread for linear algebra."""


class Work(Protocol[_Unit_contra, _Output_co]):
    """The work on a unit, one output at a time, always in the same order.

    An engine with workers sends it to each of them (pickled), where it may keep what it has loaded.
    """

    def __call__(self, unit: _Unit_contra, /) -> Iterator[_Output_co]: ...


@dataclass(frozen=True, slots=True)
class Lost:
    """In place of the outputs that a unit still owes: its workers were lost again and again."""

    reason: str


class Engine(ABC):
    """Runs work; a context manager that ends its workers.

    `workers`: how many units are worked on at a time. `elsewhere`: they may be on other machines.
    """

    workers: int = 1
    elsewhere: bool = False

    def device_here(self, device: str) -> str:
        """The part of `device`, of the LVLMs, that this process needs: the CPU where they run elsewhere."""
        return "cpu" if self.elsewhere else device

    @abstractmethod
    def run(self, work: Work[Unit, Output], units: Iterable[Unit]) -> Iterator[tuple[Unit, Output | Lost]]:
        """The outputs of all units as they come, each exactly once.

        A unit is taken from `units` when a worker is free. An error that the work raises is raised here, and
        what other workers are at is dropped.
        """

    def close(self) -> None:  # noqa: B027  an engine without workers has nothing to end
        """End the workers. They start again when there is more work."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class InProcess(Engine):
    """Everything in this process, a unit after the other."""

    def run(self, work: Work[Unit, Output], units: Iterable[Unit]) -> Iterator[tuple[Unit, Output | Lost]]:
        for unit in units:
            for output in work(unit):
                yield unit, output
