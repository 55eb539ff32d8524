"""From what a user writes after `--benchmark` to a benchmark."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Final

from medfocus_bench.data.benchmark import Benchmark, load_benchmark

EMBEDDED: Final = {"phantom": Path(str(files("medfocus_bench"))) / "phantom" / "track"}
"""Benchmarks that are part of the package, by name."""


def open_benchmark(path_or_name: str | Path | Benchmark) -> Benchmark:
    """The benchmark in a local folder, or an embedded one by its name; one that is loaded is passed through.

    A folder of that name in the current one wins over the name. Raises BenchmarkError for a folder that is
    not there or not a benchmark.
    """
    if isinstance(path_or_name, Benchmark):
        return path_or_name
    if str(path_or_name) in EMBEDDED and not Path(path_or_name).is_dir():
        return load_benchmark(EMBEDDED[str(path_or_name)])
    return load_benchmark(path_or_name)
