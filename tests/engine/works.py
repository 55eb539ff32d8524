"""Pieces of work for the tests of engines: what workers import must lie in a module."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

from medfocus_bench.errors import InputError, Notice


@dataclass
class Squares:
    """Two outputs a unit, the square and the process that made it; it may die, or fail, on the way."""

    dies_in: Path | None = None
    dies_at: int = -1
    deaths: int = 10**6
    fails_at: int = -1
    breaks_at: int = -1
    slow: float = 0.0

    def __call__(self, unit):
        yield unit * unit
        if self.slow:
            time.sleep(self.slow)
        if unit == self.dies_at and len(list(self.dies_in.iterdir())) < self.deaths:
            (self.dies_in / str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if unit == self.fails_at:
            raise InputError(f"unit {unit} is no good")
        if unit == self.breaks_at:
            raise OddError(unit)
        yield os.getpid()


class Stillborn:
    """A worker on Ray that ends as soon as it begins."""

    def ready(self):
        os._exit(1)


class OddError(Exception):
    """An error that cannot be pickled."""

    def __init__(self, unit):
        super().__init__(f"odd {unit}")
        self.cannot = lambda: None


def threads(unit):
    """The settings of a worker."""
    yield os.environ["OMP_NUM_THREADS"]
    yield os.environ.get("CUDA_VISIBLE_DEVICES")


def notices(unit):
    """A notice before each output."""
    warnings.warn(Notice(f"unit {unit} looks odd"), stacklevel=1)
    yield unit


def network(unit):
    """An error that a driver's end gives, too."""
    if unit == 1:
        raise ConnectionResetError("the Hub hung up")
    yield unit


def leaving(unit):
    """A method that ends its process."""
    if unit == 1:
        sys.exit("enough")
    yield unit


class Unloadable:
    """Work that can be sent and not be loaded."""

    def __reduce__(self):
        return importlib.import_module, ("a_module_that_nobody_has",)

    def __call__(self, unit):
        yield unit
