"""Workers and the GPUs of a machine, which this one need not have."""

from __future__ import annotations

import pytest

from medfocus_bench.engine import choose
from medfocus_bench.engine.choose import open_engine
from medfocus_bench.errors import InputError


@pytest.fixture
def _four_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    monkeypatch.setattr(choose, "best_device", lambda: "cuda")


@pytest.mark.usefixtures("_four_gpus")
@pytest.mark.parametrize(
    ("device", "workers", "gpus"),
    [
        ("cuda", 2, ["0", "1"]),
        ("auto", 2, ["0", "1"]),
        ("cuda", 6, ["0", "1", "2", "3", "0", "1"]),
        ("auto-map", 2, ["0,2", "1,3"]),
        ("cuda:1", 2, [None, None]),
        ("cpu", 2, [None, None]),
        ("cuda", 1, [None]),
    ],
)
def test_local_workers_see_a_gpu_each_or_several_where_an_lvlm_is_spread(device, workers, gpus):
    engine = open_engine("local", workers, device=device)
    assert [slot.gpu for slot in engine._slots] == gpus


@pytest.mark.usefixtures("_four_gpus")
def test_too_few_gpus_to_spread_an_lvlm_for_each_worker_is_an_error():
    with pytest.raises(InputError, match="4 are too few for --workers 5; give fewer workers"):
        open_engine("local", 5, device="auto-map")


def test_the_best_device_of_a_machine_without_gpus_shares_out_nothing(monkeypatch):
    monkeypatch.setattr(choose, "best_device", lambda: "cpu")
    assert [slot.gpu for slot in open_engine("local", 2, device="auto")._slots] == [None, None]
