"""The interface of an LVLM; free of torch, so that anything may implement it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from medfocus_bench.data.questions import Decoding
from medfocus_bench.errors import InputError
from medfocus_bench.geometry import UInt8Image

AUTO_BATCH: Final = 16
"""Pictures at a time that an attribution begins with."""

AUTO_ANSWERS: Final = 32
"""Pictures at a time that writing answers begins with, which keeps nothing for a way back."""


class NotFiniteError(InputError):
    """An LVLM computed numbers that are not finite, as float16 does where it overflows."""


@dataclass(frozen=True, slots=True)
class Response:
    """A written response: the exact text, and the ids of its own tokens (without the end of turn).

    `log_odds`: of yes over no, fp32, where it states its verdict; None where it wrote neither word.
    """

    text: str
    ids: tuple[int, ...]
    log_odds: float | None


class LVLM(Protocol):
    """The part of an LVLM that the causal filter uses."""

    key: str
    decoding: Decoding

    @property
    def dtype(self) -> str:
        """Of the weights, such as float32."""
        ...

    def respond(
        self, images: Sequence[UInt8Image], questions: Sequence[str], *, max_new_tokens: int | None = None
    ) -> list[Response]:
        """One response to each (image, question), by the LVLM's decoding.

        Raises NotFiniteError where the logits of one of them are not finite.
        """
        ...
