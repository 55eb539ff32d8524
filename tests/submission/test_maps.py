"""The map file: what our writer writes the safetensors library reads, and one map is read at a time."""

from __future__ import annotations

import gc
import hashlib
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medfocus_bench.errors import SubmissionError
from medfocus_bench.submission.maps import MapFileError, MapReader, MapWriter, as_stored

from .documents import entry, mutated_bytes
from .documents import safetensors as safetensors_bytes

Map = np.ndarray[tuple[int, int], np.dtype[np.generic]]

any_map = hnp.arrays(
    dtype=st.sampled_from([np.uint8, np.float16, np.float32]),
    shape=hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=7),
)
fuzz = settings(max_examples=40)


def write(path, saliencies):
    path.unlink(missing_ok=True)
    writer = MapWriter(path)
    for key, saliency in saliencies.items():
        writer.add(key, saliency)
    return writer.finish()


def same(one, other):
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


@fuzz
@given(saliencies=st.dictionaries(st.text("abc-_.", min_size=1, max_size=5), any_map, max_size=5))
def test_the_library_reads_what_the_streaming_writer_wrote(saliencies, tmp_path):
    path = tmp_path / "maps.safetensors"
    digest = write(path, saliencies)
    loaded = safetensors.numpy.load_file(path)
    assert loaded.keys() == saliencies.keys()
    assert all(same(loaded[key], saliency) for key, saliency in saliencies.items())
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()


@fuzz
@given(saliencies=st.dictionaries(st.text("abc", min_size=1, max_size=5), any_map, min_size=1, max_size=5))
def test_the_reader_reads_what_the_library_wrote(saliencies, tmp_path):
    path = tmp_path / "maps.safetensors"
    safetensors.numpy.save_file(saliencies, path)
    reader = MapReader(path)
    assert reader.keys == saliencies.keys()
    for key, saliency in saliencies.items():
        assert reader.problem(key) is None
        assert same(reader.read(key), saliency)


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.bool_, ">f4"])
def test_other_numbers_are_stored_as_float32(dtype, tmp_path):
    saliency = np.array([[0, 1, 1]]).astype(dtype)
    write(tmp_path / "maps", {"a": saliency})
    read = MapReader(tmp_path / "maps").read("a")
    assert read.dtype == np.float32
    assert read.tolist() == [[0, 1, 1]]


def test_a_view_is_stored_as_it_looks(tmp_path):
    saliency = np.arange(12, dtype=np.uint8).reshape(3, 4).T[::-1]
    write(tmp_path / "maps", {"a": saliency})
    assert MapReader(tmp_path / "maps").read("a").tolist() == saliency.tolist()


@pytest.mark.parametrize("shape", [(), (3,), (1, 2, 3), (1, 2049)])
def test_what_is_no_map_is_not_written(shape, tmp_path):
    writer = MapWriter(tmp_path / "maps")
    with pytest.raises(ValueError, match="a map is 2-D with at most 2048 pixels a side"):
        writer.add("a", np.zeros(shape, dtype=np.uint8))
    writer.add("b", np.zeros((1, 1), dtype=np.uint8))
    writer.finish()
    assert list(safetensors.numpy.load_file(tmp_path / "maps")) == ["b"]
    assert [path.name for path in tmp_path.iterdir()] == ["maps"]


@pytest.mark.parametrize("scale", [1e-310, 1e-60, 1.0, 1e60, 1e300])
def test_a_map_beyond_float32_keeps_its_ranking(scale):
    values = np.array([[1.0, 2.0], [-3.0, 0.0]]) * scale
    stored = as_stored(values)
    assert stored.dtype == np.float32
    assert np.isfinite(stored).all()
    np.testing.assert_array_equal(np.argsort(stored, axis=None), np.argsort(values, axis=None))
    assert np.sign(stored).tolist() == np.sign(values).tolist()


