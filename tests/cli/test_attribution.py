"""`attribute`, `tune` and `pack` end to end, on real rows of the phantom track and on real radiographs."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from medfocus_bench.attribution.registry import list_methods
from medfocus_bench.data.writing import write_benchmark
from medfocus_bench.lvlm import registry
from medfocus_bench.runs.records import RecordFiles
from medfocus_bench.runs.settings import read_settings

from ..runs.conftest import CONTENT, first_rows
from ..runs.methods import HERE, Counting
from .running import refused, run

COUNTING, SIDED = f"{HERE}:Counting", f"{HERE}:Sided"
QUESTION = first_rows("direct")[0]["question"]
QUICK = ("--resamples", "200", "--no-nulls")


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "small"
    write_benchmark(folder, {split: first_rows(split) for split in CONTENT}, name="small", version="1")
    return folder


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("picture") / "p.png"
    path.write_bytes(first_rows("direct")[0]["image"]["bytes"])
    return path


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.setattr(Counting, "calls", [])
    monkeypatch.setattr(Counting, "breaks_at", None)


def test_attribute_pack_validate_evaluate(bench, tmp_path):
    out, packed = tmp_path / "run", tmp_path / "submissions" / "mine"
    words = ("attribute", "--method", "occlusion,rise", "-b", bench, "--split", "direct", "--out", out)
    words += ("--set", "cells=4", "--set", "rise.masks=8", "--lvlm", "phantom_qwen")
    status, shown, _ = run(*words, "--limit", 2)
    assert status == 0
    assert "occlusion, phantom_qwen direct" in shown
    status, shown, error = run("pack", out, "--method", "occlusion", "-o", packed)
    assert (status, shown) == (2, "")
    assert "4 of 6 samples are missing (phantom_qwen direct 2, phantom_gemma direct 2)" in error
    assert run(*words[:-2], "--lvlm", "phantom_qwen,phantom_gemma")[0] == 0
    status, shown, _ = run(
        "pack", out, "--method", "occlusion", "-o", packed, "--submitter", "Ada", "--version", "2"
    )
    assert status == 0
    assert shown.startswith(f"{packed}: Occlusion 2, 6 of 6 samples of phantom / direct\n6 explain something")
    assert run("validate", packed, "-b", bench)[0] == 0
    status, shown, _ = run("evaluate", packed, "-b", bench, "--format", "json", *QUICK)
    report = json.loads(shown)
    counts = report["counts"]
    assert [counts[name] for name in ("samples", "attributed", "missing", "no_explanation")] == [6, 6, 0, 0]
    assert report["cost"]["forward_passes"] == 17
    assert report["method"]["hyperparameters"]["cells"] == 4
    assert report["submitters"] == [{"name": "Ada", "affiliation": None, "url": None}]


def test_an_interrupted_attribute_goes_on_where_it_stopped(bench, tmp_path, monkeypatch):
    words = ("attribute", "--method", COUNTING, "-b", bench, "--split", "direct", "--out", tmp_path)
    monkeypatch.setattr(Counting, "breaks_at", 4)
    with pytest.raises(RuntimeError, match="the power is gone"):
        run(*words)
    monkeypatch.setattr(Counting, "breaks_at", None)
    status, shown, _ = run(*words)
    assert status == 0
    assert len(Counting.calls) == 6
    assert "samples  had  made" in shown


def test_tune_writes_a_file_that_attribute_and_pack_quote(bench, tmp_path):
    file, out, packed = tmp_path / "sided.json", tmp_path / "run", tmp_path / "s"
    words = ("tune", SIDED, "--lvlm", "phantom_qwen", "-b", bench, "--out", file)
    status, shown, _ = run(*words)
    assert status == 0
    assert "Sided for phantom_qwen, direct" in shown
    assert "side = left" in shown
    status, shown, _ = run(*words, "--mode", "reasoning", "--limit", 1)
    assert status == 0
    document = json.loads(file.read_text())
    assert document["parts"].keys() == {"phantom_qwen direct", "phantom_qwen reasoning"}
    chosen = document["parts"]["phantom_qwen direct"]["chosen"]["side"]
    words = ("attribute", "--method", SIDED, "-b", bench, "--split", "direct", "--out", out)
    status, _, _ = run(*words, "--tuned", file, "--lvlm", "phantom_qwen")
    assert status == 0
    assert run("pack", out, "-o", packed, "--partial")[0] == 0
    method = json.loads((packed / "submission.json").read_text())["method"]
    assert method["tuned_on_dev"]
    assert method["hyperparameters"]["phantom_qwen direct: side"] == chosen
    assert run("validate", packed, "-b", bench)[0] == 0


def test_one_picture_gets_maps_overlays_and_a_panel(picture, tmp_path):
    out = tmp_path / "out"
    words = ("attribute", "--image", picture, "--question", QUESTION, "--lvlm", "phantom_qwen", "--out", out)
    words += ("--method", "occlusion,rise,centre-box", "--set", "cells=4", "--set", "rise.masks=8")
    status, shown, error = run(*words)
    assert (status, error.replace("\r", "").count("Traceback")) == (0, 0)
    assert "phantom_qwen answers: Yes." in shown
    assert str(out / "panel.png") in shown
    with Image.open(out / "panel.png") as panel:
        assert panel.format == "PNG"
        assert panel.width == 2 * 28 + 4 * 300 + 3 * 18
        assert 400 < panel.height < 600
        drawn = np.asarray(panel.convert("RGB"))
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 1000
    assert run(*words)[0] == 2
    assert run(*words, "--overwrite")[0] == 0


EVERY_METHOD = ("--method", "all", "--set", "prompting-medsam.detector=phantom_owlv2")
EVERY_METHOD += ("--set", "prompting-medsam.segmenter=phantom_sam")
QUICKER = ("rise.masks=8", "occlusion.cells=4", "integrated-gradients.steps=4", "medfocus-plus.probes=8")


@pytest.mark.parametrize("name", ["00000001_000.png", "00027426_000.png"])
def test_every_method_explains_a_real_radiograph(real_data, tmp_path, name):
    out = tmp_path / "out"
    image = real_data / "cxr" / name
    words = ("attribute", "--image", image, "--question", QUESTION, "--out", out)
    words += ("--lvlm", "phantom_gemma", *EVERY_METHOD)
    assert run(*words, *(word for text in QUICKER for word in ("--set", text)))[0] == 0
    found = json.loads((out / "explanations.json").read_text())["explanations"]
    assert len(found) == len(list_methods())
    assert {one["method"]["name"]: one["error"] for one in found if one["error"]} == {}
    maps = load_file(out / "maps.safetensors")
    with Image.open(image) as original:
        size = original.size
    for one in found:
        said, name = one["explanation"], one["method"]["name"]
        assert bool(said["map"]) == (name in maps) == (said["boxes"] is None)
        with Image.open(out / one["overlay"]) as overlay:
            assert overlay.size == size
    assert len(maps) >= 12
    with Image.open(out / "panel.png") as panel:
        assert panel.width == 2 * 28 + 4 * 300 + 3 * 18
        tile = 30 + 300 * size[1] / size[0] + 26 + 18
        assert 4 * tile < panel.height < 5 * tile


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ((), [0.0, 0.0, 0.0]),
        (("--seed", 3), [3.0, 0.0, 0.0]),
        (("--framing", "native"), [0.0, 1.0, 0.0]),
        (("--target", "verdict"), [0.0, 0.0, 1.0]),
    ],
)
def test_seed_framing_and_target_reach_the_methods(bench, picture, tmp_path, given, told):
    common = ("attribute", "--method", f"{HERE}:Telling", "--lvlm", "phantom_qwen", *given)
    words = (*common, "-b", bench, "--split", "direct", "--limit", 1, "--out", tmp_path / "run")
    assert run(*words)[0] == 0
    (files,) = RecordFiles.all_of(tmp_path / "run" / "telling")
    (record,) = files.read()
    assert [record.diagnostics[name] for name in ("seed", "native", "verdict")] == told
    words = (*common, "--image", picture, "--question", QUESTION, "--out", tmp_path / "out")
    assert run(*words)[0] == 0
    (one,) = json.loads((tmp_path / "out" / "explanations.json").read_text())["explanations"]
    assert [one["diagnostics"][name] for name in ("seed", "native", "verdict")] == told


def test_the_first_line_of_a_run_says_where_the_lvlm_runs_and_the_settings_in_which_type(bench, tmp_path):
    words = ("attribute", "--method", "grad-cam", "--lvlm", "phantom_qwen", "-b", bench, "--split", "direct")
    words += ("--limit", 1, "--out", tmp_path / "run")
    _, _, error = run(*words)
    assert error.splitlines()[0] == "LVLM phantom_qwen on cpu in float32"
    assert read_settings(tmp_path / "run" / "grad-cam").dtype == "float32"
    assert run(*words)[2] == ""  # nothing runs


def test_decoding_and_pixels_reach_the_lvlm_and_the_settings_of_the_run(bench, tmp_path):
    words = ("attribute", "--method", "grad-cam", "--lvlm", "phantom_qwen", "--framing", "native")
    words += ("--decoding", "checkpoint", "--pixels", "3136,12544", "-b", bench, "--split", "direct")
    assert run(*words, "--limit", 1, "--out", tmp_path / "run")[0] == 0
    settings = read_settings(tmp_path / "run" / "grad-cam")
    assert (settings.decoding, settings.pixels) == ("checkpoint", (3136, 12_544))
    (lvlm,) = registry._LAST.values()
    assert lvlm.decoding == "checkpoint"
    assert lvlm.processor.image_processor.size == {"shortest_edge": 3136, "longest_edge": 12_544}


@pytest.mark.parametrize(("methods", "status"), [("occlusion", 2), ("occlusion,whole-image", 0)])
def test_a_picture_that_no_method_could_explain_is_status_2(picture, tmp_path, methods, status):
    out = tmp_path / "out"
    words = ("attribute", "--image", picture, "--question", QUESTION, "--lvlm", "phantom_qwen", "--out", out)
    words += ("--method", methods, "--set", "occlusion.cells=2", "--response", "Yes.", "--target", "0:9")
    found, _, error = run(*words)
    assert found == status
    assert "occlusion: no tokens 0:9 in a response of 2" in error
    assert (out / "panel.png").is_file()


BENCHMARK_WORDS = {"--method": "occlusion", "--split": "direct", "--lvlm": "phantom_qwen"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--lvlm": "gpt"}, "no LVLM 'gpt'; there are phantom_qwen"),
        ({"--lvlm": "medgemma_4b"}, "no samples of the LVLM 'medgemma_4b'"),
        (
            {"--lvlm": "microsoft/maira-2"},
            "microsoft/maira-2 cannot be loaded: it comes with code",
        ),
        (
            {"--lvlm": "phantom_qwen,llama_3_2_vision_11b", "--method": "occlusion,lrp,grad-cam"},
            "lrp, grad-cam cannot explain llama_3_2_vision_11b: Llama 3.2 Vision does not read",
        ),
        ({"--method": "occlusio"}, "no method 'occlusio'"),
        ({"--method": ","}, "--method ,: names nothing"),
        ({"--lvlm": ","}, "--lvlm ,: names nothing"),  # rather than all
        ({"--split": "tests"}, "no split 'tests'"),
        ({"--split": ""}, "--split: is empty"),
        ({"--config": "vindr"}, "no config 'vindr'"),
        ({"--set": "cells"}, "write field=value"),
        ({"--set": "cels=3"}, "no setting 'cels'"),
        ({"--set": "cells=[1]"}, "setting cells"),
        ({"--target": "answer"}, "--target answer: give response, verdict, or tokens"),
        ({"--target": "3:2"}, "--target 3:2: give response"),
        ({"--tuned": "nowhere.json"}, "nowhere.json: cannot be read"),
        ({"--question": "why?"}, "--question goes with --image only"),
        ({"--dtype": "int4"}, "--dtype int4: unknown type of weights"),
        ({"--device": "abacus"}, "--device abacus: no such kind of device"),
        ({"--batch": "0"}, "--batch 0: give a number of pictures from 1 to 9999, or auto"),
        ({"--pixels": "3136"}, "--pixels 3136: give the least and the most, as 3136,1003520"),
        ({"--pixels": "9,8"}, "--pixels 9,8: give the least and the most"),
        ({"--batch": "many"}, "--batch many: give a number"),
        (
            {"--device": "auto-map"},
            "this needs accelerate: install the extra with pip install 'medfocus-bench[gpu]'",
        ),
        ({"--quantise": "8bit"}, "this needs accelerate"),
    ],
)
def test_bad_input_of_a_run_is_one_line_and_status_2(bench, tmp_path, monkeypatch, changes, message):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    options = BENCHMARK_WORDS | changes
    words = [word for option in options.items() for word in option]
    line = refused("attribute", "-b", bench, "--out", tmp_path / "run", *words)
    assert message in line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--question": " "}, "--question: is empty"),
        ({"--question": None}, "--image needs --question"),
        ({"--lvlm": None}, "--image needs one LVLM"),
        ({"--lvlm": "phantom_qwen,phantom_gemma"}, "--image needs one LVLM"),
        ({"--lvlm": "gpt"}, "no LVLM 'gpt'"),
        (
            {"--lvlm": "llama_3_2_vision_11b", "--method": "rise,grad-cam"},
            "grad-cam cannot explain llama_3_2_vision_11b: Llama 3.2 Vision does not read",
        ),
        ({"--split": "direct"}, "--split does not go with --image"),
        ({"--benchmark": "phantom"}, "--benchmark does not go with --image"),
        ({"--method": "both-lungs"}, "both-lungs is made from expert boxes"),
        ({"--response": ""}, "--response: is empty"),
        ({"--image": "nowhere.png"}, "nowhere.png: cannot be read"),
        ({"--image": __file__}, "is not a PNG or JPEG picture"),
    ],
)
def test_bad_input_of_a_picture_is_one_line_and_status_2(picture, tmp_path, changes, message):
    options = {"--image": picture, "--question": QUESTION, "--lvlm": "phantom_qwen", "--method": "occlusion"}
    words = [word for option in (options | changes).items() if option[1] is not None for word in option]
    assert message in refused("attribute", "--out", tmp_path / "out", *words)
    assert list(tmp_path.iterdir()) == []


def test_other_settings_in_a_folder_are_one_line_and_status_2(bench, tmp_path):
    words = ("attribute", "--method", COUNTING, "-b", bench, "--split", "direct", "--limit", 1)
    words += ("--lvlm", "phantom_qwen", "--out", tmp_path)
    assert run(*words)[0] == 0
    assert "was made with seed 0, and this run has 3; choose another folder" in refused(*words, "--seed", 3)


def test_a_method_that_explains_nothing_at_all_is_status_2_with_its_reason(bench, tmp_path):
    words = ("attribute", "--method", f"{HERE}:Stray", "-b", bench, "--split", "reasoning", "--out", tmp_path)
    status, shown, error = run(*words)
    assert status == 2
    assert "stray, phantom_qwen reasoning" in shown
    assert "1 of 1 samples failed, the first with: stray: phantom-" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("occlusion",), "occlusion declares no candidates"),
        (("occlusion", "--lvlm", "none/such"), "occlusion declares no candidates"),
        (("occlusio",), "no method 'occlusio'"),
        ((SIDED, "--lvlm", "gpt"), "no LVLM 'gpt'"),
        ((SIDED, "--lvlm", "phantom_gemma", "--mode", "reasoning"), "has no reasoning samples of the LVLM"),
    ],
)
def test_bad_input_of_tune_is_one_line_and_status_2(bench, tmp_path, words, message):
    line = refused("tune", *words, "-b", bench, "--out", tmp_path / "t.json")
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_a_tuning_file_of_another_method_is_one_line_and_status_2(bench, tmp_path):
    file = tmp_path / "t.json"
    assert run("tune", SIDED, "--lvlm", "phantom_qwen", "-b", bench, "--out", file)[0] == 0
    words = ("attribute", "--method", "occlusion", "-b", bench, "--split", "direct", "--out", tmp_path / "r")
    assert "is of the method sided, which is not in this run (occlusion)" in refused(*words, "--tuned", file)
    words = ("tune", SIDED, "-b", "phantom", "--lvlm", "phantom_qwen", "--out", file)
    assert "was tuned on small 1" in refused(*words)


def test_bad_input_of_pack_is_one_line_and_status_2(bench, tmp_path):
    assert "holds no records" in refused("pack", tmp_path / "none", "-o", tmp_path / "s")
    words = ("attribute", "--method", "whole-image,centre-box", "-b", bench, "--split", "direct")
    assert run(*words, "--out", tmp_path / "r")[0] == 0
    assert "choose one with --method" in refused("pack", tmp_path / "r", "-o", tmp_path / "s")
    words = ("pack", tmp_path / "r", "--method", "rise", "-o", tmp_path / "s")
    assert "holds no records of 'rise'" in refused(*words)
