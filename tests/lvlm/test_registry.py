"""LVLMs by key, folder or Hub id; what cannot be used is an error, at once and in one sentence."""

from __future__ import annotations

import json
import os
import shutil
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from medfocus_bench.data.questions import prompt
from medfocus_bench.errors import InputError
from medfocus_bench.lvlm.adapter import frame_picture
from medfocus_bench.lvlm.models import HUB_LVLMS, LAB_LVLMS, PAPER_LVLMS, UNLOADABLE, HubModel
from medfocus_bench.lvlm.registry import kept_lvlm, list_lvlms, load_lvlm, lvlm_key, model_type_of
from medfocus_bench.phantom import PHANTOM_LVLMS
from tests.lvlm.checkpoints import save_gemma
from tests.lvlm.conftest import picture
from tests.lvlm.plain import Plain

QUESTION = prompt("nodule", "direct")


def test_the_six_models_of_the_paper_are_there():
    assert {key: model.repository for key, model in PAPER_LVLMS.items()} == {
        "qwen2_5_vl_3b": "Qwen/Qwen2.5-VL-3B-Instruct",
        "qwen2_5_vl_7b": "Qwen/Qwen2.5-VL-7B-Instruct",
        "gemma3_4b": "google/gemma-3-4b-it",
        "gemma3_12b": "google/gemma-3-12b-it",
        "medgemma_4b": "google/medgemma-4b-it",
        "medgemma_1_5_4b": "google/medgemma-1.5-4b-it",
    }


def test_every_family_is_found_by_the_type_of_its_models():
    found = {entry.name: entry.load()() for entry in entry_points(group="medfocus_bench.lvlms")}
    assert {"qwen2_vl", "qwen2_5_vl", "qwen3_vl", "gemma3", "paligemma", "idefics3"} <= set(found)
    assert all(name == family.model_type for name, family in found.items())


def test_the_keys_are_listed_by_pattern():
    assert {*PAPER_LVLMS, *LAB_LVLMS, *PHANTOM_LVLMS} == set(list_lvlms())
    assert list_lvlms("qwen2_5_vl_?b") == ["qwen2_5_vl_3b", "qwen2_5_vl_7b"]
    assert list_lvlms("nothing") == []


def test_every_model_has_a_key_and_an_id_of_its_own_and_a_family_that_is_here():
    families = {entry.name for entry in entry_points(group="medfocus_bench.lvlms")}
    repositories = [model.repository for model in HUB_LVLMS.values()]
    assert len(set(repositories)) == len(HUB_LVLMS) == len(PAPER_LVLMS) + len(LAB_LVLMS)
    assert not set(repositories) & set(UNLOADABLE)
    for key, model in HUB_LVLMS.items():
        assert model.family in families, key
        assert lvlm_key(key) == key
        assert (model_type_of(key), model_type_of(model.repository)) == (model.family, model.family)
        assert not model.ran, "run it, and say on which machine in the docs"


@pytest.mark.parametrize("name", UNLOADABLE)
def test_a_model_that_needs_code_of_its_own_is_refused_by_its_id_before_anything_is_fetched(name):
    with pytest.raises(InputError, match=f"^{name} cannot be loaded: .* code of its own, which is never run"):
        load_lvlm(name)


def test_the_type_of_a_model_is_read_from_its_folder_and_not_known_of_other_hub_ids(tmp_path):
    assert model_type_of("phantom_gemma") == model_type_of(PHANTOM_LVLMS["phantom_gemma"]) == "gemma3"
    assert model_type_of("phantom_qwen@random") == model_type_of("phantom_qwen@a") == "qwen2_5_vl"
    assert model_type_of("nobody/nothing") is None
    for text in ("{", "[]", "{}"):
        (tmp_path / "config.json").write_text(text)
        assert model_type_of(tmp_path) is None


def test_the_page_lists_the_models_as_the_registry_has_them():
    page = (Path(__file__).parents[2] / "docs" / "add-an-lvlm.md").read_text()
    rows = [
        f"| `{key}` | `{model.repository}` | `{model.family}` | {model.billions:g} | {model.gigabytes:.0f} | "
        f"{model.licence}{', gated' * model.gated} | {'yes' if model.ran else 'no'} | {model.note} |"
        for key, model in HUB_LVLMS.items()
    ]
    assert "\n".join(rows) in page
    listed = [f"* `{name}`: {reason}." for name, reason in UNLOADABLE.items()]
    assert "\n".join(listed) in page


def test_the_last_lvlm_of_a_run_is_kept_as_long_as_nothing_about_it_changes(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint("tiny_paligemma"), tmp_path / "copy")
    (folder / ".#config.json").symlink_to("nowhere")
    first = kept_lvlm(folder)
    assert first.key == "copy"
    assert kept_lvlm(str(folder)) is first
    assert load_lvlm(folder) is not first, "a caller may change it"
    native = kept_lvlm(folder, framing="native")
    assert native is not first
    assert native.framing == "native"
    os.utime(folder / "config.json", ns=(1, 1))
    assert kept_lvlm(folder, framing="native") is not native


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dtype": "fp32"}, "no dtype 'fp32'; there are auto, float32, bfloat16, float16"),
        ({"device": "gpu"}, "device 'gpu'"),
        ({"device": "cuda:99"}, "device 'cuda:99'"),
        ({"attention": "fast"}, "fast"),
    ],
)
def test_an_option_that_cannot_be_is_an_error_that_names_it(options, said):
    """Trap 35."""
    with pytest.raises(InputError, match=said) as caught:
        load_lvlm("phantom_qwen", **options)
    assert "\n" not in str(caught.value)


