"""An adapter (PEFT) is the LVLM that its change of the base's weights makes, or an error in a sentence."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from medfocus_bench.attribution.registry import load_method
from medfocus_bench.data.questions import prompt
from medfocus_bench.errors import InputError, MissingExtraError
from medfocus_bench.lvlm import fine_tune
from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
from medfocus_bench.lvlm.registry import HUB_LVLMS, HubModel, kept_lvlm, load_lvlm, lvlm_key, model_type_of
from medfocus_bench.phantom import PHANTOM_LVLMS
from medfocus_bench.runs.checkpoints import folder_identity, loaded_identity
from tests.lvlm.conftest import picture

peft = pytest.importorskip("peft")
QUESTION = prompt("nodule", "direct")
SCALE = 2.0
"""lora_alpha / r of the adapters here."""
WEIGHTS, CONFIG = fine_tune.WEIGHTS, fine_tune.CONFIG


def save_adapter(folder: Path, base: Path, **settings) -> Path:
    """A LoRA of random weights for the checkpoint in `base`, as peft saves it."""
    model = HuggingFaceLVLM("base", base).model
    torch.manual_seed(0)
    settings = {"target_modules": ["q_proj", "v_proj", "down_proj"], "r": 4, **settings}
    config = peft.LoraConfig(lora_alpha=SCALE * settings["r"], init_lora_weights=False, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft.get_peft_model(model, config).save_pretrained(folder)
    return folder


def save_merged(folder: Path, base: Path, adapter: Path) -> Path:
    """The base with the adapter's change added by hand, as a plain folder."""
    lvlm = HuggingFaceLVLM("base", base)
    weights = load_file(adapter / WEIGHTS)
    for name in [name for name in weights if name.endswith("lora_A.weight")]:
        inner, outer = weights[name], weights[name.replace("lora_A", "lora_B")]
        place = name.removeprefix("base_model.model.").replace("lora_A.weight", "weight")
        lvlm.model.get_parameter(place).data += SCALE * outer @ inner
    shutil.copytree(base, folder)
    lvlm.model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(checkpoint):
    return checkpoint("tiny_qwen")


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory):
    return save_adapter(tmp_path_factory.mktemp("adapters") / "mine", base)


@pytest.fixture(scope="module")
def plain(base, adapter, tmp_path_factory):
    return load_lvlm(save_merged(tmp_path_factory.mktemp("merged") / "plain", base, adapter))


@pytest.fixture
def copied(adapter, tmp_path):
    return shutil.copytree(adapter, tmp_path / "mine")


def change(folder: Path, **settings) -> Path:
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder


def score(lvlm) -> float:
    return float(lvlm.log_probs([picture(1)], QUESTION, "Yes.").sum())


