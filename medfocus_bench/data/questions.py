"""A question of the causal filter: one image, one finding and its region of evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from medfocus_bench.geometry import FloatArray, UInt8Image

Mode = Literal["direct", "reasoning"]

MODES: Final[tuple[Mode, Mode]] = ("direct", "reasoning")

Decoding = Literal["greedy", "checkpoint"]
"""How a response is written: `greedy` takes the likeliest token at every step, and `checkpoint` the likeliest
once the penalties of the checkpoint's generation config are applied, as the paper's released code does."""

GREEDY: Final[Decoding] = "greedy"
DECODINGS: Final[tuple[Decoding, ...]] = get_args(Decoding)

_ENDINGS: Final[dict[Mode, str]] = {
    "direct": "Answer directly with yes or no without any explanation.",
    "reasoning": "Think step by step and answer with yes or no.",
}


def prompt(finding: str, mode: Mode) -> str:
    """The full question text (paper, section 1)."""
    return f"Is there evidence of {finding} in the image? {_ENDINGS[mode]}"


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """One (source, index) with its picture.

    `image`: uint8, (height, width) grey or (height, width, 3); `boxes` (n, 4): the region whose causal role
    is in question, native pixels; `evidence` says what it holds: the `lesion`, or a `spurious` mark.
    """

    source: str
    index: int
    patient_id: str
    finding: str
    image: UInt8Image
    boxes: FloatArray
    evidence: str = "lesion"

    @property
    def key(self) -> str:
        """Its name within a source."""
        return f"{self.source}-{self.index:05d}-{self.evidence}"
