"""Methods at which something happens. Each makes a map of the picture, the same however often it is made."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
import torch

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.attribution.protocol import Method

HERE = "tests.faults.methods"

FIGURES = "CUDA out of memory. Tried to allocate 66.00 GiB. GPU 0 has a total capacity of 24.00 GiB"


def of_picture(example, side=16, **diagnostics):
    blocks = example.image[:: 224 // side, :: 224 // side].astype(np.float32)
    return Attribution(saliency=blocks, diagnostics=diagnostics)


@dataclass(frozen=True)
class Pausing(Method):
    """Writes each call to `place`/calls, and waits at one of them, from `place`/half to `place`/go."""

    place: str = ""
    at: int = 3

    def explain(self, lvlm, example, *, target="response", seed=0):
        place = Path(self.place)
        with (place / "calls").open("a") as file:
            file.write(f"{crc32(example.image.tobytes() + example.question.encode())}\n")
        if len((place / "calls").read_text().split()) == self.at:
            (place / "half").touch()
            while not (place / "go").exists():
                time.sleep(0.01)
        return of_picture(example)


@dataclass(frozen=True)
class Dying(Method):
    """Kills its process at one of the calls there, until `place` says that it did so often enough."""

    place: str = ""
    deaths: int = 1
    call: int = 2

    def explain(self, lvlm, example, *, target="response", seed=0):
        mine, place = str(os.getpid()), Path(self.place)
        calls = place / mine
        calls.write_text(calls.read_text() + "x" if calls.exists() else "x")
        died = [path for path in place.iterdir() if path.name != mine and len(path.read_text()) >= self.call]
        if len(calls.read_text()) == self.call and len(died) < self.deaths:
            os.kill(os.getpid(), signal.SIGKILL)
        return of_picture(example)


@dataclass(frozen=True)
class Hungry(Method):
    """Has no memory for more than `fits` pictures at a time, as torch says it."""

    fits: int = 4

    def explain(self, lvlm, example, *, target="response", seed=0):
        if lvlm.batch > self.fits:
            raise torch.OutOfMemoryError(FIGURES)
        return of_picture(example, pictures=float(lvlm.batch))


@dataclass(frozen=True)
class Wide(Method):
    """A large map, of 200,704 bytes."""

    def explain(self, lvlm, example, *, target="response", seed=0):
        return of_picture(example, side=224)


@dataclass(frozen=True)
class Removing(Method):
    """Removes a file when it is called for the first time, or writes a text over it."""

    file: str = ""
    text: str = ""

    def explain(self, lvlm, example, *, target="response", seed=0):
        path, saved = Path(self.file), Path(f"{self.file}.saved")
        if not saved.exists():
            saved.write_bytes(path.read_bytes())
            path.write_text(self.text) if self.text else path.unlink()
        return of_picture(example)
