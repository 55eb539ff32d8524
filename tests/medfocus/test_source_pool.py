"""The pool of references from a licensed copy: what is normal, what is complete, what is left out."""

from __future__ import annotations

import numpy as np
import pytest

from medfocus_bench.data.concepts import CONCEPTS
from medfocus_bench.errors import InputError
from medfocus_bench.medfocus.concept_mask import tight_box
from medfocus_bench.medfocus.localisers import localise
from medfocus_bench.medfocus.reference import ReferencePool
from medfocus_bench.medfocus.source_pool import BOX_LIST, pool_from_source
from medfocus_bench.phantom.render import Patient, render
from medfocus_bench.phantom.track import box_of

from ..cli.running import run
from ..data import source_trees as trees

BOX_HEADER = (
    *("image_id", "x1", "y1", "x2", "y2", "width", "height", "bbox_name", "annot_id"),
    *("original_x1", "original_x2", "original_y1", "original_y2", "original_width", "original_height"),
    *("annotator", "coord224", "coord_original"),
)


class Tree:
    """A copy of the two collections whose pictures are healthy phantoms, with rows of the gold tables."""

    def __init__(self, root):
        self.root = root
        self.rows: list[dict] = []
        self.listed: list[dict] = []

    def picture(self, number, *, patient=None, leave_out=(), listed=(), asserts=(), denies=("pneumothorax",)):
        """A picture; its anatomy goes to the attributes, that of `listed` to the list of boxes."""
        patient, study = patient or 10_000_000 + number, 50_000_000 + number
        phantom = render(Patient.sample((31, number)))
        boxes = {concept: box_of(mask)[0] for concept, mask in phantom.concepts.items() if mask.any()}
        name = f"p{str(patient)[:2]}/p{patient}/s{study}/{trees.image_id(number)}.jpg"
        trees.save(self.root / "mimic-cxr-jpg/2.1.0/files" / name, phantom.image, quality=95)
        common = {"patient_id": patient, "study_id": study, "image_id": f"{trees.image_id(number)}.dcm"}
        for concept, box in boxes.items():
            text = str([int(value) for value in box])
            if concept in listed:
                self.listed.append(
                    {"image_id": common["image_id"], "bbox_name": concept, "coord_original": text}
                )
            elif concept not in leave_out:
                for label in denies:
                    self.row(common, concept, 0, label, "anatomicalfinding", text)
        self.row(common, "right lung", 1, "normal", "nlp", "[0, 0, 9, 9]")
        for label, category in asserts:
            self.row(common, "left lung", 1, label, category, "[0, 0, 9, 9]")
        return name, boxes

    def row(self, common, bbox, relation, label, category, box):
        self.rows.append(
            {
                **dict.fromkeys(trees.IMAGENOME_HEADER, "x"),
                **common,
                "bbox": bbox,
                "relation": relation,
                "label_name": label,
                "categoryID": category,
                "coord_original": box,
            }
        )

    def change_second(self, where, **more):
        """Two pictures, and other cells in those rows of the second."""
        self.picture(0)
        self.picture(1)
        for row in self.rows:
            if row["study_id"] == 50_000_001 and where.items() <= row.items():
                row.update(more)

    def write(self):
        trees.write_rows(self.root / trees.IMAGENOME_TABLE, trees.IMAGENOME_HEADER, self.rows, delimiter="\t")
        if self.listed:
            filled = [{**dict.fromkeys(BOX_HEADER, "1"), **row} for row in self.listed]
            trees.write_rows(self.root / BOX_LIST, BOX_HEADER, filled)
        return self.root


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path / "copies")


