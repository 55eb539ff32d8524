"""Every target on a few phantoms: what is run, what is read, and what stands beside what."""

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
from medfocus_bench.paper.config import ReproduceConfig
from medfocus_bench.paper.document import ComparedValue, Estimate, Reproduction, reproduction_tables
from medfocus_bench.paper.published import KEPT
from medfocus_bench.paper.reproduce import reproduce
from medfocus_bench.paper.tables import TABLES
from medfocus_bench.runs.attribute import attribute
from medfocus_bench.runs.methods import choose_methods
from medfocus_bench.runs.pack import pack

from ..conftest import make_row
from .conftest import refuse_models, rows_of_all_groups

CHEAP = ("grad-cam", "attention-rollout")


def read(config, name) -> Reproduction:
    return Reproduction.model_validate_json((config.out / f"{name}.json").read_bytes())


def lines_of(document, title):
    (section,) = [section for section in document.sections if section.title == title]
    return {line.name: line for line in section.lines}


# -- what is published -------------------------------------------------------------------------------------


def test_published_counts_add_up():
    totals = {mode: sum(n for key, n in KEPT.items() if key[0] == mode) for mode in ("direct", "reasoning")}
    assert totals == {"direct": 1880, "reasoning": 2060}


def test_published_counts_are_those_of_the_published_records(real_data, tmp_path, no_models):
    """The table of kept samples on the real records: every count agrees, none is marked."""
    records = json.loads((real_data / "medground" / "direct.json").read_text())
    rows = [
        make_row(r["index"], lvlm=r["model"].replace("medgemma1_5", "medgemma_1_5"))
        | {"source": r["dataset"], "sample_id": f"{r['dataset']}-{r['index']:05d}-{r['model']}-direct"}
        for r in records
    ]
    bench = write_benchmark(tmp_path / "bench", {"direct": rows}, name="published", version="1")
    made = reproduce("table2", ReproduceConfig(benchmark=bench, out=tmp_path / "out", runs=tmp_path / "runs"))
    entries = [entry for line in made.sections[0].lines for entry in line.entries.values()]
    assert len(entries) == 18
    assert all(entry.difference == 0 and not entry.differs for entry in entries)
    assert sum(entry.published for entry in entries) == 1880


def test_a_difference_is_marked_where_the_interval_misses_the_published_value():
    inside = ComparedValue(published=1.0, ours=Estimate(value=2.0, low=0.5, high=3.0))
    outside = ComparedValue(published=1.0, ours=Estimate(value=2.0, low=1.5, high=3.0))
    assert (inside.differs, outside.differs) == (False, True)
    assert outside.difference == 1.0
    assert ComparedValue(published=257, ours=Estimate(value=256)).differs, "counts have no interval"
    assert not ComparedValue(ours=Estimate(value=2.0)).differs
    assert not ComparedValue(published=1.0).differs


# -- the method tables -------------------------------------------------------------------------------------


def test_the_main_table_has_methods_null_controls_and_both_protocols(config_for):
    config = config_for(methods=CHEAP)
    document = reproduce("table1", config)
    lines = lines_of(document, "phantom")
    assert list(lines)[:2] == ["Attention Rollout", "Grad-CAM"]
    assert {name for name, line in lines.items() if line.kind == "control"} == {
        control.title for control in NULL_CONTROLS.values()
    }
    for line in lines.values():
        assert set(line.entries) == {f"paper_{n}" for n in ("iou", "f1", "precision", "recall")} | {
            "evidence_ap",
            "iou",
        }
        assert all(entry.ours.low <= entry.ours.value <= entry.ours.high for entry in line.entries.values())
    assert lines["Whole image"].entries["paper_recall"].ours.value == pytest.approx(100)
    assert lines["Whole image"].entries["evidence_ap"].ours.value == pytest.approx(0, abs=1e-9)
    assert read(config, "table1") == document
    page = (config.out / "table1.md").read_text()
    assert "| Grad\\-CAM" in page or "| Grad-CAM" in page
    assert "null: Both lungs" in page


def test_its_figures_are_those_of_evaluate(config_for, tmp_path):
    """Under both protocols, the macro mean over the LVLMs; `pack` makes the run a submission."""
    config = config_for(methods=("grad-cam",), runs=tmp_path / "runs")
    line = lines_of(reproduce("table1", config), "phantom")["Grad-CAM"]
    pack([config.runs], tmp_path / "packed", method="grad-cam", benchmark=config.benchmark)
    for protocol, keys in (
        ("paper", {"iou": "paper_iou", "recall": "paper_recall"}),
        ("standard", {"evidence_ap": "evidence_ap"}),
    ):
        report = medfocus_bench.evaluate(
            tmp_path / "packed", config.benchmark, protocol=protocol, resamples=50, nulls=False
        )
        for name, key in keys.items():
            score, ours = report.slice("source", "phantom").scores[name], line.entries[key].ours
            assert ours.value == pytest.approx(100 * score.mean)
            assert (ours.low, ours.high) == pytest.approx((100 * score.low, 100 * score.high))


