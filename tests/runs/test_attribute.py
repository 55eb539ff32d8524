"""A run over a benchmark: what is written, what is not computed again, what is refused."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest

from medfocus_bench.attribution.registry import load_method
from medfocus_bench.data.images import decode_uint8
from medfocus_bench.data.writing import write_benchmark
from medfocus_bench.engine.protocol import InProcess, Lost
from medfocus_bench.errors import InputError, UnavailableError
from medfocus_bench.evaluation.nulls import NULL_CONTROLS
from medfocus_bench.lvlm import registry
from medfocus_bench.lvlm.registry import load_lvlm
from medfocus_bench.phantom import PHANTOM_LVLMS
from medfocus_bench.runs import attribute as running
from medfocus_bench.runs import explaining, settings
from medfocus_bench.runs.attribute import attribute
from medfocus_bench.runs.config import RunConfig
from medfocus_bench.runs.explaining import encode_sample
from medfocus_bench.runs.methods import MethodSpec, choose_methods, with_tuning
from medfocus_bench.runs.records import RecordFiles, read_failures, read_records
from medfocus_bench.runs.settings import read_settings
from medfocus_bench.runs.tuning import Tuning
from tests.lvlm.checkpoints import save_overflowing

from .conftest import first_rows
from .methods import HERE, Counting

COUNTING, REFUSING = (f"{HERE}:{name}" for name in ("Counting", "Refusing"))


def run(small, out, *names, sets=(), **options):
    options = {"splits": ["direct"], "lvlms": ["phantom_qwen"]} | options
    return attribute(choose_methods(names, sets), small, out, **options).outcomes


def records(out, method, lvlm="phantom_qwen", split="direct"):
    files = RecordFiles.of(out / method, lvlm, split)
    return {record.entry.sample_id: (record, files.attribution(record)) for record in files.read()}


@pytest.fixture
def loads(monkeypatch):
    """The keys of the LVLMs that runs asked for, in order; the last one is kept, and counts once."""
    loaded = []
    real = registry.kept_lvlm
    monkeypatch.setattr(
        registry,
        "kept_lvlm",
        lambda key, **more: (loaded[-1:] == [key] or loaded.append(key), real(key, **more))[1],
    )
    return loaded


def test_a_record_holds_what_the_method_says_of_the_row_s_own_response(small, tmp_path):
    (outcome,) = run(small, tmp_path, "occlusion", sets=["cells=4"], limit=1)
    assert (outcome.samples, outcome.existing, outcome.new, outcome.reasons) == (1, 0, 1, [])
    (row,) = first_rows("direct")[:1]
    lvlm = load_lvlm("phantom_qwen")
    image = decode_uint8(row["image"]["bytes"], place="row")
    example = lvlm.encode(image, row["question"], row["response"])
    expected = load_method("occlusion", cells=4).explain(lvlm, example)
    ((record, attribution),) = records(tmp_path, "occlusion").values()
    assert record.entry.sample_id == row["sample_id"]
    assert attribution.saliency.dtype == np.float32
    np.testing.assert_array_equal(attribution.saliency, expected.saliency)
    assert (attribution.cost.forward_passes, attribution.cost.backward_passes) == (17, 0)
    assert attribution.cost.seconds > 0


def test_a_record_keeps_tokens_concepts_and_finite_diagnostics(small, tmp_path):
    run(small, tmp_path, COUNTING, limit=1)
    ((record, attribution),) = records(tmp_path, "counting").values()
    assert list(attribution.tokens) == [("Yes", 0.0), (".", 1.0)]
    assert attribution.concepts == {"all of it": 1.0}
    assert record.diagnostics == {"completeness": 0.5}


def test_each_sample_is_read_once_for_all_methods(small, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(
        "medfocus_bench.runs.explaining.encode_sample",
        lambda lvlm, sample: (read.append(sample), encode_sample(lvlm, sample))[1],
    )
    run(small, tmp_path, COUNTING, REFUSING)
    assert len(read) == 4


def test_the_settings_on_disk_are_read_once_for_a_part_and_not_for_a_record(small, tmp_path, monkeypatch):
    run(small, tmp_path, COUNTING, limit=1)
    looked = []
    real = settings.read_settings
    monkeypatch.setattr(settings, "read_settings", lambda folder: (looked.append(folder), real(folder))[1])
    run(small, tmp_path, COUNTING, limit=2)
    few = len(looked)
    run(small, tmp_path, COUNTING)
    assert len(looked) == 2 * few


def test_every_lvlm_explains_its_own_samples_only_one_lvlm_after_the_other(small, tmp_path, loads):
    outcomes = run(small, tmp_path, COUNTING, splits=["direct", "reasoning"], lvlms=())
    assert [(o.lvlm, o.split, o.new) for o in outcomes] == [
        ("phantom_gemma", "direct", 2),
        ("phantom_qwen", "direct", 4),
        ("phantom_qwen", "reasoning", 1),
    ]
    assert loads == ["phantom_gemma", "phantom_qwen"]
    for lvlm in ("phantom_gemma", "phantom_qwen"):
        assert all(f"-{lvlm}-" in key for key in records(tmp_path, "counting", lvlm))


def test_an_interrupted_run_goes_on_without_computing_anything_again(small, tmp_path, monkeypatch):
    monkeypatch.setattr(Counting, "breaks_at", 2)
    with pytest.raises(RuntimeError, match="the power is gone"):
        run(small, tmp_path, COUNTING)
    before = records(tmp_path, "counting")
    assert len(before) == 2
    monkeypatch.setattr(Counting, "breaks_at", None)
    (outcome,) = run(small, tmp_path, COUNTING)
    assert (outcome.existing, outcome.new) == (2, 2)
    assert len(Counting.calls) == 4
    after = records(tmp_path, "counting")
    assert len(after) == 4
    for key, (record, _) in before.items():
        assert after[key][0] == record


def test_a_finished_run_loads_no_model(small, tmp_path, loads):
    run(small, tmp_path, COUNTING)
    outcomes = run(small, tmp_path, COUNTING)
    assert loads == ["phantom_qwen"]
    assert [(o.existing, o.new) for o in outcomes] == [(4, 0)]


def test_an_unsound_record_of_failures_is_said_even_where_all_is_done(small, tmp_path):
    run(small, tmp_path, COUNTING)
    (tmp_path / "counting" / "failures.jsonl").write_text("{}\n{}\n")
    with pytest.raises(
        InputError, match=r"failures\.jsonl: line 1 is not a record of a failure; delete that line"
    ):
        run(small, tmp_path, COUNTING)


OTHER_PROCESS = """
import sys, time
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from medfocus_bench.runs.attribute import attribute

