"""Families differ in pixels, grids, type ids and prompts, and in nothing else."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from medfocus_bench.attribution.box_parsing import parse_boxes
from medfocus_bench.data.questions import prompt
from medfocus_bench.errors import InputError
from medfocus_bench.lvlm.adapter import HuggingFaceLVLM, frame_picture
from medfocus_bench.lvlm.checkpoint import within
from medfocus_bench.lvlm.families import Family, load_family
from medfocus_bench.phantom.render import Patient, render
from tests.lvlm.conftest import picture
from tests.lvlm.plain import Plain

QUESTION = prompt("nodule", "direct")
LARGE = (56 * 56, 1280 * 28 * 28)
"""Room for pictures of any shape: the phantom track's processors resize to at most 224 x 224 pixels."""

NATIVE = {
    "phantom_qwen": {(224, 448): (8, 16), (392, 224): (14, 8), (224, 224): (8, 8)},
    "phantom_gemma": {(224, 448): (8, 8), (392, 224): (8, 8), (224, 224): (8, 8)},
    "tiny_paligemma": {(224, 448): (8, 8), (392, 224): (8, 8), (112, 112): (8, 8)},
    "tiny_idefics3": {(224, 448): (4, 4), (392, 224): (4, 4), (112, 112): (4, 4)},
    "tiny_qwen2_vl": {(224, 448): (8, 16), (392, 224): (14, 8), (224, 224): (8, 8)},
    "tiny_qwen3_vl": {(224, 448): (7, 14), (384, 224): (12, 7), (224, 224): (7, 7)},
    "tiny_smolvlm": {(224, 448): (4, 4), (392, 224): (4, 4), (112, 112): (4, 4)},
    "tiny_llava": {(224, 448): (8, 8), (392, 224): (8, 8), (112, 112): (8, 8)},
    "tiny_llava_next": {(224, 448): (8, 8), (392, 224): (8, 8), (112, 112): (8, 8)},
    "tiny_llava_onevision": {(224, 448): (8, 8), (392, 224): (8, 8), (112, 112): (8, 8)},
    "tiny_internvl": {(224, 448): (4, 4), (392, 224): (4, 4), (112, 112): (4, 4)},
}
RANDOM = ["tiny_qwen", "tiny_gemma", *(name for name in NATIVE if name.startswith("tiny"))]
SHAPES = [(name, shape) for name, grids in NATIVE.items() for shape in grids]
AS_IT_IS = [
    ("phantom_qwen", (224, 448)),
    ("phantom_qwen", (392, 224)),
    ("phantom_gemma", (224, 224)),
    ("tiny_paligemma", (112, 112)),
    ("tiny_idefics3", (112, 112)),
    ("tiny_qwen2_vl", (392, 224)),
    ("tiny_qwen3_vl", (224, 448)),
    ("tiny_qwen3_vl", (384, 224)),
    ("tiny_smolvlm", (112, 112)),
    ("tiny_llava", (112, 112)),
    ("tiny_llava_next", (112, 112)),
    ("tiny_llava_onevision", (112, 112)),
    ("tiny_internvl", (112, 112)),
]
"""Pictures that the processor does not resize."""


def opened(open_lvlm, name, framing="native"):
    return open_lvlm(name, framing=framing, pixels=LARGE if "qwen" in name else None)


# -- trap 8: the order of patches ----------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "shape"), AS_IT_IS)
def test_the_pixel_values_are_the_normalised_picture(open_lvlm, name, shape):
    lvlm = opened(open_lvlm, name)
    image = picture(3, *shape)
    example = lvlm.encode(image, QUESTION, "Yes.")
    rgb = torch.from_numpy(image).float().expand(3, -1, -1) / 255
    assert torch.allclose(example.pixel_values, (rgb - example.mean) / example.std, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "side"), [("phantom_qwen", 14), ("tiny_qwen2_vl", 14), ("tiny_qwen3_vl", 16)]
)
def test_qwens_patches_in_raster_order_would_scramble_the_picture(open_lvlm, name, side):
    lvlm = opened(open_lvlm, name)
    rows, columns = 224 // side, 448 // side
    image = picture(3, 224, 448)
    example = lvlm.encode(image, QUESTION, "Yes.")
    values = lvlm._processed([lvlm.prompt(QUESTION)], [Image.fromarray(image).convert("RGB")])["pixel_values"]
    raster = values.reshape(rows, columns, 3, 2, side, side)[:, :, :, 0].permute(2, 0, 3, 1, 4)
    placed = example.pixel_values.reshape(3, rows, side, columns, side) == raster
    assert placed.all(dim=(0, 2, 4)).float().mean() < 0.2


