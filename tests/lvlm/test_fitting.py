"""A batch changes nothing of a result, and one that does not fit is halved until it does."""

from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from medfocus_bench.attribution.integrated_gradients import IntegratedGradients
from medfocus_bench.attribution.perturbation import RISE, Occlusion
from medfocus_bench.data.questions import prompt
from medfocus_bench.errors import InputError
from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
from medfocus_bench.lvlm.fitting import OutOfMemoryError, fitting, halving, is_out_of_memory
from medfocus_bench.medfocus.interventions import ConceptRegion, measure
from medfocus_bench.phantom.render import Patient, render
from tests.lvlm.conftest import EVERY_FAMILY

QUESTION = prompt("nodule", "direct")
IMAGE = render(Patient.sample((21, 0))).image
CUDA = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has a total capacity of 23.64 GiB"
)
MPS = RuntimeError("MPS backend out of memory (MPS allocated: 17.77 GB, max allowed: 18.13 GB).")


def _allocators_error():
    try:
        torch.empty(2**60, dtype=torch.uint8)
    except RuntimeError as error:
        return error
    raise AssertionError("an exbibyte of memory")


def _saliency(method):
    return lambda lvlm, example: method.explain(lvlm, example, target="response", seed=3).saliency


def _interventions(lvlm, example):
    boxes = ([10.0, 20.0, 90.0, 110.0], [100.0, 40.0, 200.0, 180.0])
    regions = [ConceptRegion(f"{n}", np.array([box]), ()) for n, box in enumerate(boxes)]
    found = measure(lvlm, example, regions, fill="mean", n_permutations=8, seed=1)
    return np.concatenate([found.original[None], found.effects.drops, found.null.drops])


OF_SEVERAL = {
    "occlusion": _saliency(Occlusion(cells=4)),
    "rise": _saliency(RISE(masks=17)),
    "integrated-gradients": _saliency(IntegratedGradients(steps=17, baseline="mean")),
    "interventions": _interventions,
}
"""All that goes through several pictures: 17 or 18 of them, so that a batch of 16 is not one of all."""


@pytest.mark.parametrize("family", EVERY_FAMILY)
@pytest.mark.parametrize("name", OF_SEVERAL)
def test_a_result_does_not_depend_on_the_batch(open_lvlm, monkeypatch, family, name):
    lvlm = open_lvlm(family)
    example = lvlm.encode(IMAGE, QUESTION, "Yes.")
    found = {}
    for pictures in (1, 3, 16):
        monkeypatch.setattr(lvlm, "batch", pictures)
        found[pictures] = OF_SEVERAL[name](lvlm, example)
    one = found[1]
    assert np.abs(one).max() > 0
    for pictures in (3, 16):
        assert np.abs(found[pictures] - one).max() < 1e-5 * max(1.0, np.abs(one).max())


@pytest.mark.parametrize(
    "error",
    [
        CUDA,
        MPS,
        RuntimeError("Invalid buffer size: 21.08 GB"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:80] DefaultCPUAllocator: not enough memory: you tried"),
        MemoryError(),
        _allocators_error(),
    ],
    ids=lambda error: str(error)[:30],
)
def test_every_device_says_in_its_own_words_that_memory_ran_out(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error", [RuntimeError("expected scalar type Half"), ValueError("out of memory"), InputError("a")]
)
def test_other_errors_are_not_taken_for_it(error):
    assert not is_out_of_memory(error)


@dataclass
class Small:
    """A device that holds so many pictures at a time; it keeps note of what was tried."""

    lvlm: HuggingFaceLVLM
    holds: int
    error: Exception = CUDA

    def __post_init__(self):
        self.tried = []

    def __call__(self):
        self.tried.append(self.lvlm.batch)
        if self.lvlm.batch > self.holds:
            raise self.error
        return self.lvlm.batch


@pytest.fixture
def lvlm(checkpoint):
    """A new one: what fitted into memory is kept for each."""
    return HuggingFaceLVLM("qwen", checkpoint("phantom_qwen"), batch=16)


@pytest.mark.parametrize("error", [CUDA, MPS, _allocators_error()], ids=["cuda", "mps", "cpu"])
def test_a_batch_is_halved_until_it_fits_and_the_number_is_kept_for_the_method(lvlm, error):
    small = Small(lvlm, 5, error)
    assert fitting(lvlm, "rise", small) == 4
    assert fitting(lvlm, "rise", small) == 4
    assert small.tried == [16, 8, 4, 4]
    assert lvlm.batch == 16
    other = Small(lvlm, 8)
    assert fitting(lvlm, "occlusion", other) == 8
    assert other.tried == [16, 8]


def test_a_smaller_batch_that_is_asked_for_is_kept_to_and_says_nothing_of_a_larger_one(lvlm):
    small = Small(lvlm, 20)
    for batch in (3, 16):
        lvlm.batch = batch
        assert fitting(lvlm, "rise", small) == batch


def test_a_single_picture_that_does_not_fit_is_a_sentence_with_the_figures_and_is_tried_once_more(lvlm):
    small = Small(lvlm, 0)
    for _ in range(2):
        with pytest.raises(OutOfMemoryError) as caught:
            fitting(lvlm, "rise", small)
        assert str(caught.value) == (
            "rise does not fit into the memory of cpu, one picture at a time (CUDA out of memory. Tried to "
            "allocate 2.00 GiB. GPU 0 has a total capacity of 23.64 GiB): try --dtype bfloat16, --quantise "
            "4bit, or several GPUs (--device auto-map)"
        )
    assert isinstance(caught.value, InputError)
    assert small.tried == [16, 8, 4, 2, 1, 1]
    assert lvlm.batch == 16


def test_another_error_is_raised_as_it_is(lvlm):
    small = Small(lvlm, 0, RuntimeError("the power is gone"))
    with pytest.raises(RuntimeError, match="the power is gone"):
        fitting(lvlm, "rise", small)
    assert (small.tried, lvlm.batch) == ([16], 16)


@pytest.fixture
def _no_collector():
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("name", OF_SEVERAL)
def test_tensors_of_a_batch_that_did_not_fit_are_gone_before_half_of_it_is_tried(lvlm, name):
    """An error's traceback would keep them, and the second attempt had less memory than the first."""
    held = []

    def block(module, args, output):
        states = output[0] if isinstance(output, tuple) else output
        assert not any(tensor() is not None for tensor in held)
        if len(states) > 4:
            held.append(weakref.ref(states))
            raise torch.OutOfMemoryError("CUDA out of memory")

    example = lvlm.encode(IMAGE, QUESTION, "Yes.")
    with lvlm.decoder.layers[1].register_forward_hook(block):
        fitting(lvlm, name, lambda: OF_SEVERAL[name](lvlm, example))
    assert len(held) == 2


def test_only_a_device_with_a_reserve_is_asked_for_it(monkeypatch):
    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append("cuda"))

    @dataclass
    class On:
        device: torch.device

    def make(pictures):
        if pictures > 2:
            raise CUDA
        return pictures

    assert halving(On(torch.device("cuda:1")), "a", 8, make) == (2, 2)
    assert halving(On(torch.device("cpu")), "a", 8, make) == (2, 2)
    assert halving(object(), "a", 8, make) == (2, 2)
    assert emptied == ["cuda", "cuda"]
