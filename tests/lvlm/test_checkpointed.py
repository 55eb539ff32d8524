"""Graphs whose blocks are computed again: the same values and gradients, and hardly anything held."""

from __future__ import annotations

import pytest
import torch

from medfocus_bench.attribution import lrp
from medfocus_bench.attribution.lrp import input_relevance
from medfocus_bench.lvlm.checkpointed import checkpointed
from tests.lvlm.conftest import picture

QUESTION = "Is there evidence of mass in the image?"


def test_gradients_are_the_same_and_the_graph_holds_a_fifth(token_lvlm):
    example = token_lvlm.encode(picture(1), QUESTION, "Yes.\n")

    def differentiated():
        held = {}

        def kept(tensor):
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(kept, lambda tensor: tensor):
            trace = token_lvlm.trace(example, gradients=True)
        size = sum(held.values())
        return size, token_lvlm.gradients(token_lvlm.objective(example, trace), [trace.embeddings])[0]

    usual, expected = differentiated()
    with checkpointed(token_lvlm.model, token_lvlm.decoder):
        lean, found = differentiated()
    assert torch.equal(found, expected)
    assert lean < usual / 5
    assert not any("forward" in vars(layer) for layer in token_lvlm.decoder.layers)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("key", ["phantom_qwen", "phantom_gemma"])
def test_relevance_is_the_same_where_blocks_are_computed_again(open_lvlm, key, dtype, monkeypatch):
    """The rules are hooks, and are called again on the way back."""
    lvlm = open_lvlm(key, dtype=dtype)
    example = lvlm.encode(picture(1), QUESTION, "Yes.\n")
    usual, given = input_relevance(lvlm, example)
    monkeypatch.setattr(lrp, "_WEIGHTS", 0)
    again, too = input_relevance(lvlm, example)
    assert torch.allclose(again, usual, rtol=1e-5, atol=1e-6 * float(usual.abs().max()))
    assert too == pytest.approx(given)
