"""The phantom: what is in the picture, where, and that it stays the same."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from medfocus_bench.data.concepts import CONCEPTS
from medfocus_bench.phantom.findings import FINDINGS
from medfocus_bench.phantom.render import MARKS, Patient, mark_box, render
from medfocus_bench.phantom.track import box_of
from tests.phantom.sampling import digest

SEEDS = range(3)


def columns(mask):
    return np.flatnonzero(mask.any(0)).mean()


def rows(mask):
    return np.flatnonzero(mask.any(1)).mean()


def test_the_same_seed_gives_the_same_bytes_in_another_process():
    program = "from tests.phantom.sampling import digest; print(digest(7), digest(8))"
    run = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert run.stdout.split() == [digest(7), digest(8)]
    assert digest(7) != digest(8)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_concept_is_there_on_the_patients_own_side(seed):
    concepts = render(Patient.sample(seed)).concepts
    assert set(concepts) == set(CONCEPTS)
    assert all(mask.any() for mask in concepts.values())
    for part in ("lung", "clavicle", "hilar structures", "costophrenic angle"):
        assert columns(concepts[f"right {part}"]) < 112 < columns(concepts[f"left {part}"])
    for side in ("left", "right"):
        clavicle, hilum, angle = (
            concepts[f"{side} {p}"] for p in ("clavicle", "hilar structures", "costophrenic angle")
        )
        assert rows(clavicle) < rows(hilum) < rows(angle)
    assert not (concepts["left lung"] & concepts["right lung"]).any()
    assert (concepts["upper mediastinum"] <= concepts["mediastinum"]).all()
    assert columns(concepts["cardiac silhouette"]) > columns(concepts["mediastinum"])


@pytest.mark.parametrize("finding", FINDINGS)
def test_a_finding_changes_the_picture_inside_its_box_and_nowhere_else(finding):
    for seed in SEEDS[:2]:
        patient = Patient.sample(seed, findings=[finding], marks=[])
        with_it, without = render(patient), render(patient.without(finding))
        difference = np.abs(with_it.image.astype(int) - without.image.astype(int))
        mask = with_it.findings[finding]
        x1, y1, x2, y2 = box_of(mask, 3)[0].astype(int)
        assert difference[mask].mean() > 8
        outside = difference.copy()
        outside[y1:y2, x1:x2] = 0
        assert outside.max() <= 12


def test_findings_differ_widely_in_size():
    shown = {finding: render(Patient.sample(1, findings=[finding])).findings[finding] for finding in FINDINGS}
    sizes = [mask.sum() for mask in shown.values()]
    assert max(sizes) > 10 * min(sizes) > 500


def test_a_patient_has_up_to_four_findings_and_any_marks():
    patients = [Patient.sample(seed) for seed in range(300)]
    counts = np.bincount([len(patient.findings) for patient in patients], minlength=5)
    assert len(counts) == 5
    assert (counts > 30).all()
    assert {patient.marks for patient in patients} == {(), MARKS[:1], MARKS[1:], MARKS}
    seen = {finding.name for patient in patients for finding in patient.findings}
    assert seen == set(FINDINGS)


@pytest.mark.parametrize("mark", MARKS)
def test_a_mark_lies_in_its_box_and_changes_nothing_else(mark):
    patient = Patient.sample(3, marks=[mark])
    phantom, bare = render(patient), render(patient.without_mark(mark))
    x1, y1, x2, y2 = mark_box(mark)
    changed = phantom.image != bare.image
    assert changed[y1:y2, x1:x2].any()
    changed[y1:y2, x1:x2] = False
    assert not changed.any()
    assert (box_of(phantom.marks[mark])[0] >= [x1, y1, 0, 0]).all()


def test_a_moved_tag_is_at_the_rim_and_everywhere_along_it():
    patient, rng = Patient.sample(3, marks=MARKS), np.random.default_rng(0)
    letter = render(patient).marks["lead marker"]
    seen = np.zeros((224, 224), bool)
    for number in range(30):
        moved = patient.with_tag_moved(rng)
        phantom = render(moved)
        x1, y1, x2, y2 = mark_box("text tag", tag=moved.tag)
        assert phantom.marks["text tag"][y1:y2, x1:x2].sum() == phantom.marks["text tag"].sum() > 100
        assert (phantom.marks["lead marker"] == letter).all()
        assert not (phantom.marks["text tag"] & letter).any()
        if number < 3:
            changed = phantom.image != render(moved.without_mark("text tag")).image
            assert not changed[~phantom.marks["text tag"]].any()
        seen |= phantom.marks["text tag"]
    assert not seen[36:188, 48:176].any()
    for part in (seen[:36], seen[188:], seen[36:188, :48], seen[36:188, 176:]):
        assert part.any()


@pytest.mark.parametrize("size", [96, 300, 448])
def test_another_size_shows_the_same_patient(size):
    patient = Patient.sample(5, findings=["cardiomegaly", "mass"])
    small, other = render(patient), render(patient, size)
    assert other.image.shape == (size, size)
    for name in ("cardiac silhouette", "left lung"):
        share = small.concepts[name].mean(), other.concepts[name].mean()
        assert share[0] == pytest.approx(share[1], rel=0.05)
    share = small.findings["mass"].mean(), other.findings["mass"].mean()
    assert share[0] == pytest.approx(share[1], rel=0.1)


def test_pictures_are_exposed_like_radiographs():
    """Air around the body is black, lungs are darker than the heart, and nothing is burnt out."""
    for seed in SEEDS:
        phantom = render(Patient.sample(seed, findings=[], marks=[]))
        lung = phantom.image[phantom.concepts["right lung"]].mean()
        heart = phantom.image[phantom.concepts["cardiac silhouette"]].mean()
        assert phantom.image[:20, :8].mean() < 10 < lung + 30 < heart < 250


def test_a_moved_patient_is_whole_on_the_film_clear_of_the_marks_and_anywhere():
    rng, middles = np.random.default_rng(0), []
    for seed in range(11):
        patient = Patient.sample(seed, findings=[FINDINGS[seed % len(FINDINGS)]], marks=MARKS)
        moved = patient.with_chest_moved(rng)
        after = render(moved)
        shown = np.logical_or.reduce([*after.concepts.values(), *after.findings.values()])
        x1, y1, x2, y2 = box_of(shown)[0]
        assert min(x1, y1, 224 - x2, 224 - y2) > 0
        for mark in MARKS:
            left, top, right, bottom = mark_box(mark)
            assert after.marks[mark][top:bottom, left:right].sum() == after.marks[mark].sum() > 0
            assert not shown[top:bottom, left:right].any(), (seed, mark)
        middles.append([(x1 + x2) / 2, (y1 + y2) / 2])
    assert (np.std(middles, axis=0) > 12).all()


def test_what_is_seen_of_a_moved_patient_is_the_patient_in_the_middle_moved():
    patient = Patient.sample(5, findings=["mass", "pacemaker"], marks=[])
    moved = patient.with_chest_moved(np.random.default_rng(1))
    before, after = render(patient), render(moved)
    masks = {**before.concepts, **before.findings}
    for name, mask in {**after.concepts, **after.findings}.items():
        x1, y1, x2, y2 = box_of(masks[name])[0]
        expected = [*moved.position.on_film(x1, y1), *moved.position.on_film(x2, y2)]
        assert box_of(mask)[0] == pytest.approx(expected, abs=2), name
    assert moved.position.magnification < 1
