"""Methods that the tests of runs bring along: each does one thing that an installed one should not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.attribution.protocol import Method

HERE = "tests.runs.methods"


@dataclass(frozen=True)
class Counting(Method):
    """The picture, in blocks.

    Counts its calls, and breaks down at one of them.
    """

    title = "Counting"

    calls: ClassVar[list[str]] = []
    breaks_at: ClassVar[int | None] = None

    scale: float = 1.0

    def explain(self, lvlm, example, *, target="response", seed=0):
        if self.breaks_at is not None and len(self.calls) == self.breaks_at:
            raise RuntimeError("the power is gone")
        self.calls.append(example.response)
        rows, columns = example.image.shape[0] // 16, example.image.shape[1] // 16
        blocks = example.image.reshape(rows, 16, columns, 16).mean((1, 3), dtype=np.float64)
        return Attribution(
            saliency=blocks * self.scale,
            tokens=tuple((token, float(n)) for n, token in enumerate(example.tokens)),
            concepts={"all of it": 1.0},
            diagnostics={"completeness": 0.5, "nothing": float("nan")},
        )


@dataclass(frozen=True)
class Refusing(Method):
    """Refuses every picture of which it does not like the finding."""

    likes: str = "cardiomegaly"

    def explain(self, lvlm, example, *, target="response", seed=0):
        if self.likes not in example.question:
            raise ValueError("not of my kind\nand a second line")
        return Attribution(boxes=np.array([[0.0, 0.0, 100.0, 100.0]]))


@dataclass(frozen=True)
class Sided(Method):
    """One half of the picture; which one is to be tuned."""

    title = "Sided"

    questions: ClassVar[list[str]] = []

    side: str = "none"

    def candidates(self, lvlm):
        return [{"side": side} for side in ("none", "right", "broken", "left")]

    def explain(self, lvlm, example, *, target="response", seed=0):
        if self.side == "broken":
            raise ValueError("this candidate never runs")
        self.questions.append(example.question)
        halves = {"none": [0, 0], "left": [1, 0], "right": [0, 1]}
        return Attribution(saliency=np.array([halves[self.side]] * 2, dtype=np.float32))


@dataclass(frozen=True)
class Fine(Method):
    """A value for every pixel, at the size of a gradient."""

    def explain(self, lvlm, example, *, target="response", seed=0):
        return Attribution(saliency=example.pixel_values[0].numpy() * np.float32(1e-9))


@dataclass(frozen=True)
class OverThePicture(Method):
    """The picture in blocks, without its padding: over what `frame` says."""

    embedded: bool = False

    def explain(self, lvlm, example, *, target="response", seed=0):
        blocks = example.image[::8, ::8].astype(np.float32)
        if self.embedded:
            return Attribution(saliency=example.frame.embed(blocks))
        return Attribution(saliency=blocks, frame="image")


@dataclass(frozen=True)
class Telling:
    """The conditions under which it was asked; of a package that knows no base class."""

    name: ClassVar = "telling"
    family: ClassVar = "other"
    needs: ClassVar = ()
    description: ClassVar = "The conditions of a run."

    def explain(self, lvlm, example, *, target="response", seed=0):
        found = {"seed": seed, "native": lvlm.framing == "native", "verdict": target == "verdict"}
        return Attribution(
            saliency=np.eye(2), diagnostics={name: float(value) for name, value in found.items()}
        )


@dataclass(frozen=True)
class Holed(Method):
    """A map with a hole that is not a number."""

    def explain(self, lvlm, example, *, target="response", seed=0):
        return Attribution(saliency=np.array([[1.0, np.nan], [0.0, 1.0]]))


@dataclass(frozen=True)
class Stray(Method):
    """Boxes outside the picture: what no submission can hold."""

    def explain(self, lvlm, example, *, target="response", seed=0):
        return Attribution(boxes=np.array([[0.0, 0.0, 9999.0, 10.0]]))


@dataclass(frozen=True)
class Unnamed(Stray):
    """A name that no submission can have."""

    name = "No Such Name"


@dataclass(frozen=True)
class Hungry(Method):
    """Wants so much memory that a device holds no more than `holds` pictures at a time."""

    holds: int = 2

    def candidates(self, lvlm):
        return [{"holds": 0}, {"holds": 2}]

    def explain(self, lvlm, example, *, target="response", seed=0):
        if lvlm.batch > self.holds:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 66.00 GiB")
        return Attribution(saliency=np.eye(2), diagnostics={"batch": float(lvlm.batch)})
