"""Occlusion and RISE: what is hidden, what it costs, what a model that does not look gets."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from medfocus_bench.attribution.perturbation import RISE, Occlusion, cell_masks
from tests.attribution.conftest import PATIENT, QUESTION


def scoring(scores):
    """An LVLM of which only the scores are asked for."""
    return SimpleNamespace(scores=scores)


@pytest.mark.parametrize("method", [Occlusion(), RISE()])
def test_the_map_peaks_at_what_drives_the_answer(qwen, method):
    explanation = method.explain(qwen, qwen.encode(PATIENT.image, QUESTION, "Yes."))
    mask = PATIENT.findings["pacemaker"]
    cells = mask.reshape(8, 28, 8, 28).mean((1, 3))
    assert explanation.saliency.shape == (8, 8)
    best = explanation.saliency.ravel().argsort()[::-1][:3]
    assert cells.ravel()[best].max() > 0


def test_rise_is_the_same_with_the_same_seed_and_another_with_another(qwen):
    """Trap 26."""
    example = qwen.encode(PATIENT.image, QUESTION, "Yes.")
    first, again, other = (RISE(masks=8).explain(qwen, example, seed=s).saliency for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_rise_with_soft_masks_is_that_of_its_own_paper(qwen):
    """Masks fade and lie at random parts of a cell; the map is as fine as the input, and finds the cause."""
    masks = RISE(masks=200, soft=True)._soft(np.random.default_rng(0), 100, 60)
    assert masks.shape == (200, 100, 60)
    assert 0 <= masks.min() < masks.max() <= 1
    assert ((masks > 0.01) & (masks < 0.99)).float().mean() > 0.3
    assert masks.mean().item() == pytest.approx(0.5, abs=0.02)
    assert (masks[:, :, 1:] - masks[:, :, :-1]).abs().max() < 0.2
    saliency = RISE(soft=True).explain(qwen, qwen.encode(PATIENT.image, QUESTION, "Yes.")).saliency
    assert saliency.shape == (224, 224)
    assert saliency[PATIENT.findings["pacemaker"]].mean() > np.quantile(saliency, 0.75)


def test_a_model_that_does_not_look_gets_no_explanation(example):
    """Trap 26: without the division by how often a cell was kept RISE shows its own masks."""
    blind = scoring(lambda example, pixel_values, target: torch.zeros(len(pixel_values)))
    methods = Occlusion(), RISE(masks=16), RISE(masks=16, soft=True)
    occluded, flat, soft = (method.explain(blind, example).saliency for method in methods)
    assert not occluded.any()
    assert np.ptp(flat) == np.ptp(soft) == 0


def test_cells_tile_an_input_that_does_not_divide_evenly(qwen):
    example = qwen.encode(np.zeros((224, 448), np.uint8), "Is it dark?", "Yes.")
    masks = cell_masks(torch.eye(9), 3, example)
    assert masks.shape == (9, 1, *example.pixel_values.shape[1:])
    assert (masks.sum(0) == 1).all()


def test_blackened_is_black_and_not_mid_grey(qwen):
    """Trap 10: zero of the normalised pixel values is mid-grey."""
    example = qwen.encode(np.zeros((224, 224), np.uint8), "Is it dark?", "Yes.")
    assert torch.allclose(
        example.pixel_values, example.colour(0.0).expand_as(example.pixel_values), atol=1e-6
    )
    assert example.colour(0.0).abs().min() > 1


def log_prob(lvlm, example, shown):
    """Of the response, for the picture with what is not `shown` blackened before anything is processed."""
    picture = np.where(np.kron(shown.reshape(4, 4), np.ones((56, 56))) > 0, PATIENT.image, 0)
    edited = lvlm.encode(picture.astype(np.uint8), example.question, example.response)
    return float(lvlm.scores(edited, edited.pixel_values[None])[0])


def test_occlusion_is_the_loop_over_blackened_pictures(lvlm, example):
    """Trap 10: from pixels, so that neither a mid-grey patch nor a rise of the score passes for a drop."""
    everything = np.ones(16)
    whole = log_prob(lvlm, example, everything)
    drops = [max(0.0, whole - log_prob(lvlm, example, everything - one)) for one in np.eye(16)]
    found = Occlusion(cells=4).explain(lvlm, example).saliency
    assert found.ravel() == pytest.approx(drops, abs=1e-4)
    assert 0 < np.count_nonzero(drops) < 16


def test_rise_is_the_mean_over_blackened_pictures(lvlm, example):
    """Traps 10 and 26; relative to the probability for the whole picture."""
    method = RISE(masks=12, cells=4)
    kept = method._kept(np.random.default_rng(3)).numpy()
    values = np.array([log_prob(lvlm, example, one) for one in kept])
    weights = np.exp(values - log_prob(lvlm, example, np.ones(16)))
    found = method.explain(lvlm, example, seed=3).saliency
    assert found.ravel() == pytest.approx((weights @ kept) / kept.sum(0), rel=1e-3)


def test_a_long_response_does_not_underflow(lvlm, example):
    """Trap 26: of one so long that no probability of it is a number above 0."""
    long = scoring(lambda *asked: lvlm.scores(*asked) - 2000.0)
    plain, shifted = (RISE(masks=8).explain(who, example).saliency for who in (lvlm, long))
    assert shifted == pytest.approx(plain, rel=1e-2)
    assert np.ptp(shifted) > 0


def test_a_cell_that_no_mask_keeps_has_the_mean_of_the_others(lvlm, example):
    kept = RISE(masks=1)._kept(np.random.default_rng(0)).numpy()[0]
    found = RISE(masks=1).explain(lvlm, example).saliency.ravel()
    assert np.allclose(found[kept == 0], found[kept == 1].mean())
    assert found.min() > 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_captum_arrives_at_the_same(lvlm, example):
    from captum import attr as captum  # warns on import

    black = lvlm.encode(np.zeros_like(PATIENT.image), example.question, example.response).pixel_values
    side = example.pixel_values.shape[1] // 4
    theirs = captum.Occlusion(lambda pixel_values: lvlm.scores(example, pixel_values)).attribute(
        example.pixel_values[None], (3, side, side), strides=(3, side, side), baselines=black[None]
    )
    drops = theirs[0, 0, side // 2 :: side, side // 2 :: side].clamp(min=0)
    found = Occlusion(cells=4).explain(lvlm, example).saliency
    assert found == pytest.approx(drops.cpu().numpy(), abs=1e-4)
