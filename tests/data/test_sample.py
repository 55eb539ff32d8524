"""A sample's picture and texts, which are read when they are asked for."""

from __future__ import annotations

import io
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from medfocus_bench.data import stored
from medfocus_bench.data.benchmark import Benchmark, read_benchmark
from medfocus_bench.data.columns import SCHEMA
from medfocus_bench.data.sample import Sample
from medfocus_bench.data.writing import write_benchmark, write_rows
from medfocus_bench.errors import BenchmarkError, InputError, UnavailableError

from ..conftest import make_row

COUNT = 300
"""Rows of three row groups."""


def levels(number: int) -> np.ndarray[Any, Any]:
    return (np.arange(64, dtype=np.uint8).reshape(8, 8) + number % 100).astype(np.uint8)


def row(number: int, **more: Any) -> dict[str, Any]:
    file = io.BytesIO()
    Image.fromarray(levels(number)).save(file, "PNG")
    texts = {"question": f"Question {number}?", "response": f"Response {number}."}
    return make_row(number, width=8, height=8, boxes=[[1, 1, 5, 6]], image=file.getvalue(), **texts) | more


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench") / "b"
    rows = [row(number) for number in range(COUNT)]
    return write_benchmark(folder, {"direct": rows, "dev": [row(COUNT)]}, name="b", version="1")


def check(sample: Sample) -> None:
    np.testing.assert_array_equal(sample.image, levels(sample.index))
    assert sample.question == f"Question {sample.index}?"
    assert sample.response == f"Response {sample.index}."


@pytest.mark.parametrize("order", ["forwards", "backwards", "random"])
def test_a_sample_has_its_own_picture_and_texts_in_whatever_order_it_is_asked(bench, order):
    samples = list(bench.samples)
    if order == "backwards":
        samples.reverse()
    if order == "random":
        random.Random(0).shuffle(samples)
    for sample in samples[:60] if order == "random" else samples[::7]:
        check(sample)
        check(sample)


def test_a_picture_that_follows_itself_is_decoded_once_and_each_sample_has_its_own(tmp_path, monkeypatch):
    decoded = []
    real = stored.decode_uint8
    monkeypatch.setattr(stored, "decode_uint8", lambda *a, **b: (decoded.append(1), real(*a, **b))[1])
    picture = row(0)["image"]
    rows = {"direct": [row(7, image=picture), row(8)], "dev": [row(6, image=picture)]}
    one, other, last = sorted(
        write_benchmark(tmp_path / "b", rows, name="b", version="1").samples, key=lambda sample: sample.index
    )
    one.image[:] = 0
    np.testing.assert_array_equal(other.image, levels(0))
    assert len(decoded) == 1
    np.testing.assert_array_equal(last.image, levels(8))
    np.testing.assert_array_equal(one.image, levels(0))
    assert len(decoded) == 3


def test_samples_in_the_order_of_the_file_are_read_in_one_pass(bench, monkeypatch):
    opened = []
    real = stored.parquet_rows
    monkeypatch.setattr(
        stored, "parquet_rows", lambda path, *a, **k: (opened.append(path.name), real(path, *a, **k))[1]
    )
    for sample in read_benchmark(bench.folder).samples[::3]:
        check(sample)
    assert opened == ["dev.parquet"] * 2 + ["direct.parquet"] * 2  # texts and pictures


def test_a_sample_far_ahead_costs_its_row_group_only(bench, monkeypatch):
    starts = []
    real = stored.parquet_rows
    monkeypatch.setattr(
        stored, "parquet_rows", lambda *a, start: (starts.append(start), real(*a, start=start))[1]
    )
    samples = [sample for sample in read_benchmark(bench.folder).samples if sample.split == "direct"]
    for number in (0, 299, 130):
        _ = samples[number].response
    assert starts == [0, 256, 128]


def test_a_pickled_benchmark_reads_on_its_own(bench):
    _ = bench.samples[3].image
    for sample in pickle.loads(pickle.dumps(bench)).samples[:3]:
        check(sample)


