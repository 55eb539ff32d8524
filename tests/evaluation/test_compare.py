"""Paired comparisons."""

from __future__ import annotations

import json

import numpy as np
import pytest

from medfocus_bench import compare, evaluate, write_benchmark
from medfocus_bench.errors import InputError
from medfocus_bench.geometry import Frame

from ..conftest import make_row, write_submission

QUICK = {"resamples": 500}


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    corners = np.random.default_rng(0).integers(10, 100, (16, 2)).tolist()
    rows = [make_row(n, boxes=[[x, y, x + 60, y + 60]]) for n, (x, y) in enumerate(corners)]
    folder = tmp_path_factory.mktemp("data") / "bench"
    return write_benchmark(folder, {"direct": rows}, name="bench", version="1.0.0")


@pytest.fixture(scope="module")
def submissions(benchmark, tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("submissions"), np.random.default_rng(1)

    def noisy(amount):
        def explain(sample):
            frame = Frame(sample.width, sample.height)
            return frame.embed(frame.coverage(sample.boxes)) + amount * rng.random((224, 224))

        return explain

    amounts = {"little": 1.2, "again": 1.2, "much": 5}
    return [write_submission(folder / name, benchmark, noisy(n)) for name, n in amounts.items()]


@pytest.fixture(scope="module")
def comparison(benchmark, submissions):
    return compare(submissions, benchmark, metrics=["evidence_ap", "auroc"], **QUICK)


@pytest.fixture(scope="module")
def report(benchmark, submissions):
    """Of the first of the submissions."""
    return evaluate(submissions[0], benchmark, nulls=False, **QUICK)


def test_differences_are_those_of_the_reports(benchmark, submissions, comparison, report):
    other = evaluate(submissions[2], benchmark, nulls=False, **QUICK)
    assert len(comparison.differences) == 3 * 2
    entry = comparison.differences[2]
    assert (entry.first, entry.second, entry.metric) == ("probe (little)", "probe (much)", "evidence_ap")
    expected = report.headline["evidence_ap"].mean - other.headline["evidence_ap"].mean
    assert entry.difference.mean == pytest.approx(expected)


def labels(comparison):
    return [comparison.differences[0].first, *(entry.second for entry in comparison.differences)][:2]


def test_methods_that_share_their_name_and_the_name_of_their_folder_are_told_apart_by_path(
    benchmark, tmp_path, monkeypatch
):
    paths = [tmp_path / "ada" / "mine", tmp_path / "bob" / "mine"]
    for path in paths:
        write_submission(path, benchmark, lambda sample: sample.boxes, "boxes")
    assert labels(compare(paths, benchmark, **QUICK)) == [f"probe ({path})" for path in paths]
    monkeypatch.chdir(tmp_path)
    given = ["ada/mine", "bob/mine/submission.json"]
    assert labels(compare(given, benchmark, **QUICK)) == [f"probe ({path})" for path in given]


def test_methods_whose_folders_cannot_be_printed_are_told_apart_by_number(benchmark, tmp_path):
    paths = [tmp_path / "a\n", tmp_path / ("b" * 200) / ("b" * 200)]
    for path in paths:
        write_submission(path, benchmark, lambda sample: sample.boxes, "boxes")
    assert labels(compare([paths[0], paths[0]], benchmark, **QUICK)) == ["probe (1)", "probe (2)"]
    assert labels(compare([paths[1], paths[1]], benchmark, **QUICK)) == ["probe (1)", "probe (2)"]


def test_metrics_are_known_by_name_and_by_label_in_any_case(benchmark):
    pair = ["null:centre-box", "null:whole-image"]
    comparison = compare(pair, benchmark, metrics=["IoU", "iou", "LIFT", "evidence ap"], **QUICK)
    assert [entry.metric for entry in comparison.differences] == ["iou", "precision_lift", "evidence_ap"]


def test_a_clear_difference_is_found_and_a_copy_is_not(benchmark, submissions):
    clear, copy = (
        compare([submissions[0], other], benchmark, **QUICK).differences[0]
        for other in (submissions[2], submissions[0])
    )
    assert clear.difference.low > 0
    assert clear.p_value <= 0.01
    assert (copy.difference.mean, copy.difference.low, copy.p_value) == (0, 0, 1)


def test_the_p_value_is_that_of_the_macro_mean(make_benchmark, tmp_path):
    """Each method explains one LVLM's samples and no other's, of which one LVLM has ten times as many."""
    asked = ["many"] * 20 + ["few"] * 2
    benchmark = make_benchmark(make_row(number, lvlm=lvlm) for number, lvlm in enumerate(asked))
    paths = [
        write_submission(
            tmp_path / own,
            benchmark,
            lambda sample, own=own: sample.boxes if sample.lvlm == own else None,
            "boxes",
        )
        for own in ("many", "few")
    ]
    (found,) = compare(paths, benchmark, **QUICK).differences
    assert found.difference.mean == pytest.approx(0)
    assert found.p_value == 1


def test_holm_runs_over_every_test_of_the_call(comparison):
    smallest = min(comparison.differences, key=lambda entry: entry.p_value)
    assert smallest.p_holm == pytest.approx(min(1, 6 * smallest.p_value))


def test_null_controls_can_be_compared_with(benchmark, submissions, report):
    comparison = compare([submissions[0], "null:whole-image", "null:centre-box"], benchmark, **QUICK)
    assert comparison.differences[0].second == "null:whole-image"
    assert comparison.differences[0].difference.mean == pytest.approx(report.headline["evidence_ap"].mean)


@pytest.mark.parametrize(
    ("entries", "settings", "reason"),
    [
        (["null:whole-image"], {}, "two"),
        (["null:whole-image", "null:nothing"], {}, "no null control"),
        (["null:whole-image", "null:centre-box"], {"metrics": ["beauty"]}, "no score"),
        (["null:whole-image", "null:centre-box"], {"metrics": ["auroc"], "protocol": "paper"}, "no score"),
    ],
)
def test_impossible_comparisons_are_refused(benchmark, entries, settings, reason):
    with pytest.raises(InputError, match=reason):
        compare(entries, benchmark, **settings)


def test_submissions_to_different_parts_are_not_compared(tmp_path):
    rows = [make_row(n) for n in range(4)]
    dev = [row | {"sample_id": row["sample_id"] + "-dev"} for row in rows]
    whole = write_benchmark(tmp_path / "b", {"direct": rows, "dev": dev}, name="b", version="1")
    first, second = (
        write_submission(tmp_path / split, whole.select(["phantom"], [split]), lambda s: s.boxes, "boxes")
        for split in ("direct", "dev")
    )
    with pytest.raises(InputError, match="same part"):
        compare([first, second], whole, **QUICK)


def test_submissions_that_declare_the_same_part_are_compared_where_a_config_lacks_a_split(tmp_path):
    """The part then has other configs and splits than were declared of it."""
    other = make_row(1, source="other", sample_id="other-1", mode="reasoning")
    rows = {"direct": [make_row(0)], "reasoning": [other]}
    whole = write_benchmark(tmp_path / "b", rows, name="b", version="1")
    folders = []
    for name in ("first", "second"):
        folder = write_submission(tmp_path / name, whole.select(["phantom"], ["direct"]), lambda s: None)
        document = json.loads((folder / "submission.json").read_text())
        document["benchmark"] |= {"configs": ["phantom", "other"], "splits": ["direct"]}
        (folder / "submission.json").write_text(json.dumps(document))
        folders.append(folder)
    assert compare(folders, whole, **QUICK).benchmark.configs == ["phantom"]
