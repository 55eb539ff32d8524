"""Faithfulness in the results of the leaderboard."""

from __future__ import annotations

import pytest

from medfocus_bench.data.writing import write_benchmark
from medfocus_bench.leaderboard.faithfulness import keeping_faithfulness
from medfocus_bench.leaderboard.result import read_result

from ..cli.running import run
from ..runs.conftest import track_rows


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory):
    """The words of a rebuild of one null control, after one with faithfulness, and the file of its result."""
    place = tmp_path_factory.mktemp("board")
    rows = [row for row in track_rows("direct") if row["group"] == "grounded"][:4]
    benchmark = write_benchmark(place / "bench", {"direct": rows}, name="four", version="1")
    (place / "submissions").mkdir()
    words = ("leaderboard", "rebuild", "-b", benchmark.folder, "--submissions", place / "submissions")
    words += ("--results", place / "results", "--only", "null-image-edges", "--workers", 1)
    status, shown, _ = run(*words, "--faithfulness", "--samples", 2)
    assert status == 0, shown
    assert "null-image-edges: faithfulness " in shown
    assert (place / "results.work" / "null-image-edges" / "faithfulness.json").exists()
    return words, place / "results" / "null-image-edges.json"


def test_a_rebuild_measures_it_and_a_later_one_keeps_it(rebuilt):
    words, file = rebuilt
    found = read_result(file).report.faithfulness
    assert found.samples == 2
    before = file.read_bytes()
    assert run(*words, "--force")[0] == 0
    assert file.read_bytes() == before
    assert run(*words, "--check")[0] == 0


def test_it_is_dropped_with_another_submission_benchmark_or_evaluator(rebuilt):
    committed = read_result(rebuilt[1])
    report = committed.report
    bare = committed.model_copy(update={"report": report.model_copy(update={"faithfulness": None})})

    def kept(**changes):
        other = bare.report.model_copy(update=changes)
        result = bare.model_copy(update={"report": other})
        return keeping_faithfulness(result, committed).report.faithfulness is not None

    assert kept()
    provenance = report.provenance
    assert not kept(provenance=provenance.model_copy(update={"evaluator_version": "0"}))
    assert not kept(benchmark=report.benchmark.model_copy(update={"fingerprint": "0" * 64}))
    changed = provenance.model_copy(update={"submission_sha256": "0" * 64})
    assert kept(provenance=changed)  # a null control makes its maps anew each time
    method = report.method.model_copy(update={"family": "other"})
    assert not kept(provenance=changed, method=method)
    assert keeping_faithfulness(bare, None) is bare
