"""LRP: each rule on small tensors, conservation through whole decoders, and that nothing stays changed."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers.models.gemma3.configuration_gemma3 import Gemma3TextConfig
from transformers.models.gemma3.modeling_gemma3 import Gemma3MLP, Gemma3RMSNorm
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLRMSNorm

from medfocus_bench.attribution.lrp import (
    LRP,
    halved,
    input_relevance,
    proportional,
    relevance_rules,
    relevant_attention,
)
from medfocus_bench.errors import InputError
from medfocus_bench.lvlm.registry import load_lvlm
from tests.attribution.conftest import PATIENT, QUESTION, shipped
from tests.lvlm.checkpoints import save_idefics3, save_paligemma, save_qwen3_vl

RULES = ["attnlrp", "constant"]


def relevance(output, given, of):
    """Input times gradient for each of `of`, where `given` is the relevance of `output`."""
    slopes = torch.where(output == 0, 0.0, given / output)
    gradients = torch.autograd.grad(output, of, slopes.detach(), allow_unused=True)
    return [
        torch.zeros_like(each) if gradient is None else each.detach() * gradient
        for each, gradient in zip(of, gradients, strict=True)
    ]


def leaf(*shape):
    return torch.randn(*shape, dtype=torch.float64).requires_grad_()


# -- the rules, one by one ---------------------------------------------------------------------------------


def test_a_product_gives_half_of_its_relevance_to_each_factor():
    torch.manual_seed(0)
    gate, up = leaf(5, 7), leaf(5, 7)
    given = torch.randn(5, 7, dtype=torch.float64)
    product = halved(gate * up)
    assert torch.equal(product, gate * up)
    for got in relevance(product, given, [gate, up]):
        assert torch.allclose(got, given / 2)


@pytest.mark.parametrize("activation", [torch.nn.SiLU(), torch.nn.GELU(approximate="tanh")])
def test_an_activation_hands_on_all_its_relevance(activation):
    torch.manual_seed(0)
    x = leaf(5, 7)
    given = torch.randn(5, 7, dtype=torch.float64)
    output = proportional(activation(x), x)
    assert torch.equal(output, activation(x))
    (got,) = relevance(output, given, [x])
    assert torch.allclose(got, given)


def test_an_activation_of_zero_has_a_finite_gradient():
    x = torch.zeros(3).requires_grad_()
    proportional(torch.nn.functional.silu(x), x).sum().backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("kind", [Gemma3RMSNorm, Qwen2_5_VLRMSNorm])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_a_norms_divisor_is_a_constant(kind, scale):
    """Whether the gain is stored (Qwen) or the gain less one (Gemma)."""
    torch.manual_seed(0)
    norm = kind(16)
    torch.nn.init.normal_(norm.weight)
    x = (scale * torch.randn(2, 5, 16)).requires_grad_()
    plain = norm(x)
    with relevance_rules(_Decoder(norm), "attnlrp"):
        output = norm(x)
    assert torch.equal(output, plain)
    given = torch.randn(2, 5, 16)
    (got,) = relevance(output, given, [x])
    assert torch.allclose(got, given, atol=1e-5)
    (unruled,) = relevance(plain, given, [x])
    assert not torch.allclose(unruled, given, atol=1e-1)


def test_a_gated_mlp_sends_half_of_the_relevance_through_its_gate():
    torch.manual_seed(0)
    mlp = Gemma3MLP(Gemma3TextConfig(hidden_size=8, intermediate_size=12))
    x = torch.randn(1, 3, 8, requires_grad=True)
    plain, parts = mlp(x), {}
    for module in (mlp.gate_proj, mlp.up_proj):
        module.register_forward_hook(lambda module, args, output: parts.update({module: output}))
    with relevance_rules(_Decoder(mlp), "attnlrp"):
        output = mlp(x)
    assert torch.equal(output, plain)
    given = torch.randn_like(output)
    gate, up, whole = relevance(output, given, [parts[mlp.gate_proj], parts[mlp.up_proj], x])
    assert torch.allclose(gate, up, atol=1e-4)
    assert gate.sum() == pytest.approx(given.sum().item() / 2, rel=1e-3)
    assert whole.sum() == pytest.approx(given.sum().item(), rel=1e-3)


def attended(rule):
    """Attention with two query heads to each of two key heads, causal; and the relevance of its inputs."""
    torch.manual_seed(0)
    query, key, value = leaf(1, 4, 5, 8), leaf(1, 2, 5, 8), leaf(1, 2, 5, 8)
    mask = torch.full((5, 5), -1e30, dtype=torch.float64).triu(1)[None, None]
    mixed, weights = relevant_attention(rule)(None, query, key, value, mask, scaling=0.3)
    given = torch.randn_like(mixed)
    return query, key, value, mask, mixed, weights, given, relevance(mixed, given, [query, key, value])


def test_constant_attention_gives_everything_to_the_values():
    *_, given, (query, key, value) = attended("constant")
    assert not query.any()
    assert not key.any()
    assert value.sum() == pytest.approx(given.sum().item())


def test_attnlrp_gives_half_to_the_values_and_splits_what_the_softmax_hands_on():
    """Of a softmax s of x, x_i gets x_i (R_i - s_i sum_j R_j) (AttnLRP); queries and keys halve that."""
    query, key, value, _, _, weights, given, (of_query, of_key, of_value) = attended("attnlrp")
    keys, values = (each.detach().repeat_interleave(2, dim=1) for each in (key, value))
    half = given.transpose(1, 2) / 2
    mixed = weights.double() @ values
    at_weights = weights * ((half / mixed) @ values.mT)
    scores = 0.3 * query.detach() @ keys.mT
    at_scores = scores * (at_weights - weights * at_weights.sum(-1, keepdim=True))
    assert of_value.sum() == pytest.approx(half.sum().item(), rel=1e-5)
    assert torch.allclose(of_query.sum((-1,)), at_scores.sum(-1) / 2, atol=1e-4)
    by_head = (at_scores.sum(-2) / 2).reshape(1, 2, 2, 5).sum(2)
    assert torch.allclose(of_key.sum(-1), by_head, atol=1e-4)


def test_attention_is_that_of_pytorch_and_caps_its_scores_where_asked():
    query, key, value, mask, mixed, *_ = attended("attnlrp")
    keys, values = (each.repeat_interleave(2, dim=1) for each in (key, value))
    expected = torch.nn.functional.scaled_dot_product_attention(query, keys, values, mask, scale=0.3)
    assert torch.allclose(mixed.transpose(1, 2), expected, atol=1e-6)
    capped, _ = relevant_attention("attnlrp")(None, query, key, value, None, softcap=0.1)
    scores = 0.1 * torch.tanh(8**-0.5 * query @ keys.mT / 0.1)
    assert torch.allclose(capped.transpose(1, 2), torch.softmax(scores, -1) @ values, atol=1e-6)


def test_attention_has_the_relevance_of_lxt():
    """The reference implementation of AttnLRP, which hands on relevance itself in place of gradients."""
    lxt = pytest.importorskip("lxt.explicit.functional", reason="an oracle: make oracle")
    query, key, value, mask, mixed, _, given, found = attended("attnlrp")
    inputs = [each.detach().requires_grad_() for each in (query, key, value)]
    keys, values = (each.repeat_interleave(2, dim=1) for each in inputs[1:])
    scores = lxt.mul2(lxt.matmul(inputs[0], keys.mT, epsilon=1e-12), torch.tensor(0.3, dtype=torch.float64))
    theirs = lxt.matmul(lxt.softmax(scores + mask, -1), values, epsilon=1e-12)
    assert torch.allclose(theirs.transpose(1, 2), mixed, atol=1e-6)
    expected = torch.autograd.grad(theirs, inputs, given.transpose(1, 2))
    for ours, reference in zip(found, expected, strict=True):
        assert torch.allclose(ours, reference, rtol=1e-4, atol=1e-5)


def test_a_gated_mlp_has_the_relevance_of_lxt():
    lxt = pytest.importorskip("lxt.explicit.functional", reason="an oracle: make oracle")
    torch.manual_seed(0)
    mlp = Gemma3MLP(Gemma3TextConfig(hidden_size=8, intermediate_size=12)).double()
    x = leaf(1, 3, 8)
    with relevance_rules(_Decoder(mlp), "attnlrp"):
        output = mlp(x)
    given = torch.randn_like(output)
    (ours,) = relevance(output, given, [x])
    gate, up = (lxt.linear_epsilon(x, each.weight, None, 1e-12) for each in (mlp.gate_proj, mlp.up_proj))
    # The identity rule: whatever comes back at the activation goes on as it is.
    activated = gate + (mlp.act_fn(gate) - gate).detach()
    theirs = lxt.linear_epsilon(lxt.mul2(activated, up), mlp.down_proj.weight, None, 1e-12)
    assert torch.allclose(theirs, output)
    (reference,) = torch.autograd.grad(theirs, [x], given)
    assert torch.allclose(ours, reference, rtol=1e-4, atol=1e-6)


# -- whole decoders ----------------------------------------------------------------------------------------


def plain_relevance(lvlm, example):
    """Input times gradient without any rule."""
    trace = lvlm.trace(example, gradients=True)
    value = lvlm.logit_objective(example, trace)
    (gradient,) = lvlm.gradients(value, [trace.embeddings])
    return (trace.embeddings.detach() * gradient).sum(-1).reshape(-1), value.item()


@pytest.mark.parametrize("rule", RULES)
def test_the_forward_pass_is_unchanged(lvlm, example, rule):
    before = lvlm.trace(example, gradients=True)
    with relevance_rules(lvlm.decoder, rule):
        ruled = lvlm.trace(example, gradients=True)
    for objective in (lvlm.objective, lvlm.logit_objective):
        expected = objective(example, before).item()
        assert objective(example, ruled).item() == pytest.approx(expected, abs=1e-5, rel=1e-5)
    assert torch.allclose(ruled.last, before.last, atol=1e-4)


@pytest.mark.parametrize("start", ["logit", "log_probability"])
def test_without_biases_constant_attention_conserves_relevance(start):
    """Trap 4: a rollout, or input times gradient, under the name of LRP conserves nothing."""
    gemma = shipped("phantom_gemma")
    for text in ("Yes.", "No."):
        example = gemma.encode(PATIENT.image, QUESTION, text)
        found = LRP(attention_rule="constant", start=start).explain(gemma, example)
        assert found.diagnostics["conservation"] == pytest.approx(1, abs=1e-3)
        unruled, value = plain_relevance(gemma, example)
        assert abs(unruled.sum().item() / value - 1) > 0.1


def test_what_is_given_to_the_last_states_are_the_explained_logits(lvlm, example):
    _, given = input_relevance(lvlm, example)
    assert given == pytest.approx(plain_relevance(lvlm, example)[1], rel=1e-4)


def test_only_the_biases_of_qwen_keep_relevance(qwen):
    """With biases a little is missing, without them nothing."""
    bare = copy.copy(qwen)
    bare.model = copy.deepcopy(qwen.model)
    bare.decoder = bare.family.decoder(bare.model)
    for block in bare.decoder.layers:
        block.self_attn.v_proj.bias.zero_()
    example = qwen.encode(PATIENT.image, QUESTION, "Yes.")
    kept, exact = (
        LRP(attention_rule="constant").explain(each, example).diagnostics["conservation"]
        for each in (qwen, bare)
    )
    assert 1e-5 < abs(kept - 1) < 0.05
    assert exact == pytest.approx(1, abs=2e-5)


def test_the_softmax_keeps_a_part_under_attnlrp_and_the_report_says_so(lvlm, example):
    found = LRP().explain(lvlm, example).diagnostics
    assert 0.3 < found["conservation"] < 0.95
    assert 0 < found["image"] < found["conservation"]


@pytest.mark.parametrize("rule", RULES)
def test_afterwards_the_decoder_is_as_it_was_even_after_an_error(lvlm, example, rule):
    def state():
        hooks = sum(
            len(module._forward_hooks) + len(module._forward_pre_hooks) for module in lvlm.model.modules()
        )
        return hooks, lvlm.decoder.config._attn_implementation

    before, expected = state(), plain_relevance(lvlm, example)[0]
    LRP(attention_rule=rule).explain(lvlm, example)
    during = []

    def fail():
        with relevance_rules(lvlm.decoder, rule):
            during.append(state())
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail()
    assert during != [before]
    assert state() == before
    assert torch.equal(plain_relevance(lvlm, example)[0], expected)


def test_a_module_without_a_rule_is_an_error_and_not_lrp_in_name_only():
    """Trap 4."""
    for part in (torch.nn.LayerNorm(4), torch.nn.GELU()):
        with (
            pytest.raises(InputError, match=f"no rule for {type(part).__name__}"),
            relevance_rules(torch.nn.Sequential(torch.nn.Linear(4, 4), part), "attnlrp"),
        ):
            pass


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("save", [save_idefics3, save_paligemma])
def test_other_families_conserve_relevance_too(save, tmp_path):
    """Llama and Gemma decoders: neither has biases."""
    lvlm = load_lvlm(save(tmp_path))
    example = lvlm.encode(PATIENT.image, QUESTION, "Yes.")
    found = LRP(attention_rule="constant").explain(lvlm, example)
    assert found.diagnostics["conservation"] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_relevance_of_features_that_enter_after_later_blocks_is_counted(seed, tmp_path, monkeypatch):
    """Qwen3-VL. Without them the sum was .42, -.57 and -.33 of what was given, and nothing said so."""
    lvlm = load_lvlm(save_qwen3_vl(tmp_path, seed=seed))
    example = lvlm.encode(PATIENT.image, QUESTION, "Yes.")
    constant = LRP(attention_rule="constant")
    assert constant.explain(lvlm, example).diagnostics["conservation"] == pytest.approx(1, abs=1e-4)
    counted, _ = input_relevance(lvlm, example)
    monkeypatch.setattr(lvlm.family, "injected", None)
    assert abs(constant.explain(lvlm, example).diagnostics["conservation"] - 1) > 0.1
    ignored, _ = input_relevance(lvlm, example)
    changed = (counted - ignored).nonzero()[:, 0]
    assert changed.tolist() == example.image_positions.tolist()


def test_features_that_enter_after_the_last_block_reach_nothing(tmp_path):
    lvlm = load_lvlm(save_qwen3_vl(tmp_path, deepstack=(0, 1, 2)))
    example = lvlm.encode(PATIENT.image, QUESTION, "Yes.")
    found = LRP(attention_rule="constant").explain(lvlm, example)
    assert found.diagnostics["conservation"] == pytest.approx(1, abs=1e-4)


# -- the method --------------------------------------------------------------------------------------------


def test_the_saliency_is_the_positive_part_unless_asked_otherwise(lvlm, example):
    default, signed = (each.explain(lvlm, example).saliency for each in (LRP(), LRP(sign="signed")))
    assert signed.min() < 0
    assert np.array_equal(default, signed.clip(min=0))


def test_a_token_without_competition_has_next_to_no_relevance_from_its_log_probability(lvlm, example):
    """The full stop of "Yes.": its logit is as large as that of "Yes", and says nothing of the finding."""
    parts = {
        start: [LRP(start=start).explain(lvlm, example, target=(n, n + 1)).saliency.sum() for n in range(2)]
        for start in ("logit", "log_probability")
    }
    assert parts["logit"][1] > 0.3 * parts["logit"][0]
    assert parts["log_probability"][1] < 0.2 * parts["log_probability"][0]


class _Decoder(torch.nn.Module):
    def __init__(self, part):
        super().__init__()
        self.part, self.config = part, SimpleNamespace(_attn_implementation="sdpa")

    def set_attn_implementation(self, name):
        self.config._attn_implementation = name