def test_a_wrong_device_is_found_before_the_weights_are_read(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="device"):
        load_lvlm(tmp_path, device="gpu")


def _without(name):
    return lambda folder: (folder / name).unlink()


def _written(config):
    return lambda folder: (folder / "config.json").write_text(json.dumps(config))


def _with_config(**changes):
    def spoil(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return spoil


def _cut_weights(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def _fewer_weights(folder):
    weights = load_file(folder / "model.safetensors")
    kept = {name: values for name, values in weights.items() if "layers.1.self_attn.o_proj" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def _wider_text(folder):
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["intermediate_size"] *= 2
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_written("not a config"), "config.json"),
        (_with_config(model_type="nonsense"), "nonsense"),
        (_with_config(model_type="qwen3"), "no family of LVLMs fits models of type 'qwen3', only gemma3, "),
        (
            _written({"model_type": "blip-2"}),
            "no family of LVLMs fits models of type 'blip-2', only gemma3, ",
        ),
        (_without("model.safetensors"), "model.safetensors"),
        (_cut_weights, "cannot be loaded"),
        (_wider_text, "cannot be loaded"),
        (_fewer_weights, r"lacks weights of the LVLM, such as .*layers\.1\.self_attn\.o_proj\.weight"),
        (_without("processor_config.json"), "processor"),
    ],
)
def test_a_checkpoint_that_cannot_be_used_is_an_error_that_names_it(tmp_path, spoil, said):
    folder = tmp_path / "damaged"
    shutil.copytree(PHANTOM_LVLMS["phantom_qwen"], folder)
    spoil(folder)
    with pytest.raises(InputError, match=said) as caught:
        load_lvlm(folder)
    assert "\n" not in str(caught.value)


def test_code_that_comes_with_a_checkpoint_is_neither_run_nor_asked_about(tmp_path, monkeypatch):
    """Trap 32: left to itself the library asks on the terminal, and a `y` runs the code."""
    folder = tmp_path / "foreign"
    shutil.copytree(PHANTOM_LVLMS["phantom_qwen"], folder)
    code = {"AutoConfig": "foreign.Config", "AutoModelForImageTextToText": "foreign.Model"}
    _with_config(model_type="foreign", auto_map=code)(folder)
    (folder / "foreign.py").write_text("from pathlib import Path\nPath(__file__).with_name('ran').touch()\n")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    with pytest.raises(InputError, match="foreign: cannot be loaded"):
        load_lvlm(folder)
    assert not [*folder.rglob("ran")]


@pytest.mark.parametrize("offline", [False, True])
def test_a_hub_id_that_cannot_be_reached_is_one_sentence(closed_url, monkeypatch, capfd, offline):
    """Without the client's retries, which take half a minute and a line each; also in its offline mode."""
    monkeypatch.setattr(constants, "ENDPOINT", closed_url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    for source, name in (("medgemma_4b", "google/medgemma-4b-it"), ("nobody/nothing", "nobody/nothing")):
        with pytest.raises(InputError, match=f"^{name}: cannot be loaded as an LVLM: [^\n]*$"):
            load_lvlm(source)
    assert "retry" not in capfd.readouterr().err.lower()


def test_the_registrys_revision_reaches_the_model_by_its_key_and_by_its_hub_id(monkeypatch):
    """From a cache of the Hub that holds two revisions; a revision that a caller gives goes before."""
    pinned, newest = "a" * 40, "b" * 40
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    tiny = HubModel("somebody/tiny", "qwen2_5_vl", 0.001, "MIT", revision=pinned)
    monkeypatch.setitem(HUB_LVLMS, "tiny", tiny)
    for name in ("tiny", "other"):
        cached = Path(constants.HF_HUB_CACHE) / f"models--somebody--{name}"
        shutil.copytree(PHANTOM_LVLMS["phantom_qwen"], cached / "snapshots" / pinned)
        shutil.copytree(PHANTOM_LVLMS["phantom_gemma"], cached / "snapshots" / newest)
        (cached / "refs").mkdir()
        (cached / "refs" / "main").write_text(newest)
    for source, revision, expected in (
        ("tiny", None, ("tiny", "qwen2_5_vl")),
        ("somebody/tiny", None, ("somebody--tiny", "qwen2_5_vl")),
        ("somebody/tiny", newest, ("somebody--tiny", "gemma3")),
        ("somebody/other", pinned, ("somebody--other", "qwen2_5_vl")),
    ):
        lvlm = load_lvlm(source, revision=revision)
        assert (lvlm.key, lvlm.model.config.model_type) == expected


def test_a_model_that_no_picture_reaches_is_an_error(tmp_path):
    """Trap 13: built from config, Gemma 3 has an all-zero projector, and all pictures get the same logits."""
    folder = save_gemma(tmp_path / "blind", projector=0.0)
    plain = Plain(folder)
    one, other = (plain.logits(**plain.inputs(frame_picture(picture(n), 224), QUESTION)) for n in (1, 2))
    assert (one == other).all()
    with pytest.raises(InputError, match="mm_input_projection_weight is zero everywhere"):
        load_lvlm(folder)
