"""LLaVAs, InternVL and SmolVLM2: one picture is one coarse view, whole, and its tokens lie where it says."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    LlavaNextImageProcessorPil,
    LlavaOnevisionImageProcessorPil,
)
from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

from medfocus_bench.attribution.conformance import check_lvlm
from medfocus_bench.attribution.lrp import LRP
from medfocus_bench.data.questions import prompt
from medfocus_bench.errors import InputError
from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
from tests.lvlm.checkpoints import llama_tokenizer, save_llava, save_llava_next
from tests.lvlm.conftest import picture

QUESTION = prompt("nodule", "direct")
TILED = {
    "tiny_llava_next": LlavaNextImageProcessorPil,
    "tiny_llava_onevision": LlavaOnevisionImageProcessorPil,
}
"""Families whose published models see tiles beside the base view, and the library's image processors."""


def seen(lvlm, image):
    """The embeddings of the image's tokens, in the order of the grid."""
    example = lvlm.encode(image, QUESTION, "Yes.")
    return lvlm.trace(example).embeddings.squeeze(0)[example.image_positions]


# -- tiles ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(112, 112), (224, 448), (900, 300)])
@pytest.mark.parametrize("name", TILED)
def test_what_is_seen_is_the_base_view_that_the_published_model_has_beside_its_tiles(
    checkpoint, open_lvlm, name, shape
):
    """The library as it comes, tiles and all: its first features are ours, and one end of a line follows."""
    image, folder, lvlm = picture(1, *shape), checkpoint(name), open_lvlm(name, framing="native")
    inputs = TILED[name].from_pretrained(folder)(Image.fromarray(image).convert("RGB"), return_tensors="pt")
    model = AutoModelForImageTextToText.from_pretrained(folder).eval().model
    assert inputs["pixel_values"].shape[1] > 1
    with torch.inference_mode():
        (features,) = model.get_image_features(inputs["pixel_values"], inputs["image_sizes"]).pooler_output
    example = lvlm.encode(image, QUESTION, "Yes.")
    assert torch.equal(example.pixel_values, inputs["pixel_values"][0, 0])
    own = lvlm.trace(example).embeddings.squeeze(0)
    assert len(example.grid) < len(features)
    assert torch.allclose(own[example.image_positions], features[: len(example.grid)], atol=1e-5)
    after = int(example.image_positions[-1]) + 1
    assert torch.equal(own[after], model.image_newline)
    assert example.ids.tolist().count(lvlm.family.image_token(lvlm.model)) == len(example.grid) + 1


@pytest.mark.parametrize("name", TILED)
def test_no_resolutions_of_a_checkpoint_bring_tiles_back(checkpoint, open_lvlm, tmp_path, name):
    folder = shutil.copytree(checkpoint(name), tmp_path / "tiles")
    config = json.loads((folder / "processor_config.json").read_text())
    config["image_processor"] |= {"image_grid_pinpoints": [[560, 560]], "do_pad": False}
    (folder / "processor_config.json").write_text(json.dumps(config))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"image_grid_pinpoints": [[560, 560]]}))
    lvlm, image = HuggingFaceLVLM("tiles", folder), picture(2, 300, 900)
    assert torch.equal(seen(lvlm, image), seen(open_lvlm(name), image))
    assert lvlm.generate(image, QUESTION, max_new_tokens=3) == open_lvlm(name).generate(
        image, QUESTION, max_new_tokens=3
    )


# -- the whole picture ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["left", "right"])
def test_the_ends_of_a_wide_picture_are_not_cut_off(open_lvlm, monkeypatch, end):
    """CLIP's processor would keep the square in the middle."""
    lvlm = open_lvlm("tiny_llava", framing="native")
    dark = picture(3, 112, 336)
    marked = dark.copy()
    marked[30:80, slice(0, 40) if end == "left" else slice(296, 336)] = 255
    change = (seen(lvlm, marked) - seen(lvlm, dark)).norm(dim=-1)
    row, column = divmod(int(change.argmax()), 8)
    assert row in (3, 4)
    assert column == (0 if end == "left" else 7)
    monkeypatch.setattr(type(lvlm.family), "padded", False)
    assert torch.equal(*(lvlm.encode(each, "?", "Yes.").pixel_values for each in (dark, marked)))


# -- how many tokens, and which ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("tiny_llava", {"patch_size": 16, "num_additional_image_tokens": 0}),
        ("tiny_llava", None),
        ("tiny_llava_next", {"vision_feature_select_strategy": "full"}),
        ("tiny_llava_next", None),
        ("tiny_llava_onevision", {"num_image_tokens": 729}),
        ("tiny_llava_onevision", None),
    ],
)
def test_the_models_config_says_how_many_tokens_a_picture_has(
    checkpoint, open_lvlm, tmp_path, name, settings
):
    """Files of processors were written before these settings were, or for another vision tower."""
    folder = shutil.copytree(checkpoint(name), tmp_path / "other")
    file = folder / "processor_config.json"
    config = json.loads(file.read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(config["image_processor"]))
    file.unlink() if settings is None else file.write_text(json.dumps(settings))
    lvlm = HuggingFaceLVLM("other", folder)
    assert torch.equal(seen(lvlm, picture(4)), seen(open_lvlm(name), picture(4)))


