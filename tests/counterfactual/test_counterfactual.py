"""Edits stay inside their region; the filter follows the paper's rule and can be stopped."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest

from medfocus_bench.counterfactual.causal_filter import verify
from medfocus_bench.counterfactual.editors import EDITS, edited_region
from medfocus_bench.counterfactual.records import Verification, group_shares, read_verifications
from medfocus_bench.errors import InputError
from medfocus_bench.lvlm.protocol import Response
from medfocus_bench.phantom.editor import PhantomEditor
from medfocus_bench.phantom.findings import FINDINGS
from medfocus_bench.phantom.track import patient_of, phantom_questions

from .edits import counterfactual, counterfactuals

EDITOR = PhantomEditor(patient_of)


@cache
def questions(evidence="lesion"):
    return list(phantom_questions(range(len(FINDINGS) if evidence == "lesion" else 3), evidence))


@pytest.mark.parametrize("evidence", ["lesion", "spurious"])
@pytest.mark.parametrize("edit", EDITS)
def test_pixels_outside_the_edited_region_are_the_originals(edit, evidence):
    """Trap 16."""
    for question in questions(evidence):
        edited = counterfactual(EDITOR, question, edit)
        region = edited_region(question, edit)
        assert np.array_equal(edited[~region], question.image[~region])
        assert (edited[region] != question.image[region]).any()


def test_background_and_foreground_regions_are_complements():
    question = questions()[2]
    inside, outside = edited_region(question, "foreground"), edited_region(question, "background")
    assert np.array_equal(inside, ~outside)
    x1, y1, x2, y2 = question.boxes[0].astype(int)
    assert inside.sum() == (x2 - x1) * (y2 - y1)


def test_the_foreground_edit_removes_the_lesion_and_the_sham_keeps_it():
    for question in questions():
        region = edited_region(question, "foreground")
        foreground, sham = (
            np.abs(counterfactual(EDITOR, question, edit).astype(float) - question.image)[region].mean()
            for edit in ("foreground", "sham")
        )
        assert foreground > 1.5
        assert sham < 9


def test_several_shams_differ_and_are_seeded():
    question = questions()[3]
    first, again = (counterfactuals(EDITOR, question, sham_seeds=(0, 1, 2)) for _ in range(2))
    assert list(first)[-3:] == ["sham", "sham_1", "sham_2"]
    assert not np.array_equal(first["sham"], first["sham_1"])
    assert all(np.array_equal(first[name], again[name]) for name in first)


class Careless:
    """An editor that redraws everything, or returns what it should not."""

    name, version = "careless", "1"

    def __init__(self, picture):
        self.picture = picture

    def redraw(self, question, edit, region, seed):
        return self.picture


def test_a_careless_editor_cannot_leak_into_the_rest_of_the_picture():
    question = questions()[3]
    edited = counterfactual(Careless(np.zeros_like(question.image)), question, "foreground")
    outside = ~edited_region(question, "foreground")
    assert np.array_equal(edited[outside], question.image[outside])


@pytest.mark.parametrize("picture", [np.zeros((10, 10), np.uint8), np.zeros((224, 224), np.float32)])
def test_a_picture_of_another_kind_is_an_error_that_names_the_question(picture):
    question = questions()[3]
    with pytest.raises(ValueError, match="phantom-00003-lesion"):
        counterfactual(Careless(picture), question, "foreground")


def verification(original, foreground, background, normal, sham="Yes.", odds=(3, -3, 3, 3, 3)):
    names = ("original", "foreground", "background", "background_normal", "sham")
    said = (original, foreground, background, normal, sham)
    return Verification(
        source="phantom",
        index=0,
        evidence="lesion",
        finding="mass",
        patient_id="p",
        lvlm="m",
        mode="direct",
        editor="e 1",
        responses=dict(zip(names, said, strict=True)),
        log_odds=dict(zip(names, odds, strict=True)),
    )


@pytest.mark.parametrize(
    ("answers", "group"),
    [
        (("Yes.", "No.", "Yes.", "Yes."), "grounded"),
        (("No.", "No.", "Yes.", "Yes."), "incorrect"),
        (("I cannot tell.", "No.", "Yes.", "Yes."), "incorrect"),
        (("Yes.", "Yes.", "Yes.", "Yes."), "ungrounded"),
        (("Yes.", "No.", "No.", "Yes."), "ungrounded"),
        (("Yes.", "No.", "Yes.", "No."), "ungrounded"),
        (("Yes.", "I cannot tell.", "Yes.", "Yes."), "ungrounded"),
        (("Yes.", "No effusion is seen.", "Yes.", "Yes."), "ungrounded"),
        (("Yes.", "No.", "", "Yes."), "ungrounded"),
    ],
)
def test_the_group_follows_the_papers_rule_and_no_verdict_is_no_flip(answers, group):
    assert verification(*answers).group == group


@pytest.mark.parametrize(
    ("record", "strict"),
    [
        (verification("Yes.", "No.", "Yes.", "Yes."), True),
        (verification("Yes.", "No.", "Yes.", "Yes.", sham="No."), False),
        (verification("Yes.", "No.", "Yes.", "Yes.", odds=(3, -0.5, 3, 3, 3)), False),
        (verification("Yes.", "No.", "Yes.", "Yes.", odds=(3, 3, 3, 3, 3)), False),
        (verification("Yes.", "No.", "Yes.", "Yes.", odds=(3, None, 3, 3, 3)), False),
        (verification("Yes.", "Yes.", "Yes.", "Yes."), False),
    ],
)
def test_the_strict_rule_asks_for_margins_and_for_a_quiet_sham(record, strict):
    assert record.strict is strict


class BrightnessReader:
    """Says yes where a picture's lower left is bright; counts what it was asked."""

    key, decoding, dtype = "brightness", "greedy", "float32"

    def __init__(self, fail_after=10**9):
        self.asked, self.fail_after = 0, fail_after

    def respond(self, images, questions, *, max_new_tokens=64):
        assert len(images) == len(questions)
        self.asked += len(images)
        if self.asked > self.fail_after:
            raise RuntimeError("stopped")
        return [
            Response("Yes." if image.mean() > 80 else "No.", (1,), float(image.mean()) - 80)
            for image in images
        ]


