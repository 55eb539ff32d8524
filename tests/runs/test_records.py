"""Maps and lines on disk."""

from __future__ import annotations

import json
import os
import re
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.errors import InputError
from medfocus_bench.runs.records import (
    MAX_LINE_BYTES,
    Failure,
    RecordFiles,
    RecordWriter,
    add_failure,
    forget_failures,
    read_failures,
)
from medfocus_bench.runs.settings import read_settings
from medfocus_bench.submission.schema import AttributionEntry


def write(folder, count=3):
    files = RecordFiles.of(folder, "some/lvlm", "direct")
    rng = np.random.default_rng(0)
    maps = [rng.random((3, 4 + n)).astype(dtype) for n, dtype in zip(range(count), "fef", strict=False)]
    with RecordWriter(files) as writer:
        for number, saliency in enumerate(maps):
            add(writer, f"s{number}", saliency)
    return files, maps


def add(writer, sample_id, saliency):
    writer.add(AttributionEntry(sample_id=sample_id, map=True), Attribution(sample_id, saliency))


def test_maps_come_back_as_they_were(tmp_path):
    files, maps = write(tmp_path)
    assert files.lines.name == "some_lvlm-direct.jsonl"
    assert [record.entry.sample_id for record in files.read()] == ["s0", "s1", "s2"]
    for record, saliency in zip(files.read(), maps, strict=True):
        back = files.attribution(record).saliency
        assert back.dtype == saliency.dtype
        np.testing.assert_array_equal(back, saliency)


@pytest.mark.parametrize("cut", [1, 10, 100])
def test_a_line_that_a_stopped_run_left_half_written_is_cut_off(tmp_path, cut):
    files, _ = write(tmp_path)
    files.lines.write_bytes(files.lines.read_bytes()[:-cut])
    assert [record.entry.sample_id for record in files.read()] == ["s0", "s1"]
    with RecordWriter(files) as writer:
        assert writer.sample_ids == {"s0", "s1"}
        add(writer, "s2", np.ones((1, 1), np.float32))
    assert [record.entry.sample_id for record in files.read()] == ["s0", "s1", "s2"]
    assert files.maps.stat().st_size == files.read()[-1].map.end


def test_a_record_whose_map_did_not_reach_the_disk_is_cut_off(tmp_path):
    files, _ = write(tmp_path)
    files.maps.write_bytes(files.maps.read_bytes()[:-1])
    assert [record.entry.sample_id for record in files.read()] == ["s0", "s1"]


def test_a_line_in_the_middle_that_is_no_record_is_an_error_with_its_number(tmp_path):
    files, _ = write(tmp_path)
    first, _, third = files.lines.read_bytes().splitlines(keepends=True)
    files.lines.write_bytes(first + b"{}\n" + third)
    with pytest.raises(InputError, match=r"some_lvlm-direct\.jsonl: line 2 is not a record"):
        files.read()


def held(files):
    return [record.entry.sample_id for record in files.read()]


def lines_of(files):
    return files.lines.read_bytes().splitlines(keepends=True)


def test_a_map_is_kept_with_a_checksum_of_its_type_its_shape_and_its_values(tmp_path):
    files, maps = write(tmp_path)
    for record, saliency in zip(files.read(), maps, strict=True):
        head = f"{saliency.dtype.name} {saliency.shape[0]} {saliency.shape[1]}".encode()
        assert record.map.crc32 == zlib.crc32(head + saliency.tobytes())


def test_a_run_without_checksums_is_read_as_before(tmp_path):
    files, maps = write(tmp_path)
    files.lines.write_bytes(re.sub(rb',"crc32":\d+', b"", files.lines.read_bytes()))
    back = [files.attribution(record).saliency for record in files.read()]
    for found, saliency in zip(back, maps, strict=True):
        np.testing.assert_array_equal(found, saliency)
    assert RecordWriter(files).sample_ids == {"s0", "s1", "s2"}


@pytest.mark.parametrize("bit", [0, 7])
def test_a_bit_that_flipped_in_a_map_is_noticed_by_who_packs_and_by_who_goes_on(tmp_path, bit):
    files, _ = write(tmp_path)
    data = bytearray(files.maps.read_bytes())
    data[files.read()[1].map.offset] ^= 1 << bit
    files.maps.write_bytes(bytes(data))
    said = (
        r"direct\.jsonl: line 2 \(s1\): its map in some_lvlm-direct\.maps is not what was .*delete that line"
    )
    with pytest.raises(InputError, match=said):
        files.attribution(files.read()[1])
    with pytest.raises(InputError, match=said):
        RecordWriter(files)
    files.lines.write_bytes(b"".join(lines_of(files)[::2]))  # as the message says
    with RecordWriter(files) as writer:
        assert writer.sample_ids == {"s0", "s2"}
        add(writer, "s1", np.ones((1, 1), np.float32))
    assert [files.attribution(record).saliency.shape for record in files.read()] == [(3, 4), (3, 6), (1, 1)]


