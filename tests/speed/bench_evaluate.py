"""A whole evaluation against the floor of its cost, and its memory against the number of samples."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import ndimage

from medfocus_bench import Attribution, SubmissionWriter, write_benchmark
from tests.conftest import METHOD, make_row
from tests.speed.figures import Figure, Limit, seconds
from tests.speed.machine import Rates

_PROGRAM = """
import json, re, sys, time
folder, nulls = sys.argv[1], sys.argv[2] == "nulls"
from medfocus_bench import evaluate
start = time.perf_counter()
report = evaluate(folder + "/submission", folder + "/benchmark", nulls=nulls)
elapsed = time.perf_counter() - start
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
print(json.dumps([elapsed, peak, report.counts.samples]))
"""


def run(rates: Rates) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for count in (1000, 4000, 10_000):
            _write(root / str(count), count)
        floor, parts = _floor()
        for nulls in ("without", "nulls"):
            elapsed, peak, count = _evaluate(root / "4000", nulls, root / "cache")
            if nulls == "without":
                each = elapsed / count
                yield Figure(
                    "4,000 maps end to end, per map",
                    each * 1e3,
                    "ms",
                    parts,
                    "<= 4 argsorts + 1 labelling",
                    each <= floor,
                    Limit(each, floor, "s", "4 argsorts and a labelling of a map, measured here"),
                )
                yield Figure("memory of 4,000 maps", peak, "MB", "", "< 600 MB", peak < 600)
            else:
                yield _with_nulls(elapsed, peak, count, "empty", rates)
        elapsed, peak, count = _evaluate(root / "4000", "nulls", root / "cache")
        yield _with_nulls(elapsed, peak, count, "filled", rates)
        small, large = (
            _evaluate(root / str(count), "without", root / "cache")[1] for count in (1000, 10_000)
        )
        ratio = large / small
        detail = f"{small:.0f} MB, {large:.0f} MB"
        yield Figure("memory of 10,000 samples against 1,000", ratio, "x", detail, "< 1.2 x", ratio < 1.2)


def _with_nulls(elapsed: float, peak: float, count: int, cache: str, rates: Rates) -> Figure:
    name = f"4,000 maps with the seven null controls, cache {cache}"
    size = 8 * count * 224 * 224 * 2
    limit = rates.of_bytes(elapsed, size, "float16 maps of the method and the controls, read once")
    return Figure(name, elapsed, "s", f"{peak:.0f} MB", limit=limit)


def _evaluate(folder: Path, nulls: str, cache: Path) -> tuple[float, float, int]:
    """Seconds, peak memory in MB and samples of one evaluation in a process of its own."""
    environment = {"XDG_CACHE_HOME": str(cache), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(folder), nulls],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[2],
    )
    elapsed, peak, samples = json.loads(done.stdout)
    return elapsed, peak, samples


def _floor() -> tuple[float, str]:
    """Four argsorts of the 224 x 224 float16 pixels of a map and one labelling, per map, in this process."""
    maps = [_map(number).astype(np.float16) for number in range(1, 40, 2)]
    masks = [saliency >= np.quantile(saliency.astype(np.float32), 0.9) for saliency in maps]
    structure = np.ones((3, 3))
    sort = seconds(lambda: [np.argsort(saliency, axis=None) for saliency in maps]) / len(maps)
    label = seconds(lambda: [ndimage.label(mask, structure) for mask in masks]) / len(maps)
    return 4 * sort + label, f"one argsort {sort * 1e3:.2f} ms, one labelling {label * 1e3:.2f} ms"


def _write(folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for number in range(count):
        sides, corner = rng.uniform(60, 200, 2), rng.uniform(0, 200, 2)
        box = np.concatenate([corner, corner + sides]).tolist()
        finding, lvlm = f"finding {number % 11}", f"lvlm_{number % 4}"
        rows.append(make_row(number, width=512, height=400, boxes=[box], finding=finding, lvlm=lvlm))
    benchmark = write_benchmark(folder / "benchmark", {"direct": rows}, name="speed", version="1")
    with SubmissionWriter(folder / "submission", METHOD, benchmark, submitters=["tests"]) as writer:
        for number, sample in enumerate(benchmark.samples):
            writer.add(Attribution(sample.sample_id, saliency=_map(number).astype(np.float16)))


def _map(number: int) -> np.ndarray:
    """Even: 16 x 16 noise; odd: a smooth 224 x 224 map."""
    rng = np.random.default_rng(number)
    if number % 2 == 0:
        return rng.random((16, 16))
    return np.kron(rng.random((28, 28)), np.ones((8, 8))) + 0.1 * rng.random((224, 224))
