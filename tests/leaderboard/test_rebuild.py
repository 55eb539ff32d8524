"""Every committed result is what the raw attributions give."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from medfocus_bench.engine.choose import open_engine
from medfocus_bench.errors import InputError
from medfocus_bench.evaluation.nulls import NULL_CONTROLS
from medfocus_bench.leaderboard.rebuild import (
    MAX_DIFFERENCES,
    Rules,
    differences,
    entries,
    rebuild,
    stray_results,
)
from medfocus_bench.leaderboard.result import read_result, read_results, result_text

from ..cli.running import run
from ..toy import write_toy
from .flow import edit


@pytest.fixture
def place(original, tmp_path):
    """A repository that a test may change, and its benchmark."""
    folder, benchmark = original
    shutil.copytree(folder / "repository", tmp_path / "repository")
    return tmp_path / "repository", benchmark


def settled(place, *, only=(), workers=1, check=False, force=False):
    """The outcomes by name."""
    repository, benchmark = place
    rules = Rules(repository / "leaderboard" / "results", check=check, force=force)
    found = entries(repository / "submissions", only)
    with open_engine(workers=workers) as engine:
        return {outcome.name: outcome for outcome in rebuild(found, benchmark, rules, engine=engine)}


def result_file(place, name) -> Path:
    return place[0] / "leaderboard" / "results" / f"{name}.json"


def command(place, *words):
    repository, benchmark = place
    folders = (
        "--submissions",
        repository / "submissions",
        "--results",
        repository / "leaderboard" / "results",
    )
    return ("leaderboard", "rebuild", *folders, "-b", benchmark.folder, "--workers", 1, *words)


def test_every_submission_and_every_null_control_has_a_verified_result(place):
    results = read_results(place[0] / "leaderboard" / "results")
    nulls = {f"null-{name}" for name in NULL_CONTROLS}
    assert {result.name for result in results} == {"oracle", "shifted", "noisy"} | nulls
    assert all(result.verified for result in results)


def test_a_check_computes_what_is_up_to_date_and_finds_it_the_same(place):
    assert {outcome.status for outcome in settled(place, check=True).values()} == {"same"}


def test_two_processes_compute_what_one_does(place):
    only = ("oracle", "null-random-map")
    for name in only:
        result_file(place, name).unlink()
    outcomes = settled(place, only=only, workers=2)
    assert {outcome.status for outcome in outcomes.values()} == {"written"}
    assert {o.status for o in settled(place, only=only, check=True).values()} == {"same"}


def test_a_stopped_rebuild_goes_on_where_it_was(place):
    """Results that are up to date are not computed again."""
    result_file(place, "noisy").unlink()
    before = result_file(place, "oracle").stat().st_mtime_ns
    outcomes = settled(place)
    assert outcomes.pop("noisy").status == "written"
    assert {outcome.status for outcome in outcomes.values()} == {"current"}
    assert result_file(place, "oracle").stat().st_mtime_ns == before


def test_a_changed_submission_is_computed_again(place):
    edit(place[0] / "submissions" / "noisy", lambda document: document["attributions"].pop())
    edit(place[0] / "submissions" / "noisy", lambda document: document["method"].update(version="2"))
    # The map of the attribution that is gone belongs to nothing now, which makes the submission unsound.
    assert settled(place, only=["noisy"])["noisy"].status == "unsound"
    shutil.copytree(place[0] / "submissions" / "oracle", place[0] / "submissions" / "copy")
    edit(place[0] / "submissions" / "copy", lambda document: document["method"].update(name="copy"))
    assert settled(place, only=["copy"])["copy"].status == "written"
    edit(place[0] / "submissions" / "copy", lambda document: document["method"].update(version="2"))
    assert settled(place, only=["copy"])["copy"].status == "written"
    assert read_result(result_file(place, "copy")).report.method.version == "2"


@pytest.mark.parametrize(
    ("where", "figure"),
    [
        (("report", "slices", 0, "scores", "evidence_ap", "mean"), "/report/slices/0 (all: all)/scores/"),
        (("report", "slices", -1, "scores", "iou", "high"), "/scores/iou/high: is "),
        (("views", 0, "scores", "f1", "low"), "/views/0 (everything)/scores/f1/low: is "),
        (("headline", "cells", 0, "score", 3), "/headline/cells/0 (toy, toy_a, direct, lesion)/score/3: is "),
        (("report", "counts", "missing"), "/report/counts/missing: is "),
    ],
)
def test_a_check_names_the_figure_that_was_changed(place, where, figure):
    path = result_file(place, "noisy")
    value = json.loads(path.read_text())
    part = value
    for step in where[:-1]:
        part = part[step]
    part[where[-1]] += 1 if where[-1] == "missing" else 1e-5
    path.write_text(json.dumps(value))
    status, _, errors = run(*command(place, "--check", "--only", "noisy"))
    assert status == 1
    first = errors.splitlines()[0]
    assert first.startswith(f"{path}: ")
    assert figure in first
    assert "recomputed" in first
    assert path.read_text() == json.dumps(value)  # a check writes nothing


def test_a_check_lets_be_what_rounding_does(place):
    path = result_file(place, "noisy")
    value = json.loads(path.read_text())
    value["views"][0]["scores"]["iou"]["mean"] += 1e-6
    path.write_text(json.dumps(value))
    assert settled(place, check=True, only=["noisy"])["noisy"].status == "same"


def test_a_self_reported_result_is_not_what_a_check_computes(place):
    path = result_file(place, "noisy")
    path.write_text(path.read_text().replace('"verified"', '"self-reported"'))
    outcome = settled(place, check=True, only=["noisy"])["noisy"]
    assert outcome.status == "differs"
    assert "/report/provenance/status: is 'self-reported', recomputed 'verified'" in outcome.notes[0]
    assert settled(place, only=["noisy"])["noisy"].status == "written"


def test_a_result_without_a_submission_is_a_fault_and_one_that_is_yet_to_come_is_not(place):
    shutil.rmtree(place[0] / "submissions" / "shifted")
    result_file(place, "oracle").unlink()
    status, shown, errors = run(*command(place, "--check"))
    assert status == 1
    assert f"{result_file(place, 'shifted')}: has no submission; " in errors
    assert f"{result_file(place, 'oracle')}: is pending; " in errors
    assert "1 of 10 results are not as they should be" in errors
    assert "oracle: pending" in shown
    status, _, errors = run(*command(place))
    assert status == 1
    assert result_file(place, "shifted").exists()  # what was removed is for a person to decide
    assert result_file(place, "oracle").exists()


def test_an_unsound_submission_stops_no_other(place):
    (place[0] / "submissions" / "noisy" / "maps.safetensors").write_bytes(b"no maps")
    result_file(place, "oracle").unlink()
    status, shown, errors = run(*command(place))
    assert status == 2
    assert "noisy: unsound" in shown
    assert "oracle: written" in shown
    assert str(place[0] / "submissions" / "noisy" / "maps.safetensors") in errors
    assert "Traceback" not in errors


def test_an_unsound_result_is_a_fault_of_a_check_and_is_written_anew_otherwise(place):
    result_file(place, "noisy").write_text("{")
    outcome = settled(place, check=True, only=["noisy"])["noisy"]
    assert outcome.status == "unsound"
    assert outcome.notes[0].startswith(f"{result_file(place, 'noisy')}: ")
    assert settled(place, only=["noisy"])["noisy"].status == "written"


def test_a_result_of_an_older_version_of_the_benchmark_is_kept_unless_it_is_forged(place, tmp_path):
    newer = write_toy(tmp_path / "newer", patients=4, seed=1)
    outcomes = settled((place[0], newer), check=True, only=["oracle", "null-whole-image"])
    assert outcomes["oracle"].status == "kept"
    assert "its result is kept" in outcomes["oracle"].notes[0]
    assert outcomes["null-whole-image"].status == "differs"
    path = result_file(place, "oracle")
    sha256 = read_result(path).report.provenance.submission_sha256
    path.write_text(path.read_text().replace(sha256, "0" * 64))
    assert settled((place[0], newer), check=True, only=["oracle"])["oracle"].status == "unsound"


def test_a_null_control_that_the_benchmark_does_not_allow_has_no_result(place, make_benchmark, tmp_path):
    from ..conftest import make_row

    bare = make_benchmark([make_row(number) for number in range(3)])
    (tmp_path / "none").mkdir()
    rules = Rules(tmp_path / "results")
    found = {o.name: o.status for o in rebuild(entries(tmp_path / "none"), bare, rules)}
    assert found["null-both-lungs"] == found["null-image-edges"] == "unavailable"
    assert found["null-mean-map"] == "written"


def test_what_was_written_is_told_with_the_line_that_logs_it(place):
    result_file(place, "oracle").unlink()
    path = result_file(place, "noisy")
    value = json.loads(path.read_text())
    value["views"][0]["scores"]["evidence_ap"]["mean"] = 0.125
    value["report"]["provenance"]["evaluator_version"] = "0.0.1"
    path.write_text(json.dumps(value))
    status, shown, _ = run(*command(place))
    assert status == 0
    assert "to log it: medfocus-bench leaderboard log added oracle --reason ..." in shown
    assert "to log it: medfocus-bench leaderboard log rescored noisy --reason ..." in shown


def test_names_that_nothing_has_and_folders_that_are_not_there_are_refused(place, tmp_path):
    with pytest.raises(InputError, match="holds no 'nobody'"):
        entries(place[0] / "submissions", ["nobody"])
    with pytest.raises(InputError, match="not a folder"):
        entries(tmp_path / "nowhere")


def test_a_link_among_the_submissions_is_not_followed(place, tmp_path):
    shutil.copytree(place[0] / "submissions" / "oracle", tmp_path / "elsewhere")
    (place[0] / "submissions" / "linked").symlink_to(tmp_path / "elsewhere")
    assert "linked" not in {entry.name for entry in entries(place[0] / "submissions")}
    assert [o.name for o in stray_results(entries(place[0] / "submissions"), tmp_path)] == []


def test_many_differences_are_counted_and_few_are_named(place):
    one, other = (read_result(result_file(place, name)) for name in ("oracle", "noisy"))
    found = differences(one, other)
    assert len(found) == MAX_DIFFERENCES + 1
    assert found[-1].startswith("and ")
    assert differences(one, one) == []
    assert json.loads(result_text(one))["name"] == "oracle"


def test_a_result_holds_no_negative_zero(place):
    """Which would stand on the page, and in what `submit` prints, as -0.000."""
    path = result_file(place, "null-whole-image")
    value = json.loads(path.read_text(), parse_float=lambda text: text)
    assert "-0.0" not in json.dumps([value["views"], value["headline"]])
