"""`status` on the command line."""

from __future__ import annotations

import json
import os
import time
from unittest.mock import patch

import pytest

from medfocus_bench.cli import status as command
from medfocus_bench.lock import exclusive
from medfocus_bench.runs.attribute import attribute
from medfocus_bench.runs.shards import Shard
from medfocus_bench.runs.wanted import note_begun, note_wanted
from tests.conftest import make_row

from .running import refused, run


@pytest.fixture
def bench(make_benchmark):
    return make_benchmark([make_row(n) for n in range(6)])


def begin(folder, samples=10):
    wanted = [f"s{n}" for n in range(samples)]
    note_wanted(folder, {("tiny", "direct"): samples})
    note_begun(folder, "tiny", "direct", wanted, ())
    (folder / "tiny-direct.jsonl").write_text("{}\n" * 4)


def test_a_table_says_how_far_each_part_is_and_who_is_at_it(tmp_path):
    begin(tmp_path / "run" / "grad-cam")
    with exclusive(tmp_path / "run" / "grad-cam"):
        status, shown, error = run("status", tmp_path / "run")
    assert (status, error) == (0, "")
    row = next(line.strip() for line in shown.splitlines() if "grad-cam, tiny direct" in line)
    assert row.split()[3:7] == ["10", "4", "0", "6"]
    assert row.endswith("running")
    assert f"process {os.getpid()} on " in shown
    assert "process" not in run("status", tmp_path / "run")[1]


def test_a_document_holds_all_of_it(bench, tmp_path):
    attribute("random-map", bench, tmp_path / "run", shard=Shard(1, 2))
    _, shown, _ = run("status", tmp_path / "run", "--format", "json")
    document = json.loads(shown)
    (part,) = document["parts"]
    assert (part["method"], part["lvlm"], part["split"]) == ("null-random-map", "tiny", "direct")
    assert part["pending"] == 0
    assert document["missing"] == {"null-random-map": [2]}
    assert document["is_done"] is False
    assert "1 of 2 shards have not begun, and do not count: 2" in run("status", tmp_path / "run")[1]
    assert run("status", tmp_path / "run", "--format", "markdown")[1].startswith("### Run ")


@pytest.fixture
def looks(bench, tmp_path, monkeypatch):
    """The looks at the run of a watch, of which the third finds it finished."""
    attribute("random-map", bench, tmp_path / "run", shard=Shard(1, 2))
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 2:
            attribute("random-map", bench, tmp_path / "run", shard=Shard(2, 2))

    monkeypatch.setattr(time, "sleep", sleep)
    return slept


@pytest.mark.parametrize("form", ["table", "json"])
def test_a_watch_prints_now_and_then_where_there_is_no_terminal_and_ends_when_all_is_done(
    looks, tmp_path, form
):
    status, shown, error = run("status", tmp_path / "run", "--watch", "--format", form)
    assert (status, error, looks) == (0, "", [command.LOOK_SECONDS] * 2)
    times = shown.count("Run ") if form == "table" else len(list(map(json.loads, shown.splitlines())))
    assert times == 2  # at once, and at the end: the next table is due after half a minute


def test_a_watch_stays_in_its_place_on_a_terminal(looks, tmp_path):
    with (
        patch.object(command, "output_width", lambda: 100),
        patch.object(command, "_is_terminal", lambda: True),
    ):
        status, shown, _ = run("status", tmp_path / "run", "--watch")
    assert (status, len(looks)) == (0, 2)
    assert "null-random-map, tiny direct" in shown


def test_ctrl_c_ends_a_watch_without_a_word(tmp_path, monkeypatch):
    begin(tmp_path / "run" / "grad-cam")

    def interrupted(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupted)
    status, _, error = run("status", tmp_path / "run", "--watch")
    assert (status, error) == (0, "")


def test_there_has_to_be_a_run(tmp_path):
    assert "nowhere: holds no run; give the folder that" in refused("status", tmp_path / "nowhere")
    assert "nowhere: holds no run" in refused("status", tmp_path / "nowhere", "--watch")
