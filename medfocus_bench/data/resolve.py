"""From what a user writes after `--benchmark` to a benchmark."""

from __future__ import annotations

from pathlib import Path

from medfocus_bench.data.benchmark import Benchmark, load_benchmark


def open_benchmark(path_or_name: str | Path | Benchmark) -> Benchmark:
    """The benchmark in a local folder; one that is loaded already is passed through.

    Raises BenchmarkError for a folder that is not there or not a benchmark.
    """
    return path_or_name if isinstance(path_or_name, Benchmark) else load_benchmark(path_or_name)
