"""The shipped truth: it is what the renderer says of the shipped pictures."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medfocus_bench import load_benchmark
from medfocus_bench.data.questions import Question
from medfocus_bench.phantom.build import ALL_QUESTIONS
from medfocus_bench.phantom.editor import PhantomEditor
from medfocus_bench.phantom.render import render
from medfocus_bench.phantom.track import box_of, cause_in, finding_of, patient_of
from medfocus_bench.phantom.truth import (
    EFFECTS_NAME,
    EFFECTS_SCHEMA,
    FOLDER,
    REGIONS_NAME,
    TRUTH,
    PhantomTruth,
    region_row,
    write_regions,
)
from tests.phantom.sampling import sampled

EVIDENCE = ("lesion", "spurious")
SAMPLE = range(3, len(ALL_QUESTIONS), 29)


@pytest.fixture(scope="module")
def samples():
    """One sample of each region of the shipped track."""
    return {sample.region: sample for sample in load_benchmark("phantom").samples}


@sampled("indices", SAMPLE, ALL_QUESTIONS)
def test_the_shipped_masks_are_those_of_the_renderer(indices):
    for index in indices:
        for evidence in EVIDENCE:
            phantom = render(patient_of(index, evidence))
            region = ("phantom", index, evidence)
            assert TRUTH.knows(region, phantom.image)
            np.testing.assert_array_equal(TRUTH.mask(region), cause_in(phantom, index, evidence))


def test_every_question_of_the_track_has_a_mask_in_a_small_file():
    table = pq.read_table(FOLDER / REGIONS_NAME, columns=["source", "index", "evidence"]).to_pylist()
    found = {(row["index"], row["evidence"]) for row in table}
    assert len(table) == len(found) == 2 * len(ALL_QUESTIONS)
    assert found == {(index, evidence) for index in ALL_QUESTIONS for evidence in EVIDENCE}
    assert (FOLDER / REGIONS_NAME).stat().st_size < 300e3


def test_writing_a_region_again_gives_the_shipped_row(tmp_path):
    write_regions(tmp_path, [5])
    written = pq.read_table(tmp_path / REGIONS_NAME).to_pylist()
    shipped = pq.read_table(FOLDER / REGIONS_NAME).to_pylist()
    assert [row for row in shipped if row["index"] == 5] == written
    assert written[1] == region_row(5, "spurious")


@sampled("step", 10, 1)
def test_the_box_of_a_sample_is_drawn_around_its_mask(samples, step):
    for sample in list(samples.values())[::step]:
        mask = sample.exact_mask
        assert mask is not None, sample
        assert mask.shape == (sample.height, sample.width)
        np.testing.assert_array_equal(box_of(mask, 3), sample.boxes)


@pytest.mark.parametrize("evidence", EVIDENCE)
def test_the_counterfactual_is_the_foreground_edit_of_the_causal_filter(samples, evidence):
    sample = [sample for sample in samples.values() if sample.evidence == evidence][7]
    question = Question(
        "phantom", sample.index, sample.patient_id, sample.finding, sample.image, sample.boxes, evidence
    )
    edited = PhantomEditor(patient_of).redraw(question, "foreground", sample.mask, seed=3)
    healed = sample.counterfactual
    np.testing.assert_array_equal(healed, edited)
    changed = healed != sample.image
    assert changed[sample.mask].mean() > 0.5
    assert sample.finding == finding_of(sample.index)
    healed[:] = 0
    np.testing.assert_array_equal(sample.counterfactual, edited)


def test_effects_are_those_of_the_file_and_none_without_it(tmp_path):
    assert PhantomTruth(tmp_path).effects("phantom-00000-m-direct") is None
    row = {
        "sample_id": "phantom-00000-m-direct",
        "tokens": ["Yes", "."],
        "token_effects": [4.5, -0.25],
        "concepts": ["left lung", "mediastinum"],
        "concept_effects": [4.0, 0.0],
        "drop": 4.25,
    }
    pq.write_table(pa.Table.from_pylist([row], schema=EFFECTS_SCHEMA), tmp_path / EFFECTS_NAME)
    truth = PhantomTruth(tmp_path)
    effects = truth.effects("phantom-00000-m-direct")
    assert effects is not None
    assert effects.tokens == ("Yes", ".")
    assert effects.token_effects.dtype == np.float32
    assert effects.token_effects.tolist() == [4.5, -0.25]
    assert dict(effects.concept_effects) == {"left lung": 4.0, "mediastinum": 0.0}
    assert effects.drop == 4.25
    assert truth.effects("phantom-00001-m-direct") is None