@pytest.mark.parametrize("save", [save_llava, save_llava_next])
def test_a_class_token_among_the_features_is_no_part_of_the_grid(open_lvlm, tmp_path, save):
    lvlm = HuggingFaceLVLM("full", save(tmp_path / "full", vision_feature_select_strategy="full"))
    default = open_lvlm(save.__name__.replace("save_", "tiny_"))
    assert torch.allclose(seen(lvlm, picture(5)), seen(default, picture(5)), atol=1e-6)
    lengths = [len(each.encode(picture(5), QUESTION, "Yes.").ids) for each in (lvlm, default)]
    assert lengths[0] == lengths[1] + 1


def test_a_siglip_tower_has_no_class_token_and_its_own_processor(tmp_path):
    folder = save_llava(
        tmp_path / "siglip",
        tower="siglip_vision_model",
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    lvlm = HuggingFaceLVLM("siglip", folder)
    example = lvlm.encode(picture(6), QUESTION, "Yes.")
    assert example.ids.tolist().count(lvlm.family.image_token(lvlm.model)) == len(example.grid) == 64
    assert example.mean.flatten().tolist() == [0.5] * 3


def test_pixels_beyond_the_last_whole_patch_are_no_tokens(tmp_path):
    """As in SigLIP's 384 pixels: six of them behind the last patch of 14."""
    folder = save_llava(
        tmp_path / "odd",
        tower="siglip_vision_model",
        side=118,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    lvlm = HuggingFaceLVLM("odd", folder)
    example = lvlm.encode(picture(6), QUESTION, "Yes.")
    assert example.pixel_values.shape == (3, 118, 118)
    assert {result.outcome for result in check_lvlm(lvlm)} == {"passed"}
    assert (example.grid.rows, example.grid.columns, example.grid.seen) == (8, 8, (112 / 118, 112 / 118))


def test_a_vision_tower_that_nobody_tried_is_refused(tmp_path):
    with pytest.raises(InputError, match="clip_vision_model and siglip_vision_model here, and none"):
        HuggingFaceLVLM("dino", save_llava(tmp_path / "dino", tower="dinov2"))


def test_smolvlms_picture_stands_between_the_tokens_that_its_own_processor_writes(open_lvlm):
    lvlm = open_lvlm("tiny_smolvlm")
    text = get_image_prompt_string(0, 0, 16, "<fake_token_around_image>", "<image>", "<global-img>")
    ids = lvlm.encode(picture(7), QUESTION, "Yes.").ids
    assert lvlm.processor.tokenizer.decode(ids).count(text) == 1


@pytest.mark.parametrize("name", ["tiny_internvl", "tiny_smolvlm"])
def test_blocks_of_patches_are_in_raster_order_and_not_in_that_of_columns(open_lvlm, name):
    """The shuffle of pixels swaps the axes twice: each block of a square picture, one at a time."""
    lvlm = open_lvlm(name, framing="native")
    dark = picture(8, 112, 112)
    plain, found = seen(lvlm, dark), []
    for row, column in ((0, 3), (3, 0), (1, 2), (2, 3)):
        marked = dark.copy()
        marked[28 * row : 28 * (row + 1), 28 * column : 28 * (column + 1)] = 255
        change = (seen(lvlm, marked) - plain).norm(dim=-1)
        found.append(divmod(int(change.argmax()), 4))
    assert found == [(0, 3), (3, 0), (1, 2), (2, 3)]


# -- text ----------------------------------------------------------------------------------------------------


def test_llamas_tokenizer_gives_a_response_the_tokens_that_it_has_behind_the_prompt(tmp_path):
    """Traps 2 and 12: the space before "Yes" is the tokenizer's own, and the start token stands once."""
    lvlm = HuggingFaceLVLM("llama", save_llava(tmp_path / "llama", tokenizer=llama_tokenizer()))
    example = lvlm.encode(picture(1), QUESTION, "Yes.\n")
    shown = [[Image.fromarray(picture(1)).convert("RGB")]]
    whole = lvlm.processor(text=[lvlm.prompt(QUESTION) + " Yes.\n"], images=shown, return_tensors="pt")
    assert torch.equal(example.ids, whole["input_ids"][0])
    assert example.ids.tolist().count(lvlm.processor.tokenizer.bos_token_id) == 1
    assert example.tokens[example.verdict] == "Yes"
    with pytest.raises(InputError, match="cannot be written with the tokens"):
        lvlm.encode(picture(1), QUESTION, " Yes.")
    written = lvlm.generate(picture(1), QUESTION, max_new_tokens=6)
    assert tuple(lvlm.encode(picture(1), QUESTION, written).ids[-len(written.ids) :].tolist()) == written.ids


# -- decoders ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tiny_llava", "tiny_llava_next", "tiny_llava_onevision", "tiny_internvl"])
def test_relevance_is_conserved_by_every_decoder_that_checkpoints_have(open_lvlm, name):
    """LLaMA's, Mistral's and Qwen 2's, whose biases the random weights leave at zero."""
    lvlm = open_lvlm(name)
    found = LRP(attention_rule="constant").explain(lvlm, lvlm.encode(picture(9), QUESTION, "Yes."))
    assert found.diagnostics["conservation"] == pytest.approx(1, abs=1e-4)


def test_a_decoder_whose_mlps_have_no_rule_is_refused_by_lrp_and_explained_by_others(tmp_path):
    """Phi 3 has gate and value in one matrix."""
    lvlm = HuggingFaceLVLM("phi", save_llava(tmp_path / "phi", text="phi3"))
    example = lvlm.encode(picture(9), QUESTION, "Yes.")
    assert lvlm.trace(example, hidden=[lvlm.layers - 1]).hidden
    with pytest.raises(InputError, match="LRP has no rule for SiLUActivation"):
        LRP().explain(lvlm, example)
