"""One picture of one's own, whatever its depth and shape, explained by every method that can."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import ExifTags, Image
from safetensors.numpy import load_file

from medfocus_bench.attribution.registry import load_method
from medfocus_bench.errors import InputError
from medfocus_bench.lvlm.registry import load_lvlm
from medfocus_bench.runs.config import RunConfig
from medfocus_bench.runs.methods import choose_methods, with_tuning
from medfocus_bench.runs.picture import explain_picture, read_picture, write_picture
from medfocus_bench.runs.settings import write_document
from medfocus_bench.runs.tune import tune
from medfocus_bench.runs.tuning import open_tuning

from .conftest import first_rows
from .methods import HERE

QUESTION = first_rows("direct")[0]["question"]


@pytest.fixture(scope="module")
def qwen():
    return load_lvlm("phantom_qwen")


@pytest.fixture(scope="module")
def pixels():
    """A phantom whose true answer is yes, (224, 224)."""
    return np.asarray(Image.open(io.BytesIO(first_rows("direct")[0]["image"]["bytes"])))


def saved(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


def explained(path, lvlm, *names, sets=(), **options):
    return explain_picture(read_picture(path), QUESTION, lvlm, choose_methods(names, sets), **options)


def test_every_method_writes_its_map_or_boxes_and_an_overlay(tmp_path, qwen, pixels):
    path = saved(tmp_path / "p.png", pixels[:160])
    names = ("occlusion", "centre-box", "random-map", "image-edges")
    found = explained(path, qwen, *names, sets=["cells=4"], response="Yes.")
    out = write_picture(found, tmp_path / "out")
    assert {p.name for p in out.iterdir()} == {
        "explanations.json",
        "maps.safetensors",
        "panel.png",
        "occlusion.png",
        "null-centre-box.png",
        "null-random-map.png",
        "null-image-edges.png",
    }
    maps = load_file(out / "maps.safetensors")
    assert maps.keys() == {"occlusion", "null-random-map", "null-image-edges"}
    example = qwen.encode(pixels[:160], QUESTION, found.response)
    expected = load_method("occlusion", cells=4).explain(qwen, example)
    np.testing.assert_array_equal(maps["occlusion"], expected.saliency)
    document = json.loads((out / "explanations.json").read_text())
    assert (document["response"], document["width"], document["height"]) == ("Yes.", 224, 160)
    assert [document[name] for name in ("framing", "dtype", "decoding", "pixels")] == [
        "square",
        "float32",
        "greedy",
        None,
    ]
    by_name = {one["method"]["name"]: one for one in document["explanations"]}
    assert by_name["null-centre-box"]["explanation"]["boxes"] == [[56.0, 40.0, 168.0, 120.0]]
    assert by_name["occlusion"]["explanation"]["cost"]["forward_passes"] == 17
    assert by_name["occlusion"]["method"]["hyperparameters"] == {"cells": 4, "fill": 0.0}
    with Image.open(out / "occlusion.png") as overlay:
        assert (overlay.size, overlay.mode) == ((224, 160), "RGB")


def test_a_method_that_cannot_run_is_noted_and_the_rest_goes_on(tmp_path, qwen, pixels):
    path = saved(tmp_path / "p.png", pixels)
    found = explained(
        path, qwen, f"{HERE}:Refusing", f"{HERE}:Stray", f"{HERE}:Counting", sets=["refusing.likes=pneumonia"]
    )
    errors = {one.method.name: one.error for one in found.explanations}
    assert errors["refusing"] == "not of my kind"
    assert "reaches out of the image of 224 x 224 pixels" in errors["stray"]
    assert errors["counting"] is None
    out = write_picture(found, tmp_path / "out")
    held = json.loads((out / "explanations.json").read_text())["explanations"]
    assert (held[0]["error"], held[0]["overlay"]) == ("not of my kind", None)
    assert held[2]["diagnostics"] == {"completeness": 0.5}
    assert not (out / "refusing.png").exists()


def test_depth_and_encoding_do_not_matter(tmp_path, qwen, pixels):
    spread = (pixels.astype(np.int64) - pixels.min()) * 65535 // (int(pixels.max()) - pixels.min())
    whole_range = np.round(spread / 257).astype(np.uint8)
    paths = [
        saved(tmp_path / "8.png", whole_range),
        saved(tmp_path / "16.png", spread.astype(np.uint16)),
        saved(tmp_path / "rgb.png", np.repeat(whole_range[..., None], 3, 2)),
    ]
    images = [read_picture(path).image for path in paths]
    for image in images:
        assert image.dtype == np.uint8
        np.testing.assert_allclose(image.astype(int), whole_range, atol=1)
    assert read_picture(saved(tmp_path / "p.jpg", pixels, quality=95)).image.shape == (224, 224)


def test_a_rotated_photograph_is_explained_upright(tmp_path, qwen, pixels):
    """Whether the camera turned the pixels, or the EXIF data ask the viewer to, is the same picture."""
    upright = pixels[:160]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # a quarter turn to the right
    turned = saved(tmp_path / "turned.png", np.ascontiguousarray(np.rot90(upright)), exif=exif)
    plain = saved(tmp_path / "plain.png", upright)
    names = ("occlusion", "image-edges")
    one, other = (
        explained(path, qwen, *names, sets=["cells=2"], response="Yes.") for path in (turned, plain)
    )
    np.testing.assert_array_equal(one.picture.image, upright)
    for first, second in zip(one.explanations, other.explanations, strict=True):
        np.testing.assert_array_equal(first.attribution.saliency, second.attribution.saliency)


def test_a_large_overlay_is_limited_and_its_picture_is_not_square(tmp_path, qwen, pixels):
    wide = np.kron(pixels[:112], np.ones((6, 6), np.uint8))
    found = explained(saved(tmp_path / "p.png", wide), qwen, "whole-image", "centre-box")
    out = write_picture(found, tmp_path / "out")
    with Image.open(out / "null-whole-image.png") as overlay:
        assert overlay.size == (1024, 512)
    with Image.open(out / "panel.png") as panel:
        assert panel.width == 2 * 28 + 3 * 300 + 2 * 18
        assert panel.height < 450
    assert found.picture.image.shape == (672, 1344)


def test_a_method_is_told_the_finding_that_the_question_is_about(tmp_path, qwen, pixels, monkeypatch):
    told = []
    encode = type(qwen).encode

    def noted(self, *given, finding=None):
        told.append(finding)
        return encode(self, *given, finding=finding)

    monkeypatch.setattr(type(qwen), "encode", noted)
    path = saved(tmp_path / "p.png", pixels)
    explained(path, qwen, f"{HERE}:Counting", response="No.", finding="effusion")
    assert told == ["effusion"]


def test_a_given_response_is_explained_as_it_stands(tmp_path, qwen, pixels, monkeypatch):
    monkeypatch.setattr(type(qwen), "generate", None)
    found = explained(saved(tmp_path / "p.png", pixels), qwen, f"{HERE}:Counting", response="No.")
    assert found.response == "No."


def test_an_earlier_explanation_is_replaced_only_when_asked(tmp_path, qwen, pixels):
    found = explained(saved(tmp_path / "p.png", pixels), qwen, "whole-image")
    out = write_picture(found, tmp_path / "out")
    with pytest.raises(InputError, match="exists already"):
        write_picture(found, out)
    (out / "left-over.png").write_bytes(b"")
    write_picture(found, out, overwrite=True)
    assert not (out / "left-over.png").exists()
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(InputError, match=r"holds no explanations\.json"):
        write_picture(found, other, overwrite=True)
    assert {p.name for p in tmp_path.iterdir()} == {"p.png", "out", "other"}


def test_a_picture_of_a_shape_that_the_lvlm_does_not_take_is_refused_by_its_name(tmp_path):
    path = saved(tmp_path / "long.png", np.arange(9000, dtype=np.uint8)[None])
    native = load_lvlm("phantom_qwen", framing="native")
    for response in (None, "Yes."):
        with pytest.raises(InputError, match=r"^long\.png: cannot be shown to phantom_qwen: .*aspect ratio"):
            explained(path, native, "occlusion", response=response)


@pytest.mark.parametrize("shape", [(15, 300), (300, 15)])
def test_a_picture_too_thin_for_a_method_leaves_the_others_alone(tmp_path, qwen, shape):
    noise = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    path = saved(tmp_path / "thin.png", noise)
    sets = ["medfocus.references=phantom", "occlusion.cells=2"]
    found = explained(path, qwen, "medfocus", "occlusion", sets=sets, response="Yes.")
    thin, other = found.explanations
    assert thin.error.startswith("the picture leaves nothing on a grid of 14 x 14")
    assert other.error is None


def test_settings_that_were_tuned_under_other_conditions_are_refused(tmp_path, qwen, small, pixels):
    part = tune(f"{HERE}:Sided", qwen, small, "direct", limit=1)
    file = tmp_path / "sided.json"
    tuning = open_tuning(file, "sided", "1", small)
    write_document(file, tuning.extended("phantom_qwen", "direct", part))
    methods = with_tuning(choose_methods([f"{HERE}:Sided"]), [file], None)
    picture = read_picture(saved(tmp_path / "p.png", pixels))
    assert explain_picture(picture, QUESTION, qwen, methods, response="Yes.").explanations[0].error is None
    native = RunConfig(framing="native")
    with pytest.raises(InputError, match="square, and this run has --dtype float32 --framing native"):
        explain_picture(picture, QUESTION, qwen, methods, response="Yes.", config=native)


@pytest.mark.parametrize("name", ["random-boxes", "mean-map", "both-lungs"])
def test_null_controls_that_need_expert_boxes_are_refused(tmp_path, qwen, pixels, name):
    with pytest.raises(InputError, match=f"{name} is made from expert boxes"):
        explained(saved(tmp_path / "p.png", pixels), qwen, name)


def test_what_is_no_picture_question_or_response_is_refused(tmp_path, qwen, pixels):
    for name, content, message in (
        ("text.png", b"not a picture", "is not a PNG or JPEG picture"),
        ("empty.png", b"", "is not a PNG or JPEG picture"),
        ("gif.png", b"GIF89a\x01\x00\x01\x00\x00\x00\x00;", "is not a PNG or JPEG picture"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=message):
            read_picture(tmp_path / name)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_picture(tmp_path / "nowhere.png")
    with pytest.raises(InputError, match="is not a regular file"):
        read_picture(tmp_path)
    path = saved(tmp_path / "p.png", pixels)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match="cannot be decoded"):
        read_picture(path)
    path = saved(tmp_path / "p.png", pixels)
    with pytest.raises(InputError, match="the question is empty"):
        explain_picture(read_picture(path), "  ", qwen, choose_methods(["occlusion"]))
    with pytest.raises(InputError, match="has no tokens"):
        explained(path, qwen, "occlusion", response="")
