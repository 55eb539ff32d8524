"""Which side of a signed attribution counts as evidence."""

from __future__ import annotations

from typing import Literal

import torch

Sign = Literal["positive", "absolute", "signed"]
"""`positive`: what speaks for the target, all else zero. `absolute`: what speaks for or against it.
`signed`: the attribution as it is, what speaks against the target below what says nothing."""


def as_evidence(attribution: torch.Tensor, sign: Sign) -> torch.Tensor:
    """A signed attribution (any shape) as a saliency."""
    if sign == "positive":
        return attribution.clamp(min=0)
    return attribution.abs() if sign == "absolute" else attribution
