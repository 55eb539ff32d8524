"""Dependence on the model and contrast: 0 for whatever does not read it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medfocus_bench import Attribution, SubmissionWriter, evaluate, load_benchmark
from medfocus_bench.data.truth import installed_truths
from medfocus_bench.errors import InputError
from medfocus_bench.evaluation.contrast import contrast_of, contrasts, mark_evidence, pairs_of
from medfocus_bench.evaluation.dependence import (
    Compared,
    dependence_of,
    influences,
    rank_correlation,
)
from medfocus_bench.evaluation.derived_splits import contrast_on, dependence_on
from medfocus_bench.evaluation.groups import Groups
from medfocus_bench.evaluation.protocol import Settings
from medfocus_bench.evaluation.report import Report
from tests.conftest import METHOD

SETTINGS = Settings(resamples=200)


@pytest.fixture(scope="module")
def phantom():
    return load_benchmark("phantom")


@pytest.fixture(scope="module")
def control(phantom):
    return phantom.derived.control


@pytest.fixture(scope="module")
def by_id(phantom):
    return {sample.sample_id: sample for sample in phantom.known_samples}


def noise(sample_id: str) -> Attribution:
    rng = np.random.default_rng(list(sample_id.encode()))
    return Attribution(sample_id, saliency=rng.random((16, 16)).astype(np.float32))


def mask_of(sample) -> Attribution:
    return Attribution(sample.sample_id, saliency=sample.mask.astype(np.float32))


def picture_detector(by_id):
    """Finds the finding in the picture, whatever the model: a double of a detector that needs no model."""
    return lambda name: mask_of(by_id[name])


def model_reader(by_id):
    """Finds the cause where the trained LVLM is asked, and nothing with a random decoder."""
    return lambda name: noise(name) if "@random" in name else mask_of(by_id[name])


def test_a_method_that_finds_nothing_with_a_random_decoder_depends_on_the_model(control, by_id):
    found = dependence_of(model_reader(by_id), control, SETTINGS)
    assert found.trained.mean > 0.99
    assert abs(found.random.mean) < 0.05
    assert found.model_dependence.mean > 0.95
    assert found.model_dependence.low > 0.85
    assert found.ranked
    assert found.reason is None
    assert abs(found.rank_correlation.mean) < 0.1
    assert (found.questions, found.attributed) == (160, 160)
    assert set(found.lvlms) == {s.lvlm.partition("@")[0] for s in control}
    assert all(one.model_dependence > 0.8 for one in found.lvlms.values())


def test_a_detector_that_looks_at_the_picture_alone_does_not_and_is_not_ranked(control, by_id):
    found = dependence_of(picture_detector(by_id), control, SETTINGS)
    assert found.trained.mean > 0.99
    assert found.model_dependence.model_dump() == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert found.rank_correlation.mean == pytest.approx(1)
    assert not found.ranked
    assert found.reason.startswith("its dependence on the model is 0.00, below 0.5")


def test_null_controls_depend_on_no_model_and_have_no_contrast(phantom):
    part = phantom.part((), ["direct", "reasoning"])
    dependence = dependence_on(phantom, part, lambda name: None, SETTINGS)
    assert dependence.nulls == {"mean-map": 0.0, "image-edges": 0.0}
    contrast = contrast_on(phantom, ("phantom",), lambda name: None, SETTINGS)
    assert set(contrast.nulls) == {"mean-map", "image-edges"}
    for null in contrast.nulls.values():
        assert null.low <= 0 <= null.high
        assert abs(null.mean) < 1e-12


def test_leaving_questions_out_makes_no_method_look_better(control, by_id):
    reader = model_reader(by_id)
    found = dependence_of(lambda name: None if "@random" in name else reader(name), control, SETTINGS)
    assert found.model_dependence.mean == 0
    assert found.rank_correlation is None
    assert not found.ranked
    assert found.reason == "only 0 of 160 questions of control are attributed for both decoders"
    some = {sample.sample_id for sample in control[::2]}
    part = dependence_of(
        lambda name: None if "@random" in name and name not in some else reader(name), control, SETTINGS
    )
    assert 0.3 < part.model_dependence.mean < 0.7
    assert part.attributed == 80
    assert not part.ranked


def test_saying_nothing_with_a_random_decoder_is_no_evidence_found(control, by_id):
    empty = np.zeros((0, 4))
    found = dependence_of(
        lambda name: Attribution(name, boxes=empty if "@random" in name else by_id[name].boxes),
        control,
        SETTINGS,
    )
    assert found.random.mean == 0
    assert found.model_dependence.mean == 1


def test_silence_with_a_random_decoder_buys_no_rank(control, by_id):
    """Neither maps that are flat wherever the decoder is random, nor on most or half of the questions."""
    flat = np.ones((4, 4), dtype=np.float32)

    def silent_but_for(said):
        return lambda name: (
            Attribution(name, saliency=flat)
            if "@random" in name and name not in said
            else mask_of(by_id[name])
        )

    ids = [sample.sample_id for sample in control]
    never, seldom, half = (
        dependence_of(silent_but_for(set(said)), control, SETTINGS) for said in ((), ids[::8], ids[::2])
    )
    assert (never.explained, never.where_explained) == ((160, 0), None)
    assert never.model_dependence.mean == 1
    assert "on 0 questions of control with a random decoder" in never.reason
    assert seldom.model_dependence.mean > 0.5
    assert "on 20 questions of control with a random decoder, and on 160" in seldom.reason
    assert half.where_explained.mean == pytest.approx(0, abs=1e-6)
    assert [never.ranked, seldom.ranked, half.ranked] == [False, False, False]
    reader = model_reader(by_id)
    honest = dependence_of(
        lambda name: Attribution(name, saliency=flat) if name in ids[::2] else reader(name), control, SETTINGS
    )
    assert honest.ranked
    assert honest.where_explained.mean > 0.9


def test_where_nothing_is_found_with_the_trained_decoder_nothing_depends_on_it(control):
    flat = np.ones((4, 4), dtype=np.float32)
    found = dependence_of(lambda name: Attribution(name, saliency=flat), control, SETTINGS)
    assert found.trained.mean == found.random.mean == found.model_dependence.mean == 0
    assert found.rank_correlation.mean == 1, "both say the same, which is nothing"
    assert not found.ranked
    assert found.reason == "it finds nothing that could depend on the model"


def test_the_mean_influence_of_a_cell_is_its_dependence_and_never_less_than_0(control):
    rng = np.random.default_rng(0)
    trained, random = rng.random((2, len(control)))
    said = np.ones((len(control), 2), dtype=np.bool_)
    compared = Compared(trained, random * 0.4, np.zeros(len(control)), said)
    group = Groups.of(control).macro()
    values = influences(compared, group)
    for members in group.cells:
        wanted = 1 - compared.random[members].mean() / trained[members].mean()
        assert values[members].mean() == pytest.approx(wanted)
    assert influences(Compared(trained, trained + 0.1, trained, said), group).mean() == pytest.approx(0)
    assert influences(Compared(trained, -random, trained, said), group).mean() == pytest.approx(1)
    assert not influences(Compared(-trained, random, trained, said), group).any()


def test_the_interval_of_the_dependence_covers_that_of_many_such_samples(control):
    """The delta method against draws of the questions themselves."""
    rng = np.random.default_rng(1)
    trained = rng.uniform(0.2, 1, len(control))
    random = trained * rng.uniform(0, 0.6, len(control))
    group = Groups.of(control, by=()).macro()
    values = influences(Compared(trained, random, trained, np.ones((len(control), 2), np.bool_)), group)
    drawn = rng.integers(len(control), size=(4000, len(control)))
    ratios = 1 - random[drawn].mean(1) / trained[drawn].mean(1)
    assert values.std() / len(control) ** 0.5 == pytest.approx(ratios.std(), rel=0.05)


def test_rank_correlation_is_of_ranks():
    rng = np.random.default_rng(2)
    first = rng.random((40, 40)).astype(np.float32)
    assert rank_correlation(first, np.exp(first)) == pytest.approx(1)
    assert rank_correlation(first, -first) == pytest.approx(-1)
    assert abs(rank_correlation(first, rng.random((40, 40)).astype(np.float32))) < 0.3
    assert rank_correlation(first, np.zeros_like(first)) == 0


def both_ways(by_id, phantom, *, right: bool):
    """The mask of the cause that each LVLM of a pair goes by, or that of the other's."""
    truth = installed_truths()["phantom"]
    causes = {(asked.region, asked.lvlm): asked.cause for asked in truth.contrast()}

    def find(name: str) -> Attribution:
        sample = by_id[name]
        finding = (causes[sample.region, sample.lvlm] == "finding") == right
        mask = sample.mask if finding else truth.mark(sample.region)
        return Attribution(name, saliency=mask.astype(np.float32))

    return find


