"""The engines give the same outputs, lose none with a worker, and leave no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from medfocus_bench.engine.choose import open_engine
from medfocus_bench.engine.local import LocalWorkers
from medfocus_bench.engine.on_ray import RayWorkers
from medfocus_bench.engine.protocol import InProcess, Lost
from medfocus_bench.errors import InputError, Notice

from .works import Squares, Stillborn, Unloadable, leaving, network, notices, threads


@pytest.fixture(scope="module")
def local():
    with open_engine("local", 2) as engine:
        yield engine


@pytest.fixture(scope="module")
def on_ray():
    pytest.importorskip("ray", reason="Ray is not installed: the extra `cluster` brings it")
    with open_engine("ray", 2) as engine:
        try:
            list(engine.run(threads, range(1)))
        except InputError as error:
            pytest.skip(f"Ray does not start on this machine: {error}")
        yield engine


@pytest.fixture(params=["in-process", "local", "on_ray"])
def engine(request):
    return InProcess() if request.param == "in-process" else request.getfixturevalue(request.param)


@pytest.fixture(params=["local", "on_ray"])
def workers(request):
    return request.getfixturevalue(request.param)


def squares(outputs):
    """The first output of each unit."""
    firsts = {}
    for unit, output in outputs:
        firsts.setdefault(unit, output)
    return firsts


def test_all_outputs_come_once(engine):
    outputs = list(engine.run(Squares(), range(7)))
    assert squares(outputs) == {n: n * n for n in range(7)}
    assert Counter(unit for unit, _ in outputs) == dict.fromkeys(range(7), 2)


def test_workers_share_the_units_and_are_kept(workers):
    """However late one of them starts: the other has then done all of a short run alone."""

    def pids():
        return {output for _, output in workers.run(Squares(slow=0.05), range(8)) if output > 100}

    found = set()
    for _ in range(100):
        found |= pids()
        if len(found) == 2:
            break
    assert len(found) == 2
    assert pids() <= found
    assert os.getpid() not in found


def test_units_are_taken_when_a_worker_is_free(engine):
    taken = []
    outputs = engine.run(Squares(), (taken.append(n) or n for n in range(100)))
    next(outputs)
    assert len(taken) <= engine.workers
    outputs.close()


def test_a_lost_worker_is_replaced_and_no_output_comes_twice(workers, tmp_path):
    work = Squares(dies_in=tmp_path, dies_at=3, deaths=2)
    outputs = list(workers.run(work, range(6)))
    assert Counter(unit for unit, _ in outputs) == dict.fromkeys(range(6), 2)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_unit_that_costs_worker_after_worker_is_given_up(workers, tmp_path):
    outputs = list(workers.run(Squares(dies_in=tmp_path, dies_at=3), range(6)))
    (given_up,) = [output for unit, output in outputs if isinstance(output, Lost)]
    assert "3 times" in given_up.reason
    assert Counter(unit for unit, _ in outputs) == dict.fromkeys(range(6), 2)
    assert len(list(tmp_path.iterdir())) == 3


def test_an_error_of_the_work_is_raised_and_the_engine_goes_on(engine):
    with pytest.raises(InputError, match="unit 2 is no good"):
        list(engine.run(Squares(fails_at=2), range(50)))
    assert squares(engine.run(Squares(), range(3))) == {0: 0, 1: 1, 2: 4}


def test_an_error_that_cannot_be_pickled_keeps_its_words_and_its_place(workers):
    with pytest.raises(Exception, match="odd 1") as caught:
        list(workers.run(Squares(breaks_at=1), range(3)))
    assert "works.py" in "".join(caught.value.__notes__)


def test_notices_are_given_where_the_run_is(engine):
    with pytest.warns(Notice) as given:
        assert [output for _, output in engine.run(notices, range(3))]
    assert sorted(str(notice.message) for notice in given) == [f"unit {n} looks odd" for n in range(3)]


def test_an_error_of_the_network_is_the_work_s_own(workers):
    with pytest.raises(ConnectionResetError, match="the Hub hung up"):
        list(workers.run(network, range(3)))


def test_work_that_ends_its_process_is_an_error(workers):
    with pytest.raises(RuntimeError, match="SystemExit: enough"):
        list(workers.run(leaving, range(3)))


def test_work_that_cannot_be_sent_or_loaded_is_told(local):
    with pytest.raises(InputError, match="cannot be sent this"):
        list(local.run(lambda unit: iter([unit]), range(3)))
    with pytest.raises(InputError, match="cannot load its work: ModuleNotFoundError"):
        list(local.run(Unloadable(), range(3)))


def test_other_work_ends_what_was_left_half_way(workers):
    first = workers.run(Squares(), range(50))
    next(first)
    assert squares(workers.run(Squares(), range(3))) == {0: 0, 1: 1, 2: 4}
    with pytest.raises(RuntimeError, match="other work"):
        list(first)


def test_ray_does_all_the_work_where_it_has_room_for_fewer_workers(on_ray):
    on_ray._end_actors()  # their two cores are free
    with open_engine("ray", 5) as engine:
        assert squares(engine.run(Squares(), range(9))) == {n: n * n for n in range(9)}
        assert squares(engine.run(Squares(), range(3))) == {n: n * n for n in range(3)}


def test_workers_on_ray_that_end_as_they_begin_are_an_error(on_ray, monkeypatch):
    on_ray._end_actors()
    monkeypatch.setattr("medfocus_bench.engine.on_ray._Worker", Stillborn)
    with open_engine("ray", 1) as engine, pytest.raises(InputError, match="end as soon as they begin"):
        list(engine.run(Squares(), range(3)))


def test_this_process_needs_no_device_of_workers_elsewhere():
    assert RayWorkers(2, address="head:6379", gpus=1).device_here("cuda") == "cpu"
    assert InProcess().device_here("cuda") == "cuda"


def test_a_worker_has_one_thread(workers):
    assert {output for _, output in workers.run(threads, range(4)) if output} == {"1"}


def test_local_workers_share_out_the_gpus():
    with LocalWorkers(2, gpus=["3", "5"]) as engine:
        outputs = list(engine.run(threads, range(6)))
    assert {output for _, output in outputs} <= {"1", "3", "5"}
    assert any(output in ("3", "5") for _, output in outputs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "slurm"}, "no engine 'slurm'; there are in-process, local, ray"),
        ({"name": "in-process", "workers": 2}, "--workers 2"),
        ({"address": "auto"}, "--engine ray"),
        ({"name": "local", "gpus_per_worker": 0.5}, "--engine ray"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        open_engine(**options)


def test_more_workers_are_local_ones():
    assert isinstance(open_engine(workers=2), LocalWorkers)
    assert isinstance(open_engine(), InProcess)


SCRIPT = """
import signal
import sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is deaf to it
from medfocus_bench.engine.local import LocalWorkers
from tests.engine.works import Squares
{guard}
    with LocalWorkers(2) as engine:
        for unit, output in engine.run(Squares(slow=0.1), range(10**6)):
            if output > 10**3 or unit == 0:
                print(output, flush=True)
"""


def script(tmp_path, guard):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT.format(guard=guard))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def test_a_script_without_a_guard_is_told(tmp_path):
    _, errors = script(tmp_path, "if True:").communicate(timeout=120)
    assert "if __name__ == '__main__':" in errors.splitlines()[-1]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_workers_end_with_the_process_that_started_them(tmp_path, how):
    process = script(tmp_path, "if __name__ == '__main__':")
    pids = set()
    while len(pids) < 2:
        number = int(process.stdout.readline())
        pids |= {number} if number > 10**3 else set()
    process.send_signal(how)
    try:
        process.communicate(timeout=60)
    finally:
        process.kill()
    for _ in range(200):
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            break
        time.sleep(0.05)
    else:
        pytest.fail(f"{pids} are still there")
