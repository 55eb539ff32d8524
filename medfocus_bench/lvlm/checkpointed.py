"""Graphs of a decoder that keep the input of each block and compute the rest of it again on the way back.

One more pass through the blocks, for the memory of one block's graph in place of all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch.utils.checkpoint import checkpoint

from medfocus_bench.lvlm.half_products import half_products


@contextmanager
def checkpointed(model: Any, decoder: Any) -> Iterator[None]:
    """Compute the blocks of a decoder again on the way back; that has to be gone within the block.

    Hooks on modules inside the blocks are called again, those on the blocks themselves are not.
    """
    own = [(layer, vars(layer).get("forward")) for layer in decoder.layers]
    for layer, _ in own:
        layer.forward = partial(_twice, model, layer.forward)
    try:
        yield
    finally:
        for layer, forward in own:
            if forward is None:
                del layer.forward
            else:
                layer.forward = forward


def _twice(model: Any, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    def computed(*given: Any, **named: Any) -> Any:
        # The way back is outside of the pass that made its products so.
        with half_products(model):
            return forward(*given, **named)

    return checkpoint(computed, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)
