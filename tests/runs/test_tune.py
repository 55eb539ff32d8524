"""Tuning: on dev alone, whatever the test splits would have chosen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.data.writing import write_benchmark
from medfocus_bench.errors import InputError
from medfocus_bench.evaluation.evaluate import evaluate
from medfocus_bench.lvlm.registry import load_lvlm
from medfocus_bench.runs.config import RunConfig
from medfocus_bench.runs.explaining import encode_sample
from medfocus_bench.runs.methods import choose_methods, with_tuning
from medfocus_bench.runs.settings import write_document
from medfocus_bench.runs.tune import tune
from medfocus_bench.runs.tuning import open_tuning, read_tuning
from medfocus_bench.submission.writer import SubmissionWriter

from ..conftest import METHOD
from .conftest import first_rows
from .methods import HERE, Refusing, Sided

SIDED = f"{HERE}:Sided"
SHIPPED = sorted((Path(__file__).parents[2] / "leaderboard" / "tuned").glob("*.json"))
HALVES = {"left": [[0.0, 0.0, 112.0, 224.0]], "right": [[112.0, 0.0, 224.0, 224.0]]}


def opposed(folder, **more):
    """A benchmark whose evidence is on the left in dev, and on the right in the splits that are scored.

    Of regions that are not the phantom's, whose exact masks would be the evidence.
    """
    sides = {"direct": "right", "reasoning": "right", "dev": "left"}
    rows = {
        split: [{**row, "index": 90_000 + row["index"], "boxes": HALVES[side]} for row in first_rows(split)]
        for split, side in sides.items()
    }
    return write_benchmark(folder / "opposed", rows, name="opposed", version="1", **more)


@pytest.fixture(scope="module")
def qwen():
    return load_lvlm("phantom_qwen")


def test_dev_decides_and_nothing_else_is_looked_at(tmp_path, qwen):
    bench = opposed(tmp_path)
    part = tune(SIDED, qwen, bench, "direct")
    assert part.chosen == {"side": "left"}
    asked = [row["question"] for row in first_rows("dev")][:3]
    assert set(Sided.questions) == set(asked)
    assert len(Sided.questions) == 3 * 3


def test_the_table_holds_every_candidate_with_the_score_that_evaluate_gives(tmp_path, qwen):
    bench = opposed(tmp_path)
    part = tune(SIDED, qwen, bench, "direct")
    assert (part.samples, part.patients) == (3, 3)
    scores = {one.settings["side"]: one for one in part.candidates}
    assert list(scores) == ["left", "none", "right", "broken"]
    assert scores["left"].evidence_ap > 0.9
    assert scores["none"].evidence_ap == scores["broken"].evidence_ap == 0
    assert (scores["broken"].failed, scores["left"].failed) == (3, 0)
    assert all(one.low <= one.evidence_ap <= one.high for one in part.candidates)
    dev = bench.select(bench.configs, ["dev"])
    with SubmissionWriter(tmp_path / "s", METHOD, dev, submitters=["tests"]) as writer:
        for sample in dev.samples:
            writer.add(Attribution(sample.sample_id, saliency=[[1.0, 0.0]]))
    report = evaluate(tmp_path / "s", bench, nulls=False, resamples=100)
    assert scores["left"].evidence_ap == pytest.approx(report.slice("pooled").scores["evidence_ap"].mean)


def test_a_candidate_that_never_runs_does_not_win_over_one_below_zero(tmp_path, qwen, monkeypatch):
    monkeypatch.setattr(Sided, "candidates", lambda self, lvlm: [{"side": "broken"}, {"side": "right"}])
    bench = opposed(tmp_path)
    part = tune(SIDED, qwen, bench, "direct")
    assert part.candidates[0].evidence_ap < 0
    assert part.chosen == {"side": "right"}
    monkeypatch.setattr(Sided, "candidates", lambda self, lvlm: [{"side": "broken"}])
    with pytest.raises(
        InputError, match="no candidate could explain a sample of dev: this candidate never runs"
    ):
        tune(SIDED, qwen, bench, "direct")


def test_a_sample_that_cannot_be_read_counts_as_nothing_for_every_candidate(small, qwen, monkeypatch):
    first = next(sample for sample in small.samples if sample.split == "dev" and sample.mode == "direct")
    plain, read = tune(SIDED, qwen, small, "direct"), encode_sample

    def broken(lvlm, sample):
        if sample == first:
            raise ValueError("an image token in the question")
        return read(lvlm, sample)

    monkeypatch.setattr("medfocus_bench.runs.tune.encode_sample", broken)
    part = tune(SIDED, qwen, small, "direct")
    failed = {json.dumps(one.settings): one.failed for one in plain.candidates}
    for one in part.candidates:
        assert one.failed == min(failed[json.dumps(one.settings)] + 1, part.samples)


def test_a_part_says_under_which_conditions_it_was_tuned(small):
    lvlm = load_lvlm("phantom_qwen", dtype="bfloat16", framing="native")
    config = RunConfig(dtype="bfloat16", framing="native", decoding="checkpoint")
    part = tune(SIDED, lvlm, small, "direct", limit=1, config=config)
    assert (part.dtype, part.framing, part.decoding) == ("bfloat16", "native", "checkpoint")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_files_that_were_tuned_for_the_leaderboard_are_of_the_default_conditions(path):
    parts = read_tuning(path).parts.values()
    assert {(part.dtype, part.framing, part.decoding) for part in parts} == {("float32", "square", "greedy")}


def test_a_limit_takes_the_first_samples(small, qwen):
    assert tune(SIDED, qwen, small, "direct", limit=2).samples == 2


def test_what_cannot_be_tuned_is_refused(tmp_path, small, qwen, monkeypatch):
    with pytest.raises(InputError, match="declares no candidates"):
        tune("occlusion", qwen, small, "direct")
    without = small.select(small.configs, ["direct", "reasoning"])
    with pytest.raises(InputError, match=r"has no direct samples .* and nothing is tuned on another"):
        tune(SIDED, qwen, without, "direct")
    monkeypatch.setattr(Sided, "candidates", lambda self, lvlm: [])
    with pytest.raises(InputError, match="no candidates for phantom_qwen"):
        tune(SIDED, qwen, small, "direct")


def test_a_tuning_file_grows_and_comes_back(tmp_path, small, qwen):
    path = tmp_path / "sided.json"
    part = tune(SIDED, qwen, small, "direct", limit=1)
    first = open_tuning(path, "sided", "1", small).extended("phantom_qwen", "direct", part)
    write_document(path, first)
    second = open_tuning(path, "sided", "1", small).extended("phantom_qwen", "reasoning", part)
    write_document(path, second)
    held = read_tuning(path)
    assert held == second
    assert held.part("phantom_qwen", "reasoning", "medfocus-bench tune") == part
    assert held.split == "dev"
    assert json.loads(path.read_text())["benchmark"]["fingerprint"] == small.fingerprint


def tuning_of(path, method, bench, part):
    write_document(path, open_tuning(path, method, "1", bench).extended("phantom_qwen", "direct", part))
    return path


def test_a_tuning_file_of_something_else_is_refused(tmp_path, small, qwen):
    part = tune(SIDED, qwen, small, "direct", limit=1)
    path = tuning_of(tmp_path / "sided.json", "sided", small, part)
    other = opposed(tmp_path)
    with pytest.raises(InputError, match=r"sided\.json: is of the method sided, not refusing"):
        open_tuning(path, "refusing", "1", small)
    with pytest.raises(InputError, match=r"was tuned on small 1 .*, not on opposed 1"):
        open_tuning(path, "sided", "1", other)
    with pytest.raises(InputError, match="is of sided 1, not 2"):
        open_tuning(path, "sided", "2", small)
    methods = choose_methods([SIDED, f"{HERE}:Refusing"])
    assert Refusing.name in {method.metadata.name for method in methods}
    assert with_tuning(methods, [path], small)[0].tuning is not None
    with pytest.raises(InputError, match=r"sided\.json: was tuned on small"):
        with_tuning(methods, [path], other)
    with pytest.raises(InputError, match="which is not in this run"):
        with_tuning(choose_methods([f"{HERE}:Refusing"]), [path], small)
    with pytest.raises(InputError, match="is the second tuning file of sided"):
        with_tuning(methods, [path, path], small)
    with pytest.raises(InputError, match="side of sided is both set and tuned"):
        with_tuning(choose_methods([SIDED], ["side=left"]), [path], small)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: it is not a file"),
        ("", "is not a tuning file"),
        ("[]", "is not a tuning file"),
        ('{"format": "other"}', "is not a tuning file: /format"),
    ],
)
def test_what_is_no_tuning_file_is_refused(tmp_path, content, message):
    path = tmp_path / "t.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_tuning(path)
