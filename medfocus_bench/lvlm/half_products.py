"""Matrix products in bfloat16 and float16 on CPUs that have no instructions for them.

There torch multiplies in a plain loop: on such a CPU the way back through a linear map of Qwen2.5-VL ran at
0.2 GFlop/s, against 10 for the way there and 20 to 40 in float32, and took nearly all of the time of every
method that needs a gradient. `half_products` makes them in float32, a slice of the weights at a time, and
rounds the result once. The graph holds what it held before: weights and states as they are, no copies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, Final

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

SLICE: Final = 2**20
"""Weights that are held in float32 at a time: 4 MB, which stay in a core's cache."""


def float_slices(weight: torch.Tensor, rows: int | None = None) -> Iterator[tuple[slice, torch.Tensor]]:
    """The rows of a matrix in float32, at most `rows` at a time, each with where it stands.

    Weights that are float32 are not copied; of others at most `SLICE` are at a time.
    """
    step = len(weight) if rows is None else rows
    if weight.dtype != torch.float32:
        step = min(step, max(1, SLICE // weight.shape[1]))
    for start in range(0, len(weight), step):
        part = slice(start, min(start + step, len(weight)))
        yield part, weight[part].float()


def half_products(model: Any) -> AbstractContextManager[object]:
    """Make a model's products in float32 within the block, where its CPU cannot make them as they are."""
    if model.device.type == "cpu" and not _native(model.dtype):
        return _HalfProducts()
    return nullcontext()


@cache
def _native(dtype: torch.dtype) -> bool:
    """Whether this CPU has instructions for products of a dtype."""
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if dtype == torch.float16:
        return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
    return True


class _HalfProducts(TorchFunctionMode):
    """Sends the products of tensors of half precision on the CPU another way."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        way = _WAYS.get(func)
        if way is None or len(args) < 2 or not (_is_half(args[0]) and _is_half(args[1])):
            return func(*args, **(kwargs or {}))
        return way(*args, **(kwargs or {}))


class _Linear(torch.autograd.Function):
    """x W^T + b with frozen W (out, in) and b (out)."""

    @staticmethod
    def forward(ctx: Any, given: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> Any:
        ctx.save_for_backward(weight)
        wide = given.float()
        made = given.new_empty((*given.shape[:-1], len(weight)))
        for part, values in float_slices(weight):
            made[..., part] = functional.linear(wide, values, None if bias is None else bias[part].float())
        return made

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        found = torch.zeros((*gradient.shape[:-1], weight.shape[1]))
        for part, values in float_slices(weight):
            found += gradient[..., part].float() @ values
        return found.to(gradient.dtype), None, None


class _Product(torch.autograd.Function):
    """A product of two, (..., n, k) and (..., k, m), whose leading axes may be broadcast."""

    @staticmethod
    def forward(ctx: Any, left: torch.Tensor, right: torch.Tensor) -> Any:
        ctx.save_for_backward(left, right)
        return (left.float() @ right.float()).to(left.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        left, right = ctx.saved_tensors
        wide = gradient.float()
        at_left = at_right = None
        if ctx.needs_input_grad[0]:
            at_left = (wide @ right.float().mT).sum_to_size(left.shape).to(left.dtype)
        if ctx.needs_input_grad[1]:
            at_right = (left.float().mT @ wide).sum_to_size(right.shape).to(right.dtype)
        return at_left, at_right


def _linear(given: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Any:
    if weight.requires_grad:
        return functional.linear(given, weight, bias)
    return _Linear.apply(given, weight, bias)  # type: ignore[no-untyped-call]


def _product(left: torch.Tensor, right: torch.Tensor) -> Any:
    if min(left.ndim, right.ndim) < 2:
        return (left.float() @ right.float()).to(left.dtype)
    return _Product.apply(left, right)  # type: ignore[no-untyped-call]


def _convolved(convolve: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def convolution(
        given: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, *args: Any, **more: Any
    ) -> torch.Tensor:
        bias = None if bias is None else bias.float()
        return convolve(given.float(), weight.float(), bias, *args, **more).to(given.dtype)

    return convolution


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    *args: Any,
    **more: Any,
) -> torch.Tensor:
    mask = attn_mask.float() if attn_mask is not None and attn_mask.is_floating_point() else attn_mask
    mixed = functional.scaled_dot_product_attention(
        query.float(), key.float(), value.float(), mask, *args, **more
    )
    return mixed.to(query.dtype)


def _is_half(value: Any) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and value.device.type == "cpu"
        and value.dtype in (torch.bfloat16, torch.float16)
    )


_WAYS: Final[dict[Any, Callable[..., Any]]] = {
    functional.linear: _linear,
    functional.scaled_dot_product_attention: _attention,
    functional.conv2d: _convolved(functional.conv2d),
    functional.conv3d: _convolved(functional.conv3d),
    **dict.fromkeys((torch.matmul, torch.bmm, torch.Tensor.matmul, torch.Tensor.__matmul__), _product),
}
