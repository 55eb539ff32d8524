"""Drivers and workers that are killed lose nothing, whatever the moment, and leave nobody behind."""

from __future__ import annotations

import pytest

from tests.cli.running import run

from . import drivers
from .kills import IN_PROCESS, LOCAL, METHODS, killed_run, random_moments


@pytest.fixture(scope="module")
def undisturbed(bench, tmp_path_factory):
    out = tmp_path_factory.mktemp("quiet") / "run"
    words = ("attribute", *METHODS, "-b", bench.folder, "--split", "direct", "--out", out)
    assert run(*words)[0] == 0
    return out


@pytest.mark.parametrize(
    ("whom", "engines", "kills"),
    [("driver", [IN_PROCESS, IN_PROCESS, LOCAL], 2), ("worker", [LOCAL], 1)],
)
def test_a_run_that_was_killed_ends_with_the_records_of_one_that_was_not(
    bench, words, tmp_path, undisturbed, whom, engines, kills
):
    """The first worker is killed while it starts."""
    moments = random_moments(kills, drivers.written(undisturbed), [whom], seed=18)
    moments = [(0.0, whom, 0.0), *moments] if whom == "worker" else moments
    told = killed_run(tmp_path / "run", *words, *METHODS, moments=moments, engines=engines)
    assert told.killed.total() == len(moments)
    assert all(killed.startswith(whom) for killed in told.killed)
    assert drivers.content(tmp_path / "run") == drivers.content(undisturbed)
    assert not list(tmp_path.glob("run/*/failures.jsonl"))
    assert not list(tmp_path.glob("run/.*")), "the locks of the dead are gone"
