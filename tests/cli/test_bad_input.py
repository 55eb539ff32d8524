"""Whatever stands in a submission or a benchmark, the command line answers with one line and status 2."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medfocus_bench.cli.main import main
from medfocus_bench.data.benchmark import Benchmark

from ..submission.documents import (
    MAPS,
    WITH_BOXES,
    WITH_MAP,
    changed,
    entry,
    json_values,
    mutated_bytes,
    places,
    safetensors,
    sound_document,
    sound_maps,
    write_folder,
    write_small_benchmark,
)

fuzz = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    return write_small_benchmark(tmp_path_factory.mktemp("data") / "bench")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "mine"


def run(*arguments: object) -> tuple[int, str, str]:
    """Status, stdout and stderr of the command line, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with (
        patch.object(sys, "argv", ["medfocus-bench", *map(str, arguments)]),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return int(ended.value.code or 0), out.getvalue(), err.getvalue()


def evaluate(path: Path, bench: Benchmark) -> tuple[int, str, str]:
    return run("evaluate", path, "--benchmark", bench.folder, "--no-nulls", "--resamples", 10)


def validate(path: Path, bench: Benchmark) -> tuple[int, str, str]:
    return run("validate", path, "--benchmark", bench.folder)


def refusal(path: Path, bench: Benchmark) -> list[str]:
    """The problems that `validate` lists; `evaluate` refuses too, in one line with the first of them."""
    status, out, err = evaluate(path, bench)
    assert (status, out) == (2, "")
    assert _printable_lines(err) == 1
    assert err.startswith("medfocus-bench: ")
    listed_status, listed_out, listed = validate(path, bench)
    assert (listed_status, listed_out) == (2, "")
    lines = listed.removesuffix("\n").split("\n")
    assert _printable_lines(listed) == len(lines)
    *problems, count = lines
    assert count.split(": ")[-1] == f"{len(problems)} problem{'s' * (len(problems) > 1)}"
    first = problems[0].split(" for tensor ")[0]  # the library names any of several
    assert err.startswith(f"medfocus-bench: {first}")
    return problems


def _printable_lines(text: str) -> int:
    lines = text.removesuffix("\n").split("\n")
    assert all(line.isprintable() for line in lines)
    assert "Traceback" not in text
    return len(lines)


Broken = tuple[tuple[int | str, ...], Any, str]

ENTRY: tuple[int | str, ...] = ("attributions", 0)
BOXES: tuple[int | str, ...] = (*ENTRY, "boxes")

WRONG_VALUES: dict[str, Broken] = {
    "a document that is a list": ((), [], "/: should be"),
    "no attributions": (("attributions",), None, "/attributions: should be a valid list"),
    "an unknown schema version": (("schema_version",), "2.0", "/schema_version: should be '1.0'"),
    "a sample id of the wrong type": ((*ENTRY, "sample_id"), 7, "/attributions/0/sample_id: should be"),
    "a sample id with an escape": ((*ENTRY, "sample_id"), "a\x1b[31m", "/attributions/0/sample_id: "),
    "a sample id with a newline": ((*ENTRY, "sample_id"), "a\nb", "/attributions/0/sample_id: "),
    "a lone surrogate in a sample id": ((*ENTRY, "sample_id"), "\ud800", "/attributions/0/sample_id: "),
    "a lone surrogate in a name": (("submitters", 0, "name"), "\ud800", "/submitters/0/name: "),
    "a lone surrogate in a key": (
        (*ENTRY, "concepts"),
        {"\udfff": 1},
        f"/attributions/0/concepts ({WITH_BOXES})",
    ),
    "an escape in a key": (("method", "\x1b[31m"), 1, r"/method/\x1b[31m: is not a key of the format"),
    "a newline in a key": (("a\r\nb",), 1, "/a b: is not a key of the format"),
    "an escape in a name": (("submitters", 0, "name"), "\x1b]0;x\x07", "/submitters/0/name: should have no"),
    "a reordering mark in a name": (
        ("method", "display_name"),
        "a\u202eb",
        "/method/display_name: should have",
    ),
    "a newline in a version": (
        ("benchmark", "version"),
        "1\n2",
        "/benchmark/version: should have no line breaks",
    ),
    "an unknown key": ((*ENTRY, "score"), 1, f"/attributions/0/score ({WITH_BOXES}): is not a key"),
    "boxes of the wrong type": (BOXES, "10 20 30 40", f"/attributions/0/boxes ({WITH_BOXES}): should be"),
    "a box of three numbers": ((*BOXES, 0), [1, 2, 3], f"/attributions/0/boxes/0 ({WITH_BOXES}): "),
    "a box of text": ((*BOXES, 0, 0), "1", f"/attributions/0/boxes/0/0 ({WITH_BOXES}): should be"),
    "a box of truth values": ((*BOXES, 0, 0), True, f"/attributions/0/boxes/0/0 ({WITH_BOXES}): should be"),
    "a box inside out": ((*BOXES, 0), [30, 20, 10, 40], f"/boxes/0 ({WITH_BOXES}): the box is inside out"),
    "a box without area": ((*BOXES, 0), [30, 20, 30, 40], f"/boxes/0 ({WITH_BOXES}): the box is inside out"),
    "a box whose area is no number": ((*BOXES, 0), [0, 0, 5e-324, 5e-324], "/attributions/0/boxes/0"),
    "a box beyond the image": (
        (*BOXES, 0),
        [0, 0, 224, 200.5],
        "/boxes/0 (phantom-00000-tiny-direct): reaches",
    ),
    "a box before the image": ((*BOXES, 0, 1), -0.5, "/attributions/0/boxes/0/1"),
    "a box with a huge integer": ((*BOXES, 0, 2), 10**400, "/attributions/0/boxes/0/2"),
    "too many boxes": (BOXES, [[1, 2, 3, 4]] * 101, "/attributions/0/boxes"),
    "a map that is false": (("attributions", 1, "map"), False, f"/attributions/1/map ({WITH_MAP}): "),
    "a map and boxes": ((*ENTRY, "map"), True, f"/attributions/0 ({WITH_BOXES}): give either"),
    "neither a map nor boxes": (BOXES, None, f"/attributions/0 ({WITH_BOXES}): give either"),
    "a cost that sums to infinity": ((*ENTRY, "cost", "seconds"), 1.7e308, "/attributions/0/cost/seconds"),
    "a negative cost": ((*ENTRY, "cost", "forward_passes"), -1, "/attributions/0/cost/forward_passes"),
    "a cost of a huge integer": (
        (*ENTRY, "cost", "forward_passes"),
        10**4000,
        "/attributions/0/cost/forward",
    ),
    "an unknown sample": (
        (*ENTRY, "sample_id"),
        "vindr-00000-a-direct",
        "(vindr-00000-a-direct): no such sample",
    ),
    "a sample twice": (
        (*ENTRY, "sample_id"),
        WITH_MAP,
        f"/attributions/0 ({WITH_MAP}): the sample stands 2 times",
    ),
    "a link that runs code": (("method", "paper"), "javascript:alert(1)", "/method/paper: "),
    "a link that leaves its attribute": (("method", "code"), "https://a/'x", "/method/code: "),
    "a link with an escape": (("submitters", 0, "url"), "https://a/\x1b[31m", "/submitters/0/url: "),
    "a hyperparameter that is an object": (
        ("method", "hyperparameters", "rate"),
        {},
        "/hyperparameters/rate: ",
    ),
    "maps in the folder above": (("maps", "file"), f"../{MAPS}", "/maps/file: "),
    "maps at an absolute path": (("maps", "file"), f"/tmp/{MAPS}", "/maps/file: "),
    "maps that are hidden": (("maps", "file"), f".{MAPS}", "/maps/file: "),
    "maps of another type": (("maps", "file"), "maps.npz", "/maps/file: "),
    "maps that are not declared": (("maps",), None, "/maps: is required"),
    "maps that are not there": (
        ("maps", "file"),
        "none.safetensors",
        "none.safetensors: cannot be read: No such",
    ),
    "a wrong sha256": (("maps", "sha256"), "0" * 64, "/maps/sha256: is not that of"),
    "a sha256 that is none": (("maps", "sha256"), "x", "/maps/sha256: "),
    "another dataset": (
        ("benchmark", "dataset"),
        "other",
        "/benchmark/dataset: the submission is of 'other'",
    ),
    "another version": (("benchmark", "fingerprint"), "0" * 64, "/benchmark/fingerprint: made for version"),
    "an unknown config": (
        ("benchmark", "configs"),
        ["a"],
        "/benchmark/configs: no 'a' in the benchmark, only ph",
    ),
    "an unknown split": (
        ("benchmark", "splits"),
        ["dev"],
        "/benchmark/splits: no 'dev' in the benchmark, only d",
    ),
}


@pytest.mark.parametrize(("at", "value", "said"), WRONG_VALUES.values(), ids=WRONG_VALUES)
def test_a_wrong_value_is_refused_with_its_place(
    at: tuple[int | str, ...], value: Any, said: str, folder: Path, bench: Benchmark
) -> None:
    write_folder(folder, changed(sound_document(bench), at, value))
    problems = refusal(folder, bench)
    assert any(said in problem for problem in problems), problems
    assert all(problem.startswith(str(folder)) for problem in problems)


RAW_DOCUMENTS: dict[str, tuple[bytes, str]] = {
    "an empty file": (b"", "not valid JSON at line 1, column 1"),
    "truncated": (b'{"schema_version": "1.0", "method": {', "not valid JSON at line 1, column 38"),
    "two values": (b"{} {}", "not valid JSON at line 1, column 4"),
    "not UTF-8": (b'{"schema_version": "\xff"}', "not UTF-8 at byte 20"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "not UTF-8 at byte 0"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "not valid JSON"),
    "a duplicate key": (b'{"method": 1, "method": 2}', "the key 'method' stands twice in one object"),
    "a duplicate key with an escape": (b'{"\\u001b[31m": 1, "\\u001b[31m": 2}', r"the key '\x1b[31m' stands"),
    "a duplicate key inside": (b'{"a": [{"b": 1, "b": 1}]}', "the key 'b' stands twice"),
    "NaN": (b'{"a": NaN}', "NaN is not a number of JSON"),
    "infinity": (b'{"a": -Infinity}', "-Infinity is not a number of JSON"),
    "an integer of 100,000 digits": (b'{"a": ' + b"9" * 100_000 + b"}", "integer"),
    "100,000 brackets": (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
    "100,000 braces": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
    "an object of too many keys": (
        json.dumps({str(number): 1 for number in range(1001)}).encode(),
        "an object has 1,001 keys",
    ),
}


@pytest.mark.parametrize(("raw", "said"), RAW_DOCUMENTS.values(), ids=RAW_DOCUMENTS)
def test_a_document_that_is_no_json_is_refused_with_its_place(
    raw: bytes, said: str, folder: Path, bench: Benchmark
) -> None:
    (problem,) = refusal(write_folder(folder, raw=raw), bench)
    assert problem.startswith(f"{folder}/submission.json: ")
    assert said in problem


def test_a_number_too_large_for_a_float_is_refused(folder: Path, bench: Benchmark) -> None:
    text = json.dumps(changed(sound_document(bench), (*BOXES, 0, 0), 424242)).replace("424242", "1e999")
    problems = refusal(write_folder(folder, raw=text.encode()), bench)
    assert f"/attributions/0/boxes/0/0 ({WITH_BOXES})" in problems[0]


LARGE = entry([50_000, 50_000], 0, 2_500_000_000)

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
    "a type of 1 MB": (
        safetensors({WITH_MAP: entry([2, 2], 0, 4, "x" * 2**20)}, bytes(4)),
        "unknown variant",
    ),
    "50,000 x 50,000 without data": (safetensors({WITH_MAP: LARGE}), "not a sound safetensors file"),
    "a size that overflows": (safetensors({WITH_MAP: entry([2**40, 2**40], 0, 4)}, bytes(4)), "overflow"),
    "a negative side": (safetensors({WITH_MAP: entry([-2, 2], 0, 4)}, bytes(4)), "not a sound safetensors"),
    "offsets beyond the file": (safetensors({WITH_MAP: entry([4, 4], 64, 80)}, bytes(16)), "not a sound"),
    "offsets the wrong way round": (safetensors({WITH_MAP: entry([4, 4], 16, 0)}, bytes(16)), "not a sound"),
    "offsets that do not fit the shape": (
        safetensors({WITH_MAP: entry([4, 4], 0, 8)}, bytes(8)),
        "not a sound",
    ),
    "maps that share data": (
        safetensors({WITH_MAP: entry([2, 2], 0, 4), "b": entry([2, 2], 0, 4)}, bytes(4)),
        "not a sound safetensors file",
    ),
    "data that belong to no map": (safetensors({WITH_MAP: entry([2, 2], 0, 4)}, bytes(5)), "not a sound"),
    "three dimensions": (
        safetensors({WITH_MAP: entry([1, 2, 2], 0, 4)}, bytes(4)),
        f"the map '{WITH_MAP}' has 3 dimensions",
    ),
    "no dimension": (safetensors({WITH_MAP: entry([], 0, 1)}, bytes(1)), "has 0 dimensions"),
    "100,000 dimensions": (
        safetensors({WITH_MAP: entry([1] * 10**5, 0, 1)}, bytes(1)),
        "has 100000 dimensions",
    ),
    "a side too long": (
        safetensors({WITH_MAP: entry([1, 2049], 0, 2049)}, bytes(2049)),
        "is 1 x 2049; at most",
    ),
    "float64": (safetensors({WITH_MAP: entry([1, 1], 0, 8, "F64")}, bytes(8)), "has the type F64"),
    "half a byte a pixel": (safetensors({WITH_MAP: entry([2, 2], 0, 2, "F4")}, bytes(2)), "has the type F4"),
    "a map of no sample": (
        safetensors({WITH_MAP: entry([2, 2], 0, 4), "\x1b[31m": entry([2, 2], 4, 8)}, bytes(8)),
        r"the map '\x1b[31m' belongs to no sample",
    ),
    "no map of a sample": (safetensors({}), f'({WITH_MAP}): has "map": true, but '),
}


@pytest.mark.parametrize(("maps", "said"), MAP_FILES.values(), ids=MAP_FILES)
def test_a_map_file_that_cannot_be_trusted_is_refused(
    maps: bytes, said: str, folder: Path, bench: Benchmark
) -> None:
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
def test_only_regular_files_are_read(
    put: Callable[[Path], None], said: str, name: str, folder: Path, bench: Benchmark
) -> None:
    write_folder(folder, sound_document(bench))
    (folder / name).rename(folder / "sound")
    put(folder / name)
    assert refusal(folder, bench)[0].startswith(f"{folder / name}: {said}")


@pytest.mark.parametrize("name", ["none", "none\x1b[31m\nx", "x" * 300, "x/" * 3000, "\udcff"])
def test_a_path_that_is_not_there_is_refused_in_one_line(name: str, tmp_path: Path, bench: Benchmark) -> None:
    (problem,) = refusal(tmp_path / name, bench)
    assert "does not exist" in problem
    for command in ("evaluate", "validate"):
        status, _, err = run(command, tmp_path, "--benchmark", tmp_path / name)
        assert status == 2
        assert _printable_lines(err) == 1


def test_a_submission_that_covers_nothing_is_refused(folder: Path, tmp_path: Path) -> None:
    from medfocus_bench.data.benchmark import write_benchmark

    from ..conftest import make_row

    other = make_row(1, source="other", sample_id="other-00001-tiny-reasoning", mode="reasoning")
    bench = write_benchmark(
        tmp_path / "both", {"direct": [make_row(0)], "reasoning": [other]}, name="both", version="1"
    )
    covers = {**bench.reference(), "configs": ["other"], "splits": ["direct"]}
    document = {**sound_document(bench), "benchmark": covers, "maps": None, "attributions": []}
    (problem,) = refusal(write_folder(folder, document), bench)
    assert problem.endswith("/benchmark: the benchmark holds no samples in other / direct")


def test_validate_lists_all_problems_at_once(folder: Path, bench: Benchmark) -> None:
    document = sound_document(bench)
    document["method"]["name"] = "No Name"
    document["extra"] = 1
    document["maps"]["sha256"] = "0" * 64
    document["benchmark"]["fingerprint"] = "0" * 64
    document["attributions"] += [
        {"sample_id": WITH_MAP, "map": True},
        {"sample_id": "unknown", "boxes": [[0, 0, 1, 1], [1, 1, 0, 0], [0, 0, "a", 1]]},
        {"sample_id": "unknown2", "boxes": []},
        {"sample_id": WITH_BOXES, "boxes": [[0, 0, 500, 500]]},
        {"boxes": []},
    ]
    problems = refusal(write_folder(folder, document), bench)
    file = folder / "submission.json"
    for said in (
        "/method/name: ",
        "/extra: is not a key of the format; remove it",
        "/maps/sha256: is not that of",
        "/benchmark/fingerprint: made for version 1.0.0",
        f"/attributions/0 ({WITH_BOXES}): the sample stands 2 times",
        f"/attributions/1 ({WITH_MAP}): the sample stands 2 times",
        f"/attributions/2 ({WITH_MAP}): the sample stands 2 times",
        "/attributions/3/boxes/1 (unknown): the box is inside out",
        "/attributions/3/boxes/2/2 (unknown): should be a valid number",
        "/attributions/4/sample_id (unknown2): no such sample",
        f"/attributions/5/boxes/0 ({WITH_BOXES}): reaches out of the image of 224 x 200",
        "/attributions/6/sample_id: is required",
    ):
        assert any(problem.startswith(f"{file}: {said}") for problem in problems), said
    assert len(problems) == 13  # entry 5 is one of the two of its sample as well


def test_validate_lists_map_problems_beside_those_of_the_document(folder: Path, bench: Benchmark) -> None:
    maps = safetensors({"a": entry([1, 1, 1], 0, 1), "b": entry([1, 1], 1, 9, "F64")}, bytes(9))
    document = changed(sound_document(bench, maps), (*BOXES, 0), [9, 9, 1, 1])
    problems = refusal(write_folder(folder, document, maps), bench)
    assert len(problems) == 4


def test_a_sound_submission_passes_both_commands(folder: Path, bench: Benchmark) -> None:
    write_folder(folder, sound_document(bench))
    assert validate(folder, bench) == (0, f"{folder}: sound for {bench.folder}\n", "")
    assert validate(folder / "submission.json", bench)[0] == 0
    assert evaluate(folder, bench)[0] == 0


# Big and slow things, each in a process of its own


MEASURED = """
import atexit, pathlib
from medfocus_bench.cli.main import main
status = pathlib.Path("/proc/self/status")
atexit.register(lambda: print(status.read_text().split("VmHWM:")[1].split()[0]))
main()
"""
"""The entry point, and its own peak memory in kB on stdout: that of wait4 counts the parent's in."""

linux_only = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc/self/status")


def measured(*arguments: object) -> tuple[int, str, float, float]:
    """Status, stderr, peak memory in MB and seconds of the command in a process of its own."""
    started = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", MEASURED, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return ended.returncode, ended.stderr, int(ended.stdout) / 1024, time.monotonic() - started


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


def _million_wrong_entries(folder: Path, bench: Benchmark) -> None:
    head = json.dumps({**sound_document(bench), "attributions": []}).removesuffix("]}")
    (folder / "submission.json").write_text(head + "1," * 10_000_000 + "1]}")


@linux_only
@pytest.mark.parametrize(
    ("make", "said", "megabytes"),
    [
        (_sparse_document, "is 2,147,483,648 bytes; at most", 250),
        (_sparse_maps, "not a sound safetensors file", 250),
        (_large_map, "is 50000 x 50000; at most 2048 pixels", 250),
        (_sparse_header, "its header claims 2,147,483,648 bytes", 250),
        (_million_wrong_entries, "more than 10,000 problems; the rest is not listed", 500),
    ],
)
def test_a_huge_input_is_refused_in_little_memory_and_time(
    make: Callable[[Path, Benchmark], None], said: str, megabytes: int, folder: Path, bench: Benchmark
) -> None:
    write_folder(folder, sound_document(bench))
    make(folder, bench)
    status, err, peak, seconds = measured("validate", folder, "--benchmark", bench.folder)
    assert status == 2
    assert said in err
    assert "Traceback" not in err
    assert peak < megabytes
    assert seconds < 20


@linux_only
def test_evaluate_as_a_process_ends_with_one_line_and_status_2(folder: Path, bench: Benchmark) -> None:
    write_folder(folder, sound_document(bench))
    _large_map(folder, bench)
    status, err, peak, _ = measured("evaluate", folder, "--benchmark", bench.folder)
    assert (status, err.count("\n")) == (2, 1)
    assert peak < 250


# Anything at all


def outcome(folder: Path, bench: Benchmark) -> None:
    """Both commands end in status 0, or in status 2 with printable lines; nothing else ever comes out."""
    status, _, err = validate(folder, bench)
    assert status in (0, 2)
    if status == 2:
        refusal(folder, bench)
    else:
        assert (evaluate(folder, bench)[0], err) == (0, "")


@fuzz
@given(document=json_values)
def test_any_json_value_is_scored_or_refused(document: Any, folder: Path, bench: Benchmark) -> None:
    outcome(write_folder(folder, document), bench)


@fuzz
@given(data=st.data(), new=json_values, extra=st.booleans())
def test_any_changed_value_of_a_document_is_scored_or_refused(
    data: st.DataObject, new: Any, extra: bool, folder: Path, bench: Benchmark
) -> None:
    document = sound_document(bench)
    at = data.draw(st.sampled_from(places(document)))
    outcome(write_folder(folder, changed(document, at, new, extra=extra)), bench)


@fuzz
@given(raw=st.binary(max_size=64))
def test_any_bytes_of_a_document_are_scored_or_refused(raw: bytes, folder: Path, bench: Benchmark) -> None:
    outcome(write_folder(folder, raw=raw), bench)


@fuzz
@given(data=st.data())
def test_any_damage_to_a_document_is_scored_or_refused(
    data: st.DataObject, folder: Path, bench: Benchmark
) -> None:
    raw = data.draw(mutated_bytes(json.dumps(sound_document(bench)).encode()))
    outcome(write_folder(folder, raw=raw), bench)


@fuzz
@given(maps=mutated_bytes(sound_maps()))
def test_any_damage_to_a_map_file_is_scored_or_refused(maps: bytes, folder: Path, bench: Benchmark) -> None:
    outcome(write_folder(folder, sound_document(bench, maps), maps), bench)


def test_a_place_that_cannot_be_written_is_bad_input_and_comes_first(
    bench: Benchmark, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("as it was")
    out = tmp_path / "file" / "control"
    status, shown, error = run("null", "centre-box", "--benchmark", bench.folder, "--out", out)
    assert (status, shown, error.count("\n")) == (2, "", 1)
    assert error.startswith(f"medfocus-bench: {tmp_path / 'file'}")
    assert error.endswith("; name a place that can be read and written\n")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["file"]
