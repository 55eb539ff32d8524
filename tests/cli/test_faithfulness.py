"""`faithfulness` on the command line, and with `leaderboard rebuild`."""

from __future__ import annotations

import json

import pytest

from medfocus_bench.data.writing import write_benchmark

from ..runs.conftest import track_rows
from .running import refused, run


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    rows = [row for row in track_rows("direct") if row["group"] == "grounded"][:2]
    return write_benchmark(
        tmp_path_factory.mktemp("two") / "bench", {"direct": rows}, name="two", version="1"
    )


def test_it_prints_a_table_of_each_and_writes_it(two, tmp_path):
    words = ("null:image-edges", "null:whole-image", "-b", two.folder, "--resamples", 20)
    status, shown, _ = run("faithfulness", *words, "--out", tmp_path / "out")
    assert status == 0
    assert "Faithfulness of null:image-edges" in shown
    assert "12 forward passes a sample" in shown
    assert shown.count("(0.000 to 0.000)") == 3 * (1 + len({sample.lvlm for sample in two.samples}))
    found = json.loads((tmp_path / "out" / "null-image-edges" / "faithfulness.json").read_text())
    assert found["samples"] == 2
    assert f"{found['faithfulness']['mean']:z.3f}" in shown


def test_a_shard_says_that_others_are_not_measured_yet(two, tmp_path):
    words = ("faithfulness", "null:image-edges", "-b", two.folder, "--out", tmp_path / "out")
    shown = {run(*words, "--shard", f"{number}/3")[1] for number in (1, 2, 3)}
    assert "null:image-edges: shard 1/3 is measured; others are not yet\n" in shown
    assert any("Faithfulness of" in text for text in shown)


def test_what_cannot_be_measured_is_refused_in_a_sentence(two, bench, tmp_path):
    out = ("--out", tmp_path / "out")
    assert "no null control 'edge'" in refused("faithfulness", "null:edge", "-b", two.folder, *out)
    assert "does not exist" in refused("faithfulness", tmp_path / "none", "-b", two.folder, *out)
    assert "no picture without its finding is known" in refused(
        "faithfulness", "null:centre-box", "-b", bench.folder, *out
    )


def test_options_of_rebuild_that_do_not_go_together_are_refused(two, tmp_path):
    (tmp_path / "submissions").mkdir()
    words = ("leaderboard", "rebuild", "--submissions", tmp_path / "submissions", "-b", two.folder)
    words += ("--results", tmp_path / "results")
    assert "--samples goes with --faithfulness" in refused(*words, "--samples", 3)
    assert "leave --check out" in refused(*words, "--faithfulness", "--check")
