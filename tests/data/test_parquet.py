"""A few kilobytes of Parquet do not become gigabytes."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medfocus_bench.data.benchmark import read_rows
from medfocus_bench.data.parquet import MAX_LIST, MAX_ROWS, MAX_TEXT
from medfocus_bench.data.resolve import load_benchmark
from medfocus_bench.errors import BenchmarkError

from ..conftest import make_row

MEASURED = """
import sys
from pathlib import Path
from medfocus_bench.data.resolve import load_benchmark
from medfocus_bench.errors import BenchmarkError
try:
    load_benchmark(sys.argv[1])
except BenchmarkError as error:
    print(error)
status = Path("/proc/self/status")
lines = status.read_text().splitlines() if status.exists() else ["VmHWM: 0 kB"]
print(next(line.split()[1] for line in lines if line.startswith("VmHWM:")))
"""


def write(folder, table, **settings):
    settings = {"compression": "zstd", "dictionary_pagesize_limit": 2**30} | settings
    pq.write_table(table, folder / "direct.parquet", **settings)
    return (folder / "direct.parquet").stat().st_size


def rows(count, **more):
    return pa.Table.from_pylist([make_row(number, **more) for number in range(count)])


def shared(count, value):
    """A column in which every row has the same value, which is stored once."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([value]))


def refused(folder):
    """The answer about a file of a process of its own, which never takes more than 700 MB for it."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(folder)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    said, peak = done.stdout.splitlines()
    assert int(peak) < 700_000  # kB; Python and Arrow take 80,000
    return said


@pytest.mark.parametrize("count", [300, 3000])
@pytest.mark.parametrize("column", ["response", "question", "image_ref", "answer_original", "notes"])
def test_a_text_of_20_megabytes_that_all_rows_share_is_refused(tmp_path, count, column):
    table = rows(count).append_column(column, shared(count, "x" * 20_000_000))
    assert write(tmp_path, table) < 50_000
    assert f"{column} holds a text of over 20,000 characters" in refused(tmp_path)


def test_a_text_within_a_list_is_measured_before_it_is_repeated(tmp_path):
    kind = pa.list_(pa.struct([("concept", pa.string()), ("box", pa.list_(pa.float64()))]))
    entries = [{"concept": "y" * 5_000_000, "box": [0.0, 0.0, 1.0, 1.0]}] * 40
    assert write(tmp_path, rows(1).append_column("anatomy", pa.array([entries], kind))) < 50_000
    assert "anatomy holds a text of over 20,000 characters" in refused(tmp_path)


def test_a_picture_that_many_rows_share_is_not_made_for_all_of_them_at_once(tmp_path):
    image = shared(300, bytes(20_000_000))
    table = rows(300).append_column(
        "image", pa.StructArray.from_arrays([image, shared(300, "a")], ["bytes", "path"])
    )
    assert write(tmp_path, table) < 50_000
    assert "its texts and pictures unpack to more than 1,073,741,824 bytes" in refused(tmp_path)


def boxes(count, each):
    flat = pa.array(np.tile([1.0, 2.0, 30.0, 40.0], count * each))
    single = pa.ListArray.from_arrays(pa.array(np.arange(0, 4 * count * each + 1, 4, dtype=np.int32)), flat)
    return pa.ListArray.from_arrays(pa.array(np.arange(0, count * each + 1, each, dtype=np.int32)), single)


def with_boxes(count, each):
    table = rows(count)
    return table.set_column(table.schema.get_field_index("boxes"), "boxes", boxes(count, each))


def test_eight_million_boxes_of_a_row_are_refused_by_what_the_footer_says(tmp_path):
    assert write(tmp_path, with_boxes(1, 2_000_000)) < 60_000
    tracemalloc.start()
    with pytest.raises(BenchmarkError, match=r"8,000,000 values in 1 rows; at most 500 boxes a row are read"):
        load_benchmark(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()


def test_boxes_that_one_row_has_for_all_are_refused_before_rows_are_made(tmp_path):
    table = pa.concat_tables([with_boxes(1, MAX_LIST + 1), *[rows(1, lvlm=f"l{n}") for n in range(3)]])
    write(tmp_path, table)
    with pytest.raises(
        BenchmarkError, match=r"boxes lists 501 in one row; at most 500 are read \(rows 0 to 128\)"
    ):
        load_benchmark(tmp_path)


def test_as_many_boxes_as_are_read_are_read(tmp_path):
    write(tmp_path, with_boxes(2, MAX_LIST))
    assert [len(sample.boxes) for sample in load_benchmark(tmp_path).samples] == [500, 500]


def test_the_longest_text_that_is_read_is_read_whatever_its_letters_take(tmp_path):
    write(tmp_path, rows(2).append_column("response", shared(2, "\U0001fac1" * MAX_TEXT)))
    assert len(load_benchmark(tmp_path).samples) == 2


def test_values_without_end_in_a_small_file_are_refused(tmp_path):
    assert write(tmp_path, with_boxes(9000, MAX_LIST)) < 200_000
    with pytest.raises(
        BenchmarkError, match=r"bytes stand for 18,\d+,\d+ values; at most \d+,\d+,\d+ are read"
    ):
        load_benchmark(tmp_path)


def test_too_many_rows_are_refused_whether_in_one_file_or_in_several(tmp_path):
    few = pa.concat_tables([rows(1)] * 1000).combine_chunks()
    write(tmp_path, pa.concat_tables([few] * (MAX_ROWS // 1000 + 1)))
    with pytest.raises(BenchmarkError, match=r"has 1,001,000 rows; at most 1,000,000 are read"):
        load_benchmark(tmp_path)


def test_a_row_group_that_unpacks_to_too_much_is_refused(tmp_path):
    texts = pa.array(["z" * 15_000 + str(number) for number in range(20_000)])
    write(tmp_path, rows(20_000).append_column("notes", texts), use_dictionary=False)
    with pytest.raises(
        BenchmarkError, match=r"its row group 0 unpacks to 3\d\d,\d+,\d+ bytes; .* more row groups"
    ):
        load_benchmark(tmp_path)
    write(tmp_path, rows(2000).append_column("notes", texts[:2000]), row_group_size=500)
    assert len(list(read_rows(tmp_path))) == 2000


def test_a_sample_that_stands_twice_is_said_at_once(tmp_path):
    write(tmp_path, pa.concat_tables([rows(1)] * 3))
    with pytest.raises(BenchmarkError, match="the sample phantom-00000-tiny-direct stands twice"):
        load_benchmark(tmp_path)
