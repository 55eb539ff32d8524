"""From a submission folder to a report, as users call it."""

from __future__ import annotations

import json
import pwd
from dataclasses import replace

import jsonschema
import numpy as np
import pytest

import medfocus_bench
from medfocus_bench import Attribution, SubmissionWriter, evaluate
from medfocus_bench.attribution.attribution import Cost
from medfocus_bench.errors import InputError, Notice, SubmissionError
from medfocus_bench.evaluation.nulls import NULL_CONTROLS
from medfocus_bench.evaluation.protocol import EVALUATOR_VERSION
from medfocus_bench.evaluation.report import Report, report_json_schema
from medfocus_bench.geometry import Frame
from medfocus_bench.submission.reader import open_submission

from ..conftest import METHOD, make_row, write_submission

SIZES = [(224, 224), (512, 400), (3056, 2544), (101, 997)]
QUICK = {"resamples": 200}


def varied_rows(count=40):
    rng = np.random.default_rng(0)
    for number in range(count):
        width, height = SIZES[number % 4]
        sides = rng.uniform(0.3, 0.5, 2) * [width, height]
        corner = rng.random(2) * ([width, height] - sides)
        yield make_row(
            number,
            width=width,
            height=height,
            boxes=[np.concatenate([corner, corner + sides]).tolist()],
            lvlm=["tiny_a", "tiny_b"][number % 2],
            finding=["nodule", "mass", "effusion"][number % 3],
            evidence=["lesion", "lesion", "spurious"][number % 3],
            patient_id=f"p{number // 2}",
        )


def coverage(sample):
    frame = Frame(sample.width, sample.height)
    return frame.embed(frame.coverage(sample.boxes))


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "bench"
    return medfocus_bench.write_benchmark(folder, {"direct": varied_rows()}, name="bench", version="1.0.0")


@pytest.fixture(scope="module")
def folder(benchmark, tmp_path_factory):
    """A submission of perfect maps."""
    return write_submission(tmp_path_factory.mktemp("submissions") / "s", benchmark, coverage)


@pytest.fixture(scope="module")
def report(benchmark, folder):
    return evaluate(folder, benchmark, **QUICK)


def test_a_perfect_submission_of_boxes_is_perfect(benchmark, tmp_path):
    folder = write_submission(tmp_path / "s", benchmark, lambda sample: sample.boxes, "boxes")
    report = evaluate(folder, benchmark, nulls=False, **QUICK)
    for name in ("iou", "evidence_ap", "corrected_iou", "auroc", "pointing"):
        score = report.headline[name]
        assert (score.mean, score.low, score.high) == pytest.approx((1, 1, 1)), name
    assert report.counts.coverage == 1.0
    assert report.counts.no_explanation_rate == 0.0


@pytest.mark.parametrize(("said", "counted"), [(np.ones((9, 9), np.uint8), (0, 40)), (None, (40, 0))])
def test_what_explains_nothing_scores_zero_and_is_counted(benchmark, tmp_path, said, counted):
    folder = write_submission(tmp_path / "s", benchmark, lambda sample: said)
    report = evaluate(folder, benchmark, nulls=False, **QUICK)
    assert all(score.mean == score.low == score.high == 0 for score in report.headline.values())
    assert report.counts.no_explanation_rate == 1.0
    assert (report.counts.missing, report.counts.no_explanation) == counted


def test_missing_samples_pull_the_mean_down(benchmark, tmp_path):
    half = write_submission(
        tmp_path / "s", benchmark, lambda sample: sample.boxes if sample.index < 20 else None, "boxes"
    )
    report = evaluate(half, benchmark, nulls=False, **QUICK)
    assert report.slice("pooled").scores["iou"].mean == 0.5
    assert report.counts.missing == 20


def test_the_whole_image_null_is_at_chance(report):
    whole = next(null for null in report.nulls if null.name == "whole-image").slices[0].scores
    assert whole["evidence_ap"].mean == pytest.approx(0, abs=1e-9)
    assert whole["corrected_iou"].mean == pytest.approx(0, abs=1e-9)
    assert whole["precision_lift"].mean == pytest.approx(1, abs=1e-9)


def test_every_null_control_stands_in_the_report_or_is_explained_without_a_path(report):
    assert [null.name for null in report.nulls] == list(NULL_CONTROLS)
    assert {null.name: null.unavailable for null in report.nulls if null.unavailable} == {
        "both-lungs": "phantom-00000-tiny_a-direct has no box of the left lung (column anatomy)",
        "image-edges": "phantom-00000-tiny_a-direct has no image (column image)",
    }


