"""The map file: what our writer writes the safetensors library reads, and one map is read at a time."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medfocus_bench.errors import SubmissionError
from medfocus_bench.submission import maps
from medfocus_bench.submission.maps import MapFileError, MapReader, MapWriter

from .documents import entry, mutated_bytes
from .documents import safetensors as safetensors_bytes

Map = np.ndarray[tuple[int, int], np.dtype[np.generic]]

any_map = hnp.arrays(
    dtype=st.sampled_from([np.uint8, np.float16, np.float32]),
    shape=hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=7),
)
fuzz = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def write(path: Path, saliencies: dict[str, Map]) -> str:
    path.unlink(missing_ok=True)
    writer = MapWriter(path)
    for key, saliency in saliencies.items():
        writer.add(key, saliency)
    return writer.finish()


def same(one: Map, other: Map) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


@fuzz
@given(saliencies=st.dictionaries(st.text("abc-_.", min_size=1, max_size=5), any_map, max_size=5))
def test_the_library_reads_what_the_streaming_writer_wrote(
    saliencies: dict[str, Map], tmp_path: Path
) -> None:
    path = tmp_path / "maps.safetensors"
    digest = write(path, saliencies)
    loaded = safetensors.numpy.load_file(path)
    assert loaded.keys() == saliencies.keys()
    assert all(same(loaded[key], saliency) for key, saliency in saliencies.items())
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()


@fuzz
@given(saliencies=st.dictionaries(st.text("abc", min_size=1, max_size=5), any_map, min_size=1, max_size=5))
def test_the_reader_reads_what_the_library_wrote(saliencies: dict[str, Map], tmp_path: Path) -> None:
    path = tmp_path / "maps.safetensors"
    safetensors.numpy.save_file(saliencies, path)
    reader = MapReader(path)
    assert reader.keys == saliencies.keys()
    for key, saliency in saliencies.items():
        assert reader.problem(key) is None
        assert same(reader.read(key), saliency)


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.bool_, ">f4"])
def test_other_numbers_are_stored_as_float32(dtype: str, tmp_path: Path) -> None:
    saliency = np.array([[0, 1, 1]]).astype(dtype)
    write(tmp_path / "maps", {"a": saliency})
    read = MapReader(tmp_path / "maps").read("a")
    assert read.dtype == np.float32
    assert read.tolist() == [[0, 1, 1]]


@pytest.mark.parametrize("values", [[[1e39]], [[1j]], [["1"]], [[None]]])
def test_what_float32_cannot_hold_is_not_written(values: list[list[object]], tmp_path: Path) -> None:
    writer = MapWriter(tmp_path / "maps")
    with pytest.raises(ValueError, match=r"^a: "):
        writer.add("a", np.array(values))
    assert len(writer) == 0
    writer.close()


def test_a_view_is_stored_as_it_looks(tmp_path: Path) -> None:
    saliency = np.arange(12, dtype=np.uint8).reshape(3, 4).T[::-1]
    write(tmp_path / "maps", {"a": saliency})
    assert MapReader(tmp_path / "maps").read("a").tolist() == saliency.tolist()


@pytest.mark.parametrize("shape", [(), (3,), (1, 2, 3), (1, 2049)])
def test_what_is_no_map_is_not_written(shape: tuple[int, ...], tmp_path: Path) -> None:
    writer = MapWriter(tmp_path / "maps")
    with pytest.raises(ValueError, match="a map is 2-D with at most 2048 pixels a side"):
        writer.add("a", np.zeros(shape, dtype=np.uint8))
    writer.add("b", np.zeros((1, 1), dtype=np.uint8))
    writer.finish()
    assert list(safetensors.numpy.load_file(tmp_path / "maps")) == ["b"]


def test_the_spool_is_gone_when_the_file_is_finished(tmp_path: Path) -> None:
    write(tmp_path / "maps", {"a": np.zeros((2, 2), dtype=np.uint8)})
    assert [path.name for path in tmp_path.iterdir()] == ["maps"]


def test_maps_are_read_alike_across_a_renewed_mapping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maps, "_REMAP_AFTER_BYTES", 10)
    saliencies: dict[str, Map] = {str(n): np.full((3, 3), n, dtype=np.uint8) for n in range(9)}
    write(tmp_path / "maps", saliencies)
    reader = MapReader(tmp_path / "maps")
    for _ in range(2):
        assert all(same(reader.read(key), saliency) for key, saliency in saliencies.items())


def test_a_file_that_changes_while_it_is_read_is_an_input_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maps, "_REMAP_AFTER_BYTES", 1)
    write(tmp_path / "maps", {"a": np.zeros((2, 2), dtype=np.uint8)})
    reader = MapReader(tmp_path / "maps")
    reader.read("a")
    (tmp_path / "maps").unlink()
    with pytest.raises(SubmissionError, match="cannot be read"):
        reader.read("a")


def test_a_message_of_the_library_is_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "maps"
    path.write_bytes(safetensors_bytes({"a": entry([1, 1], 0, 1, "x" * 10_000)}, bytes(1)))
    with pytest.raises(MapFileError) as raised:
        MapReader(path)
    assert len(str(raised.value)) < 1000


SOUND = safetensors_bytes({"a": entry([2, 2], 0, 4), "b": entry([1, 2], 4, 8, "F16")}, bytes(range(8)))


@settings(fuzz, max_examples=400)
@given(data=mutated_bytes(SOUND))
def test_any_damage_to_a_map_file_is_found_or_harmless(data: bytes, tmp_path: Path) -> None:
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
