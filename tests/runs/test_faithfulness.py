"""Measuring faithfulness on the shipped models: what has 1 and 0, its cost, and runs that are stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.data.writing import write_benchmark
from medfocus_bench.engine.choose import open_engine
from medfocus_bench.errors import InputError, UnavailableError
from medfocus_bench.evaluation.faithfulness import Faithfulness, random_map
from medfocus_bench.evaluation.protocol import Settings
from medfocus_bench.lock import exclusive
from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
from medfocus_bench.runs.config import RunConfig
from medfocus_bench.runs.faithfulness import REPORT_NAME, faithfulness
from medfocus_bench.runs.shards import Shard
from medfocus_bench.submission.writer import SubmissionWriter
from tests.conftest import METHOD

from .conftest import track_rows

SETTINGS = Settings(resamples=50)


@pytest.fixture(scope="session")
def six(tmp_path_factory):
    """Six samples of the track, of both kinds of evidence."""
    rows = [row for row in track_rows("direct") if row["group"] == "grounded"][:6]
    folder = tmp_path_factory.mktemp("six") / "bench"
    return write_benchmark(folder, {"direct": rows}, name="six", version="1")


def submission(folder, benchmark, explain, frame="model"):
    with SubmissionWriter(folder, METHOD, benchmark, submitters=["tests"], frame=frame) as writer:
        for sample in benchmark.samples:
            found = explain(sample)
            if found is not None:
                writer.add(replace(found, sample_id=sample.sample_id))
    return folder


def mask_map(sample):
    return Attribution(saliency=sample.mask.astype(np.float32), frame="image")


def edge_map(sample):
    return Attribution(saliency=np.abs(np.diff(sample.image.astype(np.float32), axis=0))[::14, ::14])


@pytest.fixture(scope="session")
def edges(six, tmp_path_factory):
    """A submission to `six`."""
    return submission(tmp_path_factory.mktemp("edges") / "edges", six, edge_map)


@pytest.fixture(scope="session")
def measured(six, edges, tmp_path_factory):
    """The folder of a whole measurement of `edges`, with its outcome."""
    out = tmp_path_factory.mktemp("measured")
    return out, faithfulness(edges, six, out, settings=SETTINGS)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_exact_mask_has_1_its_random_maps_0_and_its_box_nearly_1(six, measured, tmp_path):
    out, _ = measured
    explanations = {
        "mask": mask_map,
        "random": lambda sample: Attribution(saliency=random_map(sample.sample_id)),
        "box": lambda sample: Attribution(boxes=sample.boxes),
    }
    found = {}
    for name, explain in explanations.items():
        frame = "image" if name == "mask" else "model"
        folder = submission(tmp_path / name, six, explain, frame)
        found[name] = faithfulness(folder, six, out, settings=SETTINGS).faithfulness.mean
    assert found["mask"] == pytest.approx(1, abs=1e-3)
    assert found["random"] == pytest.approx(0, abs=1e-3)
    assert 0.9 <= found["box"] <= 1.05


def test_an_attribution_costs_12_forward_passes_and_the_references_26_once(six, edges, tmp_path, monkeypatch):
    """Issue 19 allows 14 a sample."""
    passes = []
    plain = HuggingFaceLVLM._last_hidden

    def counted(self, example, pixel_values):
        passes.append(len(pixel_values))
        return plain(self, example, pixel_values)

    monkeypatch.setattr(HuggingFaceLVLM, "_last_hidden", counted)
    assert faithfulness(edges, six, tmp_path, settings=SETTINGS).forward_passes == 12
    assert sum(passes) == (26 + 12) * 6
    faithfulness(edges, six, tmp_path, settings=SETTINGS)
    assert sum(passes) == (26 + 12) * 6
    faithfulness("null:image-edges", six, tmp_path, settings=SETTINGS)
    assert sum(passes) == (26 + 24) * 6


def test_what_explains_nothing_has_0_without_a_pass(six, measured, tmp_path):
    out, _ = measured
    folder = submission(
        tmp_path / "little",
        six,
        lambda sample: Attribution(boxes=np.empty((0, 4))) if sample.index else None,
    )
    found = faithfulness(folder, six, out, settings=SETTINGS)
    assert (found.faithfulness.mean, found.forward_passes) == (0.0, 0.0)
    assert faithfulness("null:whole-image", six, out, settings=SETTINGS).faithfulness.mean == 0.0


def test_the_section_is_written_and_holds_every_lvlm(six, measured):
    out, found = measured
    written = Faithfulness.model_validate_json((out / "edges" / REPORT_NAME).read_bytes())
    assert written == found
    assert [part.lvlm for part in found.lvlms] == sorted({sample.lvlm for sample in six.samples})
    assert sum(part.samples for part in found.lvlms) == found.samples == 6


def test_some_samples_and_some_lvlms_are_measured_alone_and_not_again(six, edges, tmp_path):
    faithfulness(edges, six, tmp_path, samples=3, settings=SETTINGS)
    assert len(lines(tmp_path / "edges" / "curves.jsonl")) == 1 + 3
    lvlm = six.samples[0].lvlm
    found = faithfulness(edges, six, tmp_path, lvlms=lvlm, settings=SETTINGS)
    assert [part.lvlm for part in found.lvlms] == [lvlm]
    whole = faithfulness(edges, six, tmp_path, settings=SETTINGS)
    names = [line["sample_id"] for line in lines(tmp_path / "edges" / "curves.jsonl")[1:]]
    assert len(names) == len(set(names)) == whole.samples == 6


def test_a_run_that_breaks_off_anywhere_goes_on_to_the_same(six, edges, measured, tmp_path):
    whole, found = measured

    def stopping(items, label, total):
        for number, item in enumerate(items):
            if number == 2:
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        faithfulness(edges, six, tmp_path, settings=SETTINGS, progress=stopping)
    references = tmp_path / "references.jsonl"
    assert len(lines(references)) == 1 + 2
    references.write_bytes(references.read_bytes()[:-7])  # a torn last line
    with pytest.raises(KeyboardInterrupt):
        faithfulness(edges, six, tmp_path, settings=SETTINGS, progress=stopping)
    assert faithfulness(edges, six, tmp_path, settings=SETTINGS) == found
    for name in ("references.jsonl", "edges/curves.jsonl"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()


def test_a_killed_command_goes_on_to_the_same(six, edges, measured, tmp_path):
    whole, found = measured
    command = [sys.executable, "-m", "medfocus_bench", "faithfulness", str(edges)]
    command += ["--benchmark", str(six.folder), "--out", str(tmp_path / "out"), "--resamples", "50"]
    curves = tmp_path / "out" / "edges" / "curves.jsonl"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        deadline = time.monotonic() + 300
        while not (curves.exists() and curves.read_bytes().count(b"\n") > 1):
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
    assert curves.read_bytes().count(b"\n") < 7
    assert faithfulness(edges, six, tmp_path / "out", settings=SETTINGS) == found
    for name in ("references.jsonl", "edges/curves.jsonl"):
        assert sorted((tmp_path / "out" / name).read_text().splitlines()) == sorted(
            (whole / name).read_text().splitlines()
        )


def test_two_processes_do_not_write_to_one_measurement(six, edges, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with exclusive(out / "references.jsonl"), pytest.raises(InputError, match="writes to it"):
        faithfulness(edges, six, out, settings=SETTINGS)


def test_shards_measure_their_own_samples_and_the_last_one_sees_all(six, edges, measured, tmp_path):
    _, found = measured
    assert faithfulness(edges, six, tmp_path, shard=Shard(1, 2), settings=SETTINGS) is None
    assert faithfulness(edges, six, tmp_path, shard=Shard(2, 2), settings=SETTINGS) == found
    assert not (tmp_path / "references.jsonl").exists()
    assert faithfulness(edges, six, tmp_path, settings=SETTINGS) == found


def test_workers_measure_the_same(six, edges, measured, tmp_path):
    with open_engine("local", 2) as engine:
        found = faithfulness(edges, six, tmp_path, settings=SETTINGS, engine=engine)
    assert found.faithfulness.mean == pytest.approx(measured[1].faithfulness.mean, abs=1e-4)
    assert found.forward_passes == 12


def test_only_attributions_that_changed_are_measured_again(six, edges, measured, tmp_path):
    out = shutil.copytree(measured[0], tmp_path / "out")
    first = six.samples[0].sample_id

    def changed(sample):
        return Attribution(saliency=np.eye(16)) if sample.sample_id == first else edge_map(sample)

    other = submission(tmp_path / "edges", six, changed)
    found = faithfulness(other, six, out, settings=SETTINGS)
    assert found != measured[1]
    *before, last = lines(out / "edges" / "curves.jsonl")
    assert (len(before), last["sample_id"]) == (7, first)
    assert faithfulness(edges, six, out, settings=SETTINGS) == measured[1]


def test_shards_do_not_take_an_older_measurement_for_that_of_changed_attributions(
    six, edges, measured, tmp_path
):
    out = shutil.copytree(measured[0], tmp_path / "out")
    first = six.samples[0]
    changed = [sample for sample in six.samples if sample.region == first.region]

    def other_map(sample):
        return Attribution(saliency=np.eye(16)) if sample in changed else edge_map(sample)

    other = submission(tmp_path / "edges", six, other_map)
    mine, theirs = sorted((Shard(1, 2), Shard(2, 2)), key=lambda shard: first not in shard)
    assert faithfulness(other, six, out, shard=theirs, settings=SETTINGS) is None
    found = faithfulness(other, six, out, shard=mine, settings=SETTINGS)
    assert found not in (None, measured[1])
    assert faithfulness(other, six, out, shard=theirs, settings=SETTINGS) == found
    assert faithfulness(other, six, out, settings=SETTINGS) == found


def test_measurements_of_something_else_are_not_mixed(six, edges, measured):
    out, _ = measured
    with pytest.raises(InputError, match=r"another dtype \(float32, not bfloat16\)"):
        faithfulness(edges, six, out, config=RunConfig(dtype="bfloat16"), settings=SETTINGS)


def test_a_benchmark_without_counterfactual_pictures_is_refused_in_a_sentence(make_benchmark, tmp_path):
    rows = [dict(row) for row in track_rows("direct")[:2] if row["group"] == "grounded"]
    for row in rows:
        row["source"], row["sample_id"] = "elsewhere", row["sample_id"].replace("phantom", "elsewhere", 1)
    elsewhere = make_benchmark(rows)
    with pytest.raises(
        UnavailableError, match="no picture without its finding is known of any sample in elsewh"
    ):
        faithfulness("null:image-edges", elsewhere, tmp_path / "out", settings=SETTINGS)
    assert not (tmp_path / "out").exists()
