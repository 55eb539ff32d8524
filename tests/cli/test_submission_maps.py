"""Unsound map files are refused before they are read, big ones in little memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from medfocus_bench.data.benchmark import Benchmark

from ..submission.documents import (
    MAPS,
    WITH_MAP,
    entry,
    safetensors,
    sound_document,
    write_folder,
)
from .refusing import LARGE, printable_lines, refusal
from .running import run

# fmt: off
MAP_FILES: dict[str, tuple[bytes, str]] = {
    "an empty file": (b"", "its header is longer than the file"),
    "a pickle": (b"\x80\x04\x95" + b"." * 40, "its header is longer than the file"),
    "a header longer than the file": (safetensors({}, length=10**6), "its header is longer than the file"),
    "a header of 2^64 bytes": (safetensors({}, length=2**64 - 1), "its header is longer than the file"),
    "a header of no bytes": (safetensors(b"", bytes(64)), "not a sound safetensors file"),
    "a header that is no JSON": (safetensors(b'{"a": '), "not a sound safetensors file"),
    "a header of 100,000 brackets": (safetensors(b"[" * 100_000), "not a sound safetensors file"),
    "a header that is not UTF-8": (safetensors(b'{"\xff": 1}'), "not a sound safetensors file"),
    "a lone surrogate as key": (safetensors(b'{"\\ud800": 1}'), "not a sound safetensors file"),
    "an escape as type": (safetensors({WITH_MAP: entry([2, 2], 0, 4, "\x1b[31m")}, bytes(4)), r"\x1b[31m"),
    "a type of 1 MB":
        (safetensors({WITH_MAP: entry([2, 2], 0, 4, "x" * 2**20)}, bytes(4)), "has the type xxx"),
    "50,000 x 50,000 without data": (safetensors({WITH_MAP: LARGE}), "not a sound safetensors file"),
    "a size that overflows": (safetensors({WITH_MAP: entry([2**40, 2**40], 0, 4)}, bytes(4)), "not a sound"),
    "a negative side": (safetensors({WITH_MAP: entry([-2, 2], 0, 4)}, bytes(4)), "not a sound safetensors"),
    "offsets beyond the file": (safetensors({WITH_MAP: entry([4, 4], 64, 80)}, bytes(16)), "not a sound"),
    "offsets the wrong way round": (safetensors({WITH_MAP: entry([4, 4], 16, 0)}, bytes(16)), "not a sound"),
    "offsets that do not fit the shape":
        (safetensors({WITH_MAP: entry([4, 4], 0, 8)}, bytes(8)), "not a sound"),
    "maps that share data": (
        safetensors({WITH_MAP: entry([2, 2], 0, 4), "b": entry([2, 2], 0, 4)}, bytes(4)),
        "not a sound safetensors file",
    ),
    "data that belong to no map": (safetensors({WITH_MAP: entry([2, 2], 0, 4)}, bytes(5)), "not a sound"),
    "three dimensions":
        (safetensors({WITH_MAP: entry([1, 2, 2], 0, 4)}, bytes(4)), f"the map '{WITH_MAP}' has 3 dimensions"),
    "no dimension": (safetensors({WITH_MAP: entry([], 0, 1)}, bytes(1)), "has 0 dimensions"),
    "3,000 dimensions": (safetensors({WITH_MAP: entry([1] * 3000, 0, 1)}, bytes(1)), "has 3000 dimensions"),
    "a side too long":
        (safetensors({WITH_MAP: entry([1, 2049], 0, 2049)}, bytes(2049)), "is 1 x 2049; at most"),
    "float64": (safetensors({WITH_MAP: entry([1, 1], 0, 8, "F64")}, bytes(8)), "has the type F64"),
    "half a byte a pixel": (safetensors({WITH_MAP: entry([2, 2], 0, 2, "F4")}, bytes(2)), "has the type F4"),
    "a map of no sample": (
        safetensors({WITH_MAP: entry([2, 2], 0, 4), "\x1b[31m": entry([2, 2], 4, 8)}, bytes(8)),
        r"the map '\x1b[31m' belongs to no sample",
    ),
    "no map of a sample": (safetensors({}), f'({WITH_MAP}): has "map": true, but '),
}
# fmt: on


@pytest.mark.parametrize(("maps", "said"), MAP_FILES.values(), ids=MAP_FILES)
def test_a_map_file_that_cannot_be_trusted_is_refused(maps, said, folder, bench):
    write_folder(folder, sound_document(bench, maps), maps)
    (problem,) = refusal(folder, bench)
    assert said in problem
    assert len(problem) < 1000
    assert str(folder / MAPS) in problem


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _device(path: Path) -> None:
    try:
        os.mknod(path, 0o20666, os.makedev(1, 5))  # /dev/zero
        path.open("rb").close()
    except PermissionError:
        pytest.skip("this user may not make or open devices")


def _link(path: Path) -> None:
    path.symlink_to("/etc/hostname")


def _link_to_a_sound_file(path: Path) -> None:
    path.symlink_to(path.with_name("sound"))


@pytest.mark.parametrize("name", ["submission.json", MAPS])
@pytest.mark.parametrize(
    ("put", "said"),
    [
        (_fifo, "is not a regular file"),
        (_device, "is not a regular file"),
        (Path.mkdir, "is not a regular file"),
        (_link, "is a symbolic link"),
        (_link_to_a_sound_file, "is a symbolic link"),
    ],
)
def test_only_regular_files_are_read(put, said, name, folder, bench):
    write_folder(folder, sound_document(bench))
    (folder / name).rename(folder / "sound")
    put(folder / name)
    assert refusal(folder, bench)[0].startswith(f"{folder / name}: {said}")


@pytest.mark.parametrize("name", ["none", "none\x1b[31m\nx", "x" * 300, "x/" * 3000, "\udcff"])
def test_a_path_that_is_not_there_is_refused_in_one_line(name, tmp_path, bench):
    (problem,) = refusal(tmp_path / name, bench)
    assert "does not exist" in problem
    for command in ("evaluate", "validate"):
        status, _, err = run(command, tmp_path, "--benchmark", tmp_path / name)
        assert status == 2
        assert printable_lines(err) == 1


MEASURED = """
import atexit, pathlib, time
from medfocus_bench.cli.main import main
status = pathlib.Path("/proc/self/status")
peak = lambda: status.read_text().split("VmHWM:")[1].split()[0]
atexit.register(lambda: print(peak(), time.process_time()))
main()
"""
"""The entry point; its own peak memory in kB (wait4 counts the parent's in) and processor time on stdout."""

linux_only = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc/self/status")


def measured(*arguments: object) -> tuple[int, str, float, float]:
    """Status, stderr, peak memory in MB and seconds of processor time of the command, in its own process."""
    ended = subprocess.run(
        [sys.executable, "-c", MEASURED, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    peak, seconds = ended.stdout.split()
    return ended.returncode, ended.stderr, int(peak) / 1024, float(seconds)


def _sparse_document(folder: Path, bench: Benchmark) -> None:
    with (folder / "submission.json").open("r+b") as file:
        file.write(b'{"schema_version": "')
        file.truncate(2 * 2**30)


def _sparse_maps(folder: Path, bench: Benchmark) -> None:
    os.truncate(folder / MAPS, 2 * 2**30)


def _large_map(folder: Path, bench: Benchmark) -> None:
    maps = safetensors({WITH_MAP: LARGE})
    write_folder(folder, sound_document(bench, maps), maps)
    os.truncate(folder / MAPS, len(maps) + 2_500_000_000)


def _sparse_header(folder: Path, bench: Benchmark) -> None:
    write_folder(folder, sound_document(bench), safetensors({}, length=2**31))
    os.truncate(folder / MAPS, 2**32)


def _sparse_stray_maps(folder: Path, bench: Benchmark) -> None:
    """10 GB of zeros, as maps of 2048 x 2048 that belong to no sample."""
    size = 2048 * 2048
    stray = {f"m{n:04d}": entry([2048, 2048], n * size, (n + 1) * size) for n in range(2399)}
    maps = safetensors(stray)
    write_folder(folder, sound_document(bench, maps), maps)
    os.truncate(folder / MAPS, len(maps) + 2399 * size)


def _million_wrong_entries(folder: Path, bench: Benchmark) -> None:
    head = json.dumps({**sound_document(bench), "attributions": []}).removesuffix("]}")
    (folder / "submission.json").write_text(head + "1," * 1_000_000 + "1]}")


def _too_many_values(folder: Path, bench: Benchmark) -> None:
    """62 MB of empty lists."""
    head = json.dumps({**sound_document(bench), "attributions": []}).removesuffix("]}")
    (folder / "submission.json").write_text(head + "[]," * 20_600_000 + "[]]}")


@linux_only
@pytest.mark.parametrize(
    ("make", "said", "megabytes"),
    [
        (_sparse_document, "is 2,147,483,648 bytes; at most", 250),
        (_sparse_maps, "not a sound safetensors file", 250),
        (_large_map, "is 50000 x 50000; at most 2048 pixels", 250),
        (_sparse_header, "its header claims 2,147,483,648 bytes", 250),
        (_sparse_stray_maps, "and 1,400 more", 250),
        (_million_wrong_entries, ": 10,002 problems", 250),
        (_too_many_values, "holds more than 4,000,000 values", 250),
    ],
)
def test_a_huge_input_is_refused_in_little_memory_and_time(make, said, megabytes, folder, bench):
    write_folder(folder, sound_document(bench))
    make(folder, bench)
    status, err, peak, seconds = measured("validate", folder, "--benchmark", bench.folder)
    assert status == 2
    assert said in err
    assert "Traceback" not in err
    assert peak < megabytes
    assert seconds < 20


@linux_only
def test_evaluate_as_a_process_ends_with_one_line_and_status_2(folder, bench):
    write_folder(folder, sound_document(bench))
    _large_map(folder, bench)
    status, err, peak, _ = measured("evaluate", folder, "--benchmark", bench.folder)
    assert (status, err.count("\n")) == (2, 1)
    assert peak < 250
