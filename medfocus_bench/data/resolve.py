"""From what a user writes after `--benchmark` to a benchmark."""

from __future__ import annotations

from pathlib import Path

from medfocus_bench.data.benchmark import Benchmark, load_benchmark
from medfocus_bench.errors import BenchmarkError


def open_benchmark(path_or_name: str | Path | Benchmark) -> Benchmark:
    """The benchmark in a local folder; one that is loaded already is passed through.

    Raises BenchmarkError for a folder that is not there or not a benchmark.
    """
    if isinstance(path_or_name, Benchmark):
        return path_or_name
    folder = Path(path_or_name)
    if not folder.exists():
        raise BenchmarkError(
            f"{path_or_name}: no such benchmark; give the path of a folder with <split>.parquet files"
        )
    return load_benchmark(folder)
