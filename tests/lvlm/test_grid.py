"""Where the image lies in a model's input, for both framings."""

from __future__ import annotations

import numpy as np
import pytest

from medfocus_bench.attribution.integrated_gradients import IntegratedGradients, baseline_input
from medfocus_bench.data.questions import prompt
from medfocus_bench.geometry import Frame
from medfocus_bench.lvlm.grid import InputView, TokenGrid, seen_part
from tests.lvlm.conftest import picture

QUESTION = prompt("nodule", "direct")
WIDE = Frame(200, 100)


def test_a_native_picture_fills_its_input_and_a_framed_one_has_padding():
    assert InputView(WIDE, "native").content(80, 160) == (0, 0, 160, 80)
    assert InputView(WIDE, "square").content(224, 224) == (0, 56, 224, 168)


def test_values_of_tokens_stand_where_the_tokens_see_and_not_in_the_strip_that_none_does():
    """Trap 28: SigLIP's patches of 14 pixels leave 6 of 384 out, half a token at the far end."""
    assert (seen_part(27, 384), seen_part(9, 384), seen_part(24, 336)) == (378 / 384, 378 / 384, 1)
    ramp = 14 * (np.arange(27) + 0.5)  # the pixel in the middle of each token
    grid = TokenGrid(27, 27, InputView(Frame(384, 384, 384), "square"), (378 / 384, 378 / 384))
    middles = 384 / 27 * (np.arange(27) + 0.5)
    down, across = grid.saliency(np.tile(ramp[:, None], 27)), grid.saliency(np.tile(ramp, (27, 1)))
    assert np.abs(down[:26] - middles[:26, None]).max() < 1e-3
    assert np.abs(across[:, :26] - middles[:26]).max() < 1e-3
    plain = TokenGrid(27, 27, grid.view)
    assert np.abs(plain.saliency(np.tile(ramp, (27, 1)))[0] - middles).max() > 5


@pytest.mark.parametrize("name", ["phantom_qwen", "phantom_gemma"])
def test_a_native_picture_has_a_baseline_and_gradients_up_to_its_first_and_last_rows(open_lvlm, name):
    """A picture twice as wide as high has padding there in a square, and none as it is."""
    lvlm = open_lvlm(name, framing="native")
    example = lvlm.encode(picture(1, 100, 200) + 60, QUESTION, "Yes.")
    _, (gradient,) = lvlm.pixel_gradients(example, example.pixel_values[None])
    baseline = baseline_input(example, "black", 0.05)
    assert (baseline == example.colour(0.0)).all()
    integrated = IntegratedGradients(steps=2).attributions(lvlm, example, baseline)
    for row in (0, -1):
        assert gradient[:, row].any()
        assert (integrated[row] != 0).float().mean() > 0.9
