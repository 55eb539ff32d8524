"""Ctrl-C in the middle of a batch, and workers that are lost for good."""

from __future__ import annotations

import pytest

from medfocus_bench.engine.choose import open_engine
from medfocus_bench.runs.attribute import attribute
from medfocus_bench.runs.methods import choose_methods
from medfocus_bench.runs.records import read_failures
from tests.cli.running import run

from . import drivers
from .conftest import SAMPLES
from .methods import HERE


@pytest.mark.parametrize("engine", ["in-process", "local"])
def test_ctrl_c_ends_a_run_in_a_sentence_with_all_records_and_no_worker_left(words, tmp_path, engine):
    words = (*words, "--method", f"{HERE}:Pausing", "--set", f"pausing.place={tmp_path}", "--engine", engine)
    out = tmp_path / "run"
    driver = drivers.start(tmp_path / "log", *words, "--out", out)
    drivers.wait_until((tmp_path / "half").exists, driver)
    drivers.wait_until(lambda: drivers.lines(out) == 2)
    started = drivers.workers(driver.pid)
    assert bool(started) == (engine == "local")
    status, shown, error = driver.interrupt()
    assert (status, shown) == (130, "")
    said = "medfocus-bench: interrupted; what was written stays, and a run goes on from there with the same"
    assert error.splitlines()[-1].startswith(said)
    assert "Traceback" not in error
    drivers.wait_until(lambda: drivers.gone(started))
    assert drivers.lines(out) == 2
    (tmp_path / "go").touch()
    status, shown, _ = run(*words[:-2], "--out", out)
    assert status == 0
    assert len(drivers.content(out)) == SAMPLES
    assert len((tmp_path / "calls").read_text().split()) == SAMPLES + 1, "the one in the middle is done again"


def test_a_sample_that_costs_worker_after_worker_is_a_failure_on_record_and_the_rest_is_explained(
    bench, tmp_path
):
    names = [f"{HERE}:Wide", f"{HERE}:Dying"]
    place = tmp_path / "place"
    place.mkdir()
    methods = choose_methods(names, [f"dying.place={place}", "dying.deaths=3", "dying.call=1"])
    with open_engine("local") as engine:
        attribute(methods, bench, tmp_path / "run", engine=engine)
        found = read_failures(tmp_path / "run" / "dying")
        assert len(found) == 1
        assert "its worker was killed" in found[0].reason
        assert "3 times" in found[0].reason
        attribute(methods, bench, tmp_path / "run", engine=engine)
    assert not read_failures(tmp_path / "run" / "dying")
    assert len(drivers.content(tmp_path / "run")) == 2 * SAMPLES
