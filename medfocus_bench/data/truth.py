"""Knowledge of a sample beyond its row: the pixels of its cause, the picture without it, and its effects.

It comes by source: a package that made the pictures of a source itself knows more of them than boxes. An
object that follows the protocol `Truth` is found by the entry point group `medfocus_bench.truth`, under the
name of the source. Of other sources the boxes are all that is known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.metadata import entry_points
from typing import Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from medfocus_bench.geometry import BoolArray, UInt8Image, rasterise

GROUP: Final = "medfocus_bench.truth"
"""The entry point group by which a package says what it knows of a source: objects that follow `Truth`."""

Region = tuple[str, int, str]
"""Source, index and kind of evidence: LVLMs and modes share it."""

_MOST_CHECKED: Final = 1 << 16
"""Regions of which a process remembers whether their truth is known."""


@dataclass(frozen=True, slots=True, eq=False)
class Effects:
    """Effects of the cause on the log-probability of a response, teacher-forced, in nats.

    Args:
        tokens: the tokens of the response as the LVLM wrote them, (n,).
        token_effects: log p(token | picture) - log p(token | counterfactual), (n,), float32, read-only.
        concept_effects: by concept and composite, the drop when only the part of the cause in it is healed.
        drop: the drop when the whole cause is healed.

    """

    tokens: tuple[str, ...]
    token_effects: npt.NDArray[np.float32]
    concept_effects: Mapping[str, float]
    drop: float


@dataclass(frozen=True, slots=True)
class ContrastQuestion:
    """A question about a picture that shows a finding and its mark, put to one of a pair of LVLMs.

    Args:
        region: of the question about the lesion, whose picture is shown.
        lvlm: the second name of the LVLM that is asked.
        pair: the name of the pair; the other LVLM of it is asked the same.
        cause: by which of the two the LVLM goes.
        response: its answer, yes.

    """

    region: Region
    lvlm: str
    pair: str
    cause: Literal["finding", "mark"]
    response: str


class Truth(Protocol):
    """All that is known of a source. Regions are asked for only after `knows` said yes."""

    def knows(self, region: Region, picture: UInt8Image) -> bool:
        """Whether the truth of this region is known, and belongs to this picture of it."""
        ...

    def mask(self, region: Region) -> BoolArray:
        """The exact pixels of the cause: (height, width), native frame, shared and read-only."""
        ...

    def counterfactual(self, region: Region) -> UInt8Image:
        """The picture without the cause, of the shape of the picture."""
        ...

    def effects(self, sample_id: str) -> Effects | None:
        """The effects on the response of a sample; None where they are not known."""
        ...

    @property
    def second_names(self) -> Mapping[str, str]:
        """Keys of LVLMs by names that do not say which they are."""
        ...

    def contrast(self) -> Sequence[ContrastQuestion]:
        """The questions of the split `contrast`, both of a pair one after the other."""
        ...

    def mark(self, region: Region) -> BoolArray:
        """The exact pixels of the mark in a picture of `contrast`: as `mask`."""
        ...


@cache
def installed_truths() -> dict[str, Truth]:
    """Every source of which more is known than the rows of a benchmark, with its truth."""
    return {entry.name: entry.load() for entry in entry_points(group=GROUP)}


def second_names() -> dict[str, str]:
    """Keys of LVLMs by their second names, in which the split `contrast` asks them."""
    return {name: key for truth in installed_truths().values() for name, key in truth.second_names.items()}


_CHECKED: Final[dict[tuple[Region, Hashable], bool]] = {}


def truth_of(region: Region, origin: Hashable, picture: Callable[[], UInt8Image]) -> Truth | None:
    """The truth of a region, if its source has one and it belongs to the picture.

    Args:
        region: source, index and kind of evidence.
        origin: where the picture is read from, such as a file and its state: the pictures of a region and
            origin are held to be one, so that it is read once. None stands for one that changes.
        picture: reads the picture.

    """
    truth = installed_truths().get(region[0])
    if truth is None:
        return None
    known = _CHECKED.get((region, origin)) if origin is not None else None
    if known is None:
        known = truth.knows(region, picture())
        if origin is not None:
            if len(_CHECKED) >= _MOST_CHECKED:
                _CHECKED.clear()
            _CHECKED[region, origin] = known
    return truth if known else None


def picture_digest(picture: UInt8Image) -> bytes:
    """sha256 of the pixels of a picture, its shape and type included: 32 bytes."""
    head = f"{picture.dtype.str} {picture.shape} ".encode()
    return hashlib.sha256(head + np.ascontiguousarray(picture).tobytes()).digest()


@lru_cache(maxsize=8)
def mask_of_boxes(width: int, height: int, native: bytes) -> BoolArray:
    """The pixels that boxes cover: (height, width), native frame, shared and read-only.

    A pixel counts from half of it on; of boxes too small for that the most covered pixels, and of boxes
    without area the pixel that holds the centre of the first. `native`: (n, 4) float64, as bytes.
    """
    boxes = np.frombuffer(native).reshape(-1, 4)
    covered = rasterise(boxes, width, height)
    if not covered.any():
        x1, y1, x2, y2 = boxes[0]
        covered[min(int((y1 + y2) / 2), height - 1), min(int((x1 + x2) / 2), width - 1)] = 1.0
    mask = covered >= min(0.5, covered.max())
    mask.setflags(write=False)
    return np.asarray(mask)
