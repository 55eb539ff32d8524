"""Importing the package is cheap and brings no torch."""

from __future__ import annotations

import statistics
import subprocess
import sys

from tests.speed.timing import report

_PROGRAM = """
import sys, time
start = time.perf_counter()
import medfocus_bench
elapsed = time.perf_counter() - start
print(elapsed, "torch" in sys.modules)
"""


def run() -> None:
    runs = [
        subprocess.run([sys.executable, "-c", _PROGRAM], check=True, capture_output=True, text=True)
        for _ in range(7)
    ]
    times = [float(run.stdout.split()[0]) for run in runs]
    torch = any(run.stdout.split()[1] == "True" for run in runs)
    report("import medfocus_bench", f"{statistics.median(times) * 1e3:.1f} ms", "< 300 ms", max(times) < 0.3)
    report("torch imported with it", str(torch), "False", not torch)