def test_models_are_never_pooled_silently(config_for):
    """Trap 34: beside the mean stands every LVLM, and the mean names them."""
    document = reproduce("table1", config_for(methods=("grad-cam",)))
    assert [s.title for s in document.sections] == [
        "phantom",
        "phantom, phantom_gemma",
        "phantom, phantom_qwen",
    ]
    each = [lines_of(document, f"phantom, {lvlm}")["Grad-CAM"] for lvlm in ("phantom_gemma", "phantom_qwen")]
    mean = lines_of(document, "phantom")["Grad-CAM"]
    values = [line.entries["paper_iou"].ours.value for line in (*each, mean)]
    assert values[2] == pytest.approx((values[0] + values[1]) / 2), "of LVLMs, however many samples each has"
    notes = reproduction_tables(document, brief=True)[0].notes
    assert any("phantom_gemma, phantom_qwen" in note for note in notes)


def test_an_lvlm_without_samples_of_the_mode_is_left_out(config_for):
    document = reproduce("table3", config_for(methods=("grad-cam",), limit=1))
    assert document.lvlms == ["phantom_qwen"]
    assert document.splits == ["reasoning"]
    line = lines_of(document, "phantom")["Grad-CAM"]
    assert line.samples == 1
    assert all(entry.published is None for entry in line.entries.values())


def test_published_values_stand_beside_those_of_a_published_source(tmp_path, runs):
    """Rows of the phantom track under the name of a source of the paper."""
    rows = [
        row | {"source": "imagenome", "sample_id": row["sample_id"].replace("phantom-", "imagenome-", 1)}
        for row in rows_of_all_groups()["direct"]
        if row["group"] == "grounded"
    ]
    bench = write_benchmark(tmp_path / "bench", {"direct": rows}, name="named", version="1")
    config = ReproduceConfig(
        benchmark=bench, out=tmp_path / "out", runs=tmp_path / "runs", methods=("grad-cam",), resamples=50
    )
    document = reproduce("table1", config)
    entry = lines_of(document, "imagenome")["Grad-CAM"].entries["paper_iou"]
    assert entry.published == 34.47
    assert entry.difference == pytest.approx(entry.ours.value - 34.47)
    assert lines_of(document, "imagenome, phantom_qwen")["Grad-CAM"].entries["paper_iou"].published is None
    table = reproduction_tables(document)[0]
    assert table.header[1:3] == ("IoU, published", "IoU, ours")
    assert table.rows[0].cells[1] == "34.47"
    assert table.rows[1].cells[1] == "\N{EN DASH}", "the paper states no null control"
    seconds = lines_of(reproduce("table8", config), "imagenome")["Grad-CAM"].entries
    assert seconds["seconds"].published == 0.53
    assert seconds["forward_passes"].ours.value == 1
    with pytest.raises(InputError, match="--references"):
        reproduce("table4", replace(config, methods=()))


def test_a_target_that_was_made_needs_no_model_again(config_for, monkeypatch):
    config = config_for(methods=("grad-cam",))
    first = reproduce("table1", config)
    lines = config.runs / "grad-cam" / "phantom_qwen-direct.jsonl"
    before = lines.stat().st_mtime_ns
    refuse_models(monkeypatch)
    again = reproduce("table1", config)
    assert lines.stat().st_mtime_ns == before
    assert again == first


def test_runs_of_attribute_are_read_as_they_are(config_for, grouped_bench, tmp_path):
    attribute(choose_methods(["attention-head"]), grouped_bench, tmp_path / "own", splits=["direct"])
    config = config_for(runs=tmp_path / "own", methods=("attention-head", "grad-cam"))
    document = reproduce("table1", config, run=False)
    lines = lines_of(document, "phantom")
    assert lines["Attention Head"].entries["paper_iou"].ours is not None
    assert lines["Grad-CAM"].not_run == "no records"


def test_a_method_that_cannot_run_has_no_score_rather_than_zero(config_for, out_of_reach):
    config = config_for(methods=("grad-cam", "prompting-medsam"))
    line = lines_of(reproduce("table1", config), "phantom")["Prompting + MedSAM"]
    assert "cannot be loaded as the detector" in line.not_run
    assert all(entry.ours is None for entry in line.entries.values())
    assert not (config.runs / "prompting-medsam").exists(), "no sample failed for it"
    page = (config.out / "table1.md").read_text()
    assert "Prompting + MedSAM: not run" in page


@pytest.mark.parametrize(
    ("method", "role"),
    [("prompting-medsam", "detector"), ("medfocus", "segmenter")],
)
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
    config = config_for(
        methods=("grad-cam",), lvlms=["phantom_qwen"], runs=tmp_path / "runs", tuned=[tmp_path / "tuned.json"]
    )
    reproduce("table1", config)
    settings = read_settings(tmp_path / "runs" / "grad-cam")
    assert settings.parts["phantom_qwen direct"].tuned == part.chosen


