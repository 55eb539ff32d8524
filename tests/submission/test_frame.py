"""Maps over the picture as it was before it was padded."""

from __future__ import annotations

import json

import numpy as np
import pytest

from medfocus_bench import Attribution, SubmissionWriter, validate
from medfocus_bench.data.writing import write_benchmark
from medfocus_bench.errors import SubmissionError
from medfocus_bench.evaluation.evaluate import evaluate
from medfocus_bench.geometry import Frame
from medfocus_bench.submission.reader import open_submission

from ..conftest import METHOD, make_row

SIZES = ((224, 120), (120, 224), (224, 224), (500, 30))


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Pictures that are wide, tall, square and a strip, each with its evidence off the centre."""
    rows = [
        make_row(n, width=w, height=h, boxes=[[w * 0.1, h * 0.1, w * 0.4, h * 0.6]])
        for n, (w, h) in enumerate(SIZES)
    ]
    folder = tmp_path_factory.mktemp("data") / "bench"
    return write_benchmark(folder, {"direct": rows}, name="bench", version="1.0.0")


def maps_of_the_image(bench):
    """Noise with a bump where the evidence is, of a few cells."""
    rng = np.random.default_rng(3)
    maps = {}
    for sample in bench.samples:
        saliency = rng.random((12, 10)).astype(np.float32)
        saliency[2:6, 1:4] += 1
        maps[sample.sample_id] = saliency
    return maps


def scores(folder, bench, protocol):
    report = evaluate(folder, bench, nulls=False, resamples=20, protocol=protocol)
    return [{name: score.mean for name, score in part.scores.items()} for part in report.slices]


@pytest.mark.parametrize("said", ["by the writer", "by each attribution"])
def test_maps_over_the_picture_score_as_the_same_ones_in_the_model_frame(said, bench, tmp_path):
    """On pictures that are not square, where a map that is taken for the other kind is stretched."""
    options = {"frame": "image"} if said == "by the writer" else {}
    own = {"frame": "image"} if said == "by each attribution" else {}
    with (
        SubmissionWriter(tmp_path / "image", METHOD, bench, submitters="Ada", **options) as image,
        SubmissionWriter(tmp_path / "model", METHOD, bench, submitters="Ada") as model,
        SubmissionWriter(tmp_path / "wrong", METHOD, bench, submitters="Ada") as wrong,
    ):
        for sample in bench.samples:
            saliency = maps_of_the_image(bench)[sample.sample_id]
            image.add(Attribution(sample.sample_id, saliency=saliency, **own))
            embedded = Frame(sample.width, sample.height).embed(saliency)
            model.add(Attribution(sample.sample_id, saliency=embedded))
            wrong.add(Attribution(sample.sample_id, saliency=saliency))
    assert json.loads((tmp_path / "image" / "submission.json").read_text())["maps"]["frame"] == "image"
    assert json.loads((tmp_path / "model" / "submission.json").read_text())["maps"]["frame"] == "model"
    assert validate(tmp_path / "image", bench) == []
    for protocol in ("standard", "paper"):
        ours, embedded, wrong = (
            scores(tmp_path / name, bench, protocol) for name in ("image", "model", "wrong")
        )
        for one, same in zip(ours, embedded, strict=True):
            assert one == pytest.approx(same, abs=1e-8)  # the embedded map was rounded to float32
        assert ours[0] != pytest.approx(wrong[0], abs=1e-3)


def test_padding_gets_nothing(bench):
    wide = bench.samples[0]
    frame = Frame(wide.width, wide.height)
    embedded = Attribution(wide.sample_id, saliency=np.ones((3, 5)), frame="image").in_model_frame(frame)
    assert (embedded.frame, embedded.saliency.shape) == ("model", (224, 224))
    left, top, right, bottom = frame.content
    assert (embedded.saliency[top:bottom, left:right] == 1).all()
    assert embedded.saliency.sum() == (bottom - top) * (right - left)
    assert embedded.in_model_frame(frame) is embedded
    boxes = Attribution(wide.sample_id, boxes=[[0, 0, 9, 9]], frame="image")
    assert boxes.in_model_frame(frame) is boxes


def test_what_explains_nothing_over_the_picture_explains_nothing(bench, tmp_path):
    nothing = (np.zeros((0, 3)), np.ones((3, 3)), np.full((2, 2), np.nan), np.zeros((2, 2)))
    with SubmissionWriter(tmp_path / "s", METHOD, bench, submitters="Ada", frame="image") as writer:
        for sample, saliency in zip(bench.samples, nothing, strict=True):
            writer.add(Attribution(sample.sample_id, saliency=saliency))
    report = evaluate(tmp_path / "s", bench, nulls=False, resamples=20)
    assert report.counts.no_explanation == len(SIZES)


def test_the_maps_of_one_submission_cover_the_same(bench, tmp_path):
    first, second, *_ = bench.samples
    with SubmissionWriter(tmp_path / "s", METHOD, bench, submitters="Ada") as writer:
        writer.add(Attribution(first.sample_id, saliency=np.eye(3), frame="image"))
        with pytest.raises(SubmissionError, match=f"{second.sample_id}: its map covers the model frame"):
            writer.add(Attribution(second.sample_id, saliency=np.eye(3)))
        writer.add(Attribution(second.sample_id, boxes=[[1, 2, 3, 4]]))
    read = open_submission(tmp_path / "s", bench)
    assert [found.frame for found in read] == ["image", "model"]


@pytest.mark.parametrize("frame", ["picture", "", None])
def test_another_word_is_refused_before_the_first_map(frame, bench, tmp_path):
    with pytest.raises(SubmissionError, match="/maps/frame: should be 'model' or 'image'"):
        SubmissionWriter(tmp_path / "s", METHOD, bench, submitters="Ada", frame=frame)
