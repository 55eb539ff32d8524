"""The content of the tables of reports and comparisons."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from medfocus_bench import Attribution, SubmissionWriter, compare, evaluate
from medfocus_bench.attribution.attribution import Cost
from medfocus_bench.evaluation.dependence import Dependence
from medfocus_bench.evaluation.figures import Score
from medfocus_bench.evaluation.grid import Grid
from medfocus_bench.evaluation.report import Report
from medfocus_bench.evaluation.report_tables import comparison_table, report_summary, report_tables
from medfocus_bench.tables import FULL_WIDTH, render_markdown, render_rich

from ..conftest import METHOD, make_row

QUICK = {"resamples": 50}


@pytest.fixture
def make_report(make_benchmark, tmp_path):
    def build(rows, cost=None, **more):
        benchmark = make_benchmark(rows)
        with SubmissionWriter(
            tmp_path / "s", METHOD, benchmark, submitters=["tests"], overwrite=True
        ) as writer:
            for sample in benchmark.samples:
                half = sample.boxes * [1, 1, 1, 0.8]
                writer.add(Attribution(sample.sample_id, boxes=half, cost=cost or Cost()))
        return evaluate(tmp_path / "s", benchmark, **QUICK, **more)

    return build


def rows(count=6, **more):
    anatomy = [{"concept": f"{side} lung", "box": [20, 20, 200, 190]} for side in ("left", "right")]
    return [make_row(n, boxes=[[30 + n, 20, 90, 80 + 5 * n]], anatomy=anatomy, **more) for n in range(count)]


def drawn(tables, width):
    file = io.StringIO()
    for table in tables:
        Console(file=file, width=width).print(render_rich(table))
    return file.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_below_the_full_width_the_slices_show_intervals_for_the_method_only(make_report, width):
    slices = report_tables(make_report(rows()), narrow=True)[-1]
    _, _, method, *nulls = slices.rows[0].cells
    assert method.count("[") == 1
    assert len(nulls) == 6
    assert not any("[" in cell for cell in nulls)
    lines = drawn([slices], width).splitlines()
    assert any(" ".join(cell for cell in nulls) == " ".join(line.split()[-6:]) for line in lines)


def test_the_full_width_and_markdown_show_every_interval(make_report):
    report = make_report(rows())
    slices = report_tables(report)[-1]
    assert all(cell.count("[") == 1 for cell in slices.rows[0].cells[2:])
    assert max(map(len, drawn(report_tables(report), FULL_WIDTH).splitlines())) <= FULL_WIDTH
    assert all(cell in render_markdown([slices]).replace("\\", "") for cell in slices.rows[0].cells)


def test_the_pooled_mean_stands_where_it_differs_from_the_macro_mean(make_report):
    assert "(pooled)" not in render_markdown(report_tables(make_report(rows())))
    unequal = [*rows(5), *(row | {"lvlm": "b", "sample_id": f"{row['index']}-b"} for row in rows(2))]
    assert "(pooled)" in render_markdown(report_tables(make_report(unequal)))


def test_one_of_a_thing_is_singular(make_report):
    report = make_report(rows(1), Cost(forward_passes=1, backward_passes=2, seconds=1.0))
    text = "\n".join(report_summary(report))
    assert "1 sample of 1 patient:" in text
    assert "cost per sample: 1 forward pass, 2 backward passes, 1 s" in text


def test_a_comparison_says_over_how_many_tests_it_corrects(make_benchmark):
    benchmark = make_benchmark(rows())
    for metrics, said in ((["iou"], "over the 1 test of"), (["iou", "f1"], "over the 2 tests of")):
        pair = ["null:centre-box", "null:whole-image"]
        assert said in comparison_table(compare(pair, benchmark, metrics=metrics, **QUICK)).notes[0]


def test_a_slice_of_one_patient_has_no_interval(make_report):
    varied = [row | {"finding": "mass" if row["index"] == 3 else "nodule"} for row in rows()]
    slices = report_tables(make_report(varied))[-1]
    (mass,) = [row for row in slices.rows if row.cells[0].strip() == "mass"]
    (nodule,) = [row for row in slices.rows if row.cells[0].strip() == "nodule"]
    assert all(cell.endswith(" [\N{EN DASH}]") for cell in mass.cells[2:])
    assert not any("\N{EN DASH}" in cell for cell in nodule.cells)


def of_lvlms(*lvlms):
    return [row | {"lvlm": lvlm, "sample_id": f"{row['index']}-{lvlm}"} for lvlm in lvlms for row in rows()]


def test_a_report_says_over_what_its_intervals_are(make_report):
    several, one = make_report(of_lvlms("a", "b")), make_report(rows())
    for report, said, spread in ((several, "LVLMs and patients", True), (one, "patients", False)):
        assert report.slice().levels == said.lower()
        summary = "\n".join(report_summary(report))
        assert f"intervals over {said}" in summary
        assert ("Evidence AP by LVLM: " in summary) == spread
        assert f"intervals over {said}." in report_tables(report)[0].notes[0]
    assert several.slice("lvlm", "a").levels == "patients"


def test_null_controls_have_the_levels_of_the_method(make_report):
    report = make_report(of_lvlms("a", "b"))
    for null in (null for null in report.nulls if null.unavailable is None):
        assert [part.levels for part in null.slices] == [part.levels for part in report.slices]


def test_the_headline_has_its_spread_over_lvlms_and_no_other_slice_has(make_report):
    report = make_report(of_lvlms("a", "b"))
    each = [report.slice("lvlm", lvlm).scores["iou"].mean for lvlm in ("a", "b")]
    assert report.headline["iou"].spread == [min(each), max(each)]
    assert {score.spread for part in report.slices[1:] for score in part.scores.values()} == {None}
    assert "spread" not in report.slice("lvlm", "a").model_dump_json()


def test_a_report_of_an_evaluator_before_two_is_over_patients(make_report):
    document = json.loads(make_report(of_lvlms("a", "b")).model_dump_json())
    for part in document["slices"] + [part for null in document["nulls"] for part in null["slices"]]:
        del part["levels"]
        for score in part["scores"].values():
            score.pop("spread", None)
    old = Report.model_validate_json(json.dumps(document))
    assert "intervals over patients," in "\n".join(report_summary(old))
    assert json.loads(old.model_dump_json()) == document


def test_the_sections_of_a_report_stand_beside_its_scores_and_say_why_it_has_no_rank(make_report):
    report = make_report(rows())
    assert not [table for table in report_tables(report) if table.title == "Beside the localisation"]
    score = Score(mean=0.25, low=0.125, high=0.5)
    dependence = Dependence(
        questions=2,
        attributed=2,
        patients=2,
        trained=score,
        random=score,
        model_dependence=score,
        rank_correlation=None,
        lvlms={},
        nulls={},
        ranked=False,
        reason="it reads the picture",
    )
    grid = Grid(rows=8, columns=7, resolutions=1, ceiling=0.75)
    full = report.model_copy(update={"dependence": dependence, "grid": grid})
    summary = "\n".join(report_summary(full))
    assert "no rank on the leaderboard: it reads the picture" in summary
    assert "maps of 8 x 7 cells, on which the exact mask has 0.750" in summary
    (beside,) = (table for table in report_tables(full) if table.title == "Beside the localisation")
    assert [row.cells for row in beside.rows] == [("Dependence", "0.250", "[0.125, 0.500]")]
    assert "random decoders" in beside.notes[0]
    assert max(map(len, drawn([beside], 80).splitlines())) <= 80


@pytest.mark.parametrize("width", [80, 120])
def test_a_comparison_fits_a_narrow_terminal_and_says_where_the_order_is_kept(make_benchmark, width):
    benchmark = make_benchmark(of_lvlms("a", "b", "c"))
    comparison = compare(["null:centre-box", "null:random-boxes"], benchmark, **QUICK)
    (entry,) = comparison.differences
    assert entry.levels == "lvlms and patients"
    assert entry.kept_in in {"2 of 3", "3 of 3"}
    table = comparison_table(comparison)
    text = drawn([table], width)
    assert max(map(len, text.splitlines())) <= width
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert "intervals and p over LVLMs and patients" in table.notes[0]


def test_a_comparison_of_one_lvlm_has_no_spread(make_benchmark):
    (entry,) = compare(["null:centre-box", "null:whole-image"], make_benchmark(rows()), **QUICK).differences
    assert (entry.levels, entry.kept_in, entry.difference.spread) == ("patients", None, None)
