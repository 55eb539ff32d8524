"""The two evaluation protocols and the constants that they share (paper, section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from medfocus_bench.errors import InputError

Protocol = Literal["standard", "paper"]

PROTOCOLS: tuple[Protocol, ...] = ("standard", "paper")

EVALUATOR_VERSION: Final = "2.0"
"""The version of the scores, which stands in every report, comparison and result.

It changes where a score of the same attribution would be another one; that of the package is another matter.
"""

SELECTED: Final = 0.1
"""Share of the image's pixels that a map selects."""

TRANSLATIONS: Final = 256
"""Translations of a prediction that estimate the IoU it would have by chance."""

RESAMPLES: Final = 10_000
"""Bootstrap resamples of patients behind every interval over patients alone."""

MIN_RESAMPLES: Final = 10
"""Fewer make no interval."""

CONFIDENCE: Final = 0.95
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
