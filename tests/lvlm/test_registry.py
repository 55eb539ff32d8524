"""LVLMs by key, folder or Hub id; what cannot be used is an error, at once and in one sentence."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import entry_points

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from medfocus_bench.data.questions import prompt
from medfocus_bench.errors import InputError
from medfocus_bench.lvlm.adapter import frame_picture
from medfocus_bench.lvlm.registry import PAPER_LVLMS, kept_lvlm, list_lvlms, load_lvlm
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
    assert {"qwen2_5_vl", "gemma3", "paligemma", "idefics3"} <= set(found)
    assert all(name == family.model_type for name, family in found.items())


def test_the_keys_are_listed_by_pattern():
    assert {*PAPER_LVLMS, *PHANTOM_LVLMS} == set(list_lvlms())
    assert list_lvlms("qwen*") == ["qwen2_5_vl_3b", "qwen2_5_vl_7b"]
    assert list_lvlms("nothing") == []


def test_the_last_lvlm_of_a_run_is_kept_as_long_as_nothing_about_it_changes(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint("tiny_paligemma"), tmp_path / "copy")
    (folder / ".#config.json").symlink_to("nowhere")
    first = kept_lvlm(folder)
    assert kept_lvlm(str(folder)) is first
    native = kept_lvlm(folder, framing="native")
    assert native is not first
    assert native.framing == "native"
    os.utime(folder / "config.json", ns=(1, 1))
    assert kept_lvlm(folder, framing="native") is not native


def test_an_lvlm_that_a_caller_changes_is_in_no_run(checkpoint):
    assert load_lvlm(checkpoint("tiny_paligemma")) is not load_lvlm(checkpoint("tiny_paligemma"))
    assert kept_lvlm(checkpoint("tiny_paligemma")) is not load_lvlm(checkpoint("tiny_paligemma"))


@pytest.mark.parametrize("name", ["tiny_paligemma", "tiny_idefics3"])
def test_a_folder_is_loaded_under_its_own_name(checkpoint, name):
    lvlm = load_lvlm(checkpoint(name))
    assert lvlm.key == checkpoint(name).name
    assert len(lvlm.encode(picture(1), QUESTION, "Yes.").answer) > 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dtype": "fp32"}, "no dtype 'fp32'; there are float32, bfloat16, float16"),
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


def _without(*names):
    def spoil(folder):
        for name in names:
            (folder / name).unlink()

    return spoil


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
        (_written({"model_type": "llava"}), "no family of LVLMs fits models of type 'llava', only gemma3, "),
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


def test_code_that_comes_with_a_checkpoint_is_neither_run_nor_asked_about(tmp_path):
    """Trap 32: left to itself the library asks on the terminal, and a `y` runs the code."""
    folder = tmp_path / "foreign"
    shutil.copytree(PHANTOM_LVLMS["phantom_qwen"], folder)
    code = {"AutoConfig": "foreign.Config", "AutoModelForImageTextToText": "foreign.Model"}
    _with_config(model_type="foreign", auto_map=code)(folder)
    (folder / "foreign.py").write_text("from pathlib import Path\nPath(__file__).with_name('ran').touch()\n")
    program = f"from medfocus_bench.lvlm.registry import load_lvlm; load_lvlm({str(folder)!r})"
    run = subprocess.run(
        [sys.executable, "-c", program], input="y\n", capture_output=True, text=True, check=False
    )
    assert "InputError" in run.stderr
    assert "[y/N]" not in run.stdout + run.stderr
    assert not [*folder.rglob("ran")]


def test_a_hub_id_that_cannot_be_reached_is_one_sentence(tmp_path, closed_url):
    """Without the client's retries, which take half a minute and a line each; then in its offline mode."""
    program = (
        "from huggingface_hub import constants\n"
        "from medfocus_bench.errors import InputError\n"
        "from medfocus_bench.lvlm.registry import load_lvlm\n"
        "for constants.HF_HUB_OFFLINE in (False, True):\n"
        "    for source in ('medgemma_4b', 'nobody/nothing'):\n"
        "        try:\n"
        "            load_lvlm(source)\n"
        "        except InputError as error:\n"
        "            print(error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"HF_ENDPOINT": closed_url, "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "retry" not in run.stderr.lower()
    said = run.stdout.strip().splitlines()
    assert len(said) == 4
    for first, second in (said[:2], said[2:]):
        assert first.startswith("google/medgemma-4b-it: cannot be loaded as an LVLM: ")
        assert second.startswith("nobody/nothing: cannot be loaded as an LVLM: ")


_PINNED = """
import numpy as np
from medfocus_bench.lvlm.registry import PAPER_LVLMS, HubModel, load_lvlm

pinned, newest = "a" * 40, "b" * 40
PAPER_LVLMS["tiny"] = HubModel("somebody/tiny", pixels=(56 * 56, 112 * 112), revision=pinned)

def shown(source, **options):
    lvlm = load_lvlm(source, framing="native", **options)
    grid = lvlm.encode(np.zeros((224, 224), dtype=np.uint8), "?", "Yes").grid
    print(lvlm.key, lvlm.model.config.model_type, grid.rows, grid.columns)

shown("tiny")
shown("somebody/tiny")
shown("somebody/tiny", revision=newest)
shown("somebody/other", revision=pinned)
"""


def test_the_registrys_limits_and_revision_reach_the_model_by_its_key_and_by_its_hub_id(tmp_path):
    """From a cache of the Hub that holds two revisions; a revision that a caller gives goes before."""
    for name in ("tiny", "other"):
        snapshots = tmp_path / "hub" / f"models--somebody--{name}" / "snapshots"
        shutil.copytree(PHANTOM_LVLMS["phantom_qwen"], snapshots / ("a" * 40))
        shutil.copytree(PHANTOM_LVLMS["phantom_gemma"], snapshots / ("b" * 40))
        (snapshots.parent / "refs").mkdir()
        (snapshots.parent / "refs" / "main").write_text("b" * 40)
    run = subprocess.run(
        [sys.executable, "-c", _PINNED],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.splitlines() == [
        "tiny qwen2_5_vl 4 4",
        "somebody--tiny qwen2_5_vl 4 4",
        "somebody--tiny gemma3 8 8",
        "somebody--other qwen2_5_vl 8 8",
    ]


def test_qwens_of_the_paper_have_limits_of_pixels_and_the_others_one_size():
    limits = {key: model.pixels for key, model in PAPER_LVLMS.items()}
    assert limits["qwen2_5_vl_3b"] == limits["qwen2_5_vl_7b"] == (3136, 1_003_520)
    assert [limits[key] for key in limits if "gemma" in key] == [None] * 4


def test_a_model_that_no_picture_reaches_is_an_error(tmp_path):
    """Trap 13: built from config, Gemma 3 has an all-zero projector, and all pictures get the same logits."""
    folder = save_gemma(tmp_path / "blind", projector=0.0)
    plain = Plain(folder)
    one, other = (plain.logits(**plain.inputs(frame_picture(picture(n), 224), QUESTION)) for n in (1, 2))
    assert (one == other).all()
    with pytest.raises(InputError, match="mm_input_projection_weight is zero everywhere"):
        load_lvlm(folder)


def test_the_classes_of_the_new_families_are_the_librarys_own(checkpoint):
    for name, kind in (("tiny_paligemma", "PaliGemma"), ("tiny_idefics3", "Idefics3")):
        model = AutoModelForImageTextToText.from_pretrained(checkpoint(name))
        assert type(model).__name__ == f"{kind}ForConditionalGeneration"