@pytest.mark.parametrize(("name", "shape"), SHAPES)
def test_image_inputs_and_the_grid_are_those_of_the_processor_and_the_family(open_lvlm, name, shape):
    lvlm = opened(open_lvlm, name)
    image = Image.fromarray(picture(3, *shape)).convert("RGB")
    theirs = lvlm._processed([lvlm.prompt(QUESTION)], [image])
    pixel_values = lvlm.family.pixel_values(lvlm.model, theirs)
    ours = lvlm.family.image_inputs(lvlm.model, pixel_values[None])
    for key, values in ours.items():
        assert torch.equal(values.reshape(theirs[key].shape), theirs[key]), key
    grid = lvlm.encode(picture(3, *shape), "?", "Yes").grid
    assert (grid.rows, grid.columns) == NATIVE[name][shape]


def test_a_folder_whose_limits_of_pixels_are_wider_keeps_to_those_of_its_family(checkpoint, tmp_path):
    """As those of the published Qwen2.5-VL are, by names of old: a film would take 9,919 image tokens."""
    folder = tmp_path / "qwen"
    shutil.copytree(checkpoint("phantom_qwen"), folder)
    config = json.loads((folder / "processor_config.json").read_text())
    config["image_processor"] |= {"min_pixels": 3136, "max_pixels": 12_845_056}
    (folder / "processor_config.json").write_text(json.dumps(config))
    image = picture(3, 3056, 2544)
    grids = {None: (39, 32), (56 * 56, 224 * 448): (12, 10), (56 * 56, 2_000_000): (55, 46)}
    for pixels, grid in grids.items():
        lvlm = HuggingFaceLVLM("qwen", folder, framing="native", pixels=pixels)
        found = lvlm.encode(image, "?", "Yes").grid
        assert (found.rows, found.columns) == grid


@pytest.mark.parametrize(
    ("own", "limits"),
    [((784, 10**7), (3136, 1_003_520)), ((6272, 50_176), (6272, 50_176)), ((784, 784), (784, 784))],
)
def test_a_checkpoint_with_narrower_limits_of_pixels_keeps_them(own, limits):
    of_checkpoint = dict(zip(("shortest_edge", "longest_edge"), own, strict=True))
    assert within(load_family("qwen2_5_vl").pixels, of_checkpoint) == limits


def test_a_size_that_says_no_pixels_is_an_error_with_the_way_out(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint("tiny_qwen"), tmp_path / "qwen")
    for name in ("processor_config.json", "preprocessor_config.json"):
        if (folder / name).is_file():
            settings = json.loads((folder / name).read_text())
            settings.get("image_processor", settings)["size"] = {"height": 56, "width": 56}
            (folder / name).write_text(json.dumps(settings))
    with pytest.raises(InputError, match=r"tmp.*qwen: its image processor has no shortest_edge.*give pixels"):
        HuggingFaceLVLM("qwen", folder)
    assert HuggingFaceLVLM("qwen", folder, pixels=(784, 50_176)).layers


def test_limits_of_pixels_that_no_picture_can_have_are_refused(checkpoint):
    with pytest.raises(InputError, match="pixels 3136,50176: models of type gemma3 make one size of every"):
        HuggingFaceLVLM("gemma", checkpoint("phantom_gemma"), pixels=(3136, 50_176))
    with pytest.raises(InputError, match="pixels 9,8: give the least and the most pixels"):
        HuggingFaceLVLM("qwen", checkpoint("phantom_qwen"), pixels=(9, 8))


