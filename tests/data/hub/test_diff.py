"""The differences of two versions, and the message about a submission to another one."""

from __future__ import annotations

import pytest

from medfocus_bench import evaluate
from medfocus_bench.data.hub.diff import difference
from medfocus_bench.data.hub.publish import export
from medfocus_bench.data.hub.repository import DATASET
from medfocus_bench.data.resolve import load_benchmark
from medfocus_bench.data.writing import write_benchmark
from medfocus_bench.errors import BenchmarkError, OfflineWarning, SubmissionError

from ...conftest import write_submission
from .conftest import publish
from .embedded import VERSION
from .rows import open_row, picture, small_splits, write_pointers


def whole(sample):
    return [[0.0, 0.0, float(sample.width), float(sample.height)]]


@pytest.fixture
def newer(tmp_path):
    """1.1.0: row 0 is gone, row 1 has another box and picture, row 2 other log-odds, row 3 is in dev."""
    splits = small_splits()
    splits["direct"] = [
        open_row(1, boxes=[[4.0, 5.0, 20.0, 22.0]], image={"bytes": picture(77), "path": None}),
        open_row(2, log_odds_sham=9.0),
        *splits["direct"][4:],
    ]
    splits["reasoning"][1] |= {"boxes": [[4.0, 5.0, 20.0, 22.0]]}
    splits["dev"] += [open_row(3), open_row(9)]
    write_benchmark(tmp_path / "newer", splits, name=DATASET, version="1.1.0")
    return tmp_path / "newer"


def test_samples_and_columns_that_differ_are_named(plain, newer):
    found = difference(plain, newer)
    assert found.added == ("phantom-00009-phantom_qwen-direct",)
    assert found.removed == ("phantom-00000-phantom_qwen-direct",)
    assert found.changed == {
        "phantom-00001-phantom_qwen-direct": ("boxes", "image"),
        "phantom-00001-phantom_qwen-reasoning": ("boxes",),
        "phantom-00003-phantom_qwen-direct": ("split",),
    }
    assert found.unchanged == 10
    assert str(found) == "samples: 1 added, 1 removed, 3 changed (boxes, image, split)"


def test_log_odds_files_and_labels_make_no_difference(plain, small):
    assert not difference(plain, small / "phantom")
    assert not difference(small / "phantom", plain)


def test_pointers_and_whole_repositories_are_compared_too(tmp_path, small):
    pointers = write_pointers(tmp_path / "pointers")
    found = difference(pointers, small)
    assert not found.removed
    assert not found.changed
    assert {name.split("-")[0] for name in found.added} == {"phantom"}


def test_what_is_no_benchmark_is_said(tmp_path):
    with pytest.raises(BenchmarkError, match="is neither a folder nor a benchmark"):
        difference("phantom", tmp_path / "none")


def test_versions_on_the_hub_are_compared_by_name(hub, small, newer, tmp_path):
    publish(hub, small)
    export(tmp_path / "out", newer)
    publish(hub, tmp_path / "out")
    assert len(difference(f"{DATASET}@v1.0.0", f"{DATASET}@v1.1.0").changed) == 3


def test_a_submission_to_another_version_is_told_which_samples_differ(hub, small, newer, tmp_path):
    """The other version is in the cache of the Hub."""
    publish(hub, small)
    old = load_benchmark(f"{DATASET}@v1.0.0")
    folder = write_submission(tmp_path / "submission", old, whole, kind="boxes")
    with pytest.raises(SubmissionError) as raised:
        evaluate(folder, newer, nulls=False, resamples=50)
    said = str(raised.value)
    assert "/benchmark/fingerprint: made for version 1.0.0 (" in said
    assert "this benchmark is version 1.1.0 (" in said
    assert "samples: 1 added, 1 removed, 3 changed (boxes, image, split); run the method again" in said


def test_a_submission_to_the_embedded_version_is_told_which_samples_differ(newer, tmp_path, hf_home):
    """The embedded track, named by its folder, is compared: it stands in for nothing there."""
    old = load_benchmark("phantom")
    folder = write_submission(tmp_path / "submission", old.select(["phantom"], ["dev"]), whole, kind="boxes")
    with pytest.raises(SubmissionError, match=r"samples: 0 added, 2626 removed, 14 changed"):
        evaluate(folder, newer, nulls=False, resamples=50)


def test_a_submission_to_a_version_that_is_not_at_hand_is_told_what_it_lacks(newer, plain, tmp_path, hf_home):
    old = load_benchmark(plain)
    folder = write_submission(tmp_path / "submission", old, whole, kind="boxes")
    with pytest.raises(SubmissionError, match=r"1 of its \d+ samples are not in this one; run"):
        evaluate(folder, newer, nulls=False, resamples=50)


def test_a_submission_to_another_version_is_scored_when_told_and_the_report_names_the_new_one(
    newer, plain, tmp_path
):
    older = load_benchmark(plain)
    part = older.select(["phantom"], ["reasoning"])
    folder = write_submission(tmp_path / "submission", part, whole, "boxes")
    report = evaluate(folder, newer, nulls=False, resamples=50, any_version=True)
    assert report.benchmark.version == "1.1.0"
    assert report.benchmark.fingerprint == load_benchmark(newer).fingerprint != older.fingerprint


def test_a_report_does_not_tell_where_the_benchmark_came_from(hub, plain, small, tmp_path):
    """On the Hub, in the folder of an export, or plain: the same name, version and fingerprint."""
    publish(hub, small)
    folder = write_submission(tmp_path / "submission", load_benchmark(plain), whole, "boxes")
    reports = [evaluate(folder, name, nulls=False, resamples=50) for name in (plain, DATASET, small)]
    assert reports[0] == reports[1] == reports[2]
    assert reports[0].benchmark.dataset == DATASET


def test_offline_nothing_is_compared_with_a_stand_in(no_hub):
    with (
        pytest.warns(OfflineWarning, match="the embedded version"),
        pytest.raises(BenchmarkError, match="the Hub cannot be reached"),
    ):
        difference("phantom", f"{DATASET}@v{VERSION}")
