"""Pointers joined with the user's copies: by reference, listed where they cannot be, and marked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from medfocus_bench import load_benchmark
from medfocus_bench.counterfactual.dataset import pointer_row
from medfocus_bench.data import attach as joining
from medfocus_bench.data.attach import attach, attach_folder, write_attached, write_pointers
from medfocus_bench.data.benchmark import read_rows
from medfocus_bench.data.hub.publish import export
from medfocus_bench.data.manifest import Attachment
from medfocus_bench.data.medground import PublishedRecord
from medfocus_bench.data.pixels import PictureError
from medfocus_bench.data.rows import split_of
from medfocus_bench.data.sources import open_source, read_question
from medfocus_bench.data.sources.protocol import DEV_START
from medfocus_bench.data.writing import write_benchmark
from medfocus_bench.errors import BenchmarkError, InputError, UnavailableError
from medfocus_bench.evaluation.nulls import null_control
from medfocus_bench.phantom import TRACK
from tests.conftest import make_row
from tests.data import source_trees as trees

ANSWERS = {"original": "Yes", "foreground": "No", "background": "Yes", "background_normal": "Yes"}
QUESTIONS = (
    *[("imagenome", index) for index in range(12)],
    *[("vindr_cxr", index) for index in range(13)],
    *[("padchest_gr", index) for index in (*range(8), DEV_START)],
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return trees.write_all(tmp_path_factory.mktemp("root"))


def pointers(questions: Sequence[tuple[str, int]] = QUESTIONS) -> list[dict[str, Any]]:
    return [
        pointer_row(PublishedRecord(source, index, lvlm, "direct", ANSWERS, "test"))
        for source, index in questions
        for lvlm in ("gemma3_4b", "medgemma_4b")
    ]


def attached(root: Path, out: Path, questions: Sequence[tuple[str, int]] = QUESTIONS) -> joining.Attached:
    rows = [(row["sample_id"], split_of(row), row) for row in pointers(questions)]
    return write_attached(rows, root, out, name="bench", version="1")


@pytest.fixture(scope="module")
def whole(root, tmp_path_factory):
    """All rows, joined."""
    return attached(root, tmp_path_factory.mktemp("whole") / "out")


def test_a_row_is_about_the_finding_of_its_table_however_it_is_written(root, tmp_path):
    asked = open_source("vindr_cxr").annotations(root).questions[0].finding
    (row, *_) = pointers([("vindr_cxr", 0)])
    for number, finding in enumerate((f"\ufeff{asked.upper()}\u00a0", asked)):
        out = tmp_path / str(number)
        found = write_attached(
            [("row", "direct", {**row, "finding": finding})], root, out, name="bench", version="1"
        )
        assert [sample.finding for sample in found.benchmark.samples] == [asked]


def test_every_row_gets_the_question_of_its_rank(root, whole):
    assert not whole.unmatched
    assert len(whole.benchmark.samples) == 2 * len(QUESTIONS)
    for sample in whole.benchmark.samples:
        split = "dev" if sample.index >= DEV_START else "test"
        annotation = open_source(sample.source).annotations(root, split).by_index[sample.index]
        question = read_question(annotation, root)
        np.testing.assert_array_equal(sample.image, question.image)
        assert sample.split == ("dev" if split == "dev" else "direct")
        assert (sample.height, sample.width) == question.image.shape
        assert (sample.finding, sample.patient_id) == (annotation.finding, annotation.patient_id)
        np.testing.assert_allclose(sample.boxes, question.boxes)
        assert f"evidence of {sample.finding} in" in sample.question
    rows = [row for _, _, row in read_rows(whole.benchmark.folder)]
    assert all(row["image"] is None and row["image_ref"] for row in rows), "no pixel is copied"


def test_imagenomes_anatomy_comes_along_so_that_both_lungs_can_be_a_null(whole):
    imagenome = whole.benchmark.select(["imagenome"], ["direct"])
    for sample in imagenome.samples:
        assert {"left lung", "right lung", "cardiac silhouette"} <= sample.anatomy.keys()
        assert "spine" not in sample.anatomy
        # left and right are the patient's: the left lung lies on the right of the picture
        assert sample.anatomy["left lung"][0, 0] > sample.anatomy["right lung"][0, 0]
    assert len(list(null_control("both-lungs").make(imagenome.samples, 0))) == 24
    vindr = whole.benchmark.select(["vindr_cxr"], ["direct"])
    with pytest.raises(UnavailableError, match="has no box of the left lung"):
        list(null_control("both-lungs").make(vindr.samples, 0))


def test_the_fingerprint_does_not_depend_on_the_root(root, whole, tmp_path):
    shutil.copytree(root, tmp_path / "elsewhere")
    there = attached(tmp_path / "elsewhere", tmp_path / "b").benchmark
    assert whole.benchmark.fingerprint == there.fingerprint
    assert whole.benchmark.attachment.root != there.attachment.root


def test_an_attached_benchmark_is_marked_and_cannot_be_exported(root, whole, tmp_path):
    folder = whole.benchmark.folder
    manifest = json.loads((folder / "benchmark.json").read_text())
    assert (manifest["licensed"], manifest["root"]) == (True, str(root.resolve()))
    assert load_benchmark(folder).attachment.licensed
    with pytest.raises(InputError, match="licensed"):
        export(tmp_path / "export", TRACK, pointers=[folder])


def test_a_lost_picture_costs_its_rows_and_is_listed(root, tmp_path):
    shutil.copytree(root, tmp_path / "root")
    questions = open_source("imagenome").annotations(root).questions
    lost = questions[3]
    (tmp_path / "root" / lost.image_ref).unlink()
    found = attached(tmp_path / "root", tmp_path / "out", QUESTIONS[:12])
    same = {question.index for question in questions if question.image_ref == lost.image_ref}
    assert {loss.index for loss in found.unmatched} == same
    assert len(found.unmatched) == 2 * len(same)
    assert all(lost.image_ref in loss.reason for loss in found.unmatched)
    kept = {sample.index for sample in found.benchmark.samples if sample.source == "imagenome"}
    assert kept == set(range(12)) - same


def test_no_row_of_a_resized_copy_is_joined_and_the_reason_is_one_sentence(root, tmp_path):
    """Of 200 questions 184 were lost, and 16 joined with boxes in the wrong place."""
    shutil.copytree(root, tmp_path / "root")
    for path in (tmp_path / "root").rglob("*.jpg"):
        with Image.open(path) as image:
            image.resize((image.width // 2, image.height // 2)).save(path)
    found = attached(tmp_path / "root", tmp_path / "out", [*QUESTIONS[:12], ("padchest_gr", 0)])
    assert {sample.source for sample in found.benchmark.samples} == {"padchest_gr"}
    assert len(found.unmatched) == 24
    (reason,) = {loss.reason for loss in found.unmatched}
    assert "they are a resized or a cropped copy" in reason


def test_a_source_that_is_not_there_costs_its_rows_only(root, tmp_path):
    trees.write_vindr(tmp_path / "root")
    found = attached(tmp_path / "root", tmp_path / "out")
    assert found.benchmark.configs == ("vindr_cxr",)
    assert len(found.unmatched) == 2 * (12 + 9)
    assert all("is not there" in loss.reason for loss in found.unmatched)


def test_with_nothing_to_join_nothing_is_written(tmp_path):
    (tmp_path / "root").mkdir()
    with pytest.raises(InputError, match=r"none of 68 rows can be joined; the first: .* is not there"):
        attached(tmp_path / "root", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    trees.write_vindr(tmp_path / "root", pictures=False)
    with pytest.raises(InputError, match="vindr_cxr has 13 questions, none of them 13"):
        attached(tmp_path / "root", tmp_path / "out", [("vindr_cxr", 13)])


def test_a_table_of_another_size_is_pointed_out(whole):
    assert any("imagenome: 12 questions where 1,405 were published" in notice for notice in whole.notices)


def test_a_row_about_another_finding_is_not_joined(root, tmp_path):
    """The records of a filter that ran over another version of the table."""
    first, second = pointers([("vindr_cxr", 0)])
    rows = [(row["sample_id"], "direct", row) for row in (first, second | {"finding": "Another"})]
    found = write_attached(rows, root, tmp_path / "out", name="bench", version="1")
    (loss,) = found.unmatched
    assert "the row about 'Another'" in loss.reason


def test_pointers_attach_to_the_same_benchmark_as_records_and_are_none_before(root, whole, tmp_path):
    folder = tmp_path / "pointers"
    assert write_pointers(pointers(), folder) == {
        "imagenome/direct.parquet": 24,
        "padchest_gr/dev.parquet": 2,
        "padchest_gr/direct.parquet": 16,
        "vindr_cxr/direct.parquet": 26,
    }
    with pytest.raises(BenchmarkError, match="`medfocus-bench data attach FOLDER --root COPIES --out DIR`"):
        load_benchmark(folder)
    assert attach_folder(folder, root, tmp_path / "a").benchmark.fingerprint == whole.benchmark.fingerprint


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """The published files: the phantom track, and pointers to all questions of the small VinDR."""
    folder = tmp_path_factory.mktemp("published")
    write_pointers(pointers([("vindr_cxr", n) for n in range(13)]), folder / "pointers")
    export(folder / "repository", TRACK, pointers=[folder / "pointers"])
    return folder / "repository"


def test_an_exported_repository_attaches_without_its_open_rows(root, tmp_path, repository):
    found = attach_folder(repository, root, tmp_path / "out")
    assert found.benchmark.configs == ("vindr_cxr",)
    assert len(found.benchmark.samples) == 26
    with pytest.raises(InputError, match="nothing to attach"):
        attach_folder(repository / "phantom", root, tmp_path / "other")


def test_an_occupied_folder_is_replaced_only_when_asked_and_only_if_it_is_ours(root, tmp_path):
    out = tmp_path / "out"
    attached(root, out, [("vindr_cxr", 0)])
    rows = [(row["sample_id"], "direct", row) for row in pointers([("vindr_cxr", 1)])]
    with pytest.raises(InputError, match="is there already"):
        write_attached(rows, root, out, name="bench", version="1")
    again = write_attached(rows, root, out, name="bench", version="1", overwrite=True)
    assert len(again.benchmark.samples) == 2
    (out / "thesis.docx").write_text("years of work")
    with pytest.raises(InputError, match=r"thesis\.docx"):
        write_attached(rows, root, out, name="bench", version="1", overwrite=True)
    assert (out / "thesis.docx").exists()


@pytest.mark.parametrize("entries", [{"root": 7}, {"licensed": "no"}, {"root": ["a"]}])
def test_a_manifest_with_a_strange_attachment_is_refused(root, tmp_path, entries):
    attached(root, tmp_path / "out", [("vindr_cxr", 0)])
    manifest = tmp_path / "out" / "benchmark.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | entries))
    with pytest.raises(BenchmarkError, match="root is the path of a folder"):
        load_benchmark(tmp_path / "out")


def test_a_reference_out_of_the_root_is_refused_when_it_is_followed(root, tmp_path):
    """A benchmark folder of a stranger's must not make anybody read other files."""
    rows = [make_row(image_ref="../../etc/passwd")]
    own = write_benchmark(
        tmp_path / "b", {"direct": rows}, name="b", version="1", attachment=Attachment(root)
    )
    with pytest.raises(PictureError, match="not a path below"):
        _ = own.samples[0].image


