"""Runs on the splits `control` and `contrast`: explained, packed and scored by their names."""

from __future__ import annotations

import json

import numpy as np
import pytest

from medfocus_bench.data.resolve import load_benchmark
from medfocus_bench.errors import InputError
from medfocus_bench.evaluation.evaluate import evaluate
from medfocus_bench.runs.attribute import attribute
from medfocus_bench.runs.methods import MethodSpec, choose_methods, with_tuning
from medfocus_bench.runs.pack import pack
from medfocus_bench.runs.records import RecordFiles
from medfocus_bench.runs.run import open_run
from medfocus_bench.runs.settings import read_settings, write_document
from medfocus_bench.runs.shards import Shard
from medfocus_bench.runs.status import run_status
from medfocus_bench.runs.tune import tune
from medfocus_bench.runs.tuning import open_tuning
from medfocus_bench.submission.reader import open_submission, validate

QWEN, DRAWN = "phantom_qwen", "phantom_qwen@random"


@pytest.fixture(scope="module")
def run(small, tmp_path_factory):
    """Grad-CAM on all of one LVLM, trained and with a random decoder, with tuned settings."""
    folder = tmp_path_factory.mktemp("run")
    tuning = open_tuning(folder / "t.json", "grad-cam", "0.1.0", small)
    for mode in ("direct", "reasoning"):
        tuning = tuning.extended(QWEN, mode, tune("grad-cam", QWEN, small, mode))
    write_document(folder / "t.json", tuning)
    methods = with_tuning(choose_methods(["grad-cam"]), [folder / "t.json"], small)
    splits = ["direct", "reasoning", "control"]
    attribute(methods, small, folder / "run", splits=splits, lvlms=[QWEN, DRAWN])
    return folder / "run"


def test_the_same_settings_explain_the_copy_and_its_checkpoint_is_on_record(run):
    parts = read_settings(run / "grad-cam").parts
    assert set(parts) == {f"{key} {mode}" for key in (QWEN, DRAWN) for mode in ("direct", "reasoning")}
    assert parts[f"{DRAWN} direct"].tuned == parts[f"{QWEN} direct"].tuned is not None
    assert parts[f"{DRAWN} direct"].checkpoint == f"{parts[f'{QWEN} direct'].checkpoint}@random-0"


def test_the_maps_of_the_copy_are_others_of_the_same_questions(run, small):
    records = open_run(run, "grad-cam").records
    control = [sample for sample in small.derived.control if sample.lvlm == DRAWN]
    assert len(control) == 5
    for sample in control:
        trained, drawn = (records.attribution(name) for name in (sample.derived_from, sample.sample_id))
        assert trained.saliency.shape == drawn.saliency.shape
        assert not np.allclose(trained.saliency, drawn.saliency)


def test_status_tells_the_parts_of_copies_apart(run):
    parts = {(part.lvlm, part.split): part.done for part in run_status(run).parts}
    assert parts == {(QWEN, "direct"): 4, (QWEN, "reasoning"): 1, (DRAWN, "control"): 5}
    assert (
        RecordFiles.of(run / "grad-cam", DRAWN, "control").lines.name == "phantom_qwen@random-control.jsonl"
    )


def test_a_run_with_control_becomes_one_submission_that_states_each_setting_once(run, small, tmp_path):
    of_qwen = small.of_lvlms([QWEN])
    packed = pack([run], tmp_path / "s", benchmark=small, partial=True)
    assert packed.attributed == 10
    assert validate(tmp_path / "s", small) == []
    document = json.loads((tmp_path / "s" / "submission.json").read_text())
    assert document["benchmark"]["splits"] == ["control", "direct", "reasoning"]
    named = [name for name in document["method"]["hyperparameters"] if "layer" in name]
    assert named == [f"{QWEN} direct: layer", f"{QWEN} reasoning: layer"]
    options = {"nulls": False, "resamples": 20, "lvlms": QWEN}
    report = evaluate(tmp_path / "s", small, **options)
    assert report.counts.samples == len(of_qwen.part((), ["direct", "reasoning"]).samples) == 5
    assert (report.dependence.questions, report.dependence.attributed) == (5, 5)
    assert evaluate(open_run(run, "grad-cam"), small, **options).dependence == report.dependence
    assert len(open_submission(tmp_path / "s", small)) == 10


def test_a_shard_holds_the_copy_of_a_question_beside_it(small):
    shards = [Shard(number, 3) for number in (1, 2, 3)]
    by_id = {sample.sample_id: sample for sample in small.samples}
    for sample in small.derived.control:
        (one,) = [shard for shard in shards if sample in shard]
        assert by_id[sample.derived_from] in one


def test_contrast_is_explained_under_second_names(tmp_path):
    phantom = load_benchmark("phantom")
    names = ["phantom_gemma@a", "phantom_gemma@b"]
    attribute("attention-rollout", phantom, tmp_path / "run", splits="contrast", lvlms=names, limit=1)
    found = list(open_run(tmp_path / "run", "attention-rollout").records)
    assert [one.sample_id.split("-")[2] for one in found] == names
    assert not np.allclose(*(one.saliency for one in found))


def test_nothing_is_tuned_on_a_derived_split(small):
    with pytest.raises(InputError, match=r"dev"):
        tune("grad-cam", DRAWN, small.part((), ["control"]), "direct")
    assert MethodSpec("grad-cam").part(DRAWN, "direct").tuned is None
