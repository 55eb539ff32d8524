"""Gradient-weighted attention and the Grad-CAM family against plain autograd, and where they must fail."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medfocus_bench.attribution.gradient import GradCAM, GradCAMPlusPlus, GradientWeightedAttention
from medfocus_bench.errors import InputError
from tests.attribution.conftest import PATIENT, QUESTION, private
from tests.attribution.plain import at_image, plain_model, plain_pass

CAMS = [GradCAM, GradCAMPlusPlus]
METHODS = [*CAMS, GradientWeightedAttention]


@pytest.fixture
def unlikely(lvlm):
    """A response with a steep gradient: that of one the model is sure of is a difference of near equals."""
    return lvlm.encode(PATIENT.image, QUESTION, "No.")


def cut_at(lvlm, example, layer):
    """A plain pass with the output of a block as a leaf, and what the backward pass leaves there."""
    model = plain_model(lvlm.key)
    leaves = []

    def hook(module, args, output):
        leaves.append(output.detach().requires_grad_())
        return leaves[0]

    handle = model.model.language_model.layers[layer].register_forward_hook(hook)
    try:
        passed = plain_pass(lvlm, example)
    finally:
        handle.remove()
    (gradient,) = torch.autograd.grad(passed.log_prob(), leaves)
    return passed, leaves[0][0].detach(), gradient[0]


def weighted_attentions(lvlm, example):
    """mean_h(relu(dy/dA) A) of all blocks: (length, length) each, float64."""
    passed = plain_pass(lvlm, example)
    gradients = torch.autograd.grad(passed.log_prob(), passed.attentions)
    weighted = [
        (gradient[0].relu() * own[0].detach()).double().mean(0)
        for own, gradient in zip(passed.attentions, gradients, strict=True)
    ]
    return passed, weighted


def predictor_sum(lvlm, passed, matrix):
    return at_image(lvlm, passed, matrix[passed.prompt_length - 1 : len(passed.ids) - 1].sum(0))


@pytest.mark.parametrize("layer", [0, 2])
def test_both_grad_cams_are_the_papers_formulas_on_plain_autograd(lvlm, unlikely, layer):
    """Equation 19 of Grad-CAM++ with its powers as they stand."""
    passed, hidden, gradient = cut_at(lvlm, unlikely, layer)
    image = torch.tensor(passed.ids) == plain_model(lvlm.key).config.image_token_id
    states, slopes = hidden[image].double(), gradient[image].double()
    alpha = slopes**2 / (2 * slopes**2 + states.sum(0) * slopes**3)
    for kind, weights, within in (
        (GradCAM, slopes.mean(0), 1e-4),
        (GradCAMPlusPlus, (alpha * slopes.relu()).sum(0), 1e-2),
    ):
        signed = (states @ weights).reshape(8, 8).numpy()
        found = kind(layer=layer).explain(lvlm, unlikely).saliency
        assert np.allclose(found, signed.clip(min=0), atol=within * np.abs(signed).max())


@pytest.mark.parametrize("layer", [0, 3])
def test_attention_is_weighted_by_its_positive_gradient(lvlm, unlikely, layer):
    passed, weighted = weighted_attentions(lvlm, unlikely)
    expected = predictor_sum(lvlm, passed, weighted[layer])
    found = GradientWeightedAttention(layer=layer).explain(lvlm, unlikely).saliency
    assert np.allclose(found, expected, atol=1e-4 * expected.max())


@pytest.mark.parametrize("layer", [None, 2])
def test_propagated_relevance_is_updated_from_the_first_block_on(lvlm, unlikely, layer):
    """Trap 4: R <- R + C R, written out with whole matrices; R + R C is another map."""
    passed, weighted = weighted_attentions(lvlm, unlikely)
    relevance = reverse = torch.eye(len(passed.ids), dtype=torch.float64)
    for matrix in weighted[layer or 0 :]:
        relevance = relevance + matrix @ relevance
        reverse = reverse + reverse @ matrix
    right, wrong = (predictor_sum(lvlm, passed, each) for each in (relevance, reverse))
    found = GradientWeightedAttention(layer=layer, propagate=True).explain(lvlm, unlikely).saliency
    assert np.abs(found - right).max() < 1e-5 * right.max()
    assert np.abs(found - wrong).max() > 1e-4 * right.max()


@pytest.mark.parametrize("kind", CAMS)
def test_the_output_of_the_last_block_is_dead_and_an_error_before_any_pass(lvlm, example, kind):
    """Trap 3."""
    trace = lvlm.trace(example, hidden=[3], gradients=True)
    (gradient,) = lvlm.gradients(lvlm.objective(example, trace), [trace.hidden[3]])
    assert not gradient[0, example.image_positions].any()
    with lvlm.measured() as meter, pytest.raises(InputError, match=r"block 3 is the last .* up to 2"):
        kind(layer=3).explain(lvlm, example)
    assert meter.forward_passes == 0


@pytest.mark.parametrize("kind", CAMS)
def test_the_default_block_and_all_candidates_are_alive(lvlm, example, kind):
    """Trap 3."""
    options = list(kind().candidates(lvlm))
    assert options == [{"layer": 0}, {"layer": 1}, {"layer": 2}]
    for option in options:
        trace = lvlm.trace(example, hidden=[option["layer"]], gradients=True)
        (gradient,) = lvlm.gradients(lvlm.objective(example, trace), [trace.hidden[option["layer"]]])
        assert gradient[0, example.image_positions].any()
    default = kind().explain(lvlm, example).saliency
    assert np.array_equal(default, kind(layer=2).explain(lvlm, example).saliency)


@pytest.mark.parametrize("kind", CAMS)
def test_of_two_blocks_the_first_is_the_default_and_of_one_there_is_none(kind):
    """Trap 3: half of two blocks is the dead one."""
    qwen = private("phantom_qwen")
    qwen.decoder.layers = qwen.decoder.layers[:2]
    example = qwen.encode(PATIENT.image, QUESTION, "Yes.")
    default = kind().explain(qwen, example).saliency
    assert np.array_equal(default, kind(layer=0).explain(qwen, example).saliency)
    qwen.decoder.layers = qwen.decoder.layers[:1]
    for layer in (None, 0):
        with pytest.raises(InputError, match="no block whose image tokens"):
            kind(layer=layer).explain(qwen, example)


def test_channels_without_gradient_or_with_a_vanishing_denominator_weigh_nothing():
    """Trap 21: 0/0 where the gradient is zero, 1/0 where S g = -2, underflow where g is small."""
    hidden = torch.tensor([[1.0, -1.0, 0.0], [1.0, -1.0, 0.0]], dtype=torch.float64)
    gradient = torch.tensor([[0.0, 1.0, 1e-200], [0.0, 1.0, 0.0]], dtype=torch.float64)
    weights = GradCAMPlusPlus().channel_weights(hidden, gradient)
    assert weights.tolist() == [0.0, 0.0, pytest.approx(0.5e-200)]


@pytest.mark.parametrize("kind", METHODS)
def test_no_gradient_upwards_is_an_empty_map_and_never_nan(lvlm, example, kind, monkeypatch):
    """Trap 21: where nothing would raise the target, nothing is explained."""

    def falling(value, inputs):
        return [-torch.ones_like(each) for each in inputs]

    monkeypatch.setattr(lvlm, "gradients", falling)
    saliency = kind().explain(lvlm, example).saliency
    assert np.isfinite(saliency).all()
    assert kind is GradCAM or not saliency.any()