def test_slices_cover_everything_that_was_promised(report):
    found = {(part.kind, part.value): part.samples for part in report.slices}
    assert found["source", "phantom"] == found["mode", "direct"] == 40
    assert found["lvlm", "tiny_a"] == found["cell", "tiny_b / phantom"] == 20
    assert {value for kind, value in found if kind == "finding"} == {"nodule", "mass", "effusion"}
    assert found["evidence", "lesion"] + found["evidence", "spurious"] == 40
    sizes = [count for (kind, _), count in found.items() if kind == "size"]
    assert len(sizes) == 3
    assert max(sizes) - min(sizes) <= 2


def test_thirds_of_region_size_are_of_regions_however_many_models_were_asked_about_one(
    make_benchmark, tmp_path
):
    rows = [make_row(0, lvlm=f"tiny_{number}", boxes=[[0, 0, 20, 20]]) for number in range(10)]
    rows += [make_row(number, boxes=[[0, 0, 60 * number, 80]]) for number in (1, 2)]
    benchmark = make_benchmark(rows)
    folder = write_submission(tmp_path / "s", benchmark, coverage)
    report = evaluate(folder, benchmark, nulls=False, **QUICK)
    found = {part.value: part.samples for part in report.slices if part.kind == "size"}
    assert found == {"1 small": 10, "2 medium": 1, "3 large": 1}


def test_only_the_declared_splits_are_scored(tmp_path):
    rows = list(varied_rows(8))
    reasoning = [row | {"sample_id": row["sample_id"] + "-r", "mode": "reasoning"} for row in rows]
    whole = medfocus_bench.write_benchmark(
        tmp_path / "b", {"direct": rows, "reasoning": reasoning}, name="b", version="1"
    )
    part = whole.select(["phantom"], ["reasoning"])
    folder = write_submission(tmp_path / "s", part, lambda sample: sample.boxes, "boxes")
    report = evaluate(folder, whole.folder, nulls=False, **QUICK)
    assert report.counts.samples == 8
    assert report.benchmark.splits == ["reasoning"]


def test_a_report_survives_its_json_and_fits_its_schema(report):
    text = report.model_dump_json()
    assert Report.model_validate_json(text) == report
    schema = report_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(json.loads(text))


def test_a_report_says_where_it_comes_from(benchmark, folder, report):
    verified = evaluate(folder, benchmark, seed=3, verified=True, nulls=False, **QUICK)
    origin = verified.provenance
    assert (origin.protocol, origin.seed, origin.resamples) == ("standard", 3, 200)
    assert origin.status == "verified"
    assert origin.evaluator_version == EVALUATOR_VERSION == "2.0"
    assert verified.benchmark.fingerprint == benchmark.fingerprint
    assert report.provenance.status == "self-reported"


