"""Results as files, ranks that are shared, and what stands in a view."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.data.resolve import load_benchmark
from medfocus_bench.errors import InputError
from medfocus_bench.evaluation.compare import compare
from medfocus_bench.evaluation.groups import Groups
from medfocus_bench.evaluation.metrics.registry import metrics
from medfocus_bench.evaluation.nulls import NULL_CONTROLS
from medfocus_bench.evaluation.protocol import Settings
from medfocus_bench.evaluation.score import score_samples
from medfocus_bench.evaluation.statistics import holm, sign_flip_p_value
from medfocus_bench.leaderboard.board import make_board
from medfocus_bench.leaderboard.log import read_log
from medfocus_bench.leaderboard.pairwise_tests import (
    contributions,
    p_values,
    shared_ranks,
    significantly_better,
)
from medfocus_bench.leaderboard.result import read_result, read_results, result_text, selected
from medfocus_bench.leaderboard.scoring import score_result
from medfocus_bench.leaderboard.site import build_site
from tests.leaderboard.conftest import (
    NULLS,
    REPOSITORY,
    Entry,
    blurred,
    depending,
    oracle,
    pages,
    shifted,
    write_entry,
)


def test_every_view_is_the_slice_of_a_report_where_both_exist(board):
    result = board.result("noisy-a")
    slices = {(part.kind, part.value): part for part in result.report.slices}
    for view in result.views:
        given = [
            (kind, value)
            for kind, value in zip(("source", "lvlm", "mode", "evidence"), view.filters, strict=True)
            if value
        ]
        if len(given) > 1:
            continue
        part = slices[given[0]] if given else slices["all", "all"]
        assert (view.samples, view.patients) == (part.samples, part.patients)
        for name, score in view.scores.items():
            assert score.mean == pytest.approx(part.scores[name].mean, abs=1e-6)
            assert score.low == pytest.approx(part.scores[name].low, abs=1e-6)


def test_a_combination_that_selects_what_a_wider_one_does_is_left_out(board):
    filters = [view.filters for view in board.result("oracle").views]
    assert (None, None, None, None) in filters
    assert ("phantom", None, None, None) not in filters
    assert len(set(filters)) == len(filters) == 9  # (all, lesions, marks) x (all, direct, reasoning)
    assert (None, None, "direct", "lesion") in filters
    assert (None, "phantom_qwen", "direct", "lesion") not in filters


def test_the_samples_of_the_headline_average_to_the_view(board):
    result = board.result("noisy-b")
    for view in result.views:
        parts = selected(result.parts, view.filters)
        total = contributions([result], parts).sum()
        assert total == pytest.approx(view.scores["evidence_ap"].mean, abs=2e-6)


def test_the_p_values_of_pairs_are_those_of_compare_on_one_lvlm(board):
    """The normal limit against compare's own sign flips, for pairs that are close and pairs that are not.

    The few patients of these views differ much in how much they add, so that the limit is not near.
    """
    results = [board.result(name) for name in ("noisy-a", "noisy-b", "direct-only", "shifted")]
    direct = [part for part in results[0].parts if part[2] == "direct"]
    added = contributions(results, direct)
    limits = p_values(added)
    for a in range(len(results)):
        for b in range(a):
            exact = sign_flip_p_value(added[:, a] - added[:, b], Settings("standard", 0, 4000))
            assert limits[a, b] == pytest.approx(exact, abs=0.1)
    alone = "phantom_qwen"
    pair = [board.submissions / "noisy-a", board.submissions / "noisy-b"]
    (found,) = compare(pair, board.benchmark, lvlms=alone, resamples=4000).differences
    first, second = contributions(results[:2], [p for p in results[0].parts if p[1] == alone]).T
    flipped = sign_flip_p_value(first - second, Settings("standard", 0, 4000))
    assert found.p_value == pytest.approx(flipped, abs=0.02)


def test_the_decisions_are_holms():
    rng = np.random.default_rng(0)
    added = rng.normal(0, 0.01, (60, 8)) + np.array([0, 0, 0.002, 0.004, 0.005, 0.005, 0.01, 0.02])
    better = significantly_better(added, np.ones(8, dtype=bool))
    first, second = np.triu_indices(8, 1)
    adjusted = holm(p_values(added)[first, second].tolist())
    for a, b, p in zip(first, second, adjusted, strict=True):
        assert (better[a, b] or better[b, a]) == (p <= 0.05)
    assert better.any()
    assert not better.all()


def test_methods_that_agree_in_every_patient_never_differ():
    same = np.repeat(np.random.default_rng(1).random((40, 1)), 3, axis=1)
    assert not significantly_better(same * np.array([1, 1 + 1e-15, 1]), np.ones(3, dtype=bool)).any()


def test_rows_without_a_rank_change_no_decision_between_ranked_ones():
    """The test of the two is significant alone and among themselves, but not among twenty."""
    rng = np.random.default_rng(0)
    pair = np.repeat(rng.normal(0, 0.01, (60, 1)), 2, axis=1) + rng.normal([0, 0.0005], 0.001, (60, 2))
    added = np.concatenate([pair, rng.normal(0, 0.01, (60, 18))], axis=1)
    alone = significantly_better(pair, np.ones(2, dtype=bool))
    assert alone.sum() == 1
    among = significantly_better(added, np.arange(20) < 2)
    assert np.array_equal(among[:2, :2], alone)
    assert not significantly_better(added, np.ones(20, dtype=bool))[:2, :2].any()


def test_a_rank_counts_the_ranked_rows_that_are_better():
    better = np.zeros((4, 4), dtype=bool)
    better[0, [2, 3]] = better[1, [2, 3]] = True
    assert shared_ranks(better, np.array([True, True, True, False])) == [1, 1, 3, None]
    assert shared_ranks(better, np.array([False, True, True, True])) == [None, 1, 2, 2]


def test_only_verified_methods_have_a_rank_and_rows_that_differ_by_luck_share_it(made):
    """`boasting` is as good as `blurred`, and pushes nobody down, being self-reported. A blur is free."""
    rows = {row.result.name: row for row in made.view().rows}
    assert "boasting" in rows
    for row in rows.values():
        assert (row.rank is not None) == (row.result.verified and not row.result.is_null)
    assert (rows["oracle"].rank, rows["blurred"].rank) == (1, 1)
    assert rows["noisy-a"].rank == rows["noisy-b"].rank
    others = [r.rank for name, r in rows.items() if r.rank and name not in {"oracle", "blurred"}]
    assert min(others) == 3, {name: (r.rank, r.headline.mean) for name, r in rows.items()}


def test_a_row_that_does_not_depend_on_the_model_is_shown_and_not_ranked(board, tmp_path):
    results = {result.name: result for result in read_results(board.results)}
    ranked = {row.result.name: row.rank for row in make_board([*results.values()]).view().rows}
    results["oracle"] = depending(results["oracle"], 0.1, "its dependence on the model is 0.10, below 0.5")
    report = results["blurred"].report.model_copy(update={"dependence": None})
    results["blurred"] = results["blurred"].model_copy(update={"report": report})
    made = make_board([*results.values()])
    rows = {row.result.name: row for row in made.view().rows}
    assert rows["oracle"].rank is rows["blurred"].rank is None
    assert min(row.rank for row in rows.values() if row.rank) == 1
    assert {*list(rows)[:3]} == {"oracle", "blurred", "boasting"}, "they are shown where they were"
    assert ranked["noisy-a"] - rows["noisy-a"].rank == 2, "they push nobody down"
    for name, reason in (("oracle", "its dependence on the model is 0.10"), ("blurred", "not explained on")):
        assert results[name].unranked.startswith(reason)
        (tmp_path / f"{name}.json").write_text(result_text(results[name]))
    page = pages(build_site(tmp_path, tmp_path / "site"))
    assert 'title="its dependence on the model is 0.10, below 0.5">not ranked</span>' in page["index.html"]
    assert "This row has no rank: not explained on control" in page["methods/blurred.html"]


def test_a_submission_to_one_mode_stands_where_it_covers_everything(made):
    assert made.default.filters == (None, None, None, None), "the page begins with all samples"
    assert made.default.row("direct-only") is made.view().row("direct-only") is None
    assert made.view(mode="direct").row("direct-only") is not None
    assert made.view(lvlm="phantom_qwen", mode="direct").row("direct-only") is not None
    assert made.view(lvlm="phantom_gemma_twin", evidence="lesion") is None, "nobody covers these"


def test_the_page_begins_with_what_half_of_the_results_cover(board):
    results = read_results(board.results)
    partial = next(result for result in results if result.name == "direct-only")
    whole = [result for result in results if result.name != "direct-only"]
    copies = [partial.model_copy(update={"name": f"part-{n}"}) for n in range(len(whole))]
    assert make_board([*whole, *copies]).default.filters == (None, None, None, None)
    assert make_board([*whole, *copies, partial]).default.filters == (None, None, "direct", None)


def test_the_null_floor_is_the_best_null_control(made):
    for view in made.views:
        nulls = [row.headline.mean for row in view.rows if row.result.is_null]
        assert len(nulls) == len(NULLS)
        assert view.floor.headline.mean == max(nulls)


def test_results_of_another_version_are_kept_apart(board):
    results = read_results(board.results)
    other = json.loads(results[0].model_dump_json())
    other["name"], other["report"]["benchmark"]["fingerprint"] = "older", "0" * 64
    other["report"]["method"]["family"] = "other"
    mixed = make_board([*results, type(results[0]).model_validate(other)])
    assert [result.name for result in mixed.others] == ["older"]
    assert all(row.result.name != "older" for view in mixed.views for row in view.rows)


def test_results_of_another_evaluator_stay_readable_and_are_kept_apart_however_many(board):
    results = read_results(board.results)
    old = [json.loads(result.model_dump_json()) for result in results if not result.is_null] * 2
    for number, one in enumerate(old):
        one["name"] = f"old-{number}"
        one["report"]["provenance"]["evaluator_version"] = "0.1.0"
    earlier = [type(results[0]).model_validate(one) for one in old]
    mixed = make_board([*earlier, *results])
    assert {result.name for result in mixed.others} == {one["name"] for one in old}
    assert {row.result.name for view in mixed.views for row in view.rows} == {r.name for r in results}
    assert len(make_board(earlier).results) == len(old)  # alone, they can be looked at


def test_the_order_of_oracle_blurred_shifted_and_null_is_right_for_every_score(tmp_path):
    """Ranking sanity on a split of the phantom track."""
    track = load_benchmark("phantom")
    part = track.select(track.configs, ["dev"])
    part = replace(part, samples=part.samples[::10])
    explain = {"oracle": oracle, "blurred": blurred, "shifted": shifted, "null": _noise}
    scores = {}
    for name, of_sample in explain.items():
        folder = write_entry(tmp_path / name, Entry("other", of_sample, modes=("dev",)), part)
        result = score_result(folder, part, resamples=10)
        scores[name] = {metric: score.mean for metric, score in result.views[0].scores.items()}
    for metric in metrics():
        first, second, third, last = (scores[name][metric.name] for name in explain)
        assert first >= second - 1e-9, metric.name
        assert second > third > last, (metric.name, scores)


@pytest.mark.parametrize("evidence", ["lesion", "spurious"])
def test_nulls_stand_at_the_floor(evidence):
    """Each below the region itself when that is moved by half of its width."""
    track = load_benchmark("phantom", split="dev")
    samples = [sample for sample in track.samples if sample.evidence == evidence][::5]
    moved = ((s, Attribution(s.sample_id, saliency=shifted(s))) for s in samples)
    ceiling = mean_ap(samples, moved) - 0.05
    for name, control in NULL_CONTROLS.items():
        assert mean_ap(samples, control.make(samples, 0)) < ceiling, name


def mean_ap(samples, attributions) -> float:
    """The macro mean of the evidence AP."""
    scored = score_samples(samples, attributions, Settings())
    groups = Groups.of(samples)
    return float(groups.contributions(scored.columns(["evidence_ap"]), groups.macro()).sum())


@pytest.mark.data
def test_the_null_controls_are_the_floor_of_the_reference_submissions(tmp_path):
    """On all of the direct split: planted oracles first, then what works, the null controls at the floor.

    A moved oracle is a poor explanation, and better than each null on lesions, on marks and on both.
    """
    track = load_benchmark("phantom")
    results = list(read_results(REPOSITORY / "leaderboard" / "results"))
    for name, explain in {"planted": oracle, "planted-blurred": blurred, "planted-moved": shifted}.items():
        folder = write_entry(tmp_path / name, Entry("other", explain, modes=("direct",)), track)
        results.append(score_result(folder, track.select(track.configs, ["direct"]), resamples=50))
    board = make_board(results)
    for evidence in (None, "lesion", "spurious"):
        view = board.view(mode="direct", evidence=evidence)
        ranked = sorted(view.rows, key=lambda row: -row.headline.mean)
        assert [row.result.name for row in ranked[:2]] == ["planted", "planted-blurred"]
        floor = max(row.headline.high for row in view.rows if row.result.is_null)
        assert floor < view.row("planted-moved").headline.low, evidence
        above = {row.result.name for row in ranked[2:] if row.headline.low > floor}
        assert {"lrp", "token-activation-map", "integrated-gradients", "occlusion"} <= above, evidence


def _noise(sample):
    return np.random.default_rng(sample.index).random((16, 16)).astype(np.float16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(name="other"), "rename it"),
        (lambda v: v.update(extra=1), "Extra inputs"),
        (lambda v: v["views"][0]["scores"].pop("iou"), "lacks a score"),
        (lambda v: v["headline"]["cells"][0]["score"].pop(), "different lengths"),
        (lambda v: v["headline"]["cells"][0]["patient"].__setitem__(0, 10**5), "beyond the list"),
        (lambda v: v["report"]["method"].update(code="javascript:alert(1)"), "code"),
        (lambda v: v["report"]["method"].update(family="null"), "belong together"),
        (lambda v: v["report"]["provenance"].update(protocol="paper"), "standard protocol"),
        (lambda v: v["report"]["provenance"].update(status="trusted"), "status"),
    ],
)
def test_an_unsound_result_is_refused_with_its_place(board, tmp_path, change, message):
    value = json.loads((board.results / "oracle.json").read_bytes())
    change(value)
    path = tmp_path / "oracle.json"
    path.write_text(json.dumps(value))
    with pytest.raises(InputError, match=message) as error:
        read_result(path)
    assert str(error.value).startswith(f"{path}: ")


def test_not_a_number_is_no_score(board, tmp_path):
    text = (board.results / "oracle.json").read_text()
    path = tmp_path / "oracle.json"
    path.write_text(text.replace('"low":', '"low": NaN, "was":', 1))
    with pytest.raises(InputError):
        read_result(path)


def test_a_folder_without_results_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no results"):
        make_board(read_results(tmp_path))
    with pytest.raises(InputError, match="not a folder"):
        read_results(tmp_path / "none")


def test_a_log_names_the_line_at_fault(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(
        '{"date":"2026-11-01","event":"added","submission":"a","reason":"b"}\n\n{"date":"today"}\n'
    )
    with pytest.raises(InputError, match="line 3: /date"):
        read_log(path)
    assert read_log(tmp_path / "none.jsonl") == []
