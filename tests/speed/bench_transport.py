"""Unbalanced transport with a separable kernel against the dense solve of the same problem."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

import numpy as np

from medfocus_bench.medfocus.transport import squared_distances, transport
from tests.speed.figures import Figure, Limit
from tests.speed.machine import Rates

EPS, LAM, GUARD = 0.05, 0.1, 1e-18


def run(rates: Rates) -> Iterator[Figure]:
    rng = np.random.default_rng(0)
    source, target = rng.random((2, 56, 56))
    scale = 56**2 / 2
    moved, seconds = timed(lambda: transport(source, target, scale=scale), repeats=20)
    iterations = int(moved.iterations[0])
    plan, dense_seconds = timed(lambda: dense(source, target, scale, iterations), repeats=1)
    error = np.abs(moved.plan() - plan).max() / plan.max()
    ratio = dense_seconds / seconds
    yield Figure(
        "transport at 56 x 56, all pixels",
        ratio,
        "x",
        f"{seconds * 1e3:.1f} ms against {dense_seconds * 1e3:.0f} ms, error {error:.0e}",
        ">= 100 x, same plan to 1e-12",
        ratio >= 100 and error < 1e-12,
        _products(rates, seconds, iterations, 56),
    )

    masks = rng.random((11, 56, 56)) > 0.7
    _, pushed = timed(lambda: moved.push(masks), repeats=20)
    limit = rates.of_operations(pushed, 11 * 4 * 56**3, "two products for each concept", "float64")
    yield Figure("11 concepts through it", pushed * 1e3, "ms", "", "<= 15 ms", pushed <= 0.015, limit)

    peaks = [
        peak(work) / 1e6
        for work in (
            lambda: transport(source, target, scale=scale).push(masks),
            lambda: dense(source, target, scale, 2),
        )
    ]
    yield Figure(
        "memory over the images",
        peaks[0],
        "MB",
        f"dense {peaks[1]:.0f} MB",
        "< 5 MB (dense > 150 MB)",
        peaks[0] < 5 and peaks[1] > 150,
    )

    large, other = rng.random((2, 112, 112))
    moved, seconds = timed(lambda: transport(large, other, scale=4 * scale), repeats=5)
    limit = _products(rates, seconds, int(moved.iterations[0]), 112)
    yield Figure("transport at 112 x 112", seconds * 1e3, "ms", "", "< 100 ms", seconds < 0.1, limit)


def _products(rates: Rates, seconds: float, iterations: int, side: int) -> Limit:
    """A separable kernel is two products of matrices, twice an iteration."""
    what = f"{iterations} iterations of four products {side} x {side}"
    return rates.of_operations(seconds, iterations * 4 * 2 * side**3, what, "float64")


def dense(source: np.ndarray, target: np.ndarray, scale: float, iterations: int) -> np.ndarray:
    """The published cost structure: the kernel between all pixels, and the whole plan."""
    distances = squared_distances(len(source))
    ones = np.ones_like(distances)
    cost = (np.kron(distances, ones) + np.kron(ones, distances)) / scale
    kernel = np.exp(-cost / EPS)
    a, b = (image.ravel() / image.sum() for image in (source, target))
    u, v = np.ones_like(a), np.ones_like(b)
    for _ in range(iterations):
        u = (a / (kernel @ v + GUARD)) ** (LAM / (LAM + EPS))
        v = (b / (kernel.T @ u + GUARD)) ** (LAM / (LAM + EPS))
    return u[:, None] * kernel * v[None, :]


def timed(work: Callable[[], Any], repeats: int) -> tuple[Any, float]:
    """The result, and the seconds of the fastest run."""
    best, result = float("inf"), None
    for _ in range(repeats):
        start = perf_counter()
        result = work()
        best = min(best, perf_counter() - start)
    return result, best


def peak(work: Callable[[], Any]) -> int:
    """Bytes allocated at once."""
    tracemalloc.start()
    work()
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found
