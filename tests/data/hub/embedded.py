"""The content of the shipped track, read with pyarrow and json alone."""

from __future__ import annotations

import json
from collections import Counter
from typing import Final

import pyarrow.parquet as pq

from medfocus_bench.phantom import TRACK

VERSION: Final[str] = json.loads((TRACK / "benchmark.json").read_bytes())["version"]

SPLITS: Final = ("direct", "reasoning", "dev")
_ROWS: Final = {
    split: pq.read_table(TRACK / f"{split}.parquet", columns=["lvlm", "group"]).to_pylist()
    for split in SPLITS
}
SAMPLES: Final = {
    split: Counter(row["lvlm"] for row in rows if row["group"] == "grounded") for split, rows in _ROWS.items()
}
"""Grounded rows by split and LVLM."""

TOTAL: Final = sum(of_lvlm.total() for of_lvlm in SAMPLES.values())
