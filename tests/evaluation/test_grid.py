"""The grid of a submission's maps and what it can reach."""

from __future__ import annotations

import numpy as np
import pytest

import medfocus_bench as mb
from medfocus_bench import Attribution, evaluate
from medfocus_bench.evaluation.evidence import Evidence, evidence_of
from medfocus_bench.evaluation.grid import GridTally, ceiling
from medfocus_bench.evaluation.metrics.registry import headline
from medfocus_bench.evaluation.score import score

from ..conftest import make_row, write_submission


def averaged(mask, rows, columns):
    """Means of a mask (224, 224) over cells of equal size."""
    height, width = 224 // rows, 224 // columns
    return mask.reshape(rows, height, columns, width).mean((1, 3))


@pytest.mark.parametrize("grid", [(8, 8), (16, 16), (7, 28), (224, 224)])
def test_the_ceiling_is_the_score_of_the_averaged_mask(grid):
    for sample in mb.load_benchmark("phantom", split="dev").samples[::120]:
        oracle = Attribution(sample.sample_id, saliency=averaged(sample.mask.astype(float), *grid))
        scores = score(oracle, sample, names=[headline().name])
        assert ceiling(evidence_of(sample), *grid) == pytest.approx(scores["evidence_ap"], abs=1e-9)


def test_a_coarse_grid_cannot_reach_what_a_fine_one_can():
    evidence = Evidence.of(512, 400, [[200, 150, 240, 180]])
    ceilings = [ceiling(evidence, side, side) for side in (2, 4, 16, 64)]
    assert ceilings == sorted(ceilings)
    assert ceilings[0] < 0.3
    assert ceilings[-1] > 0.99
    assert ceiling(evidence, 16, 16, "image") > 0.99


def test_a_report_tells_the_most_common_grid_and_the_mean_ceiling(make_benchmark, tmp_path):
    benchmark = make_benchmark([make_row(number, boxes=[[30, 20, 60, 50]]) for number in range(5)])
    rng = np.random.default_rng(0)
    shapes = {0: (16, 16), 1: (4, 4), 2: (16, 16)}

    def said(sample):
        return rng.random(shapes[sample.index]) if sample.index in shapes else None

    folder = write_submission(tmp_path / "s", benchmark, said)
    grid = evaluate(folder, benchmark, nulls=False, resamples=20).grid
    assert (grid.rows, grid.columns, grid.resolutions) == (16, 16, 2)
    evidence = evidence_of(benchmark.samples[0])
    fine, coarse = ceiling(evidence, 16, 16), ceiling(evidence, 4, 4)
    assert fine > coarse + 0.1
    assert grid.ceiling == pytest.approx((2 * fine + coarse) / 3)


def test_boxes_have_no_grid(make_benchmark, tmp_path):
    benchmark = make_benchmark([make_row(0)])
    folder = write_submission(tmp_path / "s", benchmark, lambda sample: sample.boxes, "boxes")
    assert evaluate(folder, benchmark, nulls=False, resamples=20).grid is None
    assert GridTally().grid() is None
