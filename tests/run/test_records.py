"""Maps and lines on disk."""

from __future__ import annotations

import numpy as np
import pytest

from medfocus_bench.errors import InputError
from medfocus_bench.run.records import RecordFiles, RecordWriter, as_stored
from medfocus_bench.submission.schema import AttributionEntry


def write(folder, count=3):
    files = RecordFiles.of(folder, "some/lvlm", "direct")
    rng = np.random.default_rng(0)
    maps = [rng.random((3, 4 + n)).astype(dtype) for n, dtype in zip(range(count), "fef", strict=False)]
    with RecordWriter(files) as writer:
        for number, saliency in enumerate(maps):
            writer.add(AttributionEntry(sample_id=f"s{number}", map=True), saliency, {})
    return files, maps


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
        assert writer.held == {"s0", "s1"}
        writer.add(AttributionEntry(sample_id="s2", map=True), np.ones((1, 1), np.float32), {})
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
    with pytest.raises(InputError, match=r"some_lvlm-direct\.jsonl: line 2 is no record"):
        files.read()


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


@pytest.mark.parametrize("saliency", [np.zeros((0, 0)), np.zeros((2, 2)), np.ones((1, 1), bool)])
def test_maps_that_say_nothing_are_stored_too(saliency):
    assert as_stored(saliency).shape == saliency.shape


@pytest.mark.parametrize(
    "saliency", [np.zeros((1, 3000)), np.zeros(3), np.array([["a"]]), np.ones((1, 1)) * 1j]
)
def test_what_no_submission_can_hold_is_refused(saliency):
    with pytest.raises(ValueError, match="a map"):
        as_stored(saliency)
