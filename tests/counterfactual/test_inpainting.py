"""The free editor takes findings out by looking at nothing of them, and is said to do no more."""

from __future__ import annotations

import subprocess
import sys
from functools import cache

import numpy as np
import pytest
from PIL import Image

from medfocus_bench.counterfactual.continuation import continue_smoothly, low_pass
from medfocus_bench.counterfactual.editors import EDITS, EditorError, edited_region
from medfocus_bench.counterfactual.registry import load_editor
from medfocus_bench.data.questions import Question
from medfocus_bench.phantom.track import phantom_questions

from .edits import counterfactual

EDITOR = load_editor("inpainting")


@cache
def phantom():
    (question,) = phantom_questions([3], "lesion")
    return question


def replaced(question, region, seed=0):
    """The question with other pixels in a region of its picture."""
    other = np.random.default_rng(seed).integers(0, 256, question.image.shape, dtype=np.uint8)
    image = np.where(region, other, question.image)
    return Question("phantom", question.index, "p", question.finding, image, question.boxes)


def test_the_foreground_edit_sees_nothing_of_the_region():
    question = phantom()
    region = edited_region(question, "foreground")
    first = counterfactual(EDITOR, question, "foreground")
    second = counterfactual(EDITOR, replaced(question, region), "foreground")
    # The strength of the grain is measured beside the region, where it may differ by a shade.
    assert np.abs(first.astype(int) - second).max() <= 1


@pytest.mark.parametrize("edit", ["background", "background_normal"])
def test_nothing_of_the_region_bleeds_into_a_background(edit):
    question = phantom()
    region = edited_region(question, "foreground")
    first = counterfactual(EDITOR, question, edit)
    second = counterfactual(EDITOR, replaced(question, region), edit)
    assert np.abs(first.astype(int) - second)[~region].max() <= 1
    assert np.array_equal(first[region], question.image[region])


def test_the_sham_changes_a_fraction_of_what_the_foreground_edit_changes():
    changed = {"foreground": [], "sham": []}
    for question in phantom_questions(range(4), "lesion"):
        region = edited_region(question, "sham")
        for edit, changes in changed.items():
            coarse = low_pass(counterfactual(EDITOR, question, edit).astype(np.float32), 2.0)
            original = low_pass(question.image.astype(np.float32), 2.0)
            changes.append(np.abs(coarse - original)[region].mean())
    assert np.mean(changed["sham"]) < 0.25 * np.mean(changed["foreground"])


@pytest.mark.parametrize("edit", EDITS)
def test_a_seed_decides_the_grain(edit):
    first, again, other = (counterfactual(EDITOR, phantom(), edit, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ((5, 7), (1, 1, 3, 3)),
        ((60, 80, 3), (0, 0, 80, 59)),
        ((300, 40), (0, 250, 40, 300)),
        ((1, 9), (2, 0, 3, 1)),
    ],
)
def test_any_shape_and_any_box_is_edited(shape, box, edit):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    question = Question("toy", 0, "p", "mass", image, np.array([box], dtype=np.float64))
    edited = counterfactual(EDITOR, question, edit)
    region = edited_region(question, edit)
    assert edited.shape == shape
    assert np.array_equal(edited[~region], image[~region])


def test_a_plane_is_continued_as_a_plane():
    rows, columns = np.mgrid[:150, :200].astype(np.float32)
    plane = 20 + 0.5 * rows + 0.6 * columns
    hidden = np.zeros(plane.shape, np.bool_)
    hidden[40:110, 60:150] = True
    filled = continue_smoothly(np.where(hidden, 255, plane).astype(np.float32), hidden)
    assert np.abs(filled - plane).max() < 5
    assert np.array_equal(filled[~hidden], plane[~hidden])


def test_a_picture_of_which_all_is_hidden_becomes_its_mean():
    image = np.array([[10, 20], [30, 40]], np.float32)
    assert (continue_smoothly(image, np.ones((2, 2), np.bool_)) == 25).all()
    assert continue_smoothly(image, np.zeros((2, 2), np.bool_)) is image


def test_a_wide_blur_on_a_coarser_grid_is_the_blur():
    from scipy import ndimage

    image = np.mgrid[:200, :260][1].astype(np.float32) / 3
    image[60:150, 80:160] += 150
    exact = ndimage.gaussian_filter(image, 15.0, mode="nearest")
    assert np.abs(low_pass(image, 15.0) - exact).max() < 3


@pytest.fixture
def normals(tmp_path):
    folder = tmp_path / "normals"
    folder.mkdir()
    for number in range(3):
        pattern = np.random.default_rng(number).integers(0, 256, (12, 9), dtype=np.uint8)
        Image.fromarray(pattern).resize((180, 240), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


def test_backgrounds_are_taken_from_two_normal_pictures(normals):
    question = phantom()
    editor = load_editor("inpainting", normals=normals)
    region = edited_region(question, "background")
    first, second = (
        counterfactual(editor, question, edit)[region].astype(float)
        for edit in ("background", "background_normal")
    )
    assert np.corrcoef(first, second)[0, 1] < 0.5
    for edited in (first, second):
        assert abs(edited.mean() - question.image[region].mean()) < 12
    fitting = []
    for number in range(3):
        with Image.open(normals / f"{number}.png") as image:
            shown = image.resize((224, 224), Image.Resampling.BICUBIC, (0, 30, 180, 210))
        fitting.append(np.corrcoef(np.asarray(shown)[region], first)[0, 1])
    assert max(fitting) > 0.8


def test_the_normal_pictures_are_part_of_what_a_run_is_known_by(normals):
    plain, mixed = load_editor("inpainting"), load_editor("inpainting", normals=normals)
    before = mixed.digest
    Image.new("L", (50, 50), 9).save(normals / "0.png")
    assert len({plain.digest, before, load_editor("inpainting", normals=normals).digest}) == 3


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: [path.unlink() for path in folder.glob("[12].png")], "holds 1 PNG or JPEG files"),
        (lambda folder: (folder / "1.png").write_text("not a picture"), r"1\.png: is not a PNG or JPEG"),
        (lambda folder: folder.rename(folder.with_name("moved")), "the folder .* is missing"),
    ],
)
def test_a_bad_folder_of_normals_is_an_error_that_names_it(normals, spoil, says):
    spoil(normals)
    editor = load_editor("inpainting", normals=normals)
    with pytest.raises(EditorError, match=says):
        _ = editor.digest


def test_it_runs_without_torch():
    code = (
        "import sys; from medfocus_bench.counterfactual.registry import load_editor; "
        "load_editor('inpainting'); assert not {'torch', 'skimage'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
