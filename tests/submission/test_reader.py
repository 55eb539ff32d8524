"""Opening a submission: everything is checked first, then read one attribution at a time."""

from __future__ import annotations

import hashlib
import json

import pytest

from medfocus_bench.errors import InputError, SubmissionError
from medfocus_bench.submission.reader import open_submission, validate
from medfocus_bench.submission.schema import BOX_TOLERANCE

from .documents import (
    MAPS,
    WITH_BOXES,
    WITH_MAP,
    changed,
    entry,
    safetensors,
    sound_document,
    write_folder,
)

BOX = ("attributions", 0, "boxes", 0)


@pytest.fixture
def folder(tmp_path, bench):
    return write_folder(tmp_path / "mine", sound_document(bench))


def test_a_sound_submission_is_read_whole(folder, bench):
    path = folder / "submission.json"
    submission = open_submission(path, bench)
    assert (len(submission), submission.path) == (2, path)
    assert submission.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert submission.attribution("other") is None
    boxes, saliency = submission.attribution(WITH_BOXES), submission.attribution(WITH_MAP)
    assert boxes.boxes.tolist() == [[10, 20, 30.5, 40]]
    assert (boxes.concepts, list(boxes.tokens)) == ({"left lung": 0.5}, [("Yes\n", -1.5)])
    assert (boxes.cost.forward_passes, boxes.cost.seconds) == (1, 0.25)
    assert saliency.saliency.ravel().tolist() == list(range(16))


def test_other_files_in_the_folder_are_let_be(folder, bench):
    (folder / "notes.pkl").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    assert validate(folder, bench) == []


def test_an_error_holds_every_problem_and_shows_the_first(folder, bench):
    broken = changed(changed(sound_document(bench), ("method", "name"), "A"), BOX, [1, 1, 0, 0])
    write_folder(folder, broken)
    with pytest.raises(SubmissionError) as raised:
        open_submission(folder, bench)
    assert raised.value.problems == tuple(validate(folder, bench))
    assert len(raised.value.problems) == 2
    assert str(raised.value).endswith("(and 1 more; `medfocus-bench validate SUBMISSION` lists all)")


@pytest.mark.parametrize(
    ("box", "sound"),
    [
        ([0, 0, 224, 200], True),
        ([0, 0, 224 + BOX_TOLERANCE / 2, 200 + BOX_TOLERANCE / 2], True),
        ([0, 0, 224 + 2 * BOX_TOLERANCE, 200], False),
        ([0, 0, 224, 200 + 2 * BOX_TOLERANCE], False),
        ([300, 0, 400, 100], False),
        ([-BOX_TOLERANCE / 2, -BOX_TOLERANCE / 2, 224, 200], True),
        ([-2 * BOX_TOLERANCE, 0, 224, 200], False),
        ([0, -2 * BOX_TOLERANCE, 224, 200], False),
    ],
)
def test_a_box_may_stick_out_by_rounding_only_on_every_side(box, sound, folder, bench):
    write_folder(folder, changed(sound_document(bench), BOX, box))
    assert (validate(folder, bench) == []) == sound
    assert (validate(folder) == []) == (min(box) >= -BOX_TOLERANCE)


def test_another_version_is_accepted_where_that_is_allowed(folder, bench):
    write_folder(folder, changed(sound_document(bench), ("benchmark", "fingerprint"), "0" * 64))
    assert len(validate(folder, bench)) == 1
    assert validate(folder, bench, any_version=True) == []


def test_another_dataset_is_never_accepted(folder, bench):
    write_folder(folder, changed(sound_document(bench), ("benchmark", "dataset"), "other"))
    assert len(validate(folder, bench, any_version=True)) == 1


def test_a_changed_map_is_found_by_its_sha256(folder, bench):
    data = bytearray((folder / MAPS).read_bytes())
    data[-1] ^= 1
    (folder / MAPS).write_bytes(data)
    (problem,) = validate(folder, bench)
    assert "/maps/sha256: is not that of" in problem


def test_every_duplicate_is_named(folder, bench):
    document = sound_document(bench)
    document["attributions"] += [document["attributions"][0]] * 2
    problems = validate(write_folder(folder, document), bench)
    assert [problem.split(": ")[1] for problem in problems] == [
        f"/attributions/{index} ({WITH_BOXES})" for index in (0, 2, 3)
    ]


def test_maps_without_an_entry_and_entries_without_a_map_are_named(folder, bench):
    maps = safetensors({"b": entry([1, 1], 0, 1), "a": entry([1, 1], 1, 2)}, bytes(2))
    problems = validate(write_folder(folder, sound_document(bench, maps), maps), bench)
    assert ['has "map": true' in problems[0], "'a' belongs" in problems[1], "'b' belongs" in problems[2]] == [
        True
    ] * 3
    assert len(problems) == 3


def test_a_map_of_a_broken_entry_is_not_called_superfluous(folder, bench):
    write_folder(folder, changed(sound_document(bench), ("attributions", 1, "tokens"), 1))
    (problem,) = validate(folder, bench)
    assert f"/attributions/1/tokens ({WITH_MAP})" in problem


def test_a_document_of_any_type_is_an_input_error(folder, bench):
    for value in (None, True, 1, 1.5, "x", [], {}, [{}], {"attributions": {}}, {"attributions": [None]}):
        write_folder(folder, raw=json.dumps(value).encode())
        with pytest.raises(InputError):
            open_submission(folder, bench)
