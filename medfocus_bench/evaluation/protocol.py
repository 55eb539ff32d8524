"""The two evaluation protocols and the constants that they share (paper, section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from medfocus_bench.errors import InputError

Protocol = Literal["standard", "paper"]

PROTOCOLS: tuple[Protocol, ...] = ("standard", "paper")

QUANTILE = 0.9
"""Pixels at or above this quantile of the non-zero values are selected."""

MIN_AREA = 16
"""Components with fewer pixels are dropped."""

MAX_BOXES = 10
"""Boxes kept, by mean saliency."""

TRANSLATIONS = 256
"""Translations of a prediction that estimate the IoU it would have by chance."""

RESAMPLES = 10_000
"""Bootstrap resamples behind every interval."""

MIN_RESAMPLES = 10
"""Fewer make no interval."""

CONFIDENCE = 0.95
"""Coverage of every interval."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings that, beside the data, decide the numbers of a report."""

    protocol: Protocol = "standard"
    seed: int = 0
    resamples: int = RESAMPLES

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise InputError(f"no protocol {self.protocol!r}; there are {', '.join(PROTOCOLS)}")
        if self.resamples < MIN_RESAMPLES or self.seed < 0:
            raise InputError(f"resamples needs to be at least {MIN_RESAMPLES}, and the seed at least 0")
