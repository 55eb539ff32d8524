"""Integrated Gradients: its baselines, its integral, and that captum arrives at the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from medfocus_bench.attribution.integrated_gradients import IntegratedGradients, baseline_input
from medfocus_bench.data.questions import prompt
from medfocus_bench.lvlm.registry import load_lvlm
from medfocus_bench.phantom.render import Patient, render
from tests.attribution.conftest import PATIENT, QUESTION

BASELINES = ["black", "mean", "blurred"]


@pytest.fixture
def wide(lvlm):
    """A picture with padding above and below."""
    return lvlm.encode(PATIENT.image[60:160], QUESTION, "Yes.")


def grey(example, pixel_values):
    """Pixel values back in grey levels of 0 to 1."""
    return pixel_values * example.std + example.mean


# -- the gradients of the adapter --------------------------------------------------------------------------


def test_pixel_gradients_are_those_of_one_traced_pass(lvlm, example):
    pixel_values = example.pixel_values.clone().requires_grad_()
    value = lvlm.objective(example, lvlm.trace(example, pixel_values=pixel_values, gradients=True))
    (expected,) = lvlm.gradients(value, [pixel_values])
    values, gradients = lvlm.pixel_gradients(example, example.pixel_values[None])
    assert values[0].item() == pytest.approx(value.item(), abs=1e-5)
    assert torch.allclose(gradients[0], expected, atol=1e-5 * float(expected.abs().max()))
    assert not values.requires_grad
    assert not gradients.requires_grad


@pytest.mark.parametrize("target", ["response", "verdict"])
def test_pixel_gradients_of_a_batch_are_those_of_its_parts_in_any_order(lvlm, example, target):
    shades = torch.linspace(0.2, 1, 3)[:, None, None, None] * example.pixel_values
    order = torch.tensor([2, 0, 1])
    values, gradients = lvlm.pixel_gradients(example, shades, target)
    permuted = lvlm.pixel_gradients(example, shades[order], target)
    alone = [lvlm.pixel_gradients(example, shade[None], target) for shade in shades]
    size = float(gradients.abs().max())
    assert torch.allclose(values, lvlm.scores(example, shades, target), atol=1e-5)
    assert torch.allclose(values[order], permuted[0], atol=1e-5)
    assert torch.allclose(gradients[order], permuted[1], atol=1e-5 * size)
    assert torch.allclose(gradients, torch.cat([each for _, each in alone]), atol=1e-5 * size)


# -- baselines ---------------------------------------------------------------------------------------------


def test_black_is_black_and_not_what_normalised_zero_is(lvlm, example):
    """Trap 10: normalised zero is a mid grey."""
    black = baseline_input(example, "black", 0.05)
    assert grey(example, black).abs().max() < 1e-6
    assert (grey(example, torch.zeros_like(black)) > 0.3).all()


def test_mean_is_the_images_colour_without_its_padding(lvlm, wide):
    _, y1, _, y2 = wide.grid.view.content(*wide.pixel_values.shape[1:])
    mean, picture = (grey(wide, each) for each in (baseline_input(wide, "mean", 0.05), wide.pixel_values))
    of_image = picture[:, y1:y2].mean((1, 2), keepdim=True)
    assert torch.allclose(mean[:, y1:y2], of_image.expand_as(mean[:, y1:y2]))
    assert mean[:, y1:y2].mean() > 1.5 * picture.mean()


def test_blurring_spreads_a_point_by_the_share_of_the_longer_side_that_was_asked_for(lvlm, example):
    point = torch.zeros_like(example.pixel_values)
    point[:, 112, 112] = 1
    smooth = baseline_input(replace(example, pixel_values=point), "blurred", 0.05)
    assert smooth.sum((1, 2)) == pytest.approx([1, 1, 1], rel=1e-4)
    distance = (torch.arange(224) - 112.0) ** 2
    assert (smooth[0].sum(0) * distance).sum().sqrt() == pytest.approx(0.05 * 224, rel=0.05)


@pytest.mark.parametrize("baseline", BASELINES)
def test_padding_gets_nothing(lvlm, wide, baseline):
    """Padding is black in the picture; filled with the mean colour in the baseline it would be evidence."""
    saliency = IntegratedGradients(steps=3, baseline=baseline, sign="absolute").explain(lvlm, wide).saliency
    top, bottom = wide.frame.content[1], wide.frame.content[3]
    assert top > 0
    assert saliency[top:bottom].any()
    assert not saliency[:top].any()
    assert not saliency[bottom:].any()


# -- the integral ------------------------------------------------------------------------------------------


def test_the_steps_lie_in_the_middle_and_never_at_the_baseline(qwen, monkeypatch):
    """Trap 10: at the baseline itself a normalisation may have a gradient without bound."""
    example = qwen.encode(PATIENT.image, QUESTION, "Yes.")
    black = baseline_input(example, "black", 0.05)
    place = (example.pixel_values - black).flatten().argmax()
    seen = []
    plain = qwen.pixel_gradients

    def recorded(example, pixel_values, target):
        way = (pixel_values - black).flatten(1)[:, place] / (example.pixel_values - black).flatten()[place]
        seen.extend(way.tolist())
        return plain(example, pixel_values, target)

    monkeypatch.setattr(qwen, "pixel_gradients", recorded)
    IntegratedGradients(steps=5).explain(qwen, example)
    assert seen == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9], abs=1e-5)


def test_all_attributions_add_up_to_the_difference_if_the_steps_suffice(qwen):
    patient = render(Patient.sample((77, 2), findings=["mass"]))
    example = qwen.encode(patient.image, prompt("mass", "direct"), "Yes.")
    coarse, fine = (IntegratedGradients(steps=steps).explain(qwen, example).diagnostics for steps in (3, 48))
    assert fine["completeness"] == pytest.approx(1, abs=0.1)
    assert abs(coarse["completeness"] - 1) > 0.1
    assert fine["completeness_error"] < 0.1 * coarse["completeness_error"]


def test_the_signed_map_adds_up_to_what_completeness_reports(lvlm, example):
    found = IntegratedGradients(steps=2, sign="signed").explain(lvlm, example)
    black = baseline_input(example, "black", 0.05)
    value, nothing = lvlm.scores(example, torch.stack([example.pixel_values, black])).tolist()
    total = found.saliency.astype(np.float64).sum()
    assert found.diagnostics["completeness"] == pytest.approx(total / (value - nothing), rel=1e-3)
    assert found.diagnostics["completeness_error"] == pytest.approx(abs(total - value + nothing), rel=1e-3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_captum_arrives_at_the_same(lvlm, example):
    from captum import attr as captum  # warns on import

    black = baseline_input(example, "black", 0.05)

    def forward(pixel_values):
        (rows,) = lvlm._row_batches(example, pixel_values)
        return lvlm._target_of(example, rows, "response")

    theirs = captum.IntegratedGradients(forward).attribute(
        example.pixel_values[None], black[None], n_steps=3, method="riemann_middle", internal_batch_size=3
    )
    ours = IntegratedGradients(steps=3).attributions(lvlm, example, black)
    expected = theirs[0].sum(0).float()
    assert torch.allclose(ours, expected, atol=1e-4 * float(expected.abs().max()))


# -- the method --------------------------------------------------------------------------------------------


def test_a_pooled_value_is_the_mean_of_its_cell():
    """On a grid that is not square."""
    lvlm, pool = load_lvlm("phantom_qwen", framing="native"), 2
    example = lvlm.encode(np.tile(PATIENT.image, (1, 2)), QUESTION, "Yes.")
    options = {"steps": 2, "sign": "signed"}
    pixels = IntegratedGradients(**options).attributions(
        lvlm, example, baseline_input(example, "black", 0.05)
    )
    rows, columns = example.grid.rows * pool, example.grid.columns * pool
    height, width = (length // cells for length, cells in zip(pixels.shape, (rows, columns), strict=True))
    means = pixels.reshape(rows, height, columns, width).mean((1, 3)).numpy()
    found = IntegratedGradients(pool=pool, **options).explain(lvlm, example).saliency
    assert np.allclose(found, example.grid.view.saliency(means), atol=1e-6)


def test_the_sign_is_dealt_with_after_pooling(lvlm, example):
    signed, positive, absolute = (
        IntegratedGradients(steps=3, pool=1, sign=sign).explain(lvlm, example).saliency
        for sign in ("signed", "positive", "absolute")
    )
    assert signed.min() < 0
    assert np.array_equal(positive, signed.clip(min=0))
    assert np.array_equal(absolute, np.abs(signed))


def test_a_picture_that_is_its_own_baseline_has_no_completeness_and_an_empty_map(lvlm):
    """Trap 21."""
    found = IntegratedGradients(steps=3).explain(
        lvlm, lvlm.encode(np.zeros((60, 60), np.uint8), QUESTION, "No.")
    )
    assert not found.saliency.any()
    assert "completeness" not in found.diagnostics


def test_candidates_are_the_baselines_as_pixels_and_as_cells(qwen):
    options = list(IntegratedGradients().candidates(qwen))
    assert {option["baseline"] for option in options} == set(BASELINES)
    assert {option["pool"] for option in options} == {None, 2}
