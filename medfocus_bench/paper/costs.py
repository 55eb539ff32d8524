"""The cost of attributions before they are made: passes, seconds, bytes and memory, each with its origin."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from medfocus_bench.errors import InputError
from medfocus_bench.runs.records import Record
from medfocus_bench.submission.schema import Finite, Strict

if TYPE_CHECKING:
    from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
    from medfocus_bench.lvlm.example import EncodedExample

Origin = Literal["measured", "declared"]
TimeOrigin = Literal["given", "measured", "published", "declared"]

BACKWARD: Final = 2.0
"""A backward pass counts as this many forward passes."""

LINE_BYTES: Final = 2_000
"""Size of a record without its map: concepts and tokens of a short response."""

TIMED: Final = 3
"""Passes that are timed on a loaded LVLM."""


@dataclass(frozen=True, slots=True)
class Passes:
    """Passes and bytes per sample, with a method's settings in the paper."""

    forward: float
    backward: float = 0.0
    map_bytes: int = 0
    line_bytes: int = LINE_BYTES

    @property
    def together(self) -> float:
        """Forward passes, a backward one counted as `BACKWARD` of them."""
        return self.forward + BACKWARD * self.backward


_TOKENS: Final = 16 * 16 * 4
"""A float32 map on the grid of image tokens of a 224 px picture, or smaller."""

_PIXELS: Final = 224 * 224 * 4

_CELLS: Final = 56 * 56 * 4

DECLARED: Final[Mapping[str, Passes]] = {
    "attention-head": Passes(1, map_bytes=_TOKENS),
    "attention-rollout": Passes(1, map_bytes=_TOKENS),
    "lrp": Passes(1, 1, _TOKENS),
    "gradient-weighted-attention": Passes(1, 1, _TOKENS),
    "grad-cam": Passes(1, 1, _TOKENS),
    "grad-cam-plus-plus": Passes(1, 1, _TOKENS),
    "integrated-gradients": Passes(38, 36, _PIXELS),
    "occlusion": Passes(65, map_bytes=_TOKENS),
    "rise": Passes(65, map_bytes=_TOKENS),
    "medfocus": Passes(16),
    "prompting": Passes(128),
    "prompting-medsam": Passes(64),
    "relative-attention": Passes(2, map_bytes=_TOKENS),
    "token-activation-map": Passes(1, map_bytes=_TOKENS),
    "medfocus-plus": Passes(130, map_bytes=_CELLS),
}
"""For methods without records. Of the prompting methods: about one pass for each generated token."""

WRITING: Final = ("prompting", "prompting-medsam")
"""Methods that take as many passes as they write tokens."""

GRAPHS: Final[Mapping[tuple[str, str, str], float]] = {
    ("integrated-gradients", "gemma3_4b", "square"): 3.6,
    ("integrated-gradients", "gemma3_4b", "native"): 3.6,
    ("integrated-gradients", "qwen2_5_vl_3b", "square"): 0.65,
    ("integrated-gradients", "qwen2_5_vl_3b", "native"): 11.0,
}
"""GiB a picture that the graph of a backward pass keeps, by method, LVLM and framing, beside the weights.

Measured at the true widths of the LVLMs in bfloat16. Gemma 3 makes one size of every picture.
"""


class PlanLine(Strict):
    """One method on one LVLM and split; `bytes` and `hours` are those of the missing records.

    `seconds`: a sample, and `timed` where they come from; None where nothing is missing. `memory`: GiB that
    the graph of a picture takes, where that is known.
    """

    name: str
    lvlm: str
    split: str
    samples: int
    missing: int
    forward: Finite
    backward: Finite
    passes: Origin
    seconds: Finite
    timed: TimeOrigin | None
    bytes: int
    hours: Finite
    memory: Finite | None = None

    @classmethod
    def of(
        cls,
        part: tuple[str, str, str],
        samples: int,
        missing: int,
        passes: Passes,
        origin: Origin,
        time_of_one: tuple[float, TimeOrigin] | None,
        memory: float | None = None,
    ) -> PlanLine:
        """The line of a part (name, LVLM, split), with the seconds of a sample and their origin."""
        name, lvlm, split = part
        seconds, timed = time_of_one or (0.0, None)
        return cls(
            name=name,
            lvlm=lvlm,
            split=split,
            samples=samples,
            missing=missing,
            forward=passes.forward,
            backward=passes.backward,
            passes=origin,
            seconds=seconds,
            timed=timed,
            bytes=missing * (passes.line_bytes + passes.map_bytes),
            hours=missing * seconds / 3600,
            memory=memory,
        )


