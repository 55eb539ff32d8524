"""The doctor: what is there, what is missing, and a sheet on which left is left."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from medfocus_bench.data.doctor import examine, sources_to_examine
from medfocus_bench.data.questions import Question
from medfocus_bench.data.sheet import TILE, question_sheet
from medfocus_bench.data.sources import open_source
from medfocus_bench.errors import InputError
from tests.data import source_trees as trees


def expecting(monkeypatch: pytest.MonkeyPatch, name: str, **counts: int) -> None:
    """The published numbers, made those of the fixture tree."""
    monkeypatch.setattr(type(open_source(name)), "expected", counts)


def test_a_whole_source_is_complete(tmp_path, monkeypatch):
    trees.write_padchest(tmp_path)
    expecting(monkeypatch, "padchest_gr", test=8, dev=3)
    found = examine(open_source("padchest_gr"), tmp_path, decode_all=True)
    assert found.complete
    assert [(c.split, c.expected, c.found, c.usable) for c in found.counts] == [
        ("test", 8, 8, 8),
        ("dev", 3, 3, 3),
    ]
    assert [question.index for question in found.samples] == [0, 3, 7, 90_002]


def test_the_published_counts_are_held_against_what_is_found(tmp_path):
    trees.write_vindr(tmp_path)
    found = examine(open_source("vindr_cxr"), tmp_path)
    assert not found.complete
    assert (found.counts[0].expected, found.counts[0].found, found.skips) == (2108, 13, ())
    expected = {name: dict(open_source(name).expected) for name in ("imagenome", "vindr_cxr", "padchest_gr")}
    assert expected == {
        "imagenome": {"test": 1405},
        "vindr_cxr": {"test": 2108},
        "padchest_gr": {"test": 2657, "dev": 144},
    }


def test_a_missing_table_is_named_with_where_it_belongs(tmp_path):
    found = examine(open_source("imagenome"), tmp_path)
    assert not found.complete
    assert (
        found.problem == f"{tmp_path / trees.IMAGENOME_TABLE}: is not there; put the annotation table there"
    )


def test_an_optional_file_that_is_missing_is_noted_with_what_it_costs(tmp_path, monkeypatch):
    trees.write_imagenome(tmp_path, anatomy=False)
    expecting(monkeypatch, "imagenome", test=12)
    found = examine(open_source("imagenome"), tmp_path)
    assert found.complete
    (note,) = found.notes
    assert str(tmp_path / trees.IMAGENOME_BOXES) in note
    assert "both-lungs is not available" in note


def test_a_missing_picture_and_a_damaged_one_are_skips(tmp_path, monkeypatch):
    trees.write_padchest(tmp_path)
    expecting(monkeypatch, "padchest_gr", test=8, dev=3)
    pictures = tmp_path / "PadChest_GR"
    (pictures / trees.padchest_image(0)).unlink()
    damaged = pictures / trees.padchest_image(5)
    damaged.write_bytes(damaged.read_bytes()[:-200])
    by_header = examine(open_source("padchest_gr"), tmp_path, samples=1)
    assert [skip.index for skip in by_header.skips] == [0]
    decoded = examine(open_source("padchest_gr"), tmp_path, samples=1, decode_all=True)
    assert [skip.index for skip in decoded.skips] == [0, 6]
    assert not decoded.complete
    assert decoded.counts[0].usable == 6


def test_a_resized_copy_is_said_once_and_nothing_of_it_counts_as_usable(tmp_path):
    trees.write_imagenome(tmp_path)
    for path in tmp_path.rglob("*.jpg"):
        with Image.open(path) as image:
            image.resize((65, 56)).save(path)
    found = examine(open_source("imagenome"), tmp_path)
    assert not found.complete
    assert found.problem is not None
    assert "they are a resized or a cropped copy" in found.problem
    assert [(c.found, c.usable) for c in found.counts] == [(12, 0)]
    assert (found.skips, found.samples) == ((), ())


def test_the_extension_is_examined_where_there_is_something_of_it(tmp_path):
    published = ["imagenome", "vindr_cxr", "padchest_gr"]
    assert [source.name for source in sources_to_examine(tmp_path, [])] == published
    trees.write_nih(tmp_path, pictures=False)
    assert [source.name for source in sources_to_examine(tmp_path, [])] == [*published, "nih"]
    assert [source.name for source in sources_to_examine(tmp_path, ["nih", "nih"])] == ["nih"]
    with pytest.raises(InputError, match="no source 'x'"):
        sources_to_examine(tmp_path, ["x"])


def test_a_root_that_is_no_folder_is_an_error(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        examine(open_source("nih"), tmp_path / "gone")


def question(width: int, height: int, finding: str = "nodule") -> Question:
    image = np.zeros((height, width), dtype=np.uint8)
    image[:, : width // 2] = 200
    boxes = np.array([[0, 0, width / 4, height / 2]])
    return Question("nih", 3, "p", finding, image, boxes)


@pytest.mark.parametrize(("width", "height"), [(640, 640), (640, 320), (300, 700)])
def test_left_is_left_on_the_sheet_and_the_box_is_where_it_is(width, height):
    sheet = np.asarray(question_sheet([question(width, height)]))
    tile = sheet[6 : 6 + TILE, 6 : 6 + TILE].astype(int)
    lit = np.argwhere(tile.min(axis=2) > 150)
    assert lit[:, 1].max() < TILE / 2 + 2, "the bright half is the left one"
    blue = np.argwhere((tile == (64, 200, 255)).all(axis=2))
    scale = TILE / max(width, height)
    top, left = (TILE - height * scale) / 2, (TILE - width * scale) / 2
    assert blue.min(axis=0) == pytest.approx([top, left], abs=1.5)
    assert blue.max(axis=0) == pytest.approx([top + height * scale / 2, left + width * scale / 4], abs=2)


def test_the_caption_can_be_read_and_stays_in_its_tile():
    sheet = np.asarray(question_sheet([question(320, 320, "a finding " * 29), question(320, 320)]))
    captions = sheet[6 + TILE : 6 + TILE + 38]
    first, gap = captions[:, 6 : 6 + TILE], captions[:, 6 + TILE : 12 + TILE]
    assert (first.min(axis=2) > 200).sum() > 200
    assert (gap == gap[0, 0]).all()


def test_a_sheet_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="needs a question"):
        question_sheet([])
