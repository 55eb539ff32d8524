"""Every method on an LVLM whose blocks lie on two devices.

A test runs it: `python -m tests.lvlm.on_two_devices`. The tensors are fakes: they have shapes, types and
devices, and no numbers; an operation whose arguments lie apart is an error, as on GPUs. The first device is
registered as one of a kind that torch does not know; the second is the CPU, since the way back takes one of
each kind alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from medfocus_bench.lvlm import adapter
from medfocus_bench.lvlm.registry import load_lvlm
from medfocus_bench.medfocus.interventions import measure
from tests.lvlm.test_devices import IMAGE, METHODS, QUESTION, REGION

FIRST, SECOND = "fakegpu:0", "cpu"
ON_SECOND = ("language_model.layers.2", "language_model.layers.3", "language_model.norm", "lm_head")


def place(name: str) -> str:
    """As `device_map="auto"` does it: the first blocks, with the embeddings, on one, the rest elsewhere."""
    return SECOND if any(part in name for part in ON_SECOND) else FIRST


def sent(value: Any, device: str) -> Any:
    """Arguments on a device, as accelerate sends them to that of a block."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, tuple | list):
        return type(value)(sent(one, device) for one in value)
    return {name: sent(one, device) for name, one in value.items()} if isinstance(value, dict) else value


def spread(model: Any) -> None:
    """Put fakes of the weights of a model on both devices."""
    for name, module in model.named_modules():
        device = place(name)
        for key, weight in list(module.named_parameters(recurse=False)):
            fake = torch.empty_like(weight, device=device)
            module._parameters[key] = torch.nn.Parameter(fake, requires_grad=False)
        for key, buffer in list(module.named_buffers(recurse=False)):
            module._buffers[key] = torch.empty_like(buffer, device=device)
        if name.rpartition(".")[0].endswith("layers") or name.endswith(("norm", "lm_head")):
            module.register_forward_pre_hook(
                lambda module, args, named, device=device: (sent(args, device), sent(named, device)),
                with_kwargs=True,
            )


@contextmanager
def numbers_of_fakes() -> Iterator[None]:
    """Lets code read ones off tensors that have no numbers; by numpy on the CPU alone."""

    def numpy(tensor: torch.Tensor) -> Any:
        assert tensor.device.type == "cpu", "numpy reads the CPU alone"
        return np.ones(tuple(tensor.shape), dtype=str(tensor.dtype).removeprefix("torch."))

    readers = {
        "numpy": numpy,
        "tolist": lambda tensor: np.ones(tuple(tensor.shape)).tolist(),
        "item": lambda tensor: tensor.dtype is torch.bool or 1,
        "__bool__": lambda tensor: True,
        "__int__": lambda tensor: 1,
        "__float__": lambda tensor: 1.0,
    }
    with mock.patch.multiple(torch.Tensor, **readers), mock.patch.object(adapter, "check_finite"):
        yield


def main() -> None:
    _setup_privateuseone_for_python_backend("fakegpu")
    lvlm = load_lvlm("phantom_gemma")
    real = lvlm.encode(IMAGE, QUESTION, "Yes.")
    with FakeTensorMode(allow_non_fake_inputs=True), numbers_of_fakes():
        spread(lvlm.model)
        lvlm.head.weight = lvlm.model.get_output_embeddings().weight
        assert (lvlm.device.type, lvlm.head.weight.device.type) == ("fakegpu", "cpu")
        tensors = {
            one.name: torch.empty_like(getattr(real, one.name), device=FIRST)
            for one in fields(real)
            if isinstance(getattr(real, one.name), torch.Tensor)
        }
        example = replace(real, **tensors)
        with mock.patch.object(lvlm, "encode", return_value=example):
            for method in METHODS:
                if method.name == "rise":  # picks values by a mask, whose count a fake does not know
                    assert lvlm.scores(example, example.pixel_values[None]).device == lvlm.device
                else:
                    method.explain(lvlm, example, target="response", seed=0)
                print(method.name)
        measure(lvlm, example, [REGION], fill="blur", n_permutations=1)
        print("interventions")


if __name__ == "__main__":
    main()
