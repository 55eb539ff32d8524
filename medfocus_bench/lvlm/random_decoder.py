"""Copies of an LVLM with a random decoder: an attribution that finds evidence there read no model.

As in the randomisation tests of Adebayo et al., "Sanity Checks for Saliency Maps" (NeurIPS 2018), but all
blocks of the decoder at once: they turn what the vision tower sees into an answer.
"""

from __future__ import annotations

from typing import Any
from zlib import crc32

import numpy as np
import torch

from medfocus_bench.errors import InputError


@torch.no_grad()
def draw_decoder(model: Any, decoder: Any, seed: int, *, name: str) -> None:
    """Redraw every weight matrix of the decoder's blocks, attention and MLP, in place.

    Experts whose matrices are stacked in one array are matrices, too.

    Each is drawn from the normal distribution of mean 0 with the matrix's own variance, by a generator of its
    own, so that neither device, dtype, nor the order of the blocks decides what is drawn. Embeddings, output
    head, vision tower, projector, norms and biases stay as they were trained.

    Args:
        model: The transformers model.
        decoder: Its text decoder, with `layers`.
        seed: Of the draws.
        name: Of the LVLM, for messages.

    Raises InputError for quantised weights, which have no values to draw.

    """
    if getattr(model, "is_quantized", False):
        raise InputError(f"{name}: its weights are quantised, so that none can be drawn; load it without")
    for number, layer in enumerate(decoder.layers):
        for path, weight in layer.named_parameters():
            if weight.ndim < 2:
                continue
            rng = np.random.default_rng((seed, number, crc32(path.encode())))
            drawn = rng.standard_normal(tuple(weight.shape), dtype=np.float32)
            spread = float(weight.to(torch.float32).std(correction=0))
            weight.copy_(torch.from_numpy(drawn * np.float32(spread)))
