"""The records of a traced pass, and the gradients through it."""

from __future__ import annotations

import pytest
import torch

from medfocus_bench.data.questions import prompt
from medfocus_bench.errors import InputError
from tests.lvlm.conftest import picture

QUESTION = prompt("nodule", "direct")


@pytest.fixture
def example(any_lvlm):
    return any_lvlm.encode(picture(1), QUESTION, "Yes.\n")


def test_recording_changes_nothing(any_lvlm, example):
    """The masks of eager attention are made elsewhere than those of fused attention."""
    every = range(any_lvlm.layers)
    plain = any_lvlm.trace(example)
    traced = any_lvlm.trace(example, hidden=every, attentions=every)
    graph = any_lvlm.trace(example, gradients=True)
    assert torch.allclose(traced.last, plain.last, atol=1e-4)
    assert torch.allclose(graph.last, plain.last, atol=1e-5)
    assert torch.equal(traced.rows, traced.last[example.rows.start : example.rows.stop])
    assert any_lvlm.decoder.config._attn_implementation == "sdpa"


def test_the_targets_of_a_trace_are_the_scores(any_lvlm, example):
    trace, shown = any_lvlm.trace(example), example.pixel_values[None]
    for target in ("response", "verdict", (0, 1), (1, 2)):
        traced = any_lvlm.objective(example, trace, target).item()
        assert traced == pytest.approx(any_lvlm.scores(example, shown, target).item(), abs=1e-4)
    parts = [any_lvlm.objective(example, trace, (n, n + 1)) for n in range(len(example.answer))]
    assert sum(parts).item() == pytest.approx(any_lvlm.scores(example, shown).item(), abs=1e-4)


def test_weights_are_distributions_over_what_a_row_may_see(token_lvlm):
    """Trap 6: fused attention would give an empty tuple. Trap 5: the image block of Gemma sees forward."""
    example = token_lvlm.encode(picture(1), QUESTION, "Yes.\n")
    weights = token_lvlm.trace(example, attentions=range(token_lvlm.layers)).attentions
    block = example.image_positions
    for layer in range(token_lvlm.layers):
        found = weights[layer].squeeze(0)
        length = len(example.ids)
        assert found.shape == (token_lvlm.decoder.config.num_attention_heads, length, length)
        assert torch.allclose(found.sum(-1), torch.ones(found.shape[:2]), atol=1e-5)
        first_sees_last = found[:, block[0], block[-1]].max().item()
        assert (first_sees_last > 0) == ("gemma" in token_lvlm.key)
        response = found[:, example.answer.start :, example.answer.start :]
        assert not response.triu(1).any()


def test_the_question_sees_itself_whole_in_paligemma_and_the_response_does_not(open_lvlm):
    """Type 0 for the response would let it see its own end: the answer would leak into its prediction."""
    lvlm = open_lvlm("tiny_paligemma")
    example = lvlm.encode(picture(1), QUESTION, "Yes.\n")
    weights = lvlm.trace(example, attentions=[0]).attentions[0].squeeze(0)
    start = example.answer.start
    assert weights[:, 0, start - 1].min() > 0
    assert not weights[:, :start, start:].any()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("key", ["phantom_qwen", "phantom_gemma"])
def test_some_rows_of_the_weights_are_those_of_all_and_so_are_their_gradients(open_lvlm, key, attention):
    """Trap 6: only the rows that are read are computed step by step."""
    lvlm = open_lvlm(key, attention=attention)
    example = lvlm.encode(picture(1), QUESTION, "Yes.\n")
    rows = slice(example.rows.start, example.rows.stop)

    def traced(**options):
        trace = lvlm.trace(example, attentions=[1], gradients=True, **options)
        (gradient,) = lvlm.gradients(lvlm.objective(example, trace), [trace.attentions[1]])
        return trace.attentions[1].detach(), gradient

    own, all_rows = traced(attention_rows=rows), traced()
    assert own[0].shape[2] == len(example.rows)
    for few, every in zip(own, all_rows, strict=True):
        assert torch.allclose(few, every[:, :, rows], rtol=1e-4, atol=1e-6 * float(every.abs().max()))
    assert lvlm.decoder.config._attn_implementation == attention


