"""Importing the package is cheap and brings no torch."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterator

from tests.speed.figures import Figure
from tests.speed.machine import Rates

_PROGRAM = """
import os, sys, time
start = time.perf_counter()
import medfocus_bench
elapsed = time.perf_counter() - start
loaded = [getattr(module, "__cached__", None) for module in sys.modules.values()]
size = sum(os.path.getsize(path) for path in loaded if path and os.path.exists(path))
print(elapsed, "torch" in sys.modules, size)
"""


def run(rates: Rates) -> Iterator[Figure]:
    runs = [
        subprocess.run([sys.executable, "-c", _PROGRAM], check=True, capture_output=True, text=True)
        for _ in range(7)
    ]
    times = [float(run.stdout.split()[0]) for run in runs]
    torch = any(run.stdout.split()[1] == "True" for run in runs)
    middle = statistics.median(times)
    limit = rates.of_bytes(middle, float(runs[0].stdout.split()[2]), "compiled modules, read once")
    yield Figure("import medfocus_bench", middle * 1e3, "ms", "", "< 300 ms", max(times) < 0.3, limit)
    yield Figure("torch imported with it", float(torch), "modules", "", "0", not torch)
