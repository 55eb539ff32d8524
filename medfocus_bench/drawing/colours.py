"""The colours of the drawings."""

from __future__ import annotations

from typing import Final

import numpy as np

from medfocus_bench.geometry import FloatArray

_ANCHORS: Final = (
    (0.00, (10, 8, 40)),
    (0.25, (84, 20, 125)),
    (0.50, (186, 42, 92)),
    (0.75, (245, 128, 32)),
    (1.00, (255, 244, 150)),
)
"""Colours of the scale: their lightness grows evenly from black to a pale yellow."""

_OPACITY: Final = 0.8
BACKGROUND: Final = (18, 20, 26)
TEXT: Final = (236, 238, 242)
QUIET: Final = (150, 156, 168)
"""Colours of every sheet that shows a picture with its explanation."""


def colour_scale() -> FloatArray:
    """The scale in 256 steps, (256, 4): red, green, blue in 0 to 255, and opacity, 0 at the low end."""
    steps = np.linspace(0, 1, 256)
    places = [place for place, _ in _ANCHORS]
    channels = [np.interp(steps, places, [colour[n] for _, colour in _ANCHORS]) for n in range(3)]
    return np.stack([*channels, _OPACITY * steps**0.7], axis=1)
