"""An LVLM as a module of torch: the scores of `scores`, with a graph, wherever a library calls it."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from medfocus_bench.attribution.gradient import GradCAM
from medfocus_bench.data.questions import prompt
from medfocus_bench.errors import InputError
from medfocus_bench.lvlm.protocol import NotFiniteError
from tests.lvlm.conftest import picture

QUESTION = prompt("nodule", "direct")


@pytest.fixture
def lvlm(open_lvlm):
    return open_lvlm("phantom_qwen")


@pytest.fixture
def example(lvlm):
    return lvlm.encode(picture(1), QUESTION, "Yes.")


def several(example, count=3):
    """Edited pixels (count, 3, height, width), all different; the first are the example's own."""
    return example.pixel_values * torch.linspace(1, 0.5, count)[:, None, None, None]


@pytest.mark.parametrize("target", ["response", "verdict", (0, 1)])
def test_scores_and_gradients_are_those_of_the_adapter(any_lvlm, target):
    example = any_lvlm.encode(picture(1, 224, 160), QUESTION, "Yes.")
    module, pixels = any_lvlm.as_module(example, target), several(example).requires_grad_()
    scores = module(pixels)
    (gradients,) = torch.autograd.grad(scores.sum(), pixels)
    values, expected = any_lvlm.pixel_gradients(example, pixels, target)
    assert scores.shape == (3,)
    assert len(scores.unique()) == 3
    assert torch.equal(scores, values)
    assert torch.equal(gradients, expected)
    assert torch.allclose(any_lvlm.scores(example, pixels, target), values, atol=1e-5)


def test_all_pictures_of_a_call_go_through_a_layer_together_whatever_the_batch(open_lvlm):
    lvlm = open_lvlm("phantom_qwen", batch=2)
    example = lvlm.encode(picture(1), QUESTION, "Yes.")
    seen = []
    with lvlm.decoder.layers[0].register_forward_hook(lambda *found: seen.append(len(found[2]))):
        lvlm.as_module(example)(several(example, 5))
    assert seen == [5]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_where_gradients_are_switched_off_there_are_values_and_the_adapter_still_differentiates(
    lvlm, example, mode
):
    pixels = several(example).requires_grad_()
    module, expected = lvlm.as_module(example), lvlm.pixel_gradients(example, pixels)
    with mode():
        scores = module(pixels)
        values, gradients = lvlm.pixel_gradients(example, pixels)
        trace = lvlm.trace(lvlm.encode(picture(1), QUESTION, "Yes."))
        saliency = GradCAM().attribute(lvlm, picture(1), QUESTION, "Yes.").saliency
    assert not scores.requires_grad
    assert not trace.rows.requires_grad
    assert torch.equal(scores, expected[0])
    assert torch.equal(values, expected[0])
    assert torch.equal(gradients, expected[1])
    assert np.array_equal(saliency, GradCAM().attribute(lvlm, picture(1), QUESTION, "Yes.").saliency)


def test_both_work_inside_an_autograd_function(lvlm, example):
    module = lvlm.as_module(example)

    class Scored(torch.autograd.Function):
        @staticmethod
        def forward(ctx, pixels):
            scores, slopes = lvlm.pixel_gradients(example, pixels)
            assert torch.equal(module(pixels), scores)
            ctx.save_for_backward(slopes)
            return scores

        @staticmethod
        def backward(ctx, gradient):
            with torch.enable_grad():
                leaf = several(example).requires_grad_()
                (slopes,) = torch.autograd.grad(module(leaf).sum(), leaf)
            assert torch.equal(slopes, ctx.saved_tensors[0])
            return gradient[:, None, None, None] * slopes

    pixels = several(example).requires_grad_()
    Scored.apply(pixels).sum().backward()
    assert torch.equal(pixels.grad, lvlm.pixel_gradients(example, pixels)[1])


def test_a_graph_begins_at_pixels_that_require_no_gradient_and_those_stay_as_they_are(lvlm, example):
    with torch.inference_mode():
        held = lvlm.encode(picture(1), QUESTION, "Yes.")
    found = {}
    layer = lvlm.decoder.layers[1]
    for each in (example, held):
        module, pixels = lvlm.as_module(each), each.pixel_values[None]
        with layer.register_forward_hook(lambda _, args, output: found.update(states=output)):
            scores = module(pixels)
        (slopes,) = torch.autograd.grad(scores.sum(), found["states"])
        assert module.on_grid(slopes).abs().sum() > 0
        assert not pixels.requires_grad
    assert not pixels._backward_hooks


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_pixels_may_have_any_precision_and_get_gradients_of_the_same(lvlm, example, dtype):
    pixels = example.pixel_values[None].to(dtype).requires_grad_()
    scores = lvlm.as_module(example)(pixels)
    scores.sum().backward()
    assert scores.dtype == torch.float32
    assert pixels.grad.dtype == dtype
    assert pixels.grad.any()