METHODS = [
    load_method("occlusion", cells=2),
    load_method("integrated-gradients", steps=2),
    load_method("attention-rollout"),
    load_method("grad-cam", layer=0),
    load_method("lrp"),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_its_attributions_are_those_of_the_merged_model_in_a_plain_folder(adapter, plain, open_lvlm, method):
    lvlm = kept_lvlm(adapter)
    asked = (picture(1), QUESTION, "Yes.")
    ours, theirs, of_base = (
        method.attribute(each, *asked).saliency for each in (lvlm, plain, open_lvlm("tiny_qwen"))
    )
    assert np.allclose(ours, theirs, atol=1e-5, rtol=0)
    assert not np.allclose(ours, of_base, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["phantom_gemma", "tiny_paligemma", "tiny_idefics3"])
def test_adapters_of_other_families_are_merged_alike(checkpoint, tmp_path, name):
    base = checkpoint(name)
    lora = save_adapter(tmp_path / "lora", base)
    ours, theirs = load_lvlm(lora), load_lvlm(save_merged(tmp_path / "plain", base, lora))
    assert score(ours) == pytest.approx(score(theirs), abs=1e-5)
    assert score(ours) != pytest.approx(score(HuggingFaceLVLM("base", base)), abs=1e-3)


@pytest.mark.parametrize(
    ("name", "newer", "older"),
    [
        ("tiny_qwen", ".model.model.language_model.layers.", ".model.model.layers."),
        ("phantom_gemma", ".model.model.language_model.layers.", ".model.language_model.model.layers."),
    ],
)
def test_adapters_of_earlier_versions_of_transformers_are_merged_alike(
    checkpoint, tmp_path, name, newer, older
):
    folder = save_adapter(tmp_path / "lora", checkpoint(name))
    expected = score(load_lvlm(folder))
    weights = load_file(folder / WEIGHTS)
    assert all(newer in key for key in weights if "visual" not in key and "vision" not in key)
    save_file({key.replace(newer, older): value for key, value in weights.items()}, folder / WEIGHTS)
    assert score(load_lvlm(folder)) == pytest.approx(expected, abs=1e-6)


def test_the_key_says_base_and_adapter_and_the_model_is_the_bases(adapter, base):
    lvlm = kept_lvlm(adapter)
    assert lvlm.key == lvlm_key(adapter) == f"{base.name}+mine"
    assert type(lvlm.model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert model_type_of(adapter) == "qwen2_5_vl"
    assert not [name for name, _ in lvlm.model.named_modules() if "lora" in name]
    assert not any(weight.requires_grad for weight in lvlm.model.parameters())


def test_a_base_may_be_a_key_and_a_folder_beside_the_adapter(copied, base, adapter):
    expected = score(kept_lvlm(adapter))
    shutil.copytree(base, copied / "base")
    assert score(load_lvlm(change(copied, base_model_name_or_path="base"))) == expected
    change(copied, base_model_name_or_path="phantom_qwen")
    assert lvlm_key(copied) == "phantom_qwen+mine"


def test_a_random_copy_is_drawn_after_merging(adapter, plain):
    drawn, trained = load_lvlm(f"{adapter}@random-3"), kept_lvlm(adapter)
    name = "model.language_model.layers.0.self_attn.q_proj.weight"
    ours, merged = (each.model.get_parameter(name) for each in (drawn, trained))
    assert drawn.key == f"{trained.key}@random-3"
    assert not torch.equal(ours, merged)
    assert float(ours.std(correction=0)) == pytest.approx(float(merged.std(correction=0)), rel=0.05)


def test_the_identity_is_of_adapter_and_base(copied, base, adapter):
    moved = shutil.copytree(base, copied / "base")
    change(copied, base_model_name_or_path="base")
    found = [folder_identity(str(copied))]
    for path in (copied / WEIGHTS, moved / "generation_config.json"):
        content = bytearray(path.read_bytes())
        content[-2] ^= 1
        path.write_bytes(content)
        found.append(folder_identity(str(copied)))
    assert len({*found, folder_identity(str(base)), folder_identity(str(adapter))}) == 5
    assert all(one.startswith("sha256:") for one in found)
    assert folder_identity(f"{copied}@random").endswith("@random-0")
    assert loaded_identity(kept_lvlm(adapter)) is None


def test_a_kept_lvlm_is_loaded_anew_when_adapter_or_base_change(copied, base):
    import os

    moved = shutil.copytree(base, copied / "base")
    change(copied, base_model_name_or_path="base")
    first = kept_lvlm(copied)
    assert kept_lvlm(copied) is first
    os.utime(moved / "config.json", ns=(1, 1))
    second = kept_lvlm(copied)
    assert second is not first
    os.utime(copied / WEIGHTS, ns=(1, 1))
    assert kept_lvlm(copied) is not second


def _in_the_cache(name: str, commit: str, folder: Path) -> None:
    cached = Path(constants.HF_HUB_CACHE) / f"models--tuner--{name}"
    shutil.copytree(folder, cached / "snapshots" / commit)
    (cached / "refs").mkdir(exist_ok=True)
    (cached / "refs" / "main").write_text(commit)


def test_adapter_and_base_may_both_come_from_the_hub_the_base_in_the_registrys_revision(copied, monkeypatch):
    """From a cache of the Hub, without the Hub."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    tiny = HubModel(
        repository="tuner/tiny",
        family="qwen2_5_vl",
        billions=0.001,
        licence="MIT",
        revision="a" * 40,
    )
    monkeypatch.setitem(HUB_LVLMS, "tiny", tiny)
    base = PHANTOM_LVLMS["phantom_qwen"]
    save_adapter(copied, base, target_modules=["q_proj"])
    change(copied, base_model_name_or_path="tuner/tiny")
    _in_the_cache("tiny", "a" * 40, base)
    _in_the_cache("tiny", "c" * 40, PHANTOM_LVLMS["phantom_gemma"])
    _in_the_cache("lora", "b" * 40, copied)
    lvlm = load_lvlm("tuner/lora")
    assert lvlm.key == "tuner--lora"
    assert lvlm_key(copied) == "tiny+mine"
    assert folder_identity("tuner/lora") is None
    assert lvlm.tune.identity in loaded_identity(lvlm)
    assert score(lvlm) != score(load_lvlm("tuner/tiny"))
    (copied / WEIGHTS).unlink()
    _in_the_cache("half", "d" * 40, copied)
    with pytest.raises(InputError, match=f"holds {CONFIG} and no {WEIGHTS}; fetch it again"):
        load_lvlm("tuner/half")


def _fewer(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    del weights[min(weights)]
    save_file(weights, folder / WEIGHTS)


def _pickled(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")


@pytest.mark.parametrize(
    ("settings", "spoil", "said"),
    [
        ({"base_model_name_or_path": None}, None, f"{CONFIG}: names no base_model_name_or_path"),
        ({"base_model_name_or_path": "/nowhere/qwen"}, None, "'/nowhere/qwen' is neither a key"),
        ({"base_model_name_or_path": "."}, None, "is an adapter itself"),
        ({"r": 8}, None, f"{WEIGHTS}: does not fit .*size mismatch"),
        ({"target_modules": ["query"]}, None, f"{CONFIG}: does not fit .*query"),
        ({"target_modules": ["q_proj"]}, None, f"{WEIGHTS}: holds weights, such as .*v_proj|down_proj"),
        ({"peft_type": "NEWEST"}, None, f"{CONFIG}: does not fit .*NEWEST"),
        ({"target_modules": "((("}, None, f"{CONFIG}: does not fit .*missing \\)"),
        (
            {"base_model_name_or_path": "phantom_qwen@random"},
            None,
            "has a random decoder; name the trained one",
        ),
        ({}, lambda folder: (folder / CONFIG).write_text("[" * 100_000), f"{CONFIG}: cannot be read"),
        ({"megatron_config": {"a": 1}}, None, f"{CONFIG}: megatron_config"),
        ({"base_model_name_or_path": "phantom_gemma"}, None, "does not fit phantom_gemma"),
        ({}, _fewer, f"{WEIGHTS}: lacks weights, such as .*lora_A"),
        ({}, lambda folder: (folder / WEIGHTS).write_bytes(b"x" * 100), f"{WEIGHTS}: cannot be read"),
        ({}, lambda folder: (folder / WEIGHTS).unlink(), f"holds {CONFIG} and no {WEIGHTS}"),
        ({}, _pickled, r"adapter_model\.bin: is a pickle"),
        ({}, lambda folder: (folder / CONFIG).write_text("{"), f"{CONFIG}: cannot be read"),
        ({}, lambda folder: (folder / "model.safetensors").touch(), "an adapter and whole weights"),
    ],
)
def test_what_cannot_be_merged_is_a_sentence_that_names_file_and_reason(copied, settings, spoil, said):
    change(copied, **settings)
    if spoil is not None:
        spoil(copied)
    with pytest.raises(InputError, match=said) as caught:
        load_lvlm(copied)
    assert str(copied) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_prompt_that_was_learnt_is_not_weights(copied):
    config = {"peft_type": "PROMPT_TUNING", "task_type": "CAUSAL_LM", "num_virtual_tokens": 4}
    base = json.loads((copied / CONFIG).read_text())["base_model_name_or_path"]
    (copied / CONFIG).write_text(json.dumps(config | {"base_model_name_or_path": base}))
    with pytest.raises(InputError, match="PROMPT_TUNING learns a prompt"):
        load_lvlm(copied)


def test_a_change_of_tied_embeddings_is_refused(checkpoint, tmp_path):
    base = checkpoint("phantom_gemma")
    model = HuggingFaceLVLM("base", base).model
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    folder = save_adapter(tmp_path / "head", base, target_modules=["lm_head"])
    with pytest.raises(InputError, match="changes lm_head, a matrix that is embeddings and output head"):
        load_lvlm(folder)


def test_few_bits_are_refused_before_anything_is_merged(copied, base, monkeypatch):
    monkeypatch.setattr("medfocus_bench.lvlm.checkpoint.unusable", lambda *_: None)
    with pytest.raises(InputError, match="an adapter is merged into whole weights; leave out quantise"):
        load_lvlm(copied, quantise="4bit")
    quantised = shutil.copytree(base, copied / "base")
    config = json.loads((quantised / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (quantised / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="has quantised weights; name the same LVLM with whole weights"):
        load_lvlm(change(copied, base_model_name_or_path="base"))


def test_without_peft_the_extra_is_named(adapter, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"peft: .* pip install 'medfocus-bench\[peft\]'"):
        load_lvlm(adapter)
