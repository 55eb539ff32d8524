"""The memory of a method on a whole model, counted over tensors that have shapes and no numbers.

A pass through a model of 27 billion weights takes seconds so, on any machine. Counted are the bytes
of all floating-point tensors that live at the same time, by the storages that hold them, graph included;
weights are left out. Kernels' own workspace and what an allocator keeps in reserve come on top. Tensors of
integers are real and are computed with, since grids, windows and positions decide shapes.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final
from unittest import mock

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_iter
from transformers import AutoModelForImageTextToText, PreTrainedModel

from medfocus_bench.attribution.registry import load_method
from medfocus_bench.data.questions import prompt
from medfocus_bench.lvlm import adapter, half_products
from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
from medfocus_bench.lvlm.head import OutputHead
from tests.realsize.architectures import ARCHITECTURES
from tests.realsize.extrapolation import Counted
from tests.realsize.one import radiograph

_SLICE: Final = 2**22
"""Larger slices of the vocabulary than the package's: fewer steps to count, for 12 MB more."""


class Counter(FakeTensorMode):
    """Fakes for all that is not whole numbers, and how many bytes of them live and have lived at once."""

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self.live: dict[int, int] = {}
        self.now = self.most = self.depth = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [each for each in tree_iter((args, kwargs)) if isinstance(each, torch.Tensor)]
        real = not any(isinstance(each, FakeTensor) for each in given)
        whole = all(not each.is_floating_point() for each in given)
        if real and whole and (given or _makes_integers(func, kwargs)):
            made = func(*args, **kwargs)
            if not any(one.is_floating_point() for one in tree_iter(made) if isinstance(one, torch.Tensor)):
                return made
        self.depth += 1
        try:
            made = super().__torch_dispatch__(func, types, args, kwargs)
        finally:
            self.depth -= 1
        # A fake's shape may be found by an operation's steps; its kernel has none of what these make.
        for one in tree_iter(made) if self.depth == 0 else ():
            if isinstance(one, FakeTensor):
                self._hold(one.untyped_storage())
        return made

    def _hold(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self.live:
            self.live[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self.now -= self.live.pop(key)


def _makes_integers(func: Any, kwargs: dict[str, Any]) -> bool:
    """Whether a tensor made of nothing may be one of integers; if it is not, it is made anew as a fake."""
    dtype = kwargs.get("dtype")
    return "arange" in str(func) if dtype is None else not dtype.is_floating_point


@contextmanager
def numbers_of_fakes() -> Iterator[None]:
    """Lets code read ones off tensors that have no numbers, and believe that they are finite."""
    plain = {
        name: getattr(torch.Tensor, name) for name in ("numpy", "tolist", "item", "__bool__", "__float__")
    }

    def reader(name: str, made: Any) -> Any:
        def read(tensor: torch.Tensor, *args: Any) -> Any:
            return made(tensor) if isinstance(tensor, FakeTensor) else plain[name](tensor, *args)

        return read

    readers = {
        "numpy": lambda tensor: np.ones(tuple(tensor.shape)),
        "tolist": lambda tensor: np.ones(tuple(tensor.shape)).tolist(),
        "item": lambda tensor: 1,
        "__bool__": lambda tensor: True,
        "__float__": lambda tensor: 1.0,
    }
    patched = {name: reader(name, made) for name, made in readers.items()}
    tensor = torch.tensor

    def real_tensor(*args: Any, **kwargs: Any) -> torch.Tensor:
        with _disable_current_modes():
            made = tensor(*args, **kwargs)
        return torch.empty_like(made) if made.is_floating_point() else made

    with (
        mock.patch.multiple(torch.Tensor, **patched),
        mock.patch.object(torch, "tensor", real_tensor),
        mock.patch.object(adapter, "check_finite"),
    ):
        yield


@contextmanager
def counting(
    like: HuggingFaceLVLM, name: str, blocks: int, vision_blocks: int, *, native: bool
) -> Iterator[tuple[Counter, HuggingFaceLVLM]]:
    """An LVLM of an architecture at these depths whose weights have no numbers, else `like` another.

    `native`: on a device that multiplies in bfloat16, as GPUs do, and not by way of float32.
    """
    config = ARCHITECTURES[name].config(blocks, vision_blocks)
    counter = Counter()
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(half_products, "_native", return_value=native))
        stack.enter_context(mock.patch.object(half_products, "SLICE", _SLICE))
        stack.enter_context(mock.patch.object(PreTrainedModel, "initialize_weights"))
        stack.enter_context(counter)
        stack.enter_context(numbers_of_fakes())
        torch.set_default_dtype(torch.bfloat16)
        try:
            model = AutoModelForImageTextToText.from_config(config, attn_implementation="sdpa")
        finally:
            torch.set_default_dtype(torch.float32)
        model = model.eval().requires_grad_(False)
        lvlm = object.__new__(HuggingFaceLVLM)
        vars(lvlm).update(vars(like) | {"model": model, "decoder": like.family.decoder(model)})
        like.family.prepare(model)
        lvlm.head = OutputHead(model.get_output_embeddings(), None)
        yield counter, lvlm


def counted(
    like: str,
    folder: Path,
    tasks: Sequence[dict[str, Any]],
    name: str,
    blocks: int,
    vision_blocks: int,
    *,
    native: bool,
) -> Iterator[Counted]:
    """The tensors of methods on a model of these depths; the one in `folder`, `like`, has its processor."""
    lvlm = HuggingFaceLVLM(like, folder, framing="native", dtype="bfloat16", batch=1)
    example = lvlm.encode(radiograph(), prompt("mass", "direct"), "Yes.", finding="mass")
    with counting(lvlm, name, blocks, vision_blocks, native=native) as (counter, fake):
        weights = sum(weight.nbytes for weight in fake.model.parameters()) / 2**30
        for task in tasks:
            method = load_method(task["method"], **task["settings"])
            yield Counted(
                name, task["label"], blocks, vision_blocks, weights, held(counter, fake, example, method)
            )


def held(counter: Counter, lvlm: HuggingFaceLVLM, example: Any, method: Any) -> float:
    """GiB of tensors that live at once while a method explains an example, above those before it."""
    floats = {
        one.name: torch.empty_like(value)
        for one in fields(example)
        if isinstance(value := getattr(example, one.name), torch.Tensor) and value.is_floating_point()
    }
    gc.collect()
    counter.most = before = counter.now
    example = replace(example, **floats)
    with mock.patch.object(lvlm, "encode", return_value=example):
        method.explain(lvlm, example, target="response", seed=0)
    return (counter.most - before) / 2**30
