"""The memory of a driver and of a worker over many samples: `python -m tests.faults.memory --samples 2000`.

Prints the resident memory at each twentieth, and how much the last half has more than the second of them.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from medfocus_bench.data.resolve import load_benchmark
from medfocus_bench.data.writing import write_benchmark
from medfocus_bench.engine.choose import open_engine
from medfocus_bench.runs.attribute import attribute
from medfocus_bench.runs.methods import choose_methods
from tests.runs.conftest import track_rows

from . import drivers


def resident(pid: int) -> float:
    """MiB of memory that a process has."""
    (line,) = (
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")
    )
    return int(line.split()[1]) / 1024


def write_many(folder: Path, samples: int) -> None:
    """A benchmark of so many samples of an LVLM: those of the phantom track, again and again."""
    rows = [
        row for row in track_rows("direct") if (row["group"], row["lvlm"]) == ("grounded", "phantom_qwen")
    ]
    many = (
        {**rows[n % len(rows)], "sample_id": f"phantom-{n:05d}-phantom_qwen-direct", "index": n}
        for n in range(samples)
    )
    write_benchmark(folder, {"direct": many}, name="many", version="1")


def measured(folder: Path, samples: int, name: str, names: list[str]) -> dict[str, list[float]]:
    """MiB of the driver, and of a worker, at each twentieth of the samples."""
    found: dict[str, list[float]] = {"driver": []} if name == "in-process" else {"driver": [], "worker": []}
    step = samples * len(names) // 20

    def watched(items: Iterable, label: str, total: int) -> Iterator:
        for number, item in enumerate(items, start=1):
            yield item
            if number % step == 0:
                found["driver"].append(resident(os.getpid()))
                found.get("worker", []).extend(resident(pid) for pid in drivers.workers(os.getpid()))

    with open_engine(name) as engine:
        methods = choose_methods(names, ["occlusion.cells=2"] if "occlusion" in names else [])
        attribute(methods, load_benchmark(folder), folder / name, engine=engine, progress=watched)
    return found


def growth(figures: list[float]) -> float:
    """How much more the last half has than the second twentieth, when all is warm: the largest, a share."""
    return max(figures[len(figures) // 2 :]) / figures[1] - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--methods", default="grad-cam,token-activation-map,occlusion")
    parser.add_argument("--engines", default="local,in-process")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Path(folder, "many")
        write_many(bench, asked.samples)
        gc.collect()
        for name in asked.engines.split(","):
            for who, figures in measured(bench, asked.samples, name, asked.methods.split(",")).items():
                shown = " ".join(f"{value:.0f}" for value in figures)
                print(f"{name}, {who}: {shown} MiB; {growth(figures):+.1%} after warm-up", flush=True)


if __name__ == "__main__":
    main()
