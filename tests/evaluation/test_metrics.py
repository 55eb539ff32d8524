"""A score is a file: what a new one reaches without any other change."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from medfocus_bench import Attribution, evaluate
from medfocus_bench.errors import InputError
from medfocus_bench.evaluation.metrics import registry
from medfocus_bench.evaluation.metrics.metric import Metric
from medfocus_bench.evaluation.protocol import Settings
from medfocus_bench.evaluation.report_tables import report_summary, report_tables
from medfocus_bench.evaluation.score import score, score_samples
from medfocus_bench.leaderboard.result import read_result, result_text
from medfocus_bench.leaderboard.site import build_site
from medfocus_bench.tables import render_markdown

from ..conftest import make_row, write_submission

RESULTS = Path(__file__).parents[2] / "leaderboard" / "results"
PEAK = Metric("peak", "Peak", "The highest value, at most 1.", {"map"}, lambda given: 0.25)
HEALING = Metric("healing", "Healing", "What the LVLM says.", {"lvlm"}, lambda given: given.lvlm.answer)


@pytest.fixture
def add(monkeypatch):
    """Adds a score for the length of a test."""
    return lambda metric: monkeypatch.setitem(registry.registered(), metric.name, metric)


@pytest.fixture
def benchmark(make_benchmark):
    return make_benchmark([make_row(number, boxes=[[30, 20, 90, 80]]) for number in range(3)])


def test_a_new_score_is_in_the_report_of_a_method_and_of_every_null_control(add, benchmark, tmp_path):
    add(PEAK)
    folder = write_submission(tmp_path / "s", benchmark, lambda sample: sample.boxes, "boxes")
    report = evaluate(folder, benchmark, resamples=20)
    assert report.headline["peak"].mean == 0.25
    assert all(null.slices[0].scores["peak"].mean == 0.25 for null in report.nulls if not null.unavailable)
    assert "| Peak |" in render_markdown(report_tables(report))
    paper = evaluate(folder, benchmark, resamples=20, protocol="paper", nulls=False)
    assert list(paper.headline) == ["iou", "f1", "precision", "recall"]


def test_a_score_of_another_package_is_computed_anew_for_the_null_controls(add, benchmark, tmp_path):
    folder = write_submission(tmp_path / "s", benchmark, lambda sample: sample.boxes, "boxes")
    for value in (0.25, 0.5):
        add(Metric("peak", "Peak", "The highest value.", {"map"}, lambda given, value=value: value))
        nulls = evaluate(folder, benchmark, resamples=20).nulls
        assert {null.slices[0].scores["peak"].mean for null in nulls if not null.unavailable} == {value}


def test_scores_that_need_the_lvlm_are_skipped_without_one_and_the_report_says_so(add, benchmark, tmp_path):
    add(HEALING)
    folder = write_submission(tmp_path / "s", benchmark, lambda sample: sample.boxes, "boxes")
    report = evaluate(folder, benchmark, resamples=20, nulls=False)
    assert "healing" not in report.headline
    assert "not computed, as no LVLM was at hand: healing" in report_summary(report)
    sample = benchmark.samples[0]
    attribution = Attribution(sample.sample_id, boxes=sample.boxes)
    with pytest.raises(InputError, match="the score healing needs the LVLM"):
        score(attribution, sample, names=["healing"])


def test_scores_that_need_the_lvlm_are_given_that_of_the_sample(add, benchmark):
    add(HEALING)
    loaded = []

    def load_lvlm(name):
        loaded.append(name)
        return SimpleNamespace(answer=0.5)

    pairs = [(sample, Attribution(sample.sample_id, boxes=sample.boxes)) for sample in benchmark.samples]
    scored = score_samples(benchmark.samples, pairs, Settings(), load_lvlm=load_lvlm)
    assert scored.columns(["healing"]).tolist() == [[0.5]] * 3
    assert loaded == [sample.lvlm for sample in benchmark.samples]
    assert scored.skipped == ()


def payload(page: str):
    (block,) = re.findall(r'<script type="application/json" id="board-data">(.*?)</script>', page, re.DOTALL)
    return json.loads(block)


def test_a_result_of_before_a_score_existed_is_shown_with_a_dash(add, tmp_path):
    names = ("medfocus", "rise", "null-mean-map")
    for name in names:
        old = read_result(RESULTS / f"{name}.json")
        (tmp_path / "results").mkdir(exist_ok=True)
        (tmp_path / "results" / f"{name}.json").write_text(result_text(old))
    before = payload(build_site(tmp_path / "results", tmp_path / "before").index.read_text())
    add(PEAK)
    index = build_site(tmp_path / "results", tmp_path / "site").index
    data = payload(index.read_text())
    assert data["metrics"] == [*before["metrics"], ["peak", "Peak", "The highest value, at most 1.", False]]
    assert data["headline"] == "evidence_ap"
    for key, view in data["views"].items():
        ranks = [row[:2] for row in view["rows"]]
        assert ranks == [row[:2] for row in before["views"][key]["rows"]]
        assert all(row[-3:] == [None, None, None] for row in view["rows"])
    cells = "".join(index.read_text().split()) + "".join(
        (index.parent / "methods/rise.html").read_text().split()
    )
    assert len(re.findall(r"<td[^>]*>\N{EN DASH}</td>", cells)) > len(names)
    assert "The highest value, at most 1." in (index.parent / "how-to-read.html").read_text()


def test_a_result_with_a_score_that_was_dropped_is_read_and_the_page_leaves_it_out(tmp_path):
    text = (RESULTS / "rise.json").read_text().replace('"pointing"', '"dropped"')
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "rise.json").write_text(text)
    data = payload(build_site(tmp_path / "results", tmp_path / "site").index.read_text())
    assert "dropped" not in [name for name, *_ in data["metrics"]]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [('"iou"', '"was"', "lacks a score that another one has"), ('"evidence_ap"', '"ap"', "is missing")],
)
def test_a_result_whose_views_disagree_or_lack_the_headline_is_refused(old, new, said, tmp_path):
    text = (RESULTS / "rise.json").read_text()
    (tmp_path / "rise.json").write_text(text.replace(old, new, 1 if old == '"iou"' else -1))
    with pytest.raises(InputError, match=said):
        read_result(tmp_path / "rise.json")


def test_an_entry_point_adds_a_score_and_cannot_take_a_name(monkeypatch):
    def installed(found):
        entry = SimpleNamespace(value="other:METRIC", load=lambda: found)
        monkeypatch.setattr(registry, "entry_points", lambda group: [entry])
        return registry.registered.__wrapped__()

    assert "peak" in installed(PEAK)
    with pytest.raises(InputError, match="other:METRIC: a score 'iou' exists already"):
        installed(Metric("iou", "IoU", "", {"boxes"}, lambda given: 0.0))
    with pytest.raises(InputError, match="other:METRIC: is not a Metric"):
        installed("text")