class Pace(Strict):
    """Seconds a forward pass of an LVLM."""

    lvlm: str
    seconds: Finite
    origin: Literal["measured", "given"]
    device: str

    def of(self, passes: Passes) -> tuple[float, TimeOrigin]:
        """The seconds of a sample at this pace."""
        return passes.together * self.seconds, self.origin


class Plan(Strict):
    """The content of `<target>-plan.json`, and of `plan --format json`.

    `times`: how often the samples are counted; `devices`: how many share the hours.
    """

    format: Literal["medfocus-bench plan 2"] = "medfocus-bench plan 2"
    target: str
    title: str
    times: int = 1
    devices: int = 1
    paces: list[Pace]
    lines: list[PlanLine]
    notes: list[str]

    @property
    def forwards(self) -> float:
        """Forward passes of what is missing, a backward pass as two."""
        return sum(line.missing * (line.forward + BACKWARD * line.backward) for line in self.lines)

    @property
    def hours(self) -> float:
        """On one device."""
        return sum(line.hours for line in self.lines)

    @property
    def bytes(self) -> int:
        return sum(line.bytes for line in self.lines)


def passes_of(records: Sequence[Record]) -> Passes | None:
    """The means of records that state their passes; None where there are none."""
    costs = [cost for record in records if (cost := record.entry.cost) is not None]
    stated = [(c.forward_passes, c.backward_passes or 0) for c in costs if c.forward_passes is not None]
    if not stated:
        return None
    forward, backward = np.mean(stated, axis=0)
    maps = [0 if r.map is None else r.map.end - r.map.offset for r in records]
    lines = [len(record.model_dump_json(exclude_none=True)) + 1 for record in records]
    return Passes(float(forward), float(backward), *(round(float(np.mean(n))) for n in (maps, lines)))


def seconds_of(records: Sequence[Record]) -> float | None:
    """The mean seconds of records that state them; None where there are none."""
    stated = [c.seconds for record in records if (c := record.entry.cost) and c.seconds is not None]
    return float(np.mean(stated)) if stated else None


def check_pace(seconds: float | None) -> None:
    """Raises InputError unless the seconds are positive and finite."""
    if seconds is not None and not 0 < seconds < float("inf"):
        raise InputError(f"--seconds-per-forward {seconds}: give a number above 0")


def pace_of(
    lvlm: str,
    device: str,
    given: float | None,
    encode: Callable[[], tuple[HuggingFaceLVLM, EncodedExample]],
) -> Pace:
    """The pace that is given, or that of an LVLM on an example of `encode`."""
    if given is not None:
        return Pace(lvlm=lvlm, seconds=given, origin="given", device=device)
    return Pace(lvlm=lvlm, seconds=seconds_a_pass(*encode()), origin="measured", device=device)


def seconds_a_pass(lvlm: HuggingFaceLVLM, example: EncodedExample) -> float:
    """The median time of a forward pass, after one that warms up."""
    times = []
    for _ in range(TIMED + 1):
        start = time.perf_counter()
        lvlm.token_scores(example, example.pixel_values[None]).cpu()
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:]))


def size(count: float) -> str:
    """A number of bytes in words."""
    return f"{count / 2**20:.3g} MiB" if count < 2**30 else f"{count / 2**30:.4g} GiB"
