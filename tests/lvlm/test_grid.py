"""Where the image lies in a model's input, for both framings."""

from __future__ import annotations

import pytest

from medfocus_bench.attribution.integrated_gradients import IntegratedGradients, baseline_input
from medfocus_bench.data.questions import prompt
from medfocus_bench.geometry import Frame
from medfocus_bench.lvlm.grid import InputView
from tests.lvlm.conftest import picture

QUESTION = prompt("nodule", "direct")
WIDE = Frame(200, 100)


def test_a_native_picture_fills_its_input_and_a_framed_one_has_padding():
    assert InputView(WIDE, "native").content(80, 160) == (0, 0, 160, 80)
    assert InputView(WIDE, "square").content(224, 224) == (0, 56, 224, 168)


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
