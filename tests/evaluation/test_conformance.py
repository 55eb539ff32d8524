"""The `paper` protocol reproduces the outputs of the paper's released code."""

from __future__ import annotations

import json

import numpy as np
import pytest

from medfocus_bench.evaluation.overlap import box_overlap
from medfocus_bench.evaluation.regions import map_to_boxes, rescale_boxes


def test_every_map_gives_the_published_boxes(golden):
    maps = np.load(golden / "heatmaps.npz")
    records = json.loads((golden / "heatmap_boxes.json").read_text())
    runs = 0
    for key, record in records.items():
        values = maps[key]
        if values.dtype == np.uint16:
            values = values.astype(np.float32) / np.float32(4096)
        for run in record["runs"]:
            settings = dict(run["kwargs"])
            settings["quantile"] = settings.pop("q")
            regions = map_to_boxes(values, **settings)
            expected = run["out"]
            assert [list(r.box) for r in regions] == [e["bbox"] for e in expected], (key, settings)
            assert [r.area for r in regions] == [e["area"] for e in expected], (key, settings)
            assert [r.score for r in regions] == pytest.approx([e["score"] for e in expected], abs=1e-12)
            runs += 1
    assert runs == 692


def test_every_box_list_is_rescaled_as_published(golden):
    records = json.loads((golden / "boxes_rescale.json").read_text())
    for record in records:
        rescaled = rescale_boxes(record["bboxes"], record["orig_size"], record["heatmap_size"])
        assert [list(box) for box in rescaled] == record["out"]
    assert len(records) == 105


@pytest.mark.parametrize("kind", ["exclusive", "inclusive"])
def test_every_overlap_is_the_published_one(golden, kind):
    record = json.loads((golden / "box_scores.json").read_text())
    for number, (predicted, expert) in enumerate(zip(record["preds"], record["gts"], strict=True)):
        overlap = box_overlap(predicted, expert, inclusive=kind == "inclusive")
        for name in ("iou", "f1", "precision", "recall"):
            assert getattr(overlap, name) == pytest.approx(record[kind][name][number], abs=1e-12)
    assert number == 259