@pytest.mark.parametrize("framing", ["native", "square"])
@pytest.mark.parametrize("shape", [(224, 448), (392, 224)])
@pytest.mark.parametrize("name", RANDOM)
def test_a_map_peaks_where_the_picture_was_changed(open_lvlm, name, shape, framing):
    """Traps 8, 9 and 20: from a native patch through the processor to tokens, and back to native pixels.

    With random weights: a trained vision tower answers a bright square in its other tokens too.
    """
    lvlm = opened(open_lvlm, name, framing)
    height, width = shape
    dark = picture(3, height, width)
    marked = dark.copy()
    top, bottom, left, right = round(0.5 * height), round(0.8 * height), round(0.25 * width), width // 2
    marked[top:bottom, left:right] = 255
    examples = [lvlm.encode(image, QUESTION, "Yes.") for image in (dark, marked)]
    tokens = [lvlm.trace(example).embeddings.squeeze(0)[example.image_positions] for example in examples]
    grid = examples[0].grid
    saliency = grid.view.frame.whole_of(grid.saliency((tokens[0] - tokens[1]).norm(dim=-1).numpy()))
    y, x = np.unravel_index(saliency.argmax(), saliency.shape)
    ((x1, y1, x2, y2),) = grid.view.frame.to_native([[x, y, x + 1, y + 1]])
    assert left <= (x1 + x2) / 2 <= right
    assert top <= (y1 + y2) / 2 <= bottom


# -- trap 9: one picture stays one picture -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("phantom_gemma", {"do_pan_and_scan": True}),
        ("tiny_idefics3", {"do_image_splitting": True, "size": {"longest_edge": 224}}),
        ("tiny_smolvlm", {"do_image_splitting": True, "size": {"longest_edge": 224}}),
        ("tiny_internvl", {"crop_to_patches": True, "min_patches": 2}),
    ],
)
def test_crops_are_off_even_where_the_processors_settings_have_them_on(checkpoint, name, options):
    lvlm, plain = (HuggingFaceLVLM(name, checkpoint(name), framing="native") for _ in range(2))
    lvlm.processor.images_kwargs = {**lvlm.processor.images_kwargs, **options}
    image = picture(4, 300, 900)
    inputs = {"text": [lvlm.prompt(QUESTION)], "images": [[Image.fromarray(image).convert("RGB")]]}
    cut = lvlm.processor(**inputs, return_tensors="pt")["input_ids"][0].tolist()
    example, usual = (each.encode(image, QUESTION, "Yes.") for each in (lvlm, plain))
    assert cut.count(lvlm.family.image_token(lvlm.model)) > len(example.grid)
    assert torch.equal(example.ids, usual.ids)


# -- trap 7: type ids and positions --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("phantom_qwen", "mm_token_type_ids"),
        ("phantom_gemma", "token_type_ids"),
        ("tiny_paligemma", "token_type_ids"),
    ],
)
def test_leaving_the_type_ids_out_would_change_the_logits_in_silence(open_lvlm, checkpoint, name, key):
    assert open_lvlm(name).family.type_ids == key
    plain = Plain(checkpoint(name))
    inputs = dict(plain.inputs(frame_picture(picture(5), 224), QUESTION, "Yes."))
    whole = plain.logits(**inputs)
    del inputs[key]
    assert (plain.logits(**inputs) - whole)[-3:].abs().max() > 1e-3


def test_a_generated_response_scores_what_it_was_generated_with(any_lvlm, checkpoint):
    """Traps 1, 2 and 7, at every token."""
    image = render(Patient.sample((5, 1))).image
    written = any_lvlm.generate(image, prompt("mass", "reasoning"), max_new_tokens=16)
    plain = Plain(checkpoint(any_lvlm.key))
    inputs = plain.inputs(frame_picture(image, 224), prompt("mass", "reasoning"))
    result = plain.model.generate(
        **inputs, max_new_tokens=16, do_sample=False, return_dict_in_generate=True, output_logits=True
    )
    ids = result.sequences[0, inputs["input_ids"].shape[1] :][: len(written.ids)]
    assert tuple(ids.tolist()) == written.ids
    steps = torch.cat(result.logits)[: len(ids)].float().log_softmax(-1)
    own = any_lvlm.log_probs([image], prompt("mass", "reasoning"), written)[0]
    assert np.abs(own - steps.gather(1, ids[:, None])[:, 0].numpy()).max() < 1e-4


