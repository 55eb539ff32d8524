"""Columns of few words that a file stores as numbers with names."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from medfocus_bench.data.columns import SCHEMA
from medfocus_bench.data.labels import LABELS, in_numbers, in_words, label_names
from medfocus_bench.data.resolve import load_benchmark
from medfocus_bench.errors import BenchmarkError

from ..conftest import make_row
from .test_benchmark import save


def labelled(names, column="mode", kind=None):
    """`SCHEMA` with a column of numbers, and what the metadata says of it."""
    feature = {"names": names, "_type": "ClassLabel"}
    position = SCHEMA.get_field_index(column)
    schema = SCHEMA.set(position, pa.field(column, kind or pa.int64()))
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": {column: feature}}})})


def test_labels_are_read_as_the_words_that_the_file_names(tmp_path):
    """In the file's own order, which need not be that of the published dataset."""
    save(tmp_path / "words" / "dev.parquet", [make_row(0, mode="reasoning")])
    schema = labelled(["reasoning", "direct"], kind=pa.int8())
    save(tmp_path / "numbers" / "dev.parquet", [make_row(0, mode=0)], schema)
    words, numbers = (load_benchmark(tmp_path / name) for name in ("words", "numbers"))
    assert numbers.samples[0].mode == "reasoning"
    assert numbers.fingerprint == words.fingerprint


@pytest.mark.parametrize("number", [2, -1])
def test_a_number_without_a_name_is_refused(tmp_path, number):
    save(tmp_path / "dev.parquet", [make_row(0, mode=number)], labelled(["direct", "reasoning"]))
    with pytest.raises(BenchmarkError, match=rf"mode {number} is not one of the 2 labels of the file"):
        load_benchmark(tmp_path)


@pytest.mark.parametrize("names", [None, 3, [1, 2], ["direct", None], ["x"] * 1001])
def test_numbers_whose_names_cannot_be_read_are_a_column_of_the_wrong_type(tmp_path, names):
    save(tmp_path / "dev.parquet", [make_row(0, mode=0)], labelled(names))
    with pytest.raises(BenchmarkError, match="its column mode holds int64; it should hold string"):
        load_benchmark(tmp_path)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"7", b'{"info": null}', b"[" * 10**5, b"x" * 2**21])
def test_metadata_that_says_nothing_of_labels_is_let_be(data):
    assert label_names(SCHEMA.with_metadata({"huggingface": data})) == {}


def test_words_and_numbers_are_each_others_inverse():
    for column, words in LABELS.items():
        for word in (*words, None):
            encoded = in_numbers({column: word})
            assert encoded[column] is None or isinstance(encoded[column], int)
            assert in_words(encoded, LABELS) == {column: word}
    with pytest.raises(ValueError, match="group 'other' is not one of"):
        in_numbers({"group": "other"})
