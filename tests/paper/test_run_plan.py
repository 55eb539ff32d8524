"""The cost of a run, before it is made."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from medfocus_bench.attribution.registry import list_methods
from medfocus_bench.errors import InputError
from medfocus_bench.paper.costs import DECLARED, LINE_BYTES, WRITING, Plan
from medfocus_bench.paper.published import SECONDS
from medfocus_bench.paper.reproduce import reproduce
from medfocus_bench.paper.run_plan import (
    RunPlanner,
    published_line,
    run_plan_tables,
    shares_of,
    shares_of_paper,
)
from medfocus_bench.runs.config import RunConfig
from medfocus_bench.runs.methods import choose_methods

from ..cli.running import refused, run

RESULTS = Path(__file__).parents[2] / "leaderboard" / "results"


def of(document, *names):
    """The lines of methods."""
    return [line for line in document.lines if line.name in names]


def test_every_method_declares_the_passes_that_the_leaderboard_measured():
    assert set(DECLARED) == set(list_methods())
    for name in set(DECLARED) - set(WRITING):
        cost = json.loads((RESULTS / f"{name}.json").read_text())["report"]["cost"]
        declared = DECLARED[name]
        assert (cost["forward_passes"], cost["backward_passes"]) == (declared.forward, declared.backward)


def test_the_papers_benchmark_is_planned_from_its_published_figures_and_loads_nothing(no_models):
    status, shown, error = run("plan", "--paper", "--format", "json")
    assert status == 0, error
    made = Plan.model_validate_json(shown)
    assert len(made.lines) == len(SECONDS) * 6 * 2
    assert not made.paces
    for name, seconds in SECONDS.items():
        lines = of(made, name)
        assert sum(line.samples for line in lines) == 3940
        assert sum(line.hours for line in lines) == pytest.approx(3940 * seconds / 3600)
        assert {(line.passes, line.timed) for line in lines} == {("declared", "published")}
        each = LINE_BYTES + DECLARED[name].map_bytes
        assert sum(line.bytes for line in lines) == 3940 * each


def test_a_hundred_times_the_benchmark_on_many_devices_is_shared_out():
    status, shown, error = run("plan", "--paper", "--times", 100, "--devices", 50, "--format", "markdown")
    assert status == 0, error
    hours = 3940 * 100 * sum(SECONDS.values()) / 3600
    (total,) = [line for line in shown.splitlines() if line.startswith("| all ")]
    assert f"| {hours:,.0f} | {hours / 50:.3g} |" in total
    assert "394,000" in total
    for origin in ("declared", "published"):
        assert origin in shown


def test_methods_that_the_paper_does_not_have_lie_on_the_line_through_its_seconds():
    fixed, each = published_line()
    planner = RunPlanner("", choose_methods(["medfocus-plus", "grad-cam"]), shares_of_paper(["direct"]))
    ours, theirs = (of(planner.plan(), name)[0] for name in ("medfocus-plus", "grad-cam"))
    assert (ours.timed, ours.seconds) == ("declared", pytest.approx(fixed + 130 * each))
    assert theirs.timed == "published"
    assert fixed > 0
    assert each > 0


@pytest.mark.parametrize(("framing", "gemma", "qwen"), [("square", 3.6, 0.65), ("native", 3.6, 11.0)])
def test_the_memory_of_a_graph_is_told_where_it_was_measured(framing, gemma, qwen):
    methods = choose_methods(["integrated-gradients", "grad-cam"])
    config = RunConfig(framing=framing)
    made = RunPlanner("", methods, shares_of_paper(["direct"]), config).plan()
    known = {(line.name, line.lvlm): line.memory for line in made.lines if line.memory is not None}
    assert known == {
        ("integrated-gradients", "gemma3_4b"): gemma,
        ("integrated-gradients", "qwen2_5_vl_3b"): qwen,
    }
    *_, graphs = run_plan_tables(made, 16)
    assert [row.cells[2] for row in graphs.rows] == [f"{16 * qwen:.3g}", f"{16 * gemma:.3g}"]


def test_records_tell_passes_seconds_and_bytes(config_for, grouped_bench, tmp_path, no_models_after):
    runs = tmp_path / "runs"
    reproduce(
        "table1", replace(config_for(runs=runs, methods=("grad-cam",), lvlms=["phantom_qwen"]), limit=2)
    )
    no_models_after()
    shares = shares_of(grouped_bench, ["direct", "reasoning"], ["phantom_qwen"])
    planner = RunPlanner("", choose_methods(["grad-cam"]), shares, records=[runs], seconds_per_forward=0.5)
    given = planner.plan()
    assert {(line.forward, line.backward, line.passes) for line in given.lines} == {(1, 1, "measured")}
    assert [(line.seconds, line.timed) for line in given.lines] == [(1.5, "given")] * 2
    size = sum(path.stat().st_size for path in (runs / "grad-cam").glob("phantom_qwen-direct.*"))
    (direct,) = [line for line in given.lines if line.split == "direct"]
    assert direct.bytes == pytest.approx(3 * size / 2, abs=6)
    direct_only = replace(planner, shares=shares[:1], seconds_per_forward=None).plan()
    assert [line.timed for line in direct_only.lines] == ["measured"]
    assert not direct_only.paces


@pytest.fixture
def no_models_after(monkeypatch):
    from .conftest import refuse_models

    return lambda: refuse_models(monkeypatch)


def test_an_lvlm_without_records_is_timed_once(grouped_bench):
    shares = shares_of(grouped_bench, ["direct", "reasoning"], ["phantom_qwen"])
    made = RunPlanner("", choose_methods(["grad-cam", "rise"]), shares).plan()
    (pace,) = made.paces
    assert (pace.lvlm, pace.origin) == ("phantom_qwen", "measured")
    assert {line.timed for line in made.lines} == {"measured"}
    assert [line.seconds for line in made.lines] == pytest.approx([3 * pace.seconds, 65 * pace.seconds] * 2)


def test_passes_of_other_settings_are_counted_on_a_phantom():
    words = ("--split", "direct", "--set", "integrated-gradients.steps=4", "--format", "json")
    status, shown, error = run("plan", "--paper", "--method", "integrated-gradients", *words)
    assert status == 0, error
    (line, *_) = Plan.model_validate_json(shown).lines
    assert (line.forward, line.backward, line.passes, line.timed) == (6, 4, "measured", "declared")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "give --benchmark, or --paper"),
        ("--paper -b phantom", "give --benchmark, or --paper"),
        ("--paper --split dev", "direct and reasoning"),
        ("--paper --lvlm phantom_qwen", "no samples of the LVLM 'phantom_qwen'"),
        ("--paper --method nonsense", "no method 'nonsense'"),
        ("--paper --method null:whole-image", "leave it out"),
        ("--paper --seconds-per-forward 0", "above 0"),
        ("--paper --records .", "holds no records"),
        ("-b nowhere", "nowhere"),
    ],
)
def test_bad_input_is_one_line(words, says, tmp_path, monkeypatch, no_models):
    monkeypatch.chdir(tmp_path)
    assert says in refused("plan", *words.split())


def test_an_lvlm_without_samples_is_refused(grouped_bench):
    with pytest.raises(InputError, match="only of phantom_gemma, phantom_qwen"):
        shares_of(grouped_bench, ["direct"], ["gemma3_4b"])
