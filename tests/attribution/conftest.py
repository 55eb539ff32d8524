"""A few verified samples of the phantom track, with the models that they are of."""

from __future__ import annotations

from functools import lru_cache

import pytest

from medfocus_bench.data.questions import prompt
from medfocus_bench.data.resolve import load_benchmark
from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
from medfocus_bench.lvlm.registry import load_lvlm, shipped_lvlms
from medfocus_bench.phantom.render import Patient, render


@lru_cache
def shipped(key):
    return load_lvlm(key)


def private(key, **options):
    """A shipped LVLM that no other test has, to be changed."""
    return HuggingFaceLVLM(key, shipped_lvlms()[key], **options)


@lru_cache
def phantom():
    return load_benchmark("phantom")


@pytest.fixture(params=["phantom_qwen", "phantom_gemma"])
def lvlm(request):
    return shipped(request.param)


@pytest.fixture
def qwen():
    return shipped("phantom_qwen")


PATIENT = render(Patient.sample((77, 1), findings=["pacemaker"]))
QUESTION = prompt("pacemaker", "direct")


@pytest.fixture
def example(lvlm):
    return lvlm.encode(PATIENT.image, QUESTION, "Yes.")
