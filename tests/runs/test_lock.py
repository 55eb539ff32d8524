"""One process at a time writes to a run."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import threading
import warnings

import pytest

from medfocus_bench import lock
from medfocus_bench.errors import InputError, Notice
from medfocus_bench.lock import Holder, check_free, exclusive, read_holder

HOLDING = """
import sys, time
from pathlib import Path
from unittest.mock import patch
import errno, fcntl
from medfocus_bench.lock import exclusive

def missing(*arguments):
    raise OSError(errno.ENOSYS, "no flock here")

if sys.argv[2] == "soft":
    fcntl.flock = missing
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def held_by(path):
    """Starts another process that holds the lock of `path`, with flock or without."""
    started = []

    def start(kind):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDING, path, kind], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def without_flock(monkeypatch):
    def missing(*arguments):
        raise OSError(errno.ENOSYS, "no flock here")

    monkeypatch.setattr(fcntl, "flock", missing)


def name_holder(path, **change):
    holder = {"pid": os.getpid(), "host": Holder.this_process().host, "since": "2026-01-01 10:00+00:00"}
    path.with_name(".run.holder").write_text(json.dumps(holder | change))


def test_one_writer_at_a_time_has_a_file_or_a_folder_and_leaves_no_lock_behind(tmp_path):
    path = tmp_path / "out" / "tuned.json"
    holder = rf"tuned\.json: process {os.getpid()} on .*, since .*, writes to it; .* another --out"
    with exclusive(path), pytest.raises(InputError, match=holder), exclusive(path):
        pass
    with exclusive(path):
        path.with_name(".tuned.json.holder").write_text("[]")
        with pytest.raises(InputError, match=r"tuned\.json: another process writes to it"), exclusive(path):
            pass
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("kind", ["flock", "soft"])
def test_a_lock_is_held_by_a_live_process_and_not_by_a_killed_one(path, held_by, request, kind):
    if kind == "soft":
        request.getfixturevalue("without_flock")
    process = held_by(kind)
    assert read_holder(path).runs
    with pytest.raises(InputError, match=rf"run: process {process.pid} on .* writes to it"), exclusive(path):
        pass
    process.kill()
    process.wait()
    assert read_holder(path).runs is False
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nor is there a word about the lock that was left behind
        with exclusive(path):
            assert read_holder(path).pid == os.getpid()
    assert read_holder(path) is None
    assert list(path.parent.iterdir()) == []


def test_a_lock_of_another_host_without_flock_says_that_it_may_be_stale(path, without_flock):
    path.with_name(".run.lock").write_text("12\nelsewhere\n")
    name_holder(path, pid=12, host="elsewhere")
    said = r"run: process 12 on elsewhere, .* another host cannot be asked; .* or delete .*\.run\.lock if it"
    with pytest.raises(InputError, match=said), exclusive(path):
        pass
    path.with_name(".run.lock").unlink()
    with exclusive(path):
        pass


def test_who_waits_says_once_for_whom_and_goes_on_when_that_ends(path, monkeypatch):
    monkeypatch.setattr(lock, "_POLL_SECONDS", 0.01)
    order, said = [], threading.Event()

    def waiting():
        with exclusive(path, wait=True):
            order.append("second")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with exclusive(path):
            thread = threading.Thread(target=waiting)
            thread.start()
            while not caught and thread.is_alive():
                said.wait(0.01)
            order.append("first")
        thread.join()
    assert order == ["first", "second"]
    (notice,) = [one.message for one in caught]
    assert isinstance(notice, Notice)
    assert f"run: waits for process {os.getpid()} on " in str(notice)


def test_a_process_with_the_number_of_one_that_ended_is_not_taken_for_it(path):
    mine = Holder.this_process()
    assert mine.runs
    if mine.started is not None:
        assert Holder(mine.pid, mine.host, mine.since, mine.started - 1).runs is False
    assert Holder(mine.pid, "elsewhere", mine.since, mine.started).runs is None
    assert Holder(2**70, mine.host, mine.since).runs is False


@pytest.mark.skipif(sys.platform != "linux", reason="the state of a process is read as Linux tells it")
def test_a_killed_process_whose_parent_has_not_looked_yet_has_ended():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    holder = Holder(process.pid, Holder.this_process().host, "2026-01-01")
    assert holder.runs
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert holder.runs is False
    process.wait()


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"pid": 1}', '{"pid": "1", "host": "h", "since": "s"}', "0" * 2000]
)
def test_an_unsound_name_of_a_holder_is_none(path, text):
    path.with_name(".run.holder").write_text(text)
    assert read_holder(path) is None


def test_a_name_that_a_killed_process_left_is_not_that_of_the_one_that_begins(path, held_by):
    held_by("flock")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    name_holder(path, pid=ended.pid)
    with pytest.raises(InputError, match=r"run: another process writes to it"), exclusive(path):
        pass


def test_looking_whether_a_lock_is_free_takes_nothing(path, monkeypatch):
    monkeypatch.setattr(lock, "_PROBE_SECONDS", 0.0)
    check_free(path)
    with exclusive(path), pytest.raises(InputError, match=r"run: process .* writes to it"):
        check_free(path)
    path.with_name(".run.lock").touch()
    check_free(path)
    assert list(path.parent.iterdir()) == []
