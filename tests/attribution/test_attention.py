"""Attention of a head, rollout, relative attention: which rows, which order, and against the model's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medfocus_bench.attribution.attention import (
    AttentionHead,
    AttentionRollout,
    RelativeAttention,
    predictor_rows,
)
from medfocus_bench.attribution.registry import load_method
from medfocus_bench.errors import InputError
from tests.attribution.conftest import PATIENT, QUESTION, private, shipped
from tests.attribution.plain import at_image, plain_pass

METHODS = [AttentionHead(), AttentionRollout(), RelativeAttention()]


@pytest.fixture
def passed(lvlm, example):
    return plain_pass(lvlm, example)


@pytest.fixture(scope="module")
def short_sighted():
    """A Gemma whose sliding window has left the image behind where the response begins."""
    lvlm = private("phantom_gemma")
    lvlm.model.config.text_config.sliding_window = 8
    for block in lvlm.decoder.layers:
        block.self_attn.sliding_window = 8 if block.self_attn.is_sliding else None
    return lvlm


def rollout(matrices, *, backwards=False, lower=False):
    """Abnar & Zuidema as written: whole matrices in float64, one block after the other."""
    product = np.eye(len(matrices[0]))
    for attention in reversed(matrices) if backwards else matrices:
        mixed = 0.5 * (np.tril(attention) if lower else attention) + 0.5 * np.eye(len(attention))
        product = mixed / mixed.sum(1, keepdims=True) @ product
    return product


def head_means(passed):
    return [weights[0].detach().double().mean(0).numpy() for weights in passed.attentions]


def predictor_mean(lvlm, passed, product):
    rows = product[passed.prompt_length - 1 : len(passed.ids) - 1]
    return at_image(lvlm, passed, torch.from_numpy(rows.mean(0)))


def test_recorded_attention_is_the_models_own(lvlm, example, passed):
    """Traps 5, 6, 7: masks, input types and positions are those of an ordinary eager pass."""
    trace = lvlm.trace(example, attentions=range(lvlm.layers))
    for layer, own in enumerate(passed.attentions):
        assert torch.allclose(trace.attentions[layer], own, atol=1e-5)


def test_a_head_is_read_at_the_rows_before_the_response(lvlm, example, passed):
    """Trap 1: row t predicts token t + 1, so the response's own rows are one too late."""
    weights = passed.attentions[1][0, 3]
    rows = slice(passed.prompt_length - 1, len(passed.ids) - 1)
    own_rows = slice(passed.prompt_length, len(passed.ids))
    found = AttentionHead(layer=1, head=3).explain(lvlm, example).saliency
    assert np.allclose(found, at_image(lvlm, passed, weights[rows].mean(0)), atol=1e-6)
    assert not np.allclose(found, at_image(lvlm, passed, weights[own_rows].mean(0)), atol=1e-4)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_map_of_one_token_does_not_depend_on_what_that_token_is(lvlm, method):
    """Trap 1: attention says where the model looks before it writes; the token itself comes after."""
    yes, no = (method.explain(lvlm, lvlm.encode(PATIENT.image, QUESTION, text)) for text in ("Yes", "No"))
    assert yes.saliency.any()
    assert np.allclose(yes.saliency, no.saliency, atol=1e-7)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_span_is_explained_by_its_own_rows_alone(lvlm, example, method):
    whole, first, last, verdict = (
        method.explain(lvlm, example, target=target).saliency
        for target in ("response", (0, 1), (1, 2), "verdict")
    )
    assert np.array_equal(first, verdict)
    assert not np.allclose(first, last)
    expected = first if isinstance(method, RelativeAttention) else (first + last) / 2
    assert np.allclose(whole, expected, rtol=1e-4)


def test_rollout_is_the_product_from_the_last_block_to_the_first(lvlm, example, passed):
    """Trap 4: the reverse product is another map."""
    found = AttentionRollout().explain(lvlm, example).saliency
    right = predictor_mean(lvlm, passed, rollout(head_means(passed)))
    reverse = predictor_mean(lvlm, passed, rollout(head_means(passed), backwards=True))
    assert np.allclose(found, right, rtol=1e-3, atol=1e-7)
    assert np.abs(reverse - right).max() > 0.1 * right.max()