def test_keep_reduces_the_weights_as_they_are_made(any_lvlm, example):
    rows = slice(example.rows.start, example.rows.stop)
    kept = any_lvlm.trace(example, attentions=[1], keep=lambda weights: weights[:, rows].mean(1))
    whole = any_lvlm.trace(example, attentions=[1]).attentions[1].squeeze(0)
    assert torch.allclose(kept.attentions[1].squeeze(0), whole[:, rows].mean(1), atol=1e-6)


def test_embeddings_hold_the_picture_at_the_image_positions_and_nowhere_else(token_lvlm):
    example, other = (token_lvlm.encode(picture(seed), QUESTION, "Yes.") for seed in (1, 2))
    embeddings = [token_lvlm.trace(each).embeddings.squeeze(0) for each in (example, other)]
    changed = (embeddings[0] != embeddings[1]).any(-1)
    assert changed.nonzero()[:, 0].tolist() == example.image_positions.tolist()


def test_what_enters_after_a_block_is_part_of_what_it_hands_on(open_lvlm):
    """Qwen3-VL's deepstack: each feature at the image token of its own place, and at no other position."""
    lvlm = open_lvlm("tiny_qwen3_vl", framing="native", pixels=(56 * 56, 224 * 448))
    example = lvlm.encode(picture(1, 224, 448), QUESTION, "Yes.")
    outputs = {}
    hooks = [
        block.register_forward_hook(lambda module, args, output, n=n: outputs.update({n: output}))
        for n, block in enumerate(lvlm.decoder.layers)
    ]
    trace = lvlm.trace(example, hidden=range(lvlm.layers), gradients=True)
    for hook in hooks:
        hook.remove()
    assert [each.shape for each in trace.injected] == [(len(example.grid), 64)] * 2
    for n, output in outputs.items():
        entered = torch.zeros_like(output)
        if n < 2:
            entered[0, example.image_positions] = trace.injected[n]
        assert torch.allclose(trace.hidden[n], output + entered, atol=1e-6)
    assert [each.requires_grad for each in trace.injected] == [False, True]  # the graph starts between them
    (at_state,) = lvlm.gradients(lvlm.objective(example, trace), [trace.hidden[0]])
    whole = lvlm.trace(example, gradients=True)
    first, second = lvlm.gradients(lvlm.objective(example, whole), whole.injected)
    assert torch.allclose(at_state[0, example.image_positions], first)
    assert not torch.allclose(first, second)


def test_the_image_is_dead_after_the_last_block_and_alive_one_before(token_lvlm):
    """Trap 3."""
    example = token_lvlm.encode(picture(1), QUESTION, "Yes.\n")
    last = token_lvlm.layers - 1
    trace = token_lvlm.trace(example, hidden=[last - 1, last], gradients=True)
    value = token_lvlm.objective(example, trace)
    with token_lvlm.measured() as meter:
        (alive,) = token_lvlm.gradients(value, [trace.hidden[last - 1]])
    assert alive.squeeze(0)[example.image_positions].abs().max() > 0
    assert meter.backward_passes == 1
    trace = token_lvlm.trace(example, hidden=[last], gradients=True)
    dead = torch.autograd.grad(token_lvlm.objective(example, trace), trace.hidden[last])[0]
    assert not dead.squeeze(0)[example.image_positions].any()


@pytest.mark.parametrize("what", ["hidden", "attentions"])
def test_a_graph_starts_at_what_is_recorded_and_its_gradients_are_those_of_a_whole_one(
    any_lvlm, example, what
):
    """The blocks below it are of no use on the way back, and keep nothing for it."""

    def gradients(pixel_values=None):
        trace = any_lvlm.trace(example, pixel_values=pixel_values, gradients=True, **{what: [1]})
        value = any_lvlm.objective(example, trace)
        return trace, any_lvlm.gradients(value, [getattr(trace, what)[1]])[0]

    trace, short = gradients()
    _, whole = gradients(example.pixel_values.clone().requires_grad_())
    assert not trace.embeddings.requires_grad
    assert trace.hidden[1].is_leaf if what == "hidden" else trace.attentions[1].requires_grad
    assert torch.allclose(short, whole, rtol=1e-5, atol=1e-6 * float(whole.abs().max()))


