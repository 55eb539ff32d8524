"""Numbers that are not finite: an error in a sentence, in place of an empty response or a map of nothing.

float16 ends at 65,504, and the hidden states of real models grow beyond that. All logits after it are NaN, of
which greedy decoding takes the first token of the vocabulary, often the padding: an empty response.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import torch

from medfocus_bench.lvlm.protocol import NotFiniteError

_WAYS_OUT: Final = {
    torch.float16: "which float16 cannot hold: load it in bfloat16 or float32 (--dtype)",
    torch.bfloat16: "in bfloat16: load it in float32 (--dtype)",
}


def check_finite(values: torch.Tensor | Iterable[torch.Tensor], named: str, lvlm: str, dtype: Any) -> None:
    """Raise NotFiniteError, with the way out, where values of an LVLM in `dtype` are not finite."""
    tensors = [values] if isinstance(values, torch.Tensor) else values
    if all(bool(tensor.isfinite().all()) for tensor in tensors):
        return
    way_out = _WAYS_OUT.get(dtype, "even in float32: its weights are damaged, fetch the checkpoint again")
    raise NotFiniteError(f"{lvlm}: {named} are not finite numbers, {way_out}")