def test_image_tokens_of_gemma_attend_to_later_ones_and_rollout_counts_it():
    """Trap 5: a method that assumes a lower triangle loses half of the image block."""
    lvlm = shipped("phantom_gemma")
    example = lvlm.encode(PATIENT.image, QUESTION, "Yes.")
    passed = plain_pass(lvlm, example)
    block = example.image_positions
    assert all(weights[0][:, block[0], block[-1]].min() > 0 for weights in passed.attentions)
    found = AttentionRollout().explain(lvlm, example).saliency
    triangular = predictor_mean(lvlm, passed, rollout(head_means(passed), lower=True))
    assert np.abs(triangular - found).max() > 0.1 * found.max()


@pytest.mark.parametrize("method", [AttentionHead(), RelativeAttention()], ids=lambda method: method.name)
def test_a_block_whose_window_has_passed_the_image_explains_nothing(short_sighted, method):
    """Traps 5 and 21: zeros, not the ratio of two of them; rollout sees it through the one that looks."""
    example = short_sighted.encode(PATIENT.image, QUESTION, "Yes.")
    sliding, full = (
        type(method)(layer=layer).explain(short_sighted, example).saliency
        for layer in (1, short_sighted.layers - 1)
    )
    assert not sliding.any()
    for saliency in (full, AttentionRollout().explain(short_sighted, example).saliency):
        assert np.isfinite(saliency).all()
        assert saliency.any()


def test_a_pass_that_fails_leaves_the_decoder_fused(qwen):
    """Trap 6."""
    example = qwen.encode(PATIENT.image, QUESTION, "Yes.")
    with pytest.raises(ZeroDivisionError):
        qwen.trace(example, attentions=[0], keep=lambda weights: weights / (1 // 0))
    assert qwen.decoder.config._attn_implementation == "sdpa"


def test_relative_attention_is_a_ratio_of_head_means_at_the_ends_of_two_prompts(lvlm, example, passed):
    general = plain_pass(lvlm, lvlm.encode(PATIENT.image, RelativeAttention().prompt, "Yes."))
    asked, always = (
        at_image(lvlm, each, each.attentions[2][0].mean(0)[each.prompt_length - 1])
        for each in (passed, general)
    )
    with lvlm.measured() as meter:
        found = RelativeAttention(layer=2).explain(lvlm, example).saliency
    assert np.allclose(found, asked / always, rtol=1e-3)
    assert (meter.forward_passes, meter.backward_passes) == (2, 0)


def test_relative_to_itself_a_question_explains_nothing(lvlm, example):
    saliency = RelativeAttention(prompt=QUESTION).explain(lvlm, example).saliency
    assert np.allclose(saliency, 1, atol=1e-5)


@pytest.mark.parametrize("head", [-1, 4])
def test_a_head_that_is_not_there_is_an_error_with_the_range(lvlm, example, head):
    with pytest.raises(InputError, match=rf"no head {head}; give one of 0 to 3"):
        AttentionHead(head=head).explain(lvlm, example)


def test_candidates_are_all_heads_of_all_blocks_and_each_is_a_setting(lvlm):
    heads = list(load_method("attention-head").candidates(lvlm))
    assert heads == [{"layer": layer, "head": head} for layer in range(4) for head in range(4)]
    layers = list(load_method("relative-attention").candidates(lvlm))
    assert layers == [{"layer": layer} for layer in range(4)]
    assert load_method("attention-head", **heads[-1]) == AttentionHead(layer=3, head=3)


def test_predictor_rows_end_one_before_the_response_does(example):
    """Trap 1."""
    assert predictor_rows(example, "response") == slice(example.answer.start - 1, example.answer.stop - 1)
    assert predictor_rows(example, (1, 2)) == slice(example.answer.start, example.answer.start + 1)


def test_all_heads_come_from_one_pass_as_they_come_one_by_one(lvlm, example):
    """A model of 36 blocks with 16 heads would take 576 passes a sample to tune."""
    candidates = list(AttentionHead().candidates(lvlm))[::5]
    with lvlm.measured() as meter:
        together = AttentionHead().explain_candidates(lvlm, example, candidates)
    assert meter.forward_passes == 1
    for settings, found in zip(candidates, together, strict=True):
        alone = AttentionHead(**settings).explain(lvlm, example)
        assert np.allclose(found.saliency, alone.saliency, atol=1e-7)
