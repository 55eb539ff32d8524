"""Products in half precision on a CPU without instructions for them: as exact, and without copies kept."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from medfocus_bench.lvlm import half_products as module
from medfocus_bench.lvlm.half_products import float_slices, half_products
from tests.lvlm.conftest import picture

HALVES = [torch.bfloat16, torch.float16]


class Model:
    def __init__(self, dtype, kind="cpu"):
        self.dtype, self.device = dtype, torch.device(kind)


@pytest.fixture
def slow(monkeypatch):
    """As on a CPU that has no such instructions, whatever this one has."""
    monkeypatch.setattr(module, "_native", lambda dtype: dtype == torch.float32)
    monkeypatch.setattr(module, "SLICE", 24)


def products(given, other, weight, bias):
    """Each kind of product of `given` (2, 3, 8): with weights (5, 8), another, itself, and a convolution."""
    four = given.reshape(1, 2, 3, 8)
    kernel = weight.reshape(5, 2, 2, 2)
    return (
        functional.linear(given, weight, bias),
        given @ other.mT,
        torch.matmul(given, weight.T),
        functional.scaled_dot_product_attention(four, four, four, attn_mask=(four[..., :3] * 0 + 1)),
        functional.conv2d(given.reshape(1, 2, 3, 8), kernel, bias),
    )


@pytest.mark.parametrize("dtype", HALVES)
def test_values_and_gradients_are_those_of_float32_rounded_once(slow, dtype):
    torch.manual_seed(0)
    half = [torch.randn(shape).to(dtype) for shape in ((2, 3, 8), (2, 3, 8), (5, 8), (5,))]
    wide = [each.float() for each in half]
    for leaves in (half, wide):
        for leaf in leaves[:2]:
            leaf.requires_grad_()
    with half_products(Model(dtype)):
        found = products(*half)
    for ours, exact in zip(found, products(*wide), strict=True):
        assert ours.dtype == dtype
        assert torch.equal(ours, exact.to(dtype)) or torch.allclose(ours.float(), exact, rtol=1e-2, atol=1e-3)
        slopes = torch.randn(exact.shape).to(dtype)
        for mine, theirs in zip(
            torch.autograd.grad(ours, half[:2], slopes, allow_unused=True),
            torch.autograd.grad(exact, wide[:2], slopes.float(), allow_unused=True),
            strict=True,
        ):
            assert (mine is None) == (theirs is None)
            if mine is not None:
                assert mine.dtype == dtype
                assert torch.allclose(mine.float(), theirs, rtol=2e-2, atol=5e-2)


def test_a_graph_holds_weights_and_states_as_they_are(slow):
    """A copy of each matrix in float32 would be twice the model."""
    given = torch.randn(3, 8, dtype=torch.bfloat16, requires_grad=True)
    weight = torch.randn(5, 8, dtype=torch.bfloat16)
    held = []
    with (
        torch.autograd.graph.saved_tensors_hooks(lambda kept: held.append(kept) or kept, lambda kept: kept),
        half_products(Model(torch.bfloat16)),
    ):
        functional.linear(given, weight) @ functional.linear(given, weight).mT
    assert held
    assert {each.dtype for each in held} == {torch.bfloat16}
    assert any(each.data_ptr() == weight.data_ptr() for each in held)


def test_float32_and_other_devices_are_left_alone(slow):
    weight = torch.randn(4, 8)
    for model in (Model(torch.float32), Model(torch.bfloat16, "cuda")):
        with half_products(model) as within:
            assert within is None
    with half_products(Model(torch.bfloat16)):
        assert torch.equal(functional.linear(weight, weight), weight @ weight.T)


def test_slices_are_all_of_the_matrix_and_copies_are_small(monkeypatch):
    monkeypatch.setattr(module, "SLICE", 24)
    weight = torch.randn(10, 8)
    for given, most in ((weight, 4), (weight.bfloat16(), 3)):
        parts = list(float_slices(given, 4))
        assert torch.equal(torch.cat([values for _, values in parts]), given.float())
        assert max(len(values) for _, values in parts) == most
    (_, whole), *none = float_slices(weight)
    assert whole.data_ptr() == weight.data_ptr()
    assert not none


@pytest.mark.parametrize("key", ["phantom_qwen", "phantom_gemma"])
def test_a_model_scores_and_explains_as_it_does_in_float32(open_lvlm, key, monkeypatch):
    """To what bfloat16 rounds: with and without, the same distance from float32."""
    exact = open_lvlm(key)
    lvlm = open_lvlm(key, dtype="bfloat16")
    example = exact.encode(picture(3), "Is there evidence of mass in the image?", "Yes.")
    pixels = example.pixel_values[None]
    expected, expected_slope = exact.pixel_gradients(example, pixels)
    for native in (True, False):
        monkeypatch.setattr(module, "_native", lambda dtype, native=native: native)
        value, slope = lvlm.pixel_gradients(example, pixels)
        assert abs(float(value - expected)) < 0.1 * max(1.0, abs(float(expected)))
        assert functional.cosine_similarity(slope.flatten(), expected_slope.flatten(), dim=0) > 0.95
