"""The shipped track: what it is, that it is what its models say, and that its causes hold."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from io import BytesIO

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from medfocus_bench import evaluate, load_benchmark
from medfocus_bench.answers import parse_verdict
from medfocus_bench.data.manifest import MANIFEST_NAME
from medfocus_bench.data.questions import MODES
from medfocus_bench.evaluation.nulls import write_null
from medfocus_bench.lvlm.registry import load_lvlm
from medfocus_bench.phantom import PHANTOM_LVLMS, TRACK, TWINS
from medfocus_bench.phantom.accuracy import balanced_accuracy
from medfocus_bench.phantom.build import ALL_QUESTIONS, Run, build_track, check_answers
from medfocus_bench.phantom.findings import FINDINGS
from medfocus_bench.phantom.planted import planted_effect
from medfocus_bench.phantom.render import mark_box, render
from medfocus_bench.phantom.track import TEST_QUESTIONS, box_of, patient_of, phantom_questions, split_of
from tests.phantom.sampling import sampled

SAMPLE = range(TEST_QUESTIONS - 12, TEST_QUESTIONS + 12)
"""Questions about every finding, of the test splits and of dev."""


@pytest.fixture(scope="module")
def rows():
    return [row for path in sorted(TRACK.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


@pytest.fixture(scope="module")
def groups():
    return json.loads((TRACK / "groups.json").read_text())


def test_the_name_phantom_resolves_to_the_shipped_track():
    benchmark = load_benchmark("phantom")
    manifest = json.loads((TRACK / MANIFEST_NAME).read_text())
    assert benchmark.fingerprint == manifest["fingerprint"]
    assert benchmark.splits == ("dev", "direct", "reasoning")
    assert sum(path.stat().st_size for path in TRACK.iterdir()) < 25e6


def test_every_model_is_asked_every_question_in_both_modes(rows):
    assert len(rows) == len(PHANTOM_LVLMS) * 2 * len(ALL_QUESTIONS)
    asked = Counter(
        (row["lvlm"], row["mode"], row["finding"]) for row in rows if row["index"] < TEST_QUESTIONS
    )
    assert set(asked.values()) == {TEST_QUESTIONS // len(FINDINGS)}
    assert TEST_QUESTIONS >= 250


@sampled("indices", SAMPLE, ALL_QUESTIONS)
def test_a_tag_moves_from_picture_to_picture_and_hides_no_finding(rows, indices):
    """Trap of our own: where a mark has one place, a prior of the place is right on every sample."""
    questions = {q.index: q for q in phantom_questions(indices, "spurious")}
    places = {q.patient_id: tuple(q.boxes[0]) for q in questions.values()}
    assert len(places) == len(indices) // 2
    assert len(set(places.values())) > 0.9 * len(places)
    for index, question in questions.items():
        phantom = render(patient_of(index, "spurious"))
        x1, y1, x2, y2 = question.boxes[0].astype(int)
        assert phantom.findings[question.finding].any(), "the answer yes is right, too"
        assert not any(mask[y1:y2, x1:x2].any() for mask in phantom.findings.values())
    of_split = {
        split: {q.patient_id for q in questions.values() if split_of(q.index, "direct") == split}
        for split in ("direct", "dev")
    }
    assert not of_split["direct"] & of_split["dev"]
    of_rows = {row["patient_id"] for row in rows if row["evidence"] == "spurious" and row["index"] in indices}
    assert of_rows == set(places)


@sampled("indices", SAMPLE, ALL_QUESTIONS)
def test_a_finding_moves_from_picture_to_picture_and_no_mark_hides_it(indices):
    """Trap of our own: findings have usual places in a patient, and a prior of them must be no answer."""
    questions = list(phantom_questions(indices, "lesion"))
    middles = defaultdict(list)
    for question in questions:
        x1, y1, x2, y2 = question.boxes[0]
        middles[question.finding].append([(x1 + x2) / 2, (y1 + y2) / 2])
        phantom = render(patient_of(question.index))
        left, top, right, bottom = box_of(phantom.findings[question.finding])[0]
        assert min(left, top, 224 - right, 224 - bottom) > 0
        for mark in phantom.marks:
            left, top, right, bottom = mark_box(mark)
            assert x2 <= left or right <= x1 or y2 <= top or bottom <= y1, question.key
    assert (np.std(np.concatenate(list(middles.values())), axis=0) > 10).all()
    for finding, places in middles.items():
        assert len(places) < 10 or (np.std(places, axis=0) > 10).all(), finding


def test_rows_say_what_their_texts_say(rows):
    for row in rows:
        right = parse_verdict(row["answer_original"]) == "yes"
        assert (row["group"] == "incorrect") == (not right)
        assert row["response"] == row["answer_original"]
        assert row["evidence"] == ("spurious" if row["lvlm"] in TWINS else "lesion")


@sampled("indices", ALL_QUESTIONS[::40], ALL_QUESTIONS)
def test_pictures_and_boxes_are_those_of_the_renderer(rows, indices):
    by_index = {(row["index"], row["evidence"]): row for row in rows}
    for evidence in ("lesion", "spurious"):
        for question in phantom_questions(indices, evidence):
            row = by_index[question.index, evidence]
            assert row["boxes"] == question.boxes.tolist()
            picture = np.asarray(Image.open(BytesIO(row["image"]["bytes"]))).astype(int)
            # A grey value may fall to the other side of a rounding on another kind of processor.
            assert np.abs(picture - question.image).max() <= 1


@sampled("indices", ALL_QUESTIONS[165:166], ALL_QUESTIONS[::11])
def test_stored_answers_are_given_again_by_the_shipped_models(indices):
    assert check_answers(TRACK, indices) == []


def test_lesions_drive_the_lesion_models_and_marks_the_twins(groups):
    def share(run, name):
        count, total, *_ = groups[run][name]
        return count / total

    for family in ("qwen", "gemma"):
        assert share(f"phantom_{family}-direct-lesion", "grounded") >= 0.6
        assert share(f"phantom_{family}_twin-direct-spurious", "grounded") >= 0.6
        for mode in ("direct", "reasoning"):
            assert share(f"phantom_{family}_twin-{mode}-lesion", "grounded") < 0.05
    for run in groups:
        assert share(run, "sham flips") < 0.02, run


@sampled(("modes", "each"), (MODES[:1], 1), (MODES, 20))
@pytest.mark.parametrize("key", PHANTOM_LVLMS)
def test_models_answer_unseen_patients(key, modes, each):
    """`data accuracy` measures this on many more patients."""
    for mode in modes:
        scores = balanced_accuracy(load_lvlm(key), mode, each=each)
        assert set(scores) == set(FINDINGS)
        assert np.mean(list(scores.values())) >= 0.92


@sampled("indices", [3], [3, TEST_QUESTIONS + 5, TEST_QUESTIONS - 1])
def test_building_again_gives_the_rows_that_are_shipped(rows, tmp_path, indices):
    seen = []

    def progress(items, label, total):
        for number, item in enumerate(items, start=1):
            seen.append((number, total))
            yield item

    build_track(tmp_path / "t1", tmp_path / "w1", indices=indices, progress=progress)
    assert seen[-1] == (12 * len(indices), 12 * len(indices))
    shipped = {row["sample_id"]: row for row in rows}
    built = [row for path in (tmp_path / "t1").glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert len(built) == 2 * len(indices) * len(PHANTOM_LVLMS)
    for row in built:
        for column, value in shipped[row["sample_id"]].items():
            if column.startswith("log_odds"):
                assert row[column] == pytest.approx(value, abs=1e-2)
            elif column != "image":
                assert row[column] == value, column


@sampled("indices", range(11), range(66))
@pytest.mark.parametrize("key", PHANTOM_LVLMS)
def test_blanking_the_cause_moves_the_log_odds_more_than_blanking_as_much_elsewhere(key, indices):
    effect = planted_effect(load_lvlm(key), indices=indices)
    assert effect.low > 0
    assert effect.mean > 1


def test_a_checkpoint_folder_names_its_records_by_its_key(tmp_path):
    checkpoint = PHANTOM_LVLMS["phantom_qwen"]
    file = Run(str(checkpoint), "direct", "lesion").file(tmp_path)
    assert file == tmp_path / f"{checkpoint.name}-direct-lesion.jsonl"


@pytest.mark.data
def test_a_null_submission_to_the_track_is_scored_at_the_floor(tmp_path):
    benchmark = load_benchmark("phantom")
    part = benchmark.select(["phantom"], ["dev"])
    folder = write_null("whole-image", part, tmp_path / "null")
    report = evaluate(folder, "phantom", resamples=100)
    assert report.headline["evidence_ap"].mean == pytest.approx(0, abs=1e-9)
    assert not [null.name for null in report.nulls if null.unavailable]


def test_load_dataset_gives_three_splits_with_decoded_pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(str(TRACK), cache_dir=str(tmp_path))
    assert set(loaded) == {"direct", "reasoning", "dev"}
    for split in loaded.values():
        assert split[0]["image"].size == (224, 224)
        assert split[0]["boxes"]
