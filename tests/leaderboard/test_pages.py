"""The text of the pages of methods, of LVLMs and of advice."""

from __future__ import annotations

import html
import re
from pathlib import Path

import numpy as np

from medfocus_bench.cli.attribution import submitter_of
from medfocus_bench.evaluation.metrics.registry import metrics
from medfocus_bench.leaderboard.gallery import EACH, KINDS
from medfocus_bench.leaderboard.result import result_text
from medfocus_bench.leaderboard.scoring import score_result
from medfocus_bench.leaderboard.site import build_site
from medfocus_bench.lvlm.models import PAPER_LVLMS
from medfocus_bench.phantom import PHANTOM_LVLMS
from tests.leaderboard.conftest import Entry, pages, write_entry

ROOT = Path(__file__).parents[2]


def test_the_gallery_says_in_print_what_its_pictures_show(board, tmp_path):
    silent = write_entry(
        tmp_path / "submissions" / "silent",
        Entry("prompting", lambda sample: np.zeros((4, 4), np.float32)),
        board.benchmark,
    )
    results = tmp_path / "results"
    results.mkdir()
    made = [board.result("oracle"), board.result("blurred")]
    for result in (*made, score_result(silent, board.benchmark, resamples=50)):
        (results / f"{result.name}.json").write_text(result_text(result))
    for result in made:
        (tmp_path / "submissions" / result.name).symlink_to(board.submissions / result.name)
    built = build_site(
        results, tmp_path / "site", submissions=tmp_path / "submissions", benchmark=board.benchmark
    )
    text = pages(built)
    boxes, map_, nothing = (text[f"methods/{name}.html"] for name in ("oracle", "blurred", "silent"))
    every = len(KINDS) * EACH
    assert boxes.count("Right: its boxes in yellow.") == map_.count("Right: its map.") == every
    assert nothing.count("Right, darkened: no explanation (") == every
    assert "Tokens of the response by the weight" in boxes
    assert "Tokens of the response by the weight" not in map_
    assert "No sample scores above 0; of equals, three are shown." in nothing
    assert "No sample scores below 0; of the samples that score 0" in nothing
    assert "No sample scores" not in map_


def test_shared_ranks_are_marked_in_every_table(made, site):
    shared = {"index.html": made.default, "lvlms/phantom_qwen.html": made.view(lvlm="phantom_qwen")}
    for name, view in shared.items():
        ranks = [row.rank for row in view.rows]
        assert any(rank and ranks.count(rank) > 1 for rank in ranks)
        for row in view.rows:
            cell = str(row.rank or "\N{EN DASH}")
            if row.rank and ranks.count(row.rank) > 1:
                cell += '<abbr class="tie" title="shared rank">=</abbr>'
            start = "" if name == "index.html" else "../"
            assert (
                f'<td class="n">{cell}</td><th scope="row"><a href="{start}methods/{row.result.name}.html">'
                in (pages(site)[name])
            )


def test_every_lvlm_of_the_registry_has_a_line_on_what_it_is():
    template = (ROOT / "medfocus_bench" / "leaderboard" / "templates" / "lvlm.html").read_text()
    assert set(re.findall(r'^  "(\w+)": "', template, re.MULTILINE)) == {*PHANTOM_LVLMS, *PAPER_LVLMS}


def test_the_page_of_an_lvlm_says_what_it_is_and_what_its_evidence_is(site):
    lesion, mark = (pages(site)[f"lvlms/{name}.html"] for name in ("phantom_qwen", "phantom_gemma_twin"))
    assert "A tiny Qwen2.5-VL, trained for this benchmark to answer by the finding." in lesion
    assert "The verified evidence of its answers is the lesion." in lesion
    assert "The verified evidence of its answers is a spurious mark" in mark
    assert "null floor: what looking at no model gets" in lesion
    assert "1 submission without all of these samples is not listed." in lesion


def test_the_commands_that_a_submitter_is_told_cover_both_modes_and_give_an_account(site):
    text = html.unescape(pages(site)["how-to-submit.html"])
    assert "--split direct --split reasoning --out run" in text
    assert '--submitter "Your Name <https://github.com/YOU>"' in text
    assert submitter_of("Your Name <https://github.com/YOU>")["url"] == "https://github.com/YOU"


def test_the_scores_are_explained_by_the_names_that_the_tables_give_them(site):
    text = pages(site)["how-to-read.html"]
    for metric in metrics():
        assert re.search(rf"(?:<dt>|, ){re.escape(metric.label)}(?:, |</dt>)", text) or (
            metric.name == "evidence_ap"
        )


def test_a_pull_request_of_any_kind_starts_with_a_checklist():
    """GitHub takes the named template only where an address asks for it."""
    usual = (ROOT / ".github" / "pull_request_template.md").read_text()
    named = (ROOT / ".github" / "PULL_REQUEST_TEMPLATE" / "submission.md").read_text()
    asked = [line for line in named.splitlines() if line.startswith(("- [ ]", "**"))]
    assert len(asked) > 5
    assert all(line in usual.splitlines() for line in asked)
