"""The share of questions that passes the causal filter, beside what a coin passes.

The filter asks for "yes", "no", "yes" and "yes" (`rows.group_of`). Whoever answers without looking passes now
and then, too, so that a count of kept questions says little until it stands beside that rate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from medfocus_bench.answers import parse_verdict
from medfocus_bench.data.columns import IMAGES

COIN_AT_MOST: Final = 27 / 256
"""The most that a coin passes, 10.5 %: at p = 3/4."""


def coin_share(yes: float) -> float:
    """The share of questions that a coin passes which says yes with the probability `yes`: p^3 (1 - p).

    Its four answers are independent: three of them have to be yes, and the one to the foreground edit no. At
    most 27/256, at p = 3/4; 0 for a coin that always says the same. Raises ValueError outside of [0, 1].
    """
    if not 0 <= yes <= 1:
        raise ValueError(f"a probability is from 0 to 1, not {yes}")
    return yes**3 * (1 - yes)


def yes_share(answered: Iterable[Mapping[str, str]]) -> float:
    """The share of yes among the four answers to each question, given its responses by picture.

    An answer without a verdict counts among the answers. Raises ValueError without any question.
    """
    verdicts = [parse_verdict(responses[image]) for responses in answered for image in IMAGES]
    if not verdicts:
        raise ValueError("there are no answers")
    return verdicts.count("yes") / len(verdicts)


@dataclass(frozen=True, slots=True)
class Kept:
    """How many of the `asked` questions passed, and the share of yes among all answers.

    `yes` is None where the answers to those that failed are not known.
    """

    count: int
    asked: int
    yes: float | None = None

    @property
    def share(self) -> float:
        return self.count / self.asked

    @property
    def coin(self) -> float:
        """The share that a coin of the same p passes; the most that any passes where p is not known."""
        return COIN_AT_MOST if self.yes is None else coin_share(self.yes)

    @property
    def is_above_coin(self) -> bool:
        return self.share > self.coin