def test_scores_of_one_picture_do_not_depend_on_the_one_before(checkpoint):
    """Trap 7: Qwen2.5-VL keeps the rope deltas of its last picture, here of another grid."""
    fresh, used = (
        HuggingFaceLVLM("qwen", checkpoint("phantom_qwen"), framing="native", pixels=LARGE) for _ in range(2)
    )
    used.generate(picture(6, 224, 448), QUESTION, max_new_tokens=3)
    assert used.model.model.rope_deltas is not None
    image = picture(7, 392, 224)
    assert np.array_equal(
        fresh.log_probs([image], QUESTION, "Yes."), used.log_probs([image], QUESTION, "Yes.")
    )
    # The fault to avoid: embeddings in place of ids, with the positions that the last picture left behind.
    trace = used.trace(used.encode(image, QUESTION, "Yes."))
    stale = used.model.model(inputs_embeds=trace.embeddings).last_hidden_state[0]
    assert not torch.allclose(stale, trace.last, atol=1e-2)


# -- trap 12: batches ----------------------------------------------------------------------------------------


def test_a_batch_of_one_of_five_and_a_permuted_one_score_alike(any_lvlm):
    images = [render(Patient.sample((8, number))).image for number in range(5)]
    example = any_lvlm.encode(images[0], QUESTION, "Yes.\n")
    pixel_values = torch.stack([any_lvlm.encode(image, QUESTION, "Yes.").pixel_values for image in images])
    together = any_lvlm.token_scores(example, pixel_values)
    alone = torch.cat([any_lvlm.token_scores(example, one[None]) for one in pixel_values])
    order = torch.tensor([3, 0, 4, 1, 2])
    permuted = any_lvlm.token_scores(example, pixel_values[order])
    assert torch.allclose(together, alone, atol=1e-5, rtol=0)
    assert torch.allclose(together[order], permuted, atol=1e-5, rtol=0)
    assert together[:, 0].unique().numel() == len(images)


def test_what_a_model_writes_does_not_depend_on_its_batch(any_lvlm):
    """Questions of several lengths, padded on the left."""
    questions = [prompt("mass", "direct"), prompt("rib lesion", "reasoning"), "Is it?", "Nodule?"]
    images = [render(Patient.sample((9, number))).image for number in range(len(questions))]
    together = any_lvlm.respond(images, questions, max_new_tokens=6)
    backwards = any_lvlm.respond(images[::-1], questions[::-1], max_new_tokens=6)[::-1]
    for image, question, first, second in zip(images, questions, together, backwards, strict=True):
        alone = any_lvlm.generate(image, question, max_new_tokens=6)
        assert first.ids == second.ids == alone.ids
        if alone.log_odds is not None:
            assert [first.log_odds, second.log_odds] == pytest.approx([alone.log_odds] * 2, abs=1e-5)


# -- trap 13 and families' own -------------------------------------------------------------------------------


def test_each_family_writes_boxes_by_the_convention_it_was_trained_with():
    """Trap 30."""
    expected = {"qwen2_5_vl": "pixels", "gemma3": "thousandths_yx", "paligemma": "thousandths_yx"}
    expected |= {"idefics3": "pixels", "qwen2_vl": "thousandths_xy", "qwen3_vl": "thousandths_xy"}
    expected |= {"internvl": "thousandths_xy"}
    assert {name: load_family(name).boxes for name in expected} == expected


@pytest.mark.parametrize(
    ("name", "text", "marks"),
    [
        (
            "tiny_qwen2_vl",
            "<|object_ref_start|>nodule<|object_ref_end|><|box_start|>(125,250),(500,750)<|box_end|>",
            ["<|image_pad|>", "<|im_end|>", "<|video_pad|>"],
        ),
        (
            "tiny_internvl",
            "<ref>nodule</ref><box>[[125, 250, 500, 750]]</box>",
            ["<IMG_CONTEXT>", "<|im_end|>", "</img>"],
        ),
    ],
)
def test_the_marks_of_a_box_are_part_of_a_response_and_those_of_turns_and_pictures_are_not(
    open_lvlm, name, text, marks
):
    """Special tokens in Qwen-VL and InternVL: a response that ended at the first would lose its boxes."""
    lvlm = open_lvlm(name)
    written = lvlm.chat_format.tokenised(text)
    end = lvlm.processor.tokenizer.eos_token_id
    assert lvlm.chat_format.length([*written.ids, end]) == len(written.ids)
    assert len(lvlm.encode(picture(1), QUESTION, written).answer) == len(written.ids)
    (box,) = parse_boxes(text, lvlm.family.boxes, 224, 448)
    assert box.tolist() == [0.125, 0.25, 0.5, 0.75]
    for mark in marks:
        with pytest.raises(InputError, match="special tokens"):
            lvlm.chat_format.tokenised(text + mark)


