"""`lvlm check` passes on every family, and says of each planted fault what it is."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from medfocus_bench.attribution.conformance import check_lvlm, relevance
from medfocus_bench.lvlm import adapter
from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
from medfocus_bench.lvlm.conformance import canvas, examine, passes, places
from medfocus_bench.lvlm.conformance.subject import Subject, as_loaded, smooth_picture
from medfocus_bench.lvlm.example import EncodedExample
from medfocus_bench.lvlm.fitting import OutOfMemoryError
from tests.lvlm import faults


def sentence(check, lvlm) -> str:
    """Of a check that fails."""
    result = check(Subject(lvlm))
    assert result.outcome == "failed", result
    return result.sentence


def test_every_family_passes(any_lvlm):
    lacks = any_lvlm.family.lacks
    for result in check_lvlm(any_lvlm):
        assert result.outcome != "failed", result
        if result.outcome == "not applicable":
            assert any(reason in result.sentence for reason in lacks.values()), result
    assert any_lvlm.framing == "square"


def test_a_decoder_with_experts_passes_all_but_relevance_which_it_refuses(open_lvlm):
    results = {result.name: result for result in check_lvlm(open_lvlm("tiny_qwen3_vl_moe"))}
    refused = results.pop("relevance")
    assert {result.outcome for result in results.values()} == {"passed"}
    assert refused.outcome == "not applicable"
    assert "its blocks choose experts" in refused.sentence


def test_the_order_of_sums_in_half_precision_is_no_fault(open_lvlm):
    results = check_lvlm(open_lvlm("tiny_idefics3", dtype="bfloat16"))
    assert {result.outcome for result in results} == {"passed"}


# -- the ten faults that raise no error ----------------------------------------------------------------------


def test_patches_in_the_wrong_order(open_lvlm):
    faulty = faults.patches_in_raster_order(open_lvlm("tiny_qwen"))
    assert "another order: patches are not in raster order" in sentence(canvas.picture, faulty)


@pytest.mark.parametrize(
    ("name", "input_name"),
    [
        ("tiny_qwen", "mm_token_type_ids"),
        ("tiny_gemma", "token_type_ids"),
        ("tiny_paligemma", "token_type_ids"),
    ],
)
def test_a_forgotten_type_id(open_lvlm, name, input_name):
    faulty = faults.with_family(open_lvlm(name), type_ids=None, other_inputs=lambda self, model, inputs: {})
    assert f"the processor returns {input_name}" in sentence(passes.scores, faulty)


def test_a_wrong_type_of_the_response(open_lvlm):
    assert "scores" in sentence(
        passes.scores, faults.with_family(open_lvlm("tiny_paligemma"), response_type=0)
    )


@pytest.mark.parametrize(
    ("name", "fault"), [("phantom_gemma", faults.doubled_start), ("tiny_idefics3", faults.unremoved_start)]
)
def test_a_doubled_start_token(open_lvlm, name, fault):
    faulty = fault(open_lvlm(name))
    start = faulty.processor.tokenizer.bos_token
    assert f"the start token {start!r}" in sentence(places.prompt, faulty)


@pytest.mark.parametrize("name", ["phantom_qwen", "phantom_gemma", "tiny_paligemma", "tiny_idefics3"])
def test_a_transposed_grid(open_lvlm, name):
    faulty = faults.with_positions(open_lvlm(name), lambda found: found.T)
    assert "a grid that is transposed, column by column" in sentence(places.positions, faulty)


def test_a_grid_with_its_columns_for_rows(open_lvlm):
    told = sentence(places.positions, faults.turned_grid(open_lvlm("tiny_qwen")))
    assert "10 x 6 says (native framing)" in told
    assert "transposed, with rows for columns" in told


def test_a_wrong_image_token(open_lvlm):
    lvlm = open_lvlm("tiny_qwen")
    other = lvlm.processor.tokenizer.convert_tokens_to_ids("<|vision_start|>")
    told = sentence(places.image_tokens, faults.with_family(lvlm, image_token=lambda self, model: other))
    assert f"1 image tokens '<|vision_start|>' (id {other}) for a grid of 8 x 8" in told
    assert "another picture changes 64 tokens: '<|image_pad|>'" in told
    late = faults.with_positions(lvlm, lambda found: found + 1)
    assert "1 of those are left out, and 1 others taken in" in sentence(places.image_tokens, late)


@pytest.mark.parametrize("shift", [1, -1])
def test_shifted_rows(open_lvlm, monkeypatch, shift):
    right = EncodedExample.rows.fget
    moved = property(lambda self: range(right(self).start + shift, right(self).stop + shift))
    monkeypatch.setattr(EncodedExample, "rows", moved)
    told = sentence(passes.scores, open_lvlm("tiny_gemma"))
    assert f"the scores of one row {'late' if shift == 1 else 'early'}" in told


@pytest.mark.parametrize("name", ["phantom_qwen", "phantom_gemma", "tiny_idefics3"])
def test_swapped_tiles(open_lvlm, name):
    swapped = faults.with_positions(open_lvlm(name), faults.swapped_quarters)
    assert "made of quarters, which are swapped" in sentence(places.positions, swapped)
    tiles = faults.with_positions(open_lvlm(name), faults.tile_by_tile)
    assert "tokens do not lie where the grid" in sentence(places.positions, tiles)


@pytest.mark.parametrize("name", ["tiny_qwen", "tiny_idefics3"])
def test_a_flip_from_left_to_right(open_lvlm, name):
    assert "the picture flipped left to right" in sentence(canvas.picture, faults.flipped(open_lvlm(name)))
    mirrored = faults.with_positions(open_lvlm(name), lambda found: found.flip(1))
    assert "flipped left to right" in sentence(places.positions, mirrored)


@pytest.fixture
def own_lvlm(checkpoint):
    """An LVLM that a test may change."""
    return HuggingFaceLVLM("own", checkpoint("tiny_paligemma"))


def test_a_wrong_normalisation(open_lvlm, own_lvlm):
    told = sentence(canvas.picture, faults.rescaled(open_lvlm("tiny_paligemma")))
    assert "the picture times 0.5 plus 0.5: they are not normalised" in told or "times 0.25" in told
    own_lvlm.processor.image_processor.image_mean = [0.4, 0.4, 0.4]
    assert canvas.picture(Subject(own_lvlm)).outcome == "passed"
    assert "files state a mean of [0.5, 0.5, 0.5]" in sentence(canvas.normalisation, own_lvlm)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"do_sample": True}, "the largest logit is that of"),
        ({"repetition_penalty": 1.05}, "the largest logit is that of"),
        ({"num_beams": 4}, "written with 4 beams"),
    ],
)
@pytest.mark.parametrize("name", ["phantom_qwen", "tiny_gemma"])
def test_a_generation_config_that_samples_or_penalises(open_lvlm, monkeypatch, name, options, told):
    """At the adapter: whatever it makes of the config of a checkpoint."""
    lvlm = open_lvlm(name)
    generate = lvlm.model.generate
    torch.manual_seed(0)
    monkeypatch.setattr(lvlm.model, "generate", lambda **given: generate(**(given | options)))
    assert told in sentence(passes.decoding, lvlm)


# -- others --------------------------------------------------------------------------------------------------


def test_image_inputs_that_are_not_the_inverse(open_lvlm):
    lvlm = open_lvlm("tiny_idefics3")
    right = lvlm.family.image_inputs
    mirrored = faults.with_family(
        lvlm, image_inputs=lambda self, model, pixels: right(model, pixels.flip(-1))
    )
    assert "not the inverse of pixel_values" in sentence(canvas.inverse, mirrored)
    cut = faults.with_family(lvlm, image_inputs=lambda self, model, pixels: right(model, pixels.detach()))
    assert "reaches 100% of the pixel values" in sentence(canvas.inverse, cut)


def test_a_processor_that_cuts_the_sides_off(own_lvlm, monkeypatch):
    processor = own_lvlm.processor.image_processor
    whole = processor.preprocess

    def cut(images, *given, **options):
        picture = images[0][0] if isinstance(images[0], list) else images[0]
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        return whole([[picture.crop((left, top, left + side, top + side))]], *given, **options)

    monkeypatch.setattr(processor, "preprocess", cut)
    assert "the top left of a picture of 280 x 168 is" in sentence(canvas.edges, own_lvlm)


def test_a_picture_that_is_not_in_the_middle_of_its_padding(open_lvlm, monkeypatch):
    def at_the_top(image, size):
        picture, square = Image.fromarray(image), Image.new("RGB", (size, size))
        longest = max(picture.size)
        square.paste(picture.resize((picture.width * size // longest, picture.height * size // longest)))
        return square

    monkeypatch.setattr(adapter, "frame_picture", at_the_top)
    assert "padding would pass for evidence" in sentence(canvas.padding, open_lvlm("tiny_paligemma"))


def test_padding_on_the_right(own_lvlm):
    own_lvlm.processor.tokenizer.padding_side = "right"
    assert "see the padding side" in sentence(passes.batch, own_lvlm)


def test_a_pass_with_something_random(open_lvlm):
    lvlm = open_lvlm("tiny_gemma")
    with lvlm.decoder.layers[0].mlp.register_forward_hook(
        lambda module, args, output: output + torch.randn_like(output)
    ):
        assert "something is random" in sentence(passes.determinism, lvlm)


def test_features_of_the_picture_that_enter_after_a_block(open_lvlm):
    """Where the family does not say so: LRP is wrong without an error."""
    silent = faults.with_family(open_lvlm("tiny_qwen3_vl"), injected=None)
    assert "LRP would be wrong without an error" in sentence(relevance, silent)
    lvlm = open_lvlm("tiny_gemma")

    def inject(module, args, output):
        return output + 0.5 * torch.randn(output.shape, generator=torch.Generator().manual_seed(0))

    with lvlm.decoder.layers[0].mlp.register_forward_hook(inject):
        assert "LRP would be wrong without an error" in sentence(relevance, lvlm)


def test_deepstack_of_a_family_that_does_not_name_it(open_lvlm):
    lvlm = open_lvlm("tiny_qwen3_vl")
    assert relevance(Subject(lvlm)).outcome == "passed"
    silent = faults.with_family(lvlm, injected=None)
    assert "LRP would be wrong without an error" in sentence(relevance, silent)


def test_a_processor_that_enlarges_pictures_first_is_no_fault(checkpoint):
    """As those of the published Idefics3 and SmolVLM2 do, to four times the side that the model sees."""
    lvlm = HuggingFaceLVLM("own", checkpoint("tiny_idefics3"))
    lvlm.processor.image_processor.size = {"longest_edge": 4 * 112}
    assert canvas.picture(Subject(lvlm)).outcome == "passed"
    assert canvas.normalisation(Subject(lvlm)).outcome == "passed"


def test_a_part_of_the_picture_that_stands_elsewhere(open_lvlm):
    """A patch in its own order, in one corner of the canvas."""
    lvlm = open_lvlm("tiny_idefics3")
    plain = lvlm.family.pixel_values

    def pixel_values(self, *given):
        found = plain(*given).clone()
        found[:, :14, :14] = found[:, :14, :14].mT
        return found

    told = sentence(canvas.picture, faults.with_family(lvlm, pixel_values=pixel_values))
    assert "a part of the pixel values differs from the picture" in told


def test_a_part_that_prepare_made_another_of(own_lvlm):
    projector = own_lvlm.model.model.multi_modal_projector
    right = projector.forward
    projector.forward = lambda features: 2 * right(features)
    assert "see the checks above, and prepare of the family" in sentence(passes.scores, own_lvlm)
    with as_loaded(own_lvlm.model):
        assert "forward" not in vars(projector)
    assert "forward" in vars(projector)


def test_a_check_that_stops_with_an_error_has_failed_with_its_sentence(open_lvlm):
    def grid(self, model, inputs):
        return 3, 5

    (result,) = examine(
        Subject(faults.with_family(open_lvlm("tiny_paligemma"), grid=grid)), {"edges": canvas.edges}
    )
    assert (result.name, result.outcome) == ("edges", "failed")
    assert result.sentence == "stops with an error (ValueError): 64 image tokens for a grid of 3 x 5"


def test_no_memory_is_no_fault_of_the_family(open_lvlm):
    def check(subject):
        raise RuntimeError("CUDA out of memory.\nTried to allocate 2 GiB")

    with pytest.raises(OutOfMemoryError, match=r"tiny_gemma: there is no memory .* \(CUDA out of memory\.\)"):
        list(examine(Subject(open_lvlm("tiny_gemma")), {"picture": check}))


def test_the_pictures_have_no_symmetry():
    picture = smooth_picture(64, 64).astype(int)
    for other in (picture[::-1], picture[:, ::-1], picture.transpose(1, 0, 2), picture[:, :, ::-1]):
        assert abs(picture - other).mean() > 8
    assert picture.max() < 128
