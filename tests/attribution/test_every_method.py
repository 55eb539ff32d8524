"""Facts that hold for every method that looks at the model, and the front `Method.attribute`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
import pytest

from medfocus_bench.attribution.attention import AttentionHead, AttentionRollout, RelativeAttention
from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.attribution.gradient import GradCAM, GradCAMPlusPlus, GradientWeightedAttention
from medfocus_bench.attribution.integrated_gradients import IntegratedGradients
from medfocus_bench.attribution.lrp import LRP
from medfocus_bench.attribution.perturbation import RISE, Occlusion
from medfocus_bench.attribution.protocol import Method
from medfocus_bench.attribution.registry import list_methods, load_method
from medfocus_bench.attribution.token_activation import TokenActivationMap
from medfocus_bench.errors import InputError
from tests.attribution.conftest import PATIENT, QUESTION, private, shipped
from tests.attribution.plain import ABOVE_CHANCE, evidence_ap, held_out_ap, planted

METHODS = [
    AttentionHead(),
    AttentionRollout(),
    RelativeAttention(),
    GradientWeightedAttention(),
    GradCAM(layer=1),
    GradCAMPlusPlus(layer=1),
    LRP(),
    TokenActivationMap(words="question", lens="input", centred=True),
    IntegratedGradients(steps=3),
    Occlusion(cells=3),
    RISE(masks=8),
]
PASSES = [(1, 0), (1, 0), (2, 0), (1, 1), (1, 1), (1, 1), (1, 1), (1, 0), (5, 3), (10, 0), (9, 0)]
"""Forward and backward passes of a map."""

OF_GRADIENTS = METHODS[3:7]

every_method = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)


@lru_cache
def qwen_with(**options):
    return private("phantom_qwen", **options)


@every_method
def test_a_picture_that_is_not_square_gets_a_map_of_its_own_grid(method):
    """Trap 8."""
    lvlm = qwen_with(framing="native")
    example = lvlm.encode(np.tile(PATIENT.image, (1, 2)), QUESTION, "Yes.")
    assert (example.grid.rows, example.grid.columns) == (5, 11)
    saliency = method.explain(lvlm, example).saliency
    top, bottom = example.frame.content[1], example.frame.content[3]
    assert saliency[top:bottom].any()
    assert not saliency[:top].any()
    assert not saliency[bottom:].any()


@every_method
def test_half_precision_gives_nearly_the_map_of_full_precision(qwen, method):
    first, second = (
        method.explain(lvlm, lvlm.encode(PATIENT.image, QUESTION, "Yes.")).saliency
        for lvlm in (qwen, qwen_with(dtype="bfloat16"))
    )
    assert np.isfinite(second).all()
    if isinstance(method, GradCAMPlusPlus):  # whose denominators change sign with the last digit
        return
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.9


@every_method
def test_a_picture_without_anything_in_it_gives_finite_values(lvlm, method):
    """Trap 21."""
    for grey in (0, 200):
        example = lvlm.encode(np.full((50, 80), grey, np.uint8), QUESTION, "No.")
        for settings in [{}, *list(method.candidates(lvlm))[::9]]:
            found = replace(method, **settings).explain(lvlm, example)
            assert np.isfinite(found.saliency).all()
            assert np.isfinite(list(found.diagnostics.values())).all()


@pytest.mark.parametrize("method", OF_GRADIENTS, ids=lambda method: method.name)
def test_targets_have_maps_of_their_own_and_one_token_has_one(lvlm, example, method):
    """Trap 1: read at the token's own row, the map of one token would be empty."""
    whole, first, last, verdict = (
        method.explain(lvlm, example, target=target).saliency
        for target in ("response", (0, 1), (1, 2), "verdict")
    )
    for one, other in ((whole, last), (first, last), (first, verdict)):
        assert not np.array_equal(one, other)
    one_token = lvlm.encode(PATIENT.image, QUESTION, "Yes")
    candidates = [replace(method, **settings) for settings in method.candidates(lvlm)]
    assert any(each.explain(lvlm, one_token).saliency.any() for each in candidates)


@pytest.mark.parametrize("layer", [-1, 7])
@pytest.mark.parametrize(
    "method", [each for each in METHODS if hasattr(each, "layer")], ids=lambda method: method.name
)
def test_a_block_that_is_not_there_is_an_error_with_the_range(qwen, method, layer):
    example = qwen.encode(PATIENT.image, QUESTION, "Yes.")
    with pytest.raises(InputError, match=rf"no block {layer} .* give one of 0 to [23]"):
        replace(method, layer=layer).explain(qwen, example)


@pytest.mark.parametrize(("method", "passes"), list(zip(METHODS, PASSES, strict=True)), ids=str)
def test_the_cost_is_measured_and_the_decoder_fused_again(qwen, method, passes):
    """Trap 6: sdpa gives an empty tuple of weights."""
    assert qwen.decoder.config._attn_implementation == "sdpa"
    found = method.attribute(qwen, PATIENT.image, QUESTION, "Yes.")
    assert (found.cost.forward_passes, found.cost.backward_passes) == passes
    assert found.cost.seconds > 0
    assert qwen.decoder.config._attn_implementation == "sdpa"


