"""Our ranking beside the paper's: the same taus as scipy's, the reasons true, the scores kept."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from medfocus_bench.errors import InputError
from medfocus_bench.evaluation.evaluate import evaluate
from medfocus_bench.leaderboard import convergence as module
from medfocus_bench.leaderboard.convergence import EVIDENCE, MEAN, PAPER_IOU, convergence, paper_scores
from medfocus_bench.leaderboard.convergence_tables import convergence_tables
from medfocus_bench.leaderboard.result import Result, read_results
from medfocus_bench.leaderboard.scoring import score_result
from medfocus_bench.paper.published import MAIN_DIRECT, SOURCES

from ..cli.running import run
from .conftest import REPOSITORY, Entry, blurred, noisy, oracle, shifted, small_track, write_entry

METHODS = {
    "lrp": Entry("attention", oracle),
    "attention-head": Entry("attention", noisy(2.0)),
    "grad-cam": Entry("gradient", blurred),
    "occlusion": Entry("perturbation", shifted, modes=("direct",)),
    "not-of-the-paper": Entry("other", oracle),
    "rise": Entry("perturbation", oracle, modes=("reasoning",)),
}


@pytest.fixture(scope="module")
def track():
    return small_track()


@pytest.fixture(scope="module")
def scored(track, tmp_path_factory):
    """A folder of submissions and the results of each."""
    folder = tmp_path_factory.mktemp("submissions")
    for name, entry in METHODS.items():
        write_entry(folder / name, entry, track)
    results = [score_result(folder / name, track, resamples=20, verified=True) for name in METHODS]
    return folder, results


@pytest.fixture(scope="module")
def shipped():
    return read_results(REPOSITORY / "leaderboard" / "results")


def test_the_shipped_results_share_the_twelve_methods_and_every_tau_is_scipys(shipped):
    table = convergence(shipped)
    assert {one.name for one in table.methods} == set(MAIN_DIRECT)
    assert len(table.agreements) == len(EVIDENCE) * (1 + len(SOURCES))
    (score,) = table.scores
    for one in table.agreements:
        ours = [method.ours[f"{score} {one.evidence}"] for method in table.methods]
        rows = [MAIN_DIRECT[method.name] for method in table.methods]
        iou = [
            np.mean([row[source][0] for source in SOURCES])
            if one.published == MEAN
            else row[one.published][0]
            for row in rows
        ]
        assert one.tau == pytest.approx(stats.kendalltau(ours, iou).statistic)
        assert one.methods == 12
        assert 0 < one.p_value <= 1


def test_every_pair_of_methods_is_counted_once_within_or_twice_across_families(shipped):
    table = convergence(shipped)
    pairs = sum(one.within for one in table.families) + sum(one.across for one in table.families) / 2
    tied = sum(
        one.ours["evidence_ap all"] == other.ours["evidence_ap all"] or one.published == other.published
        for n, one in enumerate(table.methods)
        for other in table.methods[:n]
    )
    assert pairs == 66 - tied


def test_the_reasons_say_what_the_published_table_shows():
    table = MAIN_DIRECT["gradient-weighted-attention"]
    iou, _, precision, recall = zip(*table.values(), strict=True)
    assert iou == pytest.approx(precision, abs=0.02)
    assert min(recall) == 99.9
    better = [name for name, row in MAIN_DIRECT.items() if row["imagenome"][0] > table["imagenome"][0]]
    assert better == ["medfocus"]
    own = [[row[source][0] for row in MAIN_DIRECT.values()] for source in SOURCES]
    assert stats.kendalltau(own[0], own[1]).statistic < 0.6
    assert stats.kendalltau(own[0], own[2]).statistic > 0.9


def test_only_methods_of_the_paper_with_direct_samples_are_compared(scored):
    _, results = scored
    table = convergence(results)
    assert [one.name for one in table.methods] == ["attention-head", "lrp", "grad-cam", "occlusion"]
    assert [one.applies for one in table.methods] == [True] * 4
    with pytest.raises(InputError, match="share 2 methods with the paper's table"):
        convergence([result for result in results if result.name in ("lrp", "grad-cam", "rise")])
    with pytest.raises(InputError, match="share 0 methods"):
        convergence([])


def test_scores_under_the_papers_protocol_are_those_of_evaluate_and_are_kept(
    scored, track, tmp_path, monkeypatch
):
    folder, results = scored
    found = paper_scores(folder, results, track, tmp_path / "kept")
    assert found.keys() == METHODS.keys() & MAIN_DIRECT.keys()
    direct = track.select(track.configs, ["direct"])
    report = evaluate(folder / "occlusion", direct, protocol="paper", nulls=False, resamples=20)
    assert found["occlusion"]["all"] == pytest.approx(report.headline["iou"].mean, abs=1e-6)
    for kind in ("lesion", "spurious"):
        mean = report.slice("evidence", kind).scores["iou"].mean
        assert found["occlusion"][kind] == pytest.approx(mean, abs=1e-6)

    table = convergence(results, found)
    assert table.scores == ["evidence_ap", PAPER_IOU]
    assert table.methods[1].ours[f"{PAPER_IOU} all"] == found["lrp"]["all"]

    monkeypatch.setattr(module, "_paper_iou", lambda *given: pytest.fail("scored again"))
    assert paper_scores(folder, results, track, tmp_path / "kept") == found
    kept = tmp_path / "kept" / "lrp.json"
    for text in ("{", kept.read_text().replace(json.loads(kept.read_text())["submission_sha256"], "0" * 64)):
        kept.write_text(text)
        with pytest.raises(pytest.fail.Exception):
            paper_scores(folder, results, track, tmp_path / "kept")


def test_a_ranking_that_lacks_a_method_is_left_out(scored, track):
    _, results = scored
    assert convergence(results, {"lrp": {"all": 0.5}}).scores == ["evidence_ap"]


def test_results_of_the_commonest_evaluator_are_compared(scored):
    _, results = scored
    version = results[0].report.provenance.evaluator_version
    old = [
        Result.model_validate_json(result.model_dump_json().replace(f'"{version}"', '"0.0"'))
        for result in results
        if result.name != "occlusion"
    ]
    assert old[0].report.provenance.evaluator_version == "0.0"
    table = convergence([*old, *results])
    assert table.evaluator_version == version
    assert [one.name for one in table.methods] == ["attention-head", "lrp", "grad-cam", "occlusion"]


def test_the_tables_name_methods_that_cannot_apply(shipped):
    table = convergence(shipped)
    silent = [one.title for one in table.methods if not one.applies]
    assert silent == ["Prompting", "Prompting + MedSAM"]
    assert table.applying[0].methods == 10
    *_, last = convergence_tables(table)
    assert any("Prompting and Prompting + MedSAM explain under half" in note for note in last.notes)
    assert "nothing here claims" in last.notes[-1]


def test_the_command_prints_the_table_and_refuses_options_of_runs(scored, tmp_path):
    _, results = scored
    written = tmp_path / "results"
    written.mkdir()
    for result in results:
        (written / f"{result.name}.json").write_text(result.model_dump_json())
    words = ("reproduce", "convergence", "--results", written, "--submissions", tmp_path / "none")
    status, shown, error = run(*words, "--out", tmp_path / "out")
    assert status == 0, error
    assert "Kendall's tau with the published IoU, direct mode (p), 4 methods" in shown
    status, shown, _ = run(*words, "--out", tmp_path / "out", "--format", "json")
    assert module.Convergence.model_validate_json(shown) == convergence(results)
    status, _, error = run(*words, "--out", tmp_path / "out", "--no-run")
    assert status == 2
    assert "--no-run does not go with convergence, which runs no LVLM" in error
    assert run("reproduce", "convergence", "--results", tmp_path / "nowhere")[0] == 2
