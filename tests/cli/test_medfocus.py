"""`ablate` and `reference build` end to end, and the panel of concepts of `attribute --image`."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from medfocus_bench.data.writing import write_benchmark
from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
from medfocus_bench.medfocus.reference import ReferencePool
from medfocus_bench.paper import ablate as ablation
from medfocus_bench.paper.ablate import Ablation, variants
from medfocus_bench.phantom.render import Patient, render

from ..paper.conftest import few_variants
from ..runs.conftest import first_rows
from .running import run

STUDIES = ["published", "region", "fill", "localisation", "pool size", "lambda", "eps", "null control"]


@pytest.fixture
def bench(tmp_path):
    rows = {split: first_rows(split) for split in ("dev", "direct")}
    write_benchmark(tmp_path / "small", rows, name="small", version="1")
    return tmp_path / "small"


def read_ablation(path) -> Ablation:
    return Ablation.model_validate_json(path.read_bytes())


# -- ablate ------------------------------------------------------------------------------------------------


def test_the_grid_is_the_papers():
    grid = {(one.study, one.value): one.settings for one in variants()}
    assert list(dict.fromkeys(study for study, _ in grid)) == STUDIES[:-1]
    assert [value for study, value in grid if study == "fill"] == ["mean", "blur", "inpaint"]
    assert grid["lambda", "0.01"] == {"lam": 0.01}
    assert grid["eps", "0.005"] == {"eps": 0.005}
    assert grid["pool size", "4"] == {"pool_size": 4}
    assert grid["localisation", "atlas"] == {"localiser": "atlas"}
    assert len(grid) == 12
    refined = {(one.study, one.value): one.settings for one in variants("medsam")}
    assert refined["published", "default"] == {"segmenter": "medsam"}
    assert refined["eps", "0.5"] == {"segmenter": "medsam", "eps": 0.5}
    assert {value: settings for (study, value), settings in refined.items() if study == "localisation"} == {
        "transport": {"segmenter": None},
        "atlas": {"segmenter": None, "localiser": "atlas"},
        "atlas + MedSAM": {"segmenter": "medsam", "localiser": "atlas"},
    }
    assert all(one.settings["references"] == "mine" for one in variants(references="mine"))
    assert {"editor": "inpainting"} in [one.settings for one in variants(editor="inpainting")]
    folders = [one.folder for one in variants("medsam", editor="radedit,size=512")]
    assert len(set(folders)) == len(folders)
    assert not any(set(folder) & set(" +/") for folder in folders)


def test_ablate_writes_tables_and_resumes(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(ablation, "variants", lambda *args: few_variants())
    out = tmp_path / "out"
    words = ("ablate", "-b", bench, "--split", "dev", "--lvlm", "phantom_qwen", "--out", out)
    status, shown, _ = run(*words, "--limit", 1)
    assert status == 0, shown
    document = read_ablation(out / "ablation.json")
    assert {row.lvlm for row in document.rows} == {"phantom_qwen"}
    assert document.rows[0].samples == 1
    assert document.rows[-1].study == "null control"
    assert document.rows[-1].failure_rate is None
    lines = {path: path.read_text() for path in out.glob("*/medfocus/*.jsonl")}
    assert len(lines) == len(few_variants())
    status, shown, _ = run(*words, "--limit", 2)
    assert status == 0
    for path, before in lines.items():
        assert path.read_text().startswith(before)
    rows = read_ablation(out / "ablation.json").rows
    assert len(rows) == len(few_variants()) + 1
    assert rows[0].samples == 2
    assert set(rows[0].scores) == {"evidence_ap", "iou", "f1", "precision", "recall"}
    assert all(0 <= row.failure_rate <= 1 and row.not_run == 0 for row in rows[:-1])
    page = (out / "ablation.md").read_text()
    assert "MedFocus of phantom\\_qwen" in page
    assert "both lungs" in page
    assert "| region | mask |" in page


def test_models_are_never_pooled_silently(bench, tmp_path, monkeypatch):
    """Trap 34: every LVLM has its own table, beside the mean over them."""
    monkeypatch.setattr(ablation, "variants", lambda *args: few_variants()[:1])
    loads = []

    def counted(self, key, *args, load=HuggingFaceLVLM.__init__, **more):
        loads.append(key)
        load(self, key, *args, **more)

    monkeypatch.setattr(HuggingFaceLVLM, "__init__", counted)
    status, _, _ = run("ablate", "-b", bench, "--out", tmp_path / "out")
    assert status == 0
    rows = read_ablation(tmp_path / "out" / "ablation.json").rows
    names = list(dict.fromkeys(row.lvlm for row in rows))
    assert names[0] == "all"
    assert set(names) > {"all", "phantom_qwen"}
    assert len(loads) == len(set(loads)), "each is loaded once"


def test_bad_input_of_ablate_is_one_line(bench, tmp_path):
    for words in (("--split", "nope"), ("--lvlm", "nobody")):
        status, _, error = run("ablate", "-b", bench, *words, "--out", tmp_path / "o")
        assert (status, len(error.splitlines())) == (2, 1)


# -- reference ---------------------------------------------------------------------------------------------


def test_a_pool_of_ones_own_is_built_and_used(tmp_path):
    folder = tmp_path / "mine"
    for number in range(2):
        patient = render(Patient.sample((88, number)))
        place = folder / "masks" / f"p{number}"
        place.mkdir(parents=True)
        (folder / "images").mkdir(exist_ok=True)
        Image.fromarray(patient.image).save(folder / "images" / f"p{number}.png")
        for concept, mask in patient.concepts.items():
            Image.fromarray(mask.astype(np.uint8) * 255).save(place / f"{concept}.png")
    pool = tmp_path / "pool.safetensors"
    status, shown, _ = run("reference", "build", folder, "--out", pool)
    assert status == 0
    assert f"{pool}: 2 references, 11 concepts" in shown
    assert len(ReferencePool.load(pool)) == 2
    status, _, error = run("reference", "build", folder, "--out", pool)
    assert status == 2
    assert "--overwrite" in error
    picture = tmp_path / "p.png"
    Image.fromarray(render(Patient.sample((88, 9))).image).save(picture)
    words = ("attribute", "--method", "medfocus", "--lvlm", "phantom_qwen", "--image", picture)
    words += ("--question", "Is there evidence of nodule in the image?", "--response", "Yes.")
    assert run(*words, "--set", f"references={pool}", "--out", tmp_path / "look")[0] == 0


def test_a_folder_without_images_is_refused(tmp_path):
    status, _, error = run("reference", "build", tmp_path, "--out", tmp_path / "pool")
    assert (status, len(error.splitlines())) == (2, 1)
    assert "images" in error


# -- panel -------------------------------------------------------------------------------------------------


def test_a_picture_gets_a_panel_of_concepts(tmp_path):
    path = tmp_path / "p.png"
    Image.fromarray(render(Patient.sample((77, 6), findings=["consolidation"])).image).save(path)
    words = ("attribute", "--method", "medfocus,occlusion", "--lvlm", "phantom_qwen", "--image", path)
    words += ("--question", "Is there evidence of consolidation in the image?", "--response", "Yes.")
    assert run(*words, "--out", tmp_path / "look")[0] == 0
    assert (tmp_path / "look" / "concepts-medfocus.png").exists()
    assert not (tmp_path / "look" / "concepts-occlusion.png").exists()
    document = json.loads((tmp_path / "look" / "explanations.json").read_text())
    medfocus = document["explanations"][0]
    assert len(medfocus["explanation"]["concepts"]) == 15
    assert medfocus["diagnostics"]["failure"] in (0.0, 1.0)