def test_a_replaced_picture_of_another_size_is_refused(root, tmp_path):
    shutil.copytree(root, tmp_path / "root")
    benchmark = attached(tmp_path / "root", tmp_path / "out", [("padchest_gr", 0)]).benchmark
    trees.save(
        tmp_path / "root" / "PadChest_GR" / trees.padchest_image(0),
        np.arange(3000, dtype=np.uint16).reshape(50, 60),
    )
    with pytest.raises(PictureError, match=r"is 60 x 50 pixels, but padchest_gr-00000-.* is of 260 x 224"):
        _ = benchmark.samples[0].image


# datasets -------------------------------------------------------------------------------------------------


@pytest.fixture
def dataset(repository, tmp_path):
    files = str(repository / "vindr_cxr" / "direct-*.parquet")
    return datasets.load_dataset(
        "parquet", data_files=files, split="train", cache_dir=str(tmp_path / "datasets")
    )


def test_a_dataset_is_joined_on_access_without_a_copy(root, dataset):
    joined = attach(dataset, root)
    assert len(joined) == 26
    row = joined[3]
    annotation = open_source("vindr_cxr").annotations(root).by_index[row["index"]]
    question = read_question(annotation, root)
    np.testing.assert_array_equal(np.asarray(row["image"]), question.image)
    np.testing.assert_allclose(row["boxes"], question.boxes)
    assert row["question"] == f"Is there evidence of {question.finding} in the image? " + (
        "Answer directly with yes or no without any explanation."
    )
    assert row["mode"] == dataset[3]["mode"], "labels stay what they are in the dataset"
    assert joined.data.nbytes == dataset.data.nbytes
    assert [len(value) for value in joined[:2].values()] == [2] * len(row)
    assert [image.size for image in joined[4:6]["image"]] == [(260, 224)] * 2


def test_a_stream_stays_a_stream(root, dataset):
    streamed = attach(dataset.to_iterable_dataset(), root)
    assert isinstance(streamed, datasets.IterableDataset)
    first = next(iter(streamed))
    assert first["image"].size == (260, 224)
    assert len(first["boxes"][0]) == 4


def test_a_row_that_cannot_be_joined_raises_when_it_is_reached(root, tmp_path, dataset):
    shutil.copytree(root, tmp_path / "root")
    lost = open_source("vindr_cxr").annotations(root).by_index[dataset[0]["index"]]
    (tmp_path / "root" / lost.image_ref).unlink()
    joined = attach(dataset, tmp_path / "root")
    with pytest.raises(joining.NotJoinedError, match="is not there"):
        joined[0]
    assert joined[25]["image"] is not None
