"""A benchmark of a few rows, runs of it that nobody disturbed, and a watch over what a command may not do."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import pytest

from medfocus_bench.data.resolve import load_benchmark
from medfocus_bench.data.writing import write_benchmark
from tests.runs.conftest import track_rows

from . import drivers

SAMPLES = 6


@cache
def _rows():
    rows = (row for row in track_rows("direct") if row["group"] == "grounded")
    return [row for row in rows if row["lvlm"] == "phantom_qwen"][:SAMPLES]


def few_rows(count=SAMPLES):
    """Rows of an LVLM of the phantom."""
    return [dict(row) for row in _rows()[:count]]


@pytest.fixture(scope="package")
def bench(tmp_path_factory):
    folder = tmp_path_factory.mktemp("few") / "bench"
    write_benchmark(folder, {"direct": few_rows()}, name="few", version="1")
    return load_benchmark(folder)


@pytest.fixture
def words(bench):
    """Those of `attribute`, but for methods and folder."""
    return ("attribute", "-b", bench.folder, "--split", "direct")


@pytest.fixture(scope="package", autouse=True)
def _server():
    yield
    drivers.stop_server()


@pytest.fixture(autouse=True)
def _watch():
    """No process is left behind, and nothing in the home folder."""
    home = Path(os.environ["HOME"])
    before, running = sorted(home.rglob("*")), drivers.workers(os.getpid())
    yield
    assert sorted(home.rglob("*")) == before
    drivers.wait_until(lambda: drivers.gone(drivers.workers(os.getpid()) - running))
