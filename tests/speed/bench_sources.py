"""Annotation tables of 100,000 rows: seconds and memory of each, in a process of its own.

Seconds are those of the processor: reading is one thread, so they are the wall clock of an idle machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.data import source_trees as trees
from tests.speed.figures import Figure
from tests.speed.machine import Rates

ROWS = 100_000

_PROGRAM = """
import json, re, sys, time
from pathlib import Path
from medfocus_bench.data.sources import open_source
start = time.process_time()
found = open_source(sys.argv[1]).annotations(Path(sys.argv[2]))
elapsed = time.process_time() - start
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
print(json.dumps([elapsed, peak, found.found, len(found.skips)]))
"""


def run(rates: Rates) -> Iterator[Figure]:
    for name, write in _WRITERS.items():
        with tempfile.TemporaryDirectory() as folder:
            path = write(Path(folder))
            size = path.stat().st_size
            done = subprocess.run(
                [sys.executable, "-c", _PROGRAM, name, folder],
                check=True,
                capture_output=True,
                text=True,
                cwd=Path(__file__).parents[2],
            )
        elapsed, peak, found, skips = json.loads(done.stdout)
        detail = f"{ROWS:,} rows, {size / 2**20:.0f} MiB, {found:,} questions, {skips} skips"
        limit = rates.of_bytes(elapsed, size, "table, read once")
        yield Figure(f"{name}, time", elapsed, "s", detail, "< 5 s", elapsed < 5, limit)
        yield Figure(f"{name}, memory", peak, "MB", "", "< 500 MB", peak < 500)


def _imagenome(root: Path) -> Path:
    some = trees.imagenome_rows()
    rows = [
        some[number % len(some)]
        | {"study_id": 50_000_000 + number // 3, "image_id": f"{number // 3:08x}-{number // 3:08x}.dcm"}
        for number in range(ROWS)
    ]
    header = trees.IMAGENOME_HEADER
    return trees.write_rows(root / trees.IMAGENOME_TABLE, header, rows, delimiter="\t")


def _vindr(root: Path) -> Path:
    rows = [
        {
            "image_id": f"{number // 2 * 2654435761 % 2**64:032x}",
            "class_name": f"class {number % 22}",
            **trees.corners((number % 900 + 0.25, 20, number % 900 + 300.5, 400)),
        }
        for number in range(ROWS)
    ]
    return trees.write_rows(root / trees.VINDR_TABLE, tuple(rows[0]), rows)


def _padchest(root: Path) -> Path:
    """2,000 studies with fifty findings each."""
    finding = trees.padchest_finding(["nodule"], [[0.1, 0.2, 0.3, 0.4]])
    studies = [
        {"StudyID": str(number), "ImageID": trees.padchest_image(number), "findings": [finding] * 50}
        for number in range(ROWS // 50)
    ]
    return trees.write_padchest(root, studies, pictures=False)


def _nih(root: Path) -> Path:
    path = root / trees.NIH_TABLE
    path.parent.mkdir()
    lines = [f"{number:08d}_000.png,Mass,{number % 500},10.5,100.25,99" for number in range(ROWS)]
    path.write_text("\n".join([trees.NIH_HEADER, *lines]) + "\n")
    return path


_WRITERS: dict[str, Callable[[Path], Path]] = {
    "imagenome": _imagenome,
    "vindr_cxr": _vindr,
    "padchest_gr": _padchest,
    "nih": _nih,
}
