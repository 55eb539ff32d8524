"""MedSAM and OWLv2 through the real classes, with tiny random checkpoints."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file, save_file

from medfocus_bench.attribution.vision_models import load_detector, load_segmenter, mask_boxes
from medfocus_bench.errors import InputError

from .vision_checkpoints import write_owlv2, write_sam

IMAGE = np.random.default_rng(0).integers(0, 256, (80, 50, 3), dtype=np.uint8)
WIDE = np.random.default_rng(1).integers(0, 256, (30, 120), dtype=np.uint8)
BOXES = [[0, 0, 20, 20], [5, 5, 50, 80], [30.5, 10, 45, 70], [10, 60, 25, 80]]
PHRASES = ["left lung", "heart", "pleural effusion", "rib", "a very long name of some region of the chest"]


@pytest.fixture(scope="module")
def sam_folder(tmp_path_factory):
    return write_sam(tmp_path_factory.mktemp("sam"))


@pytest.fixture(scope="module")
def owlv2_folder(tmp_path_factory):
    return write_owlv2(tmp_path_factory.mktemp("owlv2"))


@pytest.fixture
def segmenter(sam_folder):
    return load_segmenter(str(sam_folder))


@pytest.fixture
def detector(owlv2_folder):
    return load_detector(str(owlv2_folder))


def plain_masks(segmenter, image, boxes, **options):
    """(boxes, masks, height, width), everything at once as the library's own example does it."""
    picture = Image.fromarray(image).convert("RGB")
    inputs = segmenter.processor(images=picture, input_boxes=[boxes], return_tensors="pt")
    with torch.inference_mode():
        found = segmenter.model(**inputs, **options).pred_masks
    sizes = inputs["original_sizes"], inputs["reshaped_input_sizes"]
    return segmenter.processor.post_process_masks(found, *sizes)[0].numpy()


def test_a_box_gets_the_single_mask_output(segmenter):
    """Trap 29."""
    masks = segmenter.segment(IMAGE, BOXES)
    single = plain_masks(segmenter, IMAGE, BOXES, multimask_output=False)
    several = plain_masks(segmenter, IMAGE, BOXES, multimask_output=True)
    assert masks.shape == (4, 80, 50)
    assert masks.dtype == np.bool_
    assert np.array_equal(masks, single[:, 0])
    assert not any(np.array_equal(masks, several[:, number]) for number in range(several.shape[1]))


def test_the_image_is_encoded_once_and_each_box_has_its_own_mask_whatever_stands_beside_it(segmenter):
    """Trap 29."""
    calls = []
    with segmenter.model.vision_encoder.register_forward_hook(lambda *_: calls.append(1)):
        together = segmenter.segment(IMAGE, BOXES * 5)
        assert segmenter.segment(IMAGE, np.empty((0, 4))).shape == (0, 80, 50)
    assert len(calls) == 1
    assert len({mask.tobytes() for mask in together}) == len(BOXES)
    for number, box in enumerate(BOXES):
        (alone,) = segmenter.segment(IMAGE, [box])
        assert np.array_equal(alone, together[number])
        assert np.array_equal(alone, together[number + 4 * len(BOXES)])


def test_the_box_of_a_mask_is_tight_and_half_open():
    masks = np.zeros((3, 10, 12), dtype=bool)
    masks[0, 2:5, 3:9] = True
    masks[0, 3, 4] = False
    masks[1, 9, 11] = True
    assert mask_boxes(masks).tolist() == [[3, 2, 9, 5], [11, 9, 12, 10], [0, 0, 0, 0]]
    assert mask_boxes(np.empty((0, 10, 12))).shape == (0, 4)


@pytest.mark.parametrize("image", [IMAGE, WIDE])
def test_a_phrase_gets_the_box_it_would_get_alone(detector, image):
    """The library's own post-processing gives a patch to one phrase only, and keeps boxes in the padding."""
    found = detector.detect(image, PHRASES)
    height, width = image.shape[:2]
    picture = Image.fromarray(image).convert("RGB")
    for number, phrase in enumerate(PHRASES):
        inputs = detector.processor(
            text=[[phrase]], images=picture, padding="max_length", truncation=True, return_tensors="pt"
        )
        with torch.inference_mode():
            outputs = detector.model(**inputs)
        (plain,) = detector.processor.post_process_grounded_object_detection(
            outputs, threshold=0.0, target_sizes=[(height, width)]
        )
        boxes = np.clip(plain["boxes"].numpy(), 0, [width, height, width, height])
        shown = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        best = np.where(shown, plain["scores"].numpy(), -1).argmax()
        assert found.boxes[number] == pytest.approx(boxes[best], abs=1e-3)
        assert found.scores[number] == pytest.approx(plain["scores"][best].item(), abs=1e-5)


def test_a_box_in_the_padding_of_the_detector_is_never_the_best(detector):
    phrases = [f"{a}{b}" for a in "abcdef" for b in "uvwxyz"]
    found = detector.detect(WIDE, phrases)
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
    assert (found.boxes <= [120, 30, 120, 30]).all()
    inputs = detector.processor(
        text=[phrases], images=Image.fromarray(WIDE).convert("RGB"), padding="max_length", return_tensors="pt"
    )
    with torch.inference_mode():
        outputs = detector.model(**inputs)
    careless = outputs.pred_boxes[0, outputs.logits[0].argmax(0)]
    assert ((careless[:, 1] - careless[:, 3] / 2) * 120 > 30).any()


