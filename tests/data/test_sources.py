"""The sources: their order is pandas', indices never shift, and nothing hostile passes in silence."""

from __future__ import annotations

import csv
import gzip
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medfocus_bench.data.pixels import PictureError
from medfocus_bench.data.sources import Skip, installed_sources, iter_questions, open_source, read_question
from medfocus_bench.data.sources.imagenome import outlined_anatomy
from medfocus_bench.data.sources.protocol import DEV_START
from medfocus_bench.data.sources.reading import OtherCopyError, check_copy
from medfocus_bench.data.sources.tables import cell_of
from medfocus_bench.errors import InputError
from tests.data import source_trees as trees

FOUND = {"imagenome": 12, "vindr_cxr": 13, "padchest_gr": 8, "nih": 6}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return trees.write_all(tmp_path_factory.mktemp("root"))


def keyed(root: Path, name: str, split: str = "test") -> list[tuple[int, str, str]]:
    found = open_source(name).annotations(root, split)
    return [(question.index, question.image_ref, question.finding) for question in found.questions]


@pytest.mark.parametrize("name", installed_sources())
def test_every_question_of_a_whole_tree_is_found_and_read(root, name):
    found = open_source(name).annotations(root)
    assert (found.found, found.skips) == (FOUND[name], ())
    assert [question.index for question in found.questions] == list(range(FOUND[name]))
    skips: list[Skip] = []
    questions = list(iter_questions(found.questions, root, skips.append))
    assert len(questions) == FOUND[name]
    assert not skips
    for question in questions:
        height, width = question.image.shape
        assert question.image.std() > 10
        assert (question.boxes >= 0).all()
        assert (question.boxes <= [width, height, width, height]).all()


def test_imagenomes_order_is_that_of_a_sorted_grouping_in_pandas(root):
    table = pd.read_csv(root / trees.IMAGENOME_TABLE, sep="\t")
    kept = table[(table.relation == 1) & table.categoryID.isin(["anatomicalfinding", "disease"])]
    keys = ["patient_id", "study_id", "image_id", "label_name", "categoryID"]
    expected = [
        (
            index,
            f"mimic-cxr-jpg/2.1.0/files/p{str(p)[:2]}/p{p}/s{s}/{image.replace('.dcm', '.jpg')}",
            label,
        )
        for index, (p, s, image, label, _) in enumerate(kept.groupby(keys).groups)
    ]
    assert keyed(root, "imagenome") == expected
    as_text = sorted(expected, key=lambda entry: entry[1])
    assert [entry[1] for entry in as_text] != [entry[1] for entry in expected], "the fixture tells them apart"


def test_vindrs_order_is_that_of_a_sorted_grouping_in_pandas(root):
    table = pd.read_csv(root / trees.VINDR_TABLE)
    kept = table[table.class_name != "No finding"]
    expected = [
        (index, f"vindr-cxr/1.0.0/test/{image}.dicom", label)
        for index, (image, label) in enumerate(kept.groupby(["image_id", "class_name"]).groups)
    ]
    assert keyed(root, "vindr_cxr") == expected


def test_numbers_sort_as_numbers_and_text_by_code_point(tmp_path):
    names = ["b", "B", "a10", "a9", "_", "10"]
    for ids, expected in ((names, sorted(names)), (["10", "9", "-1", "100"], ["9", "10", "100"])):
        rows = [{"image_id": name, "class_name": "Mass", **trees.corners((1, 2, 3, 4))} for name in ids]
        table = trees.write_vindr(tmp_path, rows, pictures=False)
        pandas = [str(key) for key, _ in pd.read_csv(table).groupby(["image_id", "class_name"]).groups]
        found = open_source("vindr_cxr").annotations(tmp_path)
        assert [Path(q.image_ref).stem for q in found.questions] == expected
        assert [name for name in pandas if name != "-1"] == expected


