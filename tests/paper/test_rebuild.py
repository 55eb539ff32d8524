"""From raw copies to a table: the causal filter first, with an editor that can really remove the findings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import ClassVar

import numpy as np
import pytest

from medfocus_bench.counterfactual.editors import Edit
from medfocus_bench.counterfactual.records import read_verifications
from medfocus_bench.data.questions import Question
from medfocus_bench.data.resolve import load_benchmark
from medfocus_bench.data.sources import open_source
from medfocus_bench.errors import InputError
from medfocus_bench.paper import rebuild as rebuilding
from medfocus_bench.paper.document import Reproduction
from medfocus_bench.paper.rebuild import RebuildConfig, plan_rebuild, rebuild
from medfocus_bench.phantom.editor import PhantomEditor
from medfocus_bench.phantom.track import patient_of
from medfocus_bench.runs.config import RunConfig
from medfocus_bench.runs.settings import read_settings

from ..cli.running import run
from ..data import source_trees as trees
from .conftest import refuse_models


@dataclass(frozen=True)
class TreeEditor:
    """Renders the phantoms of the fixture tree again: a picture is told by its likeness."""

    name: ClassVar[str] = "tree"
    version: ClassVar[str] = "1"

    def redraw(self, question: Question, edit: Edit, region: np.ndarray, seed: int) -> np.ndarray:
        shown = question.image.astype(float)
        numbers = range(len(trees.IMAGENOME_IDS))
        likeness = [np.abs(shown - trees.phantom_question(number).image).mean() for number in numbers]
        wide = question.image.copy()
        wide[:, : trees.SIDE] = redrawn(int(np.argmin(likeness)), edit, seed)
        return wide


@cache
def redrawn(number: int, edit: Edit, seed: int) -> np.ndarray:
    phantom = trees.phantom_question(number)
    inner = replace(phantom, image=np.ascontiguousarray(phantom.image[:, : trees.SIDE]))
    return PhantomEditor(patient_of).redraw(inner, edit, np.ones(inner.image.shape, dtype=bool), seed)


@pytest.fixture
def root(tmp_path):
    trees.write_imagenome(tmp_path / "copies")
    return tmp_path / "copies"


@pytest.fixture
def order(root, tmp_path):
    def make(**more) -> RebuildConfig:
        given = {
            "sources": [open_source("imagenome")],
            "root": root,
            "editor": TreeEditor(),
            "folder": tmp_path / "out",
            "lvlms": ["phantom_qwen"],
            "modes": ["direct"],
        }
        return RebuildConfig(**{**given, **more})

    return make


def test_a_benchmark_is_rebuilt_from_raw_data_with_every_group(order, monkeypatch):
    made = rebuild(order())
    benchmark = made.attached.benchmark
    assert made.failures == ()
    assert {sample.source for sample in benchmark.samples} == {"imagenome"}
    assert len(benchmark.samples) >= 3, "the editor removes what the tiny model looks at"
    assert benchmark.attachment.licensed
    assert load_benchmark(order().folder / "benchmark").fingerprint == benchmark.fingerprint
    refuse_models(monkeypatch)
    again = rebuild(order())
    assert again.attached.benchmark.fingerprint == benchmark.fingerprint


def test_a_stopped_filter_is_gone_on_with(order):
    rebuild(order(limit=6))
    file = order().file("imagenome", "phantom_qwen", "direct")
    before = file.read_text()
    rebuild(order(limit=9))
    assert file.read_text().startswith(before)
    assert len(file.read_text().splitlines()) == 9


def test_a_filter_of_another_decoding_is_not_taken_for_this_one(order):
    rebuild(order(limit=6))
    with pytest.raises(InputError, match=r"greedy decoding, .* not of .*, checkpoint decoding"):
        rebuild(order(limit=6, run_config=RunConfig(decoding="checkpoint")))


def test_a_picture_that_is_gone_is_told_and_shifts_nothing(order, root):
    """Trap 18."""
    whole = {sample.sample_id for sample in rebuild(order(limit=6)).attached.benchmark.samples}
    gone = root / order().annotations["imagenome"].questions[0].image_ref
    gone.unlink()
    order().file("imagenome", "phantom_qwen", "direct").unlink()
    made = rebuild(order(limit=6))
    lost = {failure.index for failure in made.failures}
    assert 0 in lost
    assert all(gone.name in failure.reason for failure in made.failures)
    kept = {sample.sample_id for sample in made.attached.benchmark.samples}
    assert kept == {name for name in whole if int(name.split("-")[1]) not in lost}


def test_the_plan_of_the_filter_counts_pictures_and_tokens(order, monkeypatch):
    made = plan_rebuild("table1", "title", order(modes=["direct", "reasoning"], lvlms=["phantom_qwen"]), 0.5)
    direct, reasoning = made.lines
    assert (direct.samples, direct.missing) == (12, 12)
    assert direct.forward == 5 * rebuilding.TOKENS["direct"]
    assert reasoning.hours == pytest.approx(12 * 5 * rebuilding.TOKENS["reasoning"] * 0.5 / 3600)
    timed = plan_rebuild("table1", "title", order())
    assert timed.paces[0].origin == "measured"
    rebuild(order(limit=6))
    refuse_models(monkeypatch)
    assert [line.missing for line in plan_rebuild("table1", "title", order(limit=6)).lines] == [0]


def test_the_command_goes_from_raw_copies_to_a_table(root, tmp_path, monkeypatch):
    from medfocus_bench.counterfactual import registry

    monkeypatch.setattr(registry, "load_editor", lambda name, **settings: TreeEditor(**settings))
    words = ["--root", root, "--source", "imagenome", "--lvlm", "phantom_qwen", "--editor", "tree"]
    words += ["--mode", "direct", "--out", tmp_path / "out", "--resamples", 20, "--limit", 6]
    as_json = ("--format", "json")
    status, shown, error = run("reproduce", "table1", *words, "--method", "grad-cam", *as_json)
    assert status == 0, error
    (filtered,) = (tmp_path / "out" / "filter").glob("*.jsonl")
    assert {record.decoding for record in read_verifications(filtered)} == {"checkpoint"}
    assert read_settings(tmp_path / "out" / "runs" / "grad-cam").decoding == "checkpoint"
    samples = load_benchmark(tmp_path / "out" / "benchmark").samples
    assert {sample.decoding for sample in samples} == {"checkpoint"}
    assert "1,405 were published" in error
    document = Reproduction.model_validate_json(shown)
    line = document.sections[0].lines[0]
    assert (line.name, document.sections[0].title) == ("Grad-CAM", "imagenome")
    assert line.entries["paper_iou"].published == 34.47
    status, shown, error = run("reproduce", "table5", *words, "--references", "phantom", *as_json)
    assert status == 0, error
    lines = {one.name: one for one in Reproduction.model_validate_json(shown).sections[0].lines}
    shares = [lines[group].entries["share"].ours.value for group in ("incorrect", "ungrounded", "grounded")]
    assert sum(shares) == pytest.approx(100)
    assert lines["incorrect"].samples + lines["ungrounded"].samples > 0
    status, shown, _ = run("reproduce", "table1", *words, "--dry-run", "--seconds-per-forward", 1)
    assert status == 0
    assert "causal filter, imagenome, phantom_qwen direct" in shown


def test_nothing_grounded_is_said(order):
    @dataclass(frozen=True)
    class Idle(TreeEditor):
        def redraw(self, question, edit, region, seed):
            return question.image

    with pytest.raises(InputError, match="no row is grounded"):
        rebuild(order(editor=Idle(), limit=2))
