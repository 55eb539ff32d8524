"""Where the paper's released code differs, the difference is what docs/deviations.md says it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medfocus_bench.paper.published import BESIDE, MAIN_DIRECT
from tests.attribution import released
from tests.attribution.conftest import PATIENT, QUESTION


def test_its_lrp_is_our_rollout_and_stands_beside_it(lvlm):
    example = lvlm.encode(PATIENT.image, QUESTION, "Yes.")
    theirs = released.of_tokens(example, released.relevance_by_attention(lvlm, example))
    rollout = released.AttentionRollout().explain(lvlm, example).saliency
    assert released.correlation(theirs, rollout) > 0.999
    assert released.correlation(theirs, released.LRP().explain(lvlm, example).saliency) < 0.8
    assert BESIDE["attention-rollout"] == "lrp"
    assert "lrp" not in BESIDE
    assert set(MAIN_DIRECT) - set(BESIDE.values()) == {"attention-rollout"}


def test_a_one_token_answer_has_no_gradient_at_its_own_row(qwen):
    """Trap 1: the released code reads that row, and its map is empty."""
    example = qwen.encode(PATIENT.image, QUESTION, "Yes")
    assert len(example.answer) == 1
    assert not released.gradients_at_answer_rows(qwen, example).any()
    assert released.GradientWeightedAttention().explain(qwen, example).saliency.any()


def test_its_integrated_gradients_are_scattered_over_the_picture():
    """Trap 8: patches of a merge block follow each other; read row by row, most are elsewhere."""
    patches = torch.arange(256.0).reshape(16, 16)
    listed = released.in_merge_order(patches)
    assert sorted(listed.ravel()) == list(range(256))
    assert (listed == patches.numpy()).sum() == 32
    across = np.abs(listed % 16 - np.arange(16))
    assert across.mean() == pytest.approx(4)
    assert across.max() == 8
