"""The published records: counted as the paper counts them, refused where they are not what they should be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medfocus_bench.counterfactual.dataset import pointer_row
from medfocus_bench.data import medground
from medfocus_bench.errors import InputError
from medfocus_bench.lvlm.models import PAPER_LVLMS

TABLE = {
    # method.md, section 2, direct mode, in the order of `MODELS`
    "imagenome": (105, 55, 42, 97, 279, 226),
    "vindr_cxr": (30, 44, 107, 80, 93, 79),
    "padchest_gr": (64, 43, 73, 105, 190, 168),
}


def record(suffix: str = "direct", **more: Any) -> dict[str, Any]:
    said = {"": "Yes.\n", "_edited": "No.\n", "_edited_kept": "Yes.", "_edited_kept_normal": "Yes"}
    texts = {f"prediction{stem}_{suffix}": text for stem, text in said.items()}
    return {"model": "gemma3_4b", "dataset": "imagenome", "index": 7, "answer": "Yes", **texts} | more


def write(path: Path, *records: object) -> Path:
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


def test_all_published_records_import_and_are_counted_as_in_the_paper(real_data):
    records = medground.read_records([real_data / "medground" / "direct.json"])
    found = medground.counts(records)
    assert len(records) == 1880
    assert {
        source: tuple(found["direct", source][m] for m in medground.MODELS.values()) for source in TABLE
    } == TABLE
    assert medground.distinct_questions(records) == 1266
    assert medground.disagreements(records) == []
    assert {record.group for record in records} == {"grounded"}


def test_responses_are_kept_to_the_letter(real_data):
    """Trap 2: 54 % of the published responses end in a newline, which is part of what was written."""
    records = medground.read_records([real_data / "medground" / "direct.json"])
    ending = sum(pointer_row(record)["response"].endswith("\n") for record in records)
    assert round(100 * ending / len(records)) == 54


def test_every_model_is_one_of_the_registry():
    """One is spelled otherwise in the records; a sample must name the key by which its model is loaded."""
    assert set(medground.MODELS.values()) == set(PAPER_LVLMS)


def test_the_mode_is_told_by_the_fields(tmp_path):
    (direct,) = medground.read_records([write(tmp_path / "a", record())])
    (reasoning,) = medground.read_records([write(tmp_path / "b", record("cot"))])
    assert (direct.mode, reasoning.mode) == ("direct", "reasoning")
    assert pointer_row(reasoning)["sample_id"] == "imagenome-00007-gemma3_4b-reasoning"


def test_a_pointer_says_nothing_of_the_source_but_its_name_and_the_rank(tmp_path):
    (one,) = medground.read_records([write(tmp_path / "a", record())])
    held = {key for key, value in pointer_row(one).items() if value is not None}
    assert not held & {"patient_id", "image", "image_ref", "width", "height", "finding", "question", "boxes"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "gpt"}, "model 'gpt' is not one of"),
        ({"model": ["a"]}, "model .* is not one of"),
        ({"dataset": "nih"}, "dataset 'nih' is not one of"),
        ({"index": -1}, "index -1 is not a rank"),
        ({"index": 1405}, "index 1405 is not a rank within the 1,405"),
        ({"index": True}, "index True is not a rank"),
        ({"index": 1.0}, r"index 1\.0 is not a rank"),
        ({"answer": "No"}, "answer 'No' is not 'Yes'"),
        ({"prediction_edited_direct": None}, "prediction_edited_direct is not a text"),
        ({"prediction_direct": ""}, "prediction_direct is not a text"),
        ({"prediction_direct": "x" * 200_000}, "prediction_direct is not a text"),
        ({"boxes": []}, "has the unknown field 'boxes'"),
    ],
)
def test_a_record_that_is_wrong_is_named_with_its_number(tmp_path, change, message):
    path = write(tmp_path / "a.json", record(), record(index=8) | change)
    with pytest.raises(InputError, match=rf"a\.json: record 2: {message}"):
        medground.read_records([path])


def test_all_problems_are_listed_at_once(tmp_path):
    lacking = record(index=9)
    del lacking["prediction_edited_kept_direct"]
    path = write(tmp_path / "a.json", record(), 7, {}, lacking, record())
    with pytest.raises(InputError) as caught:
        medground.read_records([path])
    assert [problem.partition(": ")[2] for problem in caught.value.problems] == [
        "record 2: is not an object but int",
        "record 3: has neither prediction_direct nor prediction_cot",
        "record 4: lacks prediction_edited_kept_direct",
        f"record 5: is the same sample as {path}: record 1",
    ]


@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 100_000, b"\xff", b"[]", b"[1,]"])
def test_a_file_that_holds_no_records_is_refused(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputError):
        medground.read_records([path])


@pytest.mark.parametrize(
    ("change", "group"),
    [
        ({"prediction_direct": "No."}, "incorrect"),
        ({"prediction_direct": "I cannot tell."}, "incorrect"),
        ({"prediction_edited_direct": "Yes."}, "ungrounded"),
        ({"prediction_edited_direct": "Unclear"}, "ungrounded"),
        ({"prediction_edited_kept_normal_direct": "No"}, "ungrounded"),
    ],
)
def test_answers_that_disagree_with_the_group_are_reported(tmp_path, change, group):
    """Trap 14: parsed again, not believed."""
    records = medground.read_records([write(tmp_path / "a.json", record(), record(index=8) | change)])
    (problem,) = medground.disagreements(records)
    assert problem.endswith(f"record 2: is published as grounded, but its answers say {group}")
    assert pointer_row(records[1])["group"] == group