def test_a_file_that_changed_since_it_was_opened_is_never_read_as_another_sample(bench):
    folder = bench.folder.parent / "changing"
    write_rows_of = [row(number) for number in range(4)]
    read = write_benchmark(folder, {"direct": write_rows_of}, name="b", version="1")
    write_rows(folder / "direct.parquet", write_rows_of[::-1])
    with pytest.raises(BenchmarkError, match=r"direct.parquet: row 0 is not phantom-00000-.* any more"):
        _ = read.samples[0].response
    write_rows(folder / "direct.parquet", write_rows_of[:1])
    with pytest.raises(BenchmarkError, match=r"row 3 is not phantom-00003-.* any more; .* load"):
        _ = read.samples[3].image
    (folder / "direct.parquet").unlink()
    with pytest.raises(BenchmarkError, match=r"direct.parquet"):
        _ = read_again(read)


def read_again(benchmark: Benchmark) -> Any:
    return pickle.loads(pickle.dumps(benchmark)).samples[0].image


def test_a_row_may_have_neither_picture_nor_texts(tmp_path):
    bare = pa.Table.from_pylist([make_row()], schema=pa.schema([f for f in SCHEMA if f.name in make_row()]))
    pq.write_table(bare, tmp_path / "direct.parquet")
    (sample,) = read_benchmark(tmp_path).samples
    assert sample.question.startswith("Is there evidence of nodule in the image? Answer directly")
    assert sample.response is None
    with pytest.raises(UnavailableError, match=r"phantom-00000-tiny-direct has no picture.*the column image"):
        _ = sample.image
    write_rows(tmp_path / "direct.parquet", [make_row(image_ref="copies/1.png")])
    with pytest.raises(UnavailableError, match=r"only a pointer to copies/1.png .* data attach"):
        _ = read_benchmark(tmp_path).samples[0].image


def test_an_image_of_your_own_is_a_sample():
    image = np.arange(48, dtype=np.uint8).reshape(6, 8)
    sample = Sample.of_image(image, "Is there a nodule?", finding="nodule")
    assert (sample.width, sample.height, sample.finding, sample.response) == (8, 6, "nodule", None)
    assert sample.image is image
    assert (sample.question, len(sample.boxes)) == ("Is there a nodule?", 0)


def test_a_sample_without_content_says_so():
    sample = Sample.of_image(np.zeros((2, 2), np.uint8), "?")
    bare = Sample(**{name: getattr(sample, name) for name in Sample.__match_args__ if name != "content"})
    with pytest.raises(UnavailableError, match="image: has neither picture nor texts"):
        _ = bare.image


def test_reprs_are_one_line_without_bytes(make_benchmark):
    bench = make_benchmark([row(number) for number in range(50)])
    assert repr(bench) == f"Benchmark(bench 1.0.0 ({bench.fingerprint[:12]}): 50 samples in phantom / direct)"
    assert repr(bench.samples[3]) == (
        "Sample(phantom-00003-tiny-direct: nodule, 8 x 8, phantom / direct, lesion, 1 box)"
    )


def test_all_rows_are_those_of_every_group(make_benchmark):
    bench = make_benchmark([row(0), row(1, group="incorrect"), row(2, group="ungrounded"), row(3)])
    assert [sample.index for sample in bench.samples] == [0, 3]
    assert [sample.group for sample in bench.all_rows()] == [
        "grounded",
        "incorrect",
        "ungrounded",
        "grounded",
    ]
    assert [sample.response for sample in bench.all_rows()] == [f"Response {n}." for n in range(4)]


def test_few_files_stay_open_however_many_are_read(tmp_path):
    shards = []
    for number in range(12):
        write_benchmark(tmp_path / str(number), {"direct": [row(number)]}, name="b", version="1")
        shards.append(read_benchmark(tmp_path / str(number)).samples[0])
    for sample in shards:
        assert sample.image is not None
        assert sample.question
    opened = [target for link in Path("/proc/self/fd").iterdir() if str(tmp_path) in (target := linked(link))]
    assert len(opened) <= 4
    assert [sample.index for sample in shards] == list(range(12))
    assert all(sample.image[0, 0] == levels(sample.index)[0, 0] for sample in shards)


def linked(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""


def test_an_image_of_colours_is_not_a_radiograph():
    with pytest.raises(InputError, match=r"image: an image is \(height, width\), not of shape \(2, 2, 3\)"):
        Sample.of_image(np.zeros((2, 2, 3), np.uint8), "?")
