"""Every table and figure on a few phantoms: what is run, what is read, and what stands beside what."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import medfocus_bench
from medfocus_bench.data.writing import write_benchmark
from medfocus_bench.errors import InputError
from medfocus_bench.evaluation.nulls import NULL_CONTROLS
from medfocus_bench.paper import tables
from medfocus_bench.paper.config import ReproduceConfig
from medfocus_bench.paper.document import ComparedValue, Estimate, Reproduction, reproduction_tables
from medfocus_bench.paper.reproduce import reproduce
from medfocus_bench.paper.tables import TABLES
from medfocus_bench.runs.attribute import attribute
from medfocus_bench.runs.methods import choose_methods
from medfocus_bench.runs.pack import pack

from ..conftest import make_row
from .conftest import few_variants, refuse_models, rows_of_all_groups


def rows_of(document, title):
    (section,) = [section for section in document.sections if section.title == title]
    return {row.name: row for row in section.lines}


def drawn(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_counts_are_those_of_the_published_records(real_data, tmp_path, no_models):
    """On the real records every count agrees, and none is marked."""
    records = json.loads((real_data / "medground" / "direct.json").read_text())
    rows = [
        make_row(r["index"], lvlm=r["model"].replace("medgemma1_5", "medgemma_1_5"))
        | {"source": r["dataset"], "sample_id": f"{r['dataset']}-{r['index']:05d}-{r['model']}-direct"}
        for r in records
    ]
    bench = write_benchmark(tmp_path / "bench", {"direct": rows}, name="published", version="1")
    made = reproduce("table2", ReproduceConfig(bench, tmp_path / "out", tmp_path / "runs"))
    entries = [entry for row in made.sections[0].lines for entry in row.entries.values()]
    assert len(entries) == 18
    assert all(entry.difference == 0 and not entry.differs for entry in entries)
    assert sum(entry.published for entry in entries) == 1880


def test_a_difference_is_marked_where_the_interval_misses_the_published_value():
    inside = ComparedValue(published=1.0, ours=Estimate(value=2.0, low=0.5, high=3.0))
    outside = ComparedValue(published=1.0, ours=Estimate(value=2.0, low=1.5, high=3.0))
    assert (inside.differs, outside.differs, outside.difference) == (False, True, 1.0)
    assert ComparedValue(published=257, ours=Estimate(value=256)).differs, "counts have no interval"
    assert not ComparedValue(ours=Estimate(value=2.0)).differs
    assert not ComparedValue(published=1.0).differs


# -- the method tables -------------------------------------------------------------------------------------


def test_the_main_table_has_methods_null_controls_and_both_protocols(config_for):
    config = config_for(methods=("grad-cam", "attention-rollout"))
    document = reproduce("table1", config)
    rows = rows_of(document, "phantom")
    assert list(rows)[:2] == ["Attention Rollout", "Grad-CAM"]
    controls = {name for name, row in rows.items() if row.kind == "control"}
    assert controls == {control.title for control in NULL_CONTROLS.values()}
    paper = {f"paper_{name}" for name in ("iou", "f1", "precision", "recall")}
    for row in rows.values():
        assert set(row.entries) == paper | {"evidence_ap", "iou"}
        assert all(entry.ours.low <= entry.ours.value <= entry.ours.high for entry in row.entries.values())
    assert rows["Whole image"].entries["paper_recall"].ours.value == pytest.approx(100)
    assert rows["Whole image"].entries["evidence_ap"].ours.value == pytest.approx(0, abs=1e-9)
    assert Reproduction.model_validate_json((config.out / "table1.json").read_bytes()) == document
    page = (config.out / "table1.md").read_text()
    assert "| Grad\\-CAM" in page or "| Grad-CAM" in page
    assert "null: Both lungs" in page


def test_models_are_never_pooled_silently(config_for):
    """Trap 34: beside the mean stands every LVLM, and the mean names them."""
    document = reproduce("table1", config_for(methods=("grad-cam",)))
    titles = ["phantom", "phantom, phantom_gemma", "phantom, phantom_qwen"]
    assert [section.title for section in document.sections] == titles
    mean, gemma, qwen = (rows_of(document, title)["Grad-CAM"].entries["paper_iou"].ours for title in titles)
    assert mean.value == pytest.approx((gemma.value + qwen.value) / 2), (
        "of LVLMs, however many samples each has"
    )
    notes = reproduction_tables(document, brief=True)[0].notes
    assert any("phantom_gemma, phantom_qwen" in note for note in notes)


def test_its_values_are_those_of_evaluate(config_for, tmp_path):
    """Under both protocols, the macro mean over the LVLMs; `pack` makes the run a submission."""
    config = config_for(methods=("grad-cam",), runs=tmp_path / "runs")
    row = rows_of(reproduce("table1", config), "phantom")["Grad-CAM"]
    pack([config.runs], tmp_path / "packed", method="grad-cam", benchmark=config.benchmark)
    for protocol, keys in (
        ("paper", {"iou": "paper_iou", "recall": "paper_recall"}),
        ("standard", {"evidence_ap": "evidence_ap"}),
    ):
        report = medfocus_bench.evaluate(
            tmp_path / "packed", config.benchmark, protocol=protocol, resamples=50, nulls=False
        )
        for name, key in keys.items():
            score, ours = report.slice("source", "phantom").scores[name], row.entries[key].ours
            assert ours.value == pytest.approx(100 * score.mean)
            assert (ours.low, ours.high) == pytest.approx((100 * score.low, 100 * score.high))


def test_an_lvlm_without_samples_of_the_mode_is_left_out(config_for):
    document = reproduce("table3", config_for(methods=("grad-cam",), limit=1))
    assert (document.lvlms, document.splits) == (["phantom_qwen"], ["reasoning"])
    row = rows_of(document, "phantom")["Grad-CAM"]
    assert row.samples == 1
    assert all(entry.published is None for entry in row.entries.values())


def test_published_values_stand_beside_those_of_a_published_source(tmp_path):
    """Rows of the phantom track under the name of a source of the paper."""
    rows = [
        row | {"source": "imagenome", "sample_id": row["sample_id"].replace("phantom-", "imagenome-", 1)}
        for row in rows_of_all_groups()["direct"]
        if row["group"] == "grounded"
    ]
    bench = write_benchmark(tmp_path / "bench", {"direct": rows}, name="named", version="1")
    config = ReproduceConfig(
        bench, tmp_path / "out", tmp_path / "runs", methods=("grad-cam",), resamples=50, limit=1
    )
    document = reproduce("table1", config)
    entry = rows_of(document, "imagenome")["Grad-CAM"].entries["paper_iou"]
    assert entry.published == 34.47
    assert entry.difference == pytest.approx(entry.ours.value - 34.47)
    assert rows_of(document, "imagenome, phantom_qwen")["Grad-CAM"].entries["paper_iou"].published is None
    table = reproduction_tables(document)[0]
    assert table.header[1:3] == ("IoU, published", "IoU, ours")
    assert table.rows[0].cells[1] == "34.47"
    assert table.rows[1].cells[1] == "\N{EN DASH}", "the paper states no null control"
    costs = rows_of(reproduce("table8", config), "imagenome")["Grad-CAM"].entries
    assert (costs["seconds"].published, costs["forward_passes"].ours.value) == (0.53, 1)
    with pytest.raises(InputError, match="--references"):
        reproduce("table4", replace(config, methods=()))


def test_a_table_that_was_made_needs_no_model_again(config_for, monkeypatch):
    config = config_for(methods=("grad-cam",))
    first = reproduce("table1", config)
    lines = config.runs / "grad-cam" / "phantom_qwen-direct.jsonl"
    before = lines.stat().st_mtime_ns
    refuse_models(monkeypatch)
    assert reproduce("table1", config) == first
    assert lines.stat().st_mtime_ns == before


def test_runs_of_attribute_are_read_as_they_are(config_for, grouped_bench, tmp_path):
    attribute("attention-head", grouped_bench, tmp_path / "own", splits=["direct"], limit=1)
    config = config_for(runs=tmp_path / "own", methods=("attention-head", "grad-cam"), limit=1)
    rows = rows_of(reproduce("table1", config, run=False), "phantom")
    assert rows["Attention Head"].entries["paper_iou"].ours is not None
    assert rows["Grad-CAM"].not_run == "no records"


def test_a_method_that_cannot_run_has_no_score_rather_than_zero(config_for, out_of_reach):
    config = config_for(methods=("grad-cam", "prompting-medsam"))
    row = rows_of(reproduce("table1", config), "phantom")["Prompting + MedSAM"]
    assert "cannot be loaded as the detector" in row.not_run
    assert all(entry.ours is None for entry in row.entries.values())
    assert not (config.runs / "prompting-medsam").exists(), "no sample failed for it"
    assert "Prompting + MedSAM: not run" in (config.out / "table1.md").read_text()


@pytest.mark.parametrize(("method", "role"), [("prompting-medsam", "detector"), ("medfocus", "segmenter")])
def test_a_vision_model_that_is_given_and_cannot_be_loaded_is_an_error_before_any_lvlm(
    config_for, tmp_path, no_models, method, role
):
    (tmp_path / "empty").mkdir()
    given = {role: str(tmp_path / "empty"), "methods": (method,), "runs": tmp_path / "runs"}
    with pytest.raises(InputError, match=f"cannot be loaded as the {role}"):
        reproduce("table1", config_for(**given))
    assert not (tmp_path / "runs").exists()


def test_tuned_settings_hold(config_for, grouped_bench, tmp_path):
    from medfocus_bench.lvlm.registry import load_lvlm
    from medfocus_bench.runs.settings import BenchmarkIdentity, read_settings, write_document
    from medfocus_bench.runs.tune import tune
    from medfocus_bench.runs.tuning import Tuning

    part = tune("grad-cam", load_lvlm("phantom_qwen"), grouped_bench, "direct")
    version = choose_methods(["grad-cam"])[0].metadata.version
    tuning = Tuning(method="grad-cam", version=version, benchmark=BenchmarkIdentity.of(grouped_bench))
    write_document(tmp_path / "tuned.json", tuning.extended("phantom_qwen", "direct", part))
    more = {"methods": ("grad-cam",), "lvlms": ["phantom_qwen"], "tuned": [tmp_path / "tuned.json"]}
    reproduce("table1", config_for(runs=tmp_path / "runs", limit=1, **more))
    settings = read_settings(tmp_path / "runs" / "grad-cam")
    assert settings.parts["phantom_qwen direct"].tuned == part.chosen


# -- MedFocus ----------------------------------------------------------------------------------------------


def test_medfocus_by_lvlm_source_and_mode(config_for):
    document = reproduce("table4", config_for(limit=1))
    titles = [section.title for section in document.sections]
    assert "phantom, direct, phantom_qwen" in titles
    assert document.splits == ["direct", "reasoning"]
    assert rows_of(document, "phantom, reasoning")["MedFocus"].samples == 1


def test_the_groups_have_shares_failures_and_scores(config_for):
    document = reproduce("table5", config_for(lvlms=["phantom_qwen"], limit=1))
    rows = rows_of(document, "phantom, direct, phantom_qwen")
    shares = {name: rows[name].entries["share"].ours for name in ("incorrect", "ungrounded", "grounded")}
    assert {name: share.value for name, share in shares.items()} == pytest.approx(
        {"incorrect": 100 / 3, "ungrounded": 100 / 6, "grounded": 50}
    ), "of all rows, whatever the limit"
    assert all(share.low < share.high for share in shares.values())
    assert rows["incorrect"].samples == 1
    assert 0 <= rows["incorrect"].entries["failures"].ours.value <= 100
    assert rows["Both lungs"].kind == "control"
    reasoning = rows_of(document, "phantom, reasoning, phantom_qwen")["incorrect"].entries["share"].ours
    assert reasoning.value == 0
    assert reasoning.high > 40, "two patients do not show that there is none"


@pytest.mark.parametrize(
    ("name", "labels"),
    [("table6", ["region: mask", "fill: mean"]), ("table7", ["pool size: 1", "lambda: 1", "eps: 0.5"])],
)
def test_the_variants_stand_beside_medfocus_as_published(config_for, monkeypatch, name, labels):
    monkeypatch.setattr(tables, "variants", lambda segmenter: few_variants())
    rows = rows_of(reproduce(name, config_for(lvlms=["phantom_qwen"], limit=1)), "phantom")
    assert list(rows)[: len(labels) + 1] == ["as published", *labels]
    assert all(row.not_run is None for row in rows.values())
    assert {"failures", "paper_iou"} <= set(rows[labels[0]].entries)
    assert rows["Both lungs"].kind == "control"


def test_with_a_segmenter_localisers_stand_with_it_and_without(config_for):
    specs = TABLES["table6"].runs(config_for(segmenter="medsam"))
    settings = {spec.label: spec.method.settings for spec in specs}
    assert settings["as published"] == {"segmenter": "medsam"}
    assert settings["localisation: transport"] == {"segmenter": None}
    assert settings["localisation: atlas"] == {"localiser": "atlas", "segmenter": None}
    assert settings["localisation: atlas + MedSAM"] == {"localiser": "atlas", "segmenter": "medsam"}
    assert settings["region: mask"] == {"region": "mask", "segmenter": "medsam"}
    assert len({spec.run for spec in specs}) == len(specs)


def test_the_figures_are_drawn_with_their_data(config_for):
    config = config_for(limit=1)
    concepts = reproduce("fig3", config)
    for section in concepts.sections:
        assert len(section.lines) == 16
        shares = [row.entries["share"].ours.value for row in section.lines]
        assert sum(shares) == pytest.approx(100), "of all that can be named"
    assert concepts.figures == ["fig3.png"]
    assert drawn(config.out / "fig3.png").std() > 5
    failures = rows_of(reproduce("fig6", config), "phantom, direct")
    assert list(failures) == ["mean over LVLMs", "phantom_gemma", "phantom_qwen"]
    assert drawn(config.out / "fig6.png").shape[1] > 300
    panels = reproduce("fig5", config)
    assert len(panels.figures) == len(panels.sections) == 3
    assert all(drawn(config.out / name).shape[1] > 600 for name in panels.figures)
    names = [row.name for row in panels.sections[0].lines]
    assert {"left lung", "both lungs"} <= set(names)
    assert any(name.startswith("token 1: ") for name in names)
    assert "![" in (config.out / "fig5.md").read_text()


def test_unknown_names_are_refused(config_for):
    for name, more, says in (
        ("table9", {}, "no target 'table9'"),
        ("table1", {"methods": ("nonsense",)}, "no method 'nonsense'"),
        ("table1", {"lvlms": ["phantom_qwen_twin"], "methods": ("grad-cam",)}, "no samples of the LVLM"),
    ):
        with pytest.raises(InputError, match=says):
            reproduce(name, config_for(**more))
