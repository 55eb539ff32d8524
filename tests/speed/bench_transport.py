"""Unbalanced transport with a separable kernel against the dense solve of the same problem."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np

from medfocus_bench.medfocus.transport import squared_distances, transport
from tests.speed.timing import report

EPS, LAM, GUARD = 0.05, 0.1, 1e-18


def run() -> None:
    rng = np.random.default_rng(0)
    source, target = rng.random((2, 56, 56))
    scale = 56**2 / 2
    moved, seconds = timed(lambda: transport(source, target, scale=scale), repeats=20)
    plan, dense_seconds = timed(lambda: dense(source, target, scale, int(moved.iterations[0])), repeats=1)
    error = np.abs(moved.plan() - plan).max() / plan.max()
    ratio = dense_seconds / seconds
    figure = f"{ratio:.0f} x ({seconds * 1e3:.1f} ms against {dense_seconds * 1e3:.0f} ms), error {error:.0e}"
    report(
        "transport at 56 x 56, all pixels",
        figure,
        ">= 100 x, same plan to 1e-12",
        ratio >= 100 and error < 1e-12,
    )

    masks = rng.random((11, 56, 56)) > 0.7
    _, pushed = timed(lambda: moved.push(masks), repeats=20)
    report("11 concepts through it", f"{pushed * 1e3:.1f} ms", "<= 15 ms", pushed <= 0.015)

    peaks = [
        peak(work)
        for work in (
            lambda: transport(source, target, scale=scale).push(masks),
            lambda: dense(source, target, scale, 2),
        )
    ]
    figure = f"{peaks[0] / 1e6:.1f} MB (dense {peaks[1] / 1e6:.0f} MB)"
    report("memory over the images", figure, "< 5 MB (dense > 150 MB)", peaks[0] < 5e6 and peaks[1] > 150e6)

    large, other = rng.random((2, 112, 112))
    _, seconds = timed(lambda: transport(large, other, scale=4 * scale), repeats=5)
    report("transport at 112 x 112", f"{seconds * 1e3:.0f} ms", "< 100 ms", seconds < 0.1)


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