def test_a_stopped_run_goes_on_where_it_was(tmp_path):
    """Trap 33."""
    out = tmp_path / "records.jsonl"
    stopped, whole = BrightnessReader(fail_after=10), BrightnessReader()
    asked = questions()[:4]
    with pytest.raises(RuntimeError, match="stopped"):
        list(verify(asked, stopped, "direct", EDITOR, out, batch=10))
    kept = read_verifications(out)
    assert 0 < len(kept) < 4
    with out.open("a") as file:
        file.write('{"source": "pha')
    records = list(verify(asked, whole, "direct", EDITOR, out, batch=10))
    assert whole.asked == 5 * (4 - len(kept))
    assert [record.index for record in records] == list(range(4))
    assert read_verifications(out) == sorted(records, key=lambda r: r.index)


def test_records_of_another_model_are_not_continued(tmp_path):
    out = tmp_path / "records.jsonl"
    list(verify(questions()[:1], BrightnessReader(), "direct", EDITOR, out))
    with pytest.raises(InputError, match="write the records elsewhere"):
        list(verify(questions()[:1], BrightnessReader(), "reasoning", EDITOR, out))


def test_a_damaged_record_is_an_error_that_names_its_line(tmp_path):
    out = tmp_path / "records.jsonl"
    out.write_text(json.dumps({"source": "phantom"}) + "\n")
    with pytest.raises(InputError, match="line 1"):
        read_verifications(out)


def test_shares_come_with_intervals():
    records = [verification("Yes.", "No.", "Yes.", "Yes.")] * 6 + [verification(*["No."] * 4)] * 4
    shares = group_shares(records)
    values = [shares[name].value for name in ("grounded", "incorrect", "sham flips")]
    assert values == [0.6, 0.4, 0.0]
    low, high = shares["grounded"].interval
    assert 0.3 < low < 0.6 < high < 0.85
