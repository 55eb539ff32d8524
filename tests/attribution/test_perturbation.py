"""Occlusion and RISE: what is hidden, what it costs, what a model that does not look gets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medfocus_bench.attribution.perturbation import RISE, Occlusion, cell_masks
from medfocus_bench.attribution.registry import load_method
from medfocus_bench.data.questions import prompt
from medfocus_bench.errors import InputError
from medfocus_bench.phantom.render import Patient, render

PATIENT = render(Patient.sample((77, 1), findings=["pacemaker"]))


@pytest.fixture
def reading(lvlm):
    return lvlm.read(PATIENT.image, prompt("pacemaker", "direct"), "Yes.")


class Constant:
    """An LVLM that does not look: every picture gets the same score."""

    def __init__(self, lvlm):
        self._lvlm = lvlm

    def scores(self, reading, canvases, target="response"):
        return torch.zeros(len(canvases))


@pytest.mark.parametrize("method", [Occlusion(), RISE()])
def test_the_map_peaks_at_what_drives_the_answer(lvlm, reading, method):
    explanation = method.explain(lvlm, reading)
    mask = PATIENT.findings["pacemaker"]
    cells = mask.reshape(8, 28, 8, 28).mean((1, 3))
    assert explanation.saliency.shape == (8, 8)
    best = explanation.saliency.ravel().argsort()[::-1][:3]
    assert cells.ravel()[best].max() > 0


@pytest.mark.parametrize("method", [Occlusion(), RISE()])
def test_a_map_costs_sixty_five_passes(lvlm, reading, method):
    with lvlm.measured() as meter:
        method.explain(lvlm, reading)
    assert (meter.forward_passes, meter.backward_passes) == (65, 0)


def test_rise_is_the_same_with_the_same_seed_and_another_with_another(qwen):
    """Trap 26."""
    reading = qwen.read(PATIENT.image, prompt("pacemaker", "direct"), "Yes.")
    first, again, other = (RISE(masks=8).explain(qwen, reading, seed=s).saliency for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_model_that_does_not_look_gets_no_explanation(lvlm, reading):
    """Trap 26: without the division by how often a cell was kept RISE shows its own masks."""
    occluded = Occlusion().explain(Constant(lvlm), reading).saliency
    flat = RISE(masks=16).explain(Constant(lvlm), reading).saliency
    assert not occluded.any()
    assert np.ptp(flat) == 0


@pytest.mark.parametrize("masks", [1, 3])
def test_cells_that_no_mask_keeps_are_finite(qwen, masks):
    reading = qwen.read(PATIENT.image, prompt("pacemaker", "direct"), "Yes.")
    assert np.isfinite(RISE(masks=masks).explain(qwen, reading).saliency).all()


def test_cells_tile_a_canvas_that_does_not_divide_evenly(qwen):
    reading = qwen.read(np.zeros((224, 448), np.uint8), "Is it dark?", "Yes.")
    masks = cell_masks(torch.eye(9), 3, reading)
    assert masks.shape == (9, 1, *reading.canvas.shape[1:])
    assert (masks.sum(0) == 1).all()


def test_blackened_is_black_and_not_mid_grey(qwen):
    """Trap 10: zero of the normalised canvas is mid-grey."""
    reading = qwen.read(np.zeros((224, 224), np.uint8), "Is it dark?", "Yes.")
    assert torch.allclose(reading.canvas, reading.colour(0.0).expand_as(reading.canvas), atol=1e-6)
    assert reading.colour(0.0).abs().min() > 1


@pytest.mark.parametrize("target", ["response", "verdict", (0, 1)])
def test_every_target_can_be_explained(lvlm, reading, target):
    assert Occlusion(cells=2).explain(lvlm, reading, target=target).saliency.shape == (2, 2)


@pytest.mark.parametrize("target", [(1, 1), (0, 99), (-1, 1)])
def test_a_span_outside_the_response_is_an_error(lvlm, reading, target):
    with pytest.raises(ValueError, match="no tokens"):
        Occlusion(cells=2).explain(lvlm, reading, target=target)


def test_a_native_map_lies_where_the_picture_lies_in_the_model_frame():
    from medfocus_bench.lvlm.registry import load_lvlm

    lvlm = load_lvlm("phantom_gemma", framing="native")
    reading = lvlm.read(PATIENT.image[:112], prompt("pacemaker", "direct"), "Yes.")
    saliency = Occlusion().explain(lvlm, reading).saliency
    assert saliency.shape == (224, 224)
    assert not saliency[:56].any()
    assert not saliency[168:].any()


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("occlussion", {}, "no method"),
        ("occlusion", {"cell": 2}, "no setting 'cell', only cells, fill"),
        ("occlusion", {"cells": "many"}, "setting cells"),
        ("json:dumps", {}, "is no attribution method"),
        ("nowhere:Method", {}, "cannot be imported"),
        ("json:Nothing", {}, "cannot be imported"),
    ],
)
def test_a_wrong_method_or_setting_is_named(name, settings, said):
    """Trap 35."""
    with pytest.raises(InputError, match=said):
        load_method(name, settings)
