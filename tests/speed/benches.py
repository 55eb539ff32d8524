"""The speed and memory benchmarks by name: `medfocus-bench bench [NAME ...]` prints their figures.

Each measures both sides of its ratio in one run, on one thread, beside what the machine reaches in plain work
at that moment. They are not tests: a busy machine would fail them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Final

from tests.speed.figures import Figure
from tests.speed.machine import Rates

NAMES: Final = (
    "import",
    "regions",
    "evaluate",
    "phantom",
    "occlusion",
    "transport",
    "medfocus",
    "atlas",
    "leaderboard",
    "sources",
    "engine",
)


def figures(name: str, rates: Rates) -> Iterator[Figure]:
    """The figures of a benchmark as they are measured."""
    run: Callable[[Rates], Iterator[Figure]] = import_module(f"tests.speed.bench_{name}").run
    return run(rates)
