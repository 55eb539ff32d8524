"""The paper's tables through worker processes: the same numbers as in one process."""

from __future__ import annotations

import pytest

from medfocus_bench.engine.choose import open_engine
from medfocus_bench.paper import ablate as ablating
from medfocus_bench.paper.ablate import ablate
from medfocus_bench.paper.reproduce import reproduce
from medfocus_bench.runs.records import read_records

from .conftest import RESAMPLES, few_variants, refuse_models

METHODS = ("grad-cam", "prompting")


@pytest.fixture(scope="module")
def two_workers():
    with open_engine("local", 2) as engine:
        yield engine


def of_run(folder):
    """The maps or boxes of a run, by sample, without what they cost."""
    return {
        found.sample_id: (
            None if found.saliency is None else found.saliency.tobytes(),
            None if found.boxes is None else found.boxes.tolist(),
        )
        for found in read_records([folder])
    }


def test_a_table_is_the_same_in_one_process_and_with_two_workers(config_for, tmp_path, two_workers):
    documents = {}
    for name, engine in (("workers", {"engine": two_workers}), ("one", {})):
        config = config_for(out=tmp_path / name, runs=tmp_path / name / "runs", methods=METHODS, **engine)
        with pytest.MonkeyPatch.context() as patch:
            if engine:
                refuse_models(patch)  # in this process
            documents[name] = reproduce("table1", config)
    assert documents["one"] == documents["workers"]
    for file in ("table1.md", "table1.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "workers" / file).read_bytes()
    for method in METHODS:
        one, workers = (of_run(tmp_path / name / "runs" / method) for name in ("one", "workers"))
        assert len(one) == 5
        assert one == workers


def test_an_ablation_is_the_same_in_one_process_and_with_two_workers(
    grouped_bench, tmp_path, two_workers, monkeypatch
):
    monkeypatch.setattr(ablating, "variants", lambda *given: few_variants()[:2])
    made = {}
    for name, engine in (("workers", two_workers), ("one", None)):
        made[name], outcomes = ablate(
            grouped_bench,
            tmp_path / name,
            splits="dev",
            lvlms="phantom_qwen",
            resamples=RESAMPLES,
            engine=engine,
        )
        assert sum(outcome.new for outcome in outcomes) == 2
    assert made["one"] == made["workers"]