def test_the_same_input_gives_the_same_report_with_and_without_a_cache(
    benchmark, folder, report, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    assert evaluate(folder, benchmark, **QUICK) == report
    assert evaluate(folder, benchmark, **QUICK) == report
    for kept in (tmp_path / "empty").rglob("*.json"):
        kept.write_text("{damaged")
    assert evaluate(folder, benchmark, **QUICK) == report


def few(benchmark, tmp_path):
    """A part of four samples, with a submission to it."""
    part = replace(benchmark, samples=benchmark.samples[:4])
    return write_submission(tmp_path / "s", part, coverage), part


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(benchmark, tmp_path, monkeypatch):
    folder, part = few(benchmark, tmp_path)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.warns(Notice, match="so that the scores of the null controls are not kept"):
        assert evaluate(folder, part, **QUICK).nulls


def test_a_user_without_a_home_has_no_cache(benchmark, tmp_path, monkeypatch):
    def no_entry(user):
        raise KeyError(user)

    folder, part = few(benchmark, tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", no_entry)
    assert evaluate(folder, part, **QUICK).nulls


def test_null_scores_of_other_samples_under_the_same_identity_are_not_read(benchmark, tmp_path):
    """A part may be cut out in other ways than by config and split."""
    folder, half = few(benchmark, tmp_path)
    for part in (benchmark, half):
        (row,) = {null.slices[0].samples for null in evaluate(folder, part, **QUICK).nulls if null.slices}
        assert row == len(part.samples)


def test_a_null_control_is_no_submission_to_evaluate(benchmark):
    with pytest.raises(InputError, match="`compare` takes one"):
        evaluate("null:whole-image", benchmark)


def test_another_version_of_the_benchmark_is_refused_unless_told(folder, make_benchmark):
    rows = list(varied_rows())
    rows[0]["boxes"] = [[1.0, 1.0, 50.0, 50.0]]
    newer = make_benchmark(rows)
    with pytest.raises(SubmissionError, match="fingerprint"):
        evaluate(folder, newer, **QUICK)
    assert evaluate(folder, newer, any_version=True, nulls=False, **QUICK).counts.samples == 40


def test_costs_are_averaged_over_the_samples_that_state_them(benchmark, tmp_path):
    with SubmissionWriter(tmp_path / "s", METHOD, benchmark, submitters=["tests"]) as writer:
        for sample in benchmark.samples:
            cost = Cost(forward_passes=sample.index % 2 + 1) if sample.index < 20 else None
            writer.add(Attribution(sample.sample_id, boxes=sample.boxes, **({"cost": cost} if cost else {})))
    cost = evaluate(tmp_path / "s", benchmark, nulls=False, **QUICK).cost
    assert (cost.forward_passes, cost.backward_passes, cost.seconds) == (1.5, None, None)


def test_the_paper_protocol_reports_the_papers_four_scores(benchmark, tmp_path):
    folder = write_submission(tmp_path / "s", benchmark, lambda sample: sample.boxes, "boxes")
    report = evaluate(folder, benchmark, protocol="paper", nulls=False, **QUICK)
    assert list(report.headline) == ["iou", "f1", "precision", "recall"]
    assert report.headline["iou"].mean == 1.0


def test_attributions_in_any_order_are_scored_as_the_submission_that_holds_them(benchmark, folder, report):
    submission = open_submission(folder, benchmark)
    given = evaluate(list(submission)[::-1], benchmark, method=submission.document.method, **QUICK)
    assert (given.slices, given.nulls, given.counts) == (report.slices, report.nulls, report.counts)
    assert given.method == report.method
    assert evaluate(submission, benchmark, nulls=False, **QUICK).slices == report.slices
    again = evaluate(iter(submission), benchmark, nulls=False, **QUICK)
    assert again.provenance.submission_sha256 == given.provenance.submission_sha256
    assert again.method.name == "unnamed"


def test_attributions_that_are_not_there_score_zero_in_the_splits_of_those_that_are(benchmark):
    part = [sample for sample in benchmark.samples if sample.lvlm == "tiny_a"]
    some = [Attribution(sample.sample_id, boxes=sample.boxes) for sample in part]
    report = evaluate(some, benchmark, nulls=False, **QUICK)
    assert (report.counts.samples, report.counts.attributed) == (40, 20)
    assert report.headline["iou"].mean == 0.5
    limited = evaluate(some, benchmark, lvlms="tiny_a", nulls=False, **QUICK)
    assert (limited.counts.samples, limited.headline["iou"].mean) == (20, 1.0)


def test_attributions_of_no_sample_or_of_one_twice_are_refused(benchmark):
    sample = benchmark.samples[0]
    one = Attribution(sample.sample_id, boxes=sample.boxes)
    for given, said in (
        ([Attribution("elsewhere", boxes=sample.boxes)], "elsewhere: not a sample of"),
        ([Attribution(boxes=sample.boxes)], "an Attribution without sample_id: not a sample of"),
        ([one, one], f"{sample.sample_id}: a second attribution"),
        ([sample], "is not an Attribution"),
        ([], "no attributions to score"),
    ):
        with pytest.raises(InputError, match=said):
            evaluate(given, benchmark, **QUICK)


def test_the_digest_of_attributions_is_of_their_words_too(benchmark):
    def digest(**words):
        given = [Attribution(s.sample_id, boxes=s.boxes, **words) for s in benchmark.samples]
        return evaluate(given, benchmark, nulls=False, resamples=10).provenance.submission_sha256

    plain = digest()
    assert len({plain, digest(tokens=[("Yes", 1.0)]), digest(concepts={"left lung": 1.0})}) == 3
    assert digest(concepts={"left lung": np.float32(1)}) == digest(concepts={"left lung": 1.0})
    assert digest(tokens=()) == plain
