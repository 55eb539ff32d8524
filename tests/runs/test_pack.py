"""From records to a submission that validates and is scored."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from medfocus_bench.data.resolve import load_benchmark
from medfocus_bench.data.writing import write_benchmark
from medfocus_bench.errors import InputError
from medfocus_bench.evaluation.evaluate import evaluate
from medfocus_bench.lvlm.registry import load_lvlm
from medfocus_bench.runs.attribute import attribute
from medfocus_bench.runs.methods import choose_methods, with_tuning
from medfocus_bench.runs.pack import pack
from medfocus_bench.runs.records import RecordFiles
from medfocus_bench.runs.run import is_run, open_run
from medfocus_bench.runs.settings import write_document
from medfocus_bench.runs.tune import tune
from medfocus_bench.runs.tuning import open_tuning
from medfocus_bench.submission.reader import open_submission, validate

from .conftest import first_rows
from .methods import HERE

COUNTING, REFUSING, SIDED, FINE, OVER = (
    f"{HERE}:{name}" for name in ("Counting", "Refusing", "Sided", "Fine", "OverThePicture")
)


def run(small, out, *names, **options):
    attribute(choose_methods(names), small, out, **({"splits": ["direct"]} | options))
    return out


def test_a_complete_run_becomes_a_submission_that_validates_and_scores(small, tmp_path):
    packed = pack([run(small, tmp_path / "run", COUNTING)], tmp_path / "s", submitters=["Ada"])
    assert (packed.samples, packed.attributed, packed.explained, packed.failed) == (6, 6, 6, 0)
    assert packed.diagnostics == {"completeness": (0.5, 6)}
    assert validate(tmp_path / "s", small) == []
    document = json.loads((tmp_path / "s" / "submission.json").read_text())
    assert document["method"] == {
        "name": "counting",
        "display_name": "Counting",
        "family": "other",
        "version": "0.1.0",
        "description": "The picture, in blocks.",
        "needs": [],
        "hyperparameters": {
            "scale": 1.0,
            "run: target": "response",
            "run: seed": 0,
            "run: dtype": "float32",
            "run: framing": "square",
            "run: decoding": "greedy",
        },
        "tuned_on_dev": False,
    }
    assert document["submitters"] == [{"name": "Ada"}]
    assert document["benchmark"]["splits"] == ["direct"]
    report = evaluate(tmp_path / "s", small, nulls=False, resamples=100)
    assert report.counts.coverage == 1
    assert report.cost.forward_passes == 0
    run_itself = evaluate(open_run(tmp_path / "run"), small, nulls=False, resamples=100)
    assert (run_itself.slices, run_itself.counts) == (report.slices, report.counts)
    assert run_itself.cost.seconds == pytest.approx(report.cost.seconds)  # summed in another order
    assert run_itself.method.title == "Counting"


def test_a_run_of_several_methods_is_evaluated_method_by_method(small, tmp_path):
    run(small, tmp_path / "run", COUNTING, "centre-box")
    with pytest.raises(InputError, match="choose one with --method"):
        open_run(tmp_path / "run")
    report = evaluate(open_run(tmp_path / "run" / "null-centre-box"), small, nulls=False, resamples=100)
    assert report.method.name == "null-centre-box"


def test_maps_of_pixels_are_averaged_and_small_ones_are_stored_as_they_are(small, tmp_path):
    out = run(small, tmp_path / "run", FINE, COUNTING)
    assert pack([out], tmp_path / "small", method="counting").thinning is None
    packed = pack([out], tmp_path / "s", method="fine")
    assert (packed.thinning.maps, packed.thinning.measured) == (6, 6)
    submission = open_submission(tmp_path / "s", small)
    report = evaluate(tmp_path / "s", small, nulls=False, resamples=100)
    pooled = next(part for part in report.slices if part.kind == "pooled")
    assert packed.thinning.after == pytest.approx(pooled.scores["evidence_ap"].mean)
    files = RecordFiles.of(out / "fine", "phantom_gemma", "direct")
    for record in files.read():
        stored = submission.attribution(record.entry.sample_id).saliency
        made = files.attribution(record).saliency
        assert (made.shape, made.dtype) == ((224, 224), np.float32)
        assert (stored.shape, stored.dtype) == ((64, 64), np.float16)
        assert np.abs(stored).max() == 1


def test_the_maps_of_a_run_are_kept_where_that_is_asked_for(small, tmp_path):
    out = run(small, tmp_path / "run", FINE)
    assert pack([out], tmp_path / "s", keep=True).thinning is None
    submission = open_submission(tmp_path / "s", small)
    files = RecordFiles.of(out / "fine", "phantom_gemma", "direct")
    for record in files.read():
        made = files.attribution(record)
        packed = submission.attribution(record.entry.sample_id)
        np.testing.assert_array_equal(packed.saliency, made.saliency)
        assert (packed.tokens, packed.concepts) == (made.tokens, made.concepts)


def test_a_run_says_what_its_maps_cover_and_the_submission_repeats_it(tmp_path):
    """On a picture that is not square, a method scores the same over the picture and over the model frame."""
    bench = write_benchmark(tmp_path / "bench", {"direct": tall_rows()}, name="tall", version="1")
    out = tmp_path / "run"
    for embedded, name in ((False, "image"), (True, "model")):
        methods = choose_methods([OVER], [f"embedded={'true' if embedded else 'false'}"])
        attribute(methods, bench, out / name, splits=["direct"])
        files = RecordFiles.of(out / name / "over-the-picture", "phantom_qwen", "direct")
        assert [record.map.frame for record in files.read()] == [name] * 2
        pack([out / name], tmp_path / name, keep=True)
        assert open_submission(tmp_path / name).document.maps.frame == name
    image, model = (
        evaluate(tmp_path / name, bench, nulls=False, resamples=20).slices for name in ("image", "model")
    )
    assert [part.scores for part in image] == [part.scores for part in model]
    assert image[0].scores["evidence_ap"].mean != 0


def tall_rows():
    """Two rows of the track, their pictures cut to the left half."""
    rows = [row for row in first_rows("direct") if row["lvlm"] == "phantom_qwen"][:2]
    for row in rows:
        width = row["width"] * 3 // 4
        picture = Image.open(io.BytesIO(row["image"]["bytes"])).crop((0, 0, width, row["height"]))
        stored = io.BytesIO()
        picture.save(stored, "PNG")
        row |= {"image": {"bytes": stored.getvalue(), "path": None}, "width": width, "anatomy": None}
        row["boxes"] = [[5.0, 10.0, 60.0, 90.0]]
    return rows


def test_an_incomplete_run_is_packed_only_when_that_is_asked_for(small, tmp_path):
    out = run(small, tmp_path / "run", COUNTING, lvlms=["phantom_qwen"], limit=3)
    with pytest.raises(
        InputError, match=r"3 of 6 samples are missing \(phantom_qwen direct 1, phantom_gemma d"
    ):
        pack([out], tmp_path / "s")
    assert not (tmp_path / "s").exists()
    assert pack([out], tmp_path / "s", partial=True).attributed == 3
    assert validate(tmp_path / "s", small) == []


def test_failures_are_missing_samples_with_a_reason(small, tmp_path):
    out = run(small, tmp_path / "run", REFUSING, lvlms=["phantom_qwen"])
    with pytest.raises(InputError, match="3 failed, the first with: not of my kind"):
        pack([out], tmp_path / "s")
    packed = pack([out], tmp_path / "s", partial=True)
    assert (packed.attributed, packed.failed, packed.samples) == (1, 3, 6)
    with pytest.raises(InputError, match="exists already"):
        pack([out], tmp_path / "s", partial=True)
    pack([out], tmp_path / "s", partial=True, overwrite=True)


def test_runs_of_several_lvlms_are_packed_together(small, tmp_path):
    outs = [
        run(small, tmp_path / key, COUNTING, lvlms=[key], splits=["direct", "dev"])
        for key in ("phantom_qwen", "phantom_gemma")
    ]
    packed = pack(outs, tmp_path / "s")
    assert packed.attributed == packed.samples == 11
    assert packed.covers == "phantom / dev, direct"
    again = run(small, tmp_path / "again", COUNTING, splits=["direct", "dev"])
    with pytest.raises(InputError, match=r"is both in .*phantom_qwen.* and in .*again"):
        pack([outs[0], again], tmp_path / "t")


def test_runs_of_different_settings_are_not_packed_together(small, tmp_path):
    one = run(small, tmp_path / "one", COUNTING, lvlms=["phantom_qwen"])
    two = tmp_path / "two"
    attribute(choose_methods([COUNTING], ["scale=3"]), small, two, splits=["direct"], lvlms=["phantom_gemma"])
    with pytest.raises(InputError, match=r"was made with scale 3\.0, and this run has 1.0"):
        pack([one, two], tmp_path / "s")


def test_runs_of_different_checkpoints_are_not_packed_together(small, tmp_path):
    outs = [
        run(small, tmp_path / str(limit), COUNTING, lvlms=lvlms, limit=limit)
        for limit, lvlms in ((1, ["phantom_gemma"]), (2, ["phantom_qwen"]), (3, ["phantom_qwen"]))
    ]
    settings = outs[2] / "counting" / "settings.json"
    settings.write_text(settings.read_text().replace('"checkpoint": "sha256:', '"checkpoint": "sha256:0'))
    with pytest.raises(InputError, match="was made with checkpoint of phantom_qwen direct sha256:0"):
        pack(outs, tmp_path / "s", partial=True)


def test_a_run_of_several_methods_asks_which(small, tmp_path):
    out = run(small, tmp_path / "run", COUNTING, "whole-image", "random-map")
    with pytest.raises(InputError, match="holds counting, null-random-map, null-whole-image; choose one"):
        pack([out], tmp_path / "s")
    with pytest.raises(InputError, match="holds no records of 'rise', only of counting"):
        pack([out], tmp_path / "s", method="rise")
    assert pack([out], tmp_path / "s", method="whole-image").method.family == "null"
    assert pack([out / "null-random-map"], tmp_path / "t").method.name == "null-random-map"
    for name in ("s", "t"):
        assert validate(tmp_path / name, small) == []


def test_tuned_settings_are_quoted_by_lvlm_and_mode(small, tmp_path):
    path = tmp_path / "sided.json"
    qwen = load_lvlm("phantom_qwen")
    for mode in ("direct", "reasoning"):
        part = tune(SIDED, qwen, small, mode)
        tuning = open_tuning(path, "sided", "1", small).extended("phantom_qwen", mode, part)
        write_document(path, tuning)
    methods = with_tuning(choose_methods([SIDED]), [path], small)
    attribute(methods, small, tmp_path / "run", splits=["direct", "reasoning"], lvlms=["phantom_qwen"])
    packed = pack([tmp_path / "run"], tmp_path / "s", partial=True)
    assert packed.method.tuned_on_dev
    chosen = {
        mode: tuning.part("phantom_qwen", mode, "medfocus-bench tune").chosen["side"]
        for mode in ("direct", "reasoning")
    }
    quoted = {name: value for name, value in packed.method.hyperparameters.items() if "run:" not in name}
    sides = {f"phantom_qwen {mode}: side": side for mode, side in chosen.items()}
    assert quoted == {
        **sides,
        "phantom_qwen direct: dev samples": 3,
        "phantom_qwen reasoning: dev samples": 1,
    }
    assert validate(tmp_path / "s", small) == []


def test_the_metadata_of_the_method_may_be_given(small, tmp_path):
    given = {"version": "2", "display_name": "Mine", "licence": "MIT"}
    packed = pack([run(small, tmp_path / "run", COUNTING)], tmp_path / "s", **given)
    assert {name: getattr(packed.method, name) for name in given} == given
    with pytest.raises(InputError, match="/method/version"):
        pack([tmp_path / "run"], tmp_path / "t", version="a\nb")


def test_what_is_no_run_or_of_another_benchmark_is_refused(small, tmp_path):
    with pytest.raises(InputError, match="holds no records; give the folder that"):
        pack([tmp_path / "nowhere"], tmp_path / "s")
    out = run(small, tmp_path / "run", COUNTING)
    with pytest.raises(InputError, match=r"is of the benchmark small 1 .*, but .* is medfocus/cxr-causal"):
        pack([out], tmp_path / "s", benchmark=load_benchmark("phantom"))
    settings = out / "counting" / "settings.json"
    settings.write_text(settings.read_text().replace("medfocus-bench run 1", "something else"))
    with pytest.raises(InputError, match=r"settings\.json: is not the settings file of a run: /format"):
        pack([out], tmp_path / "s")


def test_a_submission_with_a_run_inside_is_a_submission(small, tmp_path):
    out = run(small, tmp_path / "run", COUNTING)
    assert is_run(out)
    assert is_run(out / "counting")
    (out / "submission.json").write_text("{}")
    assert not is_run(out)
    assert not is_run(tmp_path / "nowhere")
