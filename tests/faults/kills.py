"""A run whose processes are killed at random moments, beside one that nobody disturbs.

The whole figure: `python -m tests.faults.kills --samples 200 --kills 20`.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from . import drivers

METHODS = ("--method", "grad-cam,token-activation-map,occlusion", "--set", "occlusion.cells=2")

IN_PROCESS = ("--engine", "in-process")
LOCAL = ("--engine", "local")


@dataclass
class Told:
    """Who was killed, how many drivers were started, and which processes outlived the one that began them."""

    killed: Counter[str] = field(default_factory=Counter)
    drivers: int = 0
    orphans: set[int] = field(default_factory=set)


def killed_run(
    out: Path, *words: object, moments: list[tuple[float, str, float]], engines: list[tuple[str, ...]]
) -> Told:
    """Run to the end what is killed at `moments`: bytes that are written, a driver or worker, and seconds.

    The seconds pass between the bytes and the kill. Each driver that is started has the next of `engines`.
    """
    told, left = Told(), list(moments)
    while True:
        engine = engines[told.drivers % len(engines)]
        driver = drivers.start(out.parent / f"driver-{told.drivers}", *words, "--out", out, *engine)
        told.drivers += 1
        while left and driver.process.is_alive():
            at, whom, later = left[0]
            drivers.wait_until(lambda at=at: drivers.written(out) >= at, driver)
            if not driver.process.is_alive():
                break
            time.sleep(later)
            found = drivers.workers(driver.pid)
            if whom == "worker" and "local" in engine:
                found = drivers.wait_until(lambda pid=driver.pid: drivers.workers(pid), driver)
            left.pop(0)
            if whom == "driver" or not found:
                driver.kill()
                told.killed[f"driver {engine[1]}"] += 1
                drivers.wait_until(lambda found=found: drivers.gone(found))
                break
            os.kill(min(found), signal.SIGKILL)
            told.killed["worker"] += 1
        found = drivers.workers(driver.pid)
        status, _, error = driver.end()
        drivers.wait_until(lambda found=found: drivers.gone(found))
        assert "Traceback" not in error, error
        if status == 0:
            return told
        assert status == -signal.SIGKILL, (status, error)


def random_moments(count: int, size: int, whom: list[str], seed: int) -> list[tuple[float, str, float]]:
    """Moments over a run of `size` bytes; the first is the one of the first bytes."""
    random = np.random.default_rng(seed)
    at = np.sort(random.uniform(1, size * 0.98, count))
    return [
        (float(bytes_), str(random.choice(whom)), float(later))
        for bytes_, later in zip(at, random.uniform(0, 0.1, count), strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    words = ("attribute", *METHODS, "--lvlm", "phantom_qwen", "-b", "phantom", "--split", "direct")
    words += ("--limit", str(asked.samples))
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        quiet, killed = Path(folder, "quiet"), Path(folder, "killed")
        status, _, error = drivers.run(Path(folder, "log"), *words, "--out", quiet)
        assert status == 0, error
        print(f"undisturbed: {drivers.lines(quiet)} records in {time.monotonic() - begun:.0f} s", flush=True)
        moments = random_moments(asked.kills, drivers.written(quiet), ["driver", "worker"], asked.seed)
        begun = time.monotonic()
        local = (*LOCAL, "--workers", str(asked.workers))
        told = killed_run(killed, *words, moments=moments, engines=[local, local, IN_PROCESS])
        print(f"killed: {dict(told.killed)}, {told.drivers} drivers, {time.monotonic() - begun:.0f} s")
        one, other = drivers.content(quiet), drivers.content(killed)
        failures = list(killed.glob("*/failures.jsonl"))
        print(f"records equal, maps to the byte: {one == other} ({len(other)}); failures: {len(failures)}")
        raise SystemExit(one != other)


if __name__ == "__main__":
    main()