bench, out, meeting = sys.argv[1:]

def slowly(items, label, total):
    for number, item in enumerate(items):
        if number == 3:
            Path(meeting, "half").touch()
            while not Path(meeting, "go").exists():
                time.sleep(0.01)
        yield item

attribute("random-map", bench, out, splits="direct", progress=slowly)
"""


@pytest.fixture
def half_way(small, tmp_path):
    """Another process that waits in the middle of a run into `run`, until there is a file `go`."""
    arguments = [small.folder, tmp_path / "run", tmp_path]
    process = subprocess.Popen([sys.executable, "-c", OTHER_PROCESS, *map(str, arguments)])
    while not (tmp_path / "half").exists() and process.poll() is None:
        time.sleep(0.01)
    yield process
    process.kill()
    process.wait()


def check_random_maps(small, out):
    """Every sample has a record, with its own map."""
    part = small.select(small.configs, ["direct"])
    expected = dict(NULL_CONTROLS["random-map"].make(part.samples, 0))
    found = {a.sample_id: a.saliency for a in read_records([out / "null-random-map"])}
    assert len(found) == len(expected)
    for sample, attribution in expected.items():
        np.testing.assert_array_equal(found[sample.sample_id], attribution.saliency)


def test_a_second_process_is_refused_and_the_first_loses_and_swaps_nothing(small, tmp_path, half_way):
    holder = rf"null-random-map: process {half_way.pid} on .*, since .*writes to it; wait until that ends"
    for _ in range(2):
        with pytest.raises(InputError, match=holder):
            attribute("random-map", small, tmp_path / "run", splits="direct")
    (tmp_path / "go").touch()
    assert half_way.wait() == 0
    check_random_maps(small, tmp_path / "run")


def test_the_lock_of_a_killed_process_is_no_obstacle(small, tmp_path, half_way):
    half_way.kill()
    half_way.wait()
    outcomes = attribute("random-map", small, tmp_path / "run", splits="direct").outcomes
    assert sum(o.existing for o in outcomes) == 3
    check_random_maps(small, tmp_path / "run")


def test_a_half_written_tail_of_both_files_is_dropped(small, tmp_path):
    run(small, tmp_path, COUNTING)
    files = RecordFiles.of(tmp_path / "counting", "phantom_qwen", "direct")
    whole = records(tmp_path, "counting")
    lines = files.lines.read_bytes()
    files.lines.write_bytes(lines[:-40])
    files.maps.write_bytes(files.maps.read_bytes() + b"torn")
    (outcome,) = run(small, tmp_path, COUNTING)
    assert (outcome.existing, outcome.new) == (3, 1)
    again = records(tmp_path, "counting")
    for key, (_, attribution) in whole.items():
        np.testing.assert_array_equal(again[key][1].saliency, attribution.saliency)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"sets": ["scale=2"]}, "scale 1.0"),
        ({"config": RunConfig(seed=1)}, "seed 0"),
        ({"config": RunConfig(target="verdict")}, "target response"),
        ({"config": RunConfig(framing="native")}, "framing square"),
        ({"config": RunConfig(dtype="bfloat16")}, "dtype float32"),
        ({"config": RunConfig(quantise="8bit")}, "quantise none"),
        ({"config": RunConfig(decoding="checkpoint")}, "decoding greedy"),
        ({"config": RunConfig(pixels=(3136, 50_176))}, "pixels none"),
    ],
)
def test_other_settings_are_refused_and_leave_the_records_alone(small, tmp_path, changes, name):
    run(small, tmp_path, COUNTING, limit=1)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=f"was made with {name}, and this run has .*; choose another folder"):
        run(small, tmp_path, COUNTING, **changes)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_run_of_before_the_decoding_was_kept_is_greedy_and_goes_on(small, tmp_path):
    run(small, tmp_path, COUNTING, limit=1)
    settings = tmp_path / "counting" / "settings.json"
    kept = json.loads(settings.read_text())
    assert kept.pop("decoding") == "greedy"
    settings.write_text(json.dumps(kept))
    with pytest.raises(InputError, match="was made with decoding greedy, and this run has checkpoint"):
        run(small, tmp_path, COUNTING, config=RunConfig(decoding="checkpoint"))
    (outcome,) = run(small, tmp_path, COUNTING)
    assert (outcome.existing, outcome.new) == (1, 3)
    assert json.loads(settings.read_text())["decoding"] == "greedy"


@pytest.fixture
def another_qwen(tmp_path):
    """A folder by the name of the shipped LVLM with the weights of another."""
    return str(shutil.copytree(PHANTOM_LVLMS["phantom_qwen_twin"], tmp_path / "other" / "phantom_qwen"))


def test_another_checkpoint_of_the_same_key_does_not_go_on_with_the_records(
    small, tmp_path, another_qwen, loads
):
    out = tmp_path / "run"
    run(small, out, COUNTING, limit=1)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(
        InputError, match=r"was made with checkpoint of phantom_qwen direct sha256:.*; choose another folder"
    ):
        run(small, out, COUNTING, lvlms=[another_qwen])
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert loads == ["phantom_qwen"]
    run(small, out, COUNTING, lvlms=["phantom_gemma"])
    (outcome,) = run(small, out, COUNTING)
    assert (outcome.existing, outcome.new) == (1, 3)


def test_the_same_checkpoint_in_another_place_goes_on_with_the_records(small, tmp_path):
    run(small, tmp_path / "run", COUNTING, limit=1)
    copy = shutil.copytree(PHANTOM_LVLMS["phantom_qwen"], tmp_path / "copy" / "phantom_qwen")
    (outcome,) = run(small, tmp_path / "run", COUNTING, lvlms=[str(copy)])
    assert (outcome.existing, outcome.new) == (1, 3)


@pytest.mark.parametrize(
    ("pattern", "text", "said"),
    [
        ('"fingerprint": "[0-9a-f]+"', f'"fingerprint": "{"0" * 64}"', "was made with fingerprint"),
        (COUNTING, "counting", "was made with source counting"),
        (
            '"checkpoint": "[^"]+"',
            '"checkpoint": null',
            "checkpoint of phantom_qwen direct unknown .an earlier",
        ),
    ],
)
def test_records_of_another_benchmark_class_or_checkpoint_are_not_gone_on_with(
    small, tmp_path, pattern, text, said
):
    run(small, tmp_path, COUNTING, limit=1)
    settings = tmp_path / "counting" / "settings.json"
    settings.write_text(re.sub(pattern, text, settings.read_text()))
    with pytest.raises(InputError, match=said):
        run(small, tmp_path, COUNTING)


def test_a_hub_id_is_held_to_the_commit_that_was_loaded(small, tmp_path, monkeypatch):
    # Stands for the Hub: what is loaded says its commit, and nothing does before.
    monkeypatch.setattr(running, "folder_identity", lambda source: None)
    commit = "commit:1"
    monkeypatch.setattr(explaining, "loaded_identity", lambda lvlm: commit)
    run(small, tmp_path, COUNTING, limit=1)
    (outcome,) = run(small, tmp_path, COUNTING, limit=2)
    assert (outcome.existing, outcome.new) == (1, 1)
    commit = "commit:2"
    with pytest.raises(InputError, match="direct commit:1, and this run has commit:2; choose another"):
        run(small, tmp_path, COUNTING)
    assert len(records(tmp_path, "counting")) == 2


class Losing(InProcess):
    """Loses its worker with the first unit."""

    def run(self, work, units):
        first, *rest = units
        yield first, Lost("its worker was killed, 3 times")
        yield from super().run(work, rest)


def test_a_worker_that_is_lost_at_the_start_costs_its_samples_only(small, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "folder_identity", lambda source: None)
    monkeypatch.setattr(explaining, "loaded_identity", lambda lvlm: "commit:1")
    for limit, counts in ((2, (0, 1, 1)), (4, (1, 2, 1))):
        (outcome,) = run(small, tmp_path, COUNTING, limit=limit, engine=Losing())
        assert (outcome.existing, outcome.new, len(outcome.reasons)) == counts
        assert len(read_failures(tmp_path / "counting")) == 1
    (outcome,) = run(small, tmp_path, COUNTING)
    assert (outcome.existing, outcome.new, read_failures(tmp_path / "counting")) == (3, 1, [])
    settings = read_settings(tmp_path / "counting")
    assert settings.parts["phantom_qwen direct"].checkpoint == "commit:1"


def test_a_method_that_cannot_be_loaded_ends_the_run_before_any_sample(small, tmp_path, monkeypatch):
    def broken(self, lvlm, mode):
        raise InputError(f"no setting layr for {lvlm} {mode}")

    monkeypatch.setattr(MethodSpec, "load", broken)
    with pytest.raises(InputError, match="no setting layr for phantom_qwen direct"):
        run(small, tmp_path, COUNTING)
    assert not read_failures(tmp_path / "counting")


def test_a_sample_of_a_changed_file_is_not_read_from_the_old_one(small, tmp_path):
    rows = [{**first_rows("direct")[0], "response": "No."}]
    written = write_benchmark(tmp_path / "bench", {"direct": first_rows("direct")[:1]}, name="b", version="1")
    (before,) = ForkingPickler.loads(ForkingPickler.dumps(written.samples))
    assert before.response == "Yes."
    changed = write_benchmark(tmp_path / "bench", {"direct": rows}, name="b", version="1", overwrite=True)
    (after,) = ForkingPickler.loads(ForkingPickler.dumps(changed.samples))
    assert after.response == "No."


def test_a_sample_that_cannot_be_explained_is_a_failure_on_record(small, tmp_path):
    (outcome,) = run(small, tmp_path, REFUSING)
    assert (outcome.new, outcome.reasons) == (1, ["not of my kind"] * 3)
    failures = read_failures(tmp_path / "refusing")
    assert {(f.lvlm, f.split, f.reason) for f in failures} == {("phantom_qwen", "direct", "not of my kind")}
    assert len(failures) == 3
    (again,) = run(small, tmp_path, REFUSING)
    assert (again.existing, again.new, len(again.reasons)) == (1, 0, 3)
    assert len(read_failures(tmp_path / "refusing")) == 3


def test_a_verdict_that_the_response_lacks_is_a_failure(small, tmp_path):
    rows = [{**first_rows("direct")[0], "response": "lungs."}]
    other = write_benchmark(tmp_path / "bench", {"direct": rows}, name="b", version="1")
    options = {"sets": ["cells=2"], "config": RunConfig(target="verdict")}
    (outcome,) = run(other, tmp_path / "run", "occlusion", **options)
    assert outcome.new == 0
    assert "states no yes or no to explain" in outcome.reasons[0]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("stray", "reaches out of the image"),
        ("holed", "holed made a map of phantom_qwen in float32 with 1 of 4 values that are not finite"),
    ],
)
def test_an_attribution_that_no_submission_can_hold_is_a_failure_on_record(small, tmp_path, name, said):
    (outcome,) = run(small, tmp_path, f"{HERE}:{name.title()}", limit=1)
    assert (outcome.new, len(outcome.reasons)) == (0, 1)
    assert said in outcome.reasons[0]
    assert not records(tmp_path, name)


def test_a_model_that_overflows_float16_leaves_a_failure_for_each_sample_and_no_map(small, tmp_path):
    folder = save_overflowing(tmp_path / "phantom_qwen")
    narrow = {
        "lvlms": [str(folder)],
        "config": RunConfig(dtype="float16"),
        "sets": ["occlusion.cells=2"],
    }
    outcomes = run(small, tmp_path / "run", "occlusion", "grad-cam", **narrow)
    asked = {sample.sample_id for sample in small.samples if sample.lvlm == "phantom_qwen"}
    for outcome in outcomes:
        assert outcome.new == 0
        failures = read_failures(tmp_path / "run" / outcome.method)
        assert {failure.sample_id for failure in failures} <= asked
        assert len(failures) == outcome.samples == 4
        for failure in failures:
            assert failure.reason == (
                "phantom_qwen: the hidden states that predict the response are not finite numbers, which "
                "float16 cannot hold: load it in bfloat16 or float32 (--dtype)"
            )
        assert not records(tmp_path / "run", outcome.method)


def test_a_picture_that_cannot_be_decoded_is_a_failure_of_its_sample_alone(tmp_path):
    first, second = first_rows("direct")[:2]
    damaged = {**first, "image": {**first["image"], "bytes": b"no picture"}}
    bench = write_benchmark(tmp_path / "b", {"direct": [damaged, second]}, name="b", version="1")
    (outcome,) = run(bench, tmp_path / "run", COUNTING)
    assert outcome.new == 1
    assert "is not a PNG or JPEG picture, or a damaged one" in outcome.reasons[0]
    assert [f.sample_id for f in read_failures(tmp_path / "run" / "counting")] == [first["sample_id"]]


@pytest.mark.parametrize(
    ("more", "way_out"),
    [
        ({}, "put it into the column image"),
        (
            {"image_ref": "files/a.jpg"},
            "only a pointer to files/a.jpg .*`medfocus-bench data attach {} --root",
        ),
    ],
)
def test_a_sample_without_a_picture_is_an_error_with_the_way_out(tmp_path, more, way_out):
    row = {**first_rows("direct")[0], "image": None, **more}
    bench = write_benchmark(tmp_path / "b", {"direct": [row]}, name="b", version="1")
    with pytest.raises(UnavailableError, match=way_out.format(tmp_path / "b")):
        run(bench, tmp_path / "run", COUNTING)


def test_without_a_response_the_lvlm_answers_now_and_the_record_holds_what_was_explained(tmp_path):
    """A row without a question is asked about its finding; a question is asked as it stands."""
    first, second, third = first_rows("direct")[:3]
    other = "Is there evidence of rib lesion in the image?"
    rows = [
        {**first, "question": None, "response": None},
        {**second, "question": other, "response": None},
        third,
    ]
    bench = write_benchmark(tmp_path / "b", {"direct": rows}, name="b", version="1")
    (outcome,) = run(bench, tmp_path / "run", COUNTING)
    assert (outcome.new, outcome.reasons) == (3, [])
    asked, stated, answered = (record for record, _ in records(tmp_path / "run", "counting").values())
    assert (asked.question, asked.response) == (first["question"], first["response"])
    assert stated.question == other
    assert answered.response is None


def test_null_controls_run_without_a_model(small, tmp_path, loads):
    outcomes = run(small, tmp_path, "whole-image", "null:mean-map", "image-edges", lvlms=())
    assert [(o.method, o.lvlm, o.new) for o in outcomes] == [
        (f"null-{name}", lvlm, count)
        for name in ("whole-image", "mean-map", "image-edges")
        for lvlm, count in (("phantom_gemma", 2), ("phantom_qwen", 4))
    ]
    assert loads == []
    part = small.select(["phantom"], ["direct"])
    made = {sample.sample_id: found for sample, found in NULL_CONTROLS["mean-map"].make(part.samples, 0)}
    for key, (_, attribution) in records(tmp_path, "null-mean-map").items():
        np.testing.assert_array_equal(attribution.saliency, made[key].saliency)


def test_tuned_settings_hold_for_their_lvlm_and_mode(small, tmp_path):
    part = {
        "samples": 3,
        "patients": 3,
        "seed": 0,
        "candidates": [{"settings": {"side": "left"}, "evidence_ap": 0.1, "low": 0.0, "high": 0.2}],
    }
    tuned = {
        "phantom_qwen direct": {**part, "chosen": {"side": "left"}},
        "phantom_qwen reasoning": {**part, "chosen": {"side": "right"}},
    }
    identity = {"dataset": "small", "version": "1", "fingerprint": small.fingerprint}
    document = {"method": "sided", "version": "0.1.0", "benchmark": identity, "parts": tuned}
    file = tmp_path / "sided.json"
    file.write_text(Tuning.model_validate_json(json.dumps(document)).model_dump_json())
    methods = with_tuning(choose_methods([f"{HERE}:Sided"]), [file], small)
    options = {"splits": ["direct", "reasoning"], "limit": 1}
    attribute(methods, small, tmp_path / "run", lvlms=["phantom_qwen"], **options)
    for split, side in (("direct", [1, 0]), ("reasoning", [0, 1])):
        ((_, attribution),) = records(tmp_path / "run", "sided", split=split).values()
        assert attribution.saliency[0].tolist() == side
    bfloat16 = {"lvlms": ["phantom_qwen"], "config": RunConfig(dtype="bfloat16")}
    with pytest.raises(
        InputError,
        match=r"for phantom_qwen direct with --dtype float32 --framing square, and this run has "
        r"--dtype bfloat16 --framing square; give those, or tune again with "
        r"`medfocus-bench tune tests.runs.methods:Sided -b ",
    ):
        attribute(methods, small, tmp_path / "r", **bfloat16, **options)
    with pytest.raises(InputError, match="has nothing for phantom_gemma direct"):
        attribute(methods, small, tmp_path / "run", lvlms=["phantom_gemma"], **options)
    with pytest.raises(InputError, match="settings tuned for phantom_qwen direct"):
        attribute(
            choose_methods([f"{HERE}:Sided"]), small, tmp_path / "run", lvlms=["phantom_qwen"], **options
        )


def test_a_folder_takes_further_lvlms_and_splits_of_the_same_settings(small, tmp_path):
    run(small, tmp_path, COUNTING)
    run(small, tmp_path, COUNTING, lvlms=["phantom_gemma"])
    run(small, tmp_path, COUNTING, splits=["reasoning"])
    held = json.loads((tmp_path / "counting" / "settings.json").read_text())
    assert held["parts"].keys() == {
        "phantom_qwen direct",
        "phantom_gemma direct",
        "phantom_qwen reasoning",
    }
    assert held["method"]["hyperparameters"] == {"scale": 1.0}
    assert held["benchmark"]["fingerprint"] == small.fingerprint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"splits": ["test"]}, "no split 'test'.*only dev, direct, reasoning"),
        ({"configs": ["vindr"]}, "no config 'vindr'.*only phantom"),
        ({"lvlms": ["nobody"]}, "no LVLM 'nobody'"),
        ({"lvlms": ["gemma3_4b"]}, "no samples of the LVLM 'gemma3_4b'.*only of phantom_gemma, phantom_qwen"),
    ],
)
def test_what_the_benchmark_does_not_hold_is_refused_before_anything_is_written(
    small, tmp_path, options, message
):
    with pytest.raises(InputError, match=message):
        run(small, tmp_path, COUNTING, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_recorded_nothing_leaves_its_folder_free_for_other_settings(small, tmp_path):
    with pytest.raises(InputError, match="no dtype 'int4'"):
        run(small, tmp_path, COUNTING, config=RunConfig(dtype="int4"))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["wanted.json"]
    run(small, tmp_path, REFUSING, sets=["likes=nothing"])
    assert len(read_failures(tmp_path / "refusing")) == 4
    (outcome,) = run(small, tmp_path, REFUSING, limit=1)
    assert outcome.new == 1
    assert read_failures(tmp_path / "refusing") == []
    with pytest.raises(InputError, match="was made with likes cardiomegaly, and this run has nothing"):
        run(small, tmp_path, REFUSING, sets=["likes=nothing"])


def test_failures_of_several_lvlms_and_runs_stand_side_by_side(small, tmp_path):
    run(small, tmp_path, f"{HERE}:Stray", lvlms=["phantom_qwen", "phantom_gemma"])
    run(small, tmp_path, f"{HERE}:Stray", splits=["reasoning"])
    parts = [(failure.lvlm, failure.split) for failure in read_failures(tmp_path / "stray")]
    assert sorted(set(parts)) == [
        ("phantom_gemma", "direct"),
        ("phantom_qwen", "direct"),
        ("phantom_qwen", "reasoning"),
    ]
    assert len(parts) == 7
