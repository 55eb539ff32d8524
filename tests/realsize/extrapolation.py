"""From what was measured at two depths to the whole model, and which card holds what was counted.

Beside its weights a method takes m(b, v) GiB of a model with b blocks in the text decoder and v in the vision
tower. A block is a block, so m is linear in both:

    m(b, v) = fixed + b * per_block + v * per_vision_block

Two depths of the decoder give `per_block`, two of the tower `per_vision_block`. Where a method was measured
at one depth of the tower only, the tower keeps nothing for a way back and frees each block's states before
the next one's, so that `per_vision_block` is 0. Seconds are linear in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.realsize.architectures import ARCHITECTURES

CARDS: Final = (24, 48, 80)
"""GiB of the cards that labs have."""

RUNTIME: Final = 1.0
"""GiB of a card that the driver and the libraries' own kernels take. Assumed, not measured here."""

SIBLINGS: Final = {
    "qwen2.5-vl-3b": ("qwen2.5-vl-3b", "qwen2.5-vl-7b"),
    "gemma-3-4b": ("gemma-3-4b", "gemma-3-12b", "gemma-3-27b"),
}


@dataclass(frozen=True, slots=True)
class Counted:
    """A line of `counted.jsonl`: GiB of a model's weights, and of what a method holds beside them."""

    model: str
    label: str
    blocks: int
    vision_blocks: int
    weights: float
    extra: float


@dataclass(frozen=True, slots=True)
class Measured:
    """A line of `measured.jsonl`: memory in GiB, of which `extra` is the method's own, and its cost."""

    model: str
    label: str
    blocks: int
    vision_blocks: int
    extra: float
    peak: float
    cpu_seconds: float
    forward: int
    backward: int
    not_finite: int
    diagnostics: dict[str, float]

    @classmethod
    def of(cls, line: dict[str, Any]) -> Measured:
        own = {name: line[name] for name in cls.__slots__ if name != "extra"}
        return cls(extra=line["peak"] - line["before"], **own)


@dataclass(frozen=True, slots=True)
class Cost:
    """m(b, v) of one method on one model."""

    fixed: float
    per_block: float
    per_vision_block: float

    def at(self, blocks: int, vision_blocks: int) -> float:
        return self.fixed + blocks * self.per_block + vision_blocks * self.per_vision_block


def cost(points: Sequence[tuple[int, int, float]]) -> Cost | None:
    """m from measurements (b, v, value); None where no two of them differ in b alone.

    Memory that falls with depth is noise of the allocator: a slope is at least 0.
    """
    block = _slope([(b, value, v) for b, v, value in points])
    if block is None:
        return None
    vision = _slope([(v, value, b) for b, v, value in points]) or 0.0
    fixed = max(value - b * block - v * vision for b, v, value in points)
    return Cost(max(fixed, 0.0), block, vision)


def _slope(points: Iterable[tuple[int, float, int]]) -> float | None:
    """Of the values over the first of each (depth, value, other depth), where the other one is the same."""
    by_other: dict[int, list[tuple[int, float]]] = {}
    for depth, value, other in points:
        by_other.setdefault(other, []).append((depth, value))
    for found in by_other.values():
        (low, least), (high, most) = min(found), max(found)
        if high > low:
            return max(0.0, (most - least) / (high - low))
    return None


def card(gib: float) -> str:
    """The smallest card that holds so much, or that none does."""
    return next((str(size) for size in CARDS if gib + RUNTIME <= size), "none")


def table(lines: Sequence[Measured]) -> str:
    """The measurements as they are, in Markdown."""
    rows = [
        (
            one.model,
            f"{one.blocks} + {one.vision_blocks}",
            f"`{one.label}`",
            f"{one.forward} + {one.backward}",
            f"{one.cpu_seconds:.0f}",
            f"{one.cpu_seconds / max(1, one.forward):.1f}",
            f"{one.peak:.2f}",
            f"{one.extra:.2f}",
            str(one.not_finite),
            _sums(one.diagnostics),
        )
        for one in sorted(lines, key=lambda one: (one.model, one.label, one.blocks, one.vision_blocks))
    ]
    head = (
        "model",
        "blocks",
        "method",
        "passes",
        "CPU s",
        "a pass",
        "peak GiB",
        "beside weights",
        "not finite",
    )
    return markdown([*head, "adds up to"], rows)


def costs(lines: Sequence[Measured], model: str, seconds: bool = False) -> dict[str, Cost]:
    """m of each method that was measured on a model at two depths, in GiB or in seconds."""
    found: dict[str, list[tuple[int, int, float]]] = {}
    for one in lines:
        if one.model == model:
            value = one.cpu_seconds if seconds else one.extra
            found.setdefault(one.label, []).append((one.blocks, one.vision_blocks, value))
    fitted = {label: cost(points) for label, points in sorted(found.items())}
    return {label: own for label, own in fitted.items() if own is not None}


def blocks_table(lines: Sequence[Measured], counted: Sequence[Counted]) -> str:
    """The memory of a block by method, and the whole model by that and as counted, in Markdown."""
    there = {(one.model, one.label, one.blocks, one.vision_blocks): one.extra for one in counted}
    rows = []
    for model, names in SIBLINGS.items():
        of = ARCHITECTURES[names[0]]
        memory, time = costs(lines, model), costs(lines, model, seconds=True)
        for label, own in memory.items():
            depths = (of.blocks, of.vision_blocks)
            parts = (own.fixed, own.per_block, own.per_vision_block, own.at(*depths))
            whole = there.get((model, label, *depths))
            said = [f"{part:.2f}" for part in parts] + ["" if whole is None else f"{whole:.2f}"]
            rows.append((model, f"`{label}`", *said, f"{time[label].per_block:.1f}"))
    head = ["fixed", "a block", "a vision block", "whole model", "counted", "CPU s a block"]
    return markdown(["model", "method", *head], rows)


def needs_table(counted: Sequence[Counted]) -> str:
    """GiB that each method needs of each whole model, and the smallest card that has them, in Markdown."""
    names = [name for family in SIBLINGS.values() for name in family]
    rows: dict[str, dict[str, str]] = {}
    weights: dict[str, str] = {}
    for one in counted:
        of = ARCHITECTURES[one.model]
        if (one.blocks, one.vision_blocks) == (of.blocks, of.vision_blocks):
            gib = one.weights + one.extra
            weights[one.model] = f"{one.weights:.1f}"
            rows.setdefault(one.label, {})[one.model] = f"{gib:.1f} ({card(gib)})"
    body = [("weights alone", *(weights.get(name, "") for name in names))]
    body += [(f"`{label}`", *(found.get(name, "") for name in names)) for label, found in rows.items()]
    return markdown(["method", *names], body)


def _sums(diagnostics: dict[str, float]) -> str:
    named = ("conservation", "completeness")
    return ", ".join(f"{name} {diagnostics[name]:.3f}" for name in named if name in diagnostics)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
