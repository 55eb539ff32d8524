"""This machine, and what it reaches on one thread in plain work: a copy, a matrix product."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from medfocus_bench import __version__
from tests.speed.figures import Limit, once

COPIED = 64 * 2**20
"""Bytes of the array that is copied: more than the caches hold."""

SIDE = 384
"""Of the matrices that are multiplied."""

LIBRARIES = ("numpy", "scipy", "pandas", "pyarrow", "torch", "transformers", "ray")


@dataclass(frozen=True, slots=True)
class Rates:
    """Bytes moved a second by a copy, read and written counted alike, and operations of a matrix product."""

    copy: float
    float32: float
    float64: float

    @classmethod
    def measured(cls) -> Rates:
        """The fastest of a few tries each: a busy machine interrupts some."""
        source = np.ones(COPIED // 8)
        target = np.empty_like(source)
        copy = min(once(lambda: np.copyto(target, source)) for _ in range(10))
        return cls(2 * COPIED / copy, _product_of_torch(), _product(np.ones((SIDE, SIDE))))

    def of_bytes(self, reached: float, size: float, what: str) -> Limit:
        """The seconds that moving `size` bytes takes at least."""
        text = f"{what}: {_amount(size, 'B')} at {_amount(self.copy, 'B/s')}, as a plain copy"
        return Limit(reached, size / self.copy, "s", text)

    def of_operations(self, reached: float, count: float, what: str, kind: str = "float32") -> Limit:
        """The seconds that `count` operations take at least."""
        rate = getattr(self, kind)
        text = f"{what}: {_amount(count, 'FLOP')} at {_amount(rate, 'FLOP/s')}, as a {kind} matrix product"
        return Limit(reached, count / rate, "s", text)


def describe() -> dict[str, Any]:
    """The machine and the versions that count."""
    found = {"medfocus_bench": __version__, "python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    machine = {"processor": _processor(), "cores": os.cpu_count(), "system": platform.system()}
    return {"machine": machine, "versions": found}


def load() -> float:
    """Processes that wanted a core in the last minute: over the cores, times are not those of the code."""
    return os.getloadavg()[0]


def _product(matrix: np.ndarray) -> float:
    matrix @ matrix
    return 2 * SIDE**3 / min(once(lambda: matrix @ matrix) for _ in range(30))


def _product_of_torch() -> float:
    """By torch, as LVLMs compute."""
    import torch

    torch.set_num_threads(1)
    matrix = torch.ones(SIDE, SIDE)
    matrix @ matrix
    return 2 * SIDE**3 / min(once(lambda: matrix @ matrix) for _ in range(30))


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _amount(value: float, unit: str) -> str:
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"
