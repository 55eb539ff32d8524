"""What is scored can be shown: the page of a submission is built before it is taken."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from medfocus_bench.attribution.attribution import Attribution, Cost
from medfocus_bench.errors import InputError
from medfocus_bench.leaderboard.gallery import EACH, KINDS
from medfocus_bench.leaderboard.review.preview import preview
from medfocus_bench.leaderboard.scoring import score_result
from medfocus_bench.submission.schema import MAX_SCORE
from medfocus_bench.submission.writer import SubmissionWriter

from .conftest import ENTRIES
from .flow import edit


@pytest.mark.parametrize("name", ["oracle", "noisy-a", "hostile"])
def test_the_page_of_a_submission_is_built_alone(board, name):
    assert name in ENTRIES
    site = preview(board.result(name), board.submissions / name, board.benchmark)
    assert (site.results, site.pictures) == (1, EACH * len(KINDS))
    assert not site.index.exists(), "it is only to see that it can be built"


def test_the_page_of_a_folder_that_was_not_scored_is_not_built(board, tmp_path):
    folder = tmp_path / "oracle"
    shutil.copytree(board.submissions / "oracle", folder)
    edit(folder, lambda document: document["method"].update(version="2"))
    with pytest.raises(InputError, match="is not what was scored as oracle"):
        preview(board.result("oracle"), folder, board.benchmark)


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
    assert preview(result, folder, part).pictures == EACH * len(KINDS)
