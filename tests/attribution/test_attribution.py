"""An attribution takes the arrays of other libraries, or says what is wrong with which sample's."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from medfocus_bench.attribution.attribution import Attribution

VALUES = np.arange(6.0).reshape(2, 3)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn]
)
def test_a_tensor_of_any_float_type_is_a_map(dtype):
    saliency = Attribution("a", saliency=torch.tensor(VALUES).to(dtype)).saliency
    assert isinstance(saliency, np.ndarray)
    assert saliency.dtype == {torch.float64: np.float64, torch.float16: np.float16}.get(dtype, np.float32)
    assert saliency.tolist() == VALUES.tolist()


@pytest.mark.parametrize("lead", [(1,), (1, 1)])
def test_a_tensor_with_a_graph_and_axes_of_length_one_is_a_map(lead):
    leaf = torch.tensor(VALUES, requires_grad=True)
    given = (leaf * 2).reshape(*lead, 2, 3)
    assert Attribution("a", saliency=given).saliency.tolist() == (2 * VALUES).tolist()
    assert Attribution("a", saliency=VALUES.reshape(*lead, 2, 3)).saliency.shape == (2, 3)


def test_a_tensor_of_another_device_is_brought_to_the_cpu_first():
    class Elsewhere:
        """As a tensor on a GPU: numpy takes it from the CPU alone."""

        where = "gpu"

        def detach(self):
            return self

        def cpu(self):
            self.where = "cpu"
            return self

        def __array__(self, dtype=None, copy=None):
            if self.where == "gpu":
                raise TypeError("can't convert device type tensor to numpy")
            return VALUES

    assert Attribution("a", saliency=Elsewhere()).saliency.tolist() == VALUES.tolist()


def test_boxes_may_be_a_tensor_too():
    boxes = torch.tensor([[1.0, 2.0, 3.0, 4.0]], dtype=torch.bfloat16, requires_grad=True)
    assert Attribution("a", boxes=boxes).boxes.tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("shape", "way_out"),
    [
        ((3, 4, 5), r"three colours, add them up, \.sum\(-3\)"),
        ((1, 3, 4, 5), r"three colours, add them up, \.sum\(-3\)"),
        ((4, 5, 3), r"three colours, add them up, \.sum\(-1\)"),
        ((2, 4, 5), "each sample has an attribution of its own"),
        ((2, 1, 4, 5), "each sample has an attribution of its own"),
        ((1, 1, 1, 4, 5), "each sample has an attribution of its own"),
        ((5,), "each sample has an attribution of its own"),
        ((), "each sample has an attribution of its own"),
    ],
)
@pytest.mark.parametrize("kind", [np.zeros, torch.zeros])
def test_another_shape_is_an_error_that_names_the_sample_the_shape_and_the_way_out(shape, way_out, kind):
    with pytest.raises(ValueError, match=f"^case-7: a map is 2-D.*{way_out}") as caught:
        Attribution("case-7", saliency=kind(shape))
    assert f"not of shape {shape}:" in str(caught.value)


@pytest.mark.parametrize(
    "given", [(torch.zeros(2, 2, requires_grad=True),), [[1.0], [1.0, 2.0]]], ids=["a tuple", "ragged"]
)
def test_what_makes_no_array_is_an_error_that_names_the_sample(given):
    with pytest.raises(ValueError, match=r"^case-7: a map cannot be made an array of: "):
        Attribution("case-7", saliency=given)


def test_without_torch_an_attribution_is_made_all_the_same():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from medfocus_bench import Attribution; Attribution('a', saliency=[[[1.0, 2.0]]])"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
