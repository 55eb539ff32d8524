"""The figures of a benchmark, and the timing of two things side by side."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter


@dataclass(frozen=True, slots=True)
class Limit:
    """A figure beside the best that this machine can do for the same work, both in `unit`."""

    reached: float
    best: float
    unit: str
    what: str
    more_is_better: bool = False

    @property
    def times(self) -> float:
        """How far from the best: 1 is there."""
        far, near = (self.best, self.reached) if self.more_is_better else (self.reached, self.best)
        return far / near if near > 0 else float("inf")


@dataclass(frozen=True, slots=True)
class Figure:
    """One line: what was measured, the figure, the bound and whether it holds (None without a bound)."""

    name: str
    value: float
    unit: str
    detail: str = ""
    wanted: str = ""
    met: bool | None = None
    limit: Limit | None = None


def seconds(function: Callable[[], object], repeats: int = 5) -> float:
    """Median wall time of a call, after one that is not counted."""
    function()
    return statistics.median(once(function) for _ in range(repeats))


def once(function: Callable[[], object]) -> float:
    """Wall time of a call."""
    start = perf_counter()
    function()
    return perf_counter() - start


def side_by_side(
    ours: Callable[[], object], other: Callable[[], object], repeats: int = 5
) -> tuple[float, float, float]:
    """Median seconds of both and the median of the ratios other / ours, measured in turn."""
    pairs = [(seconds(ours, 1), seconds(other, 1)) for _ in range(repeats)]
    mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    return mine, theirs, statistics.median(b / a for a, b in pairs)
