"""Copies of LVLMs with a random decoder, by key."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from medfocus_bench.errors import InputError
from medfocus_bench.lvlm.random_decoder import draw_decoder
from medfocus_bench.lvlm.registry import (
    LVLMSource,
    kept_lvlm,
    list_lvlms,
    load_lvlm,
    lvlm_key,
    trained_key,
    trained_source,
)
from medfocus_bench.runs.checkpoints import folder_identity
from tests.lvlm.conftest import EVERY_FAMILY, picture


@pytest.mark.parametrize("name", EVERY_FAMILY)
def test_only_the_matrices_of_the_decoders_blocks_are_drawn_each_with_its_own_variance(name, checkpoint):
    source = checkpoint(name)
    trained, drawn = load_lvlm(source), load_lvlm(f"{source}@random")
    blocks = {id(weight) for layer in drawn.decoder.layers for weight in layer.parameters()}
    before = dict(trained.model.named_parameters())
    matrices = 0
    for path, weight in drawn.model.named_parameters():
        if id(weight) not in blocks or weight.ndim != 2:
            assert torch.equal(weight, before[path]), path
            continue
        matrices += 1
        assert not torch.isclose(weight, before[path]).any(dim=0).all(), path
        correlation = np.corrcoef(weight.flatten(), before[path].flatten())[0, 1]
        assert abs(correlation) < 5 / weight.numel() ** 0.5, path
        spread, width = float(before[path].std(correction=0)), 5 / weight.numel() ** 0.5
        assert float(weight.std()) == pytest.approx(spread, rel=width)
        assert abs(float(weight.mean())) < width * spread
    assert matrices == 7 * len(drawn.decoder.layers)  # q, k, v, o; gate, up, down


def weights(source: str, **options: str) -> torch.Tensor:
    layers = load_lvlm(source, **options).decoder.layers
    return torch.cat([w.flatten().float() for layer in layers for w in layer.parameters() if w.ndim == 2])


def test_the_seed_alone_decides_what_is_drawn_whatever_the_dtype():
    first = weights("phantom_qwen@random")
    assert torch.equal(first, weights("phantom_qwen@random-0"))
    assert torch.isclose(first, weights("phantom_qwen@random-7")).float().mean() < 0.01
    torch.manual_seed(3)
    rounded = weights("phantom_qwen@random", dtype="bfloat16")
    torch.testing.assert_close(rounded, first, rtol=0.01, atol=1e-3)


def test_a_random_decoder_does_not_answer_as_the_trained_one_does():
    question = (
        "Is there evidence of nodule in the image? Answer directly with yes or no without any explanation."
    )
    trained, drawn = load_lvlm("phantom_gemma"), load_lvlm("phantom_gemma@random")
    image = picture(64, 64)
    said = trained.generate(image, question)
    assert (
        drawn.log_probs([image], question, said).sum() < trained.log_probs([image], question, said).sum() - 1
    )


@pytest.mark.parametrize(
    ("source", "key", "trained"),
    [
        ("phantom_qwen@random", "phantom_qwen@random", "phantom_qwen"),
        ("phantom_qwen@random-0", "phantom_qwen@random", "phantom_qwen"),
        ("phantom_qwen@random-7", "phantom_qwen@random-7", "phantom_qwen"),
        ("qwen2_5_vl_3b@random", "qwen2_5_vl_3b@random", "qwen2_5_vl_3b"),
        ("google/medgemma-4b-it@random", "google--medgemma-4b-it@random", "google/medgemma-4b-it"),
    ],
)
def test_every_lvlm_has_a_random_copy_by_its_name(source, key, trained):
    assert lvlm_key(source) == LVLMSource.of(source).key == key
    assert str(trained_source(source)[0]) == trained
    assert trained_key(key) == lvlm_key(trained)
    assert key not in list_lvlms()


def test_a_random_copy_has_none_of_its_own():
    with pytest.raises(InputError, match="twice"):
        lvlm_key("phantom_qwen@random@random-1")


def test_a_checkpoint_folder_has_a_random_copy_and_one_that_is_called_so_is_itself(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint("tiny_paligemma"), tmp_path / "copy")
    assert load_lvlm(f"{folder}@random-3").key == "copy@random-3"
    odd = shutil.copytree(folder, tmp_path / "odd@random")
    assert trained_source(odd) == (odd, None)
    assert torch.equal(weights(str(odd)), weights(str(folder)))


def test_copies_are_kept_apart_and_know_their_checkpoint():
    trained = kept_lvlm("phantom_qwen")
    drawn = kept_lvlm("phantom_qwen@random")
    assert (trained.key, drawn.key) == ("phantom_qwen", "phantom_qwen@random")
    assert kept_lvlm("phantom_qwen@random") is drawn
    identity = folder_identity("phantom_qwen")
    assert folder_identity("phantom_qwen@random") == f"{identity}@random-0"
    assert folder_identity("phantom_qwen@random-7") == f"{identity}@random-7"


def test_the_stacked_matrices_of_experts_are_drawn_too():
    layer = torch.nn.Module()
    layer.experts = torch.nn.Parameter(torch.linspace(-1, 1, 4 * 20 * 20).reshape(4, 20, 20))
    layer.norm = torch.nn.Parameter(torch.ones(20))
    decoder = torch.nn.Module()
    decoder.layers = torch.nn.ModuleList([layer])
    before = layer.experts.detach().clone()
    draw_decoder(decoder, decoder, 0, name="experts")
    assert torch.isclose(layer.experts.detach(), before).float().mean() < 0.01
    assert float(layer.experts.detach().std()) == pytest.approx(float(before.std()), rel=0.1)
    assert torch.equal(layer.norm.detach(), torch.ones(20))


def test_quantised_weights_cannot_be_drawn():
    with pytest.raises(InputError, match="phantom_qwen@random: the decoder of quantised weights"):
        load_lvlm("phantom_qwen@random", quantise="4bit")
    lvlm = load_lvlm("phantom_qwen")
    lvlm.model.is_quantized = True
    with pytest.raises(InputError, match="are quantised"):
        draw_decoder(lvlm.model, lvlm.decoder, 0, name="phantom_qwen")


@pytest.mark.parametrize("name", ["phantom_qwen@c", "nobody@random", "phantom_qwen@random-x", "a/b@c"])
def test_a_name_that_is_none_is_an_error_that_lists_the_others(name):
    with pytest.raises(InputError, match=r"there are phantom_qwen, .* with @random has a random decoder"):
        lvlm_key(name)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("phantom_qwen@a", "phantom_qwen_twin"),
        ("phantom_qwen@b", "phantom_qwen"),
        ("phantom_gemma@a", "phantom_gemma"),
        ("phantom_gemma@b", "phantom_gemma_twin"),
    ],
)
def test_a_second_name_loads_the_same_weights_and_says_nothing_of_them(name, key):
    second, first = load_lvlm(name), load_lvlm(key)
    assert (second.key, trained_key(name)) == (name, key)
    assert torch.equal(
        second.decoder.layers[0].mlp.up_proj.weight, first.decoder.layers[0].mlp.up_proj.weight
    )
    assert folder_identity(name) == folder_identity(key)
    assert name not in list_lvlms()
