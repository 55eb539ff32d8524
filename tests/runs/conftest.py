"""A small benchmark of real rows of the phantom track, and a clean slate for the methods of the tests."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from medfocus_bench.data.resolve import installed_benchmarks, load_benchmark
from medfocus_bench.data.writing import write_benchmark

from . import methods

CONTENT = {
    "direct": {("phantom_qwen", "direct"): 4, ("phantom_gemma", "direct"): 2},
    "reasoning": {("phantom_qwen", "reasoning"): 1},
    "dev": {("phantom_qwen", "direct"): 3, ("phantom_qwen", "reasoning"): 1, ("phantom_gemma", "direct"): 1},
}
"""Samples by split, LVLM and mode."""


def track_rows(split):
    return pq.read_table(installed_benchmarks()["phantom"] / f"{split}.parquet").to_pylist()


def first_rows(split):
    """The first grounded rows of a split of the track, as many as `CONTENT` says."""
    rows = [row for row in track_rows(split) if row["group"] == "grounded"]
    return [
        row
        for key, count in CONTENT[split].items()
        for row in [row for row in rows if (row["lvlm"], row["mode"]) == key][:count]
    ]


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small") / "bench"
    write_benchmark(folder, {split: first_rows(split) for split in CONTENT}, name="small", version="1")
    return load_benchmark(folder)


@pytest.fixture(autouse=True)
def _fresh_methods(monkeypatch):
    monkeypatch.setattr(methods.Counting, "calls", [])
    monkeypatch.setattr(methods.Counting, "breaks_at", None)
    monkeypatch.setattr(methods.Sided, "questions", [])