def test_a_pool_holds_the_pictures_and_boxes_of_the_copy(tree):
    made = [tree.picture(number) for number in range(3)]
    found = pool_from_source("imagenome", tree.write(), size=3)
    assert isinstance(found.pool, ReferencePool)
    assert set(found.pool.concepts) == set(CONCEPTS)
    assert (found.normal, found.complete, found.skips) == (3, 3, ())
    boxes_of = {f"mimic-cxr-jpg/2.1.0/files/{name}": boxes for name, boxes in made}
    for ref, masks in zip(found.pictures, found.pool.masks, strict=True):
        for concept, box in boxes_of[ref].items():
            np.testing.assert_array_equal(tight_box(masks[concept]), np.floor(box))
    picture = render(Patient.sample((31, 9))).image
    assert all(localise(picture, found.pool).values()), "it serves as references"


@pytest.mark.parametrize(
    ("label", "category", "word"),
    [
        ("lung opacity", "anatomicalfinding", "asserts 'lung opacity'"),
        ("pneumonia", "disease", "asserts 'pneumonia'"),
        ("abnormal", "nlp", "asserts 'abnormal'"),
    ],
)
def test_a_picture_with_an_asserted_finding_is_no_reference(tree, label, category, word):
    tree.picture(0)
    tree.picture(1, asserts=[(label, category)])
    found = pool_from_source("imagenome", tree.write(), size=1)
    assert (found.normal, found.complete) == (1, 1)
    (skip,) = found.skips
    assert word in skip.reason
    assert trees.image_id(1) in skip.reason


def test_devices_and_denied_findings_do_not_count(tree):
    tree.picture(0, asserts=[("endotracheal tube", "tubesandlines")], denies=("pneumonia", "lung opacity"))
    assert pool_from_source("imagenome", tree.write(), size=1).normal == 1


def test_a_row_that_leaves_a_finding_open_makes_no_normal_picture(tree):
    tree.change_second({"label_name": "pneumothorax"}, relation="")
    found = pool_from_source("imagenome", tree.write(), size=1)
    assert "does not say whether" in found.skips[0].reason


def test_a_picture_without_one_of_the_concepts_is_left_out_by_its_name(tree):
    tree.picture(0)
    tree.picture(1, leave_out=["left clavicle"])
    found = pool_from_source("imagenome", tree.write(), size=1)
    assert (found.normal, found.complete) == (2, 1)
    assert "has no box of the left clavicle" in found.skips[0].reason


def test_the_list_of_boxes_completes_the_attributes(tree):
    names = ("left clavicle", "right clavicle", "upper mediastinum")
    _, boxes = tree.picture(0, leave_out=["mediastinum"], listed=names)
    found = pool_from_source("imagenome", tree.write(), size=1)
    masks = found.pool.masks[0]
    np.testing.assert_array_equal(tight_box(masks["left clavicle"]), np.floor(boxes["left clavicle"]))
    parts = np.stack([np.floor(boxes[name]) for name in ("upper mediastinum", "cardiac silhouette")])
    hull = [*parts[:, :2].min(axis=0), *parts[:, 2:].max(axis=0)]
    np.testing.assert_array_equal(tight_box(masks["mediastinum"]), hull)


@pytest.mark.parametrize("box", ["[0, 0, 0, 0]", "[9, 9, 1, 1]", "__import__('os')", "[1e999, 0, 1, 1]", ""])
def test_a_box_that_cannot_be_used_is_none(tree, box):
    """Trap 30: a cell is parsed, never run; zeros stand for anatomy that was not found."""
    tree.change_second({"bbox": "left hilar structures"}, coord_original=box)
    found = pool_from_source("imagenome", tree.write(), size=1)
    assert found.complete == 1
    assert "left hilar structures" in found.skips[0].reason


def test_the_choice_is_that_of_the_seed(tree):
    for number in range(6):
        tree.picture(number)
    root = tree.write()
    chosen = [pool_from_source("imagenome", root, size=2, seed=seed).pictures for seed in (0, 0, 1, 2, 3)]
    assert chosen[0] == chosen[1]
    assert len(set(chosen)) > 1


