"""A small benchmark, and where a submission to it goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from medfocus_bench.data.benchmark import Benchmark

from ..submission.documents import write_small_benchmark


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    return write_small_benchmark(tmp_path_factory.mktemp("data") / "bench")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "mine"
