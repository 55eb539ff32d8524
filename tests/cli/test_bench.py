"""`bench`: what it prints and writes, and where there is nothing to run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medfocus_bench.cli import bench
from tests.speed import bench_phantom, benches
from tests.speed.figures import Figure, Limit
from tests.speed.machine import Rates

from .running import refused, run

RATES = Rates(copy=1e9, float32=1e10, float64=5e9)


@pytest.fixture
def two_figures(monkeypatch):
    """A benchmark of two figures, one of which misses its bound."""

    def measured(rates):
        limit = rates.of_bytes(0.002, 1e6, "a file, read once")
        yield Figure("reading", 2.0, "ms", "of five", "< 1 ms", False, limit)
        yield Figure("passes", 3, "passes")

    monkeypatch.setattr(bench_phantom, "run", measured)
    monkeypatch.setattr(Rates, "measured", classmethod(lambda cls: RATES))
    for variable in bench.THREADS:
        monkeypatch.setenv(variable, "1")


def test_every_figure_is_printed_beside_its_limit_and_written(two_figures, tmp_path):
    out = tmp_path / "speed.json"
    status, shown, _ = run("bench", "phantom", "--out", out)
    assert status == 0
    assert "MISS  reading: 2 ms (of five) (wanted: < 1 ms)" in shown
    assert "2 ms, at best 1 ms: 2 x (a file, read once: 1 MB at 1 GB/s, as a plain copy)" in shown
    document = json.loads(out.read_text())
    assert {"processor", "cores"} <= document["machine"].keys()
    assert {"medfocus_bench", "python", "numpy"} <= document["versions"].keys()
    (found,) = document["benchmarks"]
    assert (found["name"], found["rates"]["copy"]) == ("phantom", 1e9)
    first, second = found["figures"]
    assert (first["value"], first["met"], first["limit"]["times"]) == (2.0, False, 2.0)
    assert (second["limit"], second["met"]) == (None, None)


def test_a_wheel_says_where_the_benchmarks_are(monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "_CHECKOUT", tmp_path)
    assert "the benchmarks are in a checkout: git clone https://" in refused("bench")


def test_an_unknown_benchmark_is_refused_with_those_there_are():
    assert "no benchmark 'speed'; there are import, regions," in refused("bench", "speed")


def test_every_benchmark_has_a_name():
    files = {path.stem.removeprefix("bench_") for path in Path(benches.__file__).parent.glob("bench_*.py")}
    assert files == set(benches.NAMES)


def test_a_limit_is_how_many_times_worse_either_way():
    assert Limit(4.0, 2.0, "s", "").times == 2.0
    assert Limit(1.5, 2.0, "x", "", more_is_better=True).times == pytest.approx(4 / 3)
    assert RATES.of_operations(1.0, 1e10, "").best == 1.0
