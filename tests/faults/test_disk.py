"""Disks that are full, folders that may not be written to, records that were damaged, locks of the dead."""

from __future__ import annotations

import json
import os
import resource
import subprocess
from contextlib import contextmanager
from functools import partial

import pytest

from tests.cli.running import run

from . import drivers
from .conftest import SAMPLES
from .methods import HERE

WIDE = ("--method", f"{HERE}:Wide")
MAP = 224 * 224 * 4


def mount(*words):
    done = subprocess.run(["mount", *map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system may be mounted here: {done.stderr.strip() or done.returncode}")


@contextmanager
def disk(folder, kilobytes):
    """A small disk of one's own at `folder`."""
    folder.mkdir()
    try:
        mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder)
    except FileNotFoundError:
        pytest.skip("no file system can be mounted here: there is no `mount`")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def one_sentence(error):
    """The sentence of a command, which may have said before how far it was."""
    (said,) = (line for line in error.splitlines() if line.startswith("medfocus-bench: "))
    assert "Traceback" not in error
    return said.removeprefix("medfocus-bench: ")


@pytest.fixture(scope="module")
def undisturbed(bench, tmp_path_factory):
    out = tmp_path_factory.mktemp("wide") / "run"
    words = ("attribute", *WIDE, "-b", bench.folder, "--split", "direct", "--out", out)
    assert run(*words)[0] == 0
    return drivers.content(out)


def limit_files(size):
    """No file of this process may grow beyond `size` bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def check_full(said, out, kept):
    status, _, error = said
    assert status == 2, error
    assert one_sentence(error).startswith(f"{out}/wide/phantom_qwen-direct.maps: ")
    assert one_sentence(error).endswith("; make room, and run it again")
    assert drivers.lines(out) == kept


def test_a_full_disk_ends_a_run_in_a_sentence_and_with_room_it_goes_on(words, tmp_path, undisturbed):
    folder = tmp_path / "disk"
    with disk(folder, 3 * MAP // 1024 + 60):
        out = folder / "run"
        said = run(*words, *WIDE, "--out", out)
        check_full(said, out, 3)
        assert "No space left on device" in said[2]
        mount("-o", "remount,size=10M", folder)
        assert run(*words, *WIDE, "--out", out)[0] == 0
        assert drivers.content(out) == undisturbed


def test_a_file_that_may_not_grow_ends_a_run_in_a_sentence_and_the_next_one_finishes(
    words, tmp_path, undisturbed
):
    out = tmp_path / "run"
    small = partial(limit_files, 2 * MAP + 1000)
    check_full(drivers.run(tmp_path / "log", *words, *WIDE, "--out", out, before=small), out, 2)
    assert run(*words, *WIDE, "--out", out)[0] == 0
    assert drivers.content(out) == undisturbed


@contextmanager
def read_only(folder):
    """Within, nobody can write to `folder`: for the superuser it is mounted so."""
    if os.geteuid():
        folder.chmod(0o555)
    else:
        mount("--bind", folder, folder)
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
    try:
        yield
    finally:
        if os.geteuid():
            folder.chmod(0o755)
        else:
            subprocess.run(["umount", folder], check=True)


def test_a_folder_that_is_read_only_is_said_before_the_work_and_stays_as_it_was(words, tmp_path, undisturbed):
    out = tmp_path / "run"
    assert run(*words, *WIDE, "--limit", 2, "--out", out)[0] == 0
    before = drivers.content(out)
    with read_only(out):
        status, _, error = run(*words, *WIDE, "--out", out)
    assert (status, drivers.content(out)) == (2, before)
    assert "cannot be written to" in one_sentence(error)
    assert run(*words, *WIDE, "--out", out)[0] == 0
    assert drivers.content(out) == undisturbed


def test_a_folder_of_a_method_that_is_read_only_is_a_sentence_too(words, tmp_path, undisturbed):
    out = tmp_path / "run"
    assert run(*words, *WIDE, "--limit", 2, "--out", out)[0] == 0
    with read_only(out / "wide"):
        status, _, error = run(*words, *WIDE, "--out", out)
    assert status == 2, error
    assert one_sentence(error).startswith(str(out / "wide"))
    assert run(*words, *WIDE, "--out", out)[0] == 0
    assert drivers.content(out) == undisturbed


@pytest.mark.parametrize("damaged", ["record", "map"])
def test_a_damaged_record_is_named_and_made_anew_when_its_line_is_deleted(
    words, tmp_path, undisturbed, damaged
):
    out = tmp_path / "run"
    assert run(*words, *WIDE, "--out", out)[0] == 0
    records, maps = (out / "wide" / f"phantom_qwen-direct.{kind}" for kind in ("jsonl", "maps"))
    path, at = (
        (records, len(records.read_bytes().splitlines(True)[0]) + 5)
        if damaged == "record"
        else (maps, MAP + 9)
    )
    content = bytearray(path.read_bytes())
    content[at] ^= 0x80
    path.write_bytes(content)
    status, _, error = run(*words, *WIDE, "--out", out)
    assert status == 2, error
    assert f"{records}: line 2" in one_sentence(error)
    assert "delete that line, and run `attribute` again" in error
    lines = records.read_bytes().splitlines(True)
    assert len(lines) == SAMPLES
    records.write_bytes(b"".join(lines[:1] + lines[2:]))
    assert run(*words, *WIDE, "--out", out)[0] == 0
    assert drivers.content(out) == undisturbed


def test_the_lock_of_a_dead_process_is_not_waited_for(words, tmp_path, undisturbed):
    out = tmp_path / "run"
    driver = drivers.start(tmp_path / "log", *words, *WIDE, "--out", out)
    drivers.wait_until(lambda: drivers.lines(out), driver)
    driver.kill()
    holder = json.loads((out / ".wide.holder").read_text())
    assert holder["pid"] == driver.pid
    assert run(*words, *WIDE, "--out", out)[0] == 0
    assert drivers.content(out) == undisturbed
    assert not list(out.glob(".*"))