def test_the_last_map_that_a_power_loss_zeroed_is_made_again(tmp_path):
    files, _ = write(tmp_path)
    place = files.read()[2].map
    files.maps.write_bytes(files.maps.read_bytes()[: place.offset] + bytes(place.end - place.offset))
    assert RecordWriter(files).sample_ids == {"s0", "s1"}
    assert files.maps.stat().st_size == place.offset


@pytest.mark.parametrize("last", [b"\0" * 80 + b"\n", b"\0" * 80, b"{}\n", b"not JSON\n", b"\xff\xfe\n"])
def test_a_last_line_that_is_no_record_is_cut_off_like_a_half_one(tmp_path, last):
    files, _ = write(tmp_path)
    first, second, _ = lines_of(files)
    files.lines.write_bytes(first + second + last)
    assert held(files) == ["s0", "s1"]
    assert RecordWriter(files).sample_ids == {"s0", "s1"}
    assert files.lines.read_bytes() == first + second


def edited(files, number, **changes):
    lines = lines_of(files)
    record = json.loads(lines[number])
    record["map"] |= changes
    lines[number] = json.dumps(record).encode() + b"\n"
    files.lines.write_bytes(b"".join(lines))


def test_maps_that_lie_over_each_other_are_an_error(tmp_path):
    files, _ = write(tmp_path)
    for number in range(3):
        edited(files, number, offset=0)
    with pytest.raises(InputError, match=r"line 2: its map lies over that of line 1; delete that line"):
        files.read()


def test_a_map_beyond_the_file_before_others_that_are_there_cuts_nothing_off(tmp_path):
    files, _ = write(tmp_path)
    edited(files, 1, offset=10**12)
    before = files.lines.read_bytes()
    with pytest.raises(
        InputError, match=r"line 2: its map lies beyond the end of .*\.maps; delete that line"
    ):
        RecordWriter(files)
    assert files.lines.read_bytes() == before


@pytest.mark.parametrize("change", [{"offset": 8}, {"shape": [5, 3]}, {"dtype": "uint8"}, {"crc32": 1}])
def test_a_place_that_is_not_that_of_the_map_is_an_error(tmp_path, change):
    files, _ = write(tmp_path)
    edited(files, 1, **change)
    with pytest.raises(InputError, match=r"direct\.jsonl: line 2"):
        RecordWriter(files)


@pytest.mark.parametrize("name", ["some_lvlm-direct.jsonl", "some_lvlm-direct.maps", "failures.jsonl"])
def test_a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(tmp_path, name):
    files, _ = write(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match=rf"{name}: is not a regular file"):
        _ = (RecordWriter(files), read_failures(tmp_path))


def test_settings_that_are_a_pipe_are_refused(tmp_path):
    os.mkfifo(tmp_path / "settings.json")
    with pytest.raises(InputError, match=r"settings\.json: is not a regular file"):
        read_settings(tmp_path)


def failures(folder, count=3):
    for number in range(count):
        add_failure(folder, Failure(sample_id=f"s{number}", lvlm="l", split="direct", reason="so"))
    return folder / "failures.jsonl"


@pytest.mark.parametrize("line", [b"{}\n", b"\0\0\n", b"[1]\n", b'{"sample_id":1}\n'])
def test_an_unsound_failure_is_an_error_with_its_line_and_the_last_one_is_cut_off(tmp_path, line):
    path = failures(tmp_path)
    first, *rest = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([first, line, *rest]))
    with pytest.raises(
        InputError, match=r"failures\.jsonl: line 2 is not a record of a failure; delete that line"
    ):
        read_failures(tmp_path)
    path.write_bytes(first + line)
    assert [failure.sample_id for failure in read_failures(tmp_path)] == ["s0"]
    forget_failures(tmp_path, [])
    assert path.read_bytes() == first


def test_what_is_appended_after_a_half_written_failure_begins_a_line(tmp_path):
    path = failures(tmp_path)
    path.write_bytes(path.read_bytes()[:-5])
    forget_failures(tmp_path, ["s9"])
    add_failure(tmp_path, Failure(sample_id="s3", lvlm="l", split="direct", reason="so"))
    assert [failure.sample_id for failure in read_failures(tmp_path)] == ["s0", "s1", "s3"]


def test_a_line_longer_than_any_record_is_refused_before_it_is_read_whole(tmp_path):
    path = tmp_path / "failures.jsonl"
    with path.open("wb") as file:
        file.truncate(2**36)  # takes no room on the disk
    tracemalloc.start()
    with pytest.raises(InputError, match=r"failures\.jsonl: line 1 is longer than 16,777,216 bytes"):
        read_failures(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 3 * MAX_LINE_BYTES
    tracemalloc.stop()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here, the disk that is always full")
@pytest.mark.parametrize("suffix", [".maps", ".jsonl"])
def test_a_full_disk_is_said_of_the_file_that_it_is_full_for(tmp_path, suffix):
    files = RecordFiles.of(tmp_path, "some/lvlm", "direct")
    writer = RecordWriter(files)
    (tmp_path / f"some_lvlm-direct{suffix}").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device") as raised, writer:
        add(writer, "s0", np.ones((200, 200), np.float32))
    assert raised.value.filename == str(tmp_path / f"some_lvlm-direct{suffix}")
