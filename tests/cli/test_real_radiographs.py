"""The main job on real pictures: two NIH radiographs as a benchmark, scored by the command that users run."""

from __future__ import annotations

import csv
import gzip
import json
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from medfocus_bench import Attribution, SubmissionWriter, write_benchmark
from medfocus_bench.geometry import Frame

from ..conftest import METHOD, make_row
from .running import run

DRAWN = {
    "00000001_000.png": ("cardiomegaly", [[196, 236, 372, 402]]),
    "00027426_000.png": ("effusion", [[60, 300, 180, 430], [330, 320, 440, 430]]),
}
"""Expert-style boxes in native pixels, for a picture that the NIH list has none of."""

NIH_SIDE = 1024


def nih_boxes(folder, name, width):
    """The boxes of a picture in the NIH list (x, y, w, h on 1024 pixels), in pixels of `width`."""
    with gzip.open(folder / "BBox_List_2017.csv.gz", "rt", newline="") as file:
        rows = [row for row in csv.reader(file) if row[0] == name]
    scale = width / NIH_SIDE
    corners = [tuple(map(float, row[2:6])) for row in rows]
    return [[x * scale, y * scale, (x + w) * scale, (y + h) * scale] for x, y, w, h in corners]


@pytest.fixture
def benchmark(real_data, tmp_path):
    folder, rows = real_data / "cxr", []
    for number, (name, (finding, drawn)) in enumerate(DRAWN.items()):
        data = (folder / name).read_bytes()
        width, height = Image.open(BytesIO(data)).size
        rows.append(
            make_row(
                number,
                width=width,
                height=height,
                boxes=nih_boxes(folder, name, width) or drawn,
                finding=finding,
                patient_id=name[:8],
                image={"bytes": data, "path": name},
            )
        )
    return write_benchmark(tmp_path / "nih", {"direct": rows}, name="nih", version="1")


def test_a_saliency_of_the_pictures_is_scored_between_the_nulls_and_the_experts(benchmark, tmp_path):
    rng = np.random.default_rng(0)
    with SubmissionWriter(tmp_path / "near", METHOD, benchmark, submitters=["tests"]) as writer:
        for sample in benchmark.samples:
            frame = Frame(sample.width, sample.height)
            blurred = np.roll(ndimage.gaussian_filter(frame.coverage(sample.boxes), 8), 20, axis=1)
            saliency = frame.embed(blurred + 0.2 * rng.random(blurred.shape)).astype(np.float16)
            writer.add(Attribution(sample.sample_id, saliency=saliency))
    out = tmp_path / "report.json"
    status, shown, _ = run(
        "evaluate", tmp_path / "near" / "submission.json", "-b", benchmark.folder, "--out", out
    )
    assert status == 0
    assert "Evidence AP" in shown
    report = json.loads(out.read_text())
    headline = report["slices"][0]["scores"]["evidence_ap"]["mean"]
    nulls = {null["name"]: null["slices"][0]["scores"] for null in report["nulls"] if null["slices"]}
    assert nulls.keys() >= {"whole-image", "image-edges", "random-map", "mean-map"}
    assert max(scores["evidence_ap"]["mean"] for scores in nulls.values()) < headline < 1
    assert set(report["counts"].values()) == {0, 2}
    assert report["counts"]["attributed"] == report["counts"]["patients"] == 2