def test_padchests_order_is_that_of_the_file_with_dev_at_its_end(root):
    test = keyed(root, "padchest_gr")
    assert [index for index, _, _ in test] == list(range(8))
    images = [f"PadChest_GR/{trees.padchest_image(n)}" for n in (0, 1, 2, 3, 3, 4, 5, 6)]
    assert [image for _, image, _ in test] == images
    assert test[4][2] == "infiltrates or nodule"
    dev = keyed(root, "padchest_gr", "dev")
    assert [index for index, _, _ in dev] == [DEV_START, DEV_START + 1, DEV_START + 2]
    assert {image for _, image, _ in dev}.isdisjoint(images)


def test_dev_is_never_a_study_of_test(tmp_path):
    studies = trees.padchest_studies()[:2010]
    studies[1995] = studies[0]
    trees.write_padchest(tmp_path, studies, pictures=False)
    assert open_source("padchest_gr").annotations(tmp_path).found == 9
    assert open_source("padchest_gr").annotations(tmp_path, "dev").found == 0


def test_boxes_of_one_finding_form_one_list_and_repetitions_count_once(root):
    found = open_source("imagenome").annotations(root)
    assert {len(question.boxes) for question in found.questions} == {1, 2}
    two = [q for q in found.questions if len(q.boxes) == 2]
    assert len(two) == 8  # three rows of each lesion, two of them the same


def test_relative_boxes_become_native_pixels(root):
    (first, *_) = open_source("padchest_gr").annotations(root).questions
    question = read_question(first, root)
    np.testing.assert_allclose(question.boxes, trees.phantom_question(40).boxes, atol=1e-6)


def test_nihs_boxes_fit_a_resized_copy(root):
    """The list speaks of 1,024 pixels, the fixture's pictures have 512."""
    by_name = {Path(q.image_ref).name: q for q in open_source("nih").annotations(root).questions}
    question = read_question(by_name["00000000_000.png"], root)
    np.testing.assert_allclose(question.boxes, trees.phantom_question(60).boxes * 512 / trees.SIDE, atol=1e-6)


def test_the_real_box_list_is_read_whole(real_data, tmp_path):
    table = tmp_path / "nih-chest-xray14" / "BBox_List_2017.csv.gz"
    table.parent.mkdir()
    table.write_bytes((real_data / "cxr" / "BBox_List_2017.csv.gz").read_bytes())
    found = open_source("nih").annotations(tmp_path)
    assert (found.found, found.skips) == (984, ())
    assert {q.finding for q in found.questions} >= {"Atelectasis", "Infiltrate", "Mass"}
    names = [q.image_ref for q in found.questions]
    assert names == sorted(names)


def test_the_box_list_with_nine_cells_a_row_is_the_same(root, tmp_path):
    lines = (root / trees.NIH_TABLE).read_text().splitlines()
    table = tmp_path / trees.NIH_TABLE
    table.parent.mkdir()
    table.write_text("\n".join([lines[0], *(f"{line},,," for line in lines[1:])]) + "\n")
    nine, six = (open_source("nih").annotations(folder).questions for folder in (tmp_path, root))
    assert [(q.finding, q.boxes.tolist()) for q in nine] == [(q.finding, q.boxes.tolist()) for q in six]


def test_patients_are_clusters_without_their_names(root):
    found = {name: open_source(name).annotations(root).questions for name in installed_sources()}
    assert all(re.fullmatch("p[0-9a-f]{16}", q.patient_id) for qs in found.values() for q in qs)
    patients = {q.image_ref.split("/")[4]: q.patient_id for q in found["imagenome"]}
    assert len(set(patients.values())) == len(patients) == 5
    assert len({q.patient_id for q in found["padchest_gr"]}) == 4  # two studies a patient in the master table


def test_without_the_master_table_a_patient_is_a_study(tmp_path):
    trees.write_padchest(tmp_path, pictures=False)
    (tmp_path / "master_table.csv").unlink()
    assert len({q.patient_id for q in open_source("padchest_gr").annotations(tmp_path).questions}) == 7


