"""The cost of a table, before it is run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from medfocus_bench.errors import InputError
from medfocus_bench.lvlm.registry import load_lvlm
from medfocus_bench.paper import figures
from medfocus_bench.paper import plan as planning
from medfocus_bench.paper.costs import BACKWARD, DECLARED, LINE_BYTES, WRITING, Passes, Plan
from medfocus_bench.paper.plan import plan_tables
from medfocus_bench.paper.reproduce import plan_of, reproduce
from medfocus_bench.paper.tables import METHODS, TABLES
from medfocus_bench.runs.methods import choose_methods


def test_declared_passes_are_those_that_the_methods_make(grouped_bench):
    lvlm = load_lvlm("phantom_qwen")
    sample = next(s for s in grouped_bench.samples if (s.lvlm, s.split) == ("phantom_qwen", "direct"))
    example = lvlm.encode(sample.image, sample.question, sample.response)
    for name in METHODS:
        if name not in WRITING:
            method, declared = choose_methods([name])[0].load("phantom_qwen", "direct"), DECLARED[name]
            with lvlm.measured() as passes:
                saliency = method.explain(lvlm, example).saliency
            made = (passes.forward_passes, passes.backward_passes)
            assert made == (declared.forward, declared.backward), name
            assert (0 if saliency is None else 4 * saliency.size) <= declared.map_bytes, name


def test_the_plan_of_a_pace_that_is_given_loads_nothing(config_for, no_models, tmp_path):
    config = config_for(runs=tmp_path / "none", methods=("grad-cam", "occlusion"), lvlms=["phantom_qwen"])
    made = plan_of("table1", config, 0.5)
    grad_cam, occlusion = made.lines
    assert (grad_cam.samples, grad_cam.missing, grad_cam.passes) == (3, 3, "declared")
    assert grad_cam.hours == pytest.approx(3 * (1 + BACKWARD) * 0.5 / 3600)
    assert occlusion.hours == pytest.approx(3 * 65 * 0.5 / 3600)
    assert made.hours == pytest.approx(grad_cam.hours + occlusion.hours)
    assert made.forwards == 3 * (1 + BACKWARD) + 3 * 65
    assert made.bytes == sum(3 * (LINE_BYTES + DECLARED[line.name].map_bytes) for line in made.lines)
    assert [(pace.seconds, pace.origin) for pace in made.paces] == [(0.5, "given")]
    assert Plan.model_validate_json((config.out / "table1-plan.json").read_bytes()) == made
    (table,) = plan_tables(made)
    assert "given" in table.notes[0]
    assert table.rows[-1].cells[2] == "6"


def test_existing_records_are_not_planned_again_and_state_their_own_passes(config_for, tmp_path, monkeypatch):
    config = config_for(runs=tmp_path / "runs", methods=("grad-cam",), lvlms=["phantom_qwen"])
    reproduce("table1", replace(config, limit=1))
    monkeypatch.setitem(planning.DECLARED, "grad-cam", Passes(99, 99, 10**6))
    (line,) = plan_of("table1", config, 1.0).lines
    assert (line.samples, line.missing, line.passes) == (3, 2, "measured")
    assert (line.forward, line.backward) == (1, 1)
    assert line.bytes < 10**5


def test_without_a_pace_every_lvlm_is_timed_with_a_few_passes(config_for, tmp_path):
    made = plan_of("table1", config_for(runs=tmp_path / "none", methods=("grad-cam",)))
    assert [pace.lvlm for pace in made.paces] == ["phantom_gemma", "phantom_qwen"]
    assert all(pace.origin == "measured" and pace.seconds > 0 for pace in made.paces)
    assert not (tmp_path / "none").exists(), "a plan makes no records"


def test_every_table_has_a_plan(config_for, no_models):
    for name in TABLES:
        made = plan_of(name, config_for(limit=1), 0.1)
        assert made.target == name
        assert (len(made.lines) == 0) == (name == "table2"), "only counting needs no run"


def test_panels_are_few_unless_a_limit_is_given(config_for, no_models, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "MAX_PANELS", 3)
    for limit, samples in ((None, 3), (2, 6)):
        made = plan_of("fig5", config_for(runs=tmp_path / "none", limit=limit), 0.1)
        assert sum(line.samples for line in made.lines) == samples


@pytest.mark.parametrize("pace", [0.0, -1.0, float("nan"), float("inf")])
def test_a_pace_without_a_time_is_refused(config_for, pace):
    with pytest.raises(InputError, match="above 0"):
        plan_of("table1", config_for(), pace)