def test_the_pixels_can_be_differentiated_by(any_lvlm, example):
    """Against a finite difference: the way from `pixel_values` to the model's own inputs is in the graph."""
    pixel_values = example.pixel_values.clone().requires_grad_()
    trace = any_lvlm.trace(example, pixel_values=pixel_values, gradients=True)
    (gradient,) = any_lvlm.gradients(any_lvlm.objective(example, trace), [pixel_values])
    direction = gradient / gradient.norm()
    ahead, behind = any_lvlm.scores(
        example,
        torch.stack([example.pixel_values + 0.05 * direction, example.pixel_values - 0.05 * direction]),
    ).tolist()
    assert gradient.norm().item() == pytest.approx((ahead - behind) / 0.1, rel=0.1)


def test_a_target_that_reaches_nothing_is_an_error(open_lvlm):
    lvlm = open_lvlm("phantom_qwen")
    example = lvlm.encode(picture(1), QUESTION, "Yes.")
    trace = lvlm.trace(example, gradients=True)
    with pytest.raises(InputError, match="earlier layer"):
        lvlm.gradients(lvlm.objective(example, trace), [torch.zeros(3, requires_grad=True)])


def test_passes_are_counted_picture_by_picture(any_lvlm, example):
    with any_lvlm.measured() as meter:
        any_lvlm.scores(example, example.pixel_values.expand(5, -1, -1, -1))
        any_lvlm.trace(example)
        with any_lvlm.measured() as inner:
            any_lvlm.log_probs([picture(1), picture(2)], QUESTION, "Yes.")
    assert (meter.forward_passes, inner.forward_passes) == (8, 2)
    assert meter.seconds > 0


@pytest.mark.parametrize(
    "rows", [slice(-3, None), slice(None, 4), slice(None), slice(-5, -2), slice(6, 999), slice(5, 3)]
)
def test_rows_of_attention_may_be_any_slice(open_lvlm, rows):
    lvlm = open_lvlm("tiny_qwen")
    example = lvlm.encode(picture(1), QUESTION, "Yes.")
    every = lvlm.trace(example, attentions=[0], hidden=[0])
    some = lvlm.trace(example, attentions=[0], hidden=[0], attention_rows=rows)
    assert some.attentions[0].shape == every.attentions[0][:, :, rows].shape
    assert torch.allclose(some.attentions[0], every.attentions[0][:, :, rows], atol=1e-6)
    assert torch.allclose(some.hidden[0], every.hidden[0], atol=1e-5)


def test_rows_with_gaps_and_blocks_that_are_not_there_are_errors(open_lvlm):
    lvlm = open_lvlm("tiny_qwen")
    example = lvlm.encode(picture(1), QUESTION, "Yes.")
    with pytest.raises(ValueError, match="leave out the step"):
        lvlm.trace(example, attentions=[0], attention_rows=slice(0, 9, 2))
    for wrong in (-1, lvlm.layers):
        for asked in ("hidden", "attentions"):
            with pytest.raises(ValueError, match=f"no block {wrong}; its decoder has blocks 0 to"):
                lvlm.trace(example, **{asked: [wrong]})


def test_what_stands_before_the_graph_of_a_trace_is_an_error_with_the_way_out(open_lvlm):
    lvlm = open_lvlm("tiny_qwen")
    example = lvlm.encode(picture(1), QUESTION, "Yes.")
    trace = lvlm.trace(example, hidden=[0], gradients=True)
    with pytest.raises(InputError, match="starts at the first block that is recorded"):
        lvlm.gradients(lvlm.objective(example, trace), [trace.embeddings, trace.hidden[0]])
    pixels = example.pixel_values.clone().requires_grad_()
    trace = lvlm.trace(example, hidden=[0], gradients=True, pixel_values=pixels)
    found = lvlm.gradients(lvlm.objective(example, trace), [trace.embeddings, trace.hidden[0]])
    assert all(gradient.any() for gradient in found)