def test_contrast_is_one_for_the_causes_minus_one_for_those_of_the_other_and_0_for_a_detector(phantom, by_id):
    samples = phantom.derived.contrast
    right, wrong = (
        contrast_of(both_ways(by_id, phantom, right=which), samples, SETTINGS) for which in (True, False)
    )
    assert right.contrast.mean > 0.95
    assert wrong.contrast.mean == pytest.approx(-right.contrast.mean)
    assert set(right.pairs) == {"phantom_qwen", "phantom_gemma"}
    assert (right.questions, right.attributed, right.pictures) == (
        len(samples),
        len(samples),
        len(samples) // 2,
    )
    detector = contrast_of(picture_detector(by_id), samples, SETTINGS)
    assert detector.contrast.model_dump() == {"mean": 0.0, "low": 0.0, "high": 0.0}
    guessing = contrast_of(noise, samples, SETTINGS)
    assert guessing.contrast.low < 0 < guessing.contrast.high


def test_the_contrast_of_a_picture_is_that_of_its_formula(phantom, by_id):
    pair = pairs_of(phantom.derived.contrast)[3]
    finding = pair.by_finding.mask.astype(np.float32)
    assert (
        mark_evidence(pair.by_mark).pixels.sum()
        == installed_truths()["phantom"].mark(pair.by_mark.region).sum()
    )
    right = {
        pair.by_finding.sample_id: Attribution(pair.by_finding.sample_id, saliency=finding),
        pair.by_mark.sample_id: Attribution(pair.by_mark.sample_id, saliency=np.ones((2, 2), np.float32)),
    }
    (half,) = contrasts(right.get, [pair])
    (none,) = contrasts({}.get, [pair])
    assert half == pytest.approx(0.5, abs=0.06)
    assert none == 0
    del right[pair.by_mark.sample_id]
    assert contrasts(right.get, [pair]).tolist() == [0.0], "a detector of findings would have this half, too"


