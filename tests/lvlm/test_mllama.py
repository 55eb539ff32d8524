"""Llama 3.2 Vision: the decoder looks at the picture by cross-attention, in one tile."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import MllamaImageProcessorPil

from medfocus_bench.attribution.registry import list_methods, load_method
from medfocus_bench.data.questions import prompt
from medfocus_bench.errors import InputError
from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
from medfocus_bench.lvlm.random_decoder import draw_decoder
from tests.lvlm.conftest import picture

QUESTION = prompt("nodule", "direct")
SHAPES = [(112, 112), (224, 448), (392, 224)]


@pytest.mark.parametrize("shape", SHAPES)
def test_inputs_of_a_teacher_forced_pass_are_those_of_the_processor_for_the_same_text(open_lvlm, shape):
    lvlm = open_lvlm("tiny_mllama", framing="native")
    image = picture(1, *shape)
    theirs = lvlm._processed([lvlm.prompt(QUESTION) + "Yes."], [lvlm._picture(image)])
    example = lvlm.encode(image, QUESTION, "Yes.")
    ours = lvlm.family.image_inputs(lvlm.model, example.pixel_values[None])
    ours |= lvlm.family.other_inputs(lvlm.model, {"input_ids": example.ids[None]})
    ours |= {"input_ids": example.ids[None], "attention_mask": torch.ones_like(example.ids[None])}
    assert set(ours) == set(theirs)
    for name, values in ours.items():
        assert torch.equal(values, theirs[name]), name
        assert values.dtype == theirs[name].dtype, name


def test_the_prompts_picture_token_and_what_follows_see_the_one_tile_that_is_filled(open_lvlm):
    lvlm = open_lvlm("tiny_mllama")
    example = lvlm.encode(picture(1), QUESTION, "Yes.")
    (at,) = (example.ids == lvlm.processor.image_token_id).nonzero()[:, 0].tolist()
    mask = lvlm.family.other_inputs(lvlm.model, {"input_ids": example.ids[None]})["cross_attention_mask"]
    assert at > 0
    assert not mask[0, :at].any()
    assert mask[0, at:, 0].tolist() == [[1, 0, 0, 0]] * (len(example.ids) - at)


@pytest.mark.parametrize("shape", SHAPES[1:])
def test_a_picture_that_the_stock_processor_would_cut_is_one_tile_of_the_whole_of_it(open_lvlm, shape):
    lvlm = open_lvlm("tiny_mllama", framing="native")
    given = lvlm._picture(picture(1, *shape))
    stock = MllamaImageProcessorPil(size={"height": 112, "width": 112})
    assert stock(images=[[given]], return_tensors="pt")["num_tiles"][0][0] > 1
    example = lvlm.encode(picture(1, *shape), QUESTION, "Yes.")
    shown = np.asarray(given.resize((112, 112))).transpose(2, 0, 1) / 255
    found = (example.pixel_values * example.std + example.mean).numpy()
    assert np.abs(found - shown).mean() < 0.02
    assert (example.grid.rows, example.grid.columns, example.grid.view.framing) == (8, 8, "square")


@pytest.mark.parametrize("framing", ["native", "square"])
@pytest.mark.parametrize("shape", SHAPES[1:])
def test_what_cross_attention_reads_changes_where_the_picture_does(open_lvlm, shape, framing):
    lvlm = open_lvlm("tiny_mllama", framing=framing)
    height, width = shape
    dark = picture(3, height, width)
    marked = dark.copy()
    top, bottom, left, right = round(0.5 * height), round(0.8 * height), round(0.25 * width), width // 2
    marked[top:bottom, left:right] = 255
    states = []
    projector = lvlm.model.model.multi_modal_projector
    with projector.register_forward_hook(lambda *call: states.append(call[-1].reshape(4, 65, -1)[0, 1:])):
        examples = [lvlm.encode(image, QUESTION, "Yes.") for image in (dark, marked)]
        for example in examples:
            lvlm.trace(example)
    grid = examples[0].grid
    saliency = grid.view.frame.whole_of(grid.saliency((states[0] - states[1]).norm(dim=-1).numpy()))
    y, x = np.unravel_index(saliency.argmax(), saliency.shape)
    ((x1, y1, x2, y2),) = grid.view.frame.to_native([[x, y, x + 1, y + 1]])
    assert left <= (x1 + x2) / 2 <= right
    assert top <= (y1 + y2) / 2 <= bottom


def test_the_weights_of_a_block_that_looks_at_the_picture_are_over_its_patches(open_lvlm):
    lvlm = open_lvlm("tiny_mllama")
    example = lvlm.encode(picture(1), QUESTION, "Yes.")
    found = lvlm.trace(example, attentions=[1]).attentions[1]
    patches = len(example.grid) + 1  # and the class token
    assert found.shape == (1, 4, len(example.ids), 4 * patches)
    assert torch.allclose(found.sum(-1), torch.ones(found.shape[:3]), atol=1e-5)
    assert not found[0, :, example.answer.start :, patches:].any()


def test_a_model_whose_gates_were_never_trained_is_an_error(checkpoint, tmp_path):
    """Trap 13: built from config, no picture has an effect, and all pictures get the same logits."""
    folder = shutil.copytree(checkpoint("tiny_mllama"), tmp_path / "blind")
    weights = load_file(folder / "model.safetensors")
    blind = {name: values * (0 if name.endswith("_gate") else 1) for name, values in weights.items()}
    save_file(blind, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="blind: the gates of its cross-attention are zero: train it"):
        HuggingFaceLVLM("blind", folder)


def test_the_vision_tower_sees_the_empty_tiles_which_is_why_they_are_there(open_lvlm):
    """The mask of the tower hides an empty tile from empty tiles alone: left out, the answer is another."""
    lvlm = open_lvlm("tiny_mllama")
    example = lvlm.encode(picture(1), QUESTION, "Yes.")
    inputs = lvlm.family.image_inputs(lvlm.model, example.pixel_values[None])
    seen = []
    for grey in (0.0, 1.0):
        inputs["pixel_values"][:, :, 1:] = grey
        with torch.inference_mode():
            seen.append(lvlm.model.model.vision_model(**inputs).last_hidden_state[0, 0, 0])
    assert (seen[0] - seen[1]).abs().max() > 1e-3


def test_a_random_decoder_has_its_cross_attention_redrawn_too(checkpoint):
    lvlm = HuggingFaceLVLM("tiny", checkpoint("tiny_mllama"))
    block = lvlm.decoder.layers[1]
    before = {name: weight.clone() for name, weight in block.named_parameters()}
    draw_decoder(lvlm.model, lvlm.decoder, 0, name="tiny")
    for name, weight in block.named_parameters():
        assert torch.equal(weight, before[name]) == (weight.ndim < 2), name
    assert any(name.startswith("cross_attn.") and weight.ndim == 2 for name, weight in before.items())


@pytest.mark.parametrize(
    "name", [name for name in list_methods() if "image_tokens" in load_method(name).assumes]
)
def test_a_method_that_reads_image_tokens_is_refused_with_the_reason(open_lvlm, name):
    lvlm = open_lvlm("tiny_mllama")
    with (
        lvlm.measured() as meter,
        pytest.raises(InputError, match=f"{name} cannot .* does not read a picture as tokens"),
    ):
        load_method(name).attribute(lvlm, picture(1), QUESTION, "Yes.")
    assert meter.forward_passes == 0