def test_close_values_are_not_tied_by_storing_them():
    values = 1 + np.arange(64, dtype=np.float64).reshape(8, 8) * 1e-6
    assert len(np.unique(as_stored(values))) == 64
    assert len(np.unique(as_stored(values.astype(np.float32)))) == len(np.unique(values.astype(np.float32)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_map_that_is_not_finite_stays_that(value):
    stored = as_stored(np.array([[1e300, value], [0.0, 1.0]]))
    assert np.isfinite(stored).tolist() == [[True, False], [True, True]]


def test_a_masked_map_is_refused_and_one_that_masks_nothing_is_not():
    values = np.arange(4.0).reshape(2, 2)
    with pytest.raises(ValueError, match=r"has masked values.*fill them first"):
        as_stored(np.ma.masked_less(values, 1))
    assert as_stored(np.ma.masked_less(values, 0)).tolist() == values.tolist()


def test_a_file_that_takes_the_place_of_the_one_that_was_opened_is_not_read(tmp_path):
    path = tmp_path / "maps"
    digest = write(path, {"a": np.zeros((2, 2), dtype=np.uint8)})
    reader = MapReader(path)
    write(tmp_path / "other", {"a": np.ones((2, 2), dtype=np.uint8)})
    (tmp_path / "other").rename(path)
    assert reader.sha256() == digest
    assert reader.read("a").tolist() == [[0, 0], [0, 0]]
    path.unlink()
    assert reader.read("a").tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("change", ["bytes", "length"])
def test_a_file_that_is_changed_while_it_is_read_is_an_input_error(change, tmp_path):
    path = tmp_path / "maps"
    write(path, {"a": np.zeros((2, 2), dtype=np.uint8)})
    os.utime(path, ns=(0, 0))
    reader = MapReader(path)
    reader.read("a")
    with path.open("r+b") as file:
        if change == "bytes":
            file.seek(-1, os.SEEK_END)
            file.write(b"\xff")
        else:
            file.truncate(20)
    for use in (reader.sha256, lambda: reader.read("a")):
        with pytest.raises(SubmissionError, match="was changed while it was read"):
            use()


def descriptors(path):
    """How many this process has of a file."""
    found = 0
    for descriptor in list(Path("/dev/fd").iterdir()):
        with suppress(OSError):
            found += os.path.samestat(os.fstat(int(descriptor.name)), path.stat())
    return found


def test_a_map_file_is_read_in_one_opening(tmp_path):
    """Descriptors go with their readers."""
    write(tmp_path / "maps", {"a": np.zeros((2, 2), dtype=np.uint8)})
    readers = [MapReader(tmp_path / "maps") for _ in range(5)]
    assert descriptors(tmp_path / "maps") == 5
    del readers
    gc.collect()
    assert descriptors(tmp_path / "maps") == 0


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"

UNWANTED = {
    "metadata": (safetensors_bytes({"__metadata__": {"a": "b"}}), "has metadata other than"),
    "a long format": (safetensors_bytes({"__metadata__": {"format": "x" * 17}}), "has metadata other than"),
    "metadata that is no object": (safetensors_bytes({"__metadata__": [1]}), "has metadata other than"),
    "blanks": (safetensors_bytes(b"{" + b" " * 5000 + b"}"), "holds 5,000 bytes of blanks"),
    "a key beside those of a map": (
        safetensors_bytes({"a": {**entry([1, 1], 0, 1), "note": "x" * 9}}, bytes(1)),
        "needs dtype, shape and data_offsets, and nothing else",
    ),
    "a key twice": (safetensors_bytes(b'{"__metadata__":{},"__metadata__":{}}'), "stands twice"),
    "a pointer of Git LFS": (POINTER, "is still a pointer of Git LFS.*`git lfs pull`"),
}


@pytest.mark.parametrize(("data", "said"), UNWANTED.values(), ids=UNWANTED)
def test_a_map_file_holds_maps_and_nothing_else(data, said, tmp_path):
    path = tmp_path / "maps"
    path.write_bytes(data)
    with pytest.raises(MapFileError, match=f"{path}: .*{said}"):
        MapReader(path)


@pytest.mark.parametrize("framework", ["np", "pt"])
def test_the_format_that_the_library_notes_is_let_be(framework, tmp_path):
    maps = {"a": np.eye(2, dtype=np.float32)}
    safetensors.numpy.save_file(maps, tmp_path / "maps", metadata={"format": framework})
    assert MapReader(tmp_path / "maps").read("a").tolist() == [[1, 0], [0, 1]]


def test_a_message_is_cut_short(tmp_path):
    path = tmp_path / "maps"
    path.write_bytes(safetensors_bytes({"a" * 10_000: entry([1, 1], 0, 2)}, bytes(2)))
    with pytest.raises(MapFileError) as raised:
        MapReader(path)
    assert len(str(raised.value)) < 1000


SOUND = safetensors_bytes({"a": entry([2, 2], 0, 4), "b": entry([1, 2], 4, 8, "F16")}, bytes(range(8)))


@settings(fuzz, max_examples=400)
@given(data=mutated_bytes(SOUND))
def test_any_damage_to_a_map_file_is_found_or_harmless(data, tmp_path):
    path = tmp_path / "maps"
    path.write_bytes(data)
    try:
        reader = MapReader(path)
    except MapFileError:
        return
    for key in reader.keys:
        if reader.problem(key) is None:
            saliency = reader.read(key)
            assert saliency.ndim == 2
            assert saliency.dtype in (np.uint8, np.float16, np.float32)
    with safetensors.safe_open(path, framework="numpy") as library:
        assert reader.keys == set(library.keys())
        readable = [key for key in reader.keys if reader.problem(key) is None]
        assert all(same(reader.read(key), library.get_tensor(key)) for key in readable)


def small_and_signed(seed=0):
    """Values from 1e-9 to 1e-6 of both signs, and zeros: raw float16 keeps seventeen levels of them."""
    rng = np.random.default_rng(seed)
    values = 10.0 ** rng.uniform(-9, -6, (32, 32)) * rng.choice([-1, 1], (32, 32))
    values[:4] = 0
    return values


@pytest.mark.parametrize("given", [np.float32, np.float64])
def test_small_values_are_scaled_before_they_become_float16(given):
    values = small_and_signed().astype(given)
    raw, stored = values.astype(np.float16), as_stored(values, "float16")
    assert stored.dtype == np.float16
    assert np.abs(stored).max() == 1
    assert len(np.unique(raw)) < 40 < len(np.unique(stored)) / 10
    assert np.sign(stored).tolist() == np.sign(values).tolist()
    order = np.argsort(values, axis=None)
    assert (np.diff(stored.ravel()[order].astype(float)) >= 0).all()


def test_uint8_is_scaled_to_its_range_in_the_same_order():
    values = np.abs(small_and_signed()) * 1e-30
    stored = as_stored(values, "uint8")
    assert (stored.dtype, stored.min(), stored.max()) == (np.uint8, 0, 255)
    assert (np.diff(stored.ravel()[np.argsort(values, axis=None)].astype(int)) >= 0).all()
    assert not as_stored(np.zeros((2, 2)), "uint8").any()


@pytest.mark.parametrize("stored", ["uint8", "float16", "float32"])
def test_a_uint8_map_stays_what_it_is(stored):
    values = np.array([[0, 3, 7]], dtype=np.uint8)
    assert as_stored(values, stored) is values


@pytest.mark.parametrize("value", [-1e-9, np.nan, np.inf])
def test_uint8_takes_no_value_that_it_cannot_hold(value):
    with pytest.raises(ValueError, match="does not fit into uint8; store float16 or float32"):
        as_stored(np.array([[1.0, value]]), "uint8")


def test_a_map_that_is_float16_or_nearly_flat_is_not_made_worse():
    half = np.float16([[1e-6, 2e-6]])
    assert as_stored(half, "float16") is half
    flat = 1 + np.arange(64, dtype=np.float64).reshape(8, 8) * 1e-5
    assert as_stored(flat, "float16").dtype == np.float32
    assert len(np.unique(as_stored(flat, "float16"))) == 64


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_stays_that_in_float16(value):
    stored = as_stored(np.array([[1e-9, value], [0.0, -2e-9]]), "float16")
    assert stored.dtype == np.float16
    np.testing.assert_array_equal(stored, [[0.5, value], [0.0, -1.0]])