def test_one_picture_of_a_patient_is_taken(tree):
    for number in range(3):
        tree.picture(number, patient=10_000_001 if number < 2 else None)
    found = pool_from_source("imagenome", tree.write(), size=2)
    assert len({ref.split("/")[4] for ref in found.pictures}) == 2
    with pytest.raises(InputError, match="2 pictures can be references of 3") as caught:
        pool_from_source("imagenome", tree.root, size=3)
    assert any("another picture of its patient" in problem for problem in caught.value.problems)


def test_a_picture_that_cannot_be_read_is_recorded_and_another_is_taken(tree):
    """Trap 18."""
    names = [tree.picture(number)[0] for number in range(3)]
    root = tree.write()
    first = pool_from_source("imagenome", root, size=3).pictures[0]
    (root / first).write_bytes(b"\xff\xd8\xff no picture")
    found = pool_from_source("imagenome", root, size=2)
    assert first not in found.pictures
    assert any(first in skip.reason or first in skip.place for skip in found.skips)
    (root / first).unlink()
    assert pool_from_source("imagenome", root, size=2).pictures == found.pictures
    assert len(names) == 3


def test_a_box_of_another_picture_is_noticed(tree):
    tree.change_second({"bbox": "left lung", "relation": 0}, coord_original="[2000, 2000, 2500, 2800]")
    with pytest.raises(InputError, match="1 pictures can be references of 2") as caught:
        pool_from_source("imagenome", tree.write(), size=2)
    assert any("left lung lies outside" in problem for problem in caught.value.problems)


def test_large_pictures_are_reduced_with_their_boxes(tree):
    tree.picture(0)
    whole = pool_from_source("imagenome", tree.write(), size=1)
    small = pool_from_source("imagenome", tree.root, size=1, max_side=112)
    assert max(small.pool.images[0].shape) == 112
    for concept, mask in whole.pool.masks[0].items():
        half = tight_box(mask) / 2
        assert np.abs(tight_box(small.pool.masks[0][concept]) - half).max() <= 1


def test_a_segmenter_refines_the_boxes_and_a_lost_concept_keeps_its_box(tree):
    tree.picture(0)

    def left_half(image, boxes):
        masks = np.zeros((len(boxes), *image.shape), dtype=bool)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
            mask[y1:y2, x1 : (x1 + x2) // 2] = True
        masks[CONCEPTS.index("mediastinum")] = False
        return masks

    plain = pool_from_source("imagenome", tree.write(), size=1).pool.masks[0]
    refined = pool_from_source("imagenome", tree.root, size=1, refine=left_half).pool.masks[0]
    assert refined["left lung"].sum() < plain["left lung"].sum()
    np.testing.assert_array_equal(refined["mediastinum"], plain["mediastinum"])


def test_the_command_writes_the_pool_and_what_was_left_out(tree, tmp_path):
    tree.picture(0)
    tree.picture(1)
    tree.picture(2, asserts=[("pneumonia", "disease")])
    root = tree.write()
    pool, skips = tmp_path / "pool.safetensors", tmp_path / "skips.txt"
    words = ("reference", "build", "--source", "imagenome", "--root", root, "--out", pool)
    status, shown, error = run(*words, "--size", 2, "--skips", skips)
    assert status == 0, error
    assert "2 references, 11 concepts" in shown
    assert "keep it to yourself" in shown
    assert len(ReferencePool.load(pool)) == 2
    assert "pneumonia" in skips.read_text()
    status, _, error = run(*words, "--overwrite")
    assert (status, len(error.splitlines())) == (2, 1)
    assert "of 16 that are wanted" in error
    assert "gold_bbox_coordinate_annotations_1000images.csv" in error


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--source", "vindr_cxr", "--root", "."), "only in imagenome"),
        (("--source", "imagenome"), "--root"),
        ((), "give a folder"),
        (("folder", "--source", "imagenome"), "give a folder"),
        (("--source", "imagenome", "--root", "nowhere"), "nowhere"),
    ],
)
def test_bad_input_is_one_line(words, says, tmp_path):
    status, _, error = run("reference", "build", *words, "--out", tmp_path / "pool")
    assert (status, len(error.splitlines())) == (2, 1)
    assert says in error
