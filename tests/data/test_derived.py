"""The splits `control` and `contrast`, which no file holds."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from medfocus_bench import Attribution, SubmissionWriter, load_benchmark, validate
from medfocus_bench.answers import parse_verdict
from medfocus_bench.data import truth
from medfocus_bench.data.derived import CONTROL_QUESTIONS
from medfocus_bench.data.questions import MODES
from medfocus_bench.data.writing import write_benchmark
from medfocus_bench.errors import InputError, UnavailableError
from medfocus_bench.phantom import PHANTOM_LVLMS
from medfocus_bench.phantom.contrast import QUESTIONS
from medfocus_bench.phantom.truth import SECOND_NAMES, TRUTH
from medfocus_bench.submission.reader import open_submission
from tests.conftest import METHOD, make_row


@pytest.fixture(scope="module")
def phantom():
    return load_benchmark("phantom")


def test_derived_splits_are_samples_only_where_they_are_asked_for_by_name(phantom):
    assert phantom.splits == ("dev", "direct", "reasoning")
    assert phantom.known_splits == ("dev", "direct", "reasoning", "control", "contrast")
    both = load_benchmark("phantom", split=["control", "direct"])
    assert both.splits == ("control", "direct")
    assert both.fingerprint == phantom.fingerprint
    assert both.select(both.configs, ["control"]).splits == ("control",)
    # Of a part the derived splits are those of the whole.
    of_part = phantom.part((), ["dev"]).part((), ["control"])
    assert [s.sample_id for s in of_part.samples] == [
        s.sample_id for s in load_benchmark("phantom", split="control").samples
    ]


def test_control_has_twenty_questions_of_each_lvlm_and_mode_with_the_same_picture_and_response(phantom):
    control = load_benchmark(phantom, split="control").samples
    counts = Counter((sample.lvlm, sample.mode) for sample in control)
    assert counts == {(f"{key}@random", mode): CONTROL_QUESTIONS for key in PHANTOM_LVLMS for mode in MODES}
    by_id = {sample.sample_id: sample for sample in phantom.samples}
    for sample in control:
        trained = by_id[sample.derived_from]
        assert trained.split in MODES, "dev is for tuning"
        assert sample.sample_id == f"phantom-{sample.index:05d}-{sample.lvlm}-{sample.mode}"
        assert sample.lvlm == f"{trained.lvlm}@random"
        assert (sample.region, sample.patient, sample.finding) == (
            trained.region,
            trained.patient,
            trained.finding,
        )
        assert sample.mask is trained.mask
    for sample in control[::20]:
        trained = by_id[sample.derived_from]
        np.testing.assert_array_equal(sample.image, trained.image)
        assert (sample.question, sample.response) == (trained.question, trained.response)
        assert sample.tokens is None, "the effects are those of the trained LVLM"


def test_the_questions_of_control_are_spread_over_the_findings_and_do_not_depend_on_the_order(phantom):
    control = phantom.derived.control
    for lvlm, mode in {(sample.lvlm, sample.mode) for sample in control}:
        findings = Counter(s.finding for s in control if (s.lvlm, s.mode) == (lvlm, mode))
        assert len(findings) == 11
        assert max(findings.values()) <= 3
    again = type(phantom.derived)(phantom.samples[::-1]).control
    assert {s.sample_id for s in again} == {s.sample_id for s in control}


def test_control_is_of_any_benchmark_with_pictures_or_without(tmp_path):
    rows = [make_row(n, source="own", finding=f"finding {n % 3}", response="Yes.") for n in range(50)]
    bench = write_benchmark(tmp_path / "b", {"direct": rows}, name="b", version="1")
    control = load_benchmark(bench, split="control").samples
    assert len(control) == CONTROL_QUESTIONS
    assert set(Counter(sample.finding for sample in control).values()) == {6, 7}
    assert control[0].response == "Yes."
    with pytest.raises(InputError, match="no split 'contrast' in b 1, only direct, control"):
        load_benchmark(bench, split="contrast")


def test_a_response_that_the_benchmark_lacks_cannot_be_forced_on_a_random_decoder(tmp_path):
    bench = write_benchmark(tmp_path / "b", {"direct": [make_row(1)]}, name="b", version="1")
    (sample,) = load_benchmark(bench, split="control").samples
    with pytest.raises(UnavailableError, match="does not hold the response"):
        _ = sample.response


def test_a_benchmark_of_dev_alone_has_no_control(tmp_path):
    bench = write_benchmark(tmp_path / "b", {"dev": [make_row(1)]}, name="b", version="1")
    assert bench.known_splits == ("dev",)
    with pytest.raises(InputError, match="no split 'control'"):
        load_benchmark(bench, split="control")


def test_contrast_puts_one_picture_with_both_causes_to_both_of_a_pair(phantom):
    contrast = phantom.derived.contrast
    counts = Counter(sample.lvlm for sample in contrast)
    assert set(counts) == set(SECOND_NAMES)
    assert all(25 <= count <= QUESTIONS for count in counts.values())
    asked = {(question.region, question.lvlm): question for question in TRUTH.contrast()}
    for first, second in zip(contrast[::2], contrast[1::2], strict=True):
        assert first.region == second.region
        assert first.question == second.question
        questions = [asked[sample.region, sample.lvlm] for sample in (first, second)]
        assert len({question.pair for question in questions}) == 1
        assert {question.cause for question in questions} == {"finding", "mark"}
        for sample in (first, second):
            assert sample.lvlm in SECOND_NAMES
            assert parse_verdict(sample.response or "") == "yes"
            assert sample.sample_id == f"phantom-{sample.index:05d}-{sample.lvlm}-direct"
        mark = TRUTH.mark(first.region)
        assert mark.any()
        assert not (mark & first.mask).any()


def test_where_the_pictures_are_others_there_is_no_contrast(phantom, monkeypatch):
    samples = phantom.part((), ["direct"]).samples
    monkeypatch.setattr(truth, "_CHECKED", {})
    monkeypatch.setattr(type(TRUTH), "knows", lambda self, region, picture: False)
    assert type(phantom.derived)(samples).contrast == ()


def test_a_submission_covers_derived_splits_by_name(phantom, tmp_path):
    part = load_benchmark(phantom, split=["control", "contrast"])
    with SubmissionWriter(tmp_path / "s", METHOD, part, submitters="Ada") as writer:
        for sample in part.samples:
            writer.add(Attribution(sample.sample_id, boxes=sample.boxes))
    found = validate(tmp_path / "s", phantom)
    assert (found, found.counts.samples, found.warnings) == ([], len(part.samples), [])
    assert open_submission(tmp_path / "s", phantom).document.benchmark.splits == ["contrast", "control"]
