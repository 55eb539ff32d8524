"""Timing two things side by side."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from time import perf_counter


def seconds(function: Callable[[], object], repeats: int = 5) -> float:
    """Median wall time of a call, after one that is not counted."""
    function()
    times = []
    for _ in range(repeats):
        start = perf_counter()
        function()
        times.append(perf_counter() - start)
    return statistics.median(times)


def side_by_side(
    ours: Callable[[], object], other: Callable[[], object], repeats: int = 5
) -> tuple[float, float, float]:
    """Median seconds of both and the median of the ratios other / ours, measured in turn."""
    pairs = [(seconds(ours, 1), seconds(other, 1)) for _ in range(repeats)]
    mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    return mine, theirs, statistics.median(b / a for a, b in pairs)


def report(what: str, figure: str, wanted: str, met: bool) -> None:
    """One line: what was measured, the figure, the bound and whether it holds."""
    print(f"{'ok  ' if met else 'MISS'}  {what}: {figure} (wanted: {wanted})", flush=True)
