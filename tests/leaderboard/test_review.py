"""One review of a submission: read once, scored, its page built before it is accepted."""

from __future__ import annotations

import shutil
from collections import Counter

import numpy as np
import pytest

from medfocus_bench.attribution.attribution import Attribution, Cost
from medfocus_bench.leaderboard.gallery import EACH, KINDS
from medfocus_bench.leaderboard.result import read_results
from medfocus_bench.leaderboard.review.review import preview, review
from medfocus_bench.leaderboard.scoring import score_result
from medfocus_bench.submission import document, reader
from medfocus_bench.submission.maps import MapReader
from medfocus_bench.submission.reader import open_submission
from medfocus_bench.submission.schema import MAX_SCORE
from medfocus_bench.submission.writer import SubmissionWriter

from .flow import STRANGER


def show(board, name, folder=None, result=None):
    folder = folder or board.submissions / name
    return preview(result or board.result(name), open_submission(folder), folder, board.benchmark)


def test_the_page_of_a_submission_is_built_alone(board):
    site = show(board, "hostile")
    assert (site.results, site.pictures) == (1, EACH * len(KINDS))
    assert not site.index.exists(), "it is only to see that it can be built"


def test_a_review_reads_and_parses_the_document_and_hashes_the_maps_once(original, tmp_path, monkeypatch):
    root, benchmark = original
    folder = tmp_path / "submissions" / "blurred"
    shutil.copytree(root / "new" / "blurred", folder)
    seen = Counter()

    def counted(module, name):
        plain = getattr(module, name)

        def call(*given):
            seen[name] += 1
            return plain(*given)

        monkeypatch.setattr(module, name, call)

    counted(document, "read_regular_file")
    counted(reader, "read_regular_file")
    counted(reader, "parse_document")
    counted(MapReader, "sha256")
    committed = read_results(root / "repository" / "leaderboard" / "results")
    found = review(folder, benchmark, committed, author=STRANGER)
    assert found.problems == ()
    assert found.result == score_result(folder, benchmark, verified=True)
    assert (found.row.row.rank, found.row.ranked) == (1, 4)
    # The last line but two scored the folder anew.
    assert seen == {"read_regular_file": 2, "parse_document": 2, "sha256": 2}


EXTREMES = {
    "maps that are infinite": lambda: {"saliency": np.array([[np.inf, -np.inf], [np.nan, 0]], np.float32)},
    "maps as large as they get": lambda: {"saliency": np.array([[3.4e38, -3.4e38]], np.float32)},
    "maps of one pixel": lambda: {"saliency": np.ones((1, 1), np.uint8)},
    "a map without pixels": lambda: {"saliency": np.ones((0, 3), np.uint8)},
    "boxes as small as they get": lambda: {"boxes": [[50, 50, 50 + 1e-9, 50 + 1e-9]]},
    "no boxes": lambda: {"boxes": []},
}


@pytest.mark.parametrize("given", EXTREMES.values(), ids=EXTREMES)
def test_what_the_schema_takes_can_be_shown(board, tmp_path, given):
    folder, part = tmp_path / "extreme", board.benchmark
    method = board.result("oracle").report.method.model_copy(update={"name": "extreme"})
    cost = Cost(10**9, 10**9, 1e7)
    scores = {"tokens": [("a", MAX_SCORE), ("b", -MAX_SCORE)], "concepts": {"x": MAX_SCORE, "y": 5e-324}}
    with SubmissionWriter(folder, method, part, submitters=["Ada"]) as writer:
        for sample in part.samples:
            writer.add(Attribution(sample.sample_id, cost=cost, **scores, **given()))
    result = score_result(folder, part, resamples=50, verified=True)
    assert show(board, "extreme", folder, result).pictures == EACH * len(KINDS)
