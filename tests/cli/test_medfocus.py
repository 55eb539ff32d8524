"""`ablate` and `reference build` end to end, and the panel of concepts of `attribute --image`."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from medfocus_bench.data.writing import write_benchmark
from medfocus_bench.drawing.concepts import ConceptDrawing, concept_panel
from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
from medfocus_bench.medfocus.reference import ReferencePool
from medfocus_bench.paper import ablate as ablation
from medfocus_bench.paper.ablate import Ablation, Variant, variants
from medfocus_bench.phantom.render import Patient, render

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


def few() -> list[Variant]:
    """A variant of each study; the atlas takes seconds an image."""
    return [v for v in variants() if v.value in ("default", "mask", "mean", "1", "0.5")]


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


def test_ablate_writes_tables_and_goes_on_where_it_stopped(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(ablation, "variants", lambda *args: few())
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
    assert len(lines) == len(few())
    status, shown, _ = run(*words)
    assert status == 0
    for path, before in lines.items():
        assert path.read_text().startswith(before)
    rows = read_ablation(out / "ablation.json").rows
    assert len(rows) == len(few()) + 1
    assert rows[0].samples > 1
    assert set(rows[0].scores) == {"evidence_ap", "iou", "f1", "precision", "recall"}
    assert all(0 <= row.failure_rate <= 1 and row.not_run == 0 for row in rows[:-1])
    page = (out / "ablation.md").read_text()
    assert "MedFocus of phantom\\_qwen" in page
    assert "both lungs" in page
    assert "| region | mask |" in page


def test_models_are_never_pooled_silently(bench, tmp_path, monkeypatch):
    """Trap 34: every LVLM has its own table, beside the mean over them."""
    monkeypatch.setattr(ablation, "variants", lambda *args: few()[:1])
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
    assert len(loads) == len(set(loads)) == len(names) - 1


def test_bad_input_of_ablate_is_one_line(bench, tmp_path):
    status, _, error = run("ablate", "-b", bench, "--split", "nope", "--out", tmp_path / "o")
    assert (status, len(error.splitlines())) == (2, 1)
    status, _, error = run("ablate", "-b", bench, "--lvlm", "nobody", "--out", tmp_path / "o")
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


def drawing(**more) -> ConceptDrawing:
    given = {
        "title": "MedFocus",
        "question": "Is there evidence of nodule?",
        "picture": Image.new("RGB", (100, 120)),
        "tokens": [("Yes", 2.0), (".", 0.0)],
        "concepts": {"left lung": 2.0, "heart": -1.0},
        "response": "Yes.",
    }
    return ConceptDrawing(**{**given, **more})


def test_an_interval_is_written_beside_its_bar():
    intervals = {"left lung": (1.0, 2.5)}
    plain, marked = (np.asarray(concept_panel(drawing(**more))) for more in ({}, {"intervals": intervals}))
    assert plain.shape == marked.shape
    changed = (plain != marked).any(axis=(1, 2))
    assert 10 < changed.sum() < 60, "the first bar, and the second for its scale"


def test_the_token_that_loses_most_is_the_brightest():
    first = np.asarray(concept_panel(drawing(concepts={})))
    second = np.asarray(concept_panel(drawing(tokens=[("Yes", 0.0), (".", 2.0)], concepts={})))
    assert first.shape == second.shape
    text = slice(150, None)  # right of the picture
    bright = [
        np.flatnonzero(((sheet[:, text, 0] > 250) & (sheet[:, text, 2] < 160)).any(axis=0))
        for sheet in (first, second)
    ]
    assert bright[0].min() < bright[1].min(), "the first token, and then the second"


@pytest.mark.parametrize(
    "more",
    [
        {"tokens": [("\N{CJK UNIFIED IDEOGRAPH-6C34}\x07", 1.0)] * 900},
        {"tokens": [], "response": "word " * 900},
        {"tokens": [("a" * 3000, 1.0)], "concepts": {"x" * 300: 0.0}},
        {"concepts": {f"c{n}": float(n) for n in range(50)}},
    ],
)
def test_any_text_fits(more):
    sheet = concept_panel(drawing(**more))
    assert sheet.width < 900
    assert sheet.height < 1200