@pytest.mark.parametrize("name", ["tiny_qwen2_vl", "tiny_qwen3_vl"])
def test_a_picture_is_no_video_to_qwen(open_lvlm, name):
    """No video tokens, no timestamps of frames, one temporal position."""
    lvlm = opened(open_lvlm, name)
    example = lvlm.encode(picture(1, 224, 448), QUESTION, "Yes.")
    assert lvlm.model.config.video_token_id not in example.ids
    assert example.token_types.unique().tolist() == [0, 1]
    assert "seconds" not in lvlm.processor.tokenizer.decode(example.ids)
    inputs = lvlm.family.image_inputs(lvlm.model, example.pixel_values[None])
    inputs |= {"input_ids": example.ids[None], "mm_token_type_ids": example.token_types[None]}
    times, rows, columns = lvlm.family.other_inputs(lvlm.model, inputs)["position_ids"][:, 0].tolist()
    at = example.image_positions.tolist()
    assert len({times[place] for place in at}) == 1
    first = times[at[0]]
    grid = [(rows[place] - first, columns[place] - first) for place in at]
    assert grid == [(y, x) for y in range(example.grid.rows) for x in range(example.grid.columns)]


def test_thinking_is_off_where_the_template_has_a_switch_for_it(open_lvlm, monkeypatch):
    lvlm = open_lvlm("tiny_qwen3_vl")
    plain = lvlm.prompt(QUESTION)
    switch = "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
    monkeypatch.setattr(lvlm.processor, "chat_template", lvlm.processor.chat_template + switch)
    assert lvlm.prompt(QUESTION) == plain + "<think>\n\n</think>\n\n"


def test_a_family_that_lacks_a_part_cannot_be_made():
    class Half(Family):
        model_type = "half"

    with pytest.raises(TypeError, match="grid"):
        Half()


@pytest.mark.parametrize("name", ["phantom_qwen", "tiny_qwen2_vl", "tiny_qwen3_vl"])
def test_qwens_patch_projection_as_a_product_is_the_convolution(open_lvlm, name):
    embed = open_lvlm(name).model.model.visual.patch_embed
    frames = torch.randn(40, 3, 1, embed.patch_size**2).expand(-1, -1, 2, -1).reshape(40, -1)
    assert torch.allclose(embed(frames), type(embed).forward(embed, frames), atol=1e-5)


def test_paligemma_holds_no_conversation(open_lvlm):
    with pytest.raises(InputError, match="no conversation"):
        open_lvlm("tiny_paligemma").converse(picture(1), ["Is it?", "Yes.", "Where?"])


@pytest.mark.parametrize("name", ["tiny_idefics3", "tiny_smolvlm"])
def test_a_mid_grey_picture_is_a_picture_to_idefics3(open_lvlm, name):
    """Its model leaves out pictures of nothing but normalised zeros, as if they were padding."""
    lvlm = open_lvlm(name)
    example = lvlm.encode(picture(1), QUESTION, "Yes.")
    grey, nearly = torch.zeros_like(example.pixel_values), torch.full_like(example.pixel_values, 1e-4)
    scores = lvlm.scores(example, torch.stack([grey, nearly, example.pixel_values]))
    assert scores[0] == pytest.approx(scores[1].item(), abs=1e-3)


def test_a_processor_without_a_chat_template_is_an_error(checkpoint, tmp_path):
    folder = tmp_path / "bare"
    shutil.copytree(checkpoint("phantom_gemma"), folder)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match="no chat template"):
        HuggingFaceLVLM("bare", folder).encode(picture(1), QUESTION, "Yes.")
