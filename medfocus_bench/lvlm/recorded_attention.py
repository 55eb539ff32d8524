"""Attention that gives its weights at the blocks and rows that are read, and is fused everywhere else.

Fused kernels give no weights. All of them, (heads, length, length) of every block in float32, are 103 MB a
block for Qwen2.5-VL 3B on a whole radiograph, and several times that with a graph; a method reads the few
rows that predict the response, mostly of one block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final
from weakref import WeakKeyDictionary

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask

from medfocus_bench.lvlm.trace import attention_implementation, attention_of

_NAMES: Final = {True: "medfocus_recorded", False: "medfocus_recorded_stepwise"}
"""Of the implementation of attention, with and without fused kernels."""

_ROWS: Final[WeakKeyDictionary[Any, slice]] = WeakKeyDictionary()
"""The rows whose weights are wanted, by the attention module of a block."""


@contextmanager
def recorded_attention(decoder: Any, layers: Iterable[int], rows: slice | None) -> Iterator[None]:
    """Make some blocks give their weights at `rows`, (heads, rows, length), or at all, within the block.

    Where a decoder was loaded with eager attention, as one that caps its scores has to be, no block is fused.
    """
    fused = decoder.config._attn_implementation != "eager"
    modules = [attention_of(decoder.layers[layer]) for layer in layers]
    _ROWS.update(dict.fromkeys(modules, rows or slice(None)))
    try:
        with attention_implementation(decoder, _NAMES[fused]):
            yield
    finally:
        for module in modules:
            _ROWS.pop(module, None)


def _attend(
    fused: bool,
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    **more: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The mixed values (batch, rows, heads, width) and the weights that are wanted of this block."""
    rows = _ROWS.get(module)
    if rows == slice(None):
        return stepwise(query, key, value, attention_mask, scaling, softcap)
    if fused:
        given = (module, query, key, value, attention_mask)
        mixed, _ = sdpa_attention_forward(*given, scaling=scaling, softcap=softcap, **more)
    else:
        mixed, _ = stepwise(query, key, value, attention_mask, scaling, softcap)
    if rows is None:
        return mixed, None
    mask = None if attention_mask is None else attention_mask[:, :, rows]
    own, weights = stepwise(query[:, :, rows], key, value, mask, scaling, softcap)
    # The rows are mixed by the weights that are given, so that these may be differentiated by.
    return torch.cat([mixed[:, : rows.start], own, mixed[:, rows.stop :]], 1), weights


def stepwise(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None,
    softcap: float | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of queries (batch, heads, rows, width), step by step.

    The mixed values (batch, rows, heads, width) and the weights (batch, heads, rows, columns).
    """
    groups = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is not None:
        scores = scores + mask
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return (weights @ value).transpose(1, 2).contiguous(), weights


for _fused, _name in _NAMES.items():
    AttentionInterface.register(_name, partial(_attend, _fused))
    AttentionMaskInterface.register(_name, eager_mask)