def test_anatomy_that_cannot_be_read_costs_no_question(tmp_path):
    trees.write_imagenome(tmp_path, pictures=False)
    boxes = trees.imagenome_boxes()
    boxes[0]["coord_original"] = "__import__('os').system('id')"
    boxes[1]["coord_original"] = "[9, 9, 1, 1]"
    trees.write_rows(tmp_path / trees.IMAGENOME_BOXES, trees.IMAGENOME_BOX_HEADER, boxes)
    found = open_source("imagenome").annotations(tmp_path)
    assert (found.found, found.skips) == (12, ())
    names = [row["bbox_name"] for row in boxes[:2]]
    missing = [q for q in found.questions if not q.anatomy.keys() & set(names)]
    assert {q.image_ref.split("/")[-1] for q in missing} == {f"{trees.image_id(0)}.jpg"}


# Indices never shift --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", installed_sources())
def test_a_lost_picture_is_listed_and_shifts_no_index(root, tmp_path, name):
    """Trap 18: removed, damaged, and replaced by a page that asks to sign in."""
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    found = open_source(name).annotations(tmp_path)
    before = {
        q.index: q.image.tobytes() for q in iter_questions(found.questions, tmp_path, lambda skip: None)
    }
    pictures = list(dict.fromkeys(q.image_ref for q in found.questions))
    (tmp_path / pictures[1]).unlink()
    (tmp_path / pictures[2]).write_bytes((tmp_path / pictures[2]).read_bytes()[:700])
    (tmp_path / pictures[3]).write_text("<html>sign in</html>")
    lost = {q.index for q in found.questions if q.image_ref in pictures[1:4]}
    skips: list[Skip] = []
    again = open_source(name).annotations(tmp_path)
    after = {q.index: q.image.tobytes() for q in iter_questions(again.questions, tmp_path, skips.append)}
    assert {skip.index for skip in skips} == lost
    assert all(any(Path(picture).name in skip.reason for picture in pictures[1:4]) for skip in skips)
    assert after == {index: data for index, data in before.items() if index not in lost}


BAD_BOXES = (
    "__import__('os').system('touch hacked')",
    "[1, 2, 3]",
    "[1, 2, 3, 4, 5]",
    "[10, 20, 5, 40]",
    "[nan, 2, 3, 4]",
    "[1, 2, inf, 4]",
    "[1, 2, 1e99, 4]",
    f"[1, 2, {'9' * 400}, 4]",
    "",
    "[1, 2, 3, 4" + " " * 10_000,
    "[1, 2, 0x10, 40]",
)


@pytest.mark.parametrize("cell", BAD_BOXES)
def test_a_box_that_cannot_be_read_costs_its_question_and_no_index(tmp_path, cell, monkeypatch):
    """Trap 30: nothing of a cell is run."""
    monkeypatch.chdir(tmp_path)
    trees.write_imagenome(tmp_path, pictures=False)
    before = keyed(tmp_path, "imagenome")
    rows = trees.imagenome_rows()
    rows[0]["coord_original"] = cell
    trees.write_imagenome(tmp_path, rows, pictures=False)
    found = open_source("imagenome").annotations(tmp_path)
    (skip,) = found.skips
    assert found.found == len(before)
    assert keyed(tmp_path, "imagenome") == [entry for entry in before if entry[0] != skip.index]
    assert str(tmp_path / trees.IMAGENOME_TABLE) in skip.place
    assert "line 2" in skip.place
    assert not Path("hacked").exists()


@pytest.mark.parametrize("cell", ["x", "", "1e12", "=1+1", "NaN", "10,5"])
def test_a_corner_that_is_no_number_costs_its_question_and_no_index(tmp_path, cell):
    rows = trees.vindr_rows()
    trees.write_vindr(tmp_path, pictures=False)
    before = keyed(tmp_path, "vindr_cxr")
    rows[3]["x_max"] = cell
    trees.write_vindr(tmp_path, rows, pictures=False)
    after = open_source("vindr_cxr").annotations(tmp_path)
    (skip,) = after.skips
    assert after.found == len(before)
    assert keyed(tmp_path, "vindr_cxr") == [entry for entry in before if entry[0] != skip.index]


