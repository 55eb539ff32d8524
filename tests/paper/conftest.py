"""A small benchmark with rows of every group, and one set of records that the tests of targets share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.data.resolve import load_benchmark
from medfocus_bench.data.writing import write_benchmark
from medfocus_bench.paper.ablate import Variant, variants
from medfocus_bench.paper.config import ReproduceConfig
from medfocus_bench.runs.config import RunConfig

from ..runs.conftest import track_rows

CONTENT = {
    ("direct", "phantom_qwen", "grounded"): 3,
    ("direct", "phantom_qwen", "incorrect"): 2,
    ("direct", "phantom_qwen", "ungrounded"): 1,
    ("direct", "phantom_gemma", "grounded"): 2,
    ("reasoning", "phantom_qwen", "grounded"): 2,
    ("dev", "phantom_qwen", "grounded"): 1,
}
"""Rows by split, LVLM and group."""

RESAMPLES = 50


def rows_of_all_groups() -> dict[str, list[dict]]:
    splits: dict[str, list[dict]] = {}
    for (split, lvlm, group), count in CONTENT.items():
        rows = [row for row in track_rows(split) if (row["lvlm"], row["group"]) == (lvlm, group)]
        splits.setdefault(split, []).extend(rows[:count])
    return splits


@pytest.fixture(scope="session")
def grouped_bench(tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    folder = tmp_path_factory.mktemp("grouped") / "bench"
    write_benchmark(folder, rows_of_all_groups(), name="grouped", version="1")
    return load_benchmark(folder)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records that grow from test to test."""
    return tmp_path_factory.mktemp("records") / "runs"


@pytest.fixture
def config_for(grouped_bench, runs, tmp_path):
    def make(**more) -> ReproduceConfig:
        given = {"benchmark": grouped_bench, "out": tmp_path / "out", "runs": runs, "resamples": RESAMPLES}
        return ReproduceConfig(**{**given, **more})

    return make


def few_variants() -> list[Variant]:
    """A variant of each study but localisation: the atlas takes seconds an image."""
    return [one for one in variants() if one.value in ("default", "mask", "mean", "1", "0.5")]


def refuse_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, loading an LVLM is an error."""

    def refuse(*args: object, **more: object) -> None:
        raise AssertionError("an LVLM was loaded")

    monkeypatch.setattr(RunConfig, "load", refuse)


@pytest.fixture
def no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_models(monkeypatch)


@pytest.fixture
def out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Hub that is not asked, with an empty cache; what was loaded of it before is forgotten."""
    from huggingface_hub import constants

    from medfocus_bench.attribution import vision_models

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    vision_models._once.cache_clear()
    yield
    vision_models._once.cache_clear()