def test_no_phrases_have_no_boxes(detector):
    found = detector.detect(IMAGE, [])
    assert found.boxes.shape == (0, 4)
    assert found.scores.shape == (0,)


def test_a_checkpoint_is_loaded_once(sam_folder, owlv2_folder):
    assert load_segmenter(str(sam_folder)).model is load_segmenter(str(sam_folder), None, "cpu").model
    assert load_detector(str(owlv2_folder)).model is load_detector(str(owlv2_folder)).model


def test_a_checkpoint_that_failed_is_not_tried_again(tmp_path):
    """Without a network each try takes half a minute, and a run has many samples."""
    folder = tmp_path / "sam"
    with pytest.raises(InputError, match="cannot be loaded"):
        load_segmenter(str(folder))
    write_sam(folder)
    with pytest.raises(InputError, match="cannot be loaded"):
        load_segmenter(str(folder))


def test_the_shipped_models_have_names(monkeypatch):
    """They are folders of the package: nothing is asked of the Hub."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load_segmenter("phantom_sam").model.config.model_type == "sam"
    assert load_detector("phantom_owlv2").model.config.model_type == "owlv2"
    with pytest.raises(InputError, match="owlv2: holds a model of type 'owlv2'"):
        load_segmenter("phantom_owlv2")


@pytest.mark.parametrize("names", [{}, {"processor_class": "CLIPProcessor"}])
def test_folders_as_on_the_hub_work_as_those_saved_today_and_pictures_go_through_pil(
    names, sam_folder, owlv2_folder, segmenter, detector, tmp_path
):
    """One file for the image processor, which names classes; none for the processor."""
    for folder, name in ((sam_folder, "sam"), (owlv2_folder, "owlv2")):
        hub = tmp_path / name
        shutil.copytree(folder, hub)
        settings = json.loads((hub / "processor_config.json").read_text())
        (hub / "processor_config.json").unlink()
        pictures = settings["image_processor"] | {"processor_class": settings["processor_class"]} | names
        (hub / "preprocessor_config.json").write_text(json.dumps(pictures))
    other, finder = load_segmenter(str(tmp_path / "sam")), load_detector(str(tmp_path / "owlv2"))
    assert (other.segment(IMAGE, BOXES) == segmenter.segment(IMAGE, BOXES)).all()
    assert (finder.detect(IMAGE, PHRASES).boxes == detector.detect(IMAGE, PHRASES).boxes).all()
    for loaded in (other, finder, segmenter, detector):
        assert loaded.processor.image_processor.backend == "pil"


@pytest.mark.parametrize("load", [load_segmenter, load_detector])
def test_weights_that_are_not_to_be_had_are_an_error_that_says_what_to_fetch(load, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    said = "hf download no-owner/no-model --local-dir FOLDER.*for phantoms there is phantom_(sam|owlv2)"
    with pytest.raises(InputError, match=said):
        load("no-owner/no-model")


def test_a_folder_of_another_model_is_an_error(sam_folder, owlv2_folder):
    """transformers would read it, with weights drawn at random."""
    with pytest.raises(InputError, match="type 'owlv2'; the segmenter needs one of 'sam'"):
        load_segmenter(str(owlv2_folder))
    with pytest.raises(InputError, match="type 'sam'; the detector needs one of 'owlv2'"):
        load_detector(str(sam_folder))


MASK_TOKENS = "mask_decoder.mask_tokens.weight"


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (None, rf"lacks weights .* {MASK_TOKENS}; fetch it again"),
        (torch.zeros(2, 5), "cannot be loaded as the segmenter"),
    ],
)
def test_a_checkpoint_whose_weights_are_missing_or_of_another_shape_is_an_error(tmp_path, tokens, said):
    (weights,) = write_sam(tmp_path).glob("*.safetensors")
    tensors = load_file(weights)
    del tensors[MASK_TOKENS]
    save_file(tensors | ({} if tokens is None else {MASK_TOKENS: tokens}), weights, metadata={"format": "pt"})
    with pytest.raises(InputError, match=said):
        load_segmenter(str(tmp_path))


def test_a_damaged_checkpoint_is_an_error(tmp_path):
    (weights,) = write_sam(tmp_path).glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match="cannot be loaded as the segmenter"):
        load_segmenter(str(tmp_path))


@pytest.mark.parametrize("file", ["config.json", "processor_config.json"])
def test_code_that_comes_with_a_checkpoint_never_runs(file, tmp_path, monkeypatch):
    """Trap 32."""
    write_sam(tmp_path)
    ran = tmp_path / "ran"
    code = f"import pathlib\npathlib.Path({str(ran)!r}).touch()\nclass Foreign: ...\n"
    (tmp_path / "foreign.py").write_text(code)
    content = json.loads((tmp_path / file).read_text())
    part = content if file == "config.json" else content["image_processor"]
    part["auto_map"] = {"AutoConfig": "foreign.Foreign", "AutoImageProcessor": "foreign.Foreign"}
    (tmp_path / file).write_text(json.dumps(content))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    segmenter = load_segmenter(str(tmp_path))
    assert segmenter.segment(IMAGE, BOXES).shape == (4, 80, 50)
    assert not ran.exists()


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(InputError, match="hf download flaviagiammarino/medsam-vit-base --local-dir FOLDER"):
        load_segmenter(str(tmp_path))