def test_a_box_outside_its_picture_is_a_skip_that_names_both_and_one_that_sticks_out_is_cut(tmp_path):
    rows = trees.vindr_rows()
    rows[0] |= {"x_min": 2000, "x_max": 2100}
    rows[1] |= {"x_min": 200, "x_max": 290}
    trees.write_vindr(tmp_path, rows)
    skips: list[Skip] = []
    found = open_source("vindr_cxr").annotations(tmp_path)
    questions = list(iter_questions(found.questions, tmp_path, skips.append))
    assert len(questions) == 12
    assert [q.boxes[0, 0] for q in questions if q.boxes[0, 2] == trees.WIDTH] == [200]
    (skip,) = skips
    assert "lies outside the picture of 260 x 224 pixels" in skip.reason
    assert "line 2" in skip.reason


@pytest.mark.parametrize(
    "boxes", [[[0.1, 0.2, 3, 0.4]], "[[0, 0, 1, 1]]", [[0.5, 0, 0.1, 1]], [[True, 0, 1, 1]]]
)
def test_a_bad_box_of_padchest_costs_its_question_and_no_index(tmp_path, boxes):
    studies = trees.padchest_studies()
    studies[2]["findings"][2]["boxes"] = boxes  # type: ignore[index]
    trees.write_padchest(tmp_path, studies, pictures=False)
    found = open_source("padchest_gr").annotations(tmp_path)
    assert found.found == 8
    assert [skip.index for skip in found.skips] == [2]
    assert "study 2, finding 2" in found.skips[0].place
    assert [q.index for q in found.questions] == [0, 1, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("ImageID", value) for value in ("../../etc/passwd", 7, "/etc/passwd")],
        ("StudyID", []),
        *[("labels", [label]) for label in ("a\x1b[31mb", "x" * 400, "two\nlines")],
    ],
)
def test_a_name_that_leads_elsewhere_or_is_not_a_line_costs_its_question(tmp_path, name, value):
    studies = trees.padchest_studies()
    place = studies[1]["findings"][2] if name == "labels" else studies[1]  # type: ignore[index]
    place[name] = value
    trees.write_padchest(tmp_path, studies, pictures=False)
    assert [skip.index for skip in open_source("padchest_gr").annotations(tmp_path).skips] == [1]


def test_a_row_without_a_key_is_left_out_as_pandas_does(tmp_path):
    trees.write_vindr(tmp_path, pictures=False)
    before = keyed(tmp_path, "vindr_cxr")
    with (tmp_path / trees.VINDR_TABLE).open("a", newline="") as file:
        csv.writer(file).writerow(["0" * 32, "", 1, 2, 3, 4])
    found = open_source("vindr_cxr").annotations(tmp_path)
    assert keyed(tmp_path, "vindr_cxr") == before
    assert [skip.index for skip in found.skips] == [None]


# Tables that leave ranks open are refused -----------------------------------------------------------------