# -- MedFocus ----------------------------------------------------------------------------------------------


def test_medfocus_by_lvlm_source_and_mode(config_for):
    document = reproduce("table4", config_for(limit=1))
    titles = [section.title for section in document.sections]
    assert "phantom, direct, phantom_qwen" in titles
    assert "phantom, reasoning" in titles
    assert document.splits == ["direct", "reasoning"]
    assert lines_of(document, "phantom, reasoning")["MedFocus"].samples == 1


def test_the_groups_have_shares_failures_and_scores(config_for):
    document = reproduce("table5", config_for(lvlms=["phantom_qwen"]))
    lines = lines_of(document, "phantom, direct, phantom_qwen")
    shares = {name: lines[name].entries["share"].ours for name in ("incorrect", "ungrounded", "grounded")}
    assert {name: share.value for name, share in shares.items()} == pytest.approx(
        {"incorrect": 100 / 3, "ungrounded": 100 / 6, "grounded": 50}
    )
    assert all(share.low < share.high for share in shares.values())
    assert lines["incorrect"].samples == 2
    assert 0 <= lines["incorrect"].entries["failures"].ours.value <= 100
    assert lines["Both lungs"].kind == "control"
    reasoning = lines_of(document, "phantom, reasoning, phantom_qwen")
    assert reasoning["incorrect"].entries["share"].ours.value == 0
    assert reasoning["incorrect"].entries["share"].ours.high > 40, (
        "two patients do not show that there is none"
    )


@pytest.mark.parametrize(
    ("name", "variants"),
    [
        ("table6", ["region: mask", "fill: mean", "fill: blur", "fill: inpaint", "localisation: atlas"]),
        ("table7", ["pool size: 1", "pool size: 4", "lambda: 0.01", "lambda: 1", "eps: 0.005", "eps: 0.5"]),
    ],
)
def test_the_variants_stand_beside_medfocus_as_published(config_for, name, variants):
    config = config_for(lvlms=["phantom_qwen"], limit=1)
    lines = lines_of(reproduce(name, config), "phantom")
    assert list(lines)[: len(variants) + 1] == ["as published", *variants]
    assert all(line.not_run is None for line in lines.values())
    assert {"failures", "paper_iou"} <= set(lines[variants[0]].entries)
    assert lines["Both lungs"].kind == "control"


def test_with_a_segmenter_localisers_stand_with_it_and_without(config_for):
    specs = TABLES["table6"].runs(config_for(segmenter="medsam"))
    settings = {spec.label: spec.method.settings for spec in specs}
    assert settings["as published"] == {"segmenter": "medsam"}
    assert settings["localisation: transport"] == {"segmenter": None}
    assert settings["localisation: atlas"] == {"localiser": "atlas", "segmenter": None}
    assert settings["localisation: atlas + MedSAM"] == {"localiser": "atlas", "segmenter": "medsam"}
    assert settings["region: mask"] == {"region": "mask", "segmenter": "medsam"}
    assert len({spec.run for spec in specs}) == len(specs)


def test_concept_frequencies_are_shares_of_all_that_can_win(config_for):
    config = config_for(limit=1)
    document = reproduce("fig3", config)
    for section in document.sections:
        assert len(section.lines) == 16
        assert sum(line.entries["share"].ours.value for line in section.lines) == pytest.approx(100)
    with Image.open(config.out / "fig3.png") as image:
        assert np.asarray(image).std() > 5
    assert document.figures == ["fig3.png"]


def test_failure_rates_have_a_bar_for_each_lvlm(config_for):
    config = config_for(limit=1)
    document = reproduce("fig6", config)
    assert list(lines_of(document, "phantom, direct")) == ["mean over LVLMs", "phantom_gemma", "phantom_qwen"]
    with Image.open(config.out / "fig6.png") as image:
        assert image.size[0] > 300


def test_panels_are_drawn_with_their_data(config_for):
    config = config_for(limit=1)
    document = reproduce("fig5", config)
    assert len(document.figures) == len(document.sections) == 3
    for name in document.figures:
        with Image.open(config.out / name) as image:
            assert image.size[0] > 600
    names = [line.name for line in document.sections[0].lines]
    assert {"left lung", "both lungs"} <= set(names)
    assert any(name.startswith("token 1: ") for name in names)
    assert "![" in (config.out / "fig5.md").read_text()


def test_unknown_names_are_refused(config_for):
    with pytest.raises(InputError, match="no target 'table9'"):
        reproduce("table9", config_for())
    with pytest.raises(InputError, match="no method 'nonsense'"):
        reproduce("table1", config_for(methods=("nonsense",)))
    with pytest.raises(InputError, match="no samples of the LVLM"):
        reproduce("table1", config_for(lvlms=["phantom_qwen_twin"], methods=("grad-cam",)))