def test_a_pair_of_which_one_is_missing_is_none(phantom):
    samples = phantom.derived.contrast
    assert len(pairs_of(samples[1:])) == len(pairs_of(samples)) - 1
    assert contrast_of(noise, [replace(samples[0], source="other")], SETTINGS) is None


def written(folder, benchmark, find):
    with SubmissionWriter(folder, METHOD, benchmark, submitters="Ada") as writer:
        for sample in benchmark.samples:
            writer.add(find(sample.sample_id))
    return folder


def test_derived_splits_are_sections_of_a_report_and_no_part_of_the_localisation(phantom, by_id, tmp_path):
    part = phantom.of_lvlms(["phantom_qwen"])
    whole = part.part((), ["direct", "control", "contrast"])

    def find(name: str) -> Attribution:
        return noise(name) if "@random" in name else Attribution(name, boxes=by_id[name].boxes)

    options = {"nulls": False, "resamples": 50}
    bare = evaluate(written(tmp_path / "bare", part.part((), ["direct"]), find), phantom, **options)
    full = evaluate(written(tmp_path / "full", whole, find), phantom, **options)
    assert bare.dependence is bare.contrast is None
    assert full.slices == bare.slices
    assert full.counts == bare.counts
    assert full.benchmark == bare.benchmark
    assert full.dependence.questions == 80, "the trained LVLMs are asked directly alone"
    assert full.contrast.contrast.mean == 0
    streamed = evaluate((find(sample.sample_id) for sample in whole.samples), phantom, **options)
    assert (streamed.dependence, streamed.contrast) == (full.dependence, full.contrast)
    assert streamed.slices == full.slices
    one = evaluate(tmp_path / "full", phantom, lvlms="phantom_qwen", **options)
    assert set(one.dependence.lvlms) == {"phantom_qwen"}
    assert one.dependence.model_dependence.mean > 0.9
    assert one.dependence.ranked
    assert one.contrast is None
    assert Report.model_validate_json(full.model_dump_json()) == full
    paper = evaluate(tmp_path / "full", phantom, lvlms="phantom_qwen", protocol="paper", **options)
    assert paper.dependence is paper.contrast is None


def test_a_submission_of_derived_splits_alone_cannot_be_scored(phantom, tmp_path):
    part = phantom.part((), ["control"])
    folder = written(tmp_path / "s", part, noise)
    with pytest.raises(InputError, match="covers control alone, which say nothing"):
        evaluate(folder, phantom)
