"""How far a run is, from its files alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from medfocus_bench.errors import InputError
from medfocus_bench.lock import Holder, exclusive
from medfocus_bench.runs.attribute import attribute
from medfocus_bench.runs.methods import choose_methods
from medfocus_bench.runs.records import Failure, RecordFiles, add_failure
from medfocus_bench.runs.shards import Shard
from medfocus_bench.runs.status import run_status
from medfocus_bench.runs.wanted import WANTED_NAME, note_begun, note_wanted, read_wanted
from tests.conftest import opened_files

from .methods import HERE

REFUSING = f"{HERE}:Refusing"


def nulls(small, out, *names, **options):
    return attribute(choose_methods(names or ["random-map"], ()), small, out, **options)


def counts(status):
    return {
        (part.method, part.lvlm, part.split): (
            part.samples,
            part.done,
            part.failed,
            part.pending,
            part.states,
        )
        for part in status.parts
    }


def write_lines(folder, count, split="direct", tail=""):
    """Whole lines of records, as far as they are counted, and one that is half written."""
    files = RecordFiles.of(folder, "an/lvlm", split)
    files.lines.parent.mkdir(parents=True, exist_ok=True)
    files.lines.write_text("{}\n" * count + tail)
    return files.lines


def begin(folder, wanted, held=(), split="direct"):
    note_wanted(folder, {("an/lvlm", split): len(wanted)})
    note_begun(folder, "an/lvlm", split, wanted, held)


SAMPLES = [f"s{n}" for n in range(10)]


def test_a_finished_run_is_done_part_by_part_and_so_is_the_folder_of_a_method(small, tmp_path):
    nulls(small, tmp_path / "run", "random-map", "centre-box", splits=["direct", "reasoning"])
    expected = {
        (f"null-{name}", lvlm, split): (count, count, 0, 0, {"done": 1})
        for name in ("random-map", "centre-box")
        for lvlm, split, count in (
            ("phantom_qwen", "direct", 4),
            ("phantom_gemma", "direct", 2),
            ("phantom_qwen", "reasoning", 1),
        )
    }
    status = run_status(tmp_path / "run")
    assert status.is_done
    assert status.processes == ()
    assert counts(status) == expected
    of_one = run_status(tmp_path / "run" / "null-random-map")
    assert counts(of_one) == {key: value for key, value in expected.items() if key[0] == "null-random-map"}


def test_failures_are_counted_and_a_later_call_for_other_splits_leaves_them(small, tmp_path):
    attribute(choose_methods([REFUSING], ["likes=nothing"]), small, tmp_path, splits="direct")
    attribute(choose_methods([REFUSING], ["likes=nothing"]), small, tmp_path, splits="reasoning")
    assert counts(run_status(tmp_path)) == {
        ("refusing", "phantom_gemma", "direct"): (2, 0, 2, 0, {"done": 1}),
        ("refusing", "phantom_qwen", "direct"): (4, 0, 4, 0, {"done": 1}),
        ("refusing", "phantom_qwen", "reasoning"): (1, 0, 1, 0, {"done": 1}),
    }


def test_pace_and_time_left_are_by_the_times_of_the_files(tmp_path):
    folder = tmp_path / "grad-cam"
    lines = write_lines(folder, 2)
    begin(folder, SAMPLES, held=["s0", "s1"])
    began = read_wanted(folder).parts[0].began
    assert run_status(tmp_path).parts[0].pace is None
    write_lines(folder, 6)
    os.utime(lines, (began + 8, began + 8))
    with exclusive(folder):
        (part,) = run_status(tmp_path).parts
    assert part.pace == pytest.approx(0.5)
    assert part.seconds_left == pytest.approx(8.0)
    (part,) = run_status(tmp_path).parts
    assert (part.pace, part.seconds_left) == (pytest.approx(0.5), None)  # nobody is at it


def test_a_half_written_line_is_not_counted_and_nothing_is_locked_or_written(tmp_path):
    folder = tmp_path / "grad-cam"
    begin(folder, SAMPLES)
    write_lines(folder, 3, tail='{"entry": {"sample')
    (folder / "failures.jsonl").write_text('{"sample_id": "s8", "lv')
    with exclusive(folder):
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        with opened_files() as opened:
            status = run_status(tmp_path)
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
        assert not any(path.endswith(".lock") for path in map(str, opened))
    assert counts(status) == {("grad-cam", "an/lvlm", "direct"): (10, 3, 0, 7, {"running": 1})}
    (process,) = status.processes
    assert (process.holder.pid, process.runs, process.methods) == (os.getpid(), True, ("grad-cam",))


def test_parts_wait_for_their_turn_and_stop_with_their_process(tmp_path):
    folder = tmp_path / "grad-cam"
    note_wanted(folder, {("an/lvlm", "direct"): 10, ("an/lvlm", "reasoning"): 5})
    note_begun(folder, "an/lvlm", "direct", SAMPLES, ())
    write_lines(folder, 4)

    def states():
        return [next(iter(part.states)) for part in run_status(tmp_path).parts]

    assert states() == ["stopped", "stopped"]
    with exclusive(folder):
        assert states() == ["running", "waits"]
        note_wanted(folder, {("an/lvlm", "reasoning"): 5})
        assert states() == ["stopped", "waits"]
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    name = tmp_path / ".grad-cam.holder"
    holder = {"pid": ended.pid, "host": Holder.this_process().host, "since": "2026-01-01"}
    name.write_text(json.dumps(holder))
    assert states() == ["stopped", "stopped"]
    assert [process.runs for process in run_status(tmp_path).processes] == [False]
    name.write_text(json.dumps(holder | {"host": "elsewhere"}))
    note_begun(folder, "an/lvlm", "reasoning", SAMPLES[:5], ())
    assert states() == ["stopped", "perhaps running"]
    assert [process.runs for process in run_status(tmp_path).processes] == [None]


def test_records_and_failures_that_a_call_does_not_want_do_not_count(tmp_path):
    folder = tmp_path / "grad-cam"
    write_lines(folder, 5)
    for sample_id in ("t0", "s9"):
        failure = Failure(sample_id=sample_id, lvlm="an/lvlm", split="direct", reason="so")
        add_failure(folder, failure)
    begin(folder, SAMPLES, held=["t1", "t2", "t3", "s0", "s1"])
    assert counts(run_status(tmp_path)) == {
        ("grad-cam", "an/lvlm", "direct"): (10, 2, 1, 7, {"stopped": 1}),
    }


def test_shards_are_shown_together_and_those_that_have_not_begun_are_named(small, tmp_path):
    for number in (1, 2, 3, 4):
        nulls(small, tmp_path, "random-map", splits="direct", shard=Shard(number, 4))
    whole = {
        ("null-random-map", "phantom_gemma", "direct"): (2, 2, 0, 0),
        ("null-random-map", "phantom_qwen", "direct"): (4, 4, 0, 0),
    }
    status = run_status(tmp_path)
    assert {key: value[:-1] for key, value in counts(status).items()} == whole
    assert status.is_done
    with exclusive(tmp_path / "shard-2-of-4" / "null-random-map"):
        (process,) = run_status(tmp_path).processes
    assert (process.shard, process.methods) == ("2/4", ("null-random-map",))
    for number in (1, 3):
        shutil.rmtree(tmp_path / f"shard-{number}-of-4")
    status = run_status(tmp_path)
    assert status.missing == {"null-random-map": (Shard(1, 4), Shard(3, 4))}
    assert not status.is_done
    nulls(small, tmp_path, "random-map", splits="direct")
    status = run_status(tmp_path)  # finished as a whole, and no sample counts twice
    assert {key: value[:-1] for key, value in counts(status).items()} == whole
    assert counts(run_status(tmp_path / "shard-2-of-4")).keys() <= whole.keys()


def test_shards_at_work_add_their_paces_and_the_last_one_says_the_time_left(tmp_path):
    folders = [tmp_path / f"shard-{n}-of-2" / "grad-cam" for n in (1, 2)]
    for folder, made in zip(folders, (2, 4), strict=True):
        begin(folder, SAMPLES)
        lines = write_lines(folder, made)
        began = read_wanted(folder).parts[0].began
        os.utime(lines, (began + 8, began + 8))
    with exclusive(folders[0]), exclusive(folders[1]):
        (part,) = run_status(tmp_path).parts
    assert (part.samples, part.done, part.states) == (20, 6, {"running": 2})
    assert part.pace == pytest.approx(6 / 8)
    assert part.seconds_left == pytest.approx(8 / (2 / 8))


@pytest.mark.parametrize("name", ["random-map", REFUSING])
def test_a_run_of_before_is_counted_though_nobody_wrote_down_what_it_wants(small, tmp_path, name):
    nulls(small, tmp_path, name, splits="direct", lvlms="phantom_qwen", limit=2)
    for path in tmp_path.rglob(WANTED_NAME):
        path.unlink()
    ((key, found),) = counts(run_status(tmp_path)).items()
    assert key[1:] == ("phantom_qwen", "direct")
    assert (found[0], found[1] + found[2], found[3], found[4]) == (None, 2, None, {"unknown": 1})
    assert run_status(tmp_path).is_done


def test_what_a_run_wants_is_followed_while_it_goes_on(small, tmp_path):
    seen = []

    def slowly(items, label, total):
        for item in items:
            seen.append(run_status(tmp_path))
            yield item

    nulls(small, tmp_path, splits="direct", lvlms="phantom_qwen", progress=slowly)
    parts = [part for status in seen for part in status.parts]
    assert [part.done for part in parts] == sorted(part.done for part in parts)
    assert (parts[0].done, parts[-1].done) == (0, 4)
    assert all(part.states == {"running" if part.done < part.samples == 4 else "done": 1} for part in parts)
    assert all(status.processes[0].runs for status in seen)


def test_records_of_the_causal_filter_have_a_status(tmp_path):
    file = tmp_path / "nih-test-phantom_qwen-direct.jsonl"
    record = {"source": "nih", "index": 1, "evidence": "lesion", "finding": "mass", "patient_id": "p"}
    record |= {"lvlm": "phantom_qwen", "mode": "direct", "editor": "e", "responses": {}, "log_odds": {}}
    failure = {"source": "nih", "index": 2, "evidence": "lesion", "reason": "so"}
    file.write_text(json.dumps(record) + "\n" + '{"half')
    file.with_suffix(".failures").write_text(json.dumps(failure) + "\n")
    expected = {("causal filter", "phantom_qwen", "nih direct"): (None, 1, 1, None, {"unknown": 1})}
    for place in (tmp_path, file):
        assert counts(run_status(place)) == expected
    with exclusive(file):
        status = run_status(tmp_path)
    assert [process.methods for process in status.processes] == [(file.name,)]
    assert status.parts[0].states == {"running": 1}


def test_what_is_not_a_run_or_is_damaged_is_an_error(small, tmp_path):
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="holds no run; give the folder that `attribute` wrote"):
            run_status(place)
    nulls(small, tmp_path, splits="direct")
    wanted = tmp_path / "null-random-map" / WANTED_NAME
    wanted.write_text("{}")
    with pytest.raises(InputError, match=r"wanted\.json: does not say what a run wants: .*; delete it"):
        run_status(tmp_path)
    nulls(small, tmp_path, splits="direct")
    assert run_status(tmp_path).is_done


def test_a_status_is_quick(tmp_path):
    """Of 15 methods with 4,000 records each: the lines are counted and not read."""
    for n in range(15):
        folder = tmp_path / f"method-{n}"
        write_lines(folder, 0, tail=("x" * 500 + "\n") * 4000)
        begin(folder, SAMPLES * 400)
    start = time.process_time()
    status = run_status(tmp_path)
    assert time.process_time() - start < 2
    assert len(status.parts) == 15