def test_attribute_is_the_hook_on_the_encoded_response_and_answers_without_one(qwen):
    example = qwen.encode(PATIENT.image, QUESTION, "Yes.")
    method = Occlusion(cells=2)
    found = method.attribute(qwen, PATIENT.image, QUESTION, "Yes.", target=(0, 1))
    assert np.array_equal(found.saliency, method.explain(qwen, example, target=(0, 1)).saliency)
    answered = method.attribute(qwen, PATIENT.image, QUESTION)
    said = qwen.generate(PATIENT.image, QUESTION)
    assert np.array_equal(
        answered.saliency, method.explain(qwen, qwen.encode(PATIENT.image, QUESTION, said)).saliency
    )


@dataclass(frozen=True)
class HoledMap(Method):
    """A map with a hole.

    More words.
    """

    def explain(self, lvlm, example, *, target, seed):
        return Attribution(saliency=np.array([[1.0, np.nan]]))


def test_a_method_is_named_and_described_by_its_class_and_its_map_is_finite(qwen):
    assert (HoledMap.name, HoledMap.description, HoledMap.title) == ("holed-map", "A map with a hole.", None)
    with pytest.raises(InputError, match=r"holed-map made a map of phantom_qwen in float32 with 1 of 2"):
        HoledMap().attribute(qwen, PATIENT.image, QUESTION, "Yes.")


def test_methods_are_listed_by_pattern_and_loaded_with_settings():
    assert list_methods("grad*") == ["grad-cam", "grad-cam-plus-plus", "gradient-weighted-attention"]
    assert load_method("grad-cam-plus-plus", layer=0) == GradCAMPlusPlus(layer=0)
    assert {load_method(name).name for name in list_methods()} == set(list_methods())


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("occlussion", {}, "no method"),
        ("occlusion", {"cell": 2}, "no setting 'cell', only cells, fill"),
        ("occlusion", {"cells": "many"}, "setting cells"),
        ("occlusion", {"cells": "0"}, "cells 0 is not within 1 and 64"),
        ("rise", {"cells": "300"}, "cells 300 is not within 1 and 64"),
        ("occlusion", {"fill": "7"}, "fill 7 is not a grey level"),
        ("rise", {"fill": "nan"}, "fill nan is not a grey level"),
        ("rise", {"masks": "0"}, "masks 0 is not within"),
        ("rise", {"keep": "0"}, "keep 0 is not a share of 64 cells"),
        ("rise", {"keep": "nan"}, "keep nan is not a share"),
        ("attention-rollout", {"residual": 1.0}, "residual"),
        ("attention-rollout", {"residual": float("nan")}, "residual"),
        ("lrp", {"attention_rule": "rollout"}, "attention_rule"),
        ("integrated-gradients", {"steps": 0}, "integrated-gradients"),
        ("integrated-gradients", {"pool": 0}, "integrated-gradients"),
        ("integrated-gradients", {"blur": 0.0}, "integrated-gradients"),
        ("integrated-gradients", {"baseline": "zero"}, "integrated-gradients"),
        ("token-activation-map", {"denoise": 2}, "token-activation-map"),
        ("token-activation-map", {"denoise": 0}, "token-activation-map"),
        ("token-activation-map", {"words": "all"}, "token-activation-map"),
        ("json:dumps", {}, "is not an attribution method"),
        (f"{__name__}:Method", {}, "is not an attribution method: it has no name"),
        ("nowhere:Method", {}, "cannot be imported"),
        ("json:Nothing", {}, "cannot be imported"),
    ],
)
def test_a_wrong_method_or_setting_is_named(name, settings, said):
    """Trap 35."""
    with pytest.raises(InputError, match=said):
        load_method(name, **settings)


HELD_OUT = [
    (AttentionHead, 24),
    (RelativeAttention, 24),
    (GradCAM, 24),
    (GradCAMPlusPlus, 24),
    (GradientWeightedAttention, 24),
    (LRP, 12),
    (partial(IntegratedGradients, steps=3), 6),
    (TokenActivationMap, 8),
]


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        pytest.param(kind, count, marks=[] if kind is LRP else pytest.mark.data, id=f"{number}")
        for number, (kind, count) in enumerate(HELD_OUT)
    ],
)
def test_settings_selected_on_some_samples_find_the_planted_evidence_of_others(lvlm, kind, count):
    assert held_out_ap(lvlm, kind, count) > (0.3 if kind is TokenActivationMap else ABOVE_CHANCE)


@pytest.mark.data
def test_rollout_finds_the_planted_evidence_where_image_tokens_see_each_other():
    lvlm = shipped("phantom_gemma")
    assert evidence_ap(lvlm, AttentionRollout(), planted(lvlm, 24)[::2]) > ABOVE_CHANCE
