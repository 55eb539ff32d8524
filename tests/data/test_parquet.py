"""A few kilobytes of Parquet do not become gigabytes."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medfocus_bench.data import benchmark, parquet
from medfocus_bench.data.benchmark import read_rows
from medfocus_bench.data.parquet import MAX_LIST, MAX_TEXT
from medfocus_bench.data.resolve import load_benchmark
from medfocus_bench.errors import BenchmarkError

from ..conftest import make_row

MEASURED = """
import sys
from pathlib import Path
from medfocus_bench.data.resolve import load_benchmark
from medfocus_bench.errors import BenchmarkError
for folder in sys.argv[1:]:
    try:
        load_benchmark(folder)
    except BenchmarkError as error:
        print(error)
status = Path("/proc/self/status")
lines = status.read_text().splitlines() if status.exists() else ["VmHWM: 0 kB"]
print(next(line.split()[1] for line in lines if line.startswith("VmHWM:")))
"""


def write(folder, table, **settings):
    """The size of the file, which is small for what it stands for."""
    settings = {"compression": "zstd", "dictionary_pagesize_limit": 2**30} | settings
    folder.mkdir(exist_ok=True)
    pq.write_table(table, folder / "direct.parquet", **settings)
    return (folder / "direct.parquet").stat().st_size


def rows(count, **more):
    return pa.Table.from_pylist([make_row(number, **more) for number in range(count)])


def shared(count, value):
    """A column in which every row has the same value, which is stored once."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([value]))


def refusals(folders):
    """The answers of a process of its own, which never takes more than 700 MB for any of them."""
    command = [sys.executable, "-c", MEASURED, *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    *said, peak = done.stdout.splitlines()
    assert int(peak) < 700_000  # kB; Python and Arrow take 80,000
    return said


def test_a_content_that_all_rows_share_is_measured_before_it_is_repeated(tmp_path):
    """Texts of 20 MB in any column, a text within a list, and a picture that many rows share."""
    tables = {
        f"{column} holds a text of over 20,000 characters": rows(count).append_column(
            column, shared(count, "x" * 20_000_000)
        )
        for column, count in [
            *(("response", 300), ("question", 3000), ("image_ref", 300)),
            *(("answer_original", 3000), ("notes", 300)),
        ]
    }
    kind = pa.list_(pa.struct([("concept", pa.string()), ("box", pa.list_(pa.float64()))]))
    entries = [{"concept": "y" * 5_000_000, "box": [0.0, 0.0, 1.0, 1.0]}] * 40
    listed = rows(1).append_column("anatomy", pa.array([entries], kind))
    tables["anatomy holds a text of over 20,000 characters"] = listed
    parts = [shared(300, bytes(20_000_000)), shared(300, "a")]
    pictures = rows(300).append_column("image", pa.StructArray.from_arrays(parts, ["bytes", "path"]))
    tables["its texts and pictures unpack to more than 1,073,741,824 bytes"] = pictures
    folders = [tmp_path / str(number) for number in range(len(tables))]
    assert all(write(*pair) < 50_000 for pair in zip(folders, tables.values(), strict=True))
    for said, wanted in zip(refusals(folders), tables, strict=True):
        assert wanted in said


def with_boxes(count, each):
    flat = pa.array(np.tile([1.0, 2.0, 30.0, 40.0], count * each))
    single = pa.ListArray.from_arrays(pa.array(np.arange(0, 4 * count * each + 1, 4, dtype=np.int32)), flat)
    boxes = pa.ListArray.from_arrays(pa.array(np.arange(0, count * each + 1, each, dtype=np.int32)), single)
    table = rows(count)
    return table.set_column(table.schema.get_field_index("boxes"), "boxes", boxes)


def refused(folder, said):
    with pytest.raises(BenchmarkError, match=said):
        load_benchmark(folder)


def test_the_many_boxes_of_a_row_are_refused_by_what_the_footer_says(tmp_path):
    write(tmp_path, with_boxes(1, 500_000))
    tracemalloc.start()
    refused(tmp_path, r"2,000,000 values in 1 rows; at most 500 boxes a row are read")
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()


def test_boxes_that_one_row_has_for_all_are_refused_before_rows_are_made(tmp_path):
    write(
        tmp_path, pa.concat_tables([with_boxes(1, MAX_LIST + 1), *[rows(1, lvlm=f"l{n}") for n in range(3)]])
    )
    refused(tmp_path, r"boxes lists 501 in one row; at most 500 are read \(rows 0 to 128\)")


def test_as_many_boxes_and_letters_as_are_read_are_read_whatever_these_take(tmp_path):
    write(tmp_path, with_boxes(2, MAX_LIST).append_column("response", shared(2, "\U0001fac1" * MAX_TEXT)))
    assert [len(sample.boxes) for sample in load_benchmark(tmp_path).samples] == [500, 500]


def test_values_without_end_in_a_small_file_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "MAX_VALUES", 40_000)
    monkeypatch.setattr(parquet, "MAX_VALUES_PER_BYTE", 1)
    write(tmp_path, with_boxes(90, MAX_LIST))
    refused(tmp_path, r"bytes stand for 18\d,\d+ values; at most 40,000 are read")


def test_too_many_rows_are_refused_whether_in_one_file_or_in_several(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "MAX_ROWS", 100)
    monkeypatch.setattr(benchmark, "MAX_ROWS", 100)
    write(tmp_path, rows(101))
    refused(tmp_path, r"has 101 rows; at most 100 are read")
    write(tmp_path, rows(60))
    write(tmp_path / "more", pa.concat_tables([rows(1, lvlm=f"l{n}") for n in range(60)]))
    refused(tmp_path, r"has over 100 rows, the most that are read")


def test_a_row_group_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "MAX_GROUP_BYTES", 2**20)
    texts = pa.array(["z" * 15_000 + str(number) for number in range(100)])
    table = rows(100).append_column("notes", texts)
    write(tmp_path, table, use_dictionary=False)
    refused(tmp_path, r"its row group 0 unpacks to 1,\d+,\d+ bytes; .* more row groups")
    write(tmp_path, table, row_group_size=50)
    assert len(list(read_rows(tmp_path))) == 100


def test_a_sample_that_stands_twice_is_said_at_once(tmp_path):
    write(tmp_path, pa.concat_tables([rows(1)] * 3))
    refused(tmp_path, "the sample phantom-00000-tiny-direct stands twice")