DAMAGES = {
    "truncated line": lambda text: text[: text.rindex(",")] + "\n",
    "too many cells": lambda text: text.replace("No finding", "No finding,x,y", 1),
    "open quote": lambda text: re.sub(r"((.*\n){3})", r'\1"', text, count=1),
    "lost column": lambda text: text.replace("x_max", "x_maximum"),
    "a column twice": lambda text: text.replace("x_max", "x_min"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_table_whose_rows_cannot_be_told_is_refused(tmp_path, damage):
    table = trees.write_vindr(tmp_path, pictures=False)
    table.write_text(DAMAGES[damage](table.read_text(encoding="utf-8")), encoding="utf-8", newline="")
    with pytest.raises(InputError, match=re.escape(str(table))):
        open_source("vindr_cxr").annotations(tmp_path)


@pytest.mark.parametrize("relation", ["__import__('os')", "yes", "1e400"])
def test_a_relation_that_is_no_number_is_refused(tmp_path, relation):
    rows = trees.imagenome_rows()
    rows[0]["relation"] = relation
    trees.write_imagenome(tmp_path, rows, pictures=False, anatomy=False)
    with pytest.raises(InputError, match=r"line 2: relation: .* cannot be counted"):
        open_source("imagenome").annotations(tmp_path)


@pytest.mark.parametrize("abnormal", ["true", None, 1])
def test_a_finding_that_does_not_say_whether_it_counts_is_refused(tmp_path, abnormal):
    studies = trees.padchest_studies()
    studies[5]["findings"][1]["abnormal"] = abnormal  # type: ignore[index]
    trees.write_padchest(tmp_path, studies, pictures=False)
    with pytest.raises(InputError, match=r"study 5, finding 1: .* cannot be counted"):
        open_source("padchest_gr").annotations(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{}", b"[1]", b"[" * 100_000, b"[NaN]"),
        *(b'[{"findings": [{}]}]', "[é]".encode("utf-16"), b"\xff\xfe"),
    ],
)
def test_a_list_that_is_none_is_refused_by_name(tmp_path, content):
    (tmp_path / trees.PADCHEST_TABLE).write_bytes(content)
    with pytest.raises(InputError, match=re.escape(trees.PADCHEST_TABLE)):
        open_source("padchest_gr").annotations(tmp_path)


@pytest.mark.parametrize("name", ["imagenome", "vindr", "nih"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_a_table_in_another_encoding_is_refused_by_name(tmp_path, name, encoding):
    path = getattr(trees, f"write_{name}")(tmp_path, pictures=False)
    path.write_text(path.read_text(encoding="utf-8"), encoding=encoding)
    with pytest.raises(InputError, match=re.escape(str(path))):
        open_source("vindr_cxr" if name == "vindr" else name).annotations(tmp_path)


def test_stray_bytes_in_a_column_that_is_not_read_do_no_harm(tmp_path):
    table = trees.write_imagenome(tmp_path, pictures=False)
    before = keyed(tmp_path, "imagenome")
    table.write_bytes(table.read_bytes().replace(b"enlarged", b"enl\xe9rged"))
    assert keyed(tmp_path, "imagenome") == before


def test_stray_bytes_in_a_finding_cost_its_question(tmp_path):
    table = trees.write_vindr(tmp_path, pictures=False)
    table.write_bytes(table.read_bytes().replace(b"Other lesion", b"Other l\xe9sion"))
    found = open_source("vindr_cxr").annotations(tmp_path)
    assert (found.found, len(found.skips)) == (13, 4)


@pytest.mark.parametrize(
    ("plain", "written"),
    [
        (b",pacemaker,", ",pacemaker\u00a0,"),
        (b",pacemaker,", ",\ufeffpace\u200bmaker,"),
        (b",hilar enlargement,", ",hilar\u00a0enlargement,"),
        (b",No finding,", ",No\u00a0finding,"),
        (b",No finding,", ",\uff2eo finding\u2009,"),
        (b"class_name", "class_name\u200b"),
        (b"x_min", "\u00a0x_min"),
        (b"image_id", "\ufeffimage_id"),
    ],
)
def test_characters_that_nobody_sees_shift_no_index(tmp_path, plain, written):
    """Written so in one line alone, they would make another finding of it, or a finding of none."""
    table = trees.write_vindr(tmp_path, pictures=False)
    before = keyed(tmp_path, "vindr_cxr")
    assert plain in table.read_bytes()
    table.write_bytes(table.read_bytes().replace(plain, written.encode(), 1))
    assert keyed(tmp_path, "vindr_cxr") == before


def test_full_width_digits_are_numbers_and_a_full_width_comma_parts_no_columns(tmp_path):
    table = trees.write_vindr(tmp_path, pictures=False)
    wide = {ord(digit): 0xFF10 + int(digit) for digit in "0123456789"}
    before = open_source("vindr_cxr").annotations(tmp_path)
    lines = table.read_text(encoding="utf-8").splitlines()
    cells = lines[1].split(",")
    cells[-4:] = [cell.translate(wide) for cell in cells[-4:]]
    table.write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]), encoding="utf-8")
    after = open_source("vindr_cxr").annotations(tmp_path)
    assert [q.boxes.tolist() for q in after.questions] == [q.boxes.tolist() for q in before.questions]
    assert cell_of("a\uff0cb") == "a,b"


def test_a_cell_of_ascii_is_its_own_key_as_in_pandas():
    for cell in ("Mass ", " Mass", "Pleural  effusion", "mass"):
        assert cell_of(cell) == cell


def test_anatomy_is_found_under_its_name_however_it_is_written(tmp_path):
    trees.write_imagenome(tmp_path, pictures=False)
    table = tmp_path / trees.IMAGENOME_BOXES
    before = {image: sorted(found) for image, found in outlined_anatomy(tmp_path).items()}
    assert any("left lung" in found for found in before.values())
    table.write_text(table.read_text("utf-8").replace("left lung", "Left\u00a0Lung"), "utf-8")
    assert {image: sorted(found) for image, found in outlined_anatomy(tmp_path).items()} == before


def test_a_packed_table_that_unpacks_to_anything_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("medfocus_bench.data.sources.tables.MAX_TABLE_BYTES", 2**20)
    path = tmp_path / f"{trees.NIH_TABLE}.gz"
    path.parent.mkdir()
    path.write_bytes(gzip.compress(bytes(2**23)))
    with pytest.raises(InputError, match="larger than 1 MiB"):
        open_source("nih").annotations(tmp_path)
    path.write_bytes(gzip.compress(b"abc")[:-5])
    with pytest.raises(InputError, match=re.escape(str(path))):
        open_source("nih").annotations(tmp_path)


def test_a_table_that_is_not_there_is_named_with_its_place(tmp_path):
    for name, source in installed_sources().items():
        with pytest.raises(InputError, match=re.escape(f"{tmp_path / source.tables[0]}: is not there")):
            open_source(name).annotations(tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        open_source("nih").annotations(tmp_path / "gone")


def test_an_unknown_source_is_named_with_those_there_are():
    with pytest.raises(
        InputError, match="no source 'mimic'; there are imagenome, vindr_cxr, padchest_gr, nih"
    ):
        open_source("mimic")


def test_a_picture_that_is_a_link_out_of_the_root_is_not_read(tmp_path):
    root = tmp_path / "root"
    trees.write_padchest(root)
    (first, *_) = open_source("padchest_gr").annotations(root).questions
    (root / first.image_ref).rename(tmp_path / "elsewhere.png")
    (root / first.image_ref).symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(PictureError, match="leads out of"):
        read_question(first, root)


def test_the_indices_do_not_depend_on_the_pictures_at_all(tmp_path, root):
    for source in installed_sources().values():
        table = tmp_path / source.tables[0]
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_bytes((root / source.tables[0]).read_bytes())
        bare = [(q.index, Path(q.image_ref).name, q.finding) for q in source.annotations(tmp_path).questions]
        whole = [(q.index, Path(q.image_ref).name, q.finding) for q in source.annotations(root).questions]
        assert bare == whole


def resized(root: Path, share: float) -> None:
    """Every JPEG below the root as in a copy that somebody made smaller."""
    for path in root.rglob("*.jpg"):
        with Image.open(path) as image:
            small = image.resize((round(image.width * share), round(image.height * share)))
        small.save(path)


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_a_resized_copy_of_a_collection_is_refused_as_a_whole(tmp_path, share):
    """Most of its boxes lie outside; those that fit by chance would be in the wrong place."""
    trees.write_imagenome(tmp_path)
    annotations = open_source("imagenome").annotations(tmp_path)
    check_copy(annotations, tmp_path)
    resized(tmp_path, share)
    fitting: list[Skip] = []
    left = list(iter_questions(annotations.questions, tmp_path, fitting.append))
    assert len(left) < len(annotations.questions)
    with pytest.raises(OtherCopyError, match="of the 8 pictures of imagenome; they are a resized"):
        check_copy(annotations, tmp_path)


def test_two_replaced_pictures_cost_their_questions_alone(tmp_path):
    trees.write_imagenome(tmp_path)
    paths = sorted(tmp_path.rglob("*.jpg"))
    for path in paths[:2]:
        with Image.open(path) as image:
            image.resize((40, 40)).save(path)
    paths[2].unlink()
    check_copy(open_source("imagenome").annotations(tmp_path), tmp_path)


def test_boxes_that_are_shares_fit_any_copy(tmp_path):
    trees.write_padchest(tmp_path)
    for path in (tmp_path / "PadChest_GR").glob("*.png"):
        with Image.open(path) as image:
            image.resize((30, 26)).save(path)
    annotations = open_source("padchest_gr").annotations(tmp_path)
    check_copy(annotations, tmp_path)
    assert len(list(iter_questions(annotations.questions, tmp_path, print))) == 8
