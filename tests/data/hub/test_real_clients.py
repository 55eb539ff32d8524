"""The dataset as people use it, without a line of this package: datasets, torch, pandas, DuckDB."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pytest
from datasets import load_dataset

from medfocus_bench.data.columns import SCHEMA
from medfocus_bench.data.hub.repository import DATASET, published_configs

from .conftest import environment, publish
from .embedded import SAMPLES, SPLITS

ALONE = Path(__file__).with_name("alone.py")


def test_a_program_that_knows_only_datasets_loads_it_with_decoded_images(hub, embedded, tmp_path):
    """The program, and then the Python of the card as it stands there."""
    publish(hub, embedded)
    card = re.findall(r"```python\n(.*?)```", (embedded / "README.md").read_text(), re.DOTALL)
    program = tmp_path / "alone.py"
    program.write_text("\n".join([ALONE.read_text(), *card, "print('samples', len(samples))"]))
    run = subprocess.run(
        [sys.executable, "-I", str(program), "imagenome"],
        env=environment(hub, tmp_path / "home"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout == f"loaded 1056\nsamples {SAMPLES['direct'].total()}\n", run.stderr[-3000:]


@pytest.fixture
def dev(embedded, hf_home):
    return load_dataset(str(embedded), split="dev")


def test_torch_format(dev):
    torch = pytest.importorskip("torch")
    row = dev.with_format("torch")[0]
    assert row["image"].shape == (1, 224, 224)
    assert row["image"].dtype == torch.uint8
    assert row["boxes"].shape == (1, 4)
    assert row["group"].item() == 2


def test_to_pandas(dev):
    frame = dev.remove_columns("image").to_pandas()
    assert len(frame) == 528
    assert frame["group"].value_counts()[2] == SAMPLES["dev"].total()
    assert frame["log_odds_original"].dtype == np.float32
    assert frame["image_ref"].isna().all()


def test_several_shards_are_read_by_several_workers(embedded, hf_home):
    streamed = load_dataset(str(embedded), split="direct", streaming=True)
    assert streamed.num_shards == 2
    halves = [
        {row["sample_id"] for row in streamed.shard(2, index).remove_columns("image")} for index in range(2)
    ]
    assert len(halves[0] | halves[1]) == 1056
    assert not halves[0] & halves[1]


def test_duckdb_reads_the_files(embedded):
    files = f"{embedded}/phantom/direct-*.parquet"
    query = f"""SELECT lvlm, count(*) AS samples, avg(boxes[1][3] - boxes[1][1]) AS width
                FROM '{files}' WHERE "group" = 2 GROUP BY lvlm ORDER BY lvlm"""
    rows = duckdb.sql(query).fetchall()
    assert [row[0] for row in rows] == [
        "phantom_gemma",
        "phantom_gemma_twin",
        "phantom_qwen",
        "phantom_qwen_twin",
    ]
    assert sum(row[1] for row in rows) == SAMPLES["direct"].total()
    assert all(row[2] > 0 for row in rows)


def test_duckdb_finds_the_types_of_columns_of_nulls(embedded):
    types = {}
    for config in ("phantom", "imagenome"):
        described = duckdb.sql(f"DESCRIBE SELECT * FROM '{embedded}/{config}/*.parquet'").fetchall()
        types[config] = {row[0]: row[1] for row in described}
    assert types["imagenome"] == types["phantom"]
    assert types["imagenome"]["boxes"] == "DOUBLE[][]"
    assert types["imagenome"]["log_odds_sham"] == "FLOAT"
    (both,) = duckdb.sql(f"SELECT count(*), count(boxes) FROM '{embedded}/*/direct-*.parquet'").fetchall()
    assert both == (1056 + 3 * 5, 1056)


def test_the_card_names_the_dataset_that_it_is_of(embedded):
    text = (embedded / "README.md").read_text()
    assert f'load_dataset("{DATASET}", split="direct")' in text
    for name in SCHEMA.names:
        assert f"| `{name}` |" in text
    assert f"| `phantom` | `direct` | 1,056 | {SAMPLES['direct'].total():,} | here | MIT |" in text
    (of_gemma,) = (line for line in text.splitlines() if line.startswith("| `phantom_gemma` |"))
    counts = re.findall(r"(\d+) of 264 \([\d.]+%; coin [\d.]+%\)|(\d+) of 132 \(", of_gemma)
    assert [int(test or dev) for test, dev in counts] == [
        SAMPLES[split]["phantom_gemma"] for split in SPLITS
    ]  # trap 34: models are never pooled silently
    for config in published_configs().values():
        assert config.is_open or config.link in text
