"""Two processes on one folder: one writes, the other ends or waits, and nothing is done twice."""

from __future__ import annotations

from collections import Counter

import pytest

from medfocus_bench.lock import exclusive
from medfocus_bench.phantom.build import Run
from tests.cli.running import run

from . import drivers
from .conftest import SAMPLES
from .methods import HERE

PAUSING = ("--method", f"{HERE}:Pausing", "--set")


@pytest.fixture
def pausing(words, tmp_path):
    """The words of a run into `run` that waits in the middle."""
    return (*words, *PAUSING, f"pausing.place={tmp_path}", "--out", tmp_path / "run")


def explained(folder):
    """How often each sample was explained."""
    return sorted(Counter((folder / "calls").read_text().split()).values())


def test_the_second_ends_at_once_with_the_name_of_the_first_or_waits_for_it(pausing, tmp_path):
    first = drivers.start(tmp_path / "first", *pausing)
    drivers.wait_until((tmp_path / "half").exists, first)
    status, shown, error = run(*pausing)
    assert (status, shown, error.count("\n")) == (2, "", 1)
    assert f"pausing: process {first.pid} on " in error
    assert "writes to it; wait until that ends (`attribute --wait` does), or give another --out" in error
    third = drivers.start(tmp_path / "third", *pausing, "--wait")
    (tmp_path / "go").touch()
    assert first.end()[0] == 0
    assert third.end()[0] == 0
    assert explained(tmp_path) == [1] * SAMPLES
    assert not list((tmp_path / "run").glob(".*"))


def test_of_several_that_start_at_once_and_wait_each_finds_all_done_or_does_it(pausing, tmp_path):
    (tmp_path / "go").touch()
    several = [drivers.start(tmp_path / str(n), *pausing, "--wait") for n in range(3)]
    assert [driver.end()[0] for driver in several] == [0] * 3
    assert explained(tmp_path) == [1] * SAMPLES
    assert len(drivers.content(tmp_path / "run")) == SAMPLES


def test_verify_is_refused_too_and_asks_nothing(tmp_path):
    out = tmp_path / "records"
    file = Run("phantom_qwen", "direct", "lesion").file(out)
    words = ("verify", "--lvlm", "phantom_qwen", "--limit", 2, "--out", out)
    with exclusive(file):
        status, shown, error = run(*words)
    assert (status, shown, error.count("\n")) == (2, "", 1)
    assert f"{file}: process " in error
    assert not file.exists()
    assert run(*words)[0] == 0
    assert len(file.read_text().splitlines()) == 2