@pytest.mark.parametrize("name", ["phantom_qwen", "phantom_gemma"])
@pytest.mark.parametrize("target", ["response", "verdict"])
def test_with_eager_attention_there_is_a_second_derivative(open_lvlm, name, target):
    """Along a direction; the first derivatives on both sides of the picture say what it must be."""
    lvlm = open_lvlm(name, attention="eager")
    example = lvlm.encode(picture(1), QUESTION, "Yes.")
    module, pixels = lvlm.as_module(example, target), example.pixel_values[None].requires_grad_()
    way = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
    (slopes,) = torch.autograd.grad(module(pixels).sum(), pixels, create_graph=True)
    (bend,) = torch.autograd.grad((slopes * way).sum(), pixels)
    sides = (pixels.detach() + step * way for step in (1e-2, -1e-2))
    ahead, behind = (lvlm.pixel_gradients(example, side, target)[1] for side in sides)
    expected = (ahead - behind) / 2e-2
    assert torch.nn.functional.cosine_similarity(bend.flatten(), expected.flatten(), dim=0) > 0.99
    assert bend.norm() == pytest.approx(float(expected.norm()), rel=0.05)


def test_passes_forward_and_back_are_counted(lvlm, example):
    with lvlm.measured() as meter:
        lvlm.as_module(example)(several(example, 4)).sum().backward()
        with torch.no_grad():
            lvlm.as_module(example)(several(example, 2))
    assert (meter.forward_passes, meter.backward_passes) == (6, 4)


def test_a_copy_has_weights_of_its_own(lvlm, example):
    """Randomisation tests copy a module and draw its weights anew."""
    module = lvlm.as_module(example)
    copied = copy.deepcopy(module)
    pixels = example.pixel_values[None]
    with torch.no_grad():
        before = module(pixels)
        assert torch.equal(copied(pixels), before)
        for weight in copied.parameters():
            weight.zero_()
        assert not torch.equal(copied(pixels), before)
        assert torch.equal(module(pixels), before)


def test_the_grid_of_states_and_of_pixels_is_that_of_the_tokens(open_lvlm):
    """A picture that is bright at one token: its cell of the mask, and its place on the grid."""
    lvlm = open_lvlm("phantom_qwen", framing="native")
    example = lvlm.encode(picture(1, 112, 224), QUESTION, "Yes.")
    module = lvlm.as_module(example)
    grid, mask = example.grid, module.feature_mask()
    assert grid.rows < grid.columns
    assert mask.shape == (1, 1, *example.pixel_values.shape[1:])
    assert mask.unique().tolist() == list(range(len(grid)))
    states = torch.zeros(2, len(example.ids), 5)
    states[1, example.image_positions[grid.columns + 2], 3] = 1
    assert module.on_grid((states,)).nonzero().tolist() == [[1, 3, 1, 2]]
    cell = (mask == grid.columns + 2)[0, 0].nonzero()
    side = example.pixel_values.shape[1] // grid.rows
    assert cell.amin(0).tolist() == [side, 2 * side]
    assert cell.amax(0).tolist() == [2 * side - 1, 3 * side - 1]


@pytest.mark.parametrize("shape", [(3, 224, 224), (1, 3, 112, 112), (1, 1, 224, 224), (0, 3, 224, 224)])
def test_pixels_of_another_shape_are_an_error_that_says_the_right_one(lvlm, example, shape):
    with pytest.raises(InputError, match=r"pixels are \(n, 3, 224, 224\) for this example, not \("):
        lvlm.as_module(example)(torch.zeros(shape))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda pixels: pixels.int(), "a float type, not torch.int32"),
        (lambda pixels: pixels.to(torch.complex64), "a float type, not torch.complex64"),
        (lambda pixels: pixels.numpy(), "a float type, not ndarray"),
        (lambda pixels: pixels * torch.nan, "some pixels are not finite"),
    ],
)
def test_pixels_that_are_no_numbers_of_a_float_type_are_an_error(lvlm, example, wrong, said):
    with pytest.raises(InputError, match=said):
        lvlm.as_module(example)(wrong(example.pixel_values[None]))


def test_no_pictures_at_all_are_an_error(lvlm, example):
    for made in (lvlm.scores, lvlm.token_scores, lvlm.pixel_gradients):
        with pytest.raises(ValueError, match="no pictures"):
            made(example, example.pixel_values[None][:0])


@pytest.mark.parametrize("target", ["answer", (1,), None, 3])
def test_a_target_of_another_kind_is_an_error_that_lists_them(lvlm, example, target):
    with pytest.raises(ValueError, match=r"no target .*; there are 'response', 'verdict' and a span"):
        lvlm.as_module(example, target)


def test_a_target_that_is_not_there_and_gradients_of_quantised_weights_are_errors(
    open_lvlm, example, monkeypatch
):
    lvlm = open_lvlm("phantom_qwen")
    with pytest.raises(ValueError, match="no yes or no"):
        lvlm.as_module(lvlm.encode(picture(1), QUESTION, "Perhaps."), "verdict")
    module, pixels = lvlm.as_module(example), example.pixel_values[None]
    monkeypatch.setattr(lvlm, "quantised", True)
    assert not module(pixels).requires_grad
    with pytest.raises(InputError, match=r"quantised.*no_grad"):
        module(pixels.clone().requires_grad_())


def test_gradients_that_are_not_finite_are_an_error_inside_another_librarys_way_back(open_lvlm, example):
    lvlm = open_lvlm("phantom_qwen")
    pixels = example.pixel_values[None].clone().requires_grad_()
    scores = lvlm.as_module(example)(pixels)
    scores.register_hook(lambda slope: slope * torch.inf)
    with pytest.raises(NotFiniteError, match="the gradients at the pixels"):
        scores.sum().backward()


def test_its_representation_is_one_short_line(lvlm, example):
    assert repr(lvlm.as_module(example)) == (
        "<phantom_qwen: pixels (n, 3, 224, 224) to the response of 'Yes.'>"
    )
