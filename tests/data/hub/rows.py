"""Rows of open and of licensed sources, and folders of them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from medfocus_bench.data.columns import IMAGES, SCHEMA
from medfocus_bench.data.hub.repository import DATASET
from medfocus_bench.data.writing import write_benchmark

SIDE = 32


def picture(seed: int) -> bytes:
    file = io.BytesIO()
    grey = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
    Image.fromarray(grey).save(file, "PNG")
    return file.getvalue()


def open_row(index: int, mode: str = "direct", lvlm: str = "phantom_qwen", **more: Any) -> dict[str, Any]:
    """A complete row of the phantom track, small."""
    return {
        "sample_id": f"phantom-{index:05d}-{lvlm}-{mode}",
        "source": "phantom",
        "index": index,
        "patient_id": f"p{index}",
        "image": {"bytes": picture(index), "path": f"{index}.png"},
        "width": SIDE,
        "height": SIDE,
        "finding": "nodule",
        "question": "Is there evidence of nodule in the image?",
        "answer": "Yes",
        "lvlm": lvlm,
        "mode": mode,
        "response": "Yes.",
        "boxes": [[4.0, 5.0, 20.0, 21.5]],
        "evidence": "lesion",
        "group": ("grounded", "incorrect", "grounded")[index % 3],
        **{f"answer_{name}": "Yes." for name in IMAGES},
        **{f"log_odds_{name}": 1.5 for name in (*IMAGES, "sham")},
        "anatomy": [{"concept": "left lung", "box": [1.0, 2.0, 9.0, 9.0]}],
    } | more


def pointer_row(source: str, index: int, mode: str = "direct", **more: Any) -> dict[str, Any]:
    """A row as the published records of the paper give it: no pixels, no boxes, little else."""
    return {
        "sample_id": f"{source}-{index:05d}-gemma3_4b-{mode}",
        "source": source,
        "index": index,
        "answer": "Yes",
        "lvlm": "gemma3_4b",
        "mode": mode,
        "group": "grounded",
        "answer_original": "Yes",
        "answer_foreground": "No",
    } | more


def small_splits(rows: int = 6) -> dict[str, list[dict[str, Any]]]:
    return {
        "direct": [open_row(index) for index in range(rows)],
        "reasoning": [open_row(index, "reasoning") for index in range(rows)],
        "dev": [open_row(index) for index in range(rows, rows + 2)],
    }


def write_small(folder: Path, version: str = "1.0.0", rows: int = 6) -> Path:
    """A small open benchmark under the name of the published one."""
    write_benchmark(folder, small_splits(rows), name=DATASET, version=version)
    return folder


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema | None = SCHEMA) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path)
    return path


def write_pointers(
    folder: Path,
    sources: Sequence[str] = ("imagenome", "vindr_cxr", "padchest_gr"),
    modes: Sequence[str] = ("direct", "reasoning"),
) -> Path:
    """Pointers of licensed sources, as the import of published records writes them."""
    for source in sources:
        for mode in modes:
            rows = [pointer_row(source, index, mode) for index in range(5)]
            write_rows(folder / source / f"{mode}.parquet", rows)
    return folder
